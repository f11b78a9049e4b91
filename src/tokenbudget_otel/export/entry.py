"""The name of a file in a spool. It says all that is known of the request, so that nothing else has to be kept."""

from __future__ import annotations

import re
import zlib
from typing import Final, NamedTuple, Self

SUFFIX: Final = ".otlp"
TEMPORARY: Final = ".tmp"

_NAME: Final = re.compile(r"(\d{20})-(\d+)-(\d+)((?:\.[01])*)-(\d+)-([0-9a-f]{8})\.otlp")


class Entry(NamedTuple):
    """A request in a spool. Entries are ordered as their requests were handed over.

    Attributes:
        time_ns: when it was handed over, in nanoseconds since 1970; of one process no two are alike.
        pid: the process that it comes from.
        sequence: counts the requests of that process.
        part: which half of it (of which half …) this is, as ``.0`` and ``.1``, where it was too large for a receiver.
        items: how many spans, metrics or log records are in it.
        crc: the CRC-32 of its bytes.

    >>> entry = Entry.of(b"...", 7, 1764547200000000000, 12, 0)
    >>> entry.name
    '01764547200000000000-12-0-7-1a43b61b.otlp'
    >>> Entry.read(entry.name) == entry
    True
    """

    time_ns: int
    pid: int
    sequence: int
    part: str
    items: int
    crc: int

    @classmethod
    def of(cls, body: bytes, items: int, time_ns: int, pid: int, sequence: int) -> Self:
        """The entry of a request."""
        return cls(time_ns, pid, sequence, "", items, zlib.crc32(body))

    @classmethod
    def read(cls, name: str) -> Self | None:
        """The entry with this file name; None if it is the name of none."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        time_ns, pid, sequence, part, items, crc = found.groups()
        return cls(int(time_ns), int(pid), int(sequence), part, int(items), int(crc, 16))

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.time_ns:020}-{self.pid}-{self.sequence}{self.part}-{self.items}-{self.crc:08x}{SUFFIX}"

    @property
    def origin(self) -> tuple[int, int, int]:
        """What a request and its parts have in common."""
        return self[:3]

    def half(self, which: int, body: bytes, items: int) -> Entry:
        """One of its two halves. Made again from the same request it has the same name."""
        return self._replace(part=f"{self.part}.{which}", items=items, crc=zlib.crc32(body))

    def holds(self, body: bytes) -> bool:
        """Whether these are the bytes that it was made of."""
        return zlib.crc32(body) == self.crc
