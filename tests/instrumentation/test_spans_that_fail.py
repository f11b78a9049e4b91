"""Somebody's sampler, processor or exporter raises: the program's call goes through, and is metered."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Simulator


class Unlucky(SpanProcessor):
    def __init__(self, at: str) -> None:
        self._at = at

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if self._at == "start":
            raise RuntimeError("on_start")

    def on_end(self, span: ReadableSpan) -> None:
        if self._at == "end":
            raise RuntimeError("on_end")


class UnluckySampler(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("should_sample")

    def get_description(self) -> str:
        return "raises"


def provider(at: str) -> TracerProvider:
    if at == "sampling":
        return TracerProvider(sampler=UnluckySampler())
    made = TracerProvider()
    made.add_span_processor(Unlucky(at))
    return made


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at", ["sampling", "start", "end"])
def test_the_call_goes_through_and_is_metered(sim: Simulator, meter: Meter, at: str, stream: bool) -> None:
    tb.instrument(provider(at))
    try:
        meter.enforcer.add(tb.Budget(limit_usd=5, name="five"))
        client = openai.OpenAI(base_url=sim.openai_url, api_key="any")
        answer = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "Hi"}], stream=stream
        )
        if stream:
            assert len(list(answer)) > 1
    finally:
        tb.uninstrument()
    assert meter.totals.get().calls == 1
    [budget] = meter.enforcer.status()
    assert budget.reserved_usd == 0
    assert budget.spent_usd == meter.totals.get().cost_usd > 0


@pytest.mark.parametrize("at", ["sampling", "start", "end"])
def test_a_refusal_stands(sim: Simulator, meter: Meter, at: str) -> None:
    tb.instrument(provider(at))
    try:
        meter.enforcer.add(tb.Budget(limit_usd=0, name="nothing"))
        client = openai.OpenAI(base_url=sim.openai_url, api_key="any")
        with pytest.raises(tb.BudgetExceeded, match="nothing"):
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    finally:
        tb.uninstrument()
    assert sim.requests == []
