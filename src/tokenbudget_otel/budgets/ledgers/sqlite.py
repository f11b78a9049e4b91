"""The ledger of one machine: counters in a SQLite file that its processes share."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple

from tokenbudget_otel.budgets.amounts import Amount
from tokenbudget_otel.budgets.ledger import (
    LARGEST,
    Balance,
    Claim,
    Gone,
    Granted,
    LedgerConflict,
    LedgerUnavailable,
    Limits,
    OpenHold,
    Outcome,
    Refused,
    Shortage,
    checked,
    checked_delta,
    distinct,
    payload,
)
from tokenbudget_otel.budgets.ledgers.sqlite_file import Transactions, prepare
from tokenbudget_otel.budgets.ledgers.sqlite_place import usable

_State = Literal["reserved", "settled", "released", "expired", "adjusted"]
_Numbers = tuple[int, int, int]

_GRANTED: Final = Granted()
_REPLAYED: Final = Granted(replayed=True)
_NOTHING: Final = Amount(0, 0, 0)
_SWEEP: Final = 50
"""Most holds, keys and marks that one request tidies up, so that no single call pays for all."""
_EVERY: Final = 16
"""Requests of a process, or a second, between two in which it looks for what may be forgotten."""
_ALL: Final = 2**62
_LAST: Final = "\U0010ffff"
"""Greater than any id."""
_MANY: Final = 500
"""Most keys in one query. Older versions of SQLite take 999."""

# One statement books everything, because everything is a sum: what is reserved, ended, charged and corrected.
_BOOK: Final = """
INSERT INTO keys (key, dropped, spent_nano_usd, spent_tokens, spent_calls,
                  reserved_nano_usd, reserved_tokens, reserved_calls, holds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    spent_nano_usd = spent_nano_usd + excluded.spent_nano_usd,
    spent_tokens = spent_tokens + excluded.spent_tokens,
    spent_calls = spent_calls + excluded.spent_calls,
    reserved_nano_usd = reserved_nano_usd + excluded.reserved_nano_usd,
    reserved_tokens = reserved_tokens + excluded.reserved_tokens,
    reserved_calls = reserved_calls + excluded.reserved_calls,
    holds = holds + excluded.holds
"""
# The end of a hold, in a key that is surely there; one that goes with its last hold is told apart.
_GIVE_BACK: Final = """
UPDATE keys SET reserved_nano_usd = reserved_nano_usd - ?2, reserved_tokens = reserved_tokens - ?3,
                reserved_calls = reserved_calls - ?4, spent_nano_usd = spent_nano_usd + ?5,
                spent_tokens = spent_tokens + ?6, spent_calls = spent_calls + ?7, holds = holds - 1
WHERE key = ?1 AND doomed = 0
"""
_GIVE_BACK_DOOMED: Final = _GIVE_BACK.replace("doomed = 0", "doomed = 1")
# The first fields of a claim, reserved where there is room for them, in a key that is there: no row otherwise. What is
# free has room, as has what is not limited.
_TAKE: Final = """
UPDATE keys SET reserved_nano_usd = reserved_nano_usd + ?2, reserved_tokens = reserved_tokens + ?3,
                reserved_calls = reserved_calls + ?4, holds = holds + 1
WHERE key = ?1 AND (?5 IS NULL OR ?2 = 0 OR spent_nano_usd + reserved_nano_usd + ?2 <= ?5)
               AND (?6 IS NULL OR ?3 = 0 OR spent_tokens + reserved_tokens + ?3 <= ?6)
               AND (?7 IS NULL OR ?4 = 0 OR spent_calls + reserved_calls + ?4 <= ?7)
"""
_COUNTERS: Final = """
SELECT key, spent_nano_usd, spent_tokens, spent_calls, reserved_nano_usd, reserved_tokens, reserved_calls FROM keys
"""
_OLDER: Final = """
SELECT sum(spent_nano_usd + reserved_nano_usd), sum(spent_tokens + reserved_tokens), sum(spent_calls + reserved_calls)
FROM (VALUES {}) CROSS JOIN keys ON key = column1
"""
# A new hold, if all is as usual: its id is new, no hold is due, others are before this one, no limits are set.
_OPEN: Final = """
INSERT INTO holds (id, state, due, claims, on_expiry, owner, created)
SELECT ?1, 'reserved', ?2, ?3, ?4, ?5, ?6 FROM agenda
WHERE first_due > ?6 AND first_due <= ?2 AND NOT EXISTS (SELECT 1 FROM limits) ON CONFLICT (id) DO NOTHING
"""
_OPEN_ANYWAY: Final = """
INSERT INTO holds (id, state, due, claims, on_expiry, owner, created) VALUES (?, 'reserved', ?, ?, ?, ?, ?)
"""
# The end of a hold that is open and holds just this.
_SETTLE: Final = """
UPDATE holds SET state = 'settled', actual = ?, steps = NULL, due = ? WHERE id = ? AND state = 'reserved' AND claims = ?
"""
_HOLD: Final = "SELECT state, claims, asked, actual, on_expiry, steps FROM holds WHERE id = ?"
_HOLDS_BY_DUE: Final = """
SELECT id, due, state, claims, asked, actual, on_expiry, steps FROM holds
WHERE state = 'reserved' ORDER BY due, id LIMIT ?
"""
_IS_DUE: Final = "SELECT first_due <= ? FROM agenda"
_DUE_AT: Final = "UPDATE agenda SET first_due = ?1 WHERE first_due > ?1"
_DROPPED: Final = "SELECT key FROM keys WHERE dropped <= ? AND holds = 0 LIMIT ?"

_quoted: Final = json.encoder.encode_basestring_ascii
_parsed: Final = json.JSONDecoder().raw_decode  # of text that is known to be nothing but JSON


class _Row(NamedTuple):
    """A hold as it stands in the file. Its claims are what it holds now: key, amounts, end of the window."""

    state: _State
    claims: str
    asked: str | None
    actual: str | None
    on_expiry: str | None
    steps: str | None


class SQLiteLedger:
    """A :class:`~tokenbudget_otel.budgets.ledger.Ledger` in a file, for all processes of one machine.

    What is counted survives the processes, also when they are killed. After a power failure the last moments may be
    missing (``synchronous=NORMAL``). It may be used by any number of threads and processes, before and after a fork.

    Args:
        path: the file, made if it is not there, in a folder on a local disk. SQLite keeps others beside it, whose
            names begin like its own.
        clock: seconds since 1970. Holds run out and old windows are dropped by it.
        timeout: the longest wait, in seconds, for other threads and processes.
        keep_windows: seconds to keep a key after its window has ended.
        remember: seconds to remember a hold that was settled or released.
        remember_expired: seconds to remember a hold that ran out, so that a late settle can correct it.

    Raises:
        ValueError: if there can be no ledger at this path (another program's file, a network file system, no
            permission); it says what to do.
        LedgerUnavailable: if the file is locked or broken.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> ledger = SQLiteLedger(folder.name + "/budgets.db")
    >>> claim = Claim("all", nano_usd=60, calls=1, limit_nano_usd=100)
    >>> ledger.reserve("first", [claim], ttl=60)
    Granted(over=(), replayed=False)
    >>> SQLiteLedger(folder.name + "/budgets.db").reserve("second", [claim], ttl=60).shortages[0].dimensions
    ('usd',)
    >>> ledger.settle("first", Amount(nano_usd=30, tokens=0))
    'done'
    >>> ledger.balance("all").spent_nano_usd
    30
    >>> ledger.close(); folder.cleanup()
    """

    blocking: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    largest: ClassVar[int] = LARGEST

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        timeout: float = 2.0,
        keep_windows: float = 3600,
        remember: float = 300,
        remember_expired: float = 86_400,
    ) -> None:
        self.path = usable(path)
        prepare(self.path, timeout)
        self._clock = clock
        self._keep_windows = keep_windows
        self._remember = remember
        self._remember_expired = remember_expired
        self._writing = Transactions(self.path, timeout, writing=True)
        self._reading = Transactions(self.path, timeout, writing=False)
        # Only touched within a transaction of self._writing.
        self._requests = 0
        self._next_sweep = 0.0
        self._swept = ""
        self._limits_set = False  # when last seen

    def close(self) -> None:
        """Close the file. The next operation opens it again."""
        self._writing.close()
        self._reading.close()

    # -- the operations of the contract ------------------------------------------------------------------

    def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Granted | Refused:
        """See :meth:`.Ledger.reserve`."""
        counted = distinct(claims)
        now = self._clock()
        due = now + ttl
        row = (hold_id, due, _kept(counted), None if on_expiry is None else _written(on_expiry), owner, now)
        usual = counted is claims and not self._limits_set and all(claim[11] == 1000 for claim in claims)
        with self._writing as db:
            self._sweep(db, now)
            if usual and _opened(db, claims, row):
                return _GRANTED
            # What follows does the same, whatever the claims and the state of the file.
            self._expire(db, now, _SWEEP)
            if (known := _hold(db, hold_id)) is not None:
                if known.state == "adjusted" or _asked(known) != payload(counted):
                    raise LedgerConflict(f"hold {hold_id!r} was made for something else")
                return _REPLAYED
            over, refused = _check(db, self._in_force(db, claims))
            if refused:
                return Refused(refused)
            db.executemany(_BOOK, [(claim[0], self._drop(claim[8]), 0, 0, 0, *claim[1:4], 1) for claim in counted])
            db.execute(_OPEN_ANYWAY, row)
            db.execute(_DUE_AT, (due,))
        return Granted(over) if over else _GRANTED

    def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone:
        """See :meth:`.Ledger.extend`."""
        counted = distinct(claims)
        asked = {key: list(amounts) for key, amounts in payload(counted).items()}
        now = self._clock()
        with self._writing as db:
            known = self._tidied(db, hold_id, now)
            if known is None or known.state == "adjusted":
                return Gone(None)
            if known.state != "reserved":
                return Gone(known.state)
            steps = json.loads(known.steps or "{}")
            done = steps.get(step) if asked else None
            if done is not None and done != asked:
                raise LedgerConflict(f"step {step!r} of hold {hold_id!r} was made for something else")
            over: tuple[Shortage, ...] = ()
            if asked and done is None:
                held = _parsed(known.claims)[0]
                if strange := asked.keys() - {key for key, *_ in held}:
                    raise ValueError(f"hold {hold_id!r} does not claim {min(strange)!r} and cannot be extended there")
                over, refused = _check(db, self._in_force(db, claims))
                if refused:
                    return Refused(refused)
                db.executemany(_BOOK, [(key, None, 0, 0, 0, *more, 0) for key, more in asked.items()])
                for each in held:
                    each[1:4] = map(sum, zip(each[1:4], asked.get(each[0], (0, 0, 0)), strict=True))
                db.execute(
                    "UPDATE holds SET claims = ?, asked = ?, steps = ? WHERE id = ?",
                    (
                        json.dumps(held, separators=(",", ":")),  # as in _kept
                        known.asked or known.claims,
                        json.dumps({**steps, step: asked}),
                        hold_id,
                    ),
                )
            if ttl is not None:
                db.execute("UPDATE holds SET due = ? WHERE id = ?", (now + ttl, hold_id))
                db.execute(_DUE_AT, (now + ttl,))
        return Granted(over, replayed=done is not None)

    def renew(self, hold_ids: Sequence[str], ttl: float) -> tuple[str, ...]:
        """See :meth:`.Ledger.renew`."""
        now = self._clock()
        with self._writing as db:
            self._expire(db, now, _SWEEP)
            return tuple(
                each
                for each in hold_ids
                if not db.execute(
                    "UPDATE holds SET due = max(due, ?) WHERE id = ? AND state = 'reserved'", (now + ttl, each)
                ).rowcount
            )

    def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.settle`."""
        checked(actual, apart)
        came_to = _written(actual, apart)
        now = self._clock()
        # Nearly always these claims are what the hold holds, which then need not be read.
        held = list({claim[0]: claim for claim in claims}.values())
        given_back = _given_back(held, actual, apart)
        row = (came_to, now + self._kept_for("settled"), hold_id, _kept(held))
        with self._writing as db:
            if db.execute(_SETTLE, row).rowcount:
                _give_back(db, given_back)
                return "done"
            known = _hold(db, hold_id)
            if known is None:
                self._new(db, hold_id, "settled", distinct(claims), actual, apart, now)
                return "late"
            if known.state in ("settled", "adjusted"):
                if known.state == "adjusted" or known.actual != came_to:
                    raise LedgerConflict(f"hold {hold_id!r} was settled with {known.actual}, not {actual!r}")
                return "replayed"
            self._end(db, hold_id, known, "settled", actual, apart, now)
            return "done" if known.state == "reserved" else "late"

    def release(self, hold_id: str) -> Outcome:
        """See :meth:`.Ledger.release`."""
        now = self._clock()
        with self._writing as db:
            known = _hold(db, hold_id)
            if known is None or known.state in ("settled", "adjusted"):
                return "ignored"
            if known.state == "released":
                return "replayed"
            self._end(db, hold_id, known, "released", _NOTHING, None, now)
            return "done" if known.state == "reserved" else "late"

    def charge(
        self, entry_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.charge`."""
        checked(actual, apart)
        return self._record(entry_id, "settled", actual, claims, apart)

    def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome:
        """See :meth:`.Ledger.adjust`. This ledger keeps no history, and so no reasons."""
        checked_delta(delta)
        return self._record(entry_id, "adjusted", delta, claims, None)

    def expire(self, at_most: int | None = None) -> tuple[str, ...]:
        """See :meth:`.Ledger.expire`."""
        with self._writing as db:
            return tuple(self._expire(db, self._clock(), _ALL if at_most is None else at_most))

    def balance(self, key: str) -> Balance:
        """See :meth:`.Ledger.balance`."""
        return self.read((key,))[0]

    def read(self, keys: Sequence[str]) -> tuple[Balance, ...]:
        """See :meth:`.Ledger.read`."""
        self._freshen()
        with self._reading as db:
            found = _counters(db, keys)
        return tuple(found.get(key) or Balance(key) for key in keys)

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """See :meth:`.Ledger.balances`."""
        self._freshen()
        found = []
        with self._reading as db:
            for row in db.execute(f"{_COUNTERS} WHERE key >= ? ORDER BY key", (prefix,)):
                if not row[0].startswith(prefix):
                    break
                found.append(Balance(*row))
        return tuple(found)

    def holds(self, key: str | None = None) -> tuple[OpenHold, ...]:
        """See :meth:`.Ledger.holds`."""
        self._freshen()
        with self._reading as db:
            rows = db.execute(
                "SELECT id, claims, created, due, owner FROM holds WHERE state = 'reserved' ORDER BY created, id"
            ).fetchall()
        found = [OpenHold(id_, _claims(text), created, due, owner) for id_, text, created, due, owner in rows]
        return tuple(hold for hold in found if key is None or any(claim.key == key for claim in hold.claims))

    def forget(self, keys: Sequence[str]) -> None:
        """See :meth:`.Ledger.forget`."""
        with self._writing as db:
            db.executemany("UPDATE keys SET doomed = 1 WHERE key = ?", [(key,) for key in keys])
            db.execute("DELETE FROM keys WHERE doomed = 1 AND holds = 0")

    def first(self, mark: str, ends: float | None = None) -> bool:
        """See :meth:`.Ledger.first`."""
        with self._writing as db:
            self._forget(db, self._clock())
            return db.execute("INSERT OR IGNORE INTO marks VALUES (?, ?)", (mark, ends)).rowcount == 1

    def set_limits(self, policy: str, limits: Limits | None) -> None:
        """See :meth:`.Ledger.set_limits`."""
        with self._writing as db:
            if limits is None:
                db.execute("DELETE FROM limits WHERE policy = ?", (policy,))
            else:
                db.execute("INSERT OR REPLACE INTO limits VALUES (?, ?, ?, ?)", (policy, *limits))

    def limits(self) -> Mapping[str, Limits]:
        """See :meth:`.Ledger.limits`."""
        with self._reading as db:
            return _limits(db)

    def declare(self, name: str, document: str) -> None:
        """See :meth:`.Ledger.declare`."""
        with self._writing as db:
            db.execute("INSERT OR REPLACE INTO declared VALUES (?, ?)", (name, document))

    def declared(self) -> Mapping[str, str]:
        """See :meth:`.Ledger.declared`."""
        with self._reading as db:
            return dict(db.execute("SELECT name, document FROM declared ORDER BY name"))

    # -- within a transaction ------------------------------------------------------------------------------

    def _in_force(self, db: sqlite3.Connection, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Claims with the limits that are in force."""
        other = _limits(db)
        self._limits_set = bool(other)
        return [claim.under(other.get(claim.policy)) for claim in claims]

    def _end(
        self,
        db: sqlite3.Connection,
        hold_id: str,
        known: _Row,
        state: _State,
        actual: Amount | None,
        apart: Mapping[str, Amount] | None,
        now: float,
    ) -> None:
        """End a hold, or correct what its end had added to what is spent. ``actual`` of ``None``: what it reserved."""
        held = _parsed(known.claims)[0]
        if known.state == "reserved":
            _give_back(db, _given_back(held, actual, apart))
        else:
            # A key that was dropped since has forgotten what this hold had added: nothing to take back from.
            there = _counters(db, [each[0] for each in held])
            charged = _NOTHING if known.state == "released" else _read(known.on_expiry)
            rows = []
            for key, *reserved, ends in held:
                was = _came_to(reserved, key, charged, None) if key in there else (0, 0, 0)
                is_now = _came_to(reserved, key, actual, apart)
                changed = (new - old for new, old in zip(is_now, was, strict=True))
                rows.append((key, self._drop(ends), *changed, 0, 0, 0, 0))
            db.executemany(_BOOK, rows)
        db.execute(
            "UPDATE holds SET state = ?, actual = ?, steps = NULL, due = ? WHERE id = ?",
            (state, None if actual is None else _written(actual, apart), now + self._kept_for(state), hold_id),
        )

    def _new(
        self,
        db: sqlite3.Connection,
        entry_id: str,
        state: _State,
        counted: Sequence[Claim],
        actual: Amount,
        apart: Mapping[str, Amount] | None,
        now: float,
    ) -> None:
        """Book what nobody had reserved."""
        db.executemany(
            _BOOK,
            [
                (claim.key, self._drop(claim.ends), *_came_to(claim[1:4], claim.key, actual, apart), 0, 0, 0, 0)
                for claim in counted
            ],
        )
        db.execute(
            "INSERT INTO holds (id, state, claims, actual, created, due) VALUES (?, ?, ?, ?, ?, ?)",
            (entry_id, state, _kept(counted), _written(actual, apart), now, now + self._kept_for(state)),
        )

    def _record(
        self,
        entry_id: str,
        state: _State,
        actual: Amount,
        claims: Sequence[Claim],
        apart: Mapping[str, Amount] | None,
    ) -> Outcome:
        counted = distinct(claims)
        now = self._clock()
        with self._writing as db:
            known = self._tidied(db, entry_id, now)
            if known is None:
                self._new(db, entry_id, state, counted, actual, apart, now)
                return "done"
            if (known.state, known.actual, _asked(known)) != (state, _written(actual, apart), payload(counted)):
                raise LedgerConflict(f"id {entry_id!r} was used before, for something else")
            return "replayed"

    def _drop(self, ends: float | None) -> float | None:
        return None if ends is None else ends + self._keep_windows

    def _kept_for(self, state: _State) -> float:
        return self._remember_expired if state == "expired" else self._remember

    def _tidied(self, db: sqlite3.Connection, hold_id: str, now: float) -> _Row | None:
        """A hold, after a few that have run out were ended."""
        self._sweep(db, now)
        self._expire(db, now, _SWEEP)
        return _hold(db, hold_id)

    def _sweep(self, db: sqlite3.Connection, now: float) -> None:
        """Now and then forget a few windows, holds and marks."""
        self._requests += 1
        if self._requests >= _EVERY or now >= self._next_sweep:
            self._requests, self._next_sweep = 0, now + 1
            self._expire(db, now, _SWEEP)
            self._forget(db, now)

    def _forget(self, db: sqlite3.Connection, now: float) -> None:
        db.execute(f"DELETE FROM keys WHERE key IN ({_DROPPED})", (now, _SWEEP))
        db.execute("DELETE FROM marks WHERE mark IN (SELECT mark FROM marks WHERE ends <= ? LIMIT ?)", (now, _SWEEP))
        # Ended holds are gone through in the order of their ids, again and again: an index of when each may go would
        # cost every request more than this.
        last = db.execute("SELECT id FROM holds WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (self._swept, _SWEEP - 1))
        until = (last.fetchone() or (None,))[0]
        db.execute(
            "DELETE FROM holds WHERE id > ? AND id <= ? AND state <> 'reserved' AND due <= ?",
            (self._swept, until or _LAST, now),
        )
        self._swept = until or ""

    def _expire(self, db: sqlite3.Connection, now: float, at_most: int) -> list[str]:
        if not db.execute(_IS_DUE, (now,)).fetchone()[0]:
            return []
        found = db.execute(_HOLDS_BY_DUE, (at_most + 1,)).fetchall()
        expired = [row for row in found[:at_most] if row[1] <= now]
        for hold_id, _, *row in expired:
            known = _Row(*row)
            self._end(db, hold_id, known, "expired", _read(known.on_expiry), None, now)
        first_left = found[len(expired)][1] if len(found) > len(expired) else math.inf
        db.execute("UPDATE agenda SET first_due = ?", (first_left,))
        return [row[0] for row in expired]

    def _freshen(self) -> None:
        """Before somebody looks: what has run out is not shown as open, unless nothing can be written at present."""
        now = self._clock()
        with self._reading as db:
            due = db.execute(_IS_DUE, (now,)).fetchone()[0] or db.execute(_DROPPED, (now, 1)).fetchone()
        if due:
            try:
                with self._writing as db:
                    self._expire(db, now, _SWEEP)
                    self._forget(db, now)
            except LedgerUnavailable:
                pass


def _hold(db: sqlite3.Connection, hold_id: str) -> _Row | None:
    row = db.execute(_HOLD, (hold_id,)).fetchone()
    return row if row is None else _Row(*row)


def _counters(db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Balance]:
    """What the keys stand at that there are."""
    found = {}
    for start in range(0, len(keys), _MANY):
        some = keys[start : start + _MANY]
        for row in db.execute(f"{_COUNTERS} WHERE key IN ({','.join('?' * len(some))})", some):
            found[row[0]] = Balance(*row)
    return found


def _limits(db: sqlite3.Connection) -> dict[str, Limits]:
    return {policy: Limits(*limits) for policy, *limits in db.execute("SELECT * FROM limits ORDER BY policy")}


def _opened(db: sqlite3.Connection, claims: Sequence[Claim], row: tuple[object, ...]) -> bool:
    """Reserve the short way, which nearly every request goes: every key is there and has room, and nothing else is to
    be done. If not, nothing has happened, and who wants to know why looks closer."""
    asked = [_beside_older(db, claim) if claim[9] else claim[:7] for claim in claims]
    taken = db.executemany(_TAKE, _while_changing(db, asked)).rowcount if asked else 0
    if taken == len(asked) and db.execute(_OPEN, row).rowcount:
        return True
    db.executemany(_BOOK, [(each[0], None, 0, 0, 0, -each[1], -each[2], -each[3], -1) for each in claims[:taken]])
    return False


def _beside_older(db: sqlite3.Connection, claim: Claim) -> tuple[object, ...]:
    """The first fields of a claim, its limits without what its older keys stand at."""
    try:
        stood = db.execute(_OLDER.format(",".join(["(?)"] * len(claim.older))), claim.older).fetchone()
    except sqlite3.OperationalError:  # a sum beyond what SQLite counts: to be looked at closer
        stood = (LARGEST,) * 3
    limits = zip(claim[4:7], stood, strict=True)
    return (*claim[:4], *[None if limit is None else min(limit - (is_ or 0), LARGEST) for limit, is_ in limits])


def _while_changing(db: sqlite3.Connection, rows: list[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    """Rows for a statement, one after the other until one changes nothing."""
    for row in rows:
        before = db.total_changes
        yield row
        if db.total_changes == before:
            return


def _check(db: sqlite3.Connection, claims: Sequence[Claim]) -> tuple[tuple[Shortage, ...], tuple[Shortage, ...]]:
    """For which claims there is no room: the soft ones, and the hard ones."""
    keys = [key for claim in claims for key in (claim.key, *claim.older)]
    stood = _counters(db, keys)
    over: list[Shortage] = []
    refused: list[Shortage] = []
    for claim in claims:
        balance = stood.get(claim[0]) or Balance(claim[0])
        if claim.older:
            parts = (balance, *(stood[key] for key in claim.older if key in stood))
            balance = Balance(claim.key, *map(sum, zip(*(part[1:] for part in parts), strict=True)))
        shortage = Shortage(claim, balance)
        if shortage.dimensions:
            (refused if claim.hard else over).append(shortage)
    return tuple(over), tuple(refused)


def _given_back(
    held: Sequence[Sequence[Any]], actual: Amount | None, apart: Mapping[str, Amount] | None
) -> list[tuple[object, ...]]:
    """What ends a hold of these claims: what is not reserved any more, and what is spent, key by key."""
    if actual is None or actual.nano_usd is None or apart:
        return [(*each[:4], *_came_to(each[1:4], each[0], actual, apart)) for each in held]
    spent = (actual.nano_usd, actual.tokens, actual.calls)
    return [(*each[:4], *spent) for each in held]


def _give_back(db: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    if db.executemany(_GIVE_BACK, rows).rowcount < len(rows):
        db.executemany(_GIVE_BACK_DOOMED, rows)
        db.execute("DELETE FROM keys WHERE doomed = 1 AND holds = 0")


def _came_to(
    reserved: Sequence[int], key: str, actual: Amount | None, apart: Mapping[str, Amount] | None
) -> Sequence[int]:
    """What is booked in a key: what is not known is what was reserved."""
    if actual is None:
        return reserved
    if apart:
        actual = apart.get(key, actual)
    return reserved[0] if actual.nano_usd is None else actual.nano_usd, actual.tokens, actual.calls


def _kept(claims: Sequence[Claim]) -> str:
    """Claims as JSON, put together by hand: this is a sixth of the time of a request otherwise."""
    rows = [
        f"[{_quoted(claim[0])},{claim[1]},{claim[2]},{claim[3]},{'null' if claim[8] is None else repr(claim[8])}]"
        for claim in claims
    ]
    return f"[{','.join(rows)}]"


def _claims(text: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(key, nano_usd, tokens, calls, ends=ends) for key, nano_usd, tokens, calls, ends in _parsed(text)[0]
    )


def _asked(known: _Row) -> dict[str, _Numbers]:
    return payload(_claims(known.asked or known.claims))


def _written(amount: Amount, apart: Mapping[str, Amount] | None = None) -> str:
    """Amounts as JSON; the same text for the same ones."""
    text = f"[{_null(amount.nano_usd)},{amount.tokens},{amount.calls}]"
    if not apart:
        return text
    return f"[{text},{{{','.join(f'{_quoted(key)}:{_written(each)}' for key, each in sorted(apart.items()))}}}]"


def _read(text: str | None) -> Amount | None:
    return None if text is None else Amount(*_parsed(text)[0])


def _null(number: float | None) -> str:
    return "null" if number is None else repr(number)
