"""The ledgers there are. A new one is one more row, and every test of the contract runs over it."""

from __future__ import annotations

from collections.abc import Callable

from tokenbudget_otel.budgets import Ledger, MemoryLedger


class Clock:
    """Seconds since 1970 that only a test moves."""

    def __init__(self, now: float = 1_795_374_000.0) -> None:  # 2026-11-22 19:00 UTC
        self.now = now

    def __call__(self) -> float:
        return self.now

    def on(self, seconds: float) -> None:
        self.now += seconds


MakeLedger = Callable[[Callable[[], float]], Ledger]

LEDGERS: dict[str, MakeLedger] = {
    "memory": lambda clock: MemoryLedger(clock=clock),
}
