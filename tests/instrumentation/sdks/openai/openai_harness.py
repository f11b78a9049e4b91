"""What the tests of the OpenAI door share: one way to drive sync and async clients, and what a call must leave behind.

Scenarios are written once, as coroutines. ``settled``, ``each`` and ``entered`` take whatever the sync or the async
client gives, so that a case never has a twin.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import openai
from openai import BaseModel
from openai._base_client import AsyncAPIClient, SyncAPIClient
from opentelemetry.trace import SpanKind, StatusCode

import tokenbudget_otel as tb
from both_modes import each as each
from both_modes import settled as settled

VERSION = int(openai.__version__.split(".")[0])
"""The SDK's major version. Version 2 works with httpx, later ones with httpx2."""

http = importlib.import_module("httpx2" if VERSION >= 3 else "httpx")

BROKEN_STREAM = openai.APIConnectionError if VERSION >= 3 else http.RemoteProtocolError
STALLED_STREAM = openai.APITimeoutError if VERSION >= 3 else http.ReadTimeout
"""What the program gets when a stream breaks or stalls: version 2 lets the HTTP library's own errors through."""

MODES = ("sync", "async")
MODEL = "gpt-4o"
MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]

# Taken before anything is instrumented: what `uninstrument` has to bring back, and what a bare client uses.
ORIGINALS = {"sync": vars(SyncAPIClient)["request"], "async": vars(AsyncAPIClient)["request"]}
OWNERS = {"sync": SyncAPIClient, "async": AsyncAPIClient}


# --- one way to drive both kinds of client -----------------------------------------------------------------------


def mode_of(client: Any) -> str:
    return "async" if isinstance(client, AsyncAPIClient) else "sync"


async def read(source: Any) -> list[Any]:
    return [item async for item in each(source)]


async def some(stream: Any, count: int) -> list[Any]:
    """The first so many items, and then a ``break``, in a loop as the program would write it."""
    items = []
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            items.append(item)
            if len(items) == count:
                break
    else:
        for item in stream:
            items.append(item)
            if len(items) == count:
                break
    return items


@asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    if hasattr(manager, "__aenter__"):
        async with manager as inner:
            yield inner
    else:
        with manager as inner:
            yield inner


@contextmanager
def bare(client: Any) -> Iterator[Any]:
    """The client as it is without instrumentation: what the program would have settled from the SDK alone."""
    client.request = functools.partial(ORIGINALS[mode_of(client)], client)
    try:
        yield client
    finally:
        del client.request


# --- what the program sees, in a form that can be compared -------------------------------------------------------

# Ids are a digest of the request, and a request that asks for usage is another one.
_IDS = re.compile(r"\b(chatcmpl-|cmpl-|resp_|msg_|rs_|ws_|fs_|ci_|cntr_|fc_|call_|req_)[0-9a-f]{24}\b")


