"""Clients of the simulator, sync and async."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from batch_jobs import MODES, client_of, settled

from tokenbudget_otel.simulator import Simulator


@pytest.fixture(autouse=True)
def _quiet_httpcore(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def clients(sim: Simulator) -> AsyncIterator[Callable[..., Any]]:
    """Makes clients, and closes them."""
    made: list[Any] = []

    def make(kind: str = "openai", mode: str = "sync") -> Any:
        made.append(client_of(sim, kind, mode))
        return made[-1]

    yield make
    for client in made:
        await settled(client.close())


@pytest.fixture
def client(clients: Callable[..., Any], mode: str) -> Any:
    return clients("openai", mode)


@pytest.fixture
def claude(clients: Callable[..., Any], mode: str) -> Any:
    return clients("anthropic", mode)
