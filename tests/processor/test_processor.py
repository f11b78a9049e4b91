"""The processor on spans made by hand: order, nesting, limits, threads, bad values."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Status, StatusCode
from processor_bench import CHAT, COST, USED, Bench

import tokenbudget_otel as tb
from tokenbudget_otel import processor as module
from tokenbudget_otel import semconv
from tokenbudget_otel.dialects import COVERED_BY, METERED_KEY
from tokenbudget_otel.instrumentation import frozen_spans, guard
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.processor import METRIC_REJECTED, REJECTED_REASON, TokenBudgetSpanProcessor

Make = Callable[..., Bench]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- the SDK -----------------------------------------------------------------------------------------------------


class Pin(SpanProcessor):
    """Notes how a span looks to a processor at its end."""

    def _on_ending(self, span: Span) -> None:
        self.recording = span.is_recording()
        self.attributes = span._attributes
        self.frozen = span._attributes._immutable

    def on_end(self, span: ReadableSpan) -> None:
        self.shared = span._attributes is self.attributes


def test_pin_how_the_sdk_ends_a_span() -> None:
    """If this fails, the SDK has changed. Where ``recording`` is true, the processor already writes as the
    specification has it, and the private way in ``write_frozen`` can go once such an SDK is the oldest supported.
    Where the attributes are no longer frozen or shared so, ``write_frozen`` has to be looked at."""
    pin, provider = Pin(), TracerProvider()
    provider.add_span_processor(pin)
    provider.get_tracer("x").start_span("s").end()
    assert pin.recording is False, "SpanProcessor._on_ending now sees a span that records"
    assert pin.frozen is True
    assert pin.shared is True, "on_end no longer gets the attributes that _on_ending saw"


def test_writes_the_public_way_where_the_sdk_lets_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later SDK calls on_ending while the span records; here one that does is made up."""
    monkeypatch.setattr(frozen_spans, "write_frozen", lambda *_: pytest.fail("not needed"))
    ended = bench.processor.on_ending
    span = bench.start(attributes={**CHAT, **USED})
    ended(span)
    span.end()
    assert attributes(span)[semconv.USAGE_COST] == COST
    assert bench.calls == 1


def test_prices_at_the_end_where_the_sdk_has_no_step_before_it(make: Make) -> None:
    bench = make(exporter_first=False)
    bench.processor._on_ending = lambda span: None  # type: ignore[method-assign]
    bench.chat()
    assert bench.calls == 1
    assert len(bench.with_cost()) == 1


def test_counts_only_where_the_sdk_allows_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(frozen_spans, "write_frozen", lambda *_: False)
    bench.chat()
    bench.chat()
    assert bench.calls == 2
    assert bench.with_cost() == []
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1


# --- what is written -------------------------------------------------------------------------------------------


def test_a_span_made_by_others_is_priced(bench: Bench) -> None:
    bench.chat()
    (span,) = bench.with_cost()
    found = attributes(span)
    assert found[semconv.USAGE_COST] == COST
    assert found[semconv.COST_STATE] == "priced"
    assert found[semconv.COST_SOURCE] == "genai-prices"
    assert found["tokenbudget.cost.part.input"] == 0.0025
    assert found[semconv.CALL_ID] == f"{span.context.trace_id:032x}{span.context.span_id:016x}"
    totals = bench.meter.totals.get(by=("provider", "model"))
    assert totals[("openai", "gpt-4o")].nano_usd == 3_500_000
    (point,) = bench.metric(semconv.METRIC_COST)
    assert point.value == COST
    assert point.attributes[semconv.REQUEST_MODEL] == "gpt-4o"


class Slow(SpanExporter):
    """Keeps what a batch processor hands it, in the wire format of OTLP."""

    def __init__(self) -> None:
        self.names: list[set[str]] = []

    def export(self, spans: Any) -> SpanExportResult:
        for resource in encode_spans(spans).resource_spans:
            for scope in resource.scope_spans:
                self.names += [{attribute.key for attribute in span.attributes} for span in scope.spans]
        return SpanExportResult.SUCCESS


