"""Which prices apply when: entries of the catalog, their service tiers, and prices that depend on time."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tokenbudget_otel import semconv
from tokenbudget_otel.pricing.card import Card, Prices, has_positive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Model = dict[str, Any]
"""A model in the catalog: ``p`` prices (or a list of them with conditions), ``v`` variants by service
tier, ``c`` context window, ``o`` most output tokens, ``free``, ``least``; see docs/pricing.md."""

_DAY: Final = 86_400

STANDARD: Final = frozenset(("", "standard", "default", "auto", "on_demand", "on-demand", "standard_only"))
"""Service tiers that are billed at the standard price."""

TIERS: Final = {
    "batches": "batch",
    "on_demand_priority": "priority",
    "on_demand_flex": "flex",
    "performance": "priority",
}
"""Other words for service tiers that have a price."""

FIRM: Final = frozenset(("batch", "flex"))
"""Tiers that a call is billed at once it is accepted: never at the standard price, which is dearer."""


def tier_name(tier: str | None, batch: bool = False) -> frozenset[str]:
    """The tiers whose prices a call is entitled to; empty for the standard price.

    >>> sorted(tier_name("Priority", batch=True))
    ['batch', 'priority']
    >>> tier_name("default")
    frozenset()
    """
    names = set()
    if tier is not None:
        plain = tier.strip().lower()
        if plain not in STANDARD:
            names.add(TIERS.get(plain, plain))
    if batch:
        names.add("batch")
    return frozenset(names)


class Source(NamedTuple):
    """Where a price is from: name, version there, and the day it was read (ISO)."""

    name: str
    version: str | None = None
    date: str | None = None


class Entry:
    """A model of one provider with all its prices."""

    __slots__ = ("_cards", "free", "model", "name", "other", "owned", "provider", "source", "tiers")

    def __init__(
        self, provider: str, name: str, model: Model, source: Source, *, owned: bool = True, other: Entry | None = None
    ) -> None:
        self.provider = provider
        self.name = name
        self.model = model
        self.source = source
        self.other = other
        """What the second source says of the same model, where it says something else or something more."""
        self.owned = owned
        """False where the provider sells another's model at its price: then the variants are not known to apply."""
        self.free = bool(model.get("free"))
        self.tiers = frozenset(name for variant in self._variants() for name in variant["w"])
        self._cards: dict[tuple[int, ...], Card | None] = {}

    def _variants(self) -> list[dict[str, Any]]:
        return self.model.get("v", []) if self.owned else []

    def conditions(self) -> list[dict[str, Any]]:
        """The standard prices with their conditions; the last that is met applies."""
        prices = self.model["p"]
        return prices if isinstance(prices, list) else [{"p": prices}]

    def card(self, key: tuple[int, ...]) -> Card | None:
        """The card of one standard price (the first number) and the variants that apply (the others)."""
        try:
            return self._cards[key]
        except KeyError:
            variants = self._variants()
            prices: Prices = {}
            for index in reversed(key[1:]):  # of two variants the first wins
                prices.update(variants[index]["p"])
            prices = {**self.conditions()[key[0]]["p"], **prices}
            prices.update(self._completing(prices))
            made = Card(prices, self.model.get("least")) if has_positive(prices) else None
            return self._cards.setdefault(key, made)

    def _completing(self, prices: Prices) -> Prices:
        """What only the second source prices, and what changes nothing about the other prices."""
        if self.other is None or not prices or self.source.name != "genai-prices":
            return {}
        theirs = self.other.conditions()[0]["p"]
        return {
            unit: theirs[unit] for unit, same in COMPLETING.items() if unit in theirs and prices.keys().isdisjoint(same)
        }


COMPLETING: Final = {
    "cache_write_12h_tokens": ("cache_write_12h_tokens",),
    "web_searches": ("web_searches", "requests"),  # a fee for the request is the fee for its search
}
"""Units that the second source may add to the first, and the prices that already say the same."""


def _said(entry: Entry) -> dict[str, str]:
    said = {semconv.COST_SOURCE: entry.source.name, semconv.COST_MODEL: entry.name}
    if entry.source.version is not None:
        said[semconv.COST_SOURCE_VERSION] = entry.source.version
    return said


