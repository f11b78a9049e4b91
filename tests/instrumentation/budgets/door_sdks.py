"""Both SDKs behind one face, so that a case of budgets at the door is written once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai

import tokenbudget_otel as tb
from both_modes import each as each
from both_modes import settled as settled
from tokenbudget_otel.instrumentation import deferred
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.simulator import Billed, Simulator

MESSAGES = [{"role": "user", "content": "Tell me a story."}]


@dataclass(frozen=True)
class Sdk:
    """One SDK: how a client is made, and how a small chat call is made with it."""

    name: str
    model: str
    unpriced: str
    classes: tuple[Any, Any]
    http: tuple[Any, Any]
    method: Callable[[Any], Any]
    url: Callable[[Simulator], str]
    status_error: type[Exception]

    def client(self, sim: Simulator, asynchronous: bool = False, **options: Any) -> Any:
        given = {"base_url": self.url(sim), "api_key": "any", "max_retries": 0, "timeout": 30} | options
        # Reading the certificates takes longer than most tests.
        given.setdefault("http_client", self.http[asynchronous](verify=False))
        return self.classes[asynchronous](**given)

    def call(self, client: Any, **body: Any) -> Any:
        """A chat call; to be awaited where the client is async."""
        return self.method(client)(**({"model": self.model, "max_tokens": 3000, "messages": MESSAGES} | body))

    def true_cost(self, billed: Billed) -> int:
        """What an answered request really cost, in nano-USD: the provider's books times our prices."""
        usage = tb.TokenUsage(input_tokens=billed.usage.input_tokens, output_tokens=billed.usage.output_tokens)
        cost = tb.calculate_cost(billed.model, usage, provider=self.name)
        assert cost is not None
        assert cost.nano_usd is not None
        return cost.nano_usd

    def __str__(self) -> str:
        return self.name


ANTHROPIC = Sdk(
    "anthropic",
    "claude-sonnet-4-6",
    "claude-of-tomorrow",
    (anthropic.Anthropic, anthropic.AsyncAnthropic),
    (anthropic.DefaultHttpxClient, anthropic.DefaultAsyncHttpxClient),
    lambda client: client.messages.create,
    lambda sim: sim.anthropic_url,
    anthropic.APIStatusError,
)
OPENAI = Sdk(
    "openai",
    "gpt-4o",
    "gpt-of-tomorrow",
    (openai.OpenAI, openai.AsyncOpenAI),
    (openai.DefaultHttpxClient, openai.DefaultAsyncHttpxClient),
    lambda client: client.chat.completions.create,
    lambda sim: sim.openai_url,
    openai.APIStatusError,
)
SDKS = (ANTHROPIC, OPENAI)


async def read_out(stream: Any) -> None:
    async for _ in each(stream):
        pass


def collected() -> None:
    """Have the collector find what was dropped, and end the calls that it found."""
    # Ending a call frees what its stream held on to, which may be a circle again.
    for _ in range(2):
        gc.collect()
        deferred.drain()


def budget_of(meter: Meter, name: str | None = None) -> Any:
    """The one row of a declared budget's status."""
    rows = [row for row in meter.enforcer.status() if name is None or row.budget == name]
    assert len(rows) == 1, rows
    return rows[0]


def worst_case_of(sdk: Sdk, sim: Simulator, **body: Any) -> int:
    """What one call reserves in worst-case mode, in nano-USD, seen from outside: a stream that is still open."""
    client = sdk.client(sim)
    with tb.budget(max_cost_usd=1000, mode="worst_case") as run:
        stream = sdk.call(client, stream=True, **body)
        remaining = run.remaining_usd
        stream.close()
    assert remaining is not None
    sim.settle()
    return to_nano(1000) - to_nano(remaining)


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Wait for what another thread will do."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)
