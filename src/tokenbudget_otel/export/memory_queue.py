"""Requests that cannot be written to disk, in memory, up to a bound."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from tokenbudget_otel.export.entry import Entry
from tokenbudget_otel.forks import renew_after_fork

MAX_BYTES: Final = 16 * 1024 * 1024


class MemoryQueue:
    """The oldest give way where there is no room.

    >>> queue = MemoryQueue(5)
    >>> [queue.put(Entry.of(b"abc", 1, moment, 1, moment), b"abc") for moment in (1, 2)]
    [0, 1]
    >>> queue.first().time_ns
    2
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        # What the parent holds is the parent's to deliver.
        self._lock = threading.Lock()
        self._held: deque[tuple[Entry, bytes]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, entry: Entry, body: bytes) -> int:
        """Hold a request. How many items were dropped for it, or with it, is returned."""
        if len(body) > self._max_bytes:
            return entry.items
        dropped = 0
        with self._lock:
            while self._bytes + len(body) > self._max_bytes:
                oldest, old_body = self._held.popleft()
                self._bytes -= len(old_body)
                dropped += oldest.items
            self._held.append((entry, body))
            self._bytes += len(body)
        return dropped

    def first(self) -> Entry | None:
        """The oldest."""
        try:
            return self._held[0][0]
        except IndexError:
            return None

    def take(self) -> tuple[Entry, bytes] | None:
        """The oldest, which is then not held any more."""
        with self._lock:
            if not self._held:
                return None
            entry, body = self._held.popleft()
            self._bytes -= len(body)
            return entry, body

    def back(self, entry: Entry, body: bytes) -> int:
        """Hold again what was taken, as the oldest. How many items were dropped, since there is no room any more."""
        with self._lock:
            if self._bytes + len(body) > self._max_bytes:
                return entry.items
            self._held.appendleft((entry, body))
            self._bytes += len(body)
        return 0
