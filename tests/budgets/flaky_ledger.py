"""A ledger that is kept elsewhere, as far as its caller can tell: it takes time, and it fails when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from tokenbudget_otel.budgets import LedgerUnavailable, MemoryLedger

Failure = Literal["", "refuses", "loses answers"]


class FlakyLedger:
    """A memory ledger behind a bad line.

    ``failure``: ``"refuses"``: nothing arrives. ``"loses answers"``: everything arrives, and nobody is told.
    ``delay``: seconds that each operation takes. ``asked``: what arrived or would have, in order.
    """

    blocking = True
    largest = MemoryLedger.largest

    def __init__(self, clock: Callable[[], float], *, shared: bool = False) -> None:
        # Ids are remembered for as long as any test takes, by any clock.
        self.memory = MemoryLedger(clock=clock, remember=1e9)
        self.shared = shared
        self.failure: Failure = ""
        self.delay = 0.0
        self.asked: list[tuple[str, Any]] = []
        self.threads: set[str] = set()

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        function = getattr(self.memory, operation)

        def ask(*arguments: Any) -> Any:
            self.asked.append((operation, arguments[0] if arguments else None))
            self.threads.add(threading.current_thread().name)
            if self.delay:
                time.sleep(self.delay)
            if self.failure == "refuses":
                raise LedgerUnavailable("the line is dead")
            answer = function(*arguments)
            if self.failure == "loses answers":
                raise LedgerUnavailable("timed out")
            return answer

        return ask

    def count(self, operation: str) -> int:
        return sum(asked == operation for asked, _ in self.asked)