@pytest.mark.parametrize("exporter_first", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("limit", [None, 16])
def test_every_exporter_sees_the_cost(meter: Meter, exporter_first: bool, batch: bool, limit: int | None) -> None:
    exporter = Slow()
    processors = [
        (BatchSpanProcessor if batch else SimpleSpanProcessor)(exporter),
        TokenBudgetSpanProcessor(),
    ]
    provider = TracerProvider(span_limits=SpanLimits(max_span_attributes=limit))
    for each in processors if exporter_first else reversed(processors):
        provider.add_span_processor(each)
    span = provider.get_tracer("somebody").start_span("chat", attributes={**CHAT, **USED})
    span.set_attributes({f"their.{n}": n for n in range(6)})
    span.end()
    assert provider.force_flush()
    (names,) = exporter.names
    assert {semconv.USAGE_COST, semconv.COST_STATE, *CHAT} <= names
    provider.shutdown()


def test_exporters_before_and_after_and_a_second_processor(bench: Bench) -> None:
    second = InMemorySpanExporter()
    bench.provider.add_span_processor(SimpleSpanProcessor(second))
    bench.provider.add_span_processor(TokenBudgetSpanProcessor())
    bench.chat()
    assert bench.calls == 1
    assert len(bench.with_cost()) == 1
    assert semconv.USAGE_COST in attributes(second.get_finished_spans()[0])
    assert '"gen_ai.usage.cost": 0.0035' in second.get_finished_spans()[0].to_json()


def test_limits_of_the_span_hold(make: Make) -> None:
    full = make(provider=TracerProvider(span_limits=SpanLimits(max_span_attributes=6)))
    full.start(attributes={"first": 1, **CHAT, **USED}).end()  # CHAT and USED are five
    (span,) = full.with_cost()
    found = attributes(span)
    assert len(found) == 6
    assert semconv.COST_STATE in found
    assert "first" not in found, "the oldest goes first, as the SDK has it"
    nothing = make(provider=TracerProvider(span_limits=SpanLimits(max_span_attributes=0)))
    nothing.start(scope="opentelemetry.instrumentation.genai.openai", attributes={**CHAT, **USED}).end()
    assert guard._logged == set()
    short = make(provider=TracerProvider(span_limits=SpanLimits(max_span_attribute_length=10)))
    short.chat()
    assert attributes(short.with_cost()[0])[semconv.COST_SOURCE] == "genai-pric"


def test_frozen_again_afterwards(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    span = bench.chat()
    span.set_attribute("late", 1)
    assert "late" not in span.attributes
    with pytest.raises(TypeError):
        span._attributes["late"] = 1


def test_former_names(make: Make) -> None:
    bench = make(former_names=True)
    bench.chat(used={**USED, "gen_ai.usage.cache_read.input_tokens": 1, "gen_ai.usage.cache_write.input_tokens": 5})
    found = attributes(bench.with_cost()[0])
    assert found["gen_ai.system"] == "openai"
    assert found["gen_ai.usage.cache_creation.input_tokens"] == 5


def test_the_price_is_that_of_the_span_and_host(bench: Bench) -> None:
    bench.start(attributes={**CHAT, **USED, "server.address": "my-team.openai.azure.com"}).end()
    bench.start(attributes={**CHAT, **USED, "server.address": "llm.example.com"}).end()
    assert set(bench.meter.totals.get(by="provider")) == {"azure.ai.openai", "openai"}


def test_an_unknown_price_stays_unknown(bench: Bench) -> None:
    bench.start(attributes={**CHAT, **USED, "gen_ai.request.model": "no-such-model"}).end()
    (span,) = bench.exporter.get_finished_spans()
    assert attributes(span)[semconv.COST_STATE] == "unknown"
    assert bench.with_cost() == []
    assert bench.meter.totals.get().unpriced_calls == 1


def test_a_call_without_usage_is_not_made_up(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.chat(used={})
    bench.chat(used={})
    assert bench.calls == 0
    assert {attributes(span)[semconv.COST_STATE] for span in bench.exporter.get_finished_spans()} == {"unknown"}
    (point,) = bench.metric(METRIC_REJECTED)
    assert (point.value, point.attributes[REJECTED_REASON]) == (2, "no_usage")
    assert len([record for record in caplog.records if record.name == "tokenbudget_otel"]) == 1


def test_a_failed_call_without_usage_is_nothing(bench: Bench) -> None:
    failed = bench.start(attributes=CHAT)
    failed.set_status(Status(StatusCode.ERROR))
    failed.end()
    bench.start(attributes={**CHAT, "error.type": "timeout"}).end()
    assert bench.calls == 0
    assert bench.metric(METRIC_REJECTED) == []


def test_other_spans_are_left_alone(bench: Bench) -> None:
    for operation in ("invoke_agent", "execute_tool", "fetch_response", "invoke_workflow"):
        bench.start(operation, attributes={**CHAT, **USED, "gen_ai.operation.name": operation}).end()
    bench.start("GET", attributes={"http.request.method": "GET"}).end()
    assert bench.calls == 0
    assert bench.with_cost() == []


# --- tags and budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "tagged"), [("all", {"web", "chat gpt-4o"}), ("genai", {"chat gpt-4o"}), ("none", set())]
)
def test_tags_from_baggage(make: Make, option: str, tagged: set[str]) -> None:
    bench = make(tags=option)
    with tb.tags(tenant="acme"):
        bench.start("web").end()
        bench.chat()
    bench.start("later").end()
    names = {name for name, span in bench.spans.items() if "tokenbudget.tag.tenant" in attributes(span)}
    assert names == tagged
    assert bench.meter.totals.get(by="tenant")["acme"].calls == 1, "the call is tagged in any case"


def test_a_span_keeps_the_tag_that_it_has(bench: Bench) -> None:
    with tb.tags(tenant="acme"):
        bench.start(attributes={**CHAT, **USED, "tokenbudget.tag.tenant": "own"}).end()
    assert bench.meter.totals.get(by="tenant")["own"].calls == 1


def test_baggage_of_strangers_does_not_fill_a_span(bench: Bench) -> None:
    ctx = Context()
    for n in range(200):
        ctx = baggage.set_baggage(f"tokenbudget.tag.t{n}", "x", ctx)
    bench.start("web", context=ctx, attributes={"http.route": "/"}).end()
    found = attributes(bench.spans["web"])
    assert found["http.route"] == "/"
    assert len(found) == 1 + module.MAX_TAGS


def test_a_wrong_option_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="'all', 'genai' or 'none', not 'some'"):
        TokenBudgetSpanProcessor(tags="some")  # type: ignore[arg-type]


def test_budgets_are_charged_and_never_refuse(bench: Bench) -> None:
    bench.meter.enforcer.add(tb.Budget(limit_usd=0.001, window="day", name="tiny"))
    with tb.budget(max_cost_usd=0.001) as run:
        first = bench.start(attributes=CHAT)
    first.set_attributes(USED)
    first.end()  # outside of the scope that it was started in
    assert run.spent_usd * 10_000 == 35
    (status,) = [row for row in bench.meter.enforcer.status() if row.budget == "tiny"]
    assert status.spent_usd * 10_000 == 35


# --- one call, one charge --------------------------------------------------------------------------------------

OFFICIAL = "opentelemetry.instrumentation.genai.anthropic"
NATIVE = "com.anthropic.sdk.python"


def inside(parent: Any) -> Context:
    return trace.set_span_in_context(parent)


def test_of_nested_spans_the_one_nearest_the_provider_counts(bench: Bench) -> None:
    outer = bench.start("outer", OFFICIAL, attributes=CHAT)
    between = bench.start("between", context=inside(outer))
    inner = bench.start("inner", NATIVE, context=inside(between), attributes=CHAT)
    for span in (inner, between, outer):
        span.set_attributes(USED)
        span.end()
    assert bench.calls == 1
    assert [span.name for span in bench.with_cost()] == ["inner"]
    covered = attributes(bench.spans["outer"])
    assert covered[COVERED_BY] == attributes(bench.spans["inner"])[semconv.CALL_ID]
    assert semconv.CALL_ID not in covered


def test_the_outer_one_may_end_first(bench: Bench) -> None:
    outer = bench.start("outer", OFFICIAL, attributes={**CHAT, **USED})
    inner = bench.start("inner", NATIVE, context=inside(outer), attributes={**CHAT, **USED})
    outer.end()
    inner.end()
    assert bench.calls == 1
    assert [span.name for span in bench.with_cost()] == ["outer"]


def test_the_outer_one_counts_where_the_inner_knows_no_usage(bench: Bench) -> None:
    outer = bench.start("outer", OFFICIAL, attributes={**CHAT, **USED})
    bench.chat(NATIVE, used={}, context=inside(outer))
    outer.end()
    assert [span.name for span in bench.with_cost()] == ["outer"]


def test_recognised_only_at_its_end(bench: Bench) -> None:
    outer = bench.start("outer")
    bench.chat(context=inside(outer))
    outer.set_attributes({**CHAT, **USED})
    outer.end()
    assert bench.calls == 1
    assert COVERED_BY in attributes(bench.spans["outer"])


def test_different_responses_are_different_calls(bench: Bench) -> None:
    """A stream that stays current in its caller becomes the parent of other calls."""
    outer = bench.start("outer", OFFICIAL, attributes={**CHAT, **USED, "gen_ai.response.id": "one"})
    bench.start("other", context=inside(outer), attributes={**CHAT, **USED, "gen_ai.response.id": "two"}).end()
    outer.end()
    assert bench.calls == 2


def test_what_begins_after_its_parent_ended_is_another_call(bench: Bench) -> None:
    outer = bench.chat(OFFICIAL)
    bench.chat(context=inside(outer))
    assert bench.calls == 2


def test_siblings_and_what_a_tool_calls_are_calls_of_their_own(bench: Bench) -> None:
    agent = bench.start("agent", attributes={"gen_ai.operation.name": "invoke_agent", **USED})
    bench.chat(context=inside(agent))
    outer = bench.start("outer", context=inside(agent), attributes={**CHAT, **USED})
    tool = bench.start("tool", context=inside(outer), attributes={"gen_ai.operation.name": "execute_tool"})
    bench.chat(context=inside(tool))
    tool.end()
    outer.end()
    agent.end()
    assert bench.calls == 3


OURS = "tokenbudget_otel.instrumentation.openai"


@pytest.mark.parametrize("ours_first", [True, False])
def test_what_was_charged_at_the_door_is_not_charged_again(bench: Bench, ours_first: bool) -> None:
    outer = bench.start("outer", "opentelemetry.instrumentation.genai.openai", attributes={**CHAT, **USED})
    ours = bench.start("ours", OURS, context=inside(outer), attributes=CHAT)
    ours.set_attributes({**USED, semconv.CALL_ID: "abc", semconv.USAGE_COST: COST, semconv.COST_STATE: "priced"})
    for span in (ours, outer) if ours_first else (outer, ours):
        span.end()
    assert bench.calls == 0
    assert [span.name for span in bench.with_cost()] == ["ours"]
    assert attributes(bench.spans["outer"])[COVERED_BY] == ("abc" if ours_first else "unknown")
    assert set(attributes(bench.spans["ours"])) == {
        *CHAT, *USED, semconv.CALL_ID, semconv.USAGE_COST, semconv.COST_STATE,
    }  # fmt: skip


def test_a_span_that_our_instrumentor_adopted(bench: Bench) -> None:
    adopted = bench.start("adopted", OFFICIAL, attributes={**CHAT, **USED, semconv.CALL_ID: "abc"})
    inner = bench.start("inner", NATIVE, context=inside(adopted), attributes={**CHAT, **USED})
    inner.end()
    adopted.end()
    assert bench.calls == 0
    assert attributes(bench.spans["inner"])[COVERED_BY] == "abc"
    # It ended before our instrumentor wrote the cost: it is shown, and counted nowhere.
    assert attributes(bench.spans["adopted"])[semconv.USAGE_COST] == COST
    assert bench.metric(semconv.METRIC_COST) == []


def test_an_adopted_span_with_its_cost_stays_as_it_is(bench: Bench) -> None:
    carried = {**CHAT, **USED, semconv.CALL_ID: "abc", semconv.COST_STATE: "unknown"}
    bench.start("adopted", OFFICIAL, attributes=carried).end()
    assert attributes(bench.spans["adopted"]) == carried


def test_a_span_inside_of_a_metered_call(bench: Bench) -> None:
    bench.chat(context=Context({METERED_KEY: "abc"}))
    assert bench.calls == 0
    assert attributes(bench.exporter.get_finished_spans()[0])[COVERED_BY] == "abc"


def test_the_same_span_twice_charges_a_budget_once(make: Make, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=1, window="day", name="day"))
    bench = make()
    span = bench.start(attributes={**CHAT, **USED})
    copy = dict(span.attributes)
    span.end()
    span._attributes = type(span._attributes)(attributes=copy, immutable=True)  # as if nothing had been written
    bench.processor._on_ending(span)
    (status,) = meter.enforcer.status()
    assert status.spent_usd * 10_000 == 35


