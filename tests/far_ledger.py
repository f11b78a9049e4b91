"""A ledger that may make one wait, as those in files and servers do, and notes in which thread it is asked."""

from __future__ import annotations

import threading
from typing import Any

from tokenbudget_otel.budgets import MemoryLedger


class FarLedger(MemoryLedger):
    """``asked`` is what was asked in which thread."""

    blocking = True  # type: ignore[misc]
    shared = True  # type: ignore[misc]

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name not in ("reserve", "settle", "charge", "release", "read", "balance"):
            return value

        def noted(*arguments: Any, **more: Any) -> Any:
            self.asked.append((name, threading.get_ident()))
            return value(*arguments, **more)

        return noted
