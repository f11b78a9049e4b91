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

from tokenbudget_otel.instrumentation.envelopes import Envelope, alike, between, learn
from tokenbudget_otel.instrumentation.guard import log_once

_BOUNDARY: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DATA: Final = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_COMPRESS_AT: Final = 65_536

_END: Final = tuple(mark + end for mark in (b"data: [DONE]", b"data:[DONE]") for end in (b"\n\n", b"\r\n\r\n", b"\r\r"))
_PING: Final = b"event: ping"
_ENDS: Final = (b"\n\n", b"\r\n\r\n")

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
    if count and data.endswith(_END):  # it may stand behind the rest of another event, and count for nothing
        count -= 1
    if _PING in data:
        count -= data.count(_PING + b"\n") + data.count(_PING + b"\r")
    return count if count > 0 else 0  # what is damaged may have a name and no data


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

    ``chunks`` is how many chunks the SDK has made of the events so far (:func:`chunks_in`); ``carry`` is what has come
    of an event whose end is still to come.
    """

    __slots__ = ("_envelopes", "_first", "_hints", "_marks", "_pending", "_runs", "_size",
                 "_strip", "_text", "_text_bytes", "_text_pieces", "_void", "_withhold", "carry",
                 "chunks", "on_event")  # fmt: skip

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
        self.carry = b""
        self._first = True
        self._pending: list[bytes] = []
        self._runs: list[tuple[bytes, bytes, bytes]] = []
        self._envelopes: list[Envelope] = []
        self._size = 0
        self._text_bytes = 0
        self._text_pieces = 0

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; give what the program is to see of it."""
        if not self.carry and data.endswith(_ENDS):
            if self._strip is not None and b'"usage"' in data:
                data = self._strip.sub(b"", data)
            if not self._first:
                for hint in self._hints:
                    if hint in data:
                        marked = self._marks(data)
                        break
                else:
                    marked = None
                if not marked:
                    self.chunks += chunks_in(data)
                    self._keep(data)
                    return data
            if data.find(b"\n\n") == len(data) - 2 and b"\r" not in data:  # one event
                if self._told(data):
                    return b""
                self.chunks += chunks_in(data)
                return data
        return self._feed_events(data)

    def feed_all(self, pieces: list[bytes]) -> list[tuple[int, int]]:
        """Take pieces that arrived one after the other, none of which is to be changed or withheld: what :meth:`feed`
        does, at a fraction of its cost. Gives the places of those that did not make one chunk, and how many they made.
        """
        start, count = 0, len(pieces)
        made: list[tuple[int, int]] = []
        while start < count and (self._first or self.carry):
            self._fed(start, pieces[start], made)
            start += 1
        odd, runs = self._sifted(pieces[start:] if start else pieces)
        for run in runs:
            self._runs.append(run)
            self._size += len(run[2])
        self.chunks += count - start - len(odd)
        for place in odd:
            self._fed(start + place, pieces[start + place], made)
        if self._size > _COMPRESS_AT:
            self._count()
        return made

    def _fed(self, place: int, piece: bytes, made: list[tuple[int, int]]) -> None:
        """Feed a piece, and note if it did not make one chunk."""
        before = self.chunks
        self.feed(piece)
        if (chunks := self.chunks - before) != 1:
            made.append((place, chunks))

    def _sifted(self, pieces: list[bytes]) -> tuple[list[int], list[tuple[bytes, bytes, bytes]]]:
        """The pieces that are to be looked at, by their place, and the words of all others. Each of those is one whole
        event, and stands between others that are whole."""
        places: list[int] | None = None
        events = pieces
        runs: list[tuple[bytes, bytes, bytes]] = []
        if (
            len(events) >= _FEW
            and (run := alike(events, self._hints, self._void)) is not None
            and _is_chunk(run[1], run[2])
        ):
            places = run[0]
            runs.append(run[1:])
            events = [pieces[place] for place in places]
        while len(events) >= _FEW and len(runs) < _KINDS and (envelope := self._envelope_of(events)) is not None:
            odd, words = envelope.sift(events)
            if words is None:
                break
            runs.append((envelope.prefix, envelope.suffix, words))
            events = [events[place] for place in odd]
            places = odd if places is None else [places[place] for place in odd]
        if places is None:
            return list(range(len(pieces))), []
        last = len(pieces) - 1
        for place in places:
            if place != last and not _is_whole(pieces[place]):
                return list(range(len(pieces))), []
        return places, runs

    def _envelope_of(self, events: list[bytes]) -> Envelope | None:
        middle = events[len(events) // 2]
        for envelope in self._envelopes:
            if envelope.around(middle):
                return envelope
        for envelope in learn(events, self._hints, self._void):
            if envelope.is_bare and _is_chunk(envelope.prefix, envelope.suffix) and envelope.around(middle):
                self._envelopes = [envelope, *self._envelopes[: _KINDS - 1]]
                return envelope
        return None

    def finish(self) -> bytes:
        """The stream has ended: give what was still held back of an incomplete event."""
        carry, self.carry = self.carry, b""
        if carry:
            self._event(carry)
        return carry if self._withhold else b""

    def _feed_events(self, data: bytes) -> bytes:
        buffer = self.carry + data
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
        self.carry = buffer[start:]
        return b"".join(shown) if self._withhold else data

    def _event(self, event: bytes) -> bool:
        if self._first or self._marks(event):
            return self._told(event)
        self._keep(event)
        return False

    def _told(self, event: bytes) -> bool:
        """Tell of an event. Whether it is to be withheld."""
        withheld = False
        head, _, data = event.partition(b"data: ")
        if data.find(b"\n") == len(data) - 2 and data.endswith(b"\n\n") and _is_head(head) and b"\r" not in data:
            data = data[:-2]  # as nearly all are
        elif b"\r" in event:
            data = b"\n".join(_DATA.findall(event))
        else:
            lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
            data = b"\n".join([line[1:] if line.startswith(b" ") else line for line in lines])
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
        for data in (b"".join(self._pending), *(between(*run) for run in self._runs)):
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


def _is_head(head: bytes) -> bool:
    """Whether what comes before the first ``data: `` of an event is nothing, or its name."""
    return not head or (head.startswith(b"event:") and head.find(b"\n") == len(head) - 1 and b"\r" not in head)


def _is_whole(piece: bytes) -> bool:
    """Whether a piece ends where an event does."""
    if piece.endswith(b"\n\n") and piece[-3:-2] not in (b"\n", b"\r", b""):
        return True
    end = 0
    for boundary in _BOUNDARY.finditer(piece):
        end = boundary.end()
    return end == len(piece)


def _is_chunk(prefix: bytes, suffix: bytes) -> bool:
    """Whether a word between these bytes makes one whole event, of which an SDK makes a chunk."""
    return (
        # The one empty line is the last.
        suffix.find(b"\n") == len(suffix) - 2 > 0
        and suffix.endswith(b"\n\n")
        and b"\n\n" not in prefix
        and prefix.startswith(b"data:", prefix.rfind(b"\n") + 1)
        and b"\r" not in prefix
        and b"\r" not in suffix
        and chunks_in(prefix + suffix) == 1
    )
