"""What hosts report as the cost is the cost, and what they count in ways of their own is counted."""

from __future__ import annotations

import types
from datetime import UTC, datetime
from typing import Any

import pytest

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import call as call_module
from tokenbudget_otel.instrumentation.openai_usage import chat_usage, reported_cost
from tokenbudget_otel.simulator import Behaviour

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
USED = {"input_tokens": 1_000, "output_tokens": 100}


def chat(client: Any, model: str, streamed: bool) -> None:
    made = client.chat.completions.create(model=model, messages=MESSAGES, stream=streamed)
    if streamed:
        list(made)


def respond(client: Any, model: str, streamed: bool) -> None:
    made = client.responses.create(model=model, input="Hi", stream=streamed)
    if streamed:
        list(made)


@STREAMED
@pytest.mark.parametrize("way", [chat, respond])
@pytest.mark.parametrize(
    ("host", "provider", "model", "behaviour", "nano_usd"),
    [
        ("openrouter", "openrouter", "openai/gpt-4o", {"cost_usd": 0.0123456789}, 12_345_679),
        ("openrouter", "openrouter", "deepseek/deepseek-r1:free", {"cost_usd": 0.0}, 0),
        ("openrouter", "openrouter", "openai/gpt-4o:online", {"cost_usd": 0.0225}, 22_500_000),
        # With a key of one's own: OpenRouter's fee, and what the upstream provider bills beside it.
        ("openrouter", "openrouter", "openai/gpt-4o", {"cost_usd": 0.001, "upstream_cost_usd": 0.02}, 21_000_000),
        ("xai", "x_ai", "grok-4", {"cost_usd": 0.0318319, "web_searches": 3}, 31_831_900),
        ("perplexity", "perplexity", "sonar", {"cost_usd": 0.00678}, 6_780_000),
    ],
)
def test_the_reported_cost_is_the_cost(
    host: str, provider: str, model: str, behaviour: Any, nano_usd: int, way: Any, streamed: bool, client_at: Any,
    sim: Any, instrumented: Any, meter: Any,
) -> None:  # fmt: skip
    sim.then(Behaviour(**USED, **behaviour))
    way(client_at(host, provider), model, streamed)
    assert meter.totals.get().nano_usd == nano_usd
    told = instrumented.span().attributes
    assert (told["tokenbudget.cost.state"], told["tokenbudget.cost.source"]) == ("priced", "provider")
    assert told.get("tokenbudget.upstream_provider") == ("Simulated" if host == "openrouter" else None)


@pytest.mark.parametrize(
    ("usage", "provider"),
    [
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, "openrouter"),
        ({"cost": -1}, "openrouter"),
        ({"cost": "much"}, "openrouter"),
        ({"cost": True}, "openrouter"),
        ({"cost": float("nan")}, "openrouter"),
        ({"cost_in_usd_ticks": 1.5}, "x_ai"),
        ({"cost_in_usd_ticks": -1}, "x_ai"),
        ({"cost": {"currency": "EUR", "total_cost": 1}}, "perplexity"),
        ({"cost": 1}, "perplexity"),
        ({"cost": 1}, "openai"),
        (None, "openrouter"),
    ],
)
def test_what_is_no_cost(usage: Any, provider: str) -> None:
    assert reported_cost(usage, provider) is None


@STREAMED
def test_sources_of_a_live_search_have_no_price(
    streamed: bool, client_at: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(**USED, web_searches=4))
    chat(client_at("xai", "x_ai"), "grok-4", streamed)
    told = instrumented.span().attributes
    assert told["tokenbudget.usage.web_searches"] == 4
    assert told["tokenbudget.cost.state"] == "partial"
    assert told["tokenbudget.cost.unpriced"] == ("web_searches",)


@STREAMED
def test_xai_names_the_tools_that_ran(streamed: bool, client_at: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(**USED, x_searches=3, web_searches=1, reasoning_tokens=40))
    respond(client_at("xai", "x_ai"), "grok-4", streamed)
    used = meter.totals.get().usage
    assert (used.social_searches, used.web_searches, used.output_tokens) == (3, 1, 100)
    assert instrumented.span().attributes["tokenbudget.cost.unpriced"] == ("web_searches", "social_searches")


@pytest.mark.parametrize(
    ("at", "nano_usd"),
    [(datetime(2026, 11, 22, 2, tzinfo=UTC), None), (datetime(2026, 11, 22, 15, tzinfo=UTC), None)],
)
def test_deepseek_is_priced_by_the_time_of_the_request(
    at: datetime, nano_usd: None, client_at: Any, sim: Any, instrumented: Any, meter: Any, monkeypatch: Any
) -> None:
    now = at.timestamp()
    clock = types.SimpleNamespace(**{**vars(call_module.time), "time": lambda: now})
    monkeypatch.setattr(call_module, "time", clock)
    sim.then(Behaviour(**USED, cached_tokens=600))
    chat(client_at("deepseek", "deepseek"), "deepseek-v4-pro", False)
    usage = tb.TokenUsage(**USED, cache_read_tokens=600)
    expected = tb.calculate_cost("deepseek-v4-pro", usage, "deepseek", at=now)
    assert expected is not None
    assert meter.totals.get().nano_usd == expected.nano_usd


def test_deepseek_has_peak_hours() -> None:
    prices = set()
    for hour in range(24):
        at = datetime(2026, 11, 23, hour, tzinfo=UTC).timestamp()
        cost = tb.calculate_cost("deepseek-v4-pro", tb.TokenUsage(**USED), "deepseek", at=at)
        assert cost is not None
        prices.add(cost.nano_usd)
    assert len(prices) == 2


@pytest.mark.parametrize(
    ("usage", "provider", "output"),
    [
        # Thoughts are only in the total, and may be named.
        ({"prompt_tokens": 758, "completion_tokens": 102, "total_tokens": 1725}, "gcp.gemini", 967),
        ({"prompt_tokens": 758, "completion_tokens": 102, "total_tokens": 1725}, "openai", 102),
        ({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}, "gcp.vertex_ai", 20),
        (
            {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 80,
             "completion_tokens_details": {"reasoning_tokens": 50}}, "gcp.vertex_ai", 70,
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 70, "total_tokens": 80,
             "completion_tokens_details": {"reasoning_tokens": 50}}, "gcp.gemini", 70,
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 70, "total_tokens": 80,
             "completion_tokens_details": {"reasoning_tokens": 50}}, "x_ai", 70,
        ),
        ({"prompt_tokens": "many", "completion_tokens": 7, "total_tokens": 9}, "gcp.gemini", 7),
    ],
)  # fmt: skip
def test_thoughts_outside_the_completion(usage: Any, provider: str, output: int) -> None:
    read = chat_usage(usage, provider)
    assert read is not None
    assert read.output_tokens == output


def test_moonshot_writes_the_usage_of_a_stream_into_its_choice(
    client_at: Any, sim: Any, telemetry: Any, meter: Any
) -> None:
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider, stream_usage=False)
    try:
        sim.then(Behaviour(**USED, cached_tokens=300))
        chat(client_at("moonshot", "moonshot_ai"), "kimi-k2.6", True)
    finally:
        tb.uninstrument()
    assert meter.totals.get().usage == tb.TokenUsage(**USED, cache_read_tokens=300)
    assert meter.totals.get().estimated_calls == 0
