"""Budgets: what calls may spend, enforced before they are sent.

Declare a :class:`Budget`, or put :class:`budget` around some code; the :class:`Enforcer` reserves what each call
may come to in every budget that applies, all or none, and records what it really came to when it ends.
"""

from typing import TYPE_CHECKING, Any

from tokenbudget_otel.budgets.amounts import Amount, Call, Estimate
from tokenbudget_otel.budgets.declared import Budget
from tokenbudget_otel.budgets.enforcer import Enforcer, Hold
from tokenbudget_otel.budgets.errors import BudgetExceeded, TokenLimitReached, UnpricedModel
from tokenbudget_otel.budgets.ledger import (
    AsyncLedger,
    Balance,
    Claim,
    Gone,
    Granted,
    Ledger,
    LedgerConflict,
    OpenHold,
    Refused,
    Shortage,
)
from tokenbudget_otel.budgets.memory import MemoryLedger
from tokenbudget_otel.budgets.run import active_budgets, budget
from tokenbudget_otel.budgets.windows import WINDOWS, Window, window_at

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.shortfall import Shortfall
    from tokenbudget_otel.budgets.status import BudgetStatus

__all__ = [
    "WINDOWS",
    "Amount",
    "AsyncLedger",
    "Balance",
    "Budget",
    "BudgetExceeded",
    "BudgetStatus",
    "Call",
    "Claim",
    "Enforcer",
    "Estimate",
    "Gone",
    "Granted",
    "Hold",
    "Ledger",
    "LedgerConflict",
    "MemoryLedger",
    "OpenHold",
    "Refused",
    "Shortage",
    "Shortfall",
    "TokenLimitReached",
    "UnpricedModel",
    "Window",
    "active_budgets",
    "budget",
    "window_at",
]


def __getattr__(name: str) -> Any:
    # Made on first use: classes of many fields take a millisecond each, and many programs never need them.
    if name == "Shortfall":
        from tokenbudget_otel.budgets.shortfall import Shortfall

        return Shortfall
    if name == "BudgetStatus":
        from tokenbudget_otel.budgets.status import BudgetStatus

        return BudgetStatus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
