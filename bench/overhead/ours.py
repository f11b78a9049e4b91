"""Our side: pricing on, three budgets in memory, four tags active."""

from __future__ import annotations

import time
from typing import Any

import tokenbudget_otel as tb
from tokenbudget_otel.meter import meter
from tokenbudget_otel.pricing import price_book
from tokenbudget_otel.usage import TokenUsage
from workloads import Workload

TAGS = {"tenant": "acme", "user": "u1", "feature": "chat", "environment": "prod"}

WIDE = 1_000_000


def budgets(tenant_limit_usd: float = WIDE) -> list[tb.Budget]:
    """A day's dollars, a month's for each tenant, an hour's tokens for each feature."""
    return [
        tb.Budget(name="day", limit_usd=WIDE, window="day"),
        tb.Budget(name="tenant", limit_usd=tenant_limit_usd, per="tenant", window="month"),
        tb.Budget(name="feature", limit_tokens=10**13, per="feature", window="hour"),
    ]


def put_on() -> None:
    """Instrument, and have what a program has after its first calls."""
    tb.instrument(budgets=budgets())
    price_book().cost("openai", "gpt-4o", TokenUsage(input_tokens=1))


def exhaust() -> None:
    """From now on the tenant has nothing left."""
    meter().enforcer.clear()
    meter().enforcer.add(*budgets(1e-9))


class Books:
    """What was counted since it was made."""

    def __init__(self) -> None:
        self._before = self._now()
        self._hour = _hour()

    @staticmethod
    def _now() -> dict[str, Any]:
        totals = meter().totals.get()
        counts = totals.usage.counts()
        return {
            "calls": totals.calls,
            "estimated": totals.estimated_calls,
            "unpriced": totals.unpriced_calls,
            "nano_usd": totals.nano_usd,
            "input": counts.get("input_tokens", 0),
            "cached": counts.get("cache_read_tokens", 0),
            "output": counts.get("output_tokens", 0),
            **{f"budget {name}": spent for name, spent in _spent().items()},
        }

    def wrong(self, workload: Workload, calls: int) -> list[str]:
        """What is not as so many calls must have made it."""
        now, before = self._now(), self._before
        read, _, written = workload.tokens
        expected = {
            "calls": calls,
            "estimated": 0,
            "unpriced": 0,
            "nano_usd": calls * workload.nano_usd,
            **dict(zip(("input", "cached", "output"), (calls * each for each in workload.tokens), strict=True)),
            "budget day": calls * workload.nano_usd,
            "budget tenant": calls * workload.nano_usd,
            "budget feature": calls * (read + written),
        }
        got = {name: now.get(name, 0) - before.get(name, 0) for name in expected if self._counts(name)}
        return [
            f"{name}: {got[name]}, not {value}" for name, value in expected.items() if got.get(name, value) != value
        ]

    def moved(self) -> list[str]:
        """What has been counted, where nothing must have been."""
        now = self._now()
        moved = {name: value - self._before.get(name, 0) for name, value in now.items()}
        return [f"{name}: {value}" for name, value in moved.items() if value and self._counts(name)]

    def _counts(self, name: str) -> bool:
        """Whether it goes on counting: budgets begin anew, at the full hour at most."""
        return not name.startswith("budget") or self._hour == _hour()


def _hour() -> int:
    return int(time.time() // 3600)


def _spent() -> dict[str, int]:
    """Of each budget, in nano-USD or tokens."""
    return {
        row.budget: int(row.spent_usd * 10**9) if row.spent_usd is not None else row.spent_tokens or 0
        for row in meter().enforcer.status()
    }
