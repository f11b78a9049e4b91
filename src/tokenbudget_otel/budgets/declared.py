"""A declared budget: how much may be spent, on what, in which window, and what happens then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from tokenbudget_otel.budgets.calendars import checked_start
from tokenbudget_otel.budgets.checks import checked_choice as checked_choice
from tokenbudget_otel.budgets.checks import checked_count as checked_count
from tokenbudget_otel.budgets.checks import checked_flag, checked_number
from tokenbudget_otel.budgets.checks import checked_name as checked_name
from tokenbudget_otel.budgets.checks import checked_usd as checked_usd
from tokenbudget_otel.budgets.rolling import rolling
from tokenbudget_otel.budgets.windows import WINDOWS, unknown, zone_named
from tokenbudget_otel.tags import checked_tags

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.alerting.alert import Alert
    from tokenbudget_otel.budgets.shortfall import Shortfall
    from tokenbudget_otel.budgets.store_error import allow_local

Usd = Decimal | int | float | str
"""US dollars, as people write them."""

Mode = Literal["expected", "worst_case"]
Action = Literal["block", "warn", "shrink", "degrade", "wait"]
Unpriced = Literal["deny", "allow", "assume"]
TokenType = Literal["all", "input", "output", "reasoning", "cache_read", "cache_write"]

MODES: Final = ("expected", "worst_case")
ACTIONS: Final = ("block", "warn", "shrink", "degrade", "wait")
UNPRICED: Final = ("deny", "allow", "assume")
TOKEN_TYPES: Final = ("all", "input", "output", "reasoning", "cache_read", "cache_write")

_ACTION_OF: Final = {"degrade": "degrade", "degrade_at": "degrade", "max_wait": "wait", "min_output_tokens": "shrink"}
"""Arguments that say more about one action."""


@dataclass(frozen=True, init=False)
class Budget:
    """A limit on what calls may spend, for every call it matches.

    Args:
        limit_usd: US dollars; a float is taken at its shortest decimal form. Zero refuses all that costs.
        limit_tokens: input and output tokens together.
        limit_calls: number of calls. At least one of the three limits is needed; a call has to fit in all.
        window: what the limit covers: ``"lifetime"``, ``"hour"``, ``"day"``, ``"week"`` (from Monday),
            ``"month"``, ``"quarter"`` or ``"year"`` of the calendar; or the time until now: ``"rolling 24h"``
            (whole numbers of ``s``, ``m``, ``h``, ``d`` or ``w``, from 60 seconds to 366 days), which a
            :class:`~datetime.timedelta` means too. For one run of something, see
            :class:`tokenbudget_otel.budgets.budget`.
        timezone: IANA name of the zone whose calendar that is.
        starts_on: the day of the month on which months start (1 to 31; the last day where a month has not so many),
            the day of the week (``"sunday"``), or month and day for quarters and years (``"04-01"``).
        per: count each value apart: a tag, or several for each combination, or ``"model"``, ``"provider"``,
            ``"operation"`` or ``"api_key"``. A call without the tag is counted under the value ``""``, which has the
            same limit, so that leaving out a tag is no way around it.
        match: only calls with these tags, model, provider, operation or API key; a value may be a pattern with
            ``*``, ``?`` and ``[…]``. Case matters for tags and keys. A call without the tag does not match.
        token_type: which tokens ``limit_tokens`` counts: ``"all"`` (input and output), ``"input"``, ``"output"``,
            ``"reasoning"``, ``"cache_read"`` or ``"cache_write"``.
        action: what happens to a call that does not fit. ``"block"`` refuses it before it is sent; ``"warn"``
            reports it and lets it through; ``"shrink"`` lowers how many tokens may be answered to what there is room
            for; ``"degrade"`` asks a cheaper model; ``"wait"`` waits for room. What cannot be made to fit is refused.
        degrade: for ``action="degrade"``, the cheaper model for each: ``{"gpt-5": "gpt-5-mini"}``; names may be
            patterns. A cheaper one may have a still cheaper one.
        degrade_at: from which share of the limit on calls are degraded; 1.0, the default, only where there is no
            room.
        max_wait: for ``action="wait"``, the most seconds to wait; 60 by default, at most 3600.
        min_output_tokens: for ``action="shrink"``, the fewest tokens an answer is shrunk to; 64 by default.
        mode: what is reserved while a call is in flight. ``"expected"``, a likely amount: admits more at once,
            and can be passed by what calls come to beyond it. ``"worst_case"``, an upper bound: never passed.
        name: of the budget, unique among those declared, and part of the key that spending is counted under.
            By default made of what is counted in which window, and whether it only warns; not of amounts, so that
            a changed limit goes on counting.
        on_warn: called with a :class:`Shortfall` when an ``action="warn"`` or dry budget has no room for a call;
            once for each scope and window. An error that it raises is logged and goes no further.
        unpriced: what a limit in dollars does with a call of unknown price: ``"deny"`` raises
            :class:`UnpricedModel` (with ``action="warn"``: warns), ``"allow"`` counts its tokens and the call,
            and no dollars, ``"assume"`` counts it at the dearest price known of its provider.
        alerts: whom to tell at which share of the limit: :class:`Alert` objects, or shares alone for the log.
        dry_run: count, and report what would have happened; refuse and change nothing.
        on_store_error: what happens to calls while the ledger cannot be reached: ``"deny"`` refuses them,
            ``"allow"`` lets them through, :class:`allow_local` as much as it says. By default a budget that refuses
            denies, and one that only warns allows. What went through is counted later.
        cut_streams: end a stream that comes to more than it reserved once there is no room for more.

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
    starts_on: int | str | None
    per: tuple[str, ...]
    match: Mapping[str, str] = field(hash=False)
    token_type: TokenType
    action: Action
    degrade: Mapping[str, str] | None = field(hash=False)
    degrade_at: float
    max_wait: float
    min_output_tokens: int
    mode: Mode
    name: str
    on_warn: Callable[[Shortfall], object] | None = field(compare=False, repr=False)
    unpriced: Unpriced
    alerts: tuple[Alert, ...]
    dry_run: bool
    on_store_error: Literal["deny", "allow"] | allow_local
    cut_streams: bool

    def __init__(
        self,
        *,
        limit_usd: Usd | None = None,
        limit_tokens: int | None = None,
        limit_calls: int | None = None,
        window: str | timedelta = "lifetime",
        timezone: str = "UTC",
        starts_on: int | str | None = None,
        per: str | Iterable[str] | None = None,
        match: Mapping[str, object] | None = None,
        token_type: TokenType = "all",
        action: Action = "block",
        degrade: Mapping[str, str] | None = None,
        degrade_at: float | None = None,
        max_wait: float | None = None,
        min_output_tokens: int | None = None,
        mode: Mode = "expected",
        name: str | None = None,
        on_warn: Callable[[Shortfall], object] | None = None,
        unpriced: Unpriced = "deny",
        alerts: Iterable[Alert | float | Mapping[str, Any]] = (),
        dry_run: bool = False,
        on_store_error: Literal["deny", "allow"] | allow_local | Mapping[str, Any] | None = None,
        cut_streams: bool = False,
    ) -> None:
        if limit_usd is None and limit_tokens is None and limit_calls is None:
            raise ValueError("a budget needs a limit: give limit_usd, limit_tokens or limit_calls")
        values: dict[str, Any] = {
            "limit_usd": checked_usd("limit_usd", limit_usd),
            "limit_tokens": checked_count("limit_tokens", limit_tokens),
            "limit_calls": checked_count("limit_calls", limit_calls),
            "window": (found := _checked_window(window)),
            "timezone": _checked_timezone(timezone),
            "starts_on": checked_start(found, starts_on),
            "per": _checked_per(per),
            "match": _checked_match(match),
            "token_type": checked_choice("token_type", token_type, TOKEN_TYPES),
            "action": checked_choice("action", action, ACTIONS),
            "degrade": _checked_degrade(degrade),
            "degrade_at": 1.0 if degrade_at is None else checked_number("degrade_at", degrade_at, 1),
            "max_wait": 60.0 if max_wait is None else checked_number("max_wait", max_wait, 3600),
            "min_output_tokens": 64
            if min_output_tokens is None
            else checked_count("min_output_tokens", min_output_tokens),
            "mode": checked_choice("mode", mode, MODES),
            "on_warn": on_warn,
            "unpriced": checked_choice("unpriced", unpriced, UNPRICED),
            "alerts": _checked_alerts(alerts),
            "dry_run": checked_flag("dry_run", dry_run),
            "on_store_error": _checked_store_error(on_store_error, refuses=action != "warn" and not dry_run),
            "cut_streams": checked_flag("cut_streams", cut_streams),
        }
        given = {
            "degrade": degrade,
            "degrade_at": degrade_at,
            "max_wait": max_wait,
            "min_output_tokens": min_output_tokens,
        }
        _check_together(values, {name for name, value in given.items() if value is not None})
        values["name"] = _default_name(values) if name is None else checked_name(name)
        for each in fields(self):
            object.__setattr__(self, each.name, values[each.name])


