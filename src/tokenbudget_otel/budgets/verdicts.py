"""What is told of budgets that have no room for a call, or cannot say whether they have."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tokenbudget_otel.budgets.amounts import Amount, Call
from tokenbudget_otel.budgets.errors import BudgetExceeded, refusal_later
from tokenbudget_otel.budgets.hold import Hold
from tokenbudget_otel.budgets.ledger import DIMENSIONS, Balance, Dimension, LedgerUnavailable, Shortage
from tokenbudget_otel.budgets.remedies import Source, seconds_to_end, seconds_to_room
from tokenbudget_otel.budgets.rules import Rule, scope_of, standing
from tokenbudget_otel.budgets.steps import Steps
from tokenbudget_otel.budgets.windows import zone_named

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.shortfall import Shortfall


def paired(hold: Hold, shortages: tuple[Shortage, ...]) -> list[tuple[Source, Shortage]]:
    """Each shortage with the budget that it is of."""
    sources = {claim.key: source for source, claim in zip(hold._sources, hold.claims, strict=True)}
    return [(sources[each.claim.key], each) for each in shortages]


def worst(hold: Hold, found: list[tuple[Source, Shortage]], now: float, partial: bool = False) -> Steps[Shortfall]:
    """The shortage that lasts longest: until it ends, no retry can succeed."""
    shortfalls = yield from explained(hold, found, now, partial)
    return max(shortfalls, key=lambda shortfall: math.inf if shortfall.retry_after is None else shortfall.retry_after)


def final(hold: Hold, found: list[tuple[Source, Shortage]], now: float) -> BudgetExceeded:
    """The refusal for shortages of which nothing more has to be asked: no window is a rolling one."""
    longest, chosen = -1.0, None
    for source, shortage in found:
        dimension = shortage.dimensions[0]
        wait = seconds_to_end(source, shortage, now)
        if chosen is None or (math.inf if wait is None else wait) > longest:
            longest, chosen = math.inf if wait is None else wait, (source, shortage, dimension, wait)
    assert chosen is not None
    source, shortage, dimension, wait = chosen
    scope = scope_of(shortage.claim.key) if isinstance(source, Rule) else {}
    write = None
    if isinstance(source, Rule):
        write = functools.partial(_text_of, hold.call, scope, source, shortage, dimension, wait)
    return refusal_later(dimension, source.name, scope, functools.partial(shortfall_of, hold.call, *chosen), write)


def _text_of(
    call: Call, scope: Mapping[str, str], source: Rule, shortage: Shortage, dimension: Dimension, wait: float | None
) -> str:
    """What the :class:`.Shortfall` of a refusal says, without making it: spans say it of every refused call."""
    from tokenbudget_otel.budgets import shortfall as words

    claim, balance = shortage
    index = DIMENSIONS.index(dimension)
    limit, needed = claim[4:7][index] or 0, claim[1:4][index]
    spent, reserved = balance[1:4][index], balance[4:7][index]
    reason = words.reason(dimension, limit, spent, reserved, needed, max(0, limit - spent - reserved))
    end = None if claim.ends is None else _end(claim.ends, source.budget.timezone)
    verdict = f"refused {words.the_call(call.provider, call.model)} before it was sent"
    return (
        f"Budget {source.name!r}{words.of_scope(scope)} {verdict}: {reason}. "
        f"{words.reset(source.window_id(claim.key), end, wait)}"
    )


@functools.lru_cache(maxsize=64)
def _end(ends: float, timezone: str) -> str:
    from tokenbudget_otel.budgets import shortfall as words

    return words.moment(datetime.fromtimestamp(ends, zone_named(timezone)))


def explained(
    hold: Hold, found: list[tuple[Source, Shortage]], now: float, partial: bool = False
) -> Steps[list[Shortfall]]:
    """What each shortage says of the call, and when there will be room. Those of a share of a limit say nothing."""
    shortfalls = []
    for source, each in found:
        if each.claim.per_mille == 1000:
            try:
                wait = yield from seconds_to_room(source, each, now)
            except LedgerUnavailable:
                wait = None
            shortfalls.append(shortfall_of(hold.call, source, each, each.dimensions[0], wait, partial=partial))
    return shortfalls


def unreachable(hold: Hold, error: LedgerUnavailable) -> Shortfall:
    """The first of the budgets that are not to be guessed at."""
    source, claim = next(
        ((source, claim) for source, claim in hold.parts() if claim.hard and claim.fallback is None),
        (hold._sources[0], hold.claims[0]),
    )
    dimension = next((unit for unit, limit in zip(DIMENSIONS, source.limits, strict=True) if limit is not None))
    return shortfall_of(hold.call, source, Shortage(claim, Balance(claim.key)), dimension, None, unreachable=str(error))


def shortfall_of(
    call: Call,
    source: Source,
    shortage: Shortage,
    dimension: Dimension,
    wait: float | None,
    *,
    unpriced: bool = False,
    partial: bool = False,
    unreachable: str = "",
) -> Shortfall:
    """What a budget without room says of a call; ``wait`` is how many seconds from now there will be some."""
    from tokenbudget_otel.budgets.shortfall import Shortfall

    claim, balance = shortage
    needed = Amount(None if unpriced else claim.nano_usd, claim.tokens, claim.calls)
    values: dict[str, Any] = dict(standing(claim[4:7], balance, needed))
    if unreachable:
        values = {name: value for name, value in values.items() if name.startswith(("limit", "needed"))}
    if isinstance(source, Rule):
        values["scope"] = scope_of(claim.key)
        values["window"] = source.window_id(claim.key)
        values["resets_at"] = source.resets_at(claim.ends)
        values["retry_after"] = wait
    else:
        values["window"] = "run"
    shortfall = Shortfall(
        budget=source.name,
        dimension=dimension,
        action=source.action,
        dry_run=source.dry_run,
        partial=partial,
        unreachable=unreachable,
        provider=call.provider,
        model=call.model,
        tags=dict(call.tags),
        **values,
    )
    if dimension == "usd" and not unpriced and not unreachable:
        limit, spent, reserved = claim.limit_nano_usd or 0, balance.spent_nano_usd, balance.reserved_nano_usd
        shortfall.knows(limit, spent, reserved, claim.nano_usd, max(0, limit - spent - reserved))
    return shortfall
