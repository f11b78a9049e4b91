"""A stream ends its call exactly once, however it ends, and settles on the best evidence."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic_doors import BODY, assert_booked_exactly, client_of, each, entered, in_our_words, known, settled
from opentelemetry import trace
from opentelemetry.trace import StatusCode

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import deferred
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

# 40 pieces, with the exact input known from message_start and an output that only message_delta knows. The pauses
# make the pieces arrive one by one, so that "left in the middle" means it.
LONG = Behaviour(text="word " * 160, input_tokens=1000, cached_tokens=600, output_tokens=400, chunks=40)
SLOW = Behaviour(text="word " * 160, input_tokens=1000, cached_tokens=600, output_tokens=400, chunks=40, chunk_s=0.02)


async def opened(client: Any, **body: Any) -> Any:
    return await settled(client.messages.create(**(dict(BODY) | {"stream": True} | body)))


async def some_of(stream: Any, count: int = 6) -> Any:
    """Read so many events, and give the iterator that is in the middle."""
    reading = each(stream)
    for _ in range(count):
        await anext(reading)
    return reading


# --- ways to leave a stream before its end --------------------------------------------------------------------------


async def close(client: Any) -> None:
    stream = await opened(client)
    await some_of(stream)
    await settled(stream.close())


async def leave_with(client: Any) -> None:
    async with entered(await opened(client)) as stream:
        await some_of(stream)


async def break_in_with(client: Any) -> None:
    async with entered(await opened(client)) as stream:
        async for event in each(stream):
            if event.type == "content_block_delta":
                break


async def raise_in_with(client: Any) -> None:
    with pytest.raises(LookupError):
        async with entered(await opened(client)) as stream:
            await some_of(stream)
            raise LookupError("the program's own")


async def close_response(client: Any) -> None:
    stream = await opened(client)
    await some_of(stream)
    response = stream.response
    await settled(response.aclose() if hasattr(stream, "__aiter__") else response.close())


async def leave_helper(client: Any) -> None:
    async with entered(client.messages.stream(**BODY)) as stream:
        await some_of(stream)


async def leave_text_stream(client: Any) -> None:
    async with entered(client.messages.stream(**BODY)) as stream:
        await some_of(stream.text_stream, 2)


async def leave_beta_helper(client: Any) -> None:
    async with entered(client.beta.messages.stream(**BODY)) as stream:
        await some_of(stream)


async def leave_raw(client: Any) -> None:
    raw = await settled(client.messages.with_raw_response.create(**BODY, stream=True))
    stream = await settled(raw.parse())
    await some_of(stream)
    await settled(stream.close())


async def leave_streaming_response_lines(client: Any) -> None:
    async with entered(client.messages.with_streaming_response.create(**BODY, stream=True)) as response:
        await some_of(response.iter_lines(), 12)


async def leave_streaming_response_bytes(client: Any) -> None:
    async with entered(client.messages.with_streaming_response.create(**BODY, stream=True)) as response:
        await some_of(response.iter_bytes(), 3)


async def never_read(client: Any) -> None:
    stream = await opened(client)
    await settled(stream.close())


EARLY: dict[str, Callable[[Any], Awaitable[None]]] = {
    each_way.__name__: each_way
    for each_way in (
        close,
        leave_with,
        break_in_with,
        raise_in_with,
        close_response,
        leave_helper,
        leave_text_stream,
        leave_beta_helper,
        leave_raw,
        leave_streaming_response_lines,
        leave_streaming_response_bytes,
    )
}


def assert_settled_on_evidence(meter: Meter, span: Any, *, seen: bool = True) -> None:
    """Input exact, output estimated from the text that came, and flagged; the placeholder is no truth."""
    totals = meter.totals.get()
    assert totals.calls == 1
    assert totals.estimated_calls == 1
    assert span.attributes[semconv.USAGE_ESTIMATED] is True
    usage = totals.usage
    if seen:
        assert usage.input_tokens == 1000
        assert usage.cache_read_tokens == 600
        assert 2 <= usage.output_tokens < 400, "counted from the text, and the placeholder is not the count"
        assert span.attributes[semconv.USAGE_OUTPUT_TOKENS] == usage.output_tokens
    cost = tb.calculate_cost(BODY["model"], usage, provider="anthropic")
    assert cost is not None
    assert totals.nano_usd == cost.nano_usd


@pytest.mark.parametrize("way", EARLY.values(), ids=EARLY)
async def test_leaving_early_ends_the_call_at_once(
    way: Callable[[Any], Awaitable[None]], client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    """The same user action has one outcome: closed, which is no error. Not at the collector's leisure: at once."""
    sim.default = SLOW
    gc.disable()
    try:
        await way(client)
        spans = instrumented.exporter.get_finished_spans()
    finally:
        gc.enable()
    assert len(spans) == 1
    (span,) = spans
    assert span.attributes[semconv.CALL_OUTCOME] == "closed"
    assert span.status.status_code is StatusCode.UNSET
    assert semconv.ERROR_TYPE not in span.attributes
    assert_settled_on_evidence(meter, span)
    assert len(instrumented.spans()) == 1, "and no second one when it is collected"


