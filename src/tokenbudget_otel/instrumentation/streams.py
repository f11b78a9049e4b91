"""From the body of a response to the end of its call: what the watchers of unread bodies do."""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Protocol

from tokenbudget_otel.instrumentation.call import LlmCall
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.growth import CUT, growth_of
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.pending import NULL_USAGE, Pending
from tokenbudget_otel.instrumentation.sizing import BYTES_PER_TOKEN
from tokenbudget_otel.instrumentation.sse import EventScanner
from tokenbudget_otel.usage import TokenUsage

MAX_JSON_BYTES: Final = 32 * 1024 * 1024
"""The largest unread JSON body whose usage is looked for."""

BEGINNING: Final = 64
"""Bytes of a file by which it is told whether its lines are read."""

EVERY_EVENT: Final = re.compile(rb"data:")

BROKEN_CONNECTION: Final = frozenset(
    ("RemoteProtocolError", "ReadError", "ClientPayloadError", "IncompleteRead", "ProtocolError",
     "ChunkedEncodingError", "ResponseStreamingError")
)  # fmt: skip
"""Errors of httpx, httpx2, aiohttp, urllib3, requests and botocore when a connection ends in the middle of a body."""


class StreamReader(Protocol):
    """Follows the events of one stream and knows what they said.

    ``complete`` is whether the final event was seen, ``usage_is_final`` whether the provider's own count was.
    """

    @property
    def complete(self) -> bool: ...

    @property
    def usage_is_final(self) -> bool: ...

    @property
    def facts(self) -> ResponseFacts: ...

    def event(self, data: bytes) -> bool:
        """Take the data of an event; say whether it is to be withheld from the program."""


class ItemReader(Protocol):
    """Follows a response that the SDK hands over item by item, and knows what the items said.

    ``complete`` and ``usage_is_final`` are those of :class:`StreamReader`.
    """

    @property
    def complete(self) -> bool: ...

    @property
    def usage_is_final(self) -> bool: ...

    @property
    def facts(self) -> ResponseFacts: ...

    def item(self, item: Any) -> bool:
        """Take an item; say whether it is to be withheld from the program."""

    def text_tokens(self) -> int:
        """An estimate of the output tokens in the items so far."""


