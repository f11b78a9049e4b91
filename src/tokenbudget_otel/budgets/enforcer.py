"""The enforcer: from a call to the budgets that apply, to one request to the ledger, to a verdict."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

from tokenbudget_otel.budgets.amounts import Amount, Call, Estimate
from tokenbudget_otel.budgets.declared import Budget, checked_choice
from tokenbudget_otel.budgets.errors import refusal
from tokenbudget_otel.budgets.ledger import Balance, Claim, Dimension, Granted, Ledger, Refused, Shortage
from tokenbudget_otel.budgets.memory import MemoryLedger
from tokenbudget_otel.budgets.rules import Rule, helps_to_wait, scope_of, standing
from tokenbudget_otel.budgets.run import active_budgets, budget
from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.usage import TokenUsage

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.shortfall import Shortfall
    from tokenbudget_otel.budgets.status import BudgetStatus

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

OnExpiry = Literal["charge", "charge_input", "release"]
ON_EXPIRY: Final = ("charge", "charge_input", "release")

_MAX_TOLD: Final = 10_000
"""Most warnings remembered as given."""

Source = Rule | budget


class Hold:
    """A call that was admitted, and what is reserved for it. To be settled or released, once.

    ``warnings`` names the ``action="warn"`` budgets that had no room for the call.
    """

    __slots__ = ("_sources", "call", "claims", "id", "unpriced", "warnings")

    def __init__(
        self, hold_id: str, call: Call, claims: tuple[Claim, ...], sources: tuple[Source, ...], unpriced: bool
    ) -> None:
        self.id = hold_id
        self.call = call
        self.claims = claims
        self.unpriced = unpriced
        self.warnings: tuple[Shortfall, ...] = ()
        self._sources = sources

    def runs(self) -> Iterable[tuple[budget, Claim]]:
        """The ``budget()`` scopes that count this call, with what each reserves."""
        for source, claim in zip(self._sources, self.claims, strict=True):
            if isinstance(source, budget):
                yield source, claim

    def __repr__(self) -> str:
        return f"<Hold {self.id} on {', '.join(claim.key for claim in self.claims)}>"


class Enforcer:
    """The declared budgets, and the ledger that they are counted in. Safe for threads and tasks.

    Args:
        budgets: what to enforce, besides the ``budget()`` scopes around each call.
        ledger: where to count; the memory of this process by default.
        clock: seconds since 1970, which says what window it is. The ledger has a clock of its own.
        ttl: seconds after which a hold that nobody ended runs out. Longer than any call takes.
        on_expiry: what a hold that runs out is charged: ``"charge"``, what it reserved (so that a lost call
            cannot make room for spending that may have happened); ``"charge_input"``, the input it sent;
            ``"release"``, nothing.

    Raises:
        ValueError: for two different budgets of one name.

    >>> enforcer = Enforcer([Budget(limit_usd=1, name="all")])
    >>> call = Call("openai", "gpt-5", {"tenant": "acme"})
    >>> estimate = Estimate(expected=Amount(600_000_000, 900), worst_case=Amount(900_000_000, 4096))
    >>> hold = enforcer.admit(call, estimate)
    >>> try:
    ...     enforcer.admit(call, estimate)
    ... except Exception as error:
    ...     type(error).__name__, error.remaining_usd
    ('BudgetExceeded', Decimal('0.4'))
    >>> enforcer.settle(hold, Amount(200_000_000, 800))
    >>> enforcer.status()[0].remaining_usd
    Decimal('0.8')
    """

    def __init__(
        self,
        budgets: Iterable[Budget] = (),
        *,
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.time,
        ttl: float = 1800.0,
        on_expiry: OnExpiry = "charge",
    ) -> None:
        checked_choice("on_expiry", on_expiry, ON_EXPIRY)
        if not ttl > 0:
            raise ValueError(f"ttl must be a number of seconds above 0, not {ttl!r}")
        self.ledger: Ledger = MemoryLedger(clock=clock) if ledger is None else ledger
        self._clock = clock
        self._ttl = ttl
        self._on_expiry = on_expiry
        self._after_fork()
        renew_after_fork(self)
        self._rules: tuple[Rule, ...] = ()  # replaced, never changed: readers take no lock
        self._told: OrderedDict[str, None] = OrderedDict()
        self._runs: weakref.WeakValueDictionary[str, budget] = weakref.WeakValueDictionary()
        self._ended_runs: deque[str] = deque()
        self.add(*budgets)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    # -- the set of budgets ----------------------------------------------------------------------------------

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The declared budgets."""
        return tuple(rule.budget for rule in self._rules)

    def add(self, *budgets: Budget) -> None:
        """Declare more budgets, from the next call on. One that is declared already is left as it is.

        Raises:
            ValueError: if another budget has the name; none is added then.
        """
        with self._lock:
            rules = {rule.name: rule for rule in self._rules}
            for each in budgets:
                if not isinstance(each, Budget):
                    raise ValueError(f"a Budget is needed, not {each!r}")
                if (known := rules.get(each.name)) is None:
                    rules[each.name] = Rule(each)
                elif known.budget != each:
                    raise ValueError(
                        f"there are two different budgets named {each.name!r}: give one of them another name=, "
                        "or remove() the one that it replaces"
                    )
            self._rules = tuple(rules.values())

    def remove(self, *budgets: Budget | str) -> None:
        """Withdraw budgets, given themselves or by name. What they have counted stays in the ledger, so that one
        added again under the name, with another limit perhaps, goes on from there.

        Raises:
            ValueError: if there is none of the name.
        """
        with self._lock:
            rules = {rule.name: rule for rule in self._rules}
            for each in budgets:
                name = each if isinstance(each, str) else each.name
                if rules.pop(name, None) is None:
                    known = ", ".join(map(repr, rules)) or "none"
                    raise ValueError(f"there is no budget named {name!r}; declared: {known}")
            self._rules = tuple(rules.values())

    def clear(self) -> None:
        """Withdraw every declared budget."""
        with self._lock:
            self._rules = ()

    # -- one call --------------------------------------------------------------------------------------------

    def applies(self, call: Call) -> bool:
        """Whether any budget counts this call, and an estimate is worth making."""
        return any(rule.applies(call) for rule in self._rules) or bool(active_budgets(call.context))

    def admit(self, call: Call, estimate: Estimate, now: float | None = None) -> Hold | None:
        """Reserve what a call may come to in every budget that applies, or in none.

        Returns:
            What to settle or release when the call has ended; ``None`` if no budget applies.

        Raises:
            BudgetExceeded: if a budget of action ``block`` has no room. Where several have none, the one that
                is so for longest. :class:`TokenLimitReached` if it is out of tokens, :class:`UnpricedModel` if
                it counts dollars and the price of the call is not known.
        """
        rules = self._rules
        runs = active_budgets(call.context)
        if not rules and not runs:
            return None
        now = self._clock() if now is None else now
        sources, claims = self._plan(call, estimate, now, rules, runs)
        if not claims:
            return None
        unpriced = estimate.expected.nano_usd is None or estimate.worst_case.nano_usd is None
        blind = self._refuse_unpriced(call, estimate, sources, claims, now) if unpriced else []
        if self._ended_runs:
            self._forget_runs()
        hold = Hold(_new_id(), call, claims, sources, unpriced)
        answer = self.ledger.reserve(hold.id, claims, self._ttl, self._charge_on_expiry(estimate))
        if isinstance(answer, Refused):
            raise refusal(self._worst(call, hold, answer.shortages, now))
        if runs:
            for run, claim in hold.runs():
                run.reserved(claim)
                if run.note_end_in(self._ended_runs):
                    self._runs[run.key] = run
        if blind or answer.over:
            self._warn(call, hold, blind, answer, now)
        return hold

    def settle(self, hold: Hold | None, actual: Amount, usage: TokenUsage | None = None) -> None:
        """Record what a call really came to, in every budget that admitted it, also past the limit.

        Args:
            hold: what :meth:`admit` gave.
            actual: the true amount; where ``nano_usd`` is ``None`` (the price turned out to be unknown), what
                was reserved counts as spent.
            usage: added to the ``usage`` of the ``budget()`` scopes around the call.
        """
        if hold is None:
            return
        if actual.nano_usd is None and hold.unpriced:
            # Never priced: nothing was reserved that could stand in for it.
            actual = Amount(0, actual.tokens, actual.calls)
        if self.ledger.settle(hold.id, actual, hold.claims) != "replayed":
            for run, claim in hold.runs():
                run.settled(claim, actual)
                if usage is not None:
                    run.add_usage(usage)

    def release(self, hold: Hold | None) -> None:
        """Give back what a call reserved that surely was not billed: it was never sent, or rejected as invalid."""
        if hold is not None and self.ledger.release(hold.id) in ("done", "late"):
            for run, claim in hold.runs():
                run.settled(claim, _NOTHING)

    def charge(
        self,
        call: Call,
        actual: Amount,
        id: str | None = None,  # noqa: A002 - what it is
        usage: TokenUsage | None = None,
    ) -> bool:
        """Record a call that nobody reserved, in every budget that applies. Never refused.

        Args:
            call, actual: the call and what it came to. Of an unknown price, tokens and the call are counted.
            id: of what is charged, so that charging it again changes nothing; by default it is new.
            usage: added to the ``usage`` of the ``budget()`` scopes around the call.

        Returns:
            Whether it was not there yet. Also true where no budget applies: then nobody remembers.
        """
        rules = self._rules
        runs = active_budgets(call.context)
        if not rules and not runs:
            return True
        known = Amount(actual.nano_usd or 0, actual.tokens, actual.calls)
        sources, claims = self._plan(call, Estimate(known, known), self._clock(), rules, runs)
        if not claims:
            return True
        new = self.ledger.charge(id or _new_id(), known, claims) == "done"
        if new:
            for source in sources:
                if isinstance(source, budget):
                    if source.note_end_in(self._ended_runs):
                        self._runs[source.key] = source
                    source.settled(None, known)
                    if usage is not None:
                        source.add_usage(usage)
        return new

    # -- to look inside --------------------------------------------------------------------------------------

    def status(self, now: float | None = None) -> list[BudgetStatus]:
        """How every budget stands in the window in force: a row for each scope that was used, and one for each
        budget that counts all calls together; then the ``budget()`` scopes that are active."""
        now = self._clock() if now is None else now
        self._forget_runs()
        rows = []
        for rule in self._rules:
            prefix = rule.prefix(now)
            # The next character divides this window's id from one that only begins like it.
            used = [each for each in self.ledger.balances(prefix) if each.key[len(prefix) :][:1] in ("", "|")]
            if not used and not rule.per:
                used = [Balance(prefix)]
            window = rule.window(now)
            rows += [_row(rule, each, window.id, resets_at=rule.resets_at(window.end)) for each in used]
        rows += [_row(run, self.ledger.balance(run.key), "run") for run in list(self._runs.values()) if run.active]
        return rows

    # -- inside ----------------------------------------------------------------------------------------------

    def _plan(
        self, call: Call, estimate: Estimate, now: float, rules: tuple[Rule, ...], runs: tuple[budget, ...]
    ) -> tuple[tuple[Source, ...], tuple[Claim, ...]]:
        applying = [rule for rule in rules if rule.applies(call)]
        claims = [run.claim(estimate) for run in reversed(runs)]
        claims += [rule.claim(call, estimate, now) for rule in applying]
        return (*reversed(runs), *applying), tuple(claims)

    def _refuse_unpriced(
        self, call: Call, estimate: Estimate, sources: tuple[Source, ...], claims: tuple[Claim, ...], now: float
    ) -> list[Shortfall]:
        """Refuse a call whose price a budget would have to know, or say which budgets only warn of it."""
        blind = []
        for source, claim in zip(sources, claims, strict=True):
            amount = estimate.expected if source.mode == "expected" else estimate.worst_case
            if amount.nano_usd is None and source.denies_unpriced:
                balance = self.ledger.balance(claim.key)
                shortfall = self._shortfall(call, source, Shortage(claim, balance), "usd", now, unpriced=True)
                if source.action == "block":
                    raise refusal(shortfall)
                blind.append(shortfall)
        return blind

    def _charge_on_expiry(self, estimate: Estimate) -> Amount | None:
        if self._on_expiry == "charge":
            return None
        return _NOTHING if self._on_expiry == "release" else estimate.input

    def _worst(self, call: Call, hold: Hold, shortages: tuple[Shortage, ...], now: float) -> Shortfall:
        """The shortage that lasts longest: until it ends, no retry can succeed."""
        found = [
            self._shortfall(call, source, each, each.dimensions[0], now) for source, each in _pairs(hold, shortages)
        ]
        return max(found, key=lambda shortfall: math.inf if (wait := shortfall.retry_after) is None else wait)

    def _shortfall(
        self, call: Call, source: Source, shortage: Shortage, dimension: Dimension, now: float, unpriced: bool = False
    ) -> Shortfall:
        from tokenbudget_otel.budgets.shortfall import Shortfall

        claim, balance = shortage
        values: dict[str, Any] = dict(
            standing(source.limits, balance, Amount(None if unpriced else claim.nano_usd, claim.tokens, claim.calls))
        )
        if isinstance(source, Rule):
            values["scope"] = scope_of(claim.key)
            values["window"] = claim.key.split("|", 3)[2]
            values["resets_at"] = source.resets_at(claim.ends)
            if claim.ends is not None and helps_to_wait(claim, dimension) and not unpriced:
                values["retry_after"] = max(0.0, claim.ends - now)
        else:
            values["window"] = "run"
        return Shortfall(
            budget=source.name,
            dimension=dimension,
            action=source.action,
            provider=call.provider,
            model=call.model,
            tags=dict(call.tags),
            **values,
        )

    def _warn(self, call: Call, hold: Hold, blind: list[Shortfall], answer: Granted, now: float) -> None:
        """Report budgets that only warn: on the hold each time, by log and callback once per scope and window."""
        shortfalls = blind + [
            self._shortfall(call, source, each, each.dimensions[0], now) for source, each in _pairs(hold, answer.over)
        ]
        hold.warnings = tuple(shortfalls)
        callbacks = {source.name: source.budget.on_warn for source in hold._sources if isinstance(source, Rule)}
        for shortfall in shortfalls:
            scope = sorted(shortfall.scope.items())
            if not self._tell(f"{shortfall.budget}|{shortfall.window}|{scope}|{shortfall.unpriced}"):
                continue
            logger.warning("%s", shortfall)
            if (on_warn := callbacks.get(shortfall.budget)) is not None:
                try:
                    on_warn(shortfall)
                except Exception:
                    logger.exception("on_warn of budget %r failed; the call goes on", shortfall.budget)

    def _tell(self, what: str) -> bool:
        """Whether this was not told before."""
        with self._lock:
            if what in self._told:
                return False
            self._told[what] = None
            if len(self._told) > _MAX_TOLD:
                self._told.popitem(last=False)
            return True

    def _forget_runs(self) -> None:
        keys = []
        while self._ended_runs:
            try:
                keys.append(self._ended_runs.popleft())
            except IndexError:  # another thread took it
                break
        if keys:
            self.ledger.forget(keys)


_NOTHING: Final = Amount(0, 0, 0)


def _pairs(hold: Hold, shortages: tuple[Shortage, ...]) -> list[tuple[Source, Shortage]]:
    sources = {claim.key: source for source, claim in zip(hold._sources, hold.claims, strict=True)}
    return [(sources[each.claim.key], each) for each in shortages]


def _row(source: Source, balance: Balance, window: str, **more: Any) -> BudgetStatus:
    from tokenbudget_otel.budgets.status import BudgetStatus

    scope = scope_of(balance.key) if isinstance(source, Rule) else {}
    values: dict[str, Any] = dict(standing(source.limits, balance))
    return BudgetStatus(budget=source.name, action=source.action, window=window, scope=scope, **values, **more)


# Ids of holds: unique among processes, also of one that was forked, and cheap.
_numbers: Final = itertools.count(1)
_process = ""


def _name_process() -> None:
    global _process
    _process = os.urandom(8).hex()


_name_process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_name_process)


def _new_id() -> str:
    return f"{_process}-{next(_numbers)}"
