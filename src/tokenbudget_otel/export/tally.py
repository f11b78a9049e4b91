"""What all processes that share a spool have counted together: a few numbers in a file, changed under a lock.

The lock is the kernel's (``flock``), which lets go of it when a process dies, however it dies. Where it cannot be had
in time (a process that was stopped holds it), work goes on without: the numbers are then put right by the next look at
all files.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where Spool says so
    fcntl = None  # type: ignore[assignment]

from tokenbudget_otel.forks import renew_after_fork

LOCKS: Final = fcntl is not None
"""Whether this system has the locks that a spool needs."""

NAMES: Final = (
    "bytes",
    "files",
    "accepted",
    "delivered",
    "dropped.full",
    "dropped.too_large",
    "dropped.rejected",
    "dropped.unwritable",
    "dropped.cleared",
    "refused",
    "damaged",
)
"""What is counted, in the order of the file: bytes and files that are there now; all others are spans (or metrics, or
log records) since the spool was made."""

PATIENCE_S: Final = 2.0
"""Seconds after which work goes on without the lock."""

_FORMAT: Final = struct.Struct(f"<{len(NAMES)}q")


class Numbers(dict[str, int]):
    """The numbers, while they are open for change."""

    def __init__(self, tally: Tally, values: dict[str, int]) -> None:
        super().__init__(values)
        self._tally = tally
        self._kept = values

    def keep(self) -> None:
        """Write them down as they are now, for the case that the process is killed before it has done what they say."""
        if self != self._kept:
            self._tally._write(self)
            self._kept = dict(self)


class Tally:
    """The numbers, as a mapping that can be changed while :meth:`open` lasts.

    Args:
        file: where they are kept; made when it is missing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = -1
        self._lock = threading.Lock()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        # The child's copy of the descriptor shares the lock with the parent's. Closing it leaves that one alone.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Let go of the file, until it is needed again."""
        if self._lock.acquire(timeout=PATIENCE_S):
            try:
                fd, self._fd = self._fd, -1
                if fd >= 0:
                    os.close(fd)
            finally:
                self._lock.release()

    @contextmanager
    def open(self, patience: float = PATIENCE_S) -> Iterator[Numbers]:
        """The numbers, for this process alone. What is changed in them is kept, even if an error ends it.

        A file that cannot be read or written (a full disk) is passed over: then they begin at 0 each time.
        """
        deadline = time.monotonic() + patience
        mine = self._lock.acquire(timeout=patience)
        try:
            locked = self._acquire(deadline)
            try:
                numbers = Numbers(self, self._read())
                try:
                    yield numbers
                finally:
                    numbers.keep()
            finally:
                if locked:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            if mine:
                self._lock.release()

    def read(self) -> dict[str, int]:
        """The numbers as they stand."""
        try:
            return self._unpacked(self._file.read_bytes())
        except OSError:
            return self._unpacked(b"")

    def _acquire(self, deadline: float) -> bool:
        try:
            if self._fd < 0:
                self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            pause = 0.0002
            while True:
                try:
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        return False
                    time.sleep(pause)
                    pause = min(pause * 2, 0.02)
        except OSError:
            return False

    def _read(self) -> dict[str, int]:
        try:
            return self._unpacked(os.pread(self._fd, _FORMAT.size, 0))
        except OSError:
            return self._unpacked(b"")

    def _write(self, numbers: Numbers) -> None:
        try:
            os.pwrite(self._fd, _FORMAT.pack(*(numbers[name] for name in NAMES)), 0)
        except OSError:
            pass

    def _unpacked(self, data: bytes) -> dict[str, int]:
        return dict(zip(NAMES, _FORMAT.unpack(data[: _FORMAT.size].ljust(_FORMAT.size, b"\0")), strict=True))
