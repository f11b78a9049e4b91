"""Clients of the simulator, sync and async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
from openai_harness import MODES, settled

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Simulator

Clients = Callable[..., Any]

CLASSES = {
    ("openai", "sync"): openai.OpenAI,
    ("openai", "async"): openai.AsyncOpenAI,
    ("azure", "sync"): openai.AzureOpenAI,
    ("azure", "async"): openai.AsyncAzureOpenAI,
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def clients(sim: Simulator) -> AsyncIterator[Clients]:
    """Makes clients, and closes them. Without certificates: loading them takes longer than a whole test."""
    made: list[Any] = []

    def make(mode: str, base_url: str | None = None, *, kind: str = "openai", cls: Any = None, **options: Any) -> Any:
        if (base_url or "").startswith("http://127.0.0.1") and ("/host/" not in base_url or "/strict" in base_url):
            tb.map_host(base_url, "openai")  # who imitates OpenAI in everything, or in all but one thing
        options.setdefault("api_key", "any")
        options.setdefault("max_retries", 0)
        if kind == "azure":
            options |= {"azure_endpoint": base_url or sim.azure_url, "api_version": "2024-10-21"}
        else:
            options["base_url"] = base_url or sim.openai_url
        if "http_client" not in options:
            http = openai.DefaultAsyncHttpxClient if mode == "async" else openai.DefaultHttpxClient
            options["http_client"] = http(verify=False)
        client = (cls or CLASSES[kind, mode])(**options)
        made.append(client)
        return client

    yield make
    for client in made:
        await settled(client.close())


@pytest.fixture
def client(clients: Clients, mode: str) -> Any:
    return clients(mode)
