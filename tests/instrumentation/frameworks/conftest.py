"""A stand for every test of a framework, closed behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from framework_harness import PARTS, Stand

from tokenbudget_otel.simulator import Behaviour, Simulator


@pytest.fixture
def stand(sim: Simulator) -> Iterator[Stand]:
    sim.default = Behaviour(**PARTS)
    made = Stand(sim)
    yield made
    made.close()
