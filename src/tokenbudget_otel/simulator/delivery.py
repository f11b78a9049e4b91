"""How a reply travels: pauses, faults, compression and cuts."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final

from starlette.types import Receive, Send

from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import BROKEN, Frame

_MOST_AT_ONCE: Final = 65_536
"""Bytes of chunks without pauses that are written together."""

Abort = Callable[[], None]
Headers = list[tuple[bytes, bytes]]
Settle = Callable[[float], None]


class Line:
    """The connection of one request, as far as its answer is concerned."""

    __slots__ = ("_abort", "_gone", "_receive", "_send")

    def __init__(self, receive: Receive, send: Send, abort: Abort) -> None:
        self._receive, self._send, self._abort = receive, send, abort
        self._gone: asyncio.Task[None] | None = None

    async def pause(self, seconds: float | None) -> bool:
        """Wait so long (None: for ever); True as soon as the client has gone."""
        if self._gone is None:
            self._gone = asyncio.create_task(self._disconnect())
        await asyncio.wait({self._gone}, timeout=seconds)
        return self._gone.done()

    async def _disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def release(self) -> None:
        """Stop listening for the client's going."""
        if self._gone is not None:
            self._gone.cancel()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def hang_up(self) -> None:
        """Close the TCP connection, however much of the answer is missing.

        What was written is sent first. Waits until the server knows of it, so that it does not
        complain of an answer that is not complete.
        """
        self._abort()
        await self.pause(5)


async def deliver(line: Line, reply: Reply, behaviour: Behaviour, headers: Headers, settle: Settle) -> None:
    """Send a reply in the way the behaviour says.

    Args:
        line: where to.
        reply: what.
        behaviour: how.
        headers: the response's headers; completed here.
        settle: told once, before the last bytes are sent, which share of the answer the client
            gets: 1 if it is complete, final events included, and less if not. Before, because
            who has read the answer may look into the books at once.
    """
    if reply.frames is not None:
        await _deliver_frames(line, reply, reply.frames, behaviour, headers, settle)
    else:
        await _deliver_body(line, reply, behaviour, headers, settle)


async def _deliver_body(line: Line, reply: Reply, behaviour: Behaviour, headers: Headers, settle: Settle) -> None:
    body = reply.body
    fault = behaviour.stream_fault
    if fault and fault[0] == "malformed_after":
        body = body[: len(body) // 2]
    if behaviour.gzip:
        body = zlib.compress(body, wbits=31)
        headers.append((b"content-encoding", b"gzip"))
    if fault and fault[0] == "cut_after":
        headers.append((b"content-length", b"%d" % len(body)))
        await line.start(reply.status, headers)
        settle(0.0)
        await line.body(body[: len(body) // 2])
        await line.hang_up()
        return
    if behaviour.split is None:
        headers.append((b"content-length", b"%d" % len(body)))
    # A provider has done its work whether or not the client can read what comes of it.
    settle(0.0 if fault and fault[0] == "malformed_after" else 1.0)
    await line.start(reply.status, headers)
    if behaviour.first_chunk_s and await line.pause(behaviour.first_chunk_s):
        return
    if behaviour.split is not None:
        for piece in _pieces(body, behaviour.split):
            await line.body(piece)
        body = b""
    await line.body(body, more=False)


async def _deliver_frames(
    line: Line, reply: Reply, frames: list[Frame], behaviour: Behaviour, headers: Headers, settle: Settle
) -> None:
    contents = sum(1 for frame in frames if frame.content)
    fault = behaviour.stream_fault
    if fault:
        frames = _until(frames, fault[1])
        # A chunk that breaks is the last thing that is heard of the answer.
        if fault[0] == "error_event_after" and reply.error_frame:
            frames = [*frames, reply.error_frame(len(frames))]
        elif fault[0] == "malformed_after":
            frames = [*frames, reply.broken_frame or BROKEN]
    encode = _encoder(behaviour)
    if behaviour.gzip:
        headers.append((b"content-encoding", b"gzip"))
    await line.start(reply.status, headers)
    if behaviour.first_chunk_s and await line.pause(behaviour.first_chunk_s):
        settle(0.0)
        return
    sent = 0
    waiting: list[bytes] = []
    size = 0
    for frame in frames:
        if frame.content:
            if sent and behaviour.chunk_s:
                await _write(line, waiting, behaviour.split)
                waiting, size = [], 0
                if await line.pause(behaviour.chunk_s):
                    settle(min(0.999, sent / contents))
                    return
            sent += 1
        data = encode(frame.data)
        waiting.append(data)
        size += len(data)
        if size > _MOST_AT_ONCE:
            await _write(line, waiting, behaviour.split)
            waiting, size = [], 0
    if behaviour.gzip and (fault is None or fault[0] != "cut_after"):
        waiting.append(encode(None))
    settle(1.0 if fault is None else min(0.999, sent / max(1, contents)))
    await _write(line, waiting, behaviour.split)
    if fault and fault[0] == "cut_after":
        await line.hang_up()
    else:
        await line.body(b"", more=False)


def _until(frames: list[Frame], count: int) -> list[Frame]:
    """The frames up to the so-manyth chunk; all that opens the answer, and none that ends it."""
    content = [place for place, frame in enumerate(frames) if frame.content]
    if not content:
        return frames[:1]
    return frames[: content[count]] if count < len(content) else frames[: content[-1] + 1]


async def _write(line: Line, waiting: list[bytes], split: int | None) -> None:
    data = b"".join(waiting)
    if not data:
        return
    if split is None:
        await line.body(data)
        return
    for piece in _pieces(data, split):
        await line.body(piece)


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _encoder(behaviour: Behaviour) -> Callable[[bytes | None], bytes]:
    """What is done to the bytes of each frame; None asks for the end of the body."""
    if not behaviour.gzip and not behaviour.crlf:
        return _as_is
    pack: Any = zlib.compressobj(wbits=31) if behaviour.gzip else None

    def encode(data: bytes | None) -> bytes:
        if data is None:
            return bytes(pack.flush()) if pack else b""
        if behaviour.crlf:
            data = data.replace(b"\n", b"\r\n")
        # Each frame is flushed, so that the client can read it when it comes.
        return bytes(pack.compress(data) + pack.flush(zlib.Z_SYNC_FLUSH)) if pack else data

    return encode


def _as_is(data: bytes | None) -> bytes:
    return data or b""
