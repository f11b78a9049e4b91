"""The files of a spool: put there, taken away, set aside, and never more bytes of them than the bound.

    <spool>/tally                                     what is counted, over all processes
    <spool>/<destination>/destination.json            where its requests go, without headers and keys
    <spool>/<destination>/lock                        held by the process that is sending
    <spool>/<destination>/<entry>.otlp                a request that waits: OTLP protobuf
    <spool>/<destination>/refused/<entry>.otlp        one that the receiver does not want
    <spool>/<destination>/damaged/<entry>.otlp        one whose bytes are not those that were written

Whatever changes files and numbers does so under the lock of the tally, in an order in which a process that is killed
in between leaves numbers that are too high, never too low. They are put right when the bound seems to be reached.
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tokenbudget_otel.export.entry import SUFFIX, TEMPORARY, Entry
from tokenbudget_otel.export.tally import Numbers, Tally

REFUSED: Final = "refused"
DAMAGED: Final = "damaged"
WAITING: Final = ""

_LOOKED_AT: Final = 4_096
"""How many of the oldest files a look remembers, to be dropped when there is no room."""

_ABANDONED_S: Final = 60.0
"""Seconds after which a file that is still being written was left by a process that died."""

_DROP_FIRST: Final = {DAMAGED: 0, REFUSED: 1, WAITING: 2}
"""What goes first when there is no room: what cannot be delivered anyway. Then the oldest."""


class TooLargeForSpoolError(OSError):
    """One request is larger than the bound of the whole spool."""


class File(NamedTuple):
    """A request on disk."""

    rank: int
    entry: Entry
    path: Path
    size: int


class Folder:
    """The files of a spool.

    Args:
        root: a folder that exists.
        max_bytes: how many bytes of requests may be in it.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.tally = Tally(root / "tally")
        self.counts: Counter[str] = Counter()
        """What this process has counted, by the names of :data:`~tokenbudget_otel.export.tally.NAMES`."""
        self._oldest: deque[File] = deque()

    # --- destinations ------------------------------------------------------------------------------------------------

    def destination(self, name: str, about: Mapping[str, object]) -> Path:
        """The folder of a destination, made if it is missing.

        Raises:
            OSError: if it cannot be made.
        """
        place = self.root / name
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        described = place / "destination.json"
        if not described.exists():
            self._write(described, json.dumps(about, indent=2).encode())
        return place

    def destinations(self) -> list[Path]:
        """The folders of all destinations."""
        try:
            with os.scandir(self.root) as entries:
                return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            return []

    # --- requests ----------------------------------------------------------------------------------------------------

    def put(self, place: Path, entry: Entry, body: bytes) -> None:
        """Keep a request. The oldest give way to it where there is no room.

        Raises:
            OSError: if it cannot be written.
        """
        with self.tally.open() as numbers:
            if len(body) > self.max_bytes:
                raise TooLargeForSpoolError(f"a request of {len(body)} bytes; the spool may hold {self.max_bytes}")
            self._make_room(numbers, len(body))
            self._add(numbers, len(body), 1)
            self._count(numbers, "accepted", entry.items)
            numbers.keep()
            try:
                self._write(place / entry.name, body)
            except OSError:
                self._add(numbers, -len(body), -1)
                self._count(numbers, "accepted", -entry.items)
                raise

    def waiting(self, place: Path) -> list[Entry]:
        """The requests of a destination that wait, oldest first."""
        return sorted(self._entries(place))

    def wait(self, place: Path, number: int = 1) -> bool:
        """Whether at least so many requests of a destination wait. Looks at no more files than it has to."""
        try:
            with os.scandir(place) as entries:
                for found in entries:
                    number -= Entry.read(found.name) is not None
                    if number <= 0:
                        return True
        except FileNotFoundError:
            pass
        return False

    def mended(self, place: Path) -> list[Entry]:
        """As :meth:`waiting`, for the process that sends: what was left by one that died is put right.

        Of a request that was being halved, the halves go: none of them was sent as long as the whole is there.
        """
        found = self.waiting(place)
        wholes: dict[tuple[int, int, int], str] = {}
        kept = []
        # A whole comes before its halves.
        for entry in found:
            whole = wholes.get(entry.origin)
            if whole is not None and entry.part.startswith(f"{whole}."):
                self._remove(place / entry.name)
            else:
                wholes[entry.origin] = entry.part
                kept.append(entry)
        return kept

    def read(self, place: Path, entry: Entry) -> bytes:
        """The bytes of a request.

        Raises:
            OSError: if it cannot be read; FileNotFoundError if it has given way to others.
        """
        return (place / entry.name).read_bytes()

    def delivered(self, place: Path, entry: Entry, size: int, rejected: int = 0) -> None:
        """A receiver has taken a request, all but ``rejected`` of its items: it goes, at once."""
        gone = self._unlink(place / entry.name)
        with self.tally.open() as numbers:
            if gone:
                self._add(numbers, -size, -1)
            else:
                # Dropped while it was on its way, and delivered all the same.
                self._count(numbers, "dropped.full", -entry.items)
            self._count(numbers, "delivered", entry.items - rejected)
            self._count(numbers, "dropped.rejected", rejected)

    def drop(self, place: Path, entry: Entry, size: int, reason: str) -> None:
        """Give a request up."""
        with self.tally.open() as numbers:
            if self._unlink(place / entry.name):
                self._add(numbers, -size, -1)
                self._count(numbers, f"dropped.{reason}", entry.items)

    def set_aside(self, place: Path, entry: Entry, where: str) -> bool:
        """Move a request to where it does not wait any more (:data:`REFUSED`, :data:`DAMAGED`). False if it has gone.

        Raises:
            OSError: if it cannot be moved.
        """
        with self.tally.open() as numbers:
            (place / where).mkdir(mode=0o700, exist_ok=True)
            try:
                (place / entry.name).rename(place / where / entry.name)
            except FileNotFoundError:
                return False
            self._count(numbers, where, entry.items)
            self._oldest.clear()
        return True

    def take_back(self, place: Path, entry: Entry, where: str = REFUSED) -> bool:
        """Move a request that was set aside to those that wait. False if it has gone."""
        with self.tally.open() as numbers:
            try:
                (place / where / entry.name).rename(place / entry.name)
            except FileNotFoundError:
                return False
            self._count(numbers, where, -entry.items)
            self._oldest.clear()
        return True

    def clear(self, file: File) -> bool:
        """Delete a file because somebody says so. False if it has gone."""
        with self.tally.open() as numbers:
            if not self._unlink(file.path):
                return False
            self._add(numbers, -file.size, -1)
            self._count(numbers, "dropped.cleared", file.entry.items)
        return True

    def split(self, place: Path, entry: Entry, size: int, parts: tuple[tuple[bytes, int], tuple[bytes, int]]) -> None:
        """Put two halves in the place of a request.

        Raises:
            OSError: if they cannot be written; the request is then as it was.
        """
        with self.tally.open() as numbers:
            whole = place / entry.name
            if not whole.exists():
                return
            total = sum(len(body) for body, _ in parts)
            self._add(numbers, total, 2)
            numbers.keep()
            halves = [place / entry.half(which, *part).name for which, part in enumerate(parts)]
            try:
                for path, (body, _) in zip(halves, parts, strict=True):
                    self._write(path, body)
            except OSError:
                for path in halves:
                    self._unlink(path)
                self._add(numbers, -total, -2)
                raise
            self._unlink(whole)
            self._add(numbers, -size, -1)
            self._oldest.clear()
            self._make_room(numbers, 0)

    def count(self, **numbers_of: int) -> None:
        """Add to what is counted; ``_`` stands for the dot in a name that has one."""
        with self.tally.open() as numbers:
            for name, number in numbers_of.items():
                self._count(numbers, name.replace("_", ".", 1) if name.startswith("dropped") else name, number)

    # --- all of them -------------------------------------------------------------------------------------------------

    def files(self) -> Iterator[tuple[Path, str, Entry, int]]:
        """Every request that is on disk: its destination's folder, where it stands in there, what it is, its bytes."""
        for place in self.destinations():
            for where in (WAITING, REFUSED, DAMAGED):
                for name, size in _listed(place / where):
                    if (entry := Entry.read(name)) is not None:
                        yield place, where, entry, size

    def look(self) -> None:
        """Put the numbers right by looking at all files, and remove what dead processes left half-written."""
        with self.tally.open() as numbers:
            self._look(numbers)

    def _look(self, numbers: Numbers) -> None:
        found = [File(_DROP_FIRST[w], entry, place / w / entry.name, size) for place, w, entry, size in self.files()]
        numbers["bytes"] = sum(file.size for file in found)
        numbers["files"] = len(found)
        self._oldest = deque(heapq.nsmallest(_LOOKED_AT, found))
        for place in self.destinations():
            _remove_abandoned(place)

    def _make_room(self, numbers: Numbers, size: int) -> None:
        while numbers["bytes"] + size > self.max_bytes:
            if not self._oldest:
                self._look(numbers)
                if not self._oldest:
                    return
                continue
            file = self._oldest.popleft()
            # Counted first: killed in between, it is counted although it is still there, not gone without a word.
            self._count(numbers, "dropped.full", file.entry.items)
            numbers.keep()
            if self._unlink(file.path):
                self._add(numbers, -file.size, -1)
            else:
                self._count(numbers, "dropped.full", -file.entry.items)

    # --- the ground --------------------------------------------------------------------------------------------------

    def _entries(self, place: Path) -> Iterator[Entry]:
        try:
            names = os.listdir(place)  # noqa: PTH208 - a Path for each of many files costs
        except FileNotFoundError:
            return
        for name in names:
            if (entry := Entry.read(name)) is not None:
                yield entry

    def _add(self, numbers: Numbers, size: int, files: int) -> None:
        numbers["bytes"] = max(numbers["bytes"] + size, 0)
        numbers["files"] = max(numbers["files"] + files, 0)

    def _count(self, numbers: Numbers, name: str, number: int) -> None:
        if number:
            numbers[name] += number
            self.counts[name] += number

    def _remove(self, path: Path) -> None:
        with self.tally.open() as numbers:
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                return
            if self._unlink(path):
                self._add(numbers, -size, -1)

    @staticmethod
    def _unlink(path: Path) -> bool:
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    @staticmethod
    def _write(path: Path, body: bytes) -> None:
        # Whole or not at all: under its name there is only what was written to the end.
        temporary = path.with_name(f".{path.name}{TEMPORARY}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            try:
                left = memoryview(body)
                while left:
                    left = left[os.write(fd, left) :]
            finally:
                os.close(fd)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _listed(folder: Path) -> list[tuple[str, int]]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    try:
                        found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
                    except FileNotFoundError:
                        pass
    except (FileNotFoundError, NotADirectoryError):
        pass
    return found


def _remove_abandoned(folder: Path) -> None:
    try:
        for path in folder.glob(f".*{TEMPORARY}"):
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
            except OSError:
                pass
    except OSError:
        pass
