"""``tokenbudget_otel.budget``: a budget for one run of something, as a context manager or a decorator."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from decimal import Decimal
from typing import Final, Literal

from opentelemetry import context
from opentelemetry.context import Context

from tokenbudget_otel.budgets.amounts import Amount, Estimate
from tokenbudget_otel.budgets.declared import (
    MODES,
    Action,
    Mode,
    Usd,
    checked_choice,
    checked_count,
    checked_name,
    checked_usd,
)
from tokenbudget_otel.budgets.ledger import Claim
from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.money import to_nano, to_usd
from tokenbudget_otel.scopes import ContextScope
from tokenbudget_otel.usage import TokenUsage

RUNS: Final = "run|"
"""What the key of every run begins with."""

_KEY: Final = context.create_key("tokenbudget-runs")
_numbers: Final = itertools.count(1)
_ever_opened = False


class budget(ContextScope["budget"]):  # noqa: N801 - reads as a keyword: `with budget(...)`
    """Cap what everything inside spends together, as a context manager or a decorator.

    It holds wherever the OpenTelemetry context goes: in tasks, in threads that are started with the context,
    in generators while their body runs. Budgets nest: a call is counted by all that surround it, and has to
    fit into each. A decorated function (plain, async, generator, async generator) gets a fresh budget for
    every call. Nothing is raised on leaving; calls still in flight are counted when they end.

    Args:
        max_cost_usd: US dollars.
        max_tokens: input and output tokens together.
        max_calls: number of calls. At least one of the three is needed; 0 allows none.
        mode: what a call in flight reserves: the ``"expected"`` amount, or ``"worst_case"``, an upper bound,
            with which the limit is never passed.
        name: shown in errors.
        unpriced: what ``max_cost_usd`` does with a call of unknown price: ``"deny"`` or ``"allow"``.
        action: what is done with a call that does not fit: ``"block"`` refuses it, ``"shrink"`` lowers the output
            tokens it may have to what there is room for, if that is at least ``min_output_tokens``.
        cut_streams: whether an answer that comes piece by piece is stopped where it outgrows the budget.

    Raises:
        ValueError: at once, for limits that cannot work.
        BudgetExceeded: from a call inside that does not fit, before it is sent.

    >>> with budget(max_cost_usd=0.50, max_tokens=50_000) as run:
    ...     run.remaining_usd, run.remaining_tokens, run.usage
    (Decimal('0.5'), 50000, TokenUsage())
    >>> @budget(max_cost_usd="0.10")
    ... def answer(question):
    ...     return active_budgets()[-1].remaining_usd
    >>> answer("?")
    Decimal('0.1')
    """

    # The key of a run lives in the ledger for as long as somebody can still spend from it, that is, as long as
    # this object is referred to: by a context, by an open hold. Then it leaves a note for the ledger's owner:
    # appending to a deque takes no lock, so it may happen in the middle of anything.
    _notes: tuple[deque[str], ...] = ()

    def __init__(
        self,
        *,
        max_cost_usd: Usd | None = None,
        max_tokens: int | None = None,
        max_calls: int | None = None,
        mode: Mode = "expected",
        name: str | None = None,
        unpriced: Literal["deny", "allow"] = "deny",
        action: Literal["block", "shrink"] = "block",
        cut_streams: bool = False,
        min_output_tokens: int = 64,
    ) -> None:
        if max_cost_usd is None and max_tokens is None and max_calls is None:
            raise ValueError("budget() needs a limit: give max_cost_usd, max_tokens or max_calls")
        cost = checked_usd("max_cost_usd", max_cost_usd)
        self.limit_usd: Decimal | None = cost
        self.limit_tokens: int | None = checked_count("max_tokens", max_tokens)
        self.limit_calls: int | None = checked_count("max_calls", max_calls)
        checked_choice("mode", mode, MODES)
        checked_choice("unpriced", unpriced, ("deny", "allow"))
        self.mode: Mode = mode
        checked_choice("action", action, ("block", "shrink"))
        self.action: Action = action
        self.cut_streams = bool(cut_streams)
        self.min_output_tokens = checked_count("min_output_tokens", min_output_tokens) or 0
        self.unpriced: Literal["deny", "allow"] = unpriced
        self.name: str = self._default_name() if name is None else checked_name(name)
        self.limits = (None if cost is None else to_nano(cost), self.limit_tokens, self.limit_calls)
        self.key: str = f"{RUNS}{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}"
        self._after_fork()
        renew_after_fork(self)
        self._entered = 0
        self._spent = [0, 0, 0]
        self._reserved = [0, 0, 0]
        self._usage = TokenUsage()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    dry_run: Final = False
    max_wait: Final = 0.0
    token_type: Final = "all"

    # -- what users read -------------------------------------------------------------------------------------

    @property
    def spent_usd(self) -> Decimal:
        """US dollars that calls inside have cost so far."""
        return to_usd(self._spent[0])

    @property
    def spent_tokens(self) -> int:
        """Tokens that calls inside have used so far."""
        return self._spent[1]

    @property
    def calls(self) -> int:
        """Calls that have ended."""
        return self._spent[2]

    @property
    def remaining_usd(self) -> Decimal | None:
        """US dollars that are neither spent nor reserved by calls in flight; ``None`` without such a limit."""
        left = self._remaining(0)
        return None if left is None else to_usd(left)

    @property
    def remaining_tokens(self) -> int | None:
        """The same in tokens."""
        return self._remaining(1)

    @property
    def remaining_calls(self) -> int | None:
        """The same in calls."""
        return self._remaining(2)

    @property
    def usage(self) -> TokenUsage:
        """The usage of every call inside, added up."""
        return self._usage

    @property
    def active(self) -> bool:
        """Whether it is entered, or calls made inside are still in flight."""
        return bool(self._entered or any(self._reserved))

    def add_usage(self, usage: TokenUsage) -> None:
        """Add what one call used. The meter does this; it changes no limit."""
        with self._lock:
            self._usage += usage

    def __repr__(self) -> str:
        return f"<{self.name}: spent ${self.spent_usd:f}, {self.spent_tokens} tokens, {self.calls} calls>"

    # -- what the enforcer does ------------------------------------------------------------------------------

    @property
    def denies_unpriced(self) -> bool:
        """Whether a call of unknown price is refused."""
        return self.limit_usd is not None and self.unpriced == "deny"

    def amount(self, estimate: Estimate) -> Amount:
        """What a call reserves; ``nano_usd`` is ``None`` where the price is not known."""
        return estimate.amount(self.mode)

    def needs(self, estimate: Estimate) -> tuple[int, int, int]:
        """The same as a claim says it: nano-USD, tokens, calls, an unknown price as 0."""
        amount = self.amount(estimate)
        return amount.nano_usd or 0, amount.tokens, amount.calls

    def claim(self, estimate: Estimate) -> Claim:
        """What a call needs of this budget."""
        # A run is this process's own affair: while a ledger elsewhere cannot be reached, what is left as far as
        # this process knows is a limit that holds.
        left = tuple(self._remaining(index) for index in range(3))
        return Claim(self.key, *self.needs(estimate), *self.limits, fallback=left)  # type: ignore[arg-type]

    def reserved(self, claim: Claim) -> None:
        """A call was admitted."""
        with self._lock:
            for index, amount in enumerate(claim[1:4]):
                self._reserved[index] += amount

    def settled(self, claim: Claim | None, actual: Amount) -> None:
        """A call ended, having reserved ``claim``."""
        amounts = (actual.nano_usd, actual.tokens, actual.calls)
        held = (0, 0, 0) if claim is None else (claim.nano_usd, claim.tokens, claim.calls)
        with self._lock:
            for index, (amount, was) in enumerate(zip(amounts, held, strict=True)):
                self._reserved[index] -= was
                self._spent[index] += was if amount is None else amount

    def note_end_in(self, notes: deque[str]) -> bool:
        """Leave the key there once nobody can use this budget any more. Returns whether that is new."""
        with self._lock:
            if any(known is notes for known in self._notes):
                return False
            self._notes = (*self._notes, notes)
            return True

    def __del__(self) -> None:
        for notes in self._notes:
            notes.append(self.key)

    # -- the scope -------------------------------------------------------------------------------------------

    def _open(self, ctx: Context) -> Context:
        global _ever_opened
        _ever_opened = True
        with self._lock:
            self._entered += 1
        runs = active_budgets(ctx)
        return context.set_value(_KEY, runs if self in runs else (*runs, self), ctx)

    def _value(self) -> budget:
        return self

    def _close(self) -> None:
        with self._lock:
            self._entered -= 1

    def _again(self) -> budget:
        return budget(
            max_cost_usd=self.limit_usd,
            max_tokens=self.limit_tokens,
            max_calls=self.limit_calls,
            mode=self.mode,
            name=self.name,
            unpriced=self.unpriced,
            action=self.action,  # type: ignore[arg-type]
            cut_streams=self.cut_streams,
            min_output_tokens=self.min_output_tokens,
        )

    def _remaining(self, index: int) -> int | None:
        limit = self.limits[index]
        return None if limit is None else max(0, limit - self._spent[index] - self._reserved[index])

    def _default_name(self) -> str:
        limits = (("max_cost_usd", self.limit_usd), ("max_tokens", self.limit_tokens), ("max_calls", self.limit_calls))
        return f"budget({', '.join(f'{name}={limit}' for name, limit in limits if limit is not None)})"


def active_budgets(ctx: Context | None = None) -> tuple[budget, ...]:
    """The ``budget()`` scopes around the code that runs (in ``ctx``), outermost first.

    >>> with budget(max_calls=9, name="outer"), budget(max_calls=2, name="inner"):
    ...     [each.name for each in active_budgets()]
    ['outer', 'inner']
    """
    if not _ever_opened:
        return ()
    found = context.get_value(_KEY, ctx)
    return found if isinstance(found, tuple) else ()
