"""Totals: what this process has used so far, by provider, model, operation and tags."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, overload

from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.money import format_usd, to_usd
from tokenbudget_otel.usage import Count, TokenUsage

DIMENSIONS: Final = ("provider", "model", "operation")
"""What every call is counted by, besides its tags."""

MAX_ROWS: Final = 10_000
"""Distinct combinations of dimensions and tags that are kept apart. Beyond that, the tag values of
further combinations are counted as :data:`OTHER`, so that a tag with endless values cannot fill the memory."""

MAX_MORE_ROWS: Final = 1_000
"""Rows that those may add. Beyond that, providers, models and operations are counted as :data:`OTHER` too, without
tags: a program may make up names of models as well, and spans of others may come with any."""

OTHER: Final = "(other)"

_Key = tuple[str, str, str, tuple[tuple[str, str], ...]]


class _Row:
    __slots__ = ("calls", "counts", "estimated", "nano_usd", "refused", "unpriced")

    def __init__(self) -> None:
        self.calls = self.estimated = self.unpriced = self.refused = self.nano_usd = 0
        self.counts: dict[str, Count] = {}


@dataclass(frozen=True, slots=True)
class Totals:
    """Calls added up.

    Attributes:
        calls: calls that were sent and may have been billed.
        usage: their tokens and other units, summed.
        nano_usd: their cost in nano-USD, as far as it is known.
        unpriced_calls: calls whose cost is not, or not wholly, in ``nano_usd`` because a price is unknown.
        estimated_calls: calls whose usage the provider did not report (streams cut short, for example).
        refused_calls: calls that a budget refused; they are not among ``calls``.
    """

    calls: int
    usage: TokenUsage
    nano_usd: int
    unpriced_calls: int = 0
    estimated_calls: int = 0
    refused_calls: int = 0

    @property
    def cost_usd(self) -> Decimal:
        """The known cost in US dollars."""
        return to_usd(self.nano_usd)

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.calls + other.calls,
            self.usage + other.usage,
            self.nano_usd + other.nano_usd,
            self.unpriced_calls + other.unpriced_calls,
            self.estimated_calls + other.estimated_calls,
            self.refused_calls + other.refused_calls,
        )

    def __str__(self) -> str:
        unpriced = f", {self.unpriced_calls} of them without a price" if self.unpriced_calls else ""
        calls = "1 call" if self.calls == 1 else f"{self.calls} calls"
        return f"{calls}{unpriced}, {self.usage.total_tokens} tokens, {format_usd(self.nano_usd)}"


NOTHING: Final = Totals(0, TokenUsage(), 0)


class TotalsTable:
    """A thread-safe table of totals. A forked child starts with an empty one: its parent counts its own."""

    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[_Key, _Row] = {}
        self._latest: tuple[str, str, str, Mapping[str, str], _Row] | None = None
        """What was counted last. Calls come in groups that are alike, and to compare tags is less than to sort them."""

    def add(
        self,
        provider: str,
        model: str,
        operation: str,
        tags: Mapping[str, str],
        usage: TokenUsage | None,
        nano_usd: int | None,
        *,
        calls: int = 1,
        unpriced: int = 0,
        estimated: int = 0,
    ) -> None:
        """Count one call, or several that were answered together, of which so many are unpriced and estimated."""
        with self._lock:
            latest = self._latest
            if (
                latest is not None
                and latest[1] == model
                and latest[3] == tags
                and latest[0] == provider
                and latest[2] == operation
            ):
                row = latest[4]
            else:
                key = (provider, model, operation, tuple(sorted(tags.items())) if tags else ())
                row = self._rows.get(key) or self._new_row(key)
                self._latest = provider, model, operation, dict(tags), row
            row.calls += calls
            row.estimated += estimated
            row.unpriced += unpriced
            row.nano_usd += nano_usd or 0
            if usage is not None:
                counts = row.counts
                for name, value in usage.__dict__.items():
                    known = counts.get(name)
                    if not value and known is not None:
                        continue
                    if known is None or (type(known) is int and type(value) is int):
                        counts[name] = value if known is None else known + value
                    else:
                        counts[name] = Decimal(str(known)) + Decimal(str(value))

    def refuse(self, provider: str, model: str, operation: str, tags: Mapping[str, str]) -> None:
        """Count one call that a budget refused."""
        key = (provider, model, operation, tuple(sorted(tags.items())) if tags else ())
        with self._lock:
            (self._rows.get(key) or self._new_row(key)).refused += 1

    def _new_row(self, key: _Key) -> _Row:
        if len(self._rows) >= MAX_ROWS:
            key = (*key[:3], tuple((name, OTHER) for name, _ in key[3]))
            if len(self._rows) >= MAX_ROWS + MAX_MORE_ROWS and key not in self._rows:
                key = (OTHER, OTHER, OTHER, ())
        return self._rows.setdefault(key, _Row())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._rows.clear()
            self._latest = None

    @overload
    def get(self, by: None = None) -> Totals: ...
    @overload
    def get(self, by: str) -> dict[str, Totals]: ...
    @overload
    def get(self, by: tuple[str, ...] | list[str]) -> dict[tuple[str, ...], Totals]: ...

    def get(self, by: Any = None) -> Any:
        """The totals of all calls, or grouped by one or several dimensions and tag names.

        A call without a tag that is asked for is counted under ``""``.
        """
        with self._lock:
            rows = [(key, _totals(row)) for key, row in self._rows.items()]
        if by is None:
            return sum((totals for _, totals in rows), NOTHING)
        names = (by,) if isinstance(by, str) else tuple(by)
        groups: dict[tuple[str, ...], Totals] = {}
        for key, totals in rows:
            group = tuple(_value(key, name) for name in names)
            groups[group] = groups.get(group, NOTHING) + totals
        return {group[0]: totals for group, totals in groups.items()} if isinstance(by, str) else groups

    def rows(self) -> list[dict[str, Any]]:
        """Every row as plain data, for reports and for adding up the totals of several processes."""
        with self._lock:
            return [
                {
                    **dict(zip(DIMENSIONS, key[:3], strict=True)),
                    "tags": dict(key[3]),
                    "calls": row.calls,
                    "refused_calls": row.refused,
                    "estimated_calls": row.estimated,
                    "unpriced_calls": row.unpriced,
                    "nano_usd": row.nano_usd,
                    "usage": {
                        name: str(value) if isinstance(value, Decimal) else value for name, value in row.counts.items()
                    },
                }
                for key, row in self._rows.items()
            ]


def _totals(row: _Row) -> Totals:
    return Totals(row.calls, TokenUsage(**row.counts), row.nano_usd, row.unpriced, row.estimated, row.refused)


def _value(key: _Key, name: str) -> str:
    if name in DIMENSIONS:
        return str(key[DIMENSIONS.index(name)])
    return dict(key[3]).get(name, "")
