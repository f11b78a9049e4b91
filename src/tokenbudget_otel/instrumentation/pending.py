"""What has arrived of a streamed body and was not looked at yet.

Most of a stream is of no interest while it passes: its pieces and their times are put down, and read when the stream
has ended, when somebody asks, or when there are too many of them.
"""

from __future__ import annotations

import re
import threading
from array import array
from operator import sub
from typing import TYPE_CHECKING, Final

from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.sse import EventScanner

if TYPE_CHECKING:
    from tokenbudget_otel.instrumentation.streams import StreamReader

ROOM: Final = 131_072
"""Bytes of one stream that are put down before they are looked at."""

NULL_USAGE: Final = re.compile(rb',\s*"usage":\s*null')
"""What servers write into every other chunk when usage was asked for; those in Python with a space."""

USAGE: Final = b'"usage"'
ENDS: Final = (b"\n\n", b"\r\n\r\n")
_LAST: Final = frozenset((b"}\n\n", b"}\r\n\r\n"))
MOST_END: Final = 3
"""From the first line end of an event to its end, at most, where it is one line."""

_NEVER: Final = b"\0no event ends so"


class Pending:
    """Pieces of a body, their times, and who reads them once they are looked at. To others it is a reader that has
    read all that has arrived.

    Args:
        scanner: finds the events that ``reader`` needs, and tells it of them.
        strips: whether what our request for usage brought is taken out as it passes. Then pieces come by :meth:`take`,
            as far as the body cannot do it itself. What is shown is appended to ``times`` and ``pieces``, in this
            order, as are all pieces where nothing is taken out.

    Attributes:
        first, last, gaps: when the first and the last chunk arrived, and the seconds between each and the next, as far
            as the pieces have been looked at.
        clear: whether a piece is the beginning of an event, and may be shown if it has no word of usage but ``null``.
        tail, ending: how pieces end that came before, and what took the place of that.
    """

    __slots__ = ("_lock", "_reader", "_room", "_scanner", "clear", "ending", "first", "gaps", "last", "null", "pieces",
                 "strips",
                 "tail", "times")  # fmt: skip

    def __init__(self, reader: StreamReader, scanner: EventScanner, *, strips: bool) -> None:
        self._reader = reader
        self._scanner: EventScanner | None = scanner
        self.clear = False
        self.null = b',"usage":null'
        self.tail, self.ending = _NEVER, b""
        self._room = ROOM
        # Two may look at once: who reads the stream, and who wants to know before it has ended.
        self._lock = threading.Lock()
        self.strips = strips
        self.times: list[float] = []
        self.pieces: list[bytes] = []
        self.first: float | None = None
        self.last = 0.0
        self.gaps: list[float] | array[float] = []

    # --- as it arrives -----------------------------------------------------------------------------------------

    def take(self, data: bytes, now: float) -> bytes:
        """Take a piece of a stream that is not handed on as it is; what the program is to see of it. Never raises.

        Of an event that speaks of usage last where it says ``null``, nothing else is ours, and it is not withheld.
        """
        try:
            before, null, after = data.rpartition(self.null)
            # In the bytes before there are other events only where there is the end of a line.
            known = USAGE not in after and after.endswith(ENDS) and (b"\n" not in before or USAGE not in before)
            if not known or self._scanner is None or self._scanner.carry:
                return self._taken_apart(data, now)
            self.clear = True
            if null and after in _LAST:
                self.tail, self.ending = null + after, after
            shown = before + after
            self.times.append(now)
            self.pieces.append(shown)
            self._room -= len(shown)
            if self._room < 0:
                self.look()
            return shown
        except Exception as error:
            self._give_up(error)
            return data

    def _taken_apart(self, data: bytes, now: float) -> bytes:
        """Look for what is to be withheld or taken out."""
        with self._lock:
            self._look()
            scanner = self._scanner
            if scanner is None:
                return data
            if (found := NULL_USAGE.search(data)) is not None:
                self.null = found[0]
            before = scanner.chunks
            shown = scanner.feed(data)
            self._arrived([now], [(0, scanner.chunks - before)])
            self.clear, self.tail = False, _NEVER
            return shown

    def rest(self) -> bytes:
        """The body was read to its end: look at what is left, and give what was held back. Never raises."""
        with self._lock:
            try:
                self._look()
                return b"" if self._scanner is None else self._scanner.finish()
            except Exception as error:
                self._give_up(error)
                return b""

    # --- looking -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at what has arrived. Never raises."""
        with self._lock:
            try:
                self._look()
            except Exception as error:
                self._give_up(error)

    def _look(self) -> None:
        count = len(self.pieces)
        if not count:
            return
        pieces, times = self.pieces[:count], self.times[:count]
        del self.pieces[:count], self.times[:count]
        self._room = ROOM
        if (scanner := self._scanner) is not None:
            self._arrived(times, scanner.feed_all(pieces))
            if self.strips:
                scanner.carry = b""  # at most an empty line, and that has been shown

    def _arrived(self, times: list[float], made: list[tuple[int, int]]) -> None:
        """Note when chunks arrived, one at each of ``times`` but for the places in ``made``. Those that came together
        have no time between them."""
        for place, count in reversed(made):
            times[place : place + 1] = times[place : place + 1] * count
        if not times:
            return
        if self.first is None:
            self.first = times[0]
            self.gaps = list(map(sub, times[1:], times))
        else:
            if isinstance(self.gaps, list):  # it is a long stream
                self.gaps = array("d", self.gaps)
            self.gaps.append(times[0] - self.last)
            self.gaps.extend(map(sub, times[1:], times))
        self.last = times[-1]

    def _give_up(self, error: Exception) -> None:
        self._scanner = None
        self.clear, self.tail = False, _NEVER
        log_once("read a streamed response", error)

    # --- what is known -----------------------------------------------------------------------------------------

    def _looked(self) -> StreamReader:
        """The reader. Where another is looking right now, what he has not told yet is not waited for: it may be this
        very thread, further out."""
        if self.pieces and self._lock.acquire(blocking=False):
            try:
                self._look()
            except Exception as error:
                self._give_up(error)
            finally:
                self._lock.release()
        return self._reader

    @property
    def complete(self) -> bool:
        """As the reader has it, who has read all that has arrived."""
        return self._looked().complete

    @property
    def usage_is_final(self) -> bool:
        """As the reader has it, who has read all that has arrived."""
        return self._looked().usage_is_final

    @property
    def facts(self) -> ResponseFacts:
        """As the reader has it, who has read all that has arrived."""
        return self._looked().facts
