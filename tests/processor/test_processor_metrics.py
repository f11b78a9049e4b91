"""What the processor adds to metrics of spans that others made: what their makers do not record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from opentelemetry.trace import Status, StatusCode
from processor_bench import CHAT, COST, USED, Bench

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.simulator import Behaviour, Simulator

SECOND = 1_000_000_000
STANDARD = (semconv.METRIC_DURATION, semconv.METRIC_TOKEN_USAGE, semconv.METRIC_TIME_TO_FIRST_CHUNK)


def chat(bench: Bench, scope: str, **more: Any) -> None:
    """A chat span of two and a half seconds, with a server, a first chunk and cached tokens."""
    now = time.time_ns()
    span = bench.start(
        scope=scope, attributes={**CHAT, "server.address": "api.openai.com", "server.port": 443}, start_time=now
    )
    span.set_attributes(
        {
            **USED,
            "gen_ai.usage.cache_read.input_tokens": 400,
            "gen_ai.response.model": "gpt-4o-2024-08-06",
            "gen_ai.response.time_to_first_chunk": 0.7,
            **more,
        }
    )
    span.end(now + 5 * SECOND // 2)


def recorded(bench: Bench) -> set[str]:
    return {name for name in STANDARD if bench.metric(name)}


def test_of_openinference_all_are_read_off_the_span(bench: Bench) -> None:
    """It writes in names of its own."""
    now = time.time_ns()
    written = {
        "openinference.span.kind": "LLM",
        "llm.provider": "openai",
        "llm.model_name": "gpt-4o",
        "llm.token_count.prompt": 1000,
        "llm.token_count.completion": 100,
    }
    span = bench.start(scope="openinference.instrumentation.openai", attributes=written, start_time=now)
    span.end(now + 2 * SECOND)
    (duration,) = bench.metric(semconv.METRIC_DURATION)
    assert (duration.count, duration.sum) == (1, pytest.approx(2))
    tokens = {point.attributes[semconv.TOKEN_TYPE]: point.sum for point in bench.metric(semconv.METRIC_TOKEN_USAGE)}
    assert tokens == {"input": 1000, "output": 100}


@pytest.mark.parametrize("scope", ["com.anthropic.sdk.python", "langfuse-sdk", "house.llm"])
def test_of_a_maker_that_records_none_all_are_read_off_the_span(scope: str, bench: Bench) -> None:
    chat(bench, scope)
    (duration,) = bench.metric(semconv.METRIC_DURATION)
    assert (duration.count, duration.sum) == (1, pytest.approx(2.5))
    assert duration.attributes == {
        semconv.OPERATION_NAME: "chat",
        semconv.PROVIDER_NAME: "openai",
        semconv.REQUEST_MODEL: "gpt-4o",
        semconv.RESPONSE_MODEL: "gpt-4o-2024-08-06",
        semconv.SERVER_ADDRESS: "api.openai.com",
        semconv.SERVER_PORT: 443,
    }
    tokens = {point.attributes[semconv.TOKEN_TYPE]: point.sum for point in bench.metric(semconv.METRIC_TOKEN_USAGE)}
    assert tokens == {"input": 1000, "output": 100}
    (first,) = bench.metric(semconv.METRIC_TIME_TO_FIRST_CHUNK)
    assert first.sum == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("scope", "ours"),
    [
        ("opentelemetry.instrumentation.genai.openai", set()),
        ("openlit.otel.tracing", set()),
        ("opentelemetry.instrumentation.openai.v1", {semconv.METRIC_TIME_TO_FIRST_CHUNK}),
        ("pydantic-ai", {semconv.METRIC_DURATION}),
    ],
)
def test_what_the_maker_records_is_not_recorded_again(scope: str, ours: set[str], bench: Bench) -> None:
    chat(bench, scope)
    assert recorded(bench) == ours
    (cost,) = bench.metric(semconv.METRIC_COST)
    assert cost.value == pytest.approx(COST - 400 * 1.25e-6)
    (calls,) = bench.metric(semconv.METRIC_CALLS)
    assert (calls.value, calls.attributes[semconv.COST_STATE]) == (1, "priced")
    (details,) = bench.metric(semconv.METRIC_TOKEN_DETAILS)
    assert (details.value, details.attributes[semconv.TOKEN_DETAIL]) == (400, "cache_read")


def test_unknown_prices_and_unknown_usage_are_counted(bench: Bench) -> None:
    bench.chat(used={**USED, "gen_ai.request.model": "house-llm"})
    bench.chat(used={})
    assert bench.metric(semconv.METRIC_COST) == []
    states = [(point.attributes[semconv.COST_STATE], point.value) for point in bench.metric(semconv.METRIC_CALLS)]
    assert states == [("unknown", 1), ("unknown", 1)]


def test_a_failed_span_takes_time_and_has_its_error(bench: Bench) -> None:
    span = bench.start(attributes=CHAT)
    span.set_attribute("error.type", "openai.RateLimitError")
    span.end()
    span = bench.start(attributes=CHAT)
    span.set_status(Status(StatusCode.ERROR))
    span.end()
    errors = {point.attributes[semconv.ERROR_TYPE]: point.count for point in bench.metric(semconv.METRIC_DURATION)}
    assert errors == {"openai.RateLimitError": 1, "_OTHER": 1}
    assert bench.metric(semconv.METRIC_CALLS) == bench.metric(semconv.METRIC_TOKEN_USAGE) == []


@pytest.mark.parametrize("used", [USED, {}], ids=["with usage", "failed"])
def test_nested_spans_of_one_call_take_time_once(used: dict[str, Any], bench: Bench) -> None:
    tracer = bench.provider.get_tracer("house.llm")
    with tracer.start_as_current_span("outer", attributes=CHAT) as outer:
        with tracer.start_as_current_span("inner", attributes=CHAT) as inner:
            inner.set_attributes(used or {"error.type": "timeout"})
        outer.set_attributes(used or {"error.type": "timeout"})
    assert [point.count for point in bench.metric(semconv.METRIC_DURATION)] == [1]


@pytest.mark.parametrize(("operation", "theirs"), [("chat", True), ("invoke_agent", False)])
def test_what_the_maker_of_a_span_around_records_is_not_recorded_again(
    operation: str, theirs: bool, bench: Bench
) -> None:
    """The anthropic SDK makes a span of its own inside the official package's."""
    around = bench.provider.get_tracer("opentelemetry.instrumentation.genai.anthropic")
    with around.start_as_current_span("outer", attributes={**CHAT, "gen_ai.operation.name": operation}):
        bench.chat(scope="com.anthropic.sdk.python")
    assert recorded(bench) == (set() if theirs else {semconv.METRIC_DURATION, semconv.METRIC_TOKEN_USAGE})
    assert len(bench.metric(semconv.METRIC_COST)) == 1


