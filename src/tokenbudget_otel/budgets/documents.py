"""A budget as a JSON document, for those who look at a ledger from outside (:meth:`.Ledger.declare`).

A document has every argument of :class:`Budget` that is not as by default, but for what is of no use elsewhere or
nobody else's business: functions, and the URLs and secrets of alerts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from tokenbudget_otel.budgets.declared import Budget

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.alerting.alert import Alert

VERSION: Final = 1
"""Of documents. A reader takes from a newer one what it knows."""


def to_document(budget: Budget) -> str:
    """The description of a budget. That of an equal budget is the same text.

    >>> to_document(Budget(limit_usd="2.50", window="day", per="tenant"))
    '{"limit_usd": "2.5", "name": "usd/day per tenant", "on_store_error": "deny", "per": ["tenant"], "version": 1, \
"window": "day"}'
    """
    values = {name: getattr(budget, name) for name in _defaults() if name != "on_warn"}
    plain = {name: _plain(name, value) for name, value in values.items() if value != _defaults()[name]}
    return json.dumps({"version": VERSION, "name": budget.name, **plain}, sort_keys=True)


def from_document(document: str) -> Budget:
    """The budget of a description. What was left out is missing: functions, and alerts that do not go to the log.

    Raises:
        ValueError: for what is no description, or one of a newer version that means something this one does not know.

    >>> from_document(to_document(Budget(limit_usd="2.50", window="day", per="tenant"))).per
    ('tenant',)
    >>> from_document('{"version": 2, "name": "mine", "limit_usd": "1", "colour": "red"}').name
    'mine'
    """
    try:
        values = json.loads(document)
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"it is no JSON object: {document[:80]!r}")
    arguments = {name: value for name, value in values.items() if name in _defaults() and name != "on_warn"}
    if isinstance(alerts := arguments.get("alerts"), list):
        arguments["alerts"] = [each for each in alerts if isinstance(each, dict) and each.get("to") == "log"]
    try:
        budget = Budget(**arguments)
        # A name of a budget's own making may be longer than one that people give.
        return budget if budget.name == values.get("name") else Budget(**arguments, name=values.get("name"))
    except (TypeError, ValueError) as error:
        version = values.get("version")
        newer = f" (it is of version {version}, and this knows {VERSION})" if version != VERSION else ""
        raise ValueError(f"{error}{newer}") from None


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    """Every argument but the name, and what is stored where it is not given."""
    plain = Budget(limit_calls=0)
    stored = {each.name: getattr(plain, each.name) for each in fields(Budget) if each.name != "name"}
    return stored | {"limit_calls": None, "on_store_error": None}  # what the latter is by default, others decide


def _plain(name: str, value: Any) -> Any:
    write = _WRITERS.get(name)
    return value if write is None else write(value)


def _alert(alert: Alert) -> dict[str, Any]:
    return {"at": alert.at, "to": alert.kind}


def _store_error(value: Any) -> Any:
    if isinstance(value, str):
        return value
    amounts = {"usd": value.usd, "tokens": value.tokens, "calls": value.calls}
    return {name: _usd(amount) for name, amount in amounts.items() if amount is not None}


def _usd(value: Any) -> Any:
    return f"{value:f}" if isinstance(value, Decimal) else value


_WRITERS: Final[dict[str, Callable[[Any], Any]]] = {
    "limit_usd": _usd,
    "per": list,
    "match": dict,
    "degrade": dict,
    "alerts": lambda alerts: [_alert(each) for each in alerts],
    "on_store_error": _store_error,
}
"""Of arguments that JSON has no value for: how they are written. :class:`Budget` reads all of them."""
