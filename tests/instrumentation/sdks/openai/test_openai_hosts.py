"""Hosts that speak OpenAI's API: their own name, their own way of counting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest
from openai_harness import BROKEN_STREAM, MESSAGES, bare, chat_tokens, one_call, read, seen, settled

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import hosts
from tokenbudget_otel.simulator import Behaviour


@pytest.fixture(autouse=True)
def _hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hosts, "_configured", {})
    yield


def perplexity_tokens(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        reasoning_tokens=used.reasoning_tokens,
        citation_tokens=used.citation_tokens,
        web_searches=used.web_searches,
    )


def mistral_tokens(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(
        input_tokens=used.input_tokens, output_tokens=used.output_tokens, cache_read_tokens=used.cached_tokens
    )


@dataclass(frozen=True)
class HostCase:
    host: str
    provider: str
    model: str
    behaviour: Behaviour
    tokens: Callable[[Any], tb.TokenUsage] = chat_tokens
    reported: int | None = None
    asked: bool | None = True
    """Whether a stream of it is asked for its usage; None: either way, as it tells it unasked."""


TEXT = "The river turns east, and the bridge is old."
PLAIN = Behaviour(text=TEXT, chunks=5, input_tokens=1000, cached_tokens=400, output_tokens=100, reasoning_tokens=40)
CASES = (
    HostCase("deepseek", "deepseek", "deepseek-chat", PLAIN),
    HostCase("groq", "groq", "llama-3.3-70b-versatile", PLAIN),
    HostCase(
        "openrouter",
        "openrouter",
        "openai/gpt-4o",
        Behaviour(text=TEXT, chunks=5, input_tokens=1000, output_tokens=100, cost_usd=0.0123456789),
        # One rounding, up, to the nano-dollar.
        reported=12_345_679,
        asked=None,
    ),
    HostCase("xai", "x_ai", "grok-4", PLAIN),
    HostCase(
        "perplexity",
        "perplexity",
        "sonar-deep-research",
        Behaviour(
            text=TEXT,
            chunks=5,
            input_tokens=50,
            output_tokens=400,
            reasoning_tokens=250,
            citation_tokens=60,
            web_searches=3,
        ),
        perplexity_tokens,
        reported=450_000,
        asked=False,
    ),
    HostCase("mistral", "mistral_ai", "mistral-large-latest", PLAIN, mistral_tokens, asked=False),
)


async def call(client: Any, case: HostCase, streamed: bool) -> Any:
    result = await settled(client.chat.completions.create(model=case.model, messages=MESSAGES, stream=streamed))
    return seen(await read(result) if streamed else result)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.host)
async def test_counted_as_the_host_counts(case, streamed, mode, clients, sim, instrumented, meter):
    tb.map_host(sim.host_url(case.host), case.provider)
    client = clients(mode, sim.host_url(case.host))
    sim.then(case.behaviour)
    with bare(client):
        without = await call(client, case, streamed)
    sim.reset()
    sim.then(case.behaviour)
    with_us = await call(client, case, streamed)

    (billed,) = sim.billed
    span = one_call(
        instrumented,
        meter,
        model=case.model,
        provider=case.provider,
        usage=case.tokens(billed.usage),
        reported=case.reported,
    )
    if case.asked is not None:
        assert ("stream_options" in sim.requests[0].json) is (streamed and case.asked)
    if case.reported is not None:
        assert span.attributes["tokenbudget.cost.source"] == "provider"
        assert span.attributes.get("tokenbudget.upstream_provider") == (
            "Simulated" if case.host == "openrouter" else None
        )
    assert with_us == without


ALWAYS = Behaviour(text=TEXT, chunks=5, input_tokens=50, output_tokens=400)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [("silent_end_after", "cut"), ("cut_after", ("cut", "failed")), ("error_event_after", "failed"), (None, "closed")],
)
async def test_a_running_count_is_not_the_final_one(fault, outcome, mode, clients, sim, instrumented, meter):
    """Perplexity reports usage on every chunk: one that was seen does not make a stream that broke complete."""
    tb.map_host(sim.host_url("perplexity"), "perplexity")
    client = clients(mode, sim.host_url("perplexity"))
    fields: dict[str, Any] = {fault: 2} if fault else {"chunk_s": 30}
    sim.then(Behaviour(text=TEXT, chunks=5, input_tokens=50, output_tokens=400, **fields))
    stream = await settled(client.chat.completions.create(model="sonar", messages=MESSAGES, stream=True))
    try:
        if fault:
            await read(stream)
        else:
            await (stream.__anext__() if mode == "async" else asyncio.to_thread(next, stream))
            await settled(stream.close())
    except (openai.APIError, BROKEN_STREAM):
        pass
    span = instrumented.span()
    one_call(
        instrumented,
        meter,
        model="sonar",
        provider="perplexity",
        outcome=outcome,
        estimated=True,
        error=span.attributes.get("error.type") if fault else None,
    )
    assert ("error.type" in span.attributes) is (fault is not None)


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://my-team.openai.azure.com/openai/v1/", "azure.ai.openai"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.x.ai/v1", "x_ai"),
        ("https://eu-west-1.api.x.ai/v1", "x_ai"),
        ("https://api.mistral.ai/v1", "mistral_ai"),
        ("https://api.perplexity.ai", "perplexity"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.moonshot.ai/v1", "moonshot_ai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gcp.gemini"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "aws.bedrock"),
        # A name that only looks like one of them.
        ("https://api.x.ai.example.com/v1", "openai_compatible"),
        ("https://notapi.groq.com.evil.test/v1", "openai_compatible"),
        ("http://localhost:11434/v1", "ollama"),
    ],
)
async def test_provider_by_base_url(base_url, provider, mode, clients, instrumented, meter):
    def answer(_request: Any) -> Any:
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
        return httpx2.Response(
            200,
            json={
                "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage
            },
        )  # fmt: skip

    http = httpx2.AsyncClient if mode == "async" else httpx2.Client
    client = clients(mode, base_url, http_client=http(transport=httpx2.MockTransport(answer)))
    await settled(client.chat.completions.create(model="m", messages=MESSAGES))
    span = instrumented.span()
    assert span.attributes["gen_ai.provider.name"] == provider
    assert span.attributes["server.address"] in base_url
    assert list(meter.totals.get(by="provider")) == [provider]


async def test_hosts_given_to_instrument(mode, clients, sim, telemetry, meter):
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider, hosts={sim.host_url("groq"): "groq"})
    try:
        client = clients(mode, sim.host_url("groq"))
        await settled(client.chat.completions.create(model="llama-3.3-70b-versatile", messages=MESSAGES))
        assert telemetry.span().attributes["gen_ai.provider.name"] == "groq"
    finally:
        tb.uninstrument()
