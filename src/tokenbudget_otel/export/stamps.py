"""Times that put what a process hands over in order."""

from __future__ import annotations

import threading
import time

from tokenbudget_otel.forks import renew_after_fork


class Stamps:
    """Nanoseconds since 1970, each later than the one before, and a count.

    >>> stamps = Stamps()
    >>> stamps.next() < stamps.next()
    True
    """

    def __init__(self) -> None:
        self._last = 0
        self._count = 0
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def next(self) -> tuple[int, int]:
        """The time, and how many were asked for before."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns())
            self._count += 1
            return self._last, self._count - 1
