"""What a budget costs a call: reserve and settle in microseconds, beside a floor measured in the same run.

    python bench/ledger.py [--calls 20000] [--rounds 7]

The floor is what no ledger can do without: taking a lock twice and writing to a dict twice. Each figure is the
best of the rounds (others share the machine; the least disturbed round says what the code costs).
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable

from tokenbudget_otel.budgets import Amount, Budget, Call, Claim, Enforcer, Estimate, MemoryLedger, budget

ACTUAL = Amount(900, 90)
ESTIMATE = Estimate(Amount(1000, 100), Amount(4000, 400))
CALL = Call("openai", "gpt-5", {"tenant": "acme", "feature": "chat", "user": "u1"})
HUGE = 10**15


def floor() -> Callable[[int], None]:
    lock = threading.Lock()
    counters: dict[str, int] = {}

    def once(number: int) -> None:
        with lock:
            counters["key"] = number
        with lock:
            counters["key"] = number + 1

    return once


def ledger(scopes: int) -> Callable[[int], None]:
    counted = MemoryLedger()
    claims = tuple(Claim(f"budget|{i}|2026-11|tenant=acme", 1000, 100, 1, HUGE, HUGE, HUGE) for i in range(scopes))

    def once(number: int) -> None:
        counted.reserve(f"hold-{number}", claims, 600.0)
        counted.settle(f"hold-{number}", ACTUAL, claims)

    return once


def enforced(*budgets: Budget) -> Callable[[int], None]:
    enforcer = Enforcer(budgets)

    def once(number: int) -> None:  # noqa: ARG001
        enforcer.settle(enforcer.admit(CALL, ESTIMATE), ACTUAL)

    return once


def best(make: Callable[[], Callable[[int], None]], calls: int, rounds: int) -> float:
    """Microseconds per call, in the best round."""
    times = []
    for _ in range(rounds):
        once = make()
        start = time.perf_counter()
        for number in range(calls):
            once(number)
        times.append(time.perf_counter() - start)
    return min(times) / calls * 1e6


ROWS: tuple[tuple[str, Callable[[], Callable[[int], None]]], ...] = (
    ("floor: a lock and two dict writes", floor),
    ("ledger, 1 scope", lambda: ledger(1)),
    ("ledger, 3 scopes", lambda: ledger(3)),
    ("ledger, 8 scopes", lambda: ledger(8)),
    ("enforcer, no budget declared", lambda: enforced()),
    ("enforcer, no budget applies", lambda: enforced(Budget(limit_usd=1, match={"tenant": "other"}))),
    ("enforcer, 1 budget", lambda: enforced(Budget(limit_usd=10**6, window="month"))),
    (
        "enforcer, 3 budgets per tag",
        lambda: enforced(
            Budget(limit_usd=10**6, window="month", per="tenant"),
            Budget(limit_usd=10**6, window="day", per=("tenant", "feature")),
            Budget(limit_tokens=10**12, window="hour", per="user", timezone="Europe/Berlin"),
        ),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    base = 0.0
    print(f"{'reserve + settle':<36}{'µs':>8}{'x floor':>10}")
    for name, make in ROWS:
        took = best(make, options.calls, options.rounds)
        base = base or took
        print(f"{name:<36}{took:>8.2f}{took / base:>10.1f}")
    with budget(max_cost_usd=10**6):
        took = best(enforced, options.calls, options.rounds)
    print(f"{'enforcer, inside one budget()':<36}{took:>8.2f}{took / base:>10.1f}")


if __name__ == "__main__":
    main()
