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

_BOUNDARY: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DATA: Final = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_COMPRESS_AT: Final = 65_536

_END: Final = tuple(mark + end for mark in (b"data: [DONE]", b"data:[DONE]") for end in (b"\n\n", b"\r\n\r\n", b"\r\r"))
_PING: Final = b"event: ping"

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

    ``chunks`` is how many chunks the SDK has made of the events so far (:func:`chunks_in`).
    """

    __slots__ = ("_carry", "_first", "_hints", "_marks", "_on_event", "_pending", "_size", "_strip", "_text",
                 "_text_bytes", "_text_pieces", "_withhold", "chunks")  # fmt: skip

    def __init__(
        self,
        marks: re.Pattern[bytes],
        hints: tuple[bytes, ...],
        text: re.Pattern[bytes],
        on_event: OnEvent,
        *,
        withhold: bool = False,
        strip: re.Pattern[bytes] | None = None,
    ) -> None:
        self._marks = marks.search
        self._hints = hints
        self._text = text
        self._on_event = on_event
        self._withhold = withhold
        self._strip = strip
        self.chunks = 0
        self._carry = b""
        self._first = True
        self._pending: list[bytes] = []
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
                withheld = self._on_event(data) and self._withhold
        self._keep(event)
        return withheld

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self._size += len(data)
        if self._size > _COMPRESS_AT:
            self._count()

    def _count(self) -> None:
        for piece in self._text.finditer(b"".join(self._pending)):
            if size := piece.end(1) - piece.start(1):
                self._text_bytes += size
                self._text_pieces += 1
        self._pending.clear()
        self._size = 0

    def text_tokens(self) -> int:
        """An estimate of the output tokens seen so far: a token for every four bytes of text, and at
        least one for every piece that was sent."""
        self._count()
        return max(-(-self._text_bytes // 4), self._text_pieces)
