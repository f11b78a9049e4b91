"""Clients of the real SDKs that talk to one simulator and check each answer against the SDK's types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tokenbudget_otel.simulator import Simulator

STRICT: dict[str, Any] = {"api_key": "any", "max_retries": 0, "timeout": 10, "_strict_response_validation": True}


class Clients:
    """SDK clients by name, made once."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self._made: dict[tuple[str, bool], Any] = {}

    def get(self, name: str, asynchronous: bool = False) -> Any:
        key = (name, asynchronous)
        if key not in self._made:
            self._made[key] = self._make(name, asynchronous)
        return self._made[key]

    def _make(self, name: str, asynchronous: bool) -> Any:
        # When it is strict the SDK refuses what the real APIs send: embeddings in base64 (which it asks for),
        # legacy chunks without a finish_reason, Azure's first chunk without a name for its kind of object.
        name, _, lenient = name.partition(" ")
        options = STRICT | {"_strict_response_validation": not lenient}
        if name == "anthropic":
            kind: Any = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
            return kind(base_url=self.sim.anthropic_url, **options)
        if name == "azure":
            kind = openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI
            return kind(azure_endpoint=self.sim.azure_url, api_version="2025-04-01-preview", **options)
        kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
        url = self.sim.openai_url if name == "openai" else self.sim.host_url(name)
        return kind(base_url=url, **options)


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    with Simulator(seed=7) as sim:
        yield sim


@pytest.fixture
def sim(running: Simulator) -> Simulator:
    running.reset()
    return running


@pytest.fixture
def clients(sim: Simulator) -> Clients:
    # Not shared among tests: an async client belongs to the loop of its test.
    return Clients(sim)
