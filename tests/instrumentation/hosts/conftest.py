"""Clients of the hosts that the simulator imitates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tokenbudget_otel.instrumentation import guard, hosts
from tokenbudget_otel.pricing import price_book
from tokenbudget_otel.simulator import Simulator


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is named, told and registered here is forgotten afterwards."""
    monkeypatch.setattr(hosts, "_configured", dict(hosts._configured))
    monkeypatch.setattr(guard, "_told", set())
    yield
    price_book().reset()


@pytest.fixture
def client_at(sim: Simulator) -> Iterator[Callable[..., Any]]:
    """Makes clients of a host of the simulator; ``provider`` names it."""
    made: list[openai.OpenAI] = []

    def make(host: str, provider: str | None = None) -> openai.OpenAI:
        base_url = sim.host_url(host)
        if provider is not None:
            hosts.map_host(base_url, provider)
        # Without certificates: loading them takes longer than a whole test.
        http = openai.DefaultHttpxClient(verify=False)
        made.append(openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, http_client=http))
        return made[-1]

    yield make
    for client in made:
        client.close()
