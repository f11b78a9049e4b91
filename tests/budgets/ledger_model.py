"""What a ledger is, said once more and as plainly as can be: every id that was ever used, and sums made anew each time.

Nothing here is quick, kept small, or safe for threads; that is what ledgers are for. In tests every ledger has to
answer as this does (:mod:`.test_ledger_contract`). It holds for histories that are short beside the times after which
ledgers forget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from tokenbudget_otel.budgets import (
    Amount,
    Balance,
    Claim,
    Gone,
    Granted,
    LedgerConflict,
    Limits,
    OpenHold,
    Refused,
    Shortage,
)

Numbers = tuple[int, int, int]
Held = dict[str, Numbers]
NOTHING: Numbers = (0, 0, 0)


def plus(*several: Sequence[int]) -> Numbers:
    return tuple(map(sum, zip(NOTHING, *several, strict=True)))


def minus(one: Sequence[int], other: Sequence[int]) -> Numbers:
    return tuple(a - b for a, b in zip(one, other, strict=True))


def by_key(claims: Sequence[Claim]) -> Held:
    found: Held = {}
    for claim in claims:
        if found.setdefault(claim.key, claim[1:4]) != claim[1:4]:
            raise LedgerConflict(claim.key)
    return found


def came_to(key: str, held: Numbers, actual: Amount | None, apart: Mapping[str, Amount]) -> Numbers:
    """What a call adds to a key: what is not known is what was reserved."""
    if actual is None:
        return held
    actual = apart.get(key, actual)
    return (held[0] if actual.nano_usd is None else actual.nano_usd, actual.tokens, actual.calls)


@dataclasses.dataclass
class Entry:
    """One id: a hold, a charge or an adjustment."""

    asked: Held
    held: Held
    state: str = "new"
    created: float = 0.0
    expires: float = 0.0
    owner: str = ""
    on_expiry: Amount | None = None
    steps: dict[str, Held] = dataclasses.field(default_factory=dict)
    ended_with: tuple[Amount | None, dict[str, Amount]] | None = None
    booked: Held = dataclasses.field(default_factory=dict)


class Model:
    """The contract, to be executed. ``slack`` is by how much a key may stand above its limit, and why: what calls came
    to beyond what was reserved for them, and what nobody had reserved (P2)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.entries: dict[str, Entry] = {}
        self.there: set[str] = set()
        self.doomed: set[str] = set()
        self.forgotten: Held = {}  # what does not count any more, because its key was dropped
        self.slack: Held = {}
        self.marks: set[str] = set()
        self.other_limits: dict[str, Limits] = {}
        self.documents: dict[str, str] = {}

    # what follows from the entries

    def open(self) -> list[tuple[str, Entry]]:
        return [(name, entry) for name, entry in self.entries.items() if entry.state == "reserved"]

    def reserved(self, key: str) -> Numbers:
        return plus(*(entry.held[key] for _, entry in self.open() if key in entry.held))

    def spent(self, key: str) -> Numbers:
        booked = plus(*(entry.booked[key] for entry in self.entries.values() if key in entry.booked))
        return minus(booked, self.forgotten.get(key, NOTHING))

    def shortages(self, claims: Sequence[Claim]) -> tuple[list[Shortage], list[Shortage]]:
        """Those of soft claims, and those of hard ones."""
        found: tuple[list[Shortage], list[Shortage]] = [], []
        for declared in claims:
            other = self.other_limits.get(declared.policy, Limits())
            limits = (mine if set_ is None else set_ for mine, set_ in zip(declared[4:7], other, strict=True))
            limits = (limit if limit is None else limit * declared.per_mille // 1000 for limit in limits)
            claim = Claim(*declared[:4], *limits, *declared[7:])
            keys = (claim.key, *claim.older)
            stands = Balance(claim.key, *plus(*map(self.spent, keys)), *plus(*map(self.reserved, keys)))
            totals = plus(stands[1:4], stands[4:7])
            for needed, limit, total in zip(claim[1:4], claim[4:7], totals, strict=True):
                if limit is not None and needed and total + needed > limit:
                    found[claim.hard].append(Shortage(claim, stands))
                    break
        return found

    # what changes them

    def _end(self, entry: Entry, state: str, actual: Amount | None, apart: Mapping[str, Amount] | None) -> None:
        """Whatever it had added before, from now on it adds this."""
        was_open = entry.state == "reserved"
        entry.state, entry.ended_with = state, (actual, dict(apart or {}))
        for key, held in entry.held.items():
            if key not in self.there:
                self.there.add(key)
                self.forgotten[key] = minus(self.forgotten.get(key, NOTHING), entry.booked.pop(key, NOTHING))
            amount = came_to(key, held, actual, apart or {})
            covered = held if was_open else entry.booked.get(key, NOTHING)
            beyond = (max(0, each) for each in minus(amount, covered))
            self.slack[key] = plus(self.slack.get(key, NOTHING), tuple(beyond))
            entry.booked[key] = amount
        self._drop(self.doomed)

    def _drop(self, keys: Iterable[str]) -> None:
        for key in sorted(keys):
            if not any(key in entry.held for _, entry in self.open()):
                self.forgotten[key] = plus(self.forgotten.get(key, NOTHING), self.spent(key))
                self.there.discard(key)
                self.doomed.discard(key)

    def _record(
        self, name: str, state: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None
    ) -> str:
        asked = by_key(claims)
        self.expire()
        known = self.entries.get(name)
        if known is None:
            known = self.entries[name] = Entry(asked, dict(asked))
            self._end(known, state, actual, apart)
            return "done"
        if (known.state, known.asked, known.ended_with) != (state, asked, (actual, dict(apart or {}))):
            raise LedgerConflict(name)
        return "replayed"

    # the operations of the contract

    def reserve(self, hold_id, claims, ttl, on_expiry=None, owner=""):
        asked = by_key(claims)
        self.expire()
        if (known := self.entries.get(hold_id)) is not None:
            if known.state == "adjusted" or known.asked != asked:
                raise LedgerConflict(hold_id)
            return Granted(replayed=True)
        over, refused = self.shortages(claims)
        if refused:
            return Refused(tuple(refused))
        now = self.clock()
        self.entries[hold_id] = Entry(asked, dict(asked), "reserved", now, now + ttl, owner, on_expiry)
        self.there.update(asked)
        return Granted(tuple(over))

    def extend(self, hold_id, step, claims=(), ttl=None):
        more = by_key(claims)
        self.expire()
        hold = self.entries.get(hold_id)
        if hold is None or hold.state != "reserved":
            return Gone(None if hold is None or hold.state == "adjusted" else hold.state)
        done = hold.steps.get(step) if more else None
        if done is not None and done != more:
            raise LedgerConflict(step)
        over: list[Shortage] = []
        if more and done is None:
            if more.keys() - hold.held.keys():
                raise ValueError(hold_id)
            over, refused = self.shortages(claims)
            if refused:
                return Refused(tuple(refused))
            hold.steps[step] = more
            for key, amount in more.items():
                hold.held[key] = plus(hold.held[key], amount)
        if ttl is not None:
            hold.expires = self.clock() + ttl
        return Granted(tuple(over), replayed=done is not None)

    def renew(self, hold_ids, ttl):
        self.expire()
        alive = dict(self.open())
        for name in hold_ids:
            if name in alive:
                alive[name].expires = max(alive[name].expires, self.clock() + ttl)
        return tuple(name for name in hold_ids if name not in alive)

    def settle(self, hold_id, actual, claims=(), apart=None):
        hold = self.entries.get(hold_id)
        if hold is not None and hold.state in ("settled", "adjusted"):
            if hold.state == "adjusted" or hold.ended_with != (actual, dict(apart or {})):
                raise LedgerConflict(hold_id)
            return "replayed"
        if hold is None:
            asked = by_key(claims)
            hold = self.entries[hold_id] = Entry(asked, dict(asked))
        was = hold.state
        self._end(hold, "settled", actual, apart)
        return "done" if was == "reserved" else "late"

    def release(self, hold_id):
        hold = self.entries.get(hold_id)
        if hold is None or hold.state in ("settled", "adjusted"):
            return "ignored"
        if hold.state == "released":
            return "replayed"
        was = hold.state
        self._end(hold, "released", Amount(0, 0, 0), None)
        return "done" if was == "reserved" else "late"

    def charge(self, entry_id, actual, claims, apart=None):
        return self._record(entry_id, "settled", actual, claims, apart)

    def adjust(self, entry_id, delta, claims, reason=""):
        return self._record(entry_id, "adjusted", delta, claims, None)

    def expire(self):
        now = self.clock()
        due = sorted((hold.expires, name) for name, hold in self.open() if hold.expires <= now)
        for _, name in due:
            hold = self.entries[name]
            self._end(hold, "expired", hold.on_expiry, None)
        return tuple(name for _, name in due)

    def read(self, keys):
        self.expire()
        return tuple(
            Balance(key, *self.spent(key), *self.reserved(key)) if key in self.there else Balance(key) for key in keys
        )

    def balances(self, prefix=""):
        self.expire()
        return self.read(sorted(key for key in self.there if key.startswith(prefix)))

    def holds(self, key=None):
        self.expire()
        return tuple(
            OpenHold(
                name,
                tuple(Claim(each, *held) for each, held in hold.held.items()),
                hold.created,
                hold.expires,
                hold.owner,
            )
            for name, hold in self.open()
            if key is None or key in hold.held
        )

    def forget(self, keys):
        self.doomed |= self.there & set(keys)
        self._drop(self.doomed)

    def first(self, mark, ends=None):
        new = mark not in self.marks
        self.marks.add(mark)
        return new

    def set_limits(self, policy, limits):
        self.other_limits.pop(policy, None)
        if limits is not None:
            self.other_limits[policy] = limits

    def limits(self):
        return dict(self.other_limits)

    def declare(self, name, document):
        self.documents[name] = document

    def declared(self):
        return dict(self.documents)
