"""Before anything is timed: that each side does what it is measured for. A side that does not is an error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from clocks import clock
from ours import Books
from peers import Peer
from sides import Side
from telemetry import Telemetry
from workloads import Workload

CALLS = 3


class SideError(AssertionError):
    """A side did not do what it is measured for."""


def made(side: Side, workload: Workload, loop: asyncio.AbstractEventLoop | None, calls: int = CALLS) -> None:
    """Make a few calls."""
    for _ in range(calls):
        if loop is None:
            side.sync(workload)(clock())
        else:
            loop.run_until_complete(_awaited(side, workload))


async def _awaited(side: Side, workload: Workload) -> None:
    await side.asynchronous(workload)(clock())


def spans_of(
    side: Side,
    workload: Workload,
    telemetry: Telemetry,
    loop: asyncio.AbstractEventLoop | None,
    flush: Sequence[Any] = (),
) -> list[ReadableSpan]:
    """The spans of a few calls."""
    side.enter()
    try:
        made(side, workload, loop, 1)  # what is made once is made
        telemetry.keep(flush)
        made(side, workload, loop)
        return telemetry.spans_of(flush)
    finally:
        side.leave()


def silent(side: Side, workload: Workload, telemetry: Telemetry, loop: Any, flush: Sequence[Any] = ()) -> None:
    """The bare client makes no spans, and nothing is metered."""
    books = Books()
    spans = spans_of(side, workload, telemetry, loop, flush)
    if spans:
        raise SideError(f"bare {workload.name} made spans: {[span.name for span in spans]}")
    if problems := books.moved():
        raise SideError(f"bare {workload.name} was metered: {problems}")


def floor(side: Side, workload: Workload, telemetry: Telemetry, loop: Any) -> None:
    """One span a call, with 15 attributes (16 of a stream), and nothing metered."""
    books = Books()
    spans = spans_of(side, workload, telemetry, loop)
    counts = [len(span.attributes or {}) for span in spans]
    if counts != [15 + workload.streamed] * CALLS:
        raise SideError(f"floor {workload.name}: attributes of its spans: {counts}")
    if problems := books.moved():
        raise SideError(f"floor {workload.name} was metered: {problems}")


def ours(side: Side, workload: Workload, telemetry: Telemetry, loop: Any, *, sampled: bool = True) -> None:
    """Every token and nano-dollar of every call, in totals and budgets, and one span a call that says so."""
    books = Books()
    spans = spans_of(side, workload, telemetry, loop)
    if problems := books.wrong(workload, CALLS + 1):
        raise SideError(f"ours {workload.name}: {'; '.join(problems)}")
    if len(spans) != (CALLS if sampled else 0):
        raise SideError(f"ours {workload.name}: spans {[span.name for span in spans]}")
    for span in spans:
        has = dict(span.attributes or {})
        input_tokens, _, output_tokens = workload.tokens
        if has.get("gen_ai.usage.input_tokens") != input_tokens:
            raise SideError(
                f"ours {workload.name}: input tokens of the span are {has.get('gen_ai.usage.input_tokens')}"
            )
        if output_tokens and has.get("gen_ai.usage.output_tokens") != output_tokens:
            raise SideError(f"ours {workload.name}: output tokens of the span {has.get('gen_ai.usage.output_tokens')}")


def peer(side: Side, known: Peer, workload: Workload, telemetry: Telemetry, loop: Any, flush: Sequence[Any]) -> None:
    """A span for each call, with the tokens of the answer where it claims to tell; and nothing metered."""
    books = Books()
    spans = spans_of(side, workload, telemetry, loop, flush)
    if len(spans) < CALLS:
        raise SideError(f"{side.name} {workload.name}: {len(spans)} spans of {CALLS} calls")
    counted = sum(_counted(span, workload) for span in spans)
    claims = workload.name not in known.miscounts
    if claims != (counted >= CALLS):
        way = "sync" if loop is None else "async"
        raise SideError(
            f"{side.name} {workload.name}, {way}: claims usage: {claims}; {counted} of {len(spans)} spans have it"
        )
    if problems := books.moved():
        raise SideError(f"{side.name} {workload.name} was metered by us: {problems}")


def _counted(span: ReadableSpan, workload: Workload) -> bool:
    """Whether the tokens of the answer are somewhere among the attributes, or of what was embedded."""
    count = workload.tokens[2] or workload.tokens[0]
    written = re.compile(rf"(?:tokens?|put)\W+{count}\b")
    return any(
        value == count or (isinstance(value, str) and written.search(value) is not None)
        for name, value in (span.attributes or {}).items()
        if "usage" in name or "token" in name or "response_data" in name
    )


def chunks(side: Side, workload: Workload) -> None:
    """The program sees the chunks of its stream, all of them and no other."""
    side.enter()
    try:
        client = side._clients.of(workload.sdk, is_async=False)
        for part in workload.method.split("."):
            client = getattr(client, part)
        seen = sum(1 for _ in client(**workload.asked))
    finally:
        side.leave()
    if seen != workload.chunks:
        raise SideError(f"{side.name} {workload.name}: the program saw {seen} chunks, not {workload.chunks}")
