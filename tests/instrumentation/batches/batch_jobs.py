"""What the tests of batches share: clients, jobs, and the provider's books in our words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai

import tokenbudget_otel as tb
from both_modes import each as each
from both_modes import settled as settled
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.pricing import price_book
from tokenbudget_otel.simulator import Simulator

MODEL = "gpt-4o-mini"
CLAUDE = "claude-sonnet-4-6"
MODES = ("sync", "async")

CLASSES = {
    ("openai", "sync"): openai.OpenAI,
    ("openai", "async"): openai.AsyncOpenAI,
    ("azure", "sync"): openai.AzureOpenAI,
    ("azure", "async"): openai.AsyncAzureOpenAI,
    ("anthropic", "sync"): anthropic.Anthropic,
    ("anthropic", "async"): anthropic.AsyncAnthropic,
}


def client_of(sim: Simulator, kind: str = "openai", mode: str = "sync") -> Any:
    """A client of the simulator that does not retry; without certificates, which take longer than a test."""
    sdk = anthropic if kind == "anthropic" else openai
    http: Any = sdk.DefaultAsyncHttpxClient if mode == "async" else sdk.DefaultHttpxClient
    where = {
        "openai": {"base_url": sim.openai_url},
        "azure": {"azure_endpoint": sim.azure_url, "api_version": "2024-10-21"},
        "anthropic": {"base_url": sim.anthropic_url},
    }[kind]
    return CLASSES[kind, mode](**where, api_key="any", max_retries=0, http_client=http(verify=False))


@contextmanager
def bare(client: Any) -> Iterator[Any]:
    """The client as it is without instrumentation: for what another process does."""
    method = type(client).request
    original = getattr(method, "__wrapped__", method)
    client.request = original.__get__(client)
    try:
        yield client
    finally:
        del client.request


def lines_of(count: int, *, model: str = MODEL, url: str = "/v1/chat/completions", **body: Any) -> list[dict[str, Any]]:
    """The lines of an input file."""
    texts = [f"Tell. {number}" * (number + 1) for number in range(count)]
    if "embeddings" in url or "responses" in url:
        asked: list[dict[str, Any]] = [{"input": text} for text in texts]
    else:
        asked = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    return [
        {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": {"model": model, **each, **body}}
        for number, each in enumerate(asked)
    ]


def jsonl(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def upload(client: Any, content: bytes, purpose: str = "batch") -> str:
    return str((await settled(client.files.create(file=("input.jsonl", content), purpose=purpose))).id)


async def start(client: Any, lines: list[dict[str, Any]]) -> Any:
    """A batch that was made."""
    source = await upload(client, jsonl(lines))
    return await settled(client.batches.create(input_file_id=source, endpoint=lines[0]["url"], completion_window="24h"))


async def wait(client: Any, batch_id: str) -> Any:
    """The batch as it is in the end."""
    for _ in range(10):
        batch = await settled(client.batches.retrieve(batch_id))
        if batch.status in ("completed", "expired", "cancelled", "failed"):
            return batch
    raise AssertionError(batch.status)


async def done_elsewhere(client: Any, lines: list[dict[str, Any]]) -> Any:
    """A batch that another process has made and waited for."""
    with bare(client):
        return await wait(client, (await start(client, lines)).id)


def requests_of(count: int, *, model: str = CLAUDE, **params: Any) -> list[Any]:
    """The requests of a message batch."""
    return [
        {
            "custom_id": f"line-{number}",
            "params": {
                "model": model,
                "max_tokens": 50,
                "messages": [{"role": "user", "content": f"Tell. {number}" * (number + 1)}],
                **params,
            },
        }
        for number in range(count)
    ]


async def ended_elsewhere(client: Any, requests: list[Any]) -> Any:
    """A message batch that another process has made and waited for."""
    with bare(client):
        batch = await settled(client.messages.batches.create(requests=requests))
        while batch.processing_status != "ended":
            batch = await settled(client.messages.batches.retrieve(batch.id))
        return batch


def billed_tokens(sim: Simulator) -> tuple[int, int]:
    """Input and output tokens, by the provider's books."""
    return sum(bill.usage.input_tokens for bill in sim.billed), sum(bill.usage.output_tokens for bill in sim.billed)


def batch_cost(sim: Simulator, provider: str, *, summed: bool) -> int:
    """Nano-USD of all that the provider's books have, at the price of batches; ``summed``: priced together."""
    usages = [
        tb.TokenUsage(
            input_tokens=bill.usage.input_tokens,
            output_tokens=bill.usage.output_tokens,
            cache_read_tokens=bill.usage.cached_tokens,
            cache_write_5m_tokens=bill.usage.cache_write_5m_tokens,
            cache_write_1h_tokens=bill.usage.cache_write_1h_tokens,
        )
        for bill in sim.billed
    ]
    if not usages:
        return 0
    (model,) = {bill.model for bill in sim.billed}
    if summed:
        usages = [sum(usages[1:], usages[0])]
    costs = [price_book().cost(provider, model, usage, batch=True).nano_usd for usage in usages]
    return sum(cost for cost in costs if cost is not None)


def charged_once(meter: Meter, sim: Simulator, provider: str = "openai") -> None:
    """What was counted is what the provider bills, at the price of batches."""
    totals = meter.totals.get()
    assert (totals.usage.input_tokens or 0, totals.usage.output_tokens or 0) == billed_tokens(sim)
    assert totals.calls == len(sim.billed)
    assert totals.estimated_calls == totals.unpriced_calls == 0
    assert totals.nano_usd == batch_cost(sim, provider, summed=provider != "anthropic")


def nothing_charged(meter: Meter) -> None:
    assert meter.totals.get().calls == 0
    assert not meter.totals.get().usage


def costs(spans: Any) -> list[float]:
    return [span.attributes["gen_ai.usage.cost"] for span in spans if "gen_ai.usage.cost" in span.attributes]
