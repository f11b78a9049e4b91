"""A few threads for calls that wait, so that an event loop need not.

Not the executor of asyncio: that one belongs to the program, which may have filled it. And daemons, so that a call
that hangs does not keep the program from ending.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any, Final

IDLE_S: Final = 10.0
"""Seconds after which a thread that has nothing to do ends."""

_Job = tuple["Future[Any]", Context, Callable[..., Any], tuple[Any, ...]]


class Threads:
    """Up to ``most`` threads, started when needed.

    >>> Threads(2, "example").run(pow, 2, 5).result()
    32
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._after_fork()

    def _after_fork(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._alive = 0

    def run(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a call made in the caller's context. As long as it has not begun, the future can be cancelled."""
        future: Future[Any] = Future()
        self._jobs.put((future, copy_context(), call, arguments))
        with self._lock:
            start = self._idle < self._jobs.qsize() and self._alive < self._most
            self._alive += start
        if start:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                future, context, call, arguments = self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    self._idle -= 1
                    if self._jobs.empty():
                        self._alive -= 1
                        return
                continue
            with self._lock:
                self._idle -= 1
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(context.run(call, *arguments))
                except BaseException as error:
                    future.set_exception(error)
            # Nothing of it is kept while there is nothing to do.
            del future, context, call, arguments
