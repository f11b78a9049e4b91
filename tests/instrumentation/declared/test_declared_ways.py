"""Every way in which a method can hand over its answer is metered, and looks as it did."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any

import acme_llm
import pytest
from acme_llm import AsyncClient, AsyncStream, Client, OnlyIterable, SelfStream, Slots, Stream

import tokenbudget_otel as tb
from both_modes import each, settled

CHUNKS = list(acme_llm.CHUNKS)


def only(metered: Any, *, outcome: str = "completed", estimated: bool = False) -> dict[str, Any]:
    """The attributes of the one span."""
    attributes = dict(metered.span().attributes)
    assert attributes["tokenbudget.call.outcome"] == outcome
    assert attributes.get("tokenbudget.usage.estimated", False) is estimated
    return attributes


def counted(metered: Any) -> None:
    attributes = only(metered)
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (7, 5)
    assert attributes["gen_ai.provider.name"] == "acme"
    assert attributes["gen_ai.request.model"] == "acme-1"


ANSWERS: dict[str, Callable[[], Any]] = {
    "positional": lambda: Client().complete("hello"),
    "keywords": lambda: Client().complete(prompt="hello", model="acme-1"),
    "inherited": lambda: acme_llm.Special().complete("hello"),
    "class method": lambda: Client.of_class("hello"),
    "class method of a subclass": lambda: acme_llm.Special.of_class("hello"),
    "static method": lambda: Client.of_nobody("hello"),
    "static method of an instance": lambda: Client().of_nobody("hello"),
    "function": lambda: acme_llm.ask("hello"),
    "async function": lambda: acme_llm.aask("hello"),
    "coroutine": lambda: AsyncClient().complete("hello"),
    "awaitable": lambda: AsyncClient().later("hello"),
    "future": lambda: AsyncClient().task("hello"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer(name: str, metered: Any, meter: Any) -> None:
    assert await settled(ANSWERS[name]()) is acme_llm.ANSWER
    await asyncio.sleep(0)
    counted(metered)
    assert acme_llm.sent == ["hello"]
    assert meter.totals.get().calls == 1


STREAMS: dict[str, Callable[[], Any]] = {
    "generator": lambda: Client().complete("hello", stream=True),
    "generator function": lambda: Client().lazy("hello"),
    "object": lambda: Client().events("hello"),
    "object that asks itself": lambda: Client().events("hello", kind=SelfStream),
    "iterable": lambda: Client().events("hello", kind=OnlyIterable),
    "slots": lambda: Client().events("hello", kind=Slots),
    "built-in": lambda: Client().events("hello", kind=iter),
    "async generator": lambda: AsyncClient().complete("hello", stream=True),
    "async generator function": lambda: AsyncClient().lazy("hello"),
    "async object": lambda: AsyncClient().events("hello"),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream(name: str, metered: Any, meter: Any) -> None:
    stream = await settled(STREAMS[name]())
    assert [chunk async for chunk in each(stream)] == CHUNKS
    del stream
    counted(metered)
    assert metered.span().attributes["gen_ai.response.time_to_first_chunk"] >= 0
    assert meter.totals.get().calls == 1


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_is_what_it_was(name: str, metered: Any) -> None:
    with_us = await settled(STREAMS[name]())
    tb.uninstrument()
    without = await settled(STREAMS[name]())
    assert isinstance(with_us, type(without))
    assert type(with_us).__name__ == type(without).__name__
    for asked in (inspect.isgenerator, inspect.isasyncgen, inspect.isawaitable):
        assert asked(with_us) == asked(without)
    assert {name for name in dir(without) if not name.startswith("_")} <= set(dir(with_us))
    if name == "slots":
        assert with_us.name == "slots"
    for stream in (with_us, without):
        async for _ in each(stream):
            pass


@pytest.mark.parametrize("name", STREAMS)
async def test_items_one_by_one_and_then_in_a_loop(name: str, metered: Any, meter: Any) -> None:
    stream = await settled(STREAMS[name]())
    if name == "iterable":
        stream = iter(stream)
    items = [await anext(stream) if hasattr(stream, "__anext__") else next(stream)]
    items += [item async for item in each(stream)]
    assert items == CHUNKS
    del stream
    counted(metered)
    assert meter.totals.get().calls == 1


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_is_dropped_half_read(name: str, metered: Any, meter: Any) -> None:
    stream = await settled(STREAMS[name]())
    async for _ in each(stream):
        break
    del stream
    gc.collect()
    await asyncio.sleep(0.01)
    span = metered.span()
    assert span.attributes["tokenbudget.call.outcome"] in ("closed", "abandoned")
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert span.attributes["gen_ai.usage.output_tokens"] == 3  # "One river"
    assert meter.totals.get().calls == 1


LAZY = ("generator", "generator function", "async generator", "async generator function")


@pytest.mark.parametrize("name", [*STREAMS, "awaitable"])
@pytest.mark.filterwarnings("ignore:coroutine")
async def test_a_stream_that_is_never_read(name: str, metered: Any, meter: Any) -> None:
    """What is sent with the first item was not sent, and what was sent before is charged."""
    meter.enforcer.add(tb.Budget(limit_usd=1, window="hour", name="unread", unpriced="allow"))
    made = STREAMS.get(name, lambda: AsyncClient().later("hello"))()
    stream = await settled(made) if name in STREAMS else made
    del stream, made
    attributes = only(metered, outcome="abandoned", estimated=name not in (*LAZY, "awaitable"))
    assert ("gen_ai.usage.input_tokens" in attributes) == (name not in (*LAZY, "awaitable"))
    assert meter.totals.get().calls == len(acme_llm.sent)
    assert [row.reserved_usd for row in meter.enforcer.status()] == [0]


async def test_streams_in_a_cycle_are_found_by_the_collector(metered: Any, meter: Any) -> None:
    for kind in (Stream, Slots, OnlyIterable):
        holder: dict[str, Any] = {"stream": Client().events("hello", kind=kind)}
        holder["self"] = holder
    holder = {"stream": Client().lazy("hello")}
    next(holder["stream"])
    holder["self"] = holder
    del holder
    assert {span.attributes["tokenbudget.call.outcome"] for span in metered.spans()} == {"abandoned"}
    assert meter.totals.get().calls == 4


def test_closing(metered: Any) -> None:
    for stream in (Client().lazy("hello"), Client().events("hello")):
        with closing(stream):
            next(stream)
    with Client().events("hello") as stream:
        next(stream)
    assert stream.closed
    assert [span.attributes["tokenbudget.call.outcome"] for span in metered.spans()] == ["closed"] * 3


async def test_closing_async(metered: Any) -> None:
    async with aclosing(AsyncClient().lazy("hello")) as stream:
        await anext(stream)
    async with await AsyncClient().events("hello") as stream:
        await anext(stream)
    assert stream.closed
    assert [span.attributes["tokenbudget.call.outcome"] for span in metered.spans()] == ["closed"] * 2


async def test_a_manager_that_gives_a_stream(metered: Any, meter: Any) -> None:
    with Client().managed("hello") as stream:
        assert isinstance(stream, Stream)
        assert list(stream) == CHUNKS
    async with AsyncClient().managed("hello") as stream:
        assert isinstance(stream, AsyncStream)
        assert [chunk async for chunk in stream] == CHUNKS
    assert meter.totals.get().calls == 2
    assert meter.totals.get().estimated_calls == 0
    with Client().managed("hello") as stream:
        next(stream)
    Client().managed("hello")  # never entered, never sent
    outcomes = [span.attributes["tokenbudget.call.outcome"] for span in metered.spans()]
    assert sorted(outcomes) == ["abandoned", "closed", "completed", "completed"]
    assert meter.totals.get().calls == 3


def test_a_generator_is_sent_to_and_thrown_into(declare: Any, monkeypatch: pytest.MonkeyPatch, meter: Any) -> None:
    def lazy(self: Any, prompt: str, model: str = "acme-1") -> Any:
        got = yield {"delta": "first"}
        try:
            got = yield {"delta": got}
        except KeyError as error:
            got = yield {"delta": f"caught {error}"}
        return got

    monkeypatch.setattr(Client, "lazy", lazy)
    metered = declare()
    stream = Client().lazy("hello")
    assert inspect.getgeneratorstate(stream) == "GEN_CREATED"
    with pytest.raises(TypeError):
        stream.send("too early")
    assert next(stream) == {"delta": "first"}
    assert stream.send("second") == {"delta": "second"}
    assert stream.throw(KeyError("x")) == {"delta": "caught 'x'"}
    with pytest.raises(StopIteration) as stop:
        stream.send("done")
    assert stop.value.value == "done"
    only(metered, outcome="cut", estimated=True)
    metered.exporter.clear()
    stream = Client().lazy("hello")
    next(stream)
    with pytest.raises(LookupError):
        stream.throw(LookupError("the program's own"))
    only(metered, outcome="closed", estimated=True)


async def test_an_async_generator_is_thrown_into(metered: Any) -> None:
    stream = AsyncClient().lazy("hello")
    await anext(stream)
    with pytest.raises(LookupError):
        await stream.athrow(LookupError("the program's own"))
    only(metered, outcome="closed", estimated=True)


def test_what_a_generator_returns(metered: Any) -> None:
    def outer() -> Any:
        return (yield from Client().lazy("hello"))

    stream = outer()
    assert [next(stream) for _ in CHUNKS] == CHUNKS
    with pytest.raises(StopIteration) as stop:
        next(stream)
    assert stop.value.value == "stopped"


async def test_a_task_that_is_cancelled(declare: Any, meter: Any) -> None:
    metered = declare()
    reading = asyncio.Event()

    async def read() -> None:
        async for _ in await AsyncClient().complete("hello", stream=True):
            reading.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0.01)
    assert metered.span().attributes["tokenbudget.call.outcome"] in ("closed", "cancelled")
    assert meter.totals.get().calls == 1


def test_a_loop_that_ends(metered: Any, meter: Any) -> None:
    """What is left when the loop is closed is ended by it, and what no loop knows by the collector."""
    kept = []

    async def main() -> None:
        stream = AsyncClient().lazy("hello")
        await anext(stream)
        kept.append(stream)

    asyncio.run(main())
    assert metered.span().attributes["tokenbudget.call.outcome"] == "closed"
    stream = AsyncClient().lazy("hello")  # outside of every loop
    step = stream.__anext__()
    with pytest.raises(BaseException):  # noqa: B017
        step.send(None)
        step.throw(asyncio.CancelledError())
    del stream, step
    assert len(metered.spans()) == 2


def test_errors_of_a_stream(metered: Any, meter: Any) -> None:
    failing = Client(chunks=(CHUNKS[0], RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        list(failing.lazy("hello"))
    attributes = only(metered, outcome="failed", estimated=True)
    assert attributes["error.type"] == "RuntimeError"
    assert attributes["gen_ai.usage.output_tokens"] == 3
    metered.exporter.clear()
    refused = RuntimeError("refused")
    refused.status_code = 429  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="refused"):
        list(Client(chunks=(refused,)).lazy("hello"))
    assert "gen_ai.usage.input_tokens" not in only(metered, outcome="failed")
    assert meter.totals.get().calls == 1


def test_threads(metered: Any, meter: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def call(number: int) -> int:
        client = Client()
        client.complete("hello")
        return len(list(client.lazy("hello"))) + len(list(client.events("hello")))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(20))) == [6] * 20
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (60, 0)
    assert totals.usage.counts() == {"input_tokens": 420, "output_tokens": 300}


def test_refused_before_anything_is_sent(metered: Any, meter: Any) -> None:
    with tb.budget(max_calls=0):
        for call in (
            Client().complete,
            Client().lazy,
            Client().events,
            Client().managed,
            Client.of_class,
            acme_llm.ask,
        ):
            with pytest.raises(tb.BudgetExceeded):
                call("hello")
        with pytest.raises(tb.BudgetExceeded):
            asyncio.run(AsyncClient().complete("hello"))
    assert acme_llm.sent == []