async def test_closed_before_it_was_read_settles_on_what_was_sent(
    client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = LONG
    await never_read(client)
    span = instrumented.span()
    assert span.attributes[semconv.CALL_OUTCOME] == "closed"
    assert_settled_on_evidence(meter, span, seen=False)
    assert meter.totals.get().usage.input_tokens > 0


# --- dropped: nobody closes it --------------------------------------------------------------------------------------


async def drop(stream: Any) -> None:
    await some_of(stream)


async def drop_unread(stream: Any) -> None:
    pass


async def drop_in_cycle(stream: Any) -> None:
    await some_of(stream)
    ring: list[Any] = [stream]
    ring.append(ring)


DROPS = {"after_some": drop, "never_iterated": drop_unread, "in_a_cycle": drop_in_cycle}


# The SDK itself leaves the connection of a dropped async stream to the collector, which complains about it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("way", DROPS.values(), ids=DROPS)
async def test_a_dropped_stream_is_settled_when_it_is_collected(
    way: Callable[[Any], Awaitable[None]], client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = SLOW
    await way(await opened(client))
    async with asyncio.timeout(5):
        while not instrumented.spans():  # collects; but it is the loop that closes an async generator
            await asyncio.sleep(0.001)
    span = instrumented.span()
    assert span.attributes[semconv.CALL_OUTCOME] in ("abandoned", "closed")
    assert span.status.status_code is StatusCode.UNSET
    assert_settled_on_evidence(meter, span, seen=way is not drop_unread)


# --- cancelled -----------------------------------------------------------------------------------------------------


async def reading(client: Any, under_way: asyncio.Event) -> None:
    async for event in await opened(client):
        if event.type == "content_block_delta":
            under_way.set()


async def reading_helper(client: Any, under_way: asyncio.Event) -> None:
    async with client.messages.stream(**BODY) as stream:
        async for event in stream:
            if event.type == "text":
                under_way.set()


@pytest.mark.parametrize("reader", (reading, reading_helper))
async def test_a_cancelled_task_ends_its_call(
    reader: Callable[..., Awaitable[None]], sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = SLOW
    under_way = asyncio.Event()
    task = asyncio.create_task(reader(client_of(sim, True), under_way))  # type: ignore[arg-type]
    await under_way.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (span,) = instrumented.exporter.get_finished_spans()  # not only when the traceback is collected
    assert span.attributes[semconv.CALL_OUTCOME] in ("cancelled", "closed")
    assert span.status.status_code is StatusCode.UNSET
    assert_settled_on_evidence(meter, span)
    assert len(instrumented.spans()) == 1


async def test_cancelled_before_the_answer_settles_on_the_input(
    sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    """The request was sent: the provider may well bill it."""
    sim.default = Behaviour(timeout=True)
    task = asyncio.create_task(client_of(sim, True).messages.create(**BODY))
    async with asyncio.timeout(5):
        while not sim.requests:
            await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = instrumented.span()
    assert span.attributes[semconv.CALL_OUTCOME] == "cancelled"
    assert span.status.status_code is StatusCode.UNSET
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (1, 1)
    assert totals.usage.input_tokens > 0


async def test_aclose_of_the_programs_own_generator(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    sim.default = SLOW
    client = client_of(sim, True)

    async def words() -> Any:
        async with client.messages.stream(**BODY) as stream:
            async for text in stream.text_stream:
                yield text

    generator = words()
    await anext(generator)
    await anext(generator)
    await generator.aclose()
    (span,) = instrumented.exporter.get_finished_spans()
    assert span.attributes[semconv.CALL_OUTCOME] == "closed"
    assert_settled_on_evidence(meter, span)


# --- the provider's fault --------------------------------------------------------------------------------------------

FAULTS = {
    # behaviour, what the program sees (None: nothing at all), outcome, error.type
    "cut": ({"cut_after": 5}, (httpx2.HTTPError, anthropic.APIError), "cut", None),
    "silent_end": ({"silent_end_after": 5}, (), "cut", "incomplete_stream"),
    "error_event": ({"error_event_after": 5}, (anthropic.APIStatusError,), "failed", "overloaded_error"),
    "error_at_once": ({"error_event_after": 0}, (anthropic.APIStatusError,), "failed", "overloaded_error"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_stream_that_the_provider_breaks(
    fault: Any, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    how, errors, outcome, error_type = fault
    sim.default = Behaviour(
        text="word " * 160, input_tokens=1000, cached_tokens=600, output_tokens=400, chunks=40, **how
    )
    seen = None
    try:
        async for _ in each(await opened(client)):
            pass
    except Exception as error:
        seen = error
    assert isinstance(seen, errors) if errors else seen is None, "the program gets what it got before"
    span = instrumented.span()
    assert span.attributes[semconv.CALL_OUTCOME] == outcome
    assert span.status.status_code is StatusCode.ERROR
    if error_type:
        assert span.attributes[semconv.ERROR_TYPE] == error_type
    else:
        assert span.attributes[semconv.ERROR_TYPE]
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (1, 1)
    assert (totals.usage.input_tokens, totals.usage.cache_read_tokens) == (1000, 600)
    if how.get("error_event_after") == 0:
        # Nothing was written: the placeholder of message_start must not be booked as one token.
        assert not totals.usage.output_tokens
    else:
        assert 5 <= totals.usage.output_tokens < 100


async def test_a_read_that_times_out(client: Any, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    sim.default = Behaviour(text="word " * 20, input_tokens=1000, cached_tokens=600, chunks=5, chunk_s=5)
    impatient = client.with_options(timeout=0.3)
    with pytest.raises((httpx2.TimeoutException, anthropic.APITimeoutError)):
        async for _ in each(await opened(impatient)):
            pass
    span = instrumented.span()
    assert span.attributes[semconv.CALL_OUTCOME] == "failed"
    assert "Timeout" in span.attributes[semconv.ERROR_TYPE]
    assert_settled_on_evidence(meter, span)


@pytest.mark.parametrize(("usage", "estimated"), [("absent", 1), ("null", 1)], ids=("without_usage", "with_null_usage"))
async def test_a_whole_stream_without_usage_is_estimated_and_says_so(
    usage: Any, estimated: int, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = Behaviour(text="word " * 40, usage=usage)
    # The SDK's own accumulation needs no usage as long as events are read plainly.
    async for _ in each(await opened(client)):
        pass
    span = instrumented.span()
    assert span.attributes[semconv.CALL_OUTCOME] == "completed"
    totals = meter.totals.get()
    assert totals.estimated_calls == estimated
    assert totals.usage.output_tokens >= 40
    assert totals.usage.input_tokens > 0


# --- what the bytes look like does not matter -----------------------------------------------------------------------

WIRES = {
    "whole": {},
    "one_byte_at_a_time": {"split": 1},
    "odd_pieces": {"split": 7},
    "crlf": {"crlf": True},
    "crlf_in_pieces": {"crlf": True, "split": 5},
    "gzip": {"gzip": True},
    "gzip_in_pieces": {"gzip": True, "split": 11},
    "one_chunk": {"chunks": 1},
}


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
async def test_read_out_whatever_the_wire(
    wire: dict[str, Any], client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = Behaviour(input_tokens=160, cached_tokens=40, cache_write_5m_tokens=20, output_tokens=50, **wire)
    text = ""
    async with entered(client.messages.stream(**BODY)) as stream:
        async for piece in each(stream.text_stream):
            text += piece
    span = instrumented.span()
    assert text
    # 50, and not the 51 of who adds the placeholder of message_start.
    assert span.attributes[semconv.USAGE_OUTPUT_TOKENS] == 50
    assert span.attributes[semconv.USAGE_INPUT_TOKENS] == 160
    assert span.attributes[semconv.RESPONSE_TIME_TO_FIRST_CHUNK] > 0, "for text_stream too"
    assert_booked_exactly(meter, span, sim.billed[0])


# --- spans and contexts ---------------------------------------------------------------------------------------------


async def test_code_between_the_chunks_is_not_inside_the_call(client: Any, sim: Simulator, instrumented: Any) -> None:
    sim.default = LONG
    tracer = instrumented.tracer_provider.get_tracer("program")
    with tracer.start_as_current_span("outer") as outer:
        stream = await opened(client)
        assert trace.get_current_span() is outer
        async for _ in each(stream):
            assert trace.get_current_span() is outer
            tracer.start_span("work").end()
        assert trace.get_current_span() is outer
    spans = {span.name: span for span in instrumented.spans()}
    llm = spans[f"chat {BODY['model']}"]
    assert llm.parent.span_id == outer.get_span_context().span_id
    assert spans["work"].parent.span_id == outer.get_span_context().span_id


@pytest.mark.parametrize("order", ((0, 1, 2), (2, 1, 0), (1, 2, 0)))
async def test_interleaved_streams_are_kept_apart(
    order: tuple[int, ...], client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.then(*(Behaviour(text="word " * 20, input_tokens=100 + n, output_tokens=50 + n) for n in range(3)))
    streams = [await opened(client) for _ in range(3)]
    iterators = [each(stream) for stream in streams]
    for _ in range(4):
        for place in order:
            await anext(iterators[place])
    for place in order:
        async for _ in iterators[place]:
            pass
    spans = instrumented.spans()
    counted = {
        (span.attributes[semconv.USAGE_INPUT_TOKENS], span.attributes[semconv.USAGE_OUTPUT_TOKENS]) for span in spans
    }
    assert counted == {(100, 50), (101, 51), (102, 52)}
    assert len(spans) == meter.totals.get().calls == 3


async def test_a_stream_may_be_read_in_another_task(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    sim.default = LONG
    stream = await opened(client_of(sim, True))

    async def rest() -> None:
        async for _ in stream:
            pass

    await asyncio.create_task(rest(), context=contextvars.Context())
    assert_booked_exactly(meter, instrumented.span(), sim.billed[0])


async def test_a_manager_may_be_left_in_another_task(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    sim.default = SLOW
    manager = client_of(sim, True).messages.stream(**BODY)
    stream = await manager.__aenter__()
    await some_of(stream)
    await asyncio.create_task(manager.__aexit__(None, None, None), context=contextvars.Context())
    span = instrumented.span()
    assert span.attributes[semconv.CALL_OUTCOME] == "closed"
    assert_settled_on_evidence(meter, span)


def test_a_stream_may_be_read_in_another_thread(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    sim.default = LONG
    stream = client_of(sim).messages.create(**BODY, stream=True)
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    thread.join()
    assert_booked_exactly(meter, instrumented.span(), sim.billed[0])


async def test_closing_twice_and_reading_on_change_nothing(
    client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = LONG
    stream = await opened(client)
    async for _ in each(stream):
        pass
    await settled(stream.close())
    await settled(stream.close())
    assert_booked_exactly(meter, instrumented.span(), sim.billed[0])


def test_a_hundred_streams_dropped_in_cycles(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    sim.default = Behaviour(text="word " * 20, input_tokens=10)
    client = client_of(sim)
    gc.disable()
    try:
        for _ in range(100):
            ring: list[Any] = [client.messages.create(**BODY, stream=True)]
            next(iter(ring[0]))
            ring.append(ring)
            del ring
    finally:
        gc.enable()
    assert len(instrumented.spans()) == 100
    totals = meter.totals.get()
    # The whole of these small answers had arrived: what was dropped was counted all the same.
    assert (totals.calls, totals.estimated_calls, totals.usage.input_tokens) == (100, 0, 1000)
    assert deferred._queue.empty()


async def test_books_of_a_stream_read_out(client: Any, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    sim.default = LONG
    async for _ in each(await opened(client)):
        pass
    assert known(meter.totals.get().usage) == in_our_words(sim.billed[0].usage)
    assert_booked_exactly(meter, instrumented.span(), sim.billed[0])