# --- sampling, threads, memory -----------------------------------------------------------------------------------


def test_spans_that_are_not_sampled_are_not_seen(make: Make) -> None:
    """Why metering does not depend on spans."""
    bench = make(provider=TracerProvider(sampler=ALWAYS_OFF))
    bench.chat()
    assert bench.calls == 0


def test_remote_parents(bench: Bench) -> None:
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    bench.chat(context=trace.set_span_in_context(trace.NonRecordingSpan(remote)))
    assert bench.calls == 1


def test_many_threads(bench: Bench) -> None:
    def one(n: int) -> None:
        outer = bench.start("outer", OFFICIAL, attributes={**CHAT, **USED})
        inner = bench.start("inner", NATIVE, context=inside(outer), attributes={**CHAT, **USED})
        if n % 2:
            inner.end()
            outer.end()
        else:
            both = [threading.Thread(target=span.end) for span in (outer, inner)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(400)))
    assert bench.calls == 400
    assert len(bench.with_cost()) == 400
    assert len(bench.processor._charged) <= module.MAX_CHARGED


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_not_held_up(bench: Bench) -> None:
    with bench.processor._lock, frozen_spans._freeze.lock:  # as another thread may at the fork
        child = os.fork()
        if child == 0:
            code = 2
            try:
                bench.chat()
                code = 0 if len(bench.with_cost()) == 1 else 1
            finally:
                os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_spans_that_never_end_are_forgotten(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 100)
    bench = make()
    leaked = [bench.start(attributes=CHAT) for _ in range(1_000)]
    assert len(bench.processor._open) <= 100
    bench.chat(context=inside(leaked[-1]))
    assert bench.calls == 1
    for span in leaked:
        span.end()


