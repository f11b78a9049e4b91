"""Histories of requests, good and bad ones, and what can be seen of a ledger that was put through one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Amount, Claim, LedgerConflict, Limits, MemoryLedger, SQLiteLedger

from .budget_ledgers import Clock, redis_clients

Operation = tuple[str, tuple[Any, ...]]

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
"""Servers and busy machines take the time they take."""

KEYS = ("a", "b", "c", "d")
IDS = st.sampled_from(["1", "2", "3", "4", "5"])
FAR = 2e9

small = st.integers(0, 40)
limits = st.none() | st.integers(0, 90)
amounts = st.builds(Amount, st.none() | st.integers(0, 90), st.integers(0, 60), st.integers(0, 2))


def claims_of(keys: st.SearchStrategy[str], numbers: st.SearchStrategy[int] = small) -> st.SearchStrategy[Claim]:
    return st.builds(
        Claim,
        keys,
        numbers,
        numbers,
        st.integers(0, 1),
        limit_nano_usd=limits,
        limit_tokens=limits,
        limit_calls=st.none() | st.integers(0, 6),
        hard=st.sampled_from([True, True, False]),
        ends=st.sampled_from([None, FAR]),
        older=st.lists(st.sampled_from(KEYS), max_size=2).map(tuple),
        policy=st.sampled_from(["", "p", "q"]),
        per_mille=st.sampled_from([1000, 1000, 799, 1]),
        fallback=st.none(),
    )


claims = st.lists(claims_of(st.sampled_from(KEYS)), max_size=4, unique_by=lambda claim: claim.key).map(tuple)
apart = st.none() | st.dictionaries(st.sampled_from(KEYS), amounts, max_size=2)

booking = st.one_of(
    st.tuples(
        st.just("reserve"),
        st.tuples(IDS, claims, st.just(60), st.none() | amounts, st.sampled_from(["", "host:1"])),
    ),
    st.tuples(st.just("extend"), st.tuples(IDS, st.sampled_from("xy"), claims, st.sampled_from([None, 60]))),
    st.tuples(st.just("settle"), st.tuples(IDS, amounts, claims, apart)),
    st.tuples(st.just("release"), st.tuples(IDS)),
    st.tuples(st.just("charge"), st.tuples(IDS, amounts, claims, apart)),
    st.tuples(
        st.just("adjust"),
        st.tuples(
            IDS,
            st.builds(Amount, st.none() | st.integers(-40, 40), st.integers(-9, 9), st.just(1)),
            claims,
            st.just("why"),
        ),
    ),
)
"""What counts something."""

clumsy = claims_of(st.sampled_from(KEYS), st.sampled_from([5, -1, 0.5, 1.0]))
mistakes = st.one_of(
    st.tuples(st.just("reserve"), st.tuples(IDS, st.lists(clumsy, max_size=3), st.just(60))),
    st.tuples(st.just("extend"), st.tuples(IDS, st.just("z"), st.lists(clumsy, max_size=2))),
    st.tuples(st.just("charge"), st.tuples(IDS, st.builds(Amount, st.integers(-9, 9), st.just(0), st.just(1)), claims)),
    st.tuples(st.just("charge"), st.tuples(IDS, amounts, st.lists(clumsy, max_size=2))),
    st.tuples(st.just("settle"), st.tuples(IDS, st.builds(Amount, st.integers(-9, 9), st.integers(-9, 9), st.just(1)))),
    st.tuples(st.just("adjust"), st.tuples(IDS, amounts, st.lists(clumsy, max_size=2))),
)

anything = st.one_of(
    booking,
    booking,
    booking,
    mistakes,
    st.tuples(st.just("renew"), st.tuples(st.lists(IDS, max_size=3).map(tuple), st.sampled_from([1, 60, 90]))),
    st.tuples(st.just("reserve"), st.tuples(IDS, claims, st.sampled_from([0, 1, 2]))),
    st.tuples(st.just("expire"), st.just(())),
    st.tuples(st.just("forget"), st.tuples(st.lists(st.sampled_from(KEYS), max_size=2))),
    st.tuples(st.just("first"), st.tuples(st.sampled_from("mn"), st.sampled_from([None, FAR]))),
    st.tuples(
        st.just("set_limits"),
        st.tuples(st.sampled_from(["", "p", "q"]), st.none() | st.builds(Limits, limits, limits, limits)),
    ),
    st.tuples(st.just("declare"), st.tuples(st.sampled_from("mn"), st.sampled_from(["{}", "[]"]))),
    st.tuples(st.just("read"), st.tuples(st.lists(st.sampled_from((*KEYS, "never")), max_size=3))),
    st.tuples(st.just("balances"), st.tuples(st.sampled_from(["", "a", "no"]))),
    st.tuples(st.just("time"), st.sampled_from([(1,), (2,), (5,)])),
)
"""Every operation there is, and time that passes."""


def outcome(ledger: Any, operation: str, *arguments: Any) -> Any:
    """What an operation answers, or what it raises."""
    try:
        answer = getattr(ledger, operation)(*arguments)
    except (LedgerConflict, ValueError, TypeError) as error:
        return type(error).__name__
    return sorted(answer) if operation == "expire" else answer


def through(ledger: Any, clock: Clock, history: Iterable[Operation]) -> Any:
    """The ledger, after all that."""
    for operation, arguments in history:
        clock.on(*arguments) if operation == "time" else outcome(ledger, operation, *arguments)
    return ledger


def seen(ledger: Any) -> tuple[Any, ...]:
    """All that a ledger shows. Which of several holds of one moment comes first is left to it."""
    holds = sorted(
        (hold.created, hold.id, hold.expires, hold.owner, sorted(claim[:4] for claim in hold.claims))
        for hold in ledger.holds()
    )
    return ledger.balances(), holds, dict(ledger.limits()), dict(ledger.declared())


def every_byte(ledger: Any) -> Any:
    """All that a ledger keeps, also what it does not show."""
    if isinstance(ledger, MemoryLedger):
        return repr({name: _plain(value) for name, value in vars(ledger).items() if name != "_lock"})
    if isinstance(ledger, SQLiteLedger):
        with contextlib.closing(sqlite3.connect(ledger.path)) as db:
            return "\n".join(db.iterdump())
    core = getattr(ledger, "_ledger", ledger)._core
    client, _ = redis_clients()
    kept = {}
    for key in client.scan_iter(match=f"*{core.root}*", count=10_000):
        hashed = client.type(key) == b"hash"
        kept[key] = client.hgetall(key) if hashed else client.zrange(key, 0, -1, withscores=True)
        assert client.pttl(key) == -1
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _plain(each)) for key, each in value.items()]
    slots = getattr(value, "__slots__", ())
    return {name: getattr(value, name) for name in slots} if slots and not isinstance(value, tuple) else value