def _check_together(values: Mapping[str, Any], given: set[str]) -> None:
    """Refuse arguments that each make sense and do not together."""
    action, on_warn = values["action"], values["on_warn"]
    for name in sorted(given):
        if action != _ACTION_OF[name]:
            raise ValueError(f"{name} is only used by action={_ACTION_OF[name]!r}: add that, or leave {name} out")
    if action == "degrade" and values["degrade"] is None:
        raise ValueError("action='degrade' needs the cheaper models: add degrade={'gpt-5': 'gpt-5-mini'}")
    if on_warn is not None and not callable(on_warn):
        raise ValueError(f"on_warn must be a function that takes a Shortfall, not {on_warn!r}")
    if on_warn is not None and action != "warn" and not values["dry_run"]:
        raise ValueError("on_warn is only called by a budget that warns: add action='warn', or leave it out")
    if values["token_type"] != "all" and values["limit_tokens"] is None:
        raise ValueError("token_type says which tokens limit_tokens counts: add limit_tokens, or leave it out")
    if values["min_output_tokens"] < 1:
        raise ValueError("min_output_tokens must be at least 1: an answer has that many")
    answers = values["limit_tokens"] is not None and values["token_type"] in ("all", "output", "reasoning")
    if action == "shrink" and values["limit_usd"] is None and not answers:
        raise ValueError(
            "action='shrink' makes answers shorter, and nothing that this budget limits gets less by that: give "
            "limit_usd, or limit_tokens of output"
        )
    store_error = values["on_store_error"]
    if action == "warn" and store_error == "deny":
        raise ValueError(
            "on_store_error='deny' refuses calls, and a budget that warns refuses none: leave it out, or use "
            "action='block'"
        )
    if not isinstance(store_error, str):
        units = [unit for unit in ("usd", "tokens", "calls") if values[f"limit_{unit}"] is not None]
        if all(getattr(store_error, unit) is None for unit in units):
            raise ValueError(
                f"on_store_error: allow_local has to limit something that the budget limits: add {' or '.join(units)}"
            )


