"""The ledgers there are. A new one is one more row, and every test of the contract runs over it."""

from __future__ import annotations

import asyncio
import functools
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis_server import shared_server
from tokenbudget_otel.budgets import AsyncLedger, Ledger, MemoryLedger, SQLiteLedger


class Clock:
    """Seconds since 1970 that only a test moves."""

    def __init__(self, now: float = 1_795_374_000.0) -> None:  # 2026-11-22 19:00 UTC
        self.now = now

    def __call__(self) -> float:
        return self.now

    def on(self, seconds: float) -> None:
        self.now += seconds


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """An event loop that runs in a thread of its own as long as the tests do."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


class InEventLoop:
    """An asyncio ledger whose operations run on :func:`event_loop`, so that the tests of the others are its tests."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._ledger, name)
        if not callable(operation):
            return operation
        return lambda *args, **named: asyncio.run_coroutine_threadsafe(operation(*args, **named), event_loop()).result()


@functools.cache
def redis_clients() -> tuple[Any, Any]:
    """One client of each kind for all ledgers; they have time, because no test is about how long they take."""
    import redis

    url = shared_server().unix_url
    return redis.Redis.from_url(url), redis.asyncio.Redis.from_url(url)


def redis_ledger(clock: Callable[[], float]) -> Ledger:
    from tokenbudget_otel.budgets import RedisLedger

    client, _ = redis_clients()
    return RedisLedger(client, root=uuid.uuid4().hex, clock=clock)


def async_redis_ledger(clock: Callable[[], float]) -> Ledger:
    from tokenbudget_otel.budgets import AsyncRedisLedger

    _, client = redis_clients()
    return InEventLoop(AsyncRedisLedger(client, root=uuid.uuid4().hex, clock=clock))


MakeLedger = Callable[[Callable[[], float]], Ledger]

MEMORY_DISK = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where files are quick, if there is such a place: hypothesis makes thousands of them."""


OPENED: weakref.WeakSet[SQLiteLedger] = weakref.WeakSet()
"""Files that are to be closed when the test is over: each one open costs a fork of the tests that come later."""


def sqlite_ledger(clock: Callable[[], float]) -> SQLiteLedger:
    """A ledger in a file of its own, which is gone when the ledger is."""
    folder = tempfile.mkdtemp(prefix="tokenbudget-", dir=MEMORY_DISK)
    ledger = SQLiteLedger(Path(folder, "budgets.db"), clock=clock)
    weakref.finalize(ledger, shutil.rmtree, folder)
    OPENED.add(ledger)
    return ledger


LEDGERS: dict[str, MakeLedger] = {
    "memory": lambda clock: MemoryLedger(clock=clock),
    "sqlite": sqlite_ledger,
    "redis": redis_ledger,
    "redis asyncio": async_redis_ledger,
}