def test_a_long_agent_run_keeps_little(bench: Bench) -> None:
    root = bench.start("root")
    for _ in range(200):
        bench.chat(context=inside(root))
    assert len(bench.processor._below[root.context.span_id]) == module.MAX_BELOW
    root.end()
    assert bench.calls == 200


def test_shutdown_and_flush(bench: Bench) -> None:
    assert bench.processor.force_flush(0)
    late = bench.start(attributes={**CHAT, **USED})
    bench.processor.shutdown()
    bench.processor.shutdown()
    late.end()
    assert bench.calls == 1, "the call has been made"


# --- bad values ------------------------------------------------------------------------------------------------


def test_nothing_reaches_the_program(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(bench.processor, "_candidate", broken)
    with bench.start(attributes=CHAT):
        pass
    assert {where for where, _ in guard._logged} == {"note the start of a span", "price a span"}
    guard._logged.clear()


def test_rejected_values_are_counted_and_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bench.chat(used={"gen_ai.usage.input_tokens": -5, "gen_ai.usage.output_tokens": 10})
            bench.chat(used={"gen_ai.usage.input_tokens": "many", "gen_ai.usage.output_tokens": float("nan")})
    counted = {point.attributes[REJECTED_REASON]: point.value for point in bench.metric(METRIC_REJECTED)}
    assert counted == {"negative": 3, "not_a_number": 3, "not_finite": 3}
    ours = [record.getMessage() for record in caplog.records if record.name == "tokenbudget_otel"]
    assert len(ours) == 3
    assert "negative: gen_ai.usage.input_tokens" in ours[0]
    totals = bench.meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (3, 3)
    assert totals.usage.output_tokens == 30


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "negative input": ({"gen_ai.usage.input_tokens": -1_000, "gen_ai.usage.output_tokens": 10}, "negative"),
    "negative output": ({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": -1_000}, "negative"),
    "negative both": ({"gen_ai.usage.input_tokens": -1, "gen_ai.usage.output_tokens": -(2**63)}, "negative"),
    "negative cache": ({**USED, "gen_ai.usage.cache_read.input_tokens": -500}, "negative"),
    "not a number": ({**USED, "gen_ai.usage.output_tokens": float("nan")}, "not_finite"),
    "without end": ({**USED, "gen_ai.usage.input_tokens": float("inf")}, "not_finite"),
    "without beginning": ({**USED, "gen_ai.usage.input_tokens": float("-inf")}, "not_finite"),
    "text": ({**USED, "gen_ai.usage.input_tokens": "1000"}, "not_a_number"),
    "a bool": ({**USED, "gen_ai.usage.input_tokens": True}, "not_a_number"),
    "a list": ({**USED, "gen_ai.usage.input_tokens": [1, 2]}, "not_a_number"),
    "half a token": ({**USED, "gen_ai.usage.input_tokens": 1.5}, "not_whole"),
    "more than there are": ({**USED, "gen_ai.usage.input_tokens": 2**62}, "absurd"),
    "more heard than read": ({**USED, "gen_ai.usage.audio.input_tokens": 5_000}, "contradictory"),
    "more thought than written": ({**USED, "gen_ai.usage.reasoning.output_tokens": 5_000}, "contradictory"),
}
"""What may stand on spans of others, and why it is not taken."""


def test_bad_values_at_volume_never_take_anything_back(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    rounds = 60
    enforcer = bench.meter.enforcer
    enforcer.add(tb.Budget(limit_usd=1_000, limit_tokens=10**9, name="all"))
    rejected: Counter[str] = Counter()
    before = (0, 0, 0, Decimal(0), 0)
    with caplog.at_level(logging.WARNING):
        for number in range(rounds * len(BAD)):
            carried, reason = list(BAD.values())[number % len(BAD)]
            bench.chat(used=carried)
            rejected[reason] += 1  # a span, however much of it is no good
            totals, (row,) = bench.meter.totals.get(), enforcer.status()
            now = (
                totals.nano_usd, totals.usage.input_tokens or 0, totals.usage.output_tokens or 0,
                row.spent_usd or Decimal(0), row.spent_tokens or 0,
            )  # fmt: skip
            assert all(after >= was for was, after in zip(before, now, strict=True)), f"{carried} takes something back"
            before = now
    assert before[0] > 0
    assert {point.attributes[REJECTED_REASON]: point.value for point in bench.metric(METRIC_REJECTED)} == rejected
    for span in bench.exporter.get_finished_spans():
        assert attributes(span).get(semconv.USAGE_COST, 0.0) >= 0.0
    ours = [record.getMessage() for record in caplog.records if record.name == "tokenbudget_otel"]
    assert len(ours) == len(rejected) == len(set(ours)), "one line for each kind"
    assert not guard._logged


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*CHAT, *USED, "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.audio.input_tokens"]),
        st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=3), st.booleans()),
    )
)
def test_whatever_a_span_carries(bench: Bench, carried: dict[str, Any]) -> None:
    span = bench.start(attributes={"gen_ai.operation.name": "chat"})
    span.set_attributes(carried)
    span.end()
    cost = attributes(bench.exporter.get_finished_spans()[-1]).get(semconv.USAGE_COST)
    assert cost is None or cost >= 0
    assert guard._logged == set()


