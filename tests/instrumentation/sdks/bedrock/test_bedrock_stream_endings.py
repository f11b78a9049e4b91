"""Streams of Bedrock, however they end: read, left, taken up again, dropped, broken, or with an error inside."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from bedrock_harness import CLAUDE, MESSAGE, MESSAGES, NOVA, client_of, each, read, settled
from botocore.eventstream import ChecksumMismatch
from botocore.exceptions import EventStreamError

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

TWENTY = {"text": "word " * 40, "chunks": 20, "input_tokens": 120, "cached_tokens": 40}
KINDS = {
    "converse": ("converse_stream", {"modelId": CLAUDE, "messages": MESSAGES}, "stream"),
    "anthropic": ("invoke_model_with_response_stream", {"modelId": CLAUDE, "body": json.dumps(MESSAGE)}, "body"),
    "nova": (
        "invoke_model_with_response_stream",
        {"modelId": NOVA, "body": json.dumps({"messages": MESSAGES})},
        "body",
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def open_stream(client: Any, kind: str) -> Any:
    method, given, name = KINDS[kind]
    return (await settled(getattr(client, method)(**given)))[name]


async def first(stream: Any, count: int = 1) -> list[Any]:
    items = []
    if hasattr(stream, "__aiter__"):
        iterator = stream.__aiter__()
        for _ in range(count):
            items.append(await anext(iterator))
        await iterator.aclose()
        return items
    iterator = iter(stream)
    return [next(iterator) for _ in range(count)]


async def test_taken_up_again(client: Any, kind: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    """``next(iter(stream))`` and then a loop is one stream: botocore goes on where the last loop stopped."""
    sim.default = Behaviour(**TWENTY)
    stream = await open_stream(client, kind)
    items = [*await first(stream), *await first(stream, 3), *await read(stream)]
    assert len(items) > 20
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"
    assert (meter.totals.get().usage.input_tokens, meter.totals.get().estimated_calls) == (120, 0)


@pytest.mark.parametrize(("ending", "outcome"), [("close", "closed"), ("drop", "abandoned"), ("unread", "abandoned")])
async def test_left(
    ending: str, outcome: str, client: Any, kind: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.default = Behaviour(**TWENTY)
    meter.enforcer.add(tb.Budget(limit_usd=100, window="hour", name="left"))
    stream = await open_stream(client, kind)
    if ending != "unread":
        await first(stream, 8)
    if ending == "close":
        stream.close()
        stream.close()
    del stream
    gc.collect()
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == outcome
    assert "error.type" not in span.attributes
    totals = meter.totals.get()
    # Anthropic's first event has the input, whatever else is read; the request was sent in every case.
    assert (totals.calls, totals.estimated_calls) == (1, 1)
    assert totals.usage.input_tokens == 120 if kind == "anthropic" and ending != "unread" else totals.usage.input_tokens
    assert (totals.usage.output_tokens or 0) > 0 or ending == "unread"
    assert [row.reserved_usd for row in meter.enforcer.status()] == [0]


async def test_left_after_the_last_event(
    client: Any, kind: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.default = Behaviour(text="A river.", chunks=1, input_tokens=120, output_tokens=30)
    count = len(await read(await open_stream(client, kind)))
    stream = await open_stream(client, kind)
    await first(stream, count)
    stream.close()
    del stream
    gc.collect()
    assert [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()] == ["completed"] * 2
    assert meter.totals.get().estimated_calls == 0
    assert meter.totals.get().usage.counts()["output_tokens"] == 60


async def test_broken(client: Any, kind: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = Behaviour(**TWENTY, cut_after=10)
    stream = await open_stream(client, kind)
    with pytest.raises(Exception):  # noqa: B017 - botocore lets the HTTP library's own through
        await read(stream)
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "cut"
    assert span.attributes["error.type"]
    assert meter.totals.get().estimated_calls == 1
    assert meter.totals.get().usage.output_tokens >= 10


async def test_ended_without_a_word(client: Any, kind: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = Behaviour(**TWENTY, silent_end_after=10)
    await read(await open_stream(client, kind))
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "cut"
    assert span.attributes["error.type"] == "incomplete_stream"
    assert meter.totals.get().estimated_calls == 1


async def test_an_error_inside(client: Any, kind: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = Behaviour(**TWENTY, error_event_after=10)
    with pytest.raises(EventStreamError, match="modelStreamErrorException"):
        await read(await open_stream(client, kind))
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "failed"
    assert span.attributes["error.type"] == "botocore.exceptions.EventStreamError"
    assert "modelStreamErrorException" in span.status.description
    assert meter.totals.get().estimated_calls == 1


@pytest.mark.parametrize(
    ("name", "charged"),
    [
        ("throttlingException", 0),
        ("validationException", 0),
        ("internalServerException", 1),
        ("serviceUnavailableException", 1),
        ("modelStreamErrorException", 1),
    ],
)
async def test_an_error_before_anything_else(
    name: str, charged: int, asynchronous: bool, client: Any, sim: Simulator, instrumented: Any, meter: Meter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """To botocore each of them looks like an answer of status 400."""
    from tokenbudget_otel.simulator import bedrock

    monkeypatch.setattr(bedrock, "event", lambda *_args, **_more: bedrock.exception(name, "Sorry."))
    meter.enforcer.add(tb.Budget(limit_usd=100, window="hour", name="inside"))
    with pytest.raises(EventStreamError):
        await read(await open_stream(client, "converse"))
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "failed"
    assert meter.totals.get().calls == charged
    assert [row.reserved_usd for row in meter.enforcer.status()] == [0]


async def test_a_frame_that_is_broken(client: Any, kind: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = Behaviour(**TWENTY, malformed_after=10)
    with pytest.raises(ChecksumMismatch):
        await read(await open_stream(client, kind))
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "failed"
    assert meter.totals.get().estimated_calls == 1


def test_frames_in_any_pieces(kind: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    method, given, name = KINDS[kind]
    sim.default = Behaviour(**TWENTY, split=7)
    for _ in getattr(client_of(sim), method)(**given)[name]:
        pass
    assert (meter.totals.get().usage.input_tokens, meter.totals.get().estimated_calls) == (120, 0)


async def test_cancelled(sim: Simulator, instrumented: Any, meter: Meter) -> None:
    import asyncio

    sim.default = Behaviour(**TWENTY, chunk_s=0.05)
    async with client_of(sim, True) as client:

        async def listen() -> None:
            async for _ in each(await open_stream(client, "converse")):
                arrived.set()

        arrived = asyncio.Event()
        task = asyncio.create_task(listen())
        await arrived.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        await asyncio.sleep(0)
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "cancelled"
    assert meter.totals.get().estimated_calls == 1