def _checked_window(window: object) -> str:
    if window == "run":
        raise ValueError("unknown window 'run': for one run use `with tokenbudget_otel.budget(max_cost_usd=…):`")
    if (span := rolling(window)) is not None:
        return span.name
    if not isinstance(window, str) or window not in WINDOWS:
        raise ValueError(f"{unknown('window', window, WINDOWS)}, or a rolling one such as 'rolling 24h'")
    return window


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
            raise ValueError(f"per must name tags, or 'model', 'provider', 'operation' or 'api_key', not {name!r}")
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


def _checked_degrade(models: object) -> dict[str, str] | None:
    if models is None:
        return None
    from tokenbudget_otel.budgets.patterns import checked_cheaper

    return checked_cheaper(models)


def _checked_alerts(alerts: object) -> tuple[Alert, ...]:
    if alerts == ():
        return ()
    from tokenbudget_otel.budgets.alerting.alert import checked_alerts  # a class that most programs never need

    return checked_alerts(alerts)


def _checked_store_error(value: object, *, refuses: bool) -> str | allow_local:
    if value is None:
        return "deny" if refuses else "allow"
    if isinstance(value, str) and value in ("deny", "allow"):
        return value
    from tokenbudget_otel.budgets.store_error import checked_store_error  # a class that most programs never need

    return checked_store_error(value)


def _default_name(values: Mapping[str, Any]) -> str:
    tokens = "tokens" if values["token_type"] == "all" else f"{values['token_type']} tokens"
    units = (("usd", "usd"), ("tokens", tokens), ("calls", "calls"))
    parts = [f"{'+'.join(name for unit, name in units if values[f'limit_{unit}'] is not None)}/{values['window']}"]
    if values["starts_on"] is not None:
        parts.append(f"from {values['starts_on']}")
    if values["per"]:
        parts.append(f"per {'+'.join(values['per'])}")
    if values["match"]:
        parts.append(f"where {','.join(f'{name}={value}' for name, value in sorted(values['match'].items()))}")
    if values["action"] == "warn":
        parts.append("(warn)")
    return " ".join(parts)
