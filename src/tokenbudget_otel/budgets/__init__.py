"""Budgets: what calls may spend, enforced before they are sent.

Declare a :class:`Budget`, or put :class:`budget` around some code; the :class:`Enforcer` reserves what each call
may come to in every budget that applies, all or none, and records what it really came to when it ends.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokenbudget_otel.budgets.amounts import Amount, Call, Estimate
from tokenbudget_otel.budgets.declared import Budget
from tokenbudget_otel.budgets.enforcer import Enforcer
from tokenbudget_otel.budgets.errors import BudgetExceeded, BudgetUnreachable, TokenLimitReached, UnpricedModel
from tokenbudget_otel.budgets.hold import Hold
from tokenbudget_otel.budgets.ledger import (
    AsyncLedger,
    Balance,
    Claim,
    Gone,
    Granted,
    Ledger,
    LedgerCold,
    LedgerConflict,
    LedgerUnavailable,
    Limits,
    OpenHold,
    Refused,
    Shortage,
)
from tokenbudget_otel.budgets.ledgers.memory import MemoryLedger
from tokenbudget_otel.budgets.run import active_budgets, budget
from tokenbudget_otel.budgets.windows import WINDOWS, Window, window_at

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.alerting.alert import Alert
    from tokenbudget_otel.budgets.alerting.alert_event import AlertEvent
    from tokenbudget_otel.budgets.alerting.signatures import verify_signature
    from tokenbudget_otel.budgets.ledgers.redis_ledger import AsyncRedisLedger, RedisLedger
    from tokenbudget_otel.budgets.ledgers.sqlite import SQLiteLedger
    from tokenbudget_otel.budgets.shortfall import Shortfall
    from tokenbudget_otel.budgets.status import BudgetStatus
    from tokenbudget_otel.budgets.store_error import allow_local

__all__ = [
    "WINDOWS",
    "Alert",
    "AlertEvent",
    "Amount",
    "AsyncLedger",
    "AsyncRedisLedger",
    "Balance",
    "Budget",
    "BudgetExceeded",
    "BudgetStatus",
    "BudgetUnreachable",
    "Call",
    "Claim",
    "Enforcer",
    "Estimate",
    "Gone",
    "Granted",
    "Hold",
    "Ledger",
    "LedgerCold",
    "LedgerConflict",
    "LedgerUnavailable",
    "Limits",
    "MemoryLedger",
    "OpenHold",
    "RedisLedger",
    "Refused",
    "SQLiteLedger",
    "Shortage",
    "Shortfall",
    "TokenLimitReached",
    "UnpricedModel",
    "Window",
    "active_budgets",
    "allow_local",
    "budget",
    "verify_signature",
    "window_at",
]


_LATER = {
    "Alert": "alerting.alert",
    "AlertEvent": "alerting.alert_event",
    "AsyncRedisLedger": "ledgers.redis_ledger",
    "BudgetStatus": "status",
    "RedisLedger": "ledgers.redis_ledger",
    "SQLiteLedger": "ledgers.sqlite",
    "Shortfall": "shortfall",
    "allow_local": "store_error",
    "verify_signature": "alerting.signatures",
}
"""What is loaded on first use: it takes a millisecond or more each, and many programs never need it."""


def __getattr__(name: str) -> Any:
    if (home := _LATER.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
