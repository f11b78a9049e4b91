"""The enforcer: from a call to the budgets that apply, to one request to the ledger, to a verdict."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal

from tokenbudget_otel.budgets.amounts import Amount, Call, Estimate
from tokenbudget_otel.budgets.declared import Budget, checked_choice
from tokenbudget_otel.budgets.errors import refusal
from tokenbudget_otel.budgets.hold import Hold, apart_of, new_id, owner, with_more
from tokenbudget_otel.budgets.ledger import (
    Balance,
    Claim,
    Gone,
    Granted,
    Ledger,
    LedgerUnavailable,
    Refused,
    Shortage,
)
from tokenbudget_otel.budgets.ledgers.memory import MemoryLedger
from tokenbudget_otel.budgets.overrides import check_limit, check_limits, limits_of, rules_for
from tokenbudget_otel.budgets.plans import Plan, Plans
from tokenbudget_otel.budgets.remedies import UNCHANGED, Remedies, Revision, Source
from tokenbudget_otel.budgets.rules import Rule, scope_of
from tokenbudget_otel.budgets.run import active_budgets, budget
from tokenbudget_otel.budgets.steps import Ask, Direct, Steps, Way, run, run_async
from tokenbudget_otel.budgets.verdicts import explained, final, paired, shortfall_of, unreachable, worst
from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.usage import TokenUsage

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.alerting.alerts import AlertDesk
    from tokenbudget_otel.budgets.shortfall import Shortfall
    from tokenbudget_otel.budgets.status import BudgetStatus

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

OnExpiry = Literal["charge", "charge_input", "release"]
ON_EXPIRY: Final = ("charge", "charge_input", "release")

_MAX_TOLD: Final = 10_000
"""Most warnings remembered as given."""

LEASE_S: Final = 60.0
"""Seconds that a hold in a shared ledger lives without a sign of life from its process."""


class Enforcer:
    """The declared budgets, and the ledger that they are counted in. Safe for threads and tasks.

    Args:
        budgets: what to enforce, besides the ``budget()`` scopes around each call.
        ledger: where to count; the memory of this process by default.
        clock: seconds since 1970, which says what window it is. The ledger has a clock of its own.
        ttl: seconds after which a hold that nobody ended runs out. Longer than any call takes. In a ledger that
            processes share, a hold runs out a minute after its process gave the last sign of life.
        on_expiry: what a hold that runs out is charged: ``"charge"``, what it reserved (so that a lost call
            cannot make room for spending that may have happened); ``"charge_input"``, the input it sent;
            ``"release"``, nothing.
        journal: a folder for what was spent while a shared ledger could not be reached, so that it is booked later
            also if this process does not live to do it.

    Raises:
        ValueError: for two different budgets of one name, and limits larger than the ledger can count.

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
        journal: str | os.PathLike[str] | None = None,
    ) -> None:
        checked_choice("on_expiry", on_expiry, ON_EXPIRY)
        if not ttl > 0:
            raise ValueError(f"ttl must be a number of seconds above 0, not {ttl!r}")
        self._clock = clock
        self._longest = ttl
        self._on_expiry = on_expiry
        self.charges_input = on_expiry == "charge_input"
        """Whether a hold that runs out is charged the input of its call."""
        self._journal = journal
        self._rules: tuple[Rule, ...] = ()  # replaced, never changed: readers take no lock
        self._plans: Plans
        self._after_fork()
        renew_after_fork(self)
        self._told: OrderedDict[str, None] = OrderedDict()
        self._runs: weakref.WeakValueDictionary[str, budget] = weakref.WeakValueDictionary()
        self._ended_runs: deque[str] = deque()
        self._alerts: AlertDesk | None = None
        self._watched = False
        self._counts_apart = False  # and once it is true it stays so: calls of a budget that is gone may be under way
        self.assumes = False
        """Whether a budget assumes prices that are not known."""
        self.refresh: Callable[[], object] | None = None
        """Called before each call is admitted: what has been declared elsewhere may have changed."""
        self._move_to(MemoryLedger(clock=clock) if ledger is None else ledger)
        self.add(*budgets)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._plans = Plans(self._rules)  # they name the process

    # -- the ledger ------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """Where it is counted."""
        return self._ledger

    @property
    def way(self) -> Way:
        """How the ledger is reached."""
        return self._way

    def use(self, ledger: Ledger, journal: str | os.PathLike[str] | None = None) -> None:
        """Count in another ledger from the next call on. What was counted so far stays where it is.

        Args:
            ledger: the ledger.
            journal: as for :class:`Enforcer`.

        Raises:
            ValueError: for limits larger than it can count. The ledger is not changed then.
        """
        for rule in self._rules:
            check_limits(rule, ledger)
        before = self._way
        self._journal = journal
        self._alerts = None  # it asks the ledger
        self._move_to(ledger)
        before.flush(2.0)
        before.close()
        self._declare(self._rules)

    def _move_to(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # One of another class, also of one made from it, may do something in its own way.
        self._at_once = ledger if type(ledger) is MemoryLedger else None
        if ledger.blocking or ledger.shared:
            from pathlib import Path

            from tokenbudget_otel.budgets.remote.courier import Courier

            self._ttl = min(self._longest, LEASE_S) if ledger.shared else self._longest
            journal = None if self._journal is None else Path(self._journal)
            self._way: Way = Courier(ledger, clock=self._clock, ttl=self._ttl, longest=self._longest, journal=journal)
        else:
            self._ttl = self._longest
            self._way = Direct(ledger)

    def flush(self, timeout: float | None = 2.0) -> bool:
        """Wait until the ledger and the alerts have everything they were told. Returns whether they do."""
        done = self._way.flush(timeout)
        return (self._alerts is None or self._alerts.flush(timeout or 2.0)) and done

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
        self._put(budgets, replacing=False)

    def replace(self, *budgets: Budget) -> None:
        """Declare budgets in the place of those of the same names, from the next call on. What was counted under a
        name goes on being counted, as long as the window is of the same kind.

        Raises:
            ValueError: for limits larger than the ledger can count; none is replaced then.
        """
        self._put(budgets, replacing=True)

    def _put(self, budgets: Iterable[Budget], *, replacing: bool) -> None:
        new = []
        with self._lock:
            rules = {rule.name: rule for rule in self._rules}
            for each in budgets:
                if not isinstance(each, Budget):
                    raise ValueError(f"a Budget is needed, not {each!r}")
                known = rules.get(each.name)
                if known is not None and (known.budget == each if not replacing else known.budget is each):
                    continue
                if known is not None and not replacing:
                    raise ValueError(
                        f"there are two different budgets named {each.name!r}: give one of them another name=, "
                        "or remove() the one that it replaces"
                    )
                rule = rules[each.name] = Rule(each)
                check_limits(rule, self._ledger)
                new.append(rule)
            self._rules = tuple(rules.values())
            self._note_rules()
        self._declare(new)

    def _note_rules(self) -> None:
        self._plans = Plans(self._rules)
        self._watched = any(rule.budget.alerts for rule in self._rules)
        self._counts_apart |= any(rule.counts_apart for rule in self._rules)
        self.assumes = any(rule.assumes_price for rule in self._rules)

    def _declare(self, rules: Iterable[Rule]) -> None:
        """Tell those who look at a shared ledger from outside what is counted there."""
        if self._ledger.shared and rules:
            from tokenbudget_otel.budgets.documents import to_document

            for rule in rules:
                self._way.tell("declare", rule.name, to_document(rule.budget))

    def set_limit(
        self,
        scope: str | Mapping[str, str] | None,
        limit_usd: float | None = None,
        *,
        limit_tokens: int | None = None,
        limit_calls: int | None = None,
        window: str | None = None,
        budget: str | None = None,
    ) -> list[str]:
        """Give one scope limits of its own, in place of the declared ones, from the next call on. In a shared ledger
        that holds for every process.

        Args:
            scope: the value (of budgets that are counted by one thing), or ``{"tenant": "acme", "feature": "chat"}``;
                ``None`` for budgets that count all calls together.
            limit_usd, limit_tokens, limit_calls: the limits; those not given stay as they are declared. With none of
                them the scope goes back to the declared limits.
            window: only budgets with this window.
            budget: only the budget of this name.

        Returns:
            The names of the budgets that it was set for.

        Raises:
            ValueError: if no budget is counted so, or a limit cannot be.

        >>> enforcer = Enforcer([Budget(limit_usd=1, per="tenant", window="day")])
        >>> enforcer.set_limit("acme", 50, window="day")
        ['usd/day per tenant']
        """
        limits = limits_of(limit_usd, limit_tokens, limit_calls)
        found = rules_for(self._rules, scope, window, budget)
        if limits is not None:
            check_limit("limit", limits, self._ledger)
        for rule, values in found:
            self._way.ask("set_limits", rule.policy(values), limits)
        return [rule.name for rule, _ in found]

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
            self._note_rules()

    def clear(self) -> None:
        """Withdraw every declared budget."""
        with self._lock:
            self._rules = ()
            self._note_rules()

    # -- one call --------------------------------------------------------------------------------------------

    def applies(self, call: Call) -> bool:
        """Whether any budget counts this call, and an estimate is worth making."""
        if self.refresh is not None:
            self.refresh()
        return any(rule.applies(call) for rule in self._rules) or bool(active_budgets(call.context))

    def plan_at_once(self, call: Call, now: float | None = None) -> Plan | None:
        """Which declared budgets a call needs what of, where :meth:`admit_at_once` may be enough; ``None`` where only
        :meth:`admission` is."""
        if self._at_once is None:
            return None
        if self._ended_runs:
            self._forget_runs()
        plan = self._plans.plan(call, self._clock() if now is None else now)
        return plan if plan.simple else None

    def admit_at_once(
        self, plan: Plan, call: Call, estimate: Estimate, call_id: str, now: float | None = None
    ) -> Hold | None:
        """:meth:`admission` in one go: where the ledger is in the memory of this process, the price is known, and all
        that can be said of the call is yes or no.

        Args:
            plan: what :meth:`plan_at_once` gave.
            call, estimate: the call.
            call_id: which is unique. The name of the hold begins with it.

        Returns:
            The hold, or ``None`` where :meth:`admission` has to be asked. Nothing is reserved then.

        Raises:
            BudgetExceeded: as :meth:`admit` does.
        """
        ledger = self._at_once
        if ledger is None or estimate.expected.nano_usd is None or estimate.worst_case.nano_usd is None:
            return None
        sources: tuple[Source, ...] = plan.sources
        claims, cut = plan.claims(estimate), plan.cut
        runs = active_budgets(call.context)
        if runs:
            sources = (*reversed(runs), *sources)
            claims = (*[each.claim(estimate) for each in reversed(runs)], *claims)
            cut = cut or any(each.cut_streams for each in runs)
        hold_id = f"{call_id}-1"
        on_expiry = None if self._on_expiry == "charge" else self._charge_on_expiry(estimate)
        answer = ledger.reserve_counted(hold_id, claims, claims, self._ttl, on_expiry, plan.owner)
        if isinstance(answer, Refused):
            if not plan.final or (runs and any(each.action != "block" for each in runs)):
                return None
            asked = Hold(hold_id, call, claims, sources, estimate, UNCHANGED, len(runs), cut)
            found, now = paired(asked, answer.shortages), self._clock() if now is None else now
            if plan.rolling:
                raise refusal(run(worst(asked, found, now), self._way))
            raise final(asked, found, now)
        hold = Hold(hold_id, call, claims, sources, estimate, UNCHANGED, len(runs), cut)
        if runs:
            self._note_runs(hold)
        if answer.over:
            run(self._warn(hold, (), answer, self._clock() if now is None else now), self._way)
        return hold

    def admit(self, call: Call, estimate: Estimate, now: float | None = None) -> Hold | None:
        """Reserve what a call may come to in every budget that applies, or in none.

        Returns:
            What to settle or release when the call has ended; ``None`` if no budget applies.

        Raises:
            BudgetExceeded: if a budget that refuses has no room. Where several have none, the one that
                is so for longest. :class:`TokenLimitReached` if it is out of tokens, :class:`UnpricedModel` if
                it counts dollars and the price of the call is not known, :class:`BudgetUnreachable` if its ledger
                cannot be asked.
        """
        plan = self.plan_at_once(call, now)
        if plan is not None:
            if not plan.sources and not active_budgets(call.context):
                return None
            hold = self.admit_at_once(plan, call, estimate, new_id(), now)
            if hold is not None:
                return hold
        return run(self.admission(call, estimate, now), self._way)

    async def admit_async(self, call: Call, estimate: Estimate, now: float | None = None) -> Hold | None:
        """:meth:`admit` on an event loop, which goes on while the ledger is asked."""
        return await run_async(self.admission(call, estimate, now), self._way)

    def admission(
        self,
        call: Call,
        estimate: Estimate,
        now: float | None = None,
        revision: Revision | None = None,
        call_id: str = "",
    ) -> Steps[Hold | None]:
        """:meth:`admit`, step by step. With a ``revision`` budgets may have the request changed so that it fits.
        The name of the hold begins with ``call_id``, which is unique, if that is given."""
        rules = self._rules
        runs = active_budgets(call.context)
        if not rules and not runs:
            return None
        now = self._clock() if now is None else now
        self._forget_runs()
        remedies: Remedies | None = None
        for attempt in itertools.count(1):
            # Never one name twice: that of a hold that was refused may have been remembered on the way.
            hold_id = f"{call_id}-{attempt}" if call_id else new_id()
            sources, claims = self._plan(call, estimate, now, rules, runs, remedies.eased if remedies else ())
            if not claims:
                return None
            hold = Hold(hold_id, call, claims, sources, estimate, remedies.change if remedies else UNCHANGED, len(runs))
            blind = (yield from self._refuse_unpriced(hold)) if hold.unpriced else ()
            try:
                answer = yield Ask(
                    "reserve", (hold_id, claims, self._ttl, self._charge_on_expiry(estimate), owner(call))
                )
            except LedgerUnavailable as error:
                raise refusal(unreachable(hold, error)) from error
            if not isinstance(answer, Refused):
                break
            found = paired(hold, answer.shortages)
            if remedies is None:
                remedies = Remedies(call, estimate, revision)
            again, waited = yield from remedies.after(found, now)
            if not again:
                raise refusal((yield from worst(hold, found, now)))
            call, estimate = remedies.call, remedies.estimate
            now = self._clock() if waited else now
        self._way.opened(hold_id, claims)
        if runs:
            self._note_runs(hold)
        if blind or answer.over:
            yield from self._warn(hold, blind, answer, now)
        return hold

    def settle(
        self, hold: Hold | None, actual: Amount, usage: TokenUsage | None = None, assumed: int | None = None
    ) -> None:
        """Record what a call really came to, in every budget that admitted it, also past the limit.

        On an event loop it is handed over, and recorded a moment later, where the ledger is kept elsewhere.

        Args:
            hold: what :meth:`admit` gave.
            actual: the true amount; where ``nano_usd`` is ``None`` (the price turned out to be unknown), what
                was reserved counts as spent.
            usage: added to the ``usage`` of the ``budget()`` scopes around the call, and what budgets that limit
                tokens of one type count.
            assumed: nano-USD that budgets which assume a price count where it is not known.
        """
        if hold is None:
            return
        try:
            hold._once.pop()  # Hold.end(), in one go
        except IndexError:
            return
        known = actual
        if actual.nano_usd is None and hold.unpriced:
            # Never priced: nothing was reserved that could stand in for it.
            known = Amount(0, actual.tokens, actual.calls)
        apart = apart_of(hold.parts(), known, usage, assumed) if self._counts_apart else None
        if self._at_once is not None:
            self._at_once.settle(hold.id, known, hold.claims, apart)
        else:
            self._way.closed(hold.id)
            self._way.tell("settle", hold.id, known, hold.claims, apart)
        if hold._runs:
            for each, claim in hold.runs():
                each.settled(claim, known)
                if usage is not None:
                    each.add_usage(usage)
        if self._watched:
            self._look(hold.parts())

    def release(self, hold: Hold | None) -> None:
        """Give back what a call reserved that surely was not billed: it was never sent, or rejected as invalid."""
        if hold is None or not hold.end():
            return
        self._way.closed(hold.id)
        self._way.tell("release", hold.id)
        for each, claim in hold.runs():
            each.settled(claim, _NOTHING)

    def suffices(self, hold: Hold, so_far: Estimate) -> bool:
        """Whether what is reserved covers what a call comes to, in every budget that would have it stopped."""
        return not any(
            needed > held
            for source, claim in hold.parts()
            if source.cut_streams and claim.hard
            for needed, held in zip(source.needs(so_far), claim[1:4], strict=True)
        )

    def growth(self, hold: Hold, so_far: Estimate, now: float | None = None) -> Steps[None]:
        """Reserve more for a call that outgrows what it reserved, step by step. Budgets that do not cut streams only
        take note.

        Args:
            hold: the call, not ended.
            so_far: what it has come to, and a little more.

        Raises:
            BudgetExceeded: (``partial``) if a budget with ``cut_streams`` has no room for more.
        """
        claims, sources = [], []
        for source, claim in hold.parts():
            more = [max(0, needed - held) for needed, held in zip(source.needs(so_far), claim[1:4], strict=True)]
            if any(more):
                claims.append(
                    claim._replace(
                        nano_usd=more[0],
                        tokens=more[1],
                        calls=more[2],
                        hard=source.cut_streams and claim.hard,
                        per_mille=1000,
                    )
                )
                sources.append(source)
        if not claims:
            return
        hold.steps += 1
        try:
            answer = yield Ask("extend", (hold.id, str(hold.steps), tuple(claims), self._ttl))
        except LedgerUnavailable:
            return  # what comes to be known of the store later does not stop an answer that is on its way
        if isinstance(answer, Refused):
            now = self._clock() if now is None else now
            asked = Hold(hold.id, hold.call, tuple(claims), tuple(sources), so_far)
            raise refusal((yield from worst(asked, paired(asked, answer.shortages), now, partial=True)))
        if isinstance(answer, Gone):
            return  # it ran out, and is booked in full when it ends
        added = {claim.key: claim for claim in claims}
        for each, claim in hold.runs():
            if claim.key in added:
                each.reserved(added[claim.key])
        hold.claims = tuple([with_more(claim, added.get(claim.key)) for claim in hold.claims])

    def charge(
        self,
        call: Call,
        actual: Amount,
        id: str | None = None,  # noqa: A002 - what it is
        usage: TokenUsage | None = None,
        assumed: int | None = None,
    ) -> bool:
        """Record a call that nobody reserved, in every budget that applies. Never refused.

        Args:
            call, actual: the call and what it came to. Of an unknown price, tokens and the call are counted.
            id: of what is charged, so that charging it again changes nothing; by default it is new.
            usage, assumed: as for :meth:`settle`.

        Returns:
            Whether it was not there yet. Also true where no budget applies, or the ledger cannot be reached: then
            nobody remembers.
        """
        entry = self._entry(call, actual, usage, assumed)
        if entry is None:
            return True
        sources, claims, known, apart = entry
        try:
            new: bool = self._way.ask("charge", id or new_id(), known, claims, apart) == "done"
        except LedgerUnavailable:
            new = True
        if new:
            self._charged(sources, claims, known, usage)
        return new

    def charge_soon(
        self,
        call: Call,
        actual: Amount,
        id: str | None = None,  # noqa: A002 - what it is
        usage: TokenUsage | None = None,
        assumed: int | None = None,
    ) -> None:
        """:meth:`charge` for a caller that need not know whether it is new, and may be on an event loop."""
        entry = self._entry(call, actual, usage, assumed)
        if entry is None:
            return
        sources, claims, known, apart = entry

        def counted(outcome: str) -> None:
            if outcome == "done":
                self._charged(sources, claims, known, usage)

        self._way.tell("charge", id or new_id(), known, claims, apart, then=counted)

    def _entry(
        self, call: Call, actual: Amount, usage: TokenUsage | None, assumed: int | None
    ) -> tuple[tuple[Source, ...], tuple[Claim, ...], Amount, Mapping[str, Amount] | None] | None:
        rules = self._rules
        runs = active_budgets(call.context)
        if not rules and not runs:
            return None
        self._forget_runs()
        known = Amount(actual.nano_usd or 0, actual.tokens, actual.calls)
        sources, claims = self._plan(call, Estimate(known, known), self._clock(), rules, runs, _ALL)
        if not claims:
            return None
        apart = apart_of(zip(sources, claims, strict=True), known, usage, assumed) if self._counts_apart else None
        return sources, claims, known, apart

    def _charged(
        self, sources: tuple[Source, ...], claims: tuple[Claim, ...], known: Amount, usage: TokenUsage | None
    ) -> None:
        for source in sources:
            if isinstance(source, budget):
                if source.note_end_in(self._ended_runs):
                    self._runs[source.key] = source
                source.settled(None, known)
                if usage is not None:
                    source.add_usage(usage)
        if self._watched:
            self._look(zip(sources, claims, strict=True))

    # -- to look inside --------------------------------------------------------------------------------------

    def status(self, now: float | None = None) -> list[BudgetStatus]:
        """How every budget stands in the window in force: a row for each scope that was used, and one for each
        budget that counts all calls together; then the ``budget()`` scopes that are active.

        Raises:
            LedgerUnavailable: where the ledger cannot be asked.
        """
        from tokenbudget_otel.budgets.status import row_of_run, rows_of

        now = self._clock() if now is None else now
        self._forget_runs()
        overrides = self._ledger.limits()
        rows = [row for rule in self._rules for row in rows_of(rule, self._ledger, overrides, now)]
        active = [each for each in list(self._runs.values()) if each.active]
        balances = self._ledger.read([each.key for each in active]) if active else ()
        return rows + [row_of_run(each, balance) for each, balance in zip(active, balances, strict=True)]

    # -- inside ----------------------------------------------------------------------------------------------

    def _plan(
        self,
        call: Call,
        estimate: Estimate,
        now: float,
        rules: tuple[Rule, ...],
        runs: tuple[budget, ...],
        eased: Collection[str],
    ) -> tuple[tuple[Source, ...], tuple[Claim, ...]]:
        """What a call needs of which budget. Of the ``eased`` ones, all of the limit may be used."""
        sources: list[Source] = []
        claims: list[Claim] = []
        for each in reversed(runs):
            sources.append(each)
            claims.append(each.claim(estimate))
        for rule in rules:
            if rule.applies(call):
                for claim in rule.claims(call, estimate, now, early=eased is not _ALL and rule.name not in eased):
                    sources.append(rule)
                    claims.append(claim)
        return tuple(sources), tuple(claims)

    def _note_runs(self, hold: Hold) -> None:
        """Tell the ``budget()`` scopes around a call that it was admitted."""
        for each, claim in hold.runs():
            each.reserved(claim)
            if each.note_end_in(self._ended_runs):
                self._runs[each.key] = each

    def _refuse_unpriced(self, hold: Hold) -> Steps[list[Shortfall]]:
        """Refuse a call whose price a budget would have to know, or say which budgets only warn of it."""
        blind = []
        for source, claim in hold.parts():
            if source.amount(hold.estimate).nano_usd is None and source.denies_unpriced:
                try:
                    balance = yield Ask("balance", (claim.key,))
                except LedgerUnavailable:
                    balance = Balance(claim.key)
                shortfall = shortfall_of(hold.call, source, Shortage(claim, balance), "usd", None, unpriced=True)
                if shortfall.refuses:
                    raise refusal(shortfall)
                blind.append(shortfall)
        return blind

    def _charge_on_expiry(self, estimate: Estimate) -> Amount | None:
        if self._on_expiry == "charge":
            return None
        return _NOTHING if self._on_expiry == "release" else estimate.input

    def _warn(self, hold: Hold, blind: Iterable[Shortfall], answer: Granted, now: float) -> Steps[None]:
        """Report budgets that let calls through: on the hold each time, by log and callback once per scope and
        window."""
        shortfalls = [*blind, *(yield from explained(hold, paired(hold, answer.over), now))]
        hold.warnings = tuple(shortfalls)
        callbacks = {source.name: source.budget.on_warn for source, _ in hold.parts() if isinstance(source, Rule)}
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

    def _look(self, parts: Iterable[tuple[Source, Claim]]) -> None:
        """Have the alerts of these budgets looked at: spending under their keys has changed."""
        for source, claim in parts:
            if isinstance(source, Rule) and source.budget.alerts:
                from tokenbudget_otel.budgets.alerting.alerts import AlertDesk, Watched

                if self._alerts is None:
                    ledger = self._ledger
                    self._alerts = AlertDesk(ledger.read, ledger.limits, ledger.first, clock=self._clock)
                self._alerts.look(
                    Watched(
                        source.budget,
                        source.budget.alerts,
                        claim.key,
                        claim.older,
                        claim.ends,
                        source.window_id(claim.key),
                        scope_of(claim.key),
                        source.limits,
                        claim.policy,
                    )
                )

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
        if not self._ended_runs:
            return
        keys = []
        while self._ended_runs:
            try:
                keys.append(self._ended_runs.popleft())
            except IndexError:  # another thread took it
                break
        if keys:
            self._way.tell("forget", keys)


_NOTHING: Final = Amount(0, 0, 0)
_ALL: Final[tuple[str, ...]] = ("",)
"""For claims that nothing is asked with: no budget degrades."""
