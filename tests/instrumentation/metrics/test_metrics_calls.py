"""What one call adds to the metrics: cost and how it is known, parts of its tokens, errors, estimates, chunks."""

from __future__ import annotations

import functools
from array import array
from typing import Any

import metrics_harness as harness
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics_harness import CLAUDE, GPT, chat, measuring, message, tried
from opentelemetry.metrics import NoOpMeterProvider

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import bound_instruments, call_metrics
from tokenbudget_otel.instrumentation.sse import EventScanner, chunks_in
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

STANDARD = (
    semconv.METRIC_DURATION,
    semconv.METRIC_TOKEN_USAGE,
    semconv.METRIC_TIME_TO_FIRST_CHUNK,
    semconv.METRIC_TIME_PER_OUTPUT_CHUNK,
)

RICH = Behaviour(
    text="Little by little.", chunks=3, input_tokens=1200, cached_tokens=1000, output_tokens=80, reasoning_tokens=64
)


@pytest.mark.parametrize("call", [chat, harness.chat_stream, harness.responses, harness.responses_stream])
def test_cached_and_reasoning_tokens_are_parts_beside_wholes(call: Any, sim: Simulator) -> None:
    with measuring() as read:
        sim.then(RICH)
        call(sim)
        found = read()
    assert found.by(semconv.METRIC_TOKEN_USAGE, semconv.TOKEN_TYPE) == {"input": 1200, "output": 80}
    details = found.by(semconv.METRIC_TOKEN_DETAILS, semconv.TOKEN_DETAIL)
    assert (details["cache_read"], details["reasoning"]) == (1000, 64)
    assert found.units[semconv.METRIC_TOKEN_DETAILS] == "{token}"


def test_what_is_written_to_a_cache_is_told_with_the_time_that_it_is_kept(sim: Simulator) -> None:
    with measuring() as read:
        sim.then(Behaviour(text="Aye.", input_tokens=900, cache_write_5m_tokens=500, cache_write_1h_tokens=200))
        message(sim)
        details = read().by(semconv.METRIC_TOKEN_DETAILS, semconv.TOKEN_DETAIL)
    assert details["cache_write"] == 700
    assert (details["cache_write_5m"], details["cache_write_1h"]) == (500, 200)


def test_audio_tokens_are_parts(sim: Simulator) -> None:
    with measuring() as read:
        sim.then(
            Behaviour(text="Aye.", input_tokens=300, input_audio_tokens=200, output_tokens=90, output_audio_tokens=70)
        )
        chat(sim, model="gpt-4o-audio-preview")
        details = read().by(semconv.METRIC_TOKEN_DETAILS, semconv.TOKEN_DETAIL)
    assert (details["input_audio"], details["output_audio"]) == (200, 70)


def test_a_call_without_parts_has_no_details(sim: Simulator) -> None:
    with measuring() as read:
        sim.then(Behaviour(text="Aye.", input_tokens=10, output_tokens=2))
        chat(sim)
        assert read()[semconv.METRIC_TOKEN_DETAILS] == []


def test_what_a_call_cost_is_what_the_totals_have(sim: Simulator, meter: Meter) -> None:
    with measuring() as read:
        sim.then(RICH)
        chat(sim)
        found = read()
    assert found.units[semconv.METRIC_COST] == "{USD}"
    assert found.one(semconv.METRIC_COST).sum == pytest.approx(meter.totals.get().nano_usd / 1e9)
    assert found.by(semconv.METRIC_CALLS, semconv.COST_STATE) == {"priced": 1}


def test_calls_of_unknown_price_are_counted_and_cost_nothing(sim: Simulator, meter: Meter) -> None:
    with measuring() as read:
        chat(sim, model="house-llm")
        chat(sim, model="house-llm")
        chat(sim)
        found = read()
    assert [point.attributes[semconv.REQUEST_MODEL] for point in found[semconv.METRIC_COST]] == [GPT]
    assert found.by(semconv.METRIC_CALLS, semconv.COST_STATE) == {"unknown": 2, "priced": 1}
    assert meter.totals.get().unpriced_calls == 2
    assert found.by(semconv.METRIC_TOKEN_USAGE, semconv.REQUEST_MODEL).keys() == {"house-llm", GPT}


@pytest.mark.parametrize("call", [chat, message, harness.chat_stream, harness.message_stream])
def test_a_request_that_fails_takes_time_and_nothing_else(call: Any, sim: Simulator) -> None:
    with measuring() as read:
        sim.then(Behaviour(status=400))
        tried(call, sim)
        found = read()
    assert set(found.points) == {semconv.METRIC_DURATION}
    assert found.one(semconv.METRIC_DURATION).attributes[semconv.ERROR_TYPE].endswith(".BadRequestError")


@pytest.mark.parametrize("call", [harness.chat_stream, harness.message_stream])
def test_a_stream_that_fails_has_its_error_and_marks_what_is_estimated(call: Any, sim: Simulator) -> None:
    with measuring() as read:
        sim.then(Behaviour(text="Little by little it gets late.", chunks=5, error_event_after=2))
        tried(call, sim)
        found = read()
    assert semconv.ERROR_TYPE in found.one(semconv.METRIC_DURATION).attributes
    for name in (semconv.METRIC_TOKEN_USAGE, semconv.METRIC_COST, semconv.METRIC_CALLS):
        assert all(point.attributes[semconv.USAGE_ESTIMATED] is True for point in found[name])
    assert all(semconv.ERROR_TYPE in point.attributes for point in found[semconv.METRIC_TOKEN_USAGE])
    # The chunks came before anybody knew.
    assert semconv.ERROR_TYPE not in found.one(semconv.METRIC_TIME_TO_FIRST_CHUNK).attributes
    assert semconv.USAGE_ESTIMATED not in found.one(semconv.METRIC_DURATION).attributes