@dataclass(slots=True)
class TextCount:
    """Text as it arrives, in tokens: one for every four bytes, and at least one for every piece.

    >>> count = TextCount()
    >>> count.add("Hello"); count.add(" there"); count.add("!")
    >>> count.tokens
    3
    """

    bytes: int = 0
    pieces: int = 0

    def add(self, piece: Any) -> None:
        """Take a piece; anything that is not text, or empty, counts nothing."""
        if isinstance(piece, str) and piece:
            self.bytes += len(piece) if piece.isascii() else len(piece.encode("utf-8", "surrogatepass"))
            self.pieces += 1

    @property
    def tokens(self) -> int:
        """The estimate so far."""
        return max(-(-self.bytes // BYTES_PER_TOKEN), self.pieces)


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """How streams of one API are read.

    Attributes:
        marks: finds the events that ``reader`` needs (see :class:`EventScanner`).
        hints: plain pieces of bytes, one of which is in every event that has a mark.
        text: finds pieces of output text.
        reader: makes a reader; the argument is whether our request for usage is to be hidden.
        void: plain pieces of bytes that have a hint, and are part of no mark (``"usage":null``).
    """

    marks: re.Pattern[bytes]
    hints: tuple[bytes, ...]
    text: re.Pattern[bytes]
    reader: Callable[[bool], StreamReader]
    void: tuple[bytes, ...] = ()


class LineReader(Protocol):
    """Follows an answer that is a file, one JSON object a line."""

    def wants(self, beginning: bytes) -> bool:
        """Whether the lines of a body that begins so are to be read; asked once."""

    def line(self, data: bytes) -> bool:
        """Take a line; say whether any more are wanted."""

    def ended(self, outcome: str, complete: bool, error: BaseException | None) -> None:
        """The body ended: end the call. ``complete``: all of it was seen."""


Finish = Callable[[str, ResponseFacts, BaseException | None], None]
"""Ends a call: how it ended, what the response said, and the error that the program got, if any."""


class StreamWatcher:
    """Follows the body of a streamed response and ends its call.

    ``pending`` is where the pieces are put down that nobody has to look at as they arrive; ``None`` where they are
    looked at one by one: counted against a budget, kept, or decoded.
    """

    __slots__ = ("__weakref__", "_call", "_decode", "_finish", "_lost", "_reader", "_scanner", "done", "growth",
                 "pending")  # fmt: skip

    def __init__(
        self,
        call: LlmCall,
        form: StreamFormat,
        decode: Callable[[bytes], bytes] | None,
        *,
        hide_usage: bool,
        finish: Finish,
    ) -> None:
        self.done = False
        self._call = call
        self._finish = finish
        self._decode = decode
        # Bytes that we had to decode ourselves cannot be changed for the program: then nothing is withheld.
        hide = hide_usage and decode is None
        self._reader = reader = form.reader(hide)
        self._lost = False
        self._scanner = scanner = EventScanner(
            form.marks,
            form.hints,
            form.text,
            reader.event,
            withhold=hide,
            strip=NULL_USAGE if hide else None,
            void=form.void,
        )
        self.growth = growth_of(call, reader, scanner.text_tokens)
        self.pending: Pending | None = None
        if self.growth is not None:
            scanner.on_event = self._event
        elif decode is None and form.marks is not EVERY_EVENT:
            self.pending = Pending(reader, scanner, strips=hide)
        call.follow(self.pending or reader)

    def _event(self, data: bytes) -> bool:
        if self.growth is not None:
            self.growth.told = True
        return self._reader.event(data)

    def chunk(self, data: bytes) -> bytes:
        pending = self.pending
        if pending is not None:
            if pending.strips:
                return pending.take(data, perf_counter())
            pending.times.append(perf_counter())
            pending.pieces.append(data)
            return data
        if self._lost:
            return data
        scanner = self._scanner
        try:
            before = scanner.chunks
            shown = scanner.feed(data if self._decode is None else self._decode(data))
            self._call.chunk_arrived(scanner.chunks - before)
            return data if self._decode is not None else shown
        except Exception as error:
            self._lost = True
            log_once("read a streamed response", error)
            return data

    def whole(self, body: bytes) -> bytes:
        """Take a body that was read before it could be followed, and end the call; what is to be seen of it."""
        shown = self.chunk(body) + self.rest()
        self.ended("read")
        return shown

    def rest(self) -> bytes:
        if self.pending is not None:
            return self.pending.rest()
        rest = b"" if self._lost else self._scanner.finish()
        return rest if self._decode is None else b""

    def ended(self, how: str, error: BaseException | None = None) -> None:
        if self.done:
            return
        self.done = True
        call, pending = self._call, self.pending
        if pending is not None:
            pending.look()
            call.follow(self._reader)
            if pending.first is not None:
                call.chunks_arrived(pending.first, pending.last, pending.gaps)
        outcome, facts = conclude(self._reader, how, error, call, self._scanner.text_tokens)
        self._finish(outcome, facts, error if how in TOLD else None)


def conclude(
    reader: StreamReader | ItemReader,
    how: str,
    error: BaseException | None,
    call: LlmCall,
    text_tokens: Callable[[], int],
) -> tuple[str, ResponseFacts]:
    """The outcome of a stream that ended, and what is known of it: the provider's count, or the evidence."""
    facts = reader.facts
    outcome = OUTCOMES[how]
    if facts.error is not None:
        outcome = "failed"
    elif reader.complete and how in ("read", "closed", "abandoned"):
        outcome = "completed"
    elif how == "read":
        outcome = "cut"
        facts.error = ("incomplete_stream", "The stream ended before its final event.")
    elif type(error).__name__ in BROKEN_CONNECTION:
        outcome = "cut"
    if not reader.usage_is_final and not facts.unfinished:
        seen = facts.usage or TokenUsage()
        facts.usage = seen.replace(
            input_tokens=call.request.size().input_tokens if seen.input_tokens is None else seen.input_tokens,
            output_tokens=max(text_tokens(), seen.output_tokens or 0),
        )
        facts.estimated = True
    return outcome, facts


OUTCOMES: Final = {
    "read": "completed",
    "closed": "closed",
    "cancelled": "cancelled",
    "abandoned": "abandoned",
    "failed": "failed",
    CUT: CUT,
}
"""How a body ended, in the words of ``tokenbudget.call.outcome``, as far as its content says nothing else."""

TOLD: Final = ("failed", CUT)
"""How a body ended where the program gets an error."""


class JsonWatcher:
    """Follows the body of a JSON response that the program reads when it likes."""

    def __init__(
        self, read: Callable[[Any], ResponseFacts], finish: Finish, decode: Callable[[bytes], bytes] | None
    ) -> None:
        self.done = False
        self._read = read
        self._finish = finish
        self._decode = decode
        self._body = bytearray()

    def chunk(self, data: bytes) -> bytes:
        if len(self._body) <= MAX_JSON_BYTES:
            self._body += data if self._decode is None else self._decode(data)
        return data

    def rest(self) -> bytes:
        return b""

    def ended(self, how: str, error: BaseException | None = None) -> None:
        if self.done:
            return
        self.done = True
        try:
            data = json.loads(self._body)
        except ValueError:
            data = None
        if data is not None:
            self._finish("completed", self._read(data), None)
            return
        # Closed, failed or cut before the usage could be read: the input, at least, was used.
        outcome = "cut" if how == "read" else OUTCOMES[how]
        self._finish(outcome, ResponseFacts(estimated=True), error)


class OpaqueWatcher:
    """Follows a body without usage in it, such as audio: what it costs is known from the request."""

    def __init__(self, call: LlmCall, facts: ResponseFacts, finish: Finish) -> None:
        self.done = False
        self._call = call
        self._facts = facts
        self._finish = finish
        self._begun = False

    def chunk(self, data: bytes) -> bytes:
        if not self._begun:
            self._begun = True
            self._call.chunk_arrived()  # the others are pieces of one thing, cut by the network
        return data

    def rest(self) -> bytes:
        return b""

    def ended(self, how: str, error: BaseException | None = None) -> None:
        if not self.done:
            self.done = True
            self._finish(OUTCOMES[how], self._facts, error)


class LinesWatcher:
    """Follows the body of a file, line by line; no more than a line of it is kept.

    Args:
        length: bytes of the whole body, where that is known: who has seen so many has seen all.

    ``off_loop`` is what has lines read that come on an event loop, where what they say is booked in a ledger that
    makes one wait.
    """

    def __init__(
        self, reader: LineReader, decode: Callable[[bytes], bytes] | None = None, length: int | None = None
    ) -> None:
        self.done = False
        self.off_loop: Callable[..., Awaitable[Any]] | None = None
        self._reader = reader
        self._decode = decode
        self._left = length
        self._wanted: bool | None = None
        self._lost = False
        self._carry = bytearray()

    def chunk(self, data: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(data)
        if self._wanted is not False:
            try:
                self._feed(data if self._decode is None else self._decode(data))
            except Exception as error:
                self._wanted, self._lost = False, True
                log_once("read a file", error)
        return data

    def _feed(self, data: bytes) -> None:
        if self._wanted is None:
            # Enough to tell by, and not a byte of what may be a film is kept beyond it.
            beginning = bytes(self._carry) + data[:BEGINNING]
            if len(beginning) < BEGINNING and b"\n" not in beginning:
                self._carry += data
                return
            self._wanted = self._reader.wants(beginning)
        start = 0
        while self._wanted:
            end = data.find(b"\n", start)
            if end < 0:
                if len(self._carry) < MAX_JSON_BYTES:
                    self._carry += data[start:]
                return
            line = data[start:end]
            if self._carry:
                line = bytes(self._carry) + line
                self._carry.clear()
            start = end + 1
            self._line(line)

    def _line(self, line: bytes) -> None:
        if line.strip():
            self._wanted = self._reader.line(line)

    def rest(self) -> bytes:
        return b""

    def whole(self, body: bytes) -> None:
        """Take a body that was read before it could be followed, and end the call."""
        self.chunk(body)
        self.ended("read")

    def ended(self, how: str, error: BaseException | None = None) -> None:
        if self.done:
            return
        self.done = True
        complete = not self._lost and (how == "read" or self._left == 0)
        if complete and self._carry:  # the last line has no end
            if self._wanted is None:
                self._wanted = self._reader.wants(bytes(self._carry))
            if self._wanted:
                self._line(bytes(self._carry))
        self._reader.ended("completed" if complete else OUTCOMES[how], complete, error if how == "failed" else None)


def decoder(response: Any) -> Callable[[bytes], bytes] | None:
    """What undoes the content encoding of ``response``, or ``None`` where there is none to undo."""
    headers = response.headers
    if "content-encoding" not in headers:  # headers of httpx say so in less time than they take to have none
        return None
    encodings = [
        name
        for part in (headers.get("content-encoding") or "").split(",")
        if (name := part.strip().lower()) not in ("", "identity")
    ]
    if not encodings:
        return None
    if len(encodings) == 1 and encodings[0] in ("gzip", "deflate"):
        return _inflate()
    library = type(response).__mro__[-2].__module__.partition(".")[0]
    known = getattr(sys.modules.get(f"{library}._decoders"), "SUPPORTED_DECODERS", {})
    made = [known[name]() for name in reversed(encodings) if name in known]

    def decode(data: bytes) -> bytes:
        for step in made:
            data = step.decode(data)
        return data

    return decode


def _inflate() -> Callable[[bytes], bytes]:
    """Undo gzip or zlib, whichever the data shows, and raw deflate, which some servers send instead."""
    state: list[Any] = []

    def decode(data: bytes) -> bytes:
        if not state:
            state.append(zlib.decompressobj(zlib.MAX_WBITS | 32))
            try:
                return bytes(state[0].decompress(data))
            except zlib.error:
                state[0] = zlib.decompressobj(-zlib.MAX_WBITS)
        return bytes(state[0].decompress(data))

    return decode
