"""How budgets stand: one row for each budget, scope and window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from tokenbudget_otel.budgets.ledger import Balance, Ledger, Limits
from tokenbudget_otel.budgets.rules import Rule, scope_of, standing
from tokenbudget_otel.budgets.run import budget


@dataclass(frozen=True, kw_only=True)
class BudgetStatus:
    """What one budget stands at, for one value of what it is counted by, in the window in force.

    Money in US dollars; what the budget does not limit is ``None``. ``remaining_…`` is what is neither spent nor
    reserved, and never below zero.

    >>> BudgetStatus(budget="mine", action="block", window="lifetime", limit_calls=3, spent_calls=4).used
    1.3333333333333333
    """

    budget: str
    action: str
    window: str
    scope: Mapping[str, str] = field(default_factory=dict)
    limit_usd: Decimal | None = None
    spent_usd: Decimal | None = None
    reserved_usd: Decimal | None = None
    remaining_usd: Decimal | None = None
    limit_tokens: int | None = None
    spent_tokens: int | None = None
    reserved_tokens: int | None = None
    remaining_tokens: int | None = None
    limit_calls: int | None = None
    spent_calls: int | None = None
    reserved_calls: int | None = None
    remaining_calls: int | None = None
    resets_at: datetime | None = None

    @property
    def used(self) -> float:
        """How much of the limit is spent, 1.0 for all of it; of the limit used most where there are several."""
        pairs = (
            (self.spent_usd, self.limit_usd),
            (self.spent_tokens, self.limit_tokens),
            (self.spent_calls, self.limit_calls),
        )
        return max(
            (float(spent / limit) if limit else 1.0)
            for spent, limit in pairs
            if spent is not None and limit is not None
        )


def rows_of(rule: Rule, ledger: Ledger, overrides: Mapping[str, Limits], now: float) -> list[BudgetStatus]:
    """How one declared budget stands now, for each scope that was used in the window in force."""
    used = rule.standing(ledger.balances(rule.prefix(now)), now)
    if not used and not rule.per:
        used = [Balance(rule.prefix(now))]
    rows = []
    for each in used:
        scope = scope_of(each.key)
        own = overrides.get(rule.policy(scope))
        limits = rule.limits if own is None else own.effective(rule.limits)
        rows.append(_row(rule, each, limits, rule.window_id(each.key), scope, rule.resets_at(rule.ends(now))))
    return rows


def row_of_run(run: budget, balance: Balance) -> BudgetStatus:
    """How a ``budget()`` scope stands."""
    return _row(run, balance, run.limits, "run", {}, None)


def _row(
    source: Rule | budget,
    balance: Balance,
    limits: tuple[int | None, int | None, int | None],
    window: str,
    scope: Mapping[str, str],
    resets_at: datetime | None,
) -> BudgetStatus:
    values: dict[str, Any] = dict(standing(limits, balance))
    return BudgetStatus(
        budget=source.name, action=source.action, window=window, scope=scope, resets_at=resets_at, **values
    )