def test_tags_of_the_context_and_of_the_span_are_on_metrics_where_asked_for(make: Callable[..., Bench]) -> None:
    bench = make(metric_tags=("tenant", "feature"))
    with tb.tags(tenant="acme", user="eve"):
        bench.chat(used={**USED, "tokenbudget.tag.feature": "search"})
    for name in (semconv.METRIC_COST, semconv.METRIC_DURATION, semconv.METRIC_CALLS):
        (point,) = bench.metric(name)
        tags = {key: value for key, value in point.attributes.items() if key.startswith(semconv.TAG_PREFIX)}
        assert tags == {"tokenbudget.tag.tenant": "acme", "tokenbudget.tag.feature": "search"}


def test_names_that_are_coming(make: Callable[..., Bench]) -> None:
    bench = make(metric_names="coming")
    chat(bench, "opentelemetry.instrumentation.genai.openai")
    (duration,) = bench.metric(semconv.METRIC_INFERENCE_DURATION)
    assert duration.sum == pytest.approx(2.5)
    assert [point.value for point in bench.metric(semconv.METRIC_INFERENCE_CACHE_READ)] == [400]
    assert recorded(bench) == set()


@pytest.mark.parametrize("wrong", ["0.7", -1.0, float("nan"), float("inf"), True])
def test_a_time_that_cannot_be_is_left_out(wrong: Any, bench: Bench) -> None:
    chat(bench, "house.llm", **{"gen_ai.response.time_to_first_chunk": wrong})
    assert recorded(bench) == {semconv.METRIC_DURATION, semconv.METRIC_TOKEN_USAGE}


def test_a_call_at_our_door_is_recorded_there_and_not_by_the_processor(bench: Bench, sim: Simulator) -> None:
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=bench.provider)
    try:
        sim.then(Behaviour(text="Aye.", input_tokens=10, output_tokens=2))
        client = openai.OpenAI(base_url=sim.openai_url, api_key="any")
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    finally:
        instrumentor.uninstrument()
    assert bench.calls == 1
    assert recorded(bench) == set()
    assert bench.metric(semconv.METRIC_CALLS) == []
