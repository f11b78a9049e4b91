"""What becomes of each operation when the store of a ledger cannot be reached.

Every operation is written as steps, once for sync and async: a generator yields what is to be called (an operation of
the ledger by name, or a function that may wait) and is sent the answer, or has :class:`.LedgerUnavailable` thrown in.

While the store is away, calls are admitted here only where every budget that could refuse them has a fallback: an
allowance that this process may spend on its own. What is admitted so stays counted against the allowance for as long
as the window lasts, also when the store is back and has booked it. So the allowance is spent once a window, however
often the store goes away, and what all processes spend beyond a limit is at most the allowance times their number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tokenbudget_otel.budgets.amounts import Amount
from tokenbudget_otel.budgets.ledger import Claim, Gone, Granted, LedgerUnavailable, Outcome, Refused
from tokenbudget_otel.budgets.ledgers.memory import MemoryLedger
from tokenbudget_otel.budgets.remote.breaker import Breaker
from tokenbudget_otel.budgets.remote.outbox import OPERATIONS, Outbox, estimate

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

Steps = Generator[tuple[str | Callable[..., Any], tuple[Any, ...]], Any, Any]

_LAST_COUNTS: Final = ("declare", "set_limits")
"""Operations that replace what was told before, and so are told in their order."""

_SAY_NOTHING: Final = (*_LAST_COUNTS, "forget")
"""Operations whose answer is ``None``."""

_NO_LIMIT: Final = (None, None, None)


class _Admitted(NamedTuple):
    """A hold that was admitted here, with what was added to it."""

    claims: tuple[Claim, ...]
    on_expiry: Amount | None


class Failover:
    """The steps of each operation.

    Args:
        breaker: whether the store is asked.
        outbox: what it is to be told later.
        clock, longest: of the private ledger: seconds since 1970, and how long a hold lives there.
        behind: how many operations of this process have not reached the store.
        catch_up: a function that waits for them a while.
        remind: a function that sees to it that the outbox is delivered.
    """

    def __init__(
        self,
        breaker: Breaker,
        outbox: Outbox,
        clock: Callable[[], float],
        longest: float,
        behind: Callable[[], int],
        catch_up: Callable[[], object],
        remind: Callable[[], object],
    ) -> None:
        self._breaker = breaker
        self._outbox = outbox
        self._clock = clock
        self._longest = longest
        self._behind = behind
        self._catch_up = catch_up
        self._remind = remind
        self._steps: dict[str, Callable[..., Steps]] = {
            "reserve": self._reserve,
            "extend": self._extend,
            "settle": self._settle,
            "release": self._release,
        }
        self._after_fork()

    def _after_fork(self) -> None:
        self._here = MemoryLedger(clock=self._clock)
        self.admitted: dict[str, _Admitted] = {}
        """Open holds that the store does not know, by id."""
        # Holds that it does know, of another size perhaps: the claims of what was added here, by the id that has here.
        self._added: dict[str, dict[str, tuple[Claim, ...]]] = {}

    def steps(self, operation: str, arguments: tuple[Any, ...]) -> Steps:
        """The steps of an operation. What they return is its answer."""
        if (steps := self._steps.get(operation)) is not None:
            return steps(*arguments)
        return (self._deliver if operation in OPERATIONS else self._plain)(operation, arguments)

    def succeeded(self) -> None:
        """The store answered."""
        if self._breaker.succeeded():
            logger.warning("the ledger can be reached again; to be booked now: %d", len(self._outbox))

    def failed(self, error: Exception) -> None:
        """The store did not answer."""
        if self._breaker.failed(error):
            logger.warning(
                "the ledger cannot be reached (%s). Until it can, budgets do as their on_store_error says, and what is "
                "spent is booked later",
                error,
            )

    # -- questions -------------------------------------------------------------------------------------------

    def _plain(self, operation: str, arguments: tuple[Any, ...]) -> Steps:
        self._ask_only_if_allowed()
        try:
            answer = yield operation, arguments
        except LedgerUnavailable as error:
            self.failed(error)
            raise
        self.succeeded()
        return answer

    def _reserve(
        self, hold_id: str, claims: Sequence[Claim], ttl: float, on_expiry: Amount | None = None, owner: str = ""
    ) -> Steps:
        asked = self._breaker.closed or self._breaker.allows()
        if asked:
            try:
                return (yield from self._unless_behind("reserve", (hold_id, claims, ttl, on_expiry, owner)))
            except LedgerUnavailable as error:
                self.failed(error)
        return (yield self._reserve_here, (hold_id, claims, on_expiry, asked))

    def _extend(self, hold_id: str, step: str, claims: Sequence[Claim] = (), ttl: float | None = None) -> Steps:
        if hold_id not in self.admitted and (self._breaker.closed or self._breaker.allows()):
            try:
                return (yield from self._unless_behind("extend", (hold_id, step, claims, ttl)))
            except LedgerUnavailable as error:
                self._added.setdefault(hold_id, {})  # perhaps added there
                self.failed(error)
        return (yield self._extend_here, (hold_id, step, claims))

    def _unless_behind(self, operation: str, arguments: tuple[Any, ...]) -> Steps:
        """Ask, and ask again where a refusal may be due to what the store has not been told yet."""
        behind = self._behind()  # before asking: it may have arrived by the time the refusal has
        answer = yield operation, arguments
        if not self._breaker.closed:
            self.succeeded()
        if behind and isinstance(answer, Refused):
            yield self._catch_up, ()
            answer = yield operation, arguments
        return answer

    # -- what has happened, and has to be booked -------------------------------------------------------------

    def _settle(
        self, hold_id: str, actual: Amount, claims: Sequence[Claim] = (), apart: Mapping[str, Amount] | None = None
    ) -> Steps:
        mine = self.admitted.get(hold_id)
        parts = self._added.pop(hold_id, None)
        here: Outcome | None = None
        if mine is not None:
            claims = mine.claims
            here = self._here.settle(hold_id, actual, claims, apart)
        for part, added in (parts or {}).items():
            # How much of the true amount was this part nobody can say: all of it counts as spent here.
            self._here.settle(part, *estimate(added, None))
        if mine is not None or parts is not None:
            apart = _explicit(actual, claims, apart)
        answer = yield from self._deliver("settle", (hold_id, actual, claims, apart))
        self.admitted.pop(hold_id, None)
        return here or answer

    def _release(self, hold_id: str) -> Steps:
        here = self._here.release(hold_id) if hold_id in self.admitted else None
        for part in self._added.pop(hold_id, ()):
            self._here.release(part)
        # Told to the store in any case: a reservation that got no answer may have been made.
        answer = yield from self._deliver("release", (hold_id,))
        self.admitted.pop(hold_id, None)
        return here or answer

    def _deliver(self, operation: str, arguments: tuple[Any, ...]) -> Steps:
        """Tell the store, now or later."""
        in_order = operation not in _LAST_COUNTS or not len(self._outbox)
        if in_order and (self._breaker.closed or self._breaker.allows()):
            try:
                answer = yield operation, arguments
            except LedgerUnavailable as error:
                self.failed(error)
            else:
                self.succeeded()
                if operation in ("settle", "release"):
                    self._outbox.clear(arguments[0])
                return answer
        yield self.later, (operation, arguments)
        return None if operation in _SAY_NOTHING else "done"

    def later(self, operation: str, arguments: tuple[Any, ...]) -> None:
        """Keep an operation until the store answers."""
        if not self._outbox.put(operation, arguments):
            logger.error("%s%r is lost: too much is waiting for the ledger", operation, arguments)
        self._remind()

    # -- while the store is away: these may write to a file --------------------------------------------------

    def _reserve_here(
        self, hold_id: str, claims: Sequence[Claim], on_expiry: Amount | None, asked: bool
    ) -> Granted | Refused:
        answer: Granted | Refused | None = None
        if _has_fallback(claims):
            answer = self._here.reserve(hold_id, tuple(map(_locally, claims)), self._longest, on_expiry)
        if isinstance(answer, Granted):
            self.admitted[hold_id] = _Admitted(tuple(claims), on_expiry)
            self._outbox.note(hold_id, claims, on_expiry)
            return answer
        if asked:
            # It got no answer, but may have been made: then it must not be charged when it runs out.
            self.later("release", (hold_id,))
        if answer is None:
            raise self._unreachable()
        return answer

    def _extend_here(self, hold_id: str, step: str, claims: Sequence[Claim]) -> Granted | Refused | Gone:
        if not claims:
            return Granted()  # a sign of life, which the heartbeat gives as well
        if not _has_fallback(claims):
            raise self._unreachable()
        local = tuple(map(_locally, claims))
        answer: Granted | Refused | Gone = self._here.extend(hold_id, step, local, self._longest)
        if answer == Gone(None):  # the store has it: what is added is a hold of its own here
            part = f"{hold_id}/{step}"
            answer = self._here.reserve(part, local, self._longest)
            if isinstance(answer, Granted):
                self._added.setdefault(hold_id, {})[part] = tuple(claims)
        elif isinstance(answer, Granted) and not answer.replayed and (mine := self.admitted.get(hold_id)) is not None:
            mine = self.admitted[hold_id] = mine._replace(claims=_together(mine.claims, claims))
            self._outbox.note(hold_id, mine.claims, mine.on_expiry)
        return answer

    def _ask_only_if_allowed(self) -> None:
        if not self._breaker.closed and not self._breaker.allows():
            raise self._unreachable()

    def _unreachable(self) -> LedgerUnavailable:
        return LedgerUnavailable(f"{self._breaker.reason} (asked again in {self._breaker.wait():.1f} s)")


def _has_fallback(claims: Sequence[Claim]) -> bool:
    return all(claim.fallback is not None or not claim.hard for claim in claims)


def _locally(claim: Claim) -> Claim:
    """The claim for the private ledger. (Older keys stay: what was spent here in them counts.)"""
    nano_usd, tokens, calls = claim.fallback or _NO_LIMIT
    return claim._replace(limit_nano_usd=nano_usd, limit_tokens=tokens, limit_calls=calls, policy="")


def _explicit(
    actual: Amount, claims: Sequence[Claim], apart: Mapping[str, Amount] | None
) -> Mapping[str, Amount] | None:
    """Amounts in the place of "as much as is reserved": the store does not know how much that is.

    >>> _explicit(Amount(None, 7), [Claim("k", 5)], None)
    {'k': Amount(nano_usd=5, tokens=7, calls=1)}
    """
    known = dict(apart or {})
    for claim in claims:
        amount = known.get(claim.key, actual)
        if amount.nano_usd is None:
            known[claim.key] = Amount(claim.nano_usd, amount.tokens, amount.calls)
    return known or None


def _together(claims: Sequence[Claim], more: Sequence[Claim]) -> tuple[Claim, ...]:
    """What is reserved after an extension: each key once.

    >>> _together([Claim("a", 5)], [Claim("a", 1), Claim("b", 2)])[0].nano_usd
    6
    """
    found = {claim.key: claim for claim in claims}
    for claim in {claim.key: claim for claim in more}.values():
        before = found.get(claim.key, claim._replace(nano_usd=0, tokens=0, calls=0))
        found[claim.key] = before._replace(
            nano_usd=before.nano_usd + claim.nano_usd,
            tokens=before.tokens + claim.tokens,
            calls=before.calls + claim.calls,
        )
    return tuple(found.values())
