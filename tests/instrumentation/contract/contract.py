"""How the contract suite drives a surface, and what a call must leave behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.trace import SpanKind, StatusCode
from surface import Surface

import tokenbudget_otel as tb
from both_modes import each, settled
from tokenbudget_otel import api
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Simulator

# Written out here again, so that a name that changes in the package is noticed.
ATTRIBUTES = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "input_text_tokens": "gen_ai.usage.text.input_tokens",
    "input_audio_tokens": "gen_ai.usage.audio.input_tokens",
    "input_image_tokens": "gen_ai.usage.image.input_tokens",
    "input_video_tokens": "gen_ai.usage.video.input_tokens",
    "output_text_tokens": "gen_ai.usage.text.output_tokens",
    "output_audio_tokens": "gen_ai.usage.audio.output_tokens",
    "output_image_tokens": "gen_ai.usage.image.output_tokens",
    "output_video_tokens": "gen_ai.usage.video.output_tokens",
    "cache_read_text_tokens": "gen_ai.usage.text.cache_read.input_tokens",
    "cache_read_audio_tokens": "gen_ai.usage.audio.cache_read.input_tokens",
    "cache_read_image_tokens": "gen_ai.usage.image.cache_read.input_tokens",
    "cache_read_video_tokens": "gen_ai.usage.video.cache_read.input_tokens",
}


# --- driving ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def client_of(surface: Surface, sim: Simulator, mode: str) -> AsyncIterator[Any]:
    """A client of the surface's own making, entered and left where that is what its SDK wants."""
    client = surface.client(sim, mode == "async")
    if mode == "async" and hasattr(client, "__aenter__"):
        async with client as entered:
            yield client if entered is None else entered
    elif mode == "sync" and hasattr(client, "__enter__"):
        with client as entered:
            yield client if entered is None else entered
    else:
        yield client
        for name in ("aclose", "close"):
            if callable(close := getattr(client, name, None)):
                await settled(close())
                break


async def opened(stream: Any) -> tuple[Any, Callable[[Any], Any] | None]:
    """What is to be read of a stream, and how it is left: stream helpers are managers that give the stream."""
    stream = await settled(stream)
    if hasattr(stream, "__aiter__") or hasattr(stream, "__iter__"):
        return stream, None
    if hasattr(stream, "__aenter__"):
        return await stream.__aenter__(), lambda error: stream.__aexit__(type(error) if error else None, error, None)
    return stream.__enter__(), lambda error: stream.__exit__(type(error) if error else None, error, None)


async def read_out(stream: Any) -> list[Any]:
    """Every item of a stream."""
    items, leave = await opened(stream)
    try:
        found = [item async for item in each(items)]
    except BaseException as error:
        if leave is not None:
            await settled(leave(error))
        raise
    if leave is not None:
        await settled(leave(None))
    return found


async def left_early(stream: Any) -> None:
    """One item of a stream, and then no more."""
    items, leave = await opened(stream)
    async for _ in each(items):
        break
    if leave is not None:
        await settled(leave(None))
        return
    for name in ("aclose", "close"):
        if callable(close := getattr(items, name, None)):
            await settled(close())
            break
    # Async generators inside an SDK's own are closed by the event loop, some turns later.
    for _ in range(5):
        await asyncio.sleep(0)


async def run(surface: Surface, client: Any, kind: str) -> Any:
    """One call of a kind: ``call``, ``stream`` (read out) or ``raw``."""
    made = getattr(surface, kind)(client)
    return await read_out(made) if kind == "stream" else await settled(made)


_CHANGING = re.compile(
    r"[0-9a-f]{24}|0x[0-9a-f]+|[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} [\d:]{8} GMT|"
    r"(?<=latency_ms['\"]: )\d+|datetime\.datetime\([^)]*\)"
)
"""What two answers to the same request may differ in: ids, addresses in memory, dates."""


def shown(value: Any) -> Any:
    """Type and content of what the program got, as text that can be compared."""
    if isinstance(value, list):
        return [shown(item) for item in value]
    return type(value).__name__, _CHANGING.sub("~", repr(value))


async def outcome(surface: Surface, client: Any, kind: str) -> Any:
    """All that a program can tell of a call: its data, or its error."""
    try:
        return shown(await run(surface, client, kind))
    except Exception as error:
        return "raised", type(error).__qualname__, _CHANGING.sub("~", str(error))


# --- what a call leaves behind ------------------------------------------------------------------------------------


def tokens_of(span: Any) -> dict[str, Any]:
    """Every count on a span, by the attribute's name."""
    return {
        name: value
        for name, value in span.attributes.items()
        if name not in ("gen_ai.usage.cost", "tokenbudget.usage.estimated")
        and name.startswith(("gen_ai.usage.", "tokenbudget.usage."))
    }


def check_span(surface: Surface, span: Any, *, outcome: tuple[str, ...] = ("completed",)) -> dict[str, Any]:
    """What every span of a surface says, whatever became of the call."""
    attributes = dict(span.attributes)
    assert span.kind is SpanKind.CLIENT
    assert span.name == f"{surface.operation} {surface.model}"
    assert attributes["gen_ai.operation.name"] == surface.operation
    assert attributes["gen_ai.provider.name"] == surface.system
    assert attributes["gen_ai.request.model"] == surface.model
    assert attributes["server.address"] in ("127.0.0.1", "localhost")
    assert attributes["server.port"] > 0
    assert attributes["tokenbudget.call.id"]
    assert attributes["tokenbudget.call.outcome"] in outcome
    return attributes


def check_counted(surface: Surface, kind: str, sim: Simulator, telemetry: Any, meter: Meter) -> None:
    """One span, one charge, every part of the usage to the token, and the exact cost."""
    expected = dict(surface.stream_usage if kind == "stream" and surface.stream_usage is not None else surface.usage)
    span = telemetry.span()
    attributes = check_span(surface, span)
    assert "error.type" not in attributes
    assert span.status.status_code is StatusCode.UNSET
    assert "tokenbudget.usage.estimated" not in attributes
    assert tokens_of(span) == {ATTRIBUTES.get(name, f"tokenbudget.usage.{name}"): n for name, n in expected.items()}

    assert sim.settle()
    [billed] = sim.billed
    for name in ("input_tokens", "output_tokens"):
        if name in expected:
            assert expected[name] == getattr(billed.usage, name), f"{name} is not what the provider bills"

    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (1, 0)
    assert totals.usage.counts() == expected
    assert attributes["tokenbudget.cost.state"] == surface.cost_state
    if surface.cost_state == "unknown":
        assert totals.unpriced_calls == 1
        assert "gen_ai.usage.cost" not in attributes
    else:
        assert totals.nano_usd == round(attributes["gen_ai.usage.cost"] * 1e9)
    if surface.cost_state == "priced":
        cost = tb.calculate_cost(surface.model, tb.TokenUsage(**expected), provider=surface.system)
        assert cost is not None
        assert cost.nano_usd == totals.nano_usd


def hooks(surface: Surface) -> Iterator[tuple[Any, str, Any]]:
    """Every attribute that is replaced while the SDK is instrumented: owner, name, and what was there before."""
    doors = [api._instrumentor(surface.sdk)._door]
    while doors:
        door = doors.pop()
        doors += getattr(door, "doors", ())
        for owner, name, previous, _ in door._hooked:
            yield owner(), name, previous
