"""A thread that waits for one thing to do.

When an interpreter ends, threads cannot be started any more (since Python 3.12), and the last spans of a short program
are exported just then.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from tokenbudget_otel.forks import renew_after_fork


class SpareThread:
    """Starts functions in threads of their own, and in the one that waits when no other can be started."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting = False
        self.prepare()

    def prepare(self) -> None:
        """Have a thread waiting."""
        if self._waiting:
            return
        try:
            threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()
            self._waiting = True
        except RuntimeError:
            pass

    def start(self, run: Callable[[], None]) -> None:
        """Run it in a thread.

        Raises:
            RuntimeError: if none can be started, and none waits.
        """
        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError:
            if not self._waiting:
                raise
            self._jobs.put(run)


def _work(jobs: queue.SimpleQueue[Callable[[], None]]) -> None:
    while True:
        jobs.get()()