def test_two_spans_of_one_response_in_two_traces_are_one_call(bench: Bench) -> None:
    """A framework's callbacks and the SDK that traces itself know nothing of each other."""
    spans = [bench.start(f"span {n}", attributes=CHAT) for n in range(3)]
    for span, response in zip(spans, ("resp_1", "resp_1", "resp_2"), strict=True):
        span.set_attributes({**USED, "gen_ai.response.id": response})
        span.end()
    later = bench.chat(used={**USED, "gen_ai.response.id": "resp_1"})
    first, second, other = spans
    assert second.attributes[COVERED_BY] == first.attributes[semconv.CALL_ID]
    assert semconv.USAGE_COST not in second.attributes
    assert [span.attributes[semconv.USAGE_COST] for span in (first, other, later)] == [COST] * 3
    assert bench.calls == 3, "a server that gives every response the same id has answered more than one call"


def test_what_an_openinference_tool_calls_is_a_call_of_its_own(bench: Bench) -> None:
    with bench.provider.get_tracer("a").start_as_current_span("outer", attributes={**CHAT, **USED}):
        tool = {"openinference.span.kind": "TOOL"}
        with bench.provider.get_tracer("a").start_as_current_span("tool", attributes=tool):
            bench.chat()
    assert bench.calls == 2
