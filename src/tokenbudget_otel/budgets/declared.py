"""A declared budget: how much may be spent, on what, in which window, and what happens then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from tokenbudget_otel.budgets.windows import WINDOWS, unknown, zone_named
from tokenbudget_otel.money import to_nano, to_usd
from tokenbudget_otel.tags import checked_tags

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.shortfall import Shortfall

Usd = Decimal | int | float | str
"""US dollars, as people write them."""

Mode = Literal["expected", "worst_case"]
Action = Literal["block", "warn"]
Unpriced = Literal["deny", "allow"]

MODES: Final = ("expected", "worst_case")
ACTIONS: Final = ("block", "warn")
UNPRICED: Final = ("deny", "allow")


@dataclass(frozen=True, init=False)
class Budget:
    """A limit on what calls may spend, for every call it matches.

    Args:
        limit_usd: US dollars; a float is taken at its shortest decimal form. Zero refuses all that costs.
        limit_tokens: input and output tokens together.
        limit_calls: number of calls. At least one of the three limits is needed; a call has to fit in all.
        window: what the limit covers: ``"lifetime"``, ``"hour"``, ``"day"``, ``"week"`` (from Monday),
            ``"month"``, ``"quarter"`` or ``"year"`` of the calendar. For one run of something, see
            :class:`tokenbudget_otel.budgets.budget`.
        timezone: IANA name of the zone whose calendar that is.
        per: count each value apart: a tag, or several for each combination, or ``"model"`` or
            ``"provider"``. A call without the tag is counted under the value ``""``, which has the same limit,
            so that leaving out a tag is no way around it.
        match: only calls with these tags, model or provider; a value may be a pattern with ``*``, ``?`` and
            ``[…]``. Case matters for tags and not for models and providers. A call without the tag does not match.
        action: ``"block"`` refuses a call that does not fit before it is sent; ``"warn"`` reports it and lets
            it through.
        mode: what is reserved while a call is in flight. ``"expected"``, a likely amount: admits more at once,
            and can be passed by what calls come to beyond it. ``"worst_case"``, an upper bound: never passed.
        name: of the budget, unique among those declared, and part of the key that spending is counted under.
            By default made of everything but the amounts, so that a changed limit goes on counting.
        on_warn: called with a :class:`Shortfall` when an ``action="warn"`` budget has no room for a call; once
            for each scope and window. An error that it raises is logged and goes no further.
        unpriced: what a limit in dollars does with a call of unknown price: ``"deny"`` raises
            :class:`UnpricedModel` (with ``action="warn"``: warns), ``"allow"`` counts its tokens and the call,
            and no dollars.

    Raises:
        ValueError: for anything that cannot work, naming it and the remedy.

    >>> Budget(limit_usd=50, window="month", per="tenant").name
    'usd/month per tenant'
    >>> Budget(limit_usd="2.50", window="day", match={"model": "gpt-5*"}).limit_usd
    Decimal('2.5')
    >>> Budget(limit_usd=-1)
    Traceback (most recent call last):
    ...
    ValueError: limit_usd must be at least 0, not -1
    """

    limit_usd: Decimal | None
    limit_tokens: int | None
    limit_calls: int | None
    window: str
    timezone: str
    per: tuple[str, ...]
    match: Mapping[str, str] = field(hash=False)
    action: Action
    mode: Mode
    name: str
    on_warn: Callable[[Shortfall], object] | None = field(compare=False, repr=False)
    unpriced: Unpriced

    def __init__(
        self,
        *,
        limit_usd: Usd | None = None,
        limit_tokens: int | None = None,
        limit_calls: int | None = None,
        window: str = "lifetime",
        timezone: str = "UTC",
        per: str | Iterable[str] | None = None,
        match: Mapping[str, object] | None = None,
        action: Action = "block",
        mode: Mode = "expected",
        name: str | None = None,
        on_warn: Callable[[Shortfall], object] | None = None,
        unpriced: Unpriced = "deny",
    ) -> None:
        if limit_usd is None and limit_tokens is None and limit_calls is None:
            raise ValueError("a budget needs a limit: give limit_usd, limit_tokens or limit_calls")
        values: dict[str, Any] = {
            "limit_usd": checked_usd("limit_usd", limit_usd),
            "limit_tokens": checked_count("limit_tokens", limit_tokens),
            "limit_calls": checked_count("limit_calls", limit_calls),
            "window": _checked_window(window),
            "timezone": _checked_timezone(timezone),
            "per": _checked_per(per),
            "match": _checked_match(match),
            "action": checked_choice("action", action, ACTIONS),
            "mode": checked_choice("mode", mode, MODES),
            "on_warn": on_warn,
            "unpriced": checked_choice("unpriced", unpriced, UNPRICED),
        }
        if on_warn is not None and not callable(on_warn):
            raise ValueError(f"on_warn must be a function that takes a Shortfall, not {on_warn!r}")
        if on_warn is not None and action != "warn":
            raise ValueError("on_warn is only called by a budget that warns: add action='warn', or leave it out")
        values["name"] = _default_name(values) if name is None else checked_name(name)
        for each in fields(self):
            object.__setattr__(self, each.name, values[each.name])


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


def _checked_window(window: object) -> str:
    if window == "run":
        raise ValueError("unknown window 'run': for one run use `with tokenbudget_otel.budget(max_cost_usd=…):`")
    return checked_choice("window", window, WINDOWS)


def _checked_timezone(name: object) -> str:
    if not isinstance(name, str):
        raise ValueError(f"unknown timezone {name!r}: give an IANA name such as 'Europe/Berlin' or 'UTC'")
    zone_named(name)
    return name


def _checked_per(per: object) -> tuple[str, ...]:
    if per is None:
        return ()
    names = (per,) if isinstance(per, str) else tuple(per) if isinstance(per, Iterable) else (per,)
    if not names:
        raise ValueError(f"per={per!r} names no tag: leave it out to count all calls together")
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"per must name tags, or 'model' or 'provider', not {name!r}")
        try:
            checked_tags({name: "x"})
        except ValueError as error:
            raise ValueError(f"per: {error}") from None
    if len(set(names)) != len(names):
        raise ValueError(f"per={per!r} names a tag twice")
    return names


def _checked_match(match: object) -> dict[str, str]:
    if match is None:
        return {}
    if not isinstance(match, Mapping):
        raise ValueError(f"match must be a mapping such as {{'tenant': 'acme'}}, not {match!r}")
    if not match:
        raise ValueError("match={} names no tag: leave it out to match every call")
    for name in match:
        if not isinstance(name, str):
            raise ValueError(f"match: the name of a tag must be a string, not {name!r}")
    try:
        values = checked_tags(match)
    except ValueError as error:
        raise ValueError(f"match: {error}, and so would match no call") from None
    for name, value in values.items():
        if value != value.strip():
            raise ValueError(f"match: {name}={value!r} begins or ends with a space, and so would match no call")
    return values


def _default_name(values: Mapping[str, Any]) -> str:
    units = "+".join(unit for unit in ("usd", "tokens", "calls") if values[f"limit_{unit}"] is not None)
    parts = [f"{units}/{values['window']}"]
    if values["per"]:
        parts.append(f"per {'+'.join(values['per'])}")
    if values["match"]:
        parts.append(f"where {','.join(f'{name}={value}' for name, value in sorted(values['match'].items()))}")
    if values["action"] != "block":
        parts.append(f"({values['action']})")
    return " ".join(parts)
