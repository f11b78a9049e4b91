"""Reading a server-sent event stream as it goes by, in bytes, at the cost of a search a chunk.

Most events of a stream carry one more piece of text and nothing that metering needs. They are only
searched for a few marks; an event that has one is parsed, and can be withheld from the program.
Working on bytes below the SDK means that every way of reading a stream is seen alike: typed chunks,
helpers, raw responses, lines and bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tokenbudget_otel.instrumentation.envelopes import Envelope, learn
from tokenbudget_otel.instrumentation.guard import log_once

_BOUNDARY: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DATA: Final = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_COMPRESS_AT: Final = 65_536

_END: Final = tuple(mark + end for mark in (b"data: [DONE]", b"data:[DONE]") for end in (b"\n\n", b"\r\n\r\n", b"\r\r"))
_PING: Final = b"event: ping"

_FEW: Final = 12
"""So many events are rather looked at one by one than compared."""

_KINDS: Final = 4
"""How many kinds of plain events are told apart: reasoning, text, arguments of tools."""

OnEvent = Callable[[bytes], bool]
"""Takes the data of an event, and says whether the event is to be withheld from the program."""


def chunks_in(data: bytes) -> int:
    """How many chunks an SDK makes of whole events: one of each that has data. Not of comments, the mark at the end of
    OpenAI's streams, and Anthropic's pings, of which programs see nothing.

    >>> chunks_in(b': wait\\n\\nevent: ping\\ndata: {}\\n\\ndata: {"a": 1}\\n\\ndata: {"b": 2}\\n\\ndata: [DONE]\\n\\n')
    2
    """
    count = data.count(b"\ndata:") + data.startswith(b"data:")
    if data.endswith(_END):
        count -= 1
    if _PING in data:
        count -= data.count(_PING + b"\n") + data.count(_PING + b"\r")
    return count


class EventScanner:
    """Finds the events of a stream that matter, and counts the text in all the others.

    Args:
        marks: matches (by ``search``) each event that ``on_event`` must see. The first event is always shown.
        hints: an event without any of these has no mark either. Looking for them costs a tenth of the search.
        text: finds the pieces of output text in raw events; its group 1 is the text as it stands in JSON.
        on_event: see :data:`OnEvent`.
        withhold: whether events may be withheld. Only then is an event held back until it is complete.
        strip: finds what to leave out of every event, because our change to the request brought them in.
        void: pieces of bytes that have a hint, and are part of no mark.

    ``chunks`` is how many chunks the SDK has made of the events so far (:func:`chunks_in`).
    """

    __slots__ = ("_carry", "_envelopes", "_first", "_hints", "_marks", "_pending", "_runs", "_size",
                 "_strip", "_text", "_text_bytes", "_text_pieces", "_void", "_withhold", "chunks",
                 "on_event")  # fmt: skip

    def __init__(
        self,
        marks: re.Pattern[bytes],
        hints: tuple[bytes, ...],
        text: re.Pattern[bytes],
        on_event: OnEvent,
        *,
        withhold: bool = False,
        strip: re.Pattern[bytes] | None = None,
        void: tuple[bytes, ...] = (),
    ) -> None:
        self._marks = marks.search
        self._hints = hints
        self._text = text
        self.on_event = on_event
        self._withhold = withhold
        self._strip = strip
        self._void = void
        self.chunks = 0
        self._carry = b""
        self._first = True
        self._pending: list[bytes] = []
        self._runs: list[tuple[Envelope, bytes]] = []
        self._envelopes: list[Envelope] = []
        self._size = 0
        self._text_bytes = 0
        self._text_pieces = 0

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; give what the program is to see of it."""
        if not self._carry and not self._first and data.endswith((b"\n\n", b"\r\n\r\n")):
            if self._strip is not None and b'"usage"' in data:
                data = self._strip.sub(b"", data)
            for hint in self._hints:
                if hint in data:
                    break
            else:
                self.chunks += chunks_in(data)
                self._keep(data)
                return data
            if not self._marks(data):
                self.chunks += chunks_in(data)
                self._keep(data)
                return data
        return self._feed_events(data)

    @property
    def holds_back(self) -> bool:
        """Whether an event has begun to arrive, and its end is still to come."""
        return bool(self._carry)

    def feed_all(self, pieces: list[bytes]) -> list[int] | None:
        """Take pieces that arrived one after the other, none of which is to be changed or withheld: what :meth:`feed`
        does, at a fraction of its cost. Gives how many chunks there were in each; ``None``: one in each."""
        counts: list[int] = []
        while len(counts) < len(pieces) and (self._first or self._carry):
            counts.append(self._fed(pieces[len(counts)]))
        known = len(counts)
        odd, runs = self._sifted(pieces[known:])
        for _, words in runs:
            self._size += len(words)
        self._runs += runs
        counts += [1] * (len(pieces) - known)
        self.chunks += len(pieces) - known - len(odd)
        for place in odd:
            counts[known + place] = self._fed(pieces[known + place])
        if self._size > _COMPRESS_AT:
            self._count()
        return None if counts.count(1) == len(counts) else counts

    def _fed(self, piece: bytes) -> int:
        before = self.chunks
        self.feed(piece)
        return self.chunks - before

    def _sifted(self, pieces: list[bytes]) -> tuple[list[int], list[tuple[Envelope, bytes]]]:
        """The pieces that are to be looked at, by their place, and the words of all others. Each of those is one whole
        event, and stands between others that are whole."""
        places, events = list(range(len(pieces))), pieces
        runs: list[tuple[Envelope, bytes]] = []
        while len(events) >= _FEW and len(runs) < _KINDS and (envelope := self._envelope_of(events)) is not None:
            odd, words = envelope.sift(events)
            if words is None:
                break
            runs.append((envelope, words))
            places, events = [places[place] for place in odd], [events[place] for place in odd]
        last = len(pieces) - 1
        if runs and not all(_is_whole(event) or place == last for place, event in zip(places, events, strict=True)):
            return list(range(len(pieces))), []
        return places, runs

    def _envelope_of(self, events: list[bytes]) -> Envelope | None:
        middle = events[len(events) // 2]
        for envelope in self._envelopes:
            if envelope.around(middle):
                return envelope
        for envelope in learn(events, self._hints, self._void):
            if envelope.is_bare and _is_chunk(envelope) and envelope.around(middle):
                self._envelopes = [envelope, *self._envelopes[: _KINDS - 1]]
                return envelope
        return None

    def finish(self) -> bytes:
        """The stream has ended: give what was still held back of an incomplete event."""
        carry, self._carry = self._carry, b""
        if carry:
            self._event(carry)
        return carry if self._withhold else b""

    def _feed_events(self, data: bytes) -> bytes:
        buffer = self._carry + data
        shown: list[bytes] = []
        start = 0
        for boundary in _BOUNDARY.finditer(buffer):
            event = buffer[start : boundary.end()]
            start = boundary.end()
            if self._strip is not None and b'"usage"' in event:
                event = self._strip.sub(b"", event)
            if not self._event(event):
                self.chunks += chunks_in(event)
                shown.append(event)
        self._carry = buffer[start:]
        return b"".join(shown) if self._withhold else data

    def _event(self, event: bytes) -> bool:
        withheld = False
        if self._first or self._marks(event):
            data = b"\n".join(_DATA.findall(event))
            if data:  # comments and blank lines before the first event have none
                self._first = False
                try:
                    withheld = self.on_event(data) and self._withhold
                except Exception as error:  # it is the program's to see, and the rest is followed all the same
                    log_once("read a streamed response", error)
        self._keep(event)
        return withheld

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self._size += len(data)
        if self._size > _COMPRESS_AT:
            self._count()

    def _count(self) -> None:
        for data in (b"".join(self._pending), *(envelope.events(words) for envelope, words in self._runs)):
            for piece in self._text.finditer(data):
                if size := piece.end(1) - piece.start(1):
                    self._text_bytes += size
                    self._text_pieces += 1
        self._pending.clear()
        self._runs.clear()
        self._size = 0

    def text_tokens(self) -> int:
        """An estimate of the output tokens seen so far: a token for every four bytes of text, and at
        least one for every piece that was sent."""
        self._count()
        return max(-(-self._text_bytes // 4), self._text_pieces)


def _is_whole(piece: bytes) -> bool:
    """Whether a piece ends where an event does."""
    end = 0
    for boundary in _BOUNDARY.finditer(piece):
        end = boundary.end()
    return end == len(piece)


def _is_chunk(envelope: Envelope) -> bool:
    """Whether a word between these bytes makes one whole event, of which an SDK makes a chunk."""
    prefix, suffix = envelope.prefix, envelope.suffix
    event = prefix + suffix
    return (
        prefix.rpartition(b"\n")[2].startswith(b"data:")
        and not suffix.startswith((b"\n", b"\r"))
        and [boundary.end() for boundary in _BOUNDARY.finditer(event)] == [len(event)]
        and chunks_in(event) == 1
    )
