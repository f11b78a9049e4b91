"""Calls that are alike share what is known of their series; metrics cannot tell."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_harness import Readings
from opentelemetry import trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import bound_instruments, call_metrics, emitters, guard
from tokenbudget_otel.instrumentation.bounded import OTHER, Bounded
from tokenbudget_otel.instrumentation.call_metrics import CallMetrics
from tokenbudget_otel.instrumentation.metric_options import MetricOptions
from tokenbudget_otel.meter import Charge
from tokenbudget_otel.pricing import Cost
from tokenbudget_otel.usage import TokenUsage

SAMPLED = trace.set_span_in_context(TracerProvider().get_tracer("x").start_span("x"))
DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}

USAGES = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "input_tokens": st.integers(0, 5_000), "output_tokens": st.integers(0, 50),
            "cache_read_tokens": st.integers(0, 9), "reasoning_tokens": st.integers(0, 9),
            "input_audio_tokens": st.integers(0, 9), "output_text_tokens": st.integers(0, 9),
            "web_searches": st.integers(0, 3),
        },
    ).map(lambda counts: TokenUsage(**counts)),
)  # fmt: skip
COSTS = st.builds(
    lambda state, nano: Cost(nano if state == "priced" else None, state),
    st.sampled_from(["priced", "unpriced", "unknown"]),
    st.integers(0, 10**9),
)
CALLS = st.fixed_dictionaries(
    {
        "operation": st.sampled_from(["chat", semconv.EMBEDDINGS, semconv.FETCH_RESPONSE]),
        "provider": st.sampled_from(["openai", "anthropic"]),
        "request_model": st.sampled_from([None, "", "gpt-5", "claude", "other"]),
        "response_model": st.sampled_from([None, "gpt-5", "gpt-5-2025"]),
        "context": st.sampled_from([None, SAMPLED]),
    },
    optional={
        "server": st.sampled_from(
            [
                {},
                {semconv.SERVER_ADDRESS: "a"},
                {semconv.SERVER_PORT: 1},
                {semconv.SERVER_ADDRESS: "a", semconv.SERVER_PORT: 1},
            ]
        ),
        "tags": st.sampled_from([{}, {"tenant": "acme"}, {"tenant": "globex", "user": "eve"}, {"user": "bob"}]),
        "charge": st.one_of(st.none(), st.builds(Charge, USAGES, COSTS, st.booleans())),
        "cost_state": st.sampled_from([None, "unknown"]),
        "duration": st.sampled_from([None, 0.25, 3.0, -1.0]),
        "first_chunk": st.sampled_from([None, 0.125]),
        "gaps": st.lists(st.sampled_from([0.0, 0.001, 0.0625, 0.5]), max_size=5),
        "error_type": st.sampled_from([None, "openai.RateLimitError"]),
        "recorded": st.sampled_from(
            [emitters.NONE, emitters.ALL, frozenset((emitters.DURATION,)), frozenset((emitters.TOKENS,)), None]
        ),
    },
)
OPTIONS = st.builds(
    lambda names, tags: MetricOptions(names != "coming", names != "current", tags),
    st.sampled_from(["current", "coming", "both"]),
    st.sampled_from([(), ("tenant",), ("tenant", "user")]),
)


class Made:
    """Metrics with a reader that adds up, and one that tells what is new."""

    def __init__(self, options: MetricOptions, *, binding: bool = True, **more: Any) -> None:
        self.readers = [InMemoryMetricReader(), InMemoryMetricReader(preferred_temporality=DELTA)]
        self.provider = MeterProvider(self.readers, shutdown_on_exit=False, **more)
        before, bound_instruments.BINDING = bound_instruments.BINDING, binding
        try:
            self.metrics = CallMetrics(self.provider.get_meter("x"), options)
        finally:
            bound_instruments.BINDING = before

    def read(self, index: int) -> Any:
        readings = Readings(self.readers[index])
        return readings.units, {
            name: sorted((sorted(point.attributes.items()), point.count, point.sum, point.bounds) for point in points)
            for name, points in readings.points.items()
        }


@given(
    options=OPTIONS,
    calls=st.lists(st.one_of(CALLS, st.just("collect")), max_size=12),
    room=st.sampled_from([1, 2, 1_024]),
)
@settings(deadline=None, max_examples=200)
def test_what_is_read_does_not_depend_on_what_is_remembered(
    options: MetricOptions, calls: list[Any], room: int
) -> None:
    before, call_metrics.MAX_ALIKE = call_metrics.MAX_ALIKE, room
    try:
        sides = [Made(options), Made(options, binding=False)]
        for call in calls:
            for side in sides:
                if call != "collect":
                    side.metrics.record(**call)
            if call == "collect":
                assert sides[0].read(1) == sides[1].read(1)
        for index in (0, 1):
            assert sides[0].read(index) == sides[1].read(index)
        for side in sides:
            assert len(side.metrics._place.alike) <= room
    finally:
        call_metrics.MAX_ALIKE = before


def one_call(metrics: CallMetrics, model: str = "gpt-5", **more: Any) -> None:
    usage = TokenUsage(input_tokens=10, output_tokens=2)
    charge = Charge(usage, Cost(7_000, "priced"), False)
    metrics.record("chat", "openai", model, model, None, charge=charge, duration=0.5, **more)


def test_a_refusal_is_remembered_by_its_budget_scope_and_tags() -> None:
    made = Made(MetricOptions(tags=("tenant",)))
    request = SimpleNamespace(provider="openai", model="gpt-5", tags={"tenant": "acme"})
    for budget, scope in (("b", {}), ("b", {"tenant": "acme"}), ("c", {}), ("b", {}), ("b", {"tenant": "globex"})):
        made.metrics.refused(request, SimpleNamespace(budget=budget, scope=scope))  # type: ignore[arg-type]
    assert [
        (point.attributes[semconv.BUDGET_NAME], point.attributes[semconv.BUDGET_SCOPE], point.sum)
        for point in Readings(made.readers[0])[semconv.METRIC_REFUSALS]
    ] == [("b", "", 2), ("b", "tenant=acme", 1), ("c", "", 1), ("b", "tenant=globex", 1)]
    assert len(made.metrics._place.refusals) == 4


def test_made_up_models_and_scopes_do_not_fill_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_metrics, "MAX_ALIKE", 10)
    monkeypatch.setattr(call_metrics, "_asked", Bounded(semconv.REQUEST_MODEL, 2))
    made = Made(MetricOptions())
    request = SimpleNamespace(provider="openai", model="made-up-0", tags={})
    for number in range(100):
        one_call(made.metrics, f"made-up-{number}")
        made.metrics.refused(request, SimpleNamespace(budget="b", scope={"user": str(number)}))  # type: ignore[arg-type]
        place = made.metrics._place
        assert len(place.alike) <= 10
        assert len(place.refusals) <= 10
    found = Readings(made.readers[0])
    assert found.by(semconv.METRIC_CALLS, semconv.REQUEST_MODEL) == {"made-up-0": 1, "made-up-1": 1, OTHER: 98}


def test_a_reader_that_comes_later_sees_what_comes_then() -> None:
    made = Made(MetricOptions())
    if not hasattr(made.provider, "add_metric_reader"):
        pytest.skip("readers of this SDK are those it was made with")
    one_call(made.metrics)
    late = InMemoryMetricReader()
    made.provider.add_metric_reader(late)
    one_call(made.metrics)
    one_call(made.metrics)
    assert Readings(late).one(semconv.METRIC_CALLS).sum == 2
    assert Readings(made.readers[0]).one(semconv.METRIC_CALLS).sum == 3
    made.provider.remove_metric_reader(late)
    one_call(made.metrics)
    assert Readings(made.readers[0]).one(semconv.METRIC_CALLS).sum == 4


def test_where_the_short_way_fails_the_next_call_takes_the_public_one(caplog: pytest.LogCaptureFixture) -> None:
    made = Made(MetricOptions())
    one_call(made.metrics)
    (alike,) = made.metrics._place.alike.values()
    alike.series["calls"] = object()  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING, "tokenbudget_otel"):
        for _ in range(3):
            one_call(made.metrics)
    assert len([record for record in caplog.records if "record metrics" in record.getMessage()]) == 1
    assert Readings(made.readers[0]).one(semconv.METRIC_CALLS).sum == 3
    guard._logged.clear()


def test_a_refusal_that_cannot_be_recorded_is_still_one() -> None:
    made = Made(MetricOptions())
    request = SimpleNamespace(provider="openai", model="gpt-5", tags={})
    refusal: Any = SimpleNamespace(budget="b", scope={})
    made.metrics.refused(request, refusal)  # type: ignore[arg-type]
    made.metrics._place.refusals = {key: object() for key in made.metrics._place.refusals}  # type: ignore[misc]
    for _ in range(3):
        made.metrics.refused(request, refusal)  # type: ignore[arg-type]
    assert Readings(made.readers[0]).one(semconv.METRIC_REFUSALS).sum == 3
    guard._logged.clear()