def anonymous(value: Any) -> Any:
    if isinstance(value, str):
        return _IDS.sub(r"\1ID", value)
    if isinstance(value, bytes):
        return _IDS.sub(r"\1ID", value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {name: anonymous(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [anonymous(item) for item in value]
    return value


def seen(value: Any) -> Any:
    """Type and content of what the SDK gave: what was set, not only what reads the same."""
    if isinstance(value, list | tuple):
        return [seen(item) for item in value]
    if isinstance(value, BaseModel):
        return type(value).__qualname__, anonymous(value.model_dump(exclude_unset=True, warnings=False))
    if isinstance(value, str | bytes | dict | int | float | type(None)):
        return anonymous(value)
    # Events of the stream helpers are plain pydantic models.
    if hasattr(value, "model_dump"):
        return type(value).__qualname__, anonymous(value.model_dump(exclude_unset=True, warnings=False))
    return type(value).__qualname__


# --- what one call leaves behind ---------------------------------------------------------------------------------

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
    "output_text_tokens": "gen_ai.usage.text.output_tokens",
    "output_audio_tokens": "gen_ai.usage.audio.output_tokens",
    "output_image_tokens": "gen_ai.usage.image.output_tokens",
}


def tokens_of(span: Any) -> dict[str, Any]:
    """Every count on a span, by the attribute's name."""
    return {
        name: value
        for name, value in span.attributes.items()
        if name not in ("gen_ai.usage.cost", "tokenbudget.usage.estimated")
        and name.startswith(("gen_ai.usage.", "tokenbudget.usage."))
    }


def expected_tokens(usage: tb.TokenUsage) -> dict[str, Any]:
    return {ATTRIBUTES.get(name, f"tokenbudget.usage.{name}"): value for name, value in usage.counts().items()}


def points(telemetry: Any, metric: str) -> list[Any]:
    return telemetry.metrics().get(metric, [])


def one_call(
    telemetry: Any,
    meter: Any,
    *,
    usage: tb.TokenUsage | None = None,
    model: str = MODEL,
    operation: str = "chat",
    provider: str = "openai",
    outcome: str | tuple[str, ...] = "completed",
    estimated: bool = False,
    error: str | None = None,
    tier: str | None = None,
    reported: int | None = None,
    charged: bool = True,
) -> Any:
    """Exactly one span, one charge and one set of metrics, all of the same call; the span is returned.

    ``usage`` is what the provider's books say; ``None`` leaves the counts to the caller (estimates).
    """
    span = telemetry.span()
    attributes = dict(span.attributes)
    assert span.name == f"{operation} {model}"
    assert span.kind is SpanKind.CLIENT
    assert attributes["gen_ai.operation.name"] == operation
    assert attributes["gen_ai.provider.name"] == provider
    assert attributes["gen_ai.request.model"] == model
    assert attributes["server.address"] == "127.0.0.1"
    assert attributes["server.port"] > 0
    outcomes = (outcome,) if isinstance(outcome, str) else outcome
    assert attributes["tokenbudget.call.outcome"] in outcomes
    assert attributes["tokenbudget.call.id"]
    assert attributes.get("tokenbudget.usage.estimated", False) is estimated
    assert attributes.get("error.type") == error
    # Leaving a stream early is the program's own choice and no error.
    assert (span.status.status_code is StatusCode.ERROR) is (error is not None), span.status

    totals = meter.totals.get()
    assert totals.calls == int(charged)
    assert totals.estimated_calls == int(estimated)
    if not charged:
        assert totals.nano_usd == 0
        assert not totals.usage
        assert "gen_ai.usage.cost" not in attributes
        assert not tokens_of(span)
    elif usage is not None:
        assert tokens_of(span) == expected_tokens(usage)
        assert totals.usage == usage
        if reported is None:
            cost = tb.calculate_cost(model, usage, provider, at=span.start_time / 1e9, tier=tier)
            nano = None if cost is None else cost.nano_usd
        else:
            nano = reported
        assert totals.nano_usd == (nano or 0)
        if nano is None:
            assert "gen_ai.usage.cost" not in attributes
            assert totals.unpriced_calls == 1
        else:
            assert attributes["gen_ai.usage.cost"] == nano / 1e9

    metrics = telemetry.metrics()
    (duration,) = metrics["gen_ai.client.operation.duration"]
    assert duration.count == 1
    assert duration.attributes.get("error.type") == error
    usages = {point.attributes["gen_ai.token.type"]: point for point in metrics.get("gen_ai.client.token.usage", ())}
    assert {kind: (point.count, point.sum) for kind, point in usages.items()} == {
        kind: (1, attributes[name])
        for kind, name in (("input", ATTRIBUTES["input_tokens"]), ("output", ATTRIBUTES["output_tokens"]))
        if name in attributes
    }
    costs = metrics.get("gen_ai.client.operation.cost", ())
    assert sum(point.value for point in costs) == (attributes.get("gen_ai.usage.cost") or 0)
    return span


def nothing_reserved(meter: Any, budget: tb.Budget) -> None:
    """No reservation was left behind."""
    for status in meter.enforcer.status():
        if status.name == budget.name:
            assert not status.reserved_calls, status


# --- the provider's books, in our terms --------------------------------------------------------------------------


def chat_tokens(used: Any) -> tb.TokenUsage:
    counts = {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "cache_read_tokens": used.cached_tokens,
        "reasoning_tokens": used.reasoning_tokens,
        "input_audio_tokens": used.input_audio_tokens,
        "output_audio_tokens": used.output_audio_tokens,
        "rejected_prediction_tokens": used.rejected_prediction_tokens,
        "cache_write_tokens": used.cache_write_tokens or None,
        "input_image_tokens": used.input_image_tokens or None,
    }
    return tb.TokenUsage(**counts)


def response_tokens(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.cached_tokens,
        cache_write_tokens=used.cache_write_tokens,
        reasoning_tokens=used.reasoning_tokens,
        web_searches=used.web_searches or None,
        file_searches=used.file_searches or None,
        code_executions=used.code_interpreter_calls or None,
    )


def embedding_tokens(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(input_tokens=used.input_tokens)


def image_tokens(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        input_text_tokens=used.input_tokens - used.input_image_tokens,
        input_image_tokens=used.input_image_tokens,
        output_text_tokens=used.output_tokens - used.output_image_tokens,
        output_image_tokens=used.output_image_tokens,
    )


def picture_count(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(output_images=used.output_images)


def heard_tokens(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        input_text_tokens=used.input_tokens - used.input_audio_tokens,
        input_audio_tokens=used.input_audio_tokens,
    )


def seconds_heard(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(input_audio_seconds=used.audio_seconds)


def characters_said(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(input_characters=used.input_characters)


def spoken_tokens(used: Any) -> tb.TokenUsage:
    return tb.TokenUsage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)


def stream_types(mode: str) -> type:
    return openai.AsyncStream if mode == "async" else openai.Stream


async def until(condition: Any, timeout_s: float = 5.0) -> Any:
    """What ``condition`` gives as soon as it is true: for what the event loop, the collector or the server still
    has to do. Async generators that were dropped are closed by the loop, some turns later."""
    end = asyncio.get_running_loop().time() + timeout_s
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < end, "it did not happen in time"
        await asyncio.sleep(0.002)
    return value


async def outcome_of(awaitable: Any) -> Any:
    """A value, or the type and text of the exception: to hold the two worlds against each other."""
    try:
        return seen(await awaitable)
    except Exception as error:
        return type(error), anonymous(str(error))
