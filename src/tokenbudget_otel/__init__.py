"""Know and cap what every LLM call costs, with the OpenTelemetry you already run.

    >>> import tokenbudget_otel as tb
    >>> tb.instrument()
    >>> with tb.tags(tenant="acme"), tb.budget(max_cost_usd=0.50) as run:
    ...     pass  # calls of the openai and anthropic SDKs are counted, priced and capped here
    >>> run.spent_usd
    Decimal('0')
    >>> tb.uninstrument()

Names are loaded when they are first used: importing the package costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# `usage` and `tags` are both modules and public names. A module that is imported for the first time is bound in
# its package; so they are imported here, before the public names take their places.
import tokenbudget_otel.usage  # noqa: F401
from tokenbudget_otel.tags import tags
from tokenbudget_otel.version import __version__

if TYPE_CHECKING:
    from tokenbudget_otel.api import instrument as instrument
    from tokenbudget_otel.api import register_provider as register_provider
    from tokenbudget_otel.api import set_limit as set_limit
    from tokenbudget_otel.api import track as track
    from tokenbudget_otel.api import uninstrument as uninstrument
    from tokenbudget_otel.api import unwrap as unwrap
    from tokenbudget_otel.api import usage as usage
    from tokenbudget_otel.api import wrap as wrap
    from tokenbudget_otel.budgets import Alert as Alert
    from tokenbudget_otel.budgets import Budget as Budget
    from tokenbudget_otel.budgets import BudgetExceeded as BudgetExceeded
    from tokenbudget_otel.budgets import BudgetUnreachable as BudgetUnreachable
    from tokenbudget_otel.budgets import TokenLimitReached as TokenLimitReached
    from tokenbudget_otel.budgets import UnpricedModel as UnpricedModel
    from tokenbudget_otel.budgets import allow_local as allow_local
    from tokenbudget_otel.budgets import budget as budget
    from tokenbudget_otel.instrumentation.hosts import map_host as map_host
    from tokenbudget_otel.instrumentation.provider import Method as Method
    from tokenbudget_otel.instrumentation.provider import Provider as Provider
    from tokenbudget_otel.pricing import Cost as Cost
    from tokenbudget_otel.pricing import calculate_cost as calculate_cost
    from tokenbudget_otel.pricing import load_price_file as load_price_file
    from tokenbudget_otel.pricing import map_model as map_model
    from tokenbudget_otel.pricing import register_model as register_model
    from tokenbudget_otel.totals import Totals as Totals
    from tokenbudget_otel.usage import TokenUsage as TokenUsage

_HOME = {
    "instrument": "api",
    "register_provider": "api",
    "set_limit": "api",
    "track": "api",
    "uninstrument": "api",
    "unwrap": "api",
    "wrap": "api",
    "Alert": "budgets",
    "Budget": "budgets",
    "BudgetExceeded": "budgets",
    "BudgetUnreachable": "budgets",
    "TokenLimitReached": "budgets",
    "UnpricedModel": "budgets",
    "allow_local": "budgets",
    "budget": "budgets",
    "map_host": "instrumentation.hosts",
    "Method": "instrumentation.provider",
    "Provider": "instrumentation.provider",
    "Cost": "pricing",
    "calculate_cost": "pricing",
    "load_price_file": "pricing",
    "map_model": "pricing",
    "register_model": "pricing",
    "Totals": "totals",
    "TokenUsage": "usage",
}

__all__ = [
    "__version__",
    "tags",
    "usage",
    *_HOME,
]

if not TYPE_CHECKING:

    def usage(by=None):
        """What this process has used so far: :func:`tokenbudget_otel.api.usage`."""
        return importlib.import_module("tokenbudget_otel.api").usage(by)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
