"""The Anthropic SDK before the simulator."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from anthropic_doors import client_of

from tokenbudget_otel.simulator import Simulator


@pytest.fixture(params=(False, True), ids=("sync", "async"))
def asynchronous(request: pytest.FixtureRequest) -> bool:
    """The sync and the async client in turn."""
    return bool(request.param)


@pytest.fixture
def client(sim: Simulator, asynchronous: bool) -> Any:
    """A client of the SDK, sync and async in turn."""
    return client_of(sim, asynchronous)


@pytest.fixture(autouse=True)
def _quiet_httpcore(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
