"""Checks of what people declare: each gives the value as it is stored, or an error that names it and the remedy."""

from __future__ import annotations

import math
from decimal import Decimal

from tokenbudget_otel.budgets.windows import unknown
from tokenbudget_otel.money import to_nano, to_usd


def checked_usd(what: str, value: object) -> Decimal | None:
    """An amount of US dollars that can be a limit, or an error that names it."""
    if value is None:
        return None
    try:
        usd = to_usd(to_nano(value))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ValueError(f"{what} must be a finite amount of US dollars, not {value!r}") from None
    if usd < 0:
        raise ValueError(f"{what} must be at least 0, not {value!r}")
    return usd


def checked_count(what: str, value: object) -> int | None:
    """A whole number that can be a limit (``1e6`` will do), or an error that names it."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise ValueError(f"{what} must be a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{what} must be at least 0, not {value!r}")
    return int(value)


def checked_number(what: str, value: object, most: float) -> float:
    """A number above zero and up to ``most``, or an error that names it.

    >>> checked_number("max_wait", 90, 3600)
    90.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not 0 < value <= most:
        raise ValueError(f"{what} must be a number above 0 and at most {most:g}, not {value!r}")
    return float(value)


def checked_flag(what: str, value: object) -> bool:
    """True or false, or an error that names it: ``"false"`` is not false."""
    if not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, not {value!r}")
    return value


def checked_choice(what: str, value: object, known: tuple[str, ...]) -> str:
    """One of the names that are known, or an error that lists them."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(unknown(what, value, known))
    return value


def checked_name(name: object) -> str:
    """A name for a budget, or an error that says what is wrong with it."""
    if not isinstance(name, str) or not name.strip() or len(name) > 128 or not name.isprintable():
        raise ValueError(f"the name of a budget must be 1 to 128 printable characters, not {name!r}")
    return name
