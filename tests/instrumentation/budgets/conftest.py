"""A door with budgets: both SDKs instrumented, and what they did in reach."""

from __future__ import annotations

import pytest
from door_sdks import SDKS, Sdk


@pytest.fixture(params=SDKS, ids=str)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    """Each SDK in turn."""
    return request.param


@pytest.fixture(params=(False, True), ids=("sync", "async"))
def asynchronous(request: pytest.FixtureRequest) -> bool:
    """The sync and the async client in turn."""
    return request.param
