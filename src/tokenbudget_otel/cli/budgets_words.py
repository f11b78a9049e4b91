"""How `tokenbudget budgets` writes amounts, scopes and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any, Final, NamedTuple

UNITS: Final = ("usd", "tokens", "calls")
"""What limits are counted in, in the order of :class:`tokenbudget_otel.budgets.Limits`."""


class Place(NamedTuple):
    """What a key of a ledger counts: a budget, the values of a scope, and the window."""

    budget: str
    scope: Mapping[str, str]
    window: str


def place(key: str) -> Place:
    """Read a key.

    >>> place("budget|mine|2026-11|tenant=acme")
    Place(budget='mine', scope={'tenant': 'acme'}, window='2026-11')
    >>> place("run|4711-1-00ff").budget
    'budget() 4711-1-00ff'
    """
    from tokenbudget_otel.budgets.rules import BUDGETS, scope_of

    if not key.startswith(BUDGETS):
        return Place(f"budget() {key.partition('|')[2]}", {}, "run")
    _, name, window, *_ = key.split("|")
    return Place(name.replace("%7C", "|").replace("%25", "%"), scope_of(key), window)


def amount(value: Decimal | int | None, unit: str) -> str:
    """An amount for people; ``None`` is a cost that is not known.

    >>> amount(Decimal("49.9"), "usd"), amount(1234, "tokens"), amount(1, "calls"), amount(None, "usd")
    ('$49.9000', '1,234 tokens', '1 call', 'unknown')
    """
    from tokenbudget_otel.money import format_usd, to_nano

    if unit == "usd" or value is None:
        return format_usd(None if value is None else to_nano(value))
    return f"{value:,} {unit.removesuffix('s') if value == 1 else unit}"


def amounts(numbers: Sequence[int | None]) -> str:
    """Nano-USD, tokens and calls together.

    >>> amounts((30_000_000, 900, 1)), amounts((None, 900, 1))
    ('$0.0300, 900 tokens, 1 call', 'unknown cost, 900 tokens, 1 call')
    """
    from tokenbudget_otel.money import format_usd

    nano_usd, tokens, calls = numbers
    cost = "unknown cost" if nano_usd is None else format_usd(nano_usd)
    return f"{cost}, {amount(tokens, 'tokens')}, {amount(calls, 'calls')}"


def plain(value: Decimal | int | None) -> str | int | None:
    """An amount for JSON: dollars as text, exact.

    >>> plain(Decimal("49.90")), plain(3), plain(None)
    ('49.90', 3, None)
    """
    return f"{value:f}" if isinstance(value, Decimal) else value


def standing(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Of fields such as ``limit_usd``, those of each unit together, for JSON; units without a limit are left out.

    >>> standing({"limit_calls": 3, "spent_calls": 1}, ("limit", "spent"))
    {'calls': {'limit': 3, 'spent': 1}}
    """
    return {
        unit: {name: plain(values.get(f"{name}_{unit}")) for name in names}
        for unit in UNITS
        if values.get(f"limit_{unit}") is not None
    }


def scope(values: Mapping[str, str]) -> str:
    """The values that a budget is counted by.

    >>> scope({"tenant": "acme", "user": ""}), scope({})
    ('tenant=acme, no user', 'all calls')
    """
    from tokenbudget_otel.budgets.rules import scope_words

    return scope_words(values) or "all calls"


def when(at: datetime, now: float) -> str:
    """A moment in its own time zone, and how far away it is.

    >>> from datetime import UTC
    >>> when(datetime(2026, 12, 1, tzinfo=UTC), 1_796_072_400)
    '2026-12-01 00:00 UTC (in 3 hours)'
    """
    return f"{at:%Y-%m-%d %H:%M} {at.tzname() or ''}".rstrip() + f" ({away(at.timestamp() - now)})"


def away(seconds: float) -> str:
    """How far away a moment is.

    >>> away(7500), away(-1)
    ('in 2 hours 5 minutes', '1 second ago')
    """
    from tokenbudget_otel.budgets.shortfall import _duration

    return f"in {_duration(seconds)}" if seconds > 0 else f"{_duration(-seconds)} ago"


def iso(at: float | None, zone: tzinfo) -> str | None:
    """A moment for JSON."""
    return None if at is None else datetime.fromtimestamp(at, zone).isoformat()
