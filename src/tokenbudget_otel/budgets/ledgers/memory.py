"""The ledger of one process: counters in a dict, behind one lock."""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, Literal

from tokenbudget_otel.budgets.amounts import Amount
from tokenbudget_otel.budgets.ledger import (
    LARGEST,
    Balance,
    Claim,
    Gone,
    Granted,
    LedgerConflict,
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
from tokenbudget_otel.forks import renew_after_fork

_State = Literal["reserved", "settled", "released", "expired", "adjusted"]

_GRANTED: Final = Granted()
_REPLAYED: Final = Granted(replayed=True)
_SWEEP: Final = 50
"""Most holds and keys that one request tidies up, so that no single call pays for all."""


class _Counter:
    """What one key stands at, and how many open holds refer to it."""

    __slots__ = (
        "doomed",
        "holds",
        "reserved_calls",
        "reserved_nano_usd",
        "reserved_tokens",
        "spent_calls",
        "spent_nano_usd",
        "spent_tokens",
    )

    def __init__(self) -> None:
        self.spent_nano_usd = self.spent_tokens = self.spent_calls = 0
        self.reserved_nano_usd = self.reserved_tokens = self.reserved_calls = 0
        self.holds = 0
        self.doomed = False

    def balance(self, key: str) -> Balance:
        return Balance(
            key,
            self.spent_nano_usd,
            self.spent_tokens,
            self.spent_calls,
            self.reserved_nano_usd,
            self.reserved_tokens,
            self.reserved_calls,
        )


_UNUSED: Final = _Counter()


class _Lease:
    """A hold, and what became of it. ``booked`` is what each claim has added to what is spent, where that may yet be
    corrected."""

    __slots__ = (
        "actual",
        "apart",
        "asked",
        "booked",
        "claims",
        "created",
        "ended",
        "expires",
        "id",
        "on_expiry",
        "owner",
        "state",
        "steps",
    )

    def __init__(
        self,
        hold_id: str,
        claims: Sequence[Claim],
        created: float,
        expires: float,
        on_expiry: Amount | None = None,
        owner: str = "",
    ) -> None:
        self.id = hold_id
        self.asked = self.claims = claims
        self.created = created
        self.expires = expires
        self.on_expiry = on_expiry
        self.owner = owner
        self.state: _State = "reserved"
        self.ended = 0.0
        self.actual: Amount | None = None
        self.apart: Mapping[str, Amount] = _NOWHERE
        self.booked: Sequence[tuple[int, int, int]] = ()
        self.steps: dict[str, dict[str, tuple[int, int, int]]] | None = None


_NOWHERE: Final[Mapping[str, Amount]] = {}


class MemoryLedger:
    """A :class:`~tokenbudget_otel.budgets.ledger.Ledger` in this process's memory. Safe for threads and tasks.

    What it holds is bounded: keys are dropped some time after their window has ended, ended holds are
    remembered as long as a repeated request may be expected, and ``max_keys`` bounds keys without end (a
    lifetime limit per user, for example): the key unused for longest gives way, and :attr:`dropped` counts it.
    An alert of a budget whose key gave way may be told again.

    Args:
        clock: seconds since 1970. Holds run out and old windows are dropped by it.
        keep_windows: seconds to keep a key after its window has ended.
        remember: seconds to remember a hold that was settled or released.
        remember_expired: seconds to remember a hold that ran out, so that a late settle can correct it.
        max_ended: most settled, and most expired, holds to remember.
        max_keys: most keys to count, and most marks (:meth:`first`) to remember.

    >>> ledger = MemoryLedger()
    >>> claim = Claim("all", nano_usd=60, calls=1, limit_nano_usd=100)
    >>> ledger.reserve("first", [claim], ttl=60)
    Granted(over=(), replayed=False)
    >>> ledger.reserve("second", [claim], ttl=60).shortages[0].dimensions
    ('usd',)
    >>> ledger.settle("first", Amount(nano_usd=30, tokens=0))
    'done'
    >>> ledger.balance("all").spent_nano_usd, ledger.balance("all").reserved_nano_usd
    (30, 0)
    """

    blocking: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    largest: ClassVar[int] = LARGEST

    # A plain lock, taken for a few microseconds: nothing under it calls out, logs or waits. Garbage collection
    # may run on a thread that is inside; whoever settles from a finaliser must hand that to another thread.

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        keep_windows: float = 3600,
        remember: float = 300,
        remember_expired: float = 86_400,
        max_ended: int = 4096,
        max_keys: int = 100_000,
    ) -> None:
        self._clock = clock
        self._keep_windows = keep_windows
        self._remember = remember
        self._remember_expired = remember_expired
        self._max_ended = max_ended
        self._max_keys = max_keys
        self._after_fork()
        renew_after_fork(self)
        self._counters: OrderedDict[str, _Counter] = OrderedDict()  # least recently used first
        self._open: dict[str, _Lease] = {}
        self._ended: OrderedDict[str, _Lease] = OrderedDict()  # settled, released, adjusted; oldest first
        self._expired: OrderedDict[str, _Lease] = OrderedDict()
        self._due = math.inf
        """When something is to be tidied up at the earliest; there may turn out to be nothing."""
        self._deadlines: list[tuple[float, str]] = []  # a heap; may name holds that have ended since
        self._window_ends: list[tuple[float, str]] = []  # a heap
        self._limits: dict[str, Limits] = {}
        self._marks: dict[str, float | None] = {}
        self._marks_full = min(max_ended, max_keys)
        self._declared: dict[str, str] = {}
        self.dropped = 0
        """How many keys had to give way to ``max_keys``. Their budgets began anew."""

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    # -- the operations of the contract ------------------------------------------------------------------

    def reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Granted | Refused:
        """See :meth:`.Ledger.reserve`."""
        return self.reserve_counted(hold_id, claims, distinct(claims), ttl, on_expiry, owner)

    def reserve_counted(
        self,
        hold_id: str,
        claims: Sequence[Claim],
        counted: Sequence[Claim],
        ttl: float,
        on_expiry: Amount | None,
        owner: str,
    ) -> Granted | Refused:
        """:meth:`reserve` for claims of which is known that they can be counted, each key once (:func:`.distinct`)."""
        now = self._clock()
        expires = now + ttl
        with self._lock:
            if now >= self._due:
                self._tidy(now)
            if hold_id in self._open or hold_id in self._ended or hold_id in self._expired:
                lease = self._open.get(hold_id) or self._ended.get(hold_id) or self._expired[hold_id]
                if lease.state == "adjusted" or payload(lease.asked) != payload(counted):
                    raise LedgerConflict(f"hold {hold_id!r} was made for something else")
                return _REPLAYED
            over: Sequence[Shortage] = ()
            if self._limits or counted is not claims or not self._take(claims):
                over, refused = self._check(claims)
                if refused:
                    return Refused(tuple(refused))
                self._hold(counted)
            self._open[hold_id] = _Lease(hold_id, counted, now, expires, on_expiry, owner)
            deadlines = self._deadlines
            heapq.heappush(deadlines, (expires, hold_id))
            if len(deadlines) > 64 + 2 * len(self._open):
                self._deadlines = [(each.expires, each.id) for each in self._open.values()]
                heapq.heapify(self._deadlines)
            if expires < self._due:
                self._due = expires
        return Granted(tuple(over)) if over else _GRANTED

    def extend(
        self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None
    ) -> Granted | Refused | Gone:
        """See :meth:`.Ledger.extend`."""
        counted = distinct(claims)
        asked = payload(counted)
        now = self._clock()
        with self._lock:
            self._tidy(now)
            lease = self._open.get(hold_id)
            if lease is None:
                known = self._ended.get(hold_id) or self._expired.get(hold_id)
                return Gone(known.state if known and known.state not in ("adjusted", "reserved") else None)  # type: ignore[arg-type]
            done = (lease.steps or {}).get(step) if asked else None
            if done is not None and done != asked:
                raise LedgerConflict(f"step {step!r} of hold {hold_id!r} was made for something else")
            over: list[Shortage] = []
            if asked and done is None:
                if strange := asked.keys() - {claim.key for claim in lease.claims}:
                    raise ValueError(f"hold {hold_id!r} does not claim {min(strange)!r} and cannot be extended there")
                over, refused = self._check(claims)
                if refused:
                    return Refused(tuple(refused))
                self._hold(counted, holds=0)
                lease.claims = [
                    claim
                    if (more := asked.get(claim.key)) is None
                    else claim._replace(
                        nano_usd=claim.nano_usd + more[0], tokens=claim.tokens + more[1], calls=claim.calls + more[2]
                    )
                    for claim in lease.claims
                ]
                lease.steps = {**(lease.steps or {}), step: asked}
            if ttl is not None:
                self._live_until(lease, now + ttl)
        return Granted(tuple(over), replayed=done is not None)

    def renew(self, hold_ids: Sequence[str], ttl: float) -> tuple[str, ...]:
        """See :meth:`.Ledger.renew`."""
        now = self._clock()
        gone = []
        with self._lock:
            self._tidy(now)
            for hold_id in hold_ids:
                lease = self._open.get(hold_id)
                if lease is None:
                    gone.append(hold_id)
                elif lease.expires < now + ttl:
                    self._live_until(lease, now + ttl)
        return tuple(gone)

    def settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.settle`."""
        nano_usd, tokens, calls = actual
        if apart or not (0 <= (nano_usd or 0) <= LARGEST and 0 <= tokens <= LARGEST and 0 <= calls <= LARGEST):
            checked(actual, apart)
        now = self._clock()
        with self._lock:
            lease = self._open.pop(hold_id, None)
            if lease is not None:
                if apart:
                    lease.apart = apart
                self._end(lease, "settled", actual, now)
                return "done"
            lease = self._ended.get(hold_id)
            if lease is not None and lease.state != "released":
                if lease.actual != actual or lease.apart != (apart or {}) or lease.state == "adjusted":
                    raise LedgerConflict(f"hold {hold_id!r} was settled with {lease.actual!r}, not {actual!r}")
                return "replayed"
            lease = lease or self._expired.pop(hold_id, None) or _Lease(hold_id, distinct(claims), now, now)
            lease.apart = apart or {}
            self._book(lease, "settled", actual, now)
            return "late"

    def release(self, hold_id: str) -> Outcome:
        """See :meth:`.Ledger.release`."""
        now = self._clock()
        with self._lock:
            lease = self._open.pop(hold_id, None)
            if lease is not None:
                self._end(lease, "released", _NOTHING, now)
                return "done"
            lease = self._expired.pop(hold_id, None)
            if lease is not None:
                self._book(lease, "released", _NOTHING, now)
                return "late"
            lease = self._ended.get(hold_id)
            return "replayed" if lease is not None and lease.state == "released" else "ignored"

    def charge(
        self, entry_id: str, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None = None
    ) -> Outcome:
        """See :meth:`.Ledger.charge`."""
        checked(actual, apart)
        return self._record(entry_id, "settled", actual, claims, apart or {})

    def adjust(self, entry_id: str, delta: Amount, claims: Sequence[Claim], reason: str = "") -> Outcome:
        """See :meth:`.Ledger.adjust`. This ledger keeps no history, and so no reasons."""
        checked_delta(delta)
        return self._record(entry_id, "adjusted", delta, claims, {})

    def expire(self, at_most: int | None = None) -> tuple[str, ...]:
        """See :meth:`.Ledger.expire`."""
        with self._lock:
            return tuple(self._expire(self._clock(), at_most))

    def balance(self, key: str) -> Balance:
        """See :meth:`.Ledger.balance`."""
        return self.read((key,))[0]

    def read(self, keys: Sequence[str]) -> tuple[Balance, ...]:
        """See :meth:`.Ledger.read`."""
        with self._lock:
            self._tidy(self._clock())
            return tuple([self._counters.get(key, _UNUSED).balance(key) for key in keys])

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        """See :meth:`.Ledger.balances`."""
        with self._lock:
            self._tidy(self._clock())
            found = [counter.balance(key) for key, counter in self._counters.items() if key.startswith(prefix)]
        return tuple(sorted(found))

    def holds(self, key: str | None = None) -> tuple[OpenHold, ...]:
        """See :meth:`.Ledger.holds`."""
        with self._lock:
            self._tidy(self._clock())
            found = [
                OpenHold(each.id, tuple(each.claims), each.created, each.expires, each.owner)
                for each in self._open.values()
            ]
        return tuple(hold for hold in found if key is None or any(claim.key == key for claim in hold.claims))

    def forget(self, keys: Sequence[str]) -> None:
        """See :meth:`.Ledger.forget`."""
        with self._lock:
            for key in keys:
                if (counter := self._counters.get(key)) is not None:
                    counter.doomed = True
                    if not counter.holds:
                        del self._counters[key]

    def first(self, mark: str, ends: float | None = None) -> bool:
        """See :meth:`.Ledger.first`."""
        now = self._clock()
        with self._lock:
            if mark in self._marks:
                return False
            if len(self._marks) >= self._marks_full:
                self._marks = {each: end for each, end in self._marks.items() if end is None or end > now}
                for each in list(self._marks)[: max(0, len(self._marks) - self._max_keys * 9 // 10)]:
                    del self._marks[each]
                # Many more before it is gone through again, so that not every alert pays for all.
                self._marks_full = min(max(self._max_ended, 2 * len(self._marks)), self._max_keys)
            self._marks[mark] = ends
            return True

    def set_limits(self, policy: str, limits: Limits | None) -> None:
        """See :meth:`.Ledger.set_limits`."""
        with self._lock:
            if limits is None:
                self._limits.pop(policy, None)
            else:
                self._limits[policy] = limits

    def limits(self) -> Mapping[str, Limits]:
        """See :meth:`.Ledger.limits`."""
        with self._lock:
            return dict(self._limits)

    def declare(self, name: str, document: str) -> None:
        """See :meth:`.Ledger.declare`."""
        with self._lock:
            self._declared[name] = document

    def declared(self) -> Mapping[str, str]:
        """See :meth:`.Ledger.declared`."""
        with self._lock:
            return dict(self._declared)

    # -- under the lock ------------------------------------------------------------------------------------

    def _live_until(self, lease: _Lease, expires: float) -> None:
        lease.expires = expires
        heapq.heappush(self._deadlines, (expires, lease.id))
        self._due = min(self._due, expires)

    def _take(self, claims: Sequence[Claim]) -> bool:
        """Reserve claims of the usual kind, each of another key, that have room. Whether that was so; otherwise nothing
        has changed."""
        counters = self._counters
        found = []
        for key, nano_usd, tokens, calls, limit_nano_usd, limit_tokens, limit_calls, _, _, older, _, share, _ in claims:
            counter = counters.get(key)
            if (
                counter is None
                or older
                or share != 1000
                or (
                    limit_nano_usd is not None
                    and counter.spent_nano_usd + counter.reserved_nano_usd + nano_usd > limit_nano_usd
                )
                or (limit_tokens is not None and counter.spent_tokens + counter.reserved_tokens + tokens > limit_tokens)
                or (limit_calls is not None and counter.spent_calls + counter.reserved_calls + calls > limit_calls)
            ):
                return False
            found.append(counter)
        for claim, counter in zip(claims, found, strict=True):
            counters.move_to_end(claim[0])
            counter.reserved_nano_usd += claim[1]
            counter.reserved_tokens += claim[2]
            counter.reserved_calls += claim[3]
            counter.holds += 1
        return True

    def _check(self, claims: Sequence[Claim]) -> tuple[list[Shortage], list[Shortage]]:
        over: list[Shortage] = []
        refused: list[Shortage] = []
        counters = self._counters
        limits = self._limits
        for claim in claims:
            if claim[11] != 1000 or limits:
                claim = claim.under(limits.get(claim.policy))
            key, nano_usd, tokens, calls, limit_nano_usd, limit_tokens, limit_calls, hard, _, older, _, _, _ = claim
            counter = counters.get(key, _UNUSED)
            if older:
                counter = self._sum(key, older)
            if (
                (
                    limit_nano_usd is not None
                    and nano_usd
                    and counter.spent_nano_usd + counter.reserved_nano_usd + nano_usd > limit_nano_usd
                )
                or (
                    limit_tokens is not None
                    and tokens
                    and counter.spent_tokens + counter.reserved_tokens + tokens > limit_tokens
                )
                or (
                    limit_calls is not None
                    and calls
                    and counter.spent_calls + counter.reserved_calls + calls > limit_calls
                )
            ):
                (refused if hard else over).append(Shortage(claim, counter.balance(key)))
        return over, refused

    def _sum(self, key: str, older: Sequence[str]) -> _Counter:
        """What a key and older ones stand at together."""
        whole = _Counter()
        for each in (key, *older):
            if (counter := self._counters.get(each)) is not None:
                whole.spent_nano_usd += counter.spent_nano_usd
                whole.spent_tokens += counter.spent_tokens
                whole.spent_calls += counter.spent_calls
                whole.reserved_nano_usd += counter.reserved_nano_usd
                whole.reserved_tokens += counter.reserved_tokens
                whole.reserved_calls += counter.reserved_calls
        return whole

    def _hold(self, claims: Sequence[Claim], holds: int = 1) -> None:
        counters = self._counters
        for key, nano_usd, tokens, calls, _, _, _, _, ends, _, _, _, _ in claims:
            if key in counters:
                counter = counters[key]
                counters.move_to_end(key)
            else:
                counter = self._counter(key, ends)
            counter.reserved_nano_usd += nano_usd
            counter.reserved_tokens += tokens
            counter.reserved_calls += calls
            counter.holds += holds

    def _end(self, lease: _Lease, state: _State, actual: Amount | None, now: float) -> None:
        """End an open hold and add what it came to (``None``: what it reserved) to what is spent."""
        counters = self._counters
        apart = lease.apart
        booked: list[tuple[int, int, int]] = []
        corrected = state != "settled"  # what is settled stays so
        for claim in lease.claims:
            key, nano_usd, tokens, calls, _, _, _, _, _, _, _, _, _ = claim
            counter = counters[key]  # never dropped while a hold is open
            counter.reserved_nano_usd -= nano_usd
            counter.reserved_tokens -= tokens
            counter.reserved_calls -= calls
            if actual is not None:
                spent = apart.get(key, actual) if apart else actual
                money, tokens, calls = spent
                if money is not None:
                    nano_usd = money
            counter.spent_nano_usd += nano_usd
            counter.spent_tokens += tokens
            counter.spent_calls += calls
            if corrected:
                booked.append((nano_usd, tokens, calls))
            counter.holds -= 1
            if counter.doomed and not counter.holds:
                del counters[key]
        self._remember_end(lease, state, actual, booked, now)

    def _book(self, lease: _Lease, state: _State, actual: Amount, now: float) -> None:
        """Make what a hold that is not open has added to what is spent equal to ``actual``."""
        before = lease.booked or ((0, 0, 0),) * len(lease.claims)
        booked = []
        for claim, was in zip(lease.claims, before, strict=True):
            amount = _amount(claim, actual, lease.apart)
            if lease.booked and claim.key not in self._counters:
                # The key was dropped since, and with it what this hold had added: nothing to take back from.
                was = (0, 0, 0)
            counter = self._counter(claim.key, claim.ends)
            counter.spent_nano_usd += amount[0] - was[0]
            counter.spent_tokens += amount[1] - was[1]
            counter.spent_calls += amount[2] - was[2]
            booked.append(amount)
        self._remember_end(lease, state, actual, booked, now)

    def _record(
        self, entry_id: str, state: _State, actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount]
    ) -> Outcome:
        counted = distinct(claims)
        now = self._clock()
        with self._lock:
            self._tidy(now)
            known = self._open.get(entry_id) or self._ended.get(entry_id) or self._expired.get(entry_id)
            if known is None:
                lease = _Lease(entry_id, counted, now, now)
                lease.apart = apart
                self._book(lease, state, actual, now)
                return "done"
            if (
                known.state != state
                or known.actual != actual
                or known.apart != apart
                or payload(known.asked) != payload(counted)
            ):
                raise LedgerConflict(f"id {entry_id!r} was used before, for something else")
            return "replayed"

    def _remember_end(
        self, lease: _Lease, state: _State, actual: Amount | None, booked: Sequence[tuple[int, int, int]], now: float
    ) -> None:
        lease.state = state
        lease.actual = actual
        lease.booked = booked
        lease.ended = now
        if state == "expired":
            ended, seconds = self._expired, self._remember_expired
        else:
            ended, seconds = self._ended, self._remember
        ended[lease.id] = lease
        ended.move_to_end(lease.id)
        if len(ended) > self._max_ended:
            ended.popitem(last=False)
        if now + seconds < self._due:
            self._due = now + seconds

    def _counter(self, key: str, ends: float | None) -> _Counter:
        counter = self._counters.get(key)
        if counter is not None:
            self._counters.move_to_end(key)
            return counter
        counter = self._counters[key] = _Counter()
        if ends is not None:
            gone = ends + self._keep_windows
            heapq.heappush(self._window_ends, (gone, key))
            self._due = min(self._due, gone)
            if len(self._window_ends) > 64 + 2 * len(self._counters):  # of keys that gave way, and of some twice
                kept = {each: at for at, each in self._window_ends if each in self._counters}
                self._window_ends = [(at, each) for each, at in kept.items()]
                heapq.heapify(self._window_ends)
        if len(self._counters) > self._max_keys:
            self._make_room(key)
        return counter

    def _make_room(self, wanted: str) -> None:
        """Drop the key unused for longest; those with open holds are passed over."""
        for key in _first(self._counters, _SWEEP):
            if key != wanted and not self._counters[key].holds:
                del self._counters[key]
                self.dropped += 1
                return
            self._counters.move_to_end(key)

    def _tidy(self, now: float) -> None:
        """End a few holds that have run out, and forget a few windows and holds of long ago."""
        if now < self._due:
            return
        if self._deadlines and self._deadlines[0][0] <= now:
            self._expire(now, _SWEEP)
        ends = self._window_ends
        for _ in range(_SWEEP):
            if not ends or ends[0][0] > now:
                break
            _, key = heapq.heappop(ends)
            if (counter := self._counters.get(key)) is not None:
                if counter.holds:
                    heapq.heappush(ends, (now + self._keep_windows, key))
                    break
                del self._counters[key]
        due = math.inf
        for ended, seconds in ((self._ended, self._remember), (self._expired, self._remember_expired)):
            for _ in range(2):
                if not ended or next(iter(ended.values())).ended + seconds > now:
                    break
                ended.popitem(last=False)
            if ended:
                due = min(due, next(iter(ended.values())).ended + seconds)
        for heap in (self._deadlines, ends):
            if heap:
                due = min(due, heap[0][0])
        self._due = due

    def _expire(self, now: float, at_most: int | None) -> list[str]:
        expired: list[str] = []
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now and (at_most is None or len(expired) < at_most):
            deadline, hold_id = heapq.heappop(deadlines)
            lease = self._open.get(hold_id)
            # Settled since, or extended: then a later deadline of it is in the heap.
            if lease is not None and lease.expires == deadline:
                del self._open[hold_id]
                self._end(lease, "expired", lease.on_expiry, now)
                expired.append(hold_id)
        return expired


_NOTHING: Final = Amount(0, 0, 0)


def _first(counters: OrderedDict[str, _Counter], count: int) -> list[str]:
    return [key for _, key in zip(range(count), counters, strict=False)]


def _amount(claim: Claim, actual: Amount, apart: Mapping[str, Amount]) -> tuple[int, int, int]:
    """What a hold that ended with ``actual`` adds to one key: money that is not known is what was reserved."""
    if apart:
        actual = apart.get(claim[0], actual)
    return (claim[1] if actual.nano_usd is None else actual.nano_usd, actual.tokens, actual.calls)
