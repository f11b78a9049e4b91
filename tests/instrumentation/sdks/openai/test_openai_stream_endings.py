"""However a stream ends, its call ends once: with the best evidence, the right outcome, and nothing left open."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import openai
import pytest
from openai_harness import (
    BROKEN_STREAM,
    MESSAGES,
    STALLED_STREAM,
    bare,
    chat_tokens,
    entered,
    one_call,
    outcome_of,
    read,
    response_tokens,
    seen,
    settled,
    some,
    until,
)
from opentelemetry import trace

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour

TEXT = "one two three four five six seven eight nine ten eleven twelve"
# The first piece of content comes with what opens the stream; the next would take so long that no test sees it.
# The simulator stops waiting as soon as its client has gone.
STALLED = Behaviour(text=TEXT, chunks=6, chunk_s=30)


async def open_chat(client: Any, **options: Any) -> Any:
    return await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True, **options))


async def open_response(client: Any, **options: Any) -> Any:
    return await settled(client.responses.create(model="gpt-5", input="Tell me a story.", stream=True, **options))


async def open_raw(client: Any, **options: Any) -> Any:
    raw = await settled(
        client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES, stream=True, **options)
    )
    return raw.parse()


async def open_completion(client: Any, **options: Any) -> Any:
    return await settled(
        client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once", stream=True, **options)
    )


# How to open it, the model, the operation, and how many items bring the first piece of content.
STREAMS = {
    "chat": (open_chat, "gpt-4o", "chat", 2),
    "responses": (open_response, "gpt-5", "chat", 5),
    "raw": (open_raw, "gpt-4o", "chat", 2),
    "completions": (open_completion, "gpt-3.5-turbo-instruct", "text_completion", 1),
}


@pytest.fixture(params=STREAMS)
def stream_kind(request: pytest.FixtureRequest) -> Any:
    return STREAMS[request.param]


async def close(stream: Any) -> None:
    await settled(stream.close())


# --- ended by the program ----------------------------------------------------------------------------------------


async def by_close(stream: Any, count: int) -> None:
    await some(stream, count)
    await close(stream)


async def by_with(stream: Any, count: int) -> None:
    async with entered(stream) as inner:
        assert inner is stream
        await some(stream, count)


async def by_break(stream: Any, count: int) -> None:
    await some(stream, count)


async def by_response_close(stream: Any, count: int) -> None:
    await some(stream, count)
    response = stream.response
    await (response.aclose() if hasattr(stream, "__aiter__") else settled(response.close()))


async def by_own_error(stream: Any, count: int) -> None:
    with pytest.raises(LookupError):
        async with entered(stream):
            await some(stream, count)
            raise LookupError("the program's own")


async def by_closing_twice(stream: Any, count: int) -> None:
    await by_with(stream, count)
    await close(stream)
    await close(stream)


async def by_cycle(stream: Any, count: int) -> None:
    await some(stream, count)
    cycle: list[Any] = [stream]
    cycle.append(cycle)


WAYS = (by_close, by_with, by_break, by_response_close, by_own_error, by_closing_twice, by_cycle)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_left_early_by_the_program(way, stream_kind, client, sim, instrumented, meter):
    opener, model, operation, count = stream_kind
    sim.then(STALLED)
    await way(await opener(client), count)
    await until(instrumented.spans)
    # The program's own choice, and no error, whichever way it was said.
    span = one_call(
        instrumented, meter, model=model, operation=operation, outcome=("closed", "abandoned"), estimated=True
    )
    if way not in (by_break, by_cycle):
        assert span.attributes["tokenbudget.call.outcome"] == "closed"
    await until(lambda: not sim.open_requests)  # not `sim.settle`: the loop has to run
    (billed,) = sim.billed
    assert not billed.completed
    # Two words were seen: at least a token for each piece, and never the whole answer.
    assert 1 <= span.attributes["gen_ai.usage.output_tokens"] < billed.whole.output_tokens
    assert span.attributes["gen_ai.usage.input_tokens"] > 0
    assert span.attributes["gen_ai.usage.cost"] > 0
    assert not trace.get_current_span().is_recording()


async def never_dropped(stream: Any) -> None:
    return


async def never_closed(stream: Any) -> None:
    await close(stream)


async def never_with(stream: Any) -> None:
    async with entered(stream):
        pass


@pytest.mark.parametrize("way", [never_dropped, never_closed, never_with], ids=lambda way: way.__name__)
async def test_never_read(way, stream_kind, client, sim, instrumented, meter):
    opener, model, operation, _ = stream_kind
    sim.then(STALLED)
    stream = await opener(client)
    await way(stream)
    del stream
    await until(instrumented.spans)
    outcome = "abandoned" if way is never_dropped else "closed"
    span = one_call(instrumented, meter, model=model, operation=operation, outcome=outcome, estimated=True)
    assert "gen_ai.response.time_to_first_chunk" not in span.attributes


async def test_left_after_the_final_count_is_complete(client, sim, instrumented, meter):
    # The count is the provider's own; that the program did not wait for the end makes it no estimate.
    stream = await open_response(client)
    total = 0
    async for event in stream if hasattr(stream, "__aiter__") else _aiter(stream):
        total += 1
        if event.type == "response.completed":
            break
    await close(stream)
    one_call(instrumented, meter, model="gpt-5", usage=response_tokens(sim.billed[0].usage))
    assert total > 5


async def _aiter(stream: Any) -> Any:
    for item in stream:
        yield item


@pytest.mark.parametrize("helper", ["chat", "responses"])
@pytest.mark.parametrize("how", ["break", "unread", "error"])
async def test_helpers_left_early(helper, how, client, sim, instrumented, meter):
    sim.then(STALLED)
    if helper == "chat":
        model, manager = "gpt-4o", client.chat.completions.stream(model="gpt-4o", messages=MESSAGES)
    else:
        model, manager = "gpt-5", client.responses.stream(model="gpt-5", input="Tell me a story.")
    try:
        async with entered(manager) as stream:
            if how != "unread":
                await some(stream, 1)
            if how == "error":
                raise LookupError
    except LookupError:
        assert how == "error"
    # Closing goes past the SDK's stream object to its response: it ends here and not with the next collection.
    assert len(instrumented.exporter.get_finished_spans()) == 1
    one_call(instrumented, meter, model=model, outcome="closed", estimated=True)


# --- ended by the server -----------------------------------------------------------------------------------------

FAULTS = {
    "cut": Behaviour(text=TEXT, chunks=6, cut_after=2),
    "cut at once": Behaviour(text=TEXT, chunks=6, cut_after=0),
    "silent end": Behaviour(text=TEXT, chunks=6, silent_end_after=2),
    "error event": Behaviour(text=TEXT, chunks=6, error_event_after=2),
}
OUTCOMES = {
    # Outcome, and what error.type may be; None: any.
    "cut": ("cut", None),
    "cut at once": ("cut", None),
    "silent end": ("cut", "incomplete_stream"),
    "error event": ("failed", "server_error"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_ended_by_the_server(fault, stream_kind, client, sim, instrumented, meter):
    opener, model, operation, _ = stream_kind
    sim.then(FAULTS[fault])

    async def run() -> Any:
        return await read(await opener(client))

    with bare(client):
        without = await outcome_of(run())
    sim.reset()
    sim.then(FAULTS[fault])
    assert await outcome_of(run()) == without

    outcome, error = OUTCOMES[fault]
    await until(instrumented.spans)
    span = instrumented.span()
    if error is None:
        error = span.attributes["error.type"]
        assert error
    one_call(
        instrumented,
        meter,
        model=model,
        operation=operation,
        # That the connection broke is both: what the program was told is in error.type.
        outcome=(outcome, "failed"),
        estimated=True,
        error=error,
    )
    assert span.attributes["gen_ai.usage.output_tokens"] <= sim.billed[0].whole.output_tokens


async def test_a_connection_that_broke_is_a_cut(client, sim, instrumented):
    # As semconv.CALL_OUTCOME has it: `cut` (by the server).
    sim.then(FAULTS["cut"])
    with pytest.raises(BROKEN_STREAM):
        await read(await open_chat(client))
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "cut"


async def test_malformed_events(stream_kind, client, sim, instrumented, meter):
    opener = stream_kind[0]
    behaviour = Behaviour(text=TEXT, chunks=6, malformed_after=2)
    sim.then(behaviour)

    async def run() -> Any:
        return await read(await opener(client))

    with bare(client):
        without = await outcome_of(run())
    sim.reset()
    sim.then(behaviour)
    assert await outcome_of(run()) == without
    await until(instrumented.spans)
    assert instrumented.span().attributes["tokenbudget.usage.estimated"] is True
    assert meter.totals.get().calls == 1


async def test_read_timeout(stream_kind, client, sim, instrumented, meter):
    opener, model, operation, _ = stream_kind
    sim.then(STALLED)
    with pytest.raises(STALLED_STREAM):
        await read(await opener(client, timeout=0.15))
    span = instrumented.span()
    assert "Timeout" in span.attributes["error.type"]
    one_call(
        instrumented,
        meter,
        model=model,
        operation=operation,
        outcome="failed",
        estimated=True,
        error=span.attributes["error.type"],
    )


# --- cancelled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_chunks", [True, False])
async def test_task_cancelled_while_reading(after_chunks, stream_kind, clients, sim, instrumented, meter):
    opener, model, operation, count = stream_kind
    client = clients("async")
    sim.then(STALLED if after_chunks else Behaviour(text=TEXT, first_chunk_s=30))
    reading = asyncio.Event()
    items: list[Any] = []

    async def run() -> None:
        stream = await opener(client)
        reading.set()
        async for item in stream:
            items.append(item)

    task = asyncio.create_task(run())
    await reading.wait()
    await until(lambda: len(items) >= (count if after_chunks else 0))
    await asyncio.sleep(0.01)  # let it get to the read that is cancelled
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    span = one_call(instrumented, meter, model=model, operation=operation, outcome="cancelled", estimated=True)
    assert bool(span.attributes["gen_ai.usage.output_tokens"]) is after_chunks
    assert len(items) == (count if after_chunks else 0)


@pytest.mark.parametrize("streamed", [True, False])
async def test_task_cancelled_before_the_answer(streamed, clients, sim, instrumented, meter):
    client = clients("async")
    sim.then(Behaviour(timeout=True))
    task = asyncio.create_task(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=streamed))
    await until(lambda: sim.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The provider may have been at work: the input, at least, is booked.
    one_call(instrumented, meter, outcome="cancelled", estimated=True)


async def test_aclose_of_an_iterator(clients, sim, instrumented, meter):
    sim.then(STALLED)
    stream = await open_chat(clients("async"))
    iterator = stream.__aiter__()
    await iterator.__anext__()
    await iterator.aclose()
    await close(stream)
    one_call(instrumented, meter, outcome="closed", estimated=True)


# --- across tasks, threads and spans -----------------------------------------------------------------------------


async def test_two_streams_interleaved(client, sim, instrumented, meter):
    sim.then(Behaviour(text=TEXT, input_tokens=10), Behaviour(text=TEXT + " more", input_tokens=20))
    first, second = await open_chat(client), await open_chat(client)
    pairs = [(aiter_of(first), []), (aiter_of(second), [])]
    while pairs:
        for pair in list(pairs):
            try:
                pair[1].append(await pair[0].__anext__())
            except StopAsyncIteration:
                pairs.remove(pair)
    spans = instrumented.spans()
    assert len(spans) == 2
    assert sorted(span.attributes["gen_ai.usage.input_tokens"] for span in spans) == [10, 20]
    assert {span.parent for span in spans} == {None}
    assert meter.totals.get().usage.input_tokens == 30


def aiter_of(stream: Any) -> Any:
    return stream.__aiter__() if hasattr(stream, "__aiter__") else _aiter(stream)


async def test_made_in_one_thread_and_read_in_another(clients, sim, instrumented, meter):
    client = clients("sync")
    made: list[Any] = []
    maker = threading.Thread(target=lambda: made.append(asyncio.run(open_chat(client))))
    maker.start()
    maker.join()
    reader = threading.Thread(target=lambda: made.extend(made[0]))
    reader.start()
    reader.join()
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


async def test_made_in_one_task_and_read_in_another(clients, sim, instrumented, meter):
    client = clients("async")
    tracer = instrumented.tracer_provider.get_tracer("app")

    async def make() -> Any:
        with tracer.start_as_current_span("maker"):
            return await open_chat(client)

    stream = await asyncio.create_task(make())
    await asyncio.create_task(read(stream))
    maker, call = sorted(instrumented.spans(), key=lambda span: span.name != "maker")
    assert call.parent.span_id == maker.context.span_id
    assert meter.totals.get().usage == chat_tokens(sim.billed[0].usage)


async def test_tags_and_parents_are_those_of_the_call_not_of_the_reader(client, sim, instrumented, meter):
    tracer = instrumented.tracer_provider.get_tracer("app")
    with tb.tags(tenant="acme"), tracer.start_as_current_span("caller"):
        stream = await open_chat(client)
    with tb.tags(tenant="other"), tracer.start_as_current_span("reader") as reader:
        async for _ in stream if hasattr(stream, "__aiter__") else _aiter(stream):
            # Between chunks the program's own span is the current one, and what it starts belongs there.
            assert trace.get_current_span() is reader
            with tracer.start_as_current_span("work"):
                pass
    spans = {span.name: span for span in instrumented.spans()}
    assert spans["chat gpt-4o"].parent.span_id == spans["caller"].context.span_id
    assert spans["work"].parent.span_id == spans["reader"].context.span_id
    assert spans["chat gpt-4o"].attributes["tokenbudget.tag.tenant"] == "acme"
    assert {name: totals.calls for name, totals in meter.totals.get(by="tenant").items()} == {"acme": 1}


async def test_spans_of_the_http_client_are_children(mode, clients, sim, instrumented, meter):
    tracer = instrumented.tracer_provider.get_tracer("http")
    http = openai.DefaultAsyncHttpxClient if mode == "async" else openai.DefaultHttpxClient

    class Traced(http):  # type: ignore[valid-type, misc]
        def send(self, *args: Any, **kwargs: Any) -> Any:
            tracer.start_span("POST").end()
            return super().send(*args, **kwargs)

    client = clients(mode, http_client=Traced(verify=False))
    await read(await open_chat(client))
    spans = {span.name: span for span in instrumented.spans()}
    assert spans["POST"].parent.span_id == spans["chat gpt-4o"].context.span_id


async def test_collected_by_the_collector_on_another_thread(clients, sim, instrumented, meter):
    # A finaliser may run anywhere, also on a thread that holds one of our locks: it only queues the end.
    client = clients("sync")
    sim.then(STALLED)
    stream = await open_chat(client)
    cycle: list[Any] = [stream]
    cycle.append(cycle)
    del stream, cycle
    collector = threading.Thread(target=gc.collect)
    with meter.totals._lock:
        collector.start()
        collector.join(5)
        assert not collector.is_alive()
    await until(instrumented.spans)
    one_call(instrumented, meter, outcome="abandoned", estimated=True)


async def test_stream_attributes_stay_the_sdks_own(client, sim, instrumented):
    with bare(client):
        plain = await open_chat(client)
        await read(plain)
    stream = await open_chat(client)
    assert type(stream) is type(plain)
    assert set(vars(stream)) == set(vars(plain))
    assert type(stream.response) is type(plain.response)
    assert stream.response.headers["content-type"] == plain.response.headers["content-type"]
    assert not stream.response.is_closed
    items = await read(stream)
    assert stream.response.is_closed
    assert seen(items[0])[0] == "ChatCompletionChunk"
    await close(stream)


async def test_the_reservation_of_an_abandoned_stream_is_settled(client, sim, instrumented, meter):
    budget = tb.Budget(limit_usd=1, name="b")
    meter.enforcer.add(budget)
    sim.then(STALLED)
    await some(await open_chat(client), 2)
    await until(instrumented.spans)
    (status,) = meter.enforcer.status()
    assert status.reserved_usd == 0
    assert status.spent_usd == meter.totals.get().cost_usd > 0
