"""What the cases of the Anthropic door share: clients, ways to call, and the provider's books in our words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anthropic

import tokenbudget_otel as tb
from both_modes import each as each
from both_modes import settled as settled
from tokenbudget_otel import semconv
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.money import NANO_PER_USD
from tokenbudget_otel.simulator import Billed, Simulator, Usage

MODEL = "claude-sonnet-4-6"
BODY: Mapping[str, Any] = {
    "model": MODEL,
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Tell me a story."}],
}


def client_of(sim: Simulator, asynchronous: bool = False, **options: Any) -> Any:
    """A client before the simulator. What the SDK traces itself has tests of its own: *_native_tracing."""
    kind: Any = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
    http: Any = anthropic.DefaultAsyncHttpxClient if asynchronous else anthropic.DefaultHttpxClient
    given = {"base_url": sim.anthropic_url, "api_key": "any", "max_retries": 0, "timeout": 20}
    if "http_client" not in options:
        given["http_client"] = http(verify=False)  # reading the certificates takes longer than most tests
    return kind(**(given | options))


class entered:  # noqa: N801 - reads as a keyword
    """``with`` or ``async with``, as the manager has it."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        enter = getattr(self._manager, "__aenter__", None) or self._manager.__enter__
        return await settled(enter())

    async def __aexit__(self, *exc: Any) -> Any:
        leave = getattr(self._manager, "__aexit__", None) or self._manager.__exit__
        return await settled(leave(*exc))


def in_our_words(usage: Usage) -> tb.TokenUsage:
    """What the simulator billed, as a TokenUsage; counts of zero left out."""
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_5m_tokens": usage.cache_write_5m_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "web_searches": usage.web_searches,
        "web_fetches": usage.web_fetches,
    }
    return tb.TokenUsage(**{name: count for name, count in counts.items() if count})


def known(usage: tb.TokenUsage) -> tb.TokenUsage:
    """Without counts of zero."""
    return tb.TokenUsage(**{name: count for name, count in usage.counts().items() if count})


def assert_booked_exactly(
    meter: Meter, span: Any, billed: Billed, *, provider: str = "anthropic", tier: str | None = None
) -> None:
    """One call, whose span, totals and cost are what the provider's books say."""
    usage = in_our_words(billed.usage)
    totals = meter.totals.get()
    assert totals.calls == 1
    assert known(totals.usage) == usage
    assert totals.estimated_calls == 0
    cost = tb.calculate_cost(billed.model, usage, provider=provider, tier=tier)
    assert cost is not None
    assert cost.nano_usd is not None
    assert totals.nano_usd == cost.nano_usd

    told = span.attributes
    assert told[semconv.CALL_OUTCOME] == "completed"
    assert semconv.USAGE_ESTIMATED not in told
    assert told[semconv.PROVIDER_NAME] == provider
    assert told[semconv.OPERATION_NAME] == "chat"
    assert told[semconv.USAGE_COST] == cost.nano_usd / NANO_PER_USD
    for name, count in (
        (semconv.USAGE_INPUT_TOKENS, usage.input_tokens),
        (semconv.USAGE_OUTPUT_TOKENS, usage.output_tokens),
        (semconv.USAGE_CACHE_READ, usage.cache_read_tokens),
        (semconv.USAGE_CACHE_WRITE, usage.cache_write_tokens),
        (semconv.USAGE_REASONING, usage.reasoning_tokens),
    ):
        assert (told.get(name) or 0) == (count or 0), name
    assert span.status.is_ok or span.status.is_unset
