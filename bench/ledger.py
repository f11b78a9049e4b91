"""What a budget costs a call: reserve and settle, beside the floor of each store measured in the same run.

    python bench/ledger.py [--stores memory sqlite redis] [--calls 4000] [--rounds 5]

The floor is what no ledger of the store can do without. In memory: taking a lock twice and writing to a dict twice. In
SQLite: the two statements of each operation (add to a counter, keep the hold) in bare `sqlite3`, a transaction each,
with the same settings. In Redis: two `EVALSHA` of a script of two lines, by the same client. The rounds of a store take
turns; each figure is of its best round (others share the machine; the least disturbed round says what the code costs).
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tokenbudget_otel.budgets import Amount, Budget, Call, Claim, Enforcer, Estimate, Ledger, MemoryLedger, budget
from tokenbudget_otel.budgets.ledgers.addresses import ledger_at

ACTUAL = Amount(900, 90)
ESTIMATE = Estimate(Amount(1000, 100), Amount(4000, 400))
CALL = Call("openai", "gpt-5", {"tenant": "acme", "feature": "chat", "user": "u1"})
HUGE = 10**15


Once = Callable[[int], None]


def memory_floor() -> Once:
    lock = threading.Lock()
    counters: dict[str, int] = {}

    def once(number: int) -> None:
        with lock:
            counters["key"] = number
        with lock:
            counters["key"] = number + 1

    return once


def sqlite_floor(keys: int) -> Once:
    db = sqlite3.connect(Path(tempfile.mkdtemp()) / "floor.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, ends REAL, spent INT, reserved INT) WITHOUT ROWID")
    db.execute("CREATE TABLE holds (id TEXT PRIMARY KEY, state TEXT, claims TEXT, due REAL, actual TEXT) WITHOUT ROWID")
    add = (
        "INSERT INTO keys VALUES (?, 2e9, ?, ?) ON CONFLICT (key) DO UPDATE SET spent = spent + excluded.spent, "
        f"reserved = reserved + excluded.reserved WHERE spent + reserved + excluded.reserved <= {HUGE}"
    )

    claims = str([1000] * keys)
    reserved = [(f"key{i}", 0, 1000) for i in range(keys)]
    settled = [(f"key{i}", 900, -1000) for i in range(keys)]

    def once(number: int) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany(add, reserved)
        db.execute("INSERT INTO holds VALUES (?, 'open', ?, 2e9, NULL)", (f"hold-{number}", claims))
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")
        db.executemany(add, settled)
        db.execute("UPDATE holds SET state = 'settled', actual = '[900]' WHERE id = ?", (f"hold-{number}",))
        db.execute("COMMIT")

    return once


def redis_floor(url: str) -> Once:
    import redis

    client = redis.Redis.from_url(url)
    digest = client.script_load("redis.call('HINCRBY', KEYS[1], 'spent', ARGV[1])\nreturn 1")

    def once(number: int) -> None:
        client.evalsha(digest, 1, "{floor}key", number)
        client.evalsha(digest, 1, "{floor}key", number)

    return once


def ledger(counted: Ledger, scopes: int) -> Once:
    claims = tuple(Claim(f"budget|{i}|2026-11|tenant=acme", 1000, 100, 1, HUGE, HUGE, HUGE) for i in range(scopes))
    run = f"{time.time_ns()}"

    def once(number: int) -> None:
        hold = f"{run}-{number}"
        counted.reserve(hold, claims, 600.0)
        counted.settle(hold, ACTUAL, claims)

    return once


def enforced(*budgets: Budget, ledger: Ledger | None = None) -> Once:
    enforcer = Enforcer(budgets, ledger=ledger)

    def once(_: int) -> None:
        enforcer.settle(enforcer.admit(CALL, ESTIMATE), ACTUAL)

    return once


ROLLING = Budget(limit_usd=10**6, window="rolling 24h")
THREE = (
    Budget(limit_usd=10**6, window="month", per="tenant"),
    Budget(limit_usd=10**6, window="day", per=("tenant", "feature")),
    Budget(limit_tokens=10**12, window="hour", per="user", timezone="Europe/Berlin"),
)
Rows = list[tuple[str, Callable[[], Once]]]
"""Names, and what makes each. A row whose name begins with ``floor`` is what those after it are compared with."""


def rows_of_memory() -> Rows:
    return [
        ("floor: a lock and two dict writes", memory_floor),
        ("ledger, 1 key", lambda: ledger(MemoryLedger(), 1)),
        ("ledger, 3 keys", lambda: ledger(MemoryLedger(), 3)),
        ("ledger, 8 keys", lambda: ledger(MemoryLedger(), 8)),
        ("enforcer, no budget declared", enforced),
        ("enforcer, no budget applies", lambda: enforced(Budget(limit_usd=1, match={"tenant": "other"}))),
        ("enforcer, 1 budget", lambda: enforced(Budget(limit_usd=10**6, window="month"))),
        ("enforcer, 3 budgets per tag", lambda: enforced(*THREE)),
        ("enforcer, rolling window", lambda: enforced(ROLLING)),
    ]


def rows_of_sqlite(make: Callable[[], Ledger]) -> Rows:
    return [
        ("floor: two statements, 1 key", lambda: sqlite_floor(1)),
        ("ledger, 1 key", lambda: ledger(make(), 1)),
        ("enforcer, 1 budget", lambda: enforced(Budget(limit_usd=10**6, window="month"), ledger=make())),
        ("enforcer, rolling window", lambda: enforced(ROLLING, ledger=make())),
        ("floor: two statements, 3 keys", lambda: sqlite_floor(3)),
        ("ledger, 3 keys", lambda: ledger(make(), 3)),
        ("enforcer, 3 budgets per tag", lambda: enforced(*THREE, ledger=make())),
        ("floor: two statements, 8 keys", lambda: sqlite_floor(8)),
        ("ledger, 8 keys", lambda: ledger(make(), 8)),
    ]


def rows_of_redis(url: str) -> Rows:
    def make() -> Ledger:
        return ledger_at(url, timeout=2.0)  # nothing here is about how long one waits

    return [
        ("floor: two EVALSHA of two lines", lambda: redis_floor(url)),
        ("ledger, 1 key", lambda: ledger(make(), 1)),
        ("ledger, 3 keys", lambda: ledger(make(), 3)),
        ("ledger, 8 keys", lambda: ledger(make(), 8)),
        ("enforcer, 1 budget", lambda: enforced(Budget(limit_usd=10**6, window="month"), ledger=make())),
        ("enforcer, 3 budgets per tag", lambda: enforced(*THREE, ledger=make())),
        ("enforcer, rolling window", lambda: enforced(ROLLING, ledger=make())),
    ]


def timed(once: Once, calls: int) -> list[float]:
    """Microseconds of each call."""
    clock, times = time.perf_counter, []
    for number in range(calls):
        start = clock()
        once(number)
        times.append(clock() - start)
    return sorted(each * 1e6 for each in times)


def measure(title: str, rows: Rows, calls: int, rounds: int) -> None:
    best: dict[str, list[float]] = {}
    made = [(name, make()) for name, make in rows]
    for turn in range(rounds):
        for name, once in made:
            start = turn * calls
            times = timed(lambda number, once=once, start=start: once(start + number), calls)  # type: ignore[misc]
            if name not in best or times[calls // 2] < best[name][calls // 2]:
                best[name] = times
    print(f"{title:<36}{'p50 µs':>9}{'p99 µs':>9}{'calls/s':>10}{'x floor':>9}")
    floor = 1.0
    for name, times in best.items():
        middle = times[calls // 2]
        floor = middle if name.startswith("floor") else floor
        rate = calls / sum(times) * 1e6
        print(f"{name:<36}{middle:>9.1f}{times[calls * 99 // 100]:>9.1f}{rate:>10,.0f}{middle / floor:>9.2f}")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--stores", nargs="+", default=["memory", "sqlite", "redis"])
    parser.add_argument("--calls", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if "memory" in options.stores:
        measure("memory: reserve + settle", rows_of_memory(), options.calls, options.rounds)
        with budget(max_cost_usd=10**6):
            measure(
                "the same inside one budget()",
                [("floor: a lock and two dict writes", memory_floor), ("enforcer", enforced)],
                options.calls,
                options.rounds,
            )
    if "sqlite" in options.stores:
        folder = Path(tempfile.mkdtemp())
        numbers = iter(range(1_000))
        rows = rows_of_sqlite(lambda: ledger_at(f"sqlite:{folder / f'{next(numbers)}.db'}"))
        measure("SQLite: reserve + settle", rows, options.calls // 2, options.rounds)
    if "redis" in options.stores:
        from _redis_server import RedisServer

        server = RedisServer()
        try:
            measure("Redis: reserve + settle", rows_of_redis(server.url), options.calls // 4, options.rounds)
        finally:
            server.close()


if __name__ == "__main__":
    main()
