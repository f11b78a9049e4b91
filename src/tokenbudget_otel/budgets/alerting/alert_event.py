"""What an alert says: the event that callbacks are given and webhooks are sent.

Imported when there is the first one to tell: making a class of so many fields takes a millisecond.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from tokenbudget_otel.budgets.alerting.alerts import ROLLING, Watched
from tokenbudget_otel.budgets.ledger import Balance, Dimension
from tokenbudget_otel.budgets.rules import scope_words, standing
from tokenbudget_otel.budgets.windows import zone_named
from tokenbudget_otel.money import format_usd, to_nano

TYPE: Final = "tokenbudget.budget.alert"
"""The ``type`` of its JSON."""


@dataclass(frozen=True, kw_only=True)
class AlertEvent:
    """A budget has spent as much of its limit as an alert names.

    Money is in US dollars (:class:`~decimal.Decimal`, exact). What a budget does not limit is ``None``. It says
    nothing of where it is sent.

    Args:
        budget: name of the budget.
        threshold: the share of the limit that the alert names: 0.8 for 80 %.
        share: the share that is spent, of the limit that is used most.
        dimension: which limit that is: ``"usd"``, ``"tokens"`` or ``"calls"``.
        scope: the values that the budget is counted by: ``{"tenant": "acme"}``; ``""`` where calls lack the tag.
        window: id of the window, such as ``"2026-11"``; ``"rolling 24h"`` for one that goes along.
        resets_at: when the window ends, in the time zone of the budget; ``None`` for one that does not.
        at: when it was noticed, in UTC.
        id: of this event; the same each time that its delivery is tried.
        limit_usd, spent_usd, reserved_usd: the limit in force, what is spent, what calls in flight reserve.
        remaining_usd: what is neither, never below zero.
        limit_tokens, …: the same in tokens, and in calls.

    >>> event = AlertEvent(budget="mine", threshold=0.5, share=2 / 3, dimension="calls", limit_calls=3, spent_calls=2)
    >>> str(event)
    "Budget 'mine' has spent 66.6% of its limit (2 of 3 calls), which passes the alert at 50%; it does not reset."
    >>> event.as_json()["spent_calls"]
    2
    """

    budget: str
    threshold: float
    share: float
    dimension: Dimension
    scope: Mapping[str, str] = field(default_factory=dict)
    window: str = "lifetime"
    resets_at: datetime | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=lambda: os.urandom(16).hex())
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

    def __str__(self) -> str:
        scope = scope_words(self.scope)
        spent, limit = (getattr(self, f"{name}_{self.dimension}") for name in ("spent", "limit"))
        if self.dimension == "usd":
            amounts = f"{format_usd(to_nano(spent))} of {format_usd(to_nano(limit))}"
        else:
            amounts = f"{spent:,} of {limit:,} {self.dimension}"
        verb = "reaches" if self.share == self.threshold else "passes"
        return (
            f"Budget {self.budget!r}{f' ({scope})' if scope else ''} has spent {_percent(self.share)} of its limit "
            f"({amounts}), which {verb} the alert at {_percent(self.threshold)}; {self._reset()}."
        )

    def _reset(self) -> str:
        if self.resets_at is not None:
            zone = self.resets_at.tzname() or ""
            return f"window {self.window} ends at {self.resets_at:%Y-%m-%d %H:%M} {zone}".rstrip()
        return f"its window is {self.window}" if self.window.startswith(ROLLING) else "it does not reset"

    def as_json(self) -> dict[str, Any]:
        """All of it in what JSON has: money as text (``"40.5"``, exact), times in ISO 8601, and a ``type``."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"type": TYPE} | {name: _plain(value) for name, value in values.items()}


def _percent(share: float) -> str:
    """A share for people, never more than it is.

    >>> _percent(0.57), _percent(0.99999), _percent(1.0)
    ('57%', '99.9%', '100%')
    """
    return f"{math.floor(share * 1000 + 1e-6) / 10:,.10g}%"


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value


def alert_event(
    watched: Watched,
    threshold: float,
    share: float,
    dimension: Dimension,
    limits: tuple[int | None, ...],
    total: Balance,
    now: float,
) -> AlertEvent:
    """The event of a budget that stands at ``total``."""
    budget, window = watched.budget, watched.window
    rolling = window.startswith(ROLLING)
    numbers: dict[str, Any] = dict(standing((limits[0], limits[1], limits[2]), total))
    return AlertEvent(
        budget=budget.name,
        threshold=threshold,
        share=share,
        dimension=dimension,
        scope=dict(watched.scope),
        # Of a rolling window this is the present part, which ends when the next one begins.
        window=window.partition("/")[0] if rolling else window,
        resets_at=None
        if rolling or watched.ends is None
        else datetime.fromtimestamp(watched.ends, zone_named(budget.timezone)),
        at=datetime.fromtimestamp(now, UTC),
        **numbers,
    )