def test_a_whole_answer_has_no_chunks(sim: Simulator) -> None:
    with measuring() as read:
        chat(sim)
        message(sim)
        found = read()
    assert found[semconv.METRIC_TIME_TO_FIRST_CHUNK] == found[semconv.METRIC_TIME_PER_OUTPUT_CHUNK] == []


def test_the_chunk_that_is_withheld_is_no_chunk(sim: Simulator) -> None:
    """The program does not ask for the usage, we do."""
    with measuring() as read:
        sim.then(Behaviour(text="Little by little.", chunks=4))
        seen = sum(1 for _ in chat(sim, stream=True))
        found = read()
    assert found.one(semconv.METRIC_TIME_PER_OUTPUT_CHUNK).count == seen - 1


@pytest.mark.parametrize("binding", [True, False])
def test_of_a_long_stream_all_gaps_are_recorded_where_that_is_cheap(
    binding: bool, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound_instruments, "BINDING", binding)
    monkeypatch.setattr(bound_instruments, "MAX_GAPS", 10)
    with measuring() as read:
        sim.then(Behaviour(text="so " * 60, chunks=60))
        seen = 0
        for _ in chat(sim, stream=True, stream_options={"include_usage": True}):
            seen += 1
        found = read()
    assert found.one(semconv.METRIC_TIME_PER_OUTPUT_CHUNK).count == (seen - 1 if binding else 10)
    assert found.one(semconv.METRIC_TIME_TO_FIRST_CHUNK).count == 1


def test_a_refusal_is_counted_and_nothing_else(sim: Simulator, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(limit_calls=0, name="shut", per="tenant"))
    with measuring(metric_tags=("tenant",)) as read, tb.tags(tenant="acme"):
        for call in (chat, message):
            with pytest.raises(tb.BudgetExceeded):
                call(sim)
        found = read()
    assert set(found.points) == {semconv.METRIC_REFUSALS}
    assert found.by(semconv.METRIC_REFUSALS, semconv.REQUEST_MODEL) == {GPT: 1, CLAUDE: 1}
    for point in found[semconv.METRIC_REFUSALS]:
        assert point.attributes[semconv.TAG_PREFIX + "tenant"] == "acme"
        assert point.attributes[semconv.BUDGET_SCOPE] == "tenant=acme"


def test_nothing_is_worked_out_where_nobody_can_see_it(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No meter provider, or one that does nothing: the attributes of metrics are not even put together."""
    monkeypatch.setattr(call_metrics, "_asked", None)
    instrumentor = harness.OpenAIInstrumentor()
    for provider in (None, NoOpMeterProvider()):
        instrumentor.instrument(meter_provider=provider)
        try:
            chat(sim)
        finally:
            instrumentor.uninstrument()
    assert tb.usage().calls == 2


# --- chunks ----------------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.sampled_from(
        [
            (b'data: {"choices": []}', 1),
            (b'event: content_block_delta\ndata: {"delta": "event: ping"}', 1),
            (b'event: ping\ndata: {"type": "ping"}', 0),
            (b": OPENROUTER PROCESSING", 0),
            (b'data:{"text": "data: [DONE]"}', 1),
        ]
    ),
    max_size=12,
)


@given(EVENTS, st.booleans(), st.booleans(), st.lists(st.integers(1, 9), max_size=200))
def test_chunks_are_counted_wherever_the_bytes_are_cut(
    events: list[tuple[bytes, int]], done: bool, crlf: bool, cuts: list[int]
) -> None:
    body = b"".join(event + b"\n\n" for event, _ in events) + (b"data: [DONE]\n\n" if done else b"")
    if crlf:
        body = body.replace(b"\n", b"\r\n")
    wanted = sum(count for _, count in events)
    assert chunks_in(body) == wanted
    scanner = EventScanner(_Never, (b"\0",), _Never, lambda _data: False)  # type: ignore[arg-type]
    for size in cuts:
        scanner.feed(body[:size])
        body = body[size:]
    scanner.feed(body)
    assert scanner.chunks == wanted


class _Never:
    """A pattern without a match."""

    search = staticmethod(lambda _data: None)
    finditer = staticmethod(lambda _data: iter(()))


@pytest.mark.parametrize("counts", [[1], [1, 1, 1], [3], [0, 2, 0, 1]])
def test_gaps_are_between_chunks_and_none_between_those_that_come_together(counts: list[int], sim: Simulator) -> None:
    call = harness_call()
    for count in counts:
        call.chunk_arrived(count)
    gaps: array[float] = call._gaps
    assert len(gaps) == sum(counts) - 1
    together = sum(count - 1 for count in counts if count)
    assert sum(1 for gap in gaps if gap == 0.0) >= together
    assert all(gap >= 0 for gap in gaps)


def harness_call() -> Any:
    from tokenbudget_otel.instrumentation.call import LlmCall, open_request
    from tokenbudget_otel.instrumentation.telemetry import Telemetry
    from tokenbudget_otel.meter import Size

    request = open_request("openai", GPT, "chat", functools.partial(Size, 1, 1))
    return LlmCall(Telemetry.make("test"), Meter(), request)