class Tariff:
    """An entry in one service tier: gives the card for a time."""

    __slots__ = (
        "_clocks",
        "_spans",
        "_standard",
        "_starts",
        "_variants",
        "dated",
        "entry",
        "missing",
        "only",
        "said",
        "stale_after",
        "tier",
    )

    def __init__(self, entry: Entry, tiers: frozenset[str] = frozenset(), stale_after: float = float("inf")) -> None:
        self.entry = entry
        self.tier = "+".join(sorted(tiers)) or None
        self.stale_after = stale_after
        self.said = _said(entry)
        """Where the price is from, as span attributes."""
        self._standard = [_condition(made) for made in entry.conditions()]
        self._variants = [
            (index, _condition(made)) for index, made in enumerate(entry._variants()) if tiers.issuperset(made["w"])
        ]
        # A tier that no price mentions is billed at the standard price, and that is said.
        covered = {name for made in entry._variants() if tiers.issuperset(made["w"]) for name in made["w"]}
        self.missing = tuple(f"tier:{name}" for name in sorted(tiers - covered))
        self.dated = len(self._standard) > 1 or any(kind for _, (kind, _, _) in self._variants)
        """Whether what it costs depends on the time."""
        self.only = None if self.dated else entry.card(self._key(0.0))
        # Between two dates on which something starts, and two such times of the day, the card is the same.
        conditions = (*self._standard, *(condition for _, condition in self._variants))
        self._starts = sorted({start for kind, start, _ in conditions if kind == "start"})
        self._clocks = sorted({clock for kind, *ends in conditions if kind == "daily" for clock in ends})
        self._spans: dict[tuple[int, int], Card | None] = {}

    def _key(self, at: float) -> tuple[int, ...]:
        standard = 0
        for index in range(len(self._standard) - 1, -1, -1):
            if _active(self._standard[index], at):
                standard = index
                break
        return (standard, *(index for index, condition in self._variants if _active(condition, at)))

    def card(self, at: float) -> Card | None:
        """The card for a request made at a time (unix seconds); ``None`` if it has no price."""
        if not self.dated:
            return self.only
        span = self._span(at)
        try:
            return self._spans[span]
        except KeyError:
            return self._spans.setdefault(span, self.entry.card(self._key(at)))

    def _span(self, at: float) -> tuple[int, int]:
        return bisect_right(self._starts, at), bisect_right(self._clocks, at % _DAY) if self._clocks else 0

    def in_force(self, at: float) -> bool:
        """Whether this tier has its own price at that time."""
        return not self.tier or len(self._key(at)) > 1

    def cards(self, at: float, until: float) -> Iterable[Card]:
        """Every card that applies at some time from ``at`` to ``until``."""
        if not self.dated or (at // _DAY == until // _DAY and self._span(at) == self._span(until)):
            card = self.card(at)
            return () if card is None else (card,)
        return self._cards(at, until)

    def _cards(self, at: float, until: float) -> Iterator[Card]:
        moments = [at, until] if self.dated else [at]
        if self.dated and until > at:
            conditions = (*self._standard, *(condition for _, condition in self._variants))
            days = range(int(at // _DAY), min(int(until // _DAY), int(at // _DAY) + 1) + 1)
            for kind, start, end in conditions:
                if kind == "start":
                    moments.append(start)
                elif kind == "daily":
                    moments += [day * _DAY + second for day in days for second in (start, end)]
        seen = set()
        for moment in moments:
            if at <= moment <= until and (key := self._key(moment)) not in seen:
                seen.add(key)
                if card := self.entry.card(key):
                    yield card


def _condition(made: Mapping[str, Any]) -> tuple[str, float, float]:
    if "s" in made:
        return "start", datetime.fromisoformat(made["s"]).replace(tzinfo=UTC).timestamp(), 0.0
    if "t" in made:
        return "daily", made["t"][0], made["t"][1]
    return "", 0.0, 0.0


def _active(condition: tuple[str, float, float], at: float) -> bool:
    kind, start, end = condition
    if not kind:
        return True
    if kind == "start":
        return at >= start
    second = at % _DAY
    return start <= second < end if start <= end else second >= start or second < end
