"""The price book: what a call costs, what it may cost at most, and where that is known from."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenbudget_otel.pricing import catalog as catalogs
from tokenbudget_otel.pricing.cost import Cost
from tokenbudget_otel.pricing.names import host_of, names_to_price, plain, provider_id, spellings
from tokenbudget_otel.pricing.overrides import (
    ANY_PROVIDER,
    Overrides,
    Target,
    checked_name,
    made_entry,
    provider_key,
)
from tokenbudget_otel.pricing.quote import Quote
from tokenbudget_otel.pricing.tariff import FIRM, Entry, Source, Tariff, tier_name
from tokenbudget_otel.usage import TokenUsage

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from tokenbudget_otel.pricing.catalog import Catalog
    from tokenbudget_otel.pricing.overrides import PriceValue

_DAY: Final = 86_400
_MOST_CACHED: Final = 4096
_UNKNOWN: Final = Cost(None, "unknown")


class ModelLimits(NamedTuple):
    """How many tokens a model can take and give; ``None`` where that is not known."""

    context_window: int | None
    """The most input tokens (of some providers: input and output together)."""
    max_output_tokens: int | None
    """The most output tokens of one call."""


_NO_LIMITS: Final = ModelLimits(None, None)


class PriceLine(NamedTuple):
    """One price of a model, for people."""

    when: str
    """When it applies: ``""`` always, or a date, a time of day, a service tier."""
    unit: str
    """What is billed: a name of a count in :class:`~tokenbudget_otel.usage.TokenUsage`, or ``requests``."""
    usd: str
    """US dollars for ``per`` of the unit."""
    per: int
    above: int
    """Applies to calls with more input tokens than this."""


class Explanation(NamedTuple):
    """Where a model's price comes from."""

    provider: str
    model: str
    listed_as: str
    """The spelling of the reported name under which the model was found."""
    state: str
    """``priced``, ``free``, ``stale`` or ``unknown``."""
    source: Source
    prices: tuple[PriceLine, ...]
    tiers: tuple[str, ...]
    limits: ModelLimits
    other: Source | None
    """A second source that prices the model otherwise, or in more tiers; it counts in upper bounds."""


_Answered = tuple[str, str, str | None, str | None, bool]
"""A provider, the model asked for, the one that answered, the tier, and whether in a batch."""


class _View:
    """Overrides and what has been compiled under them. Replaced as a whole when the overrides change."""

    __slots__ = (
        "answers",
        "dearest",
        "found",
        "limits",
        "overrides",
        "overrides_any",
        "quotes",
        "reachable",
        "sets",
        "tariffs",
    )

    def __init__(self, overrides: Overrides) -> None:
        self.overrides = overrides
        self.overrides_any = bool(overrides)
        self.answers: dict[_Answered, tuple[tuple[str, ...], Tariff | None]] = {}
        self.dearest: dict[str, str | None] = {}
        self.found: dict[tuple[str | None, str], tuple[Entry, str] | None] = {}
        self.limits: dict[tuple[str | None, str], ModelLimits] = {}
        self.quotes: dict[tuple[str | None, str, str | None, bool, str | None, bool], Quote] = {}
        self.tariffs: dict[tuple[str | None, str, str | None, bool], Tariff | None] = {}
        self.reachable: dict[tuple[str | None, str, str | None, bool], tuple[Tariff, ...]] = {}
        self.sets: dict[tuple[str, str], bool] = {}


class PriceBook:
    """Prices calls. Safe for threads; one for the process is :func:`price_book`.

    Args:
        stale_after_days: how long after the catalog was read its prices are taken without remark;
            ``None`` for ever.
        catalog: other data than the package's own (for tests).

    >>> from tokenbudget_otel.usage import TokenUsage
    >>> book = PriceBook()
    >>> book.cost("openai", "gpt-4o-2024-08-06", TokenUsage(input_tokens=1000, output_tokens=100)).usd
    Decimal('0.0035')
    >>> book.cost("openai", "no-such-model", TokenUsage(input_tokens=1000)).usd is None
    True
    """

    def __init__(self, *, stale_after_days: float | None = 180, catalog: Catalog | None = None) -> None:
        self._catalog_given = catalog
        self._lock = threading.Lock()
        self._stale_after_days = stale_after_days
        self._view = _View(Overrides())

    # --- pricing ----------------------------------------------------------------------------------------------

    def cost(
        self,
        provider: str | None,
        model: str,
        usage: TokenUsage,
        *,
        at: float | None = None,
        tier: str | None = None,
        batch: bool = False,
        reported_nano_usd: int | None = None,
    ) -> Cost:
        """What a call cost. Never raises for what a provider may report.

        Args:
            provider: who served it, as reported (``openai``, ``azure.ai.openai``, ``aws.bedrock`` …); ``None``
                for the model's own vendor, where its name leaves no doubt.
            model: as reported.
            usage: what was used.
            at: when the request was made, in unix seconds; now if ``None``.
            tier: the service tier it was served in (``priority``, ``flex``, ``fast`` …).
            batch: whether it was part of a batch.
            reported_nano_usd: what the provider itself says it cost, in nano-USD; that wins.

        >>> from tokenbudget_otel.usage import TokenUsage
        >>> cost = price_book().cost("openrouter", "openrouter/auto", TokenUsage(input_tokens=9), reported_nano_usd=42)
        >>> cost.nano_usd, cost.state, cost.source
        (42, 'priced', 'provider')
        """
        if reported_nano_usd is not None and reported_nano_usd >= 0:
            return Cost(reported_nano_usd, "priced")
        view = self._view
        try:
            tariff = view.tariffs[provider, model, tier, batch]
        except (KeyError, TypeError):
            tariff = self._tariff(view, provider, model, tier, batch)
        if tariff is None:
            return _UNKNOWN
        if at is None:
            at = time.time()
        card = tariff.card(at) if tariff.dated else tariff.only
        if card is None:
            if tariff.entry.free:
                return Cost(0, "free", tariff)
            return Cost(None, "unknown", tariff)
        nano_usd, unpriced = card.price(usage)
        if tariff.tier is not None and not tariff.missing and not tariff.in_force(at):
            unpriced += (f"tier:{tariff.tier}",)
        unpriced += tariff.missing
        if nano_usd is None:
            return Cost(None, "unknown", tariff, None, None, unpriced)
        if unpriced:
            return Cost(nano_usd, "partial", tariff, card, usage, unpriced)
        return Cost(nano_usd, "stale" if at > tariff.stale_after else "priced", tariff, card, usage)

    def cost_of_answer(
        self,
        provider: str,
        asked: str,
        answered: str | None,
        usage: TokenUsage,
        at: float,
        tier: str | None,
        batch: bool,
        reported_nano_usd: int | None = None,
    ) -> Cost:
        """:meth:`cost` of a call that asked for one model and, as it says, was answered by another: by the first of
        the two names (:func:`.names_to_price`) that has a price. The answer may name a snapshot that the catalog does
        not know yet, or a deployment; and what the program says of the name that it asks for goes before that.

        >>> from tokenbudget_otel.usage import TokenUsage
        >>> usage = TokenUsage(input_tokens=1000, output_tokens=100)
        >>> price_book().cost_of_answer("openai", "gpt-4o", "gpt-4o-9999-01-01", usage, 1_790_000_000, None, False).usd
        Decimal('0.0035')
        """
        view = self._view
        names: tuple[str, ...] = ()
        try:
            names, tariff = view.answers[provider, asked, answered, tier, batch]
        except (KeyError, TypeError):
            pass
        else:
            # What nearly every call comes to, in one go: one price at all times, and counts that came before.
            if (
                reported_nano_usd is None
                and tariff is not None
                and (card := tariff.only) is not None
                and tariff.tier is None
                and at <= tariff.stale_after
            ):
                known = usage.__dict__
                straight = card.straights.get(tuple(known))
                if straight is not None and (nano_usd := straight.price(*known.values())) is not None:
                    return Cost(nano_usd, "priced", tariff, card, usage)
        names = names or self._names(view, provider, asked, answered, tier, batch)
        found = None
        for name in names:
            cost = self.cost(provider, name, usage, at=at, tier=tier, batch=batch, reported_nano_usd=reported_nano_usd)
            if cost._nano_usd is not None:
                return cost
            found = found or cost
        assert found is not None
        return found

    def _names(
        self, view: _View, provider: str, asked: str, answered: str | None, tier: str | None, batch: bool
    ) -> tuple[str, ...]:
        names = names_to_price(provider, asked, answered)
        first = names[0]
        if first != asked and asked and self.sets(provider, asked) and not self.sets(provider, first):
            names = (asked, first)
        if view is self._view and isinstance(first, str) and (tier is None or isinstance(tier, str)):
            if len(view.answers) >= _MOST_CACHED:
                view.answers.clear()
            view.answers[provider, asked, answered, tier, batch] = (
                names,
                self._tariff(view, provider, first, tier, batch),
            )
        return names

    def expected(
        self,
        provider: str | None,
        model: str,
        *,
        input_tokens: int,
        output_tokens: int,
        at: float | None = None,
        tier: str | None = None,
    ) -> int | None:
        """Nano-USD of so many tokens at plain rates: nothing cached, no reasoning apart. ``None`` if unknown.

        >>> price_book().expected("openai", "gpt-4o", input_tokens=1000, output_tokens=100)
        3500000
        """
        usage = TokenUsage(input_tokens=input_tokens, output_tokens=output_tokens)
        return self.cost(provider, model, usage, at=at, tier=tier).nano_usd

    def bound(
        self,
        provider: str | None,
        model: str,
        *,
        input_tokens: int,
        output_tokens: int,
        at: float | None = None,
        horizon_s: float = 0.0,
        tier: str | None = None,
        batch: bool = False,
        cache_write_ttl: str | None = None,
        text_only: bool = False,
        extra: TokenUsage | None = None,
    ) -> int | None:
        """The most nano-USD that :meth:`cost` can say of a call within these counts; ``None`` if unknown.

        Args:
            input_tokens, output_tokens: the most that the call can use.
            at, horizon_s: the request is made between ``at`` and so many seconds later.
            tier: the tier asked for. Unless it is ``flex`` or a batch, the standard price counts as well (a
                provider may serve a call at it); ``"auto"`` counts every tier the model has.
            cache_write_ttl: the longest time to live of what the request writes to a cache (``5m``, ``30m``,
                ``1h``, ``12h``), or ``"none"`` if it writes nothing; ``None`` if that is not known.
            text_only: whether no token can be audio, image or video.
            extra: the most of other units: searches, images, seconds. Its tokens are not read.

        >>> book, many = price_book(), {"input_tokens": 10_000, "output_tokens": 1000, "at": 1_790_000_000}
        >>> book.bound("anthropic", "claude-haiku-4-5", cache_write_ttl="none", **many)
        15000000
        >>> book.bound("anthropic", "claude-haiku-4-5", cache_write_ttl="1h", **many)
        25000000
        """
        view = self._view
        tariff = self._tariff(view, provider, model, tier if tier != "auto" else None, batch)
        if tariff is None:
            return None
        start = time.time() if at is None else at
        ttl = cache_write_ttl
        most = None
        for one in self._reached(view, provider, model, tariff, tier, batch):
            for card in one.cards(start, start + max(horizon_s, 0.0)):
                amount = card.ceiling(input_tokens, output_tokens, ttl, text_only, extra)
                most = amount if most is None or amount > most else most
        if most is None:
            return 0 if tariff.entry.free else None
        return most

    def quote(
        self,
        provider: str | None,
        model: str,
        *,
        tier: str | None = None,
        batch: bool = False,
        cache_write_ttl: str | None = None,
        text_only: bool = False,
    ) -> Quote:
        """What :meth:`expected`, :meth:`bound` and :meth:`limits` say of requests to one model, made ready. It holds
        until prices are changed: ask for it anew with each call.

        >>> price_book().quote("openai", "gpt-4o").expected(1000, 100, 1_790_000_000)
        3500000
        """
        view = self._view
        try:
            return view.quotes[provider, model, tier, batch, cache_write_ttl, text_only]
        except (KeyError, TypeError):
            pass
        tariff = self._tariff(view, provider, model, tier if tier != "auto" else None, batch)
        reachable = () if tariff is None else self._reached(view, provider, model, tariff, tier, batch)
        quote = Quote(self._limits(view, provider, model), tariff, reachable, cache_write_ttl, text_only)
        if isinstance(model, str):
            if len(view.quotes) >= _MOST_CACHED:
                view.quotes.clear()
            view.quotes[provider, model, tier, batch, cache_write_ttl, text_only] = quote
        return quote

    def _reached(
        self, view: _View, provider: str | None, model: str, tariff: Tariff, tier: str | None, batch: bool
    ) -> tuple[Tariff, ...]:
        key = (provider, model, tier, batch)
        try:
            return view.reachable[key]
        except KeyError:
            if len(view.reachable) >= _MOST_CACHED:
                view.reachable.clear()
            reachable = view.reachable[key] = tuple(self._reachable(view, provider, model, tariff, tier))
            return reachable

    def _reachable(
        self, view: _View, provider: str | None, model: str, tariff: Tariff, tier: str | None
    ) -> Iterator[Tariff]:
        """Every tariff that a call may be billed by, of both sources where they differ."""
        found = self._find(view, provider, model)
        assert found is not None
        entries = [entry for entry in (found[0], found[0].other) if entry is not None]
        asked = frozenset(tariff.tier.split("+")) if tariff.tier else frozenset[str]()
        for entry in entries:
            tiers = {asked}
            if tier is not None and tier.strip().lower() == "auto":
                tiers |= {asked | {name} for name in entry.tiers} | {frozenset()}
            elif not asked & FIRM:
                tiers.add(frozenset())
            for names in tiers:
                if names and entry is not tariff.entry and not names <= entry.tiers:
                    continue
                yield Tariff(entry, names)

    def dearest(self, provider: str) -> str | None:
        """The model of a provider whose tokens cost most, as much input as output; ``None`` where none has a price.

        >>> price_book().dearest("groq") is not None, price_book().dearest("nobody")
        (True, None)
        """
        view = self._view
        if provider not in view.dearest:
            usage = TokenUsage(input_tokens=1_000_000, output_tokens=1_000_000)
            priced = [
                (nano_usd, model)
                for model in self.models(provider)
                if (nano_usd := self.cost(provider, model, usage).nano_usd) is not None
            ]
            if len(view.dearest) >= _MOST_CACHED:  # spans of others may name any provider
                view.dearest.clear()
            view.dearest[provider] = max(priced)[1] if priced else None
        return view.dearest[provider]

    def limits(self, provider: str | None, model: str) -> ModelLimits:
        """How much a model can take and give, as far as known.

        >>> price_book().limits("openai", "gpt-4o")
        ModelLimits(context_window=128000, max_output_tokens=16384)
        """
        view = self._view
        try:
            return view.limits[provider, model]
        except (KeyError, TypeError):
            return self._limits(view, provider, model)

    def _limits(self, view: _View, provider: str | None, model: str) -> ModelLimits:
        found = self._find(view, provider, model)
        if found is None:
            return _NO_LIMITS
        entry = found[0]
        context, output = entry.model.get("c"), entry.model.get("o")
        if entry.other is not None:
            context, output = context or entry.other.model.get("c"), output or entry.other.model.get("o")
        limits = ModelLimits(context, output)
        if len(view.limits) >= _MOST_CACHED:
            view.limits.clear()
        return view.limits.setdefault((provider, model), limits)

    # --- what is known ----------------------------------------------------------------------------------------

    def explain(self, provider: str | None, model: str) -> Explanation | None:
        """Where a model's price comes from; ``None`` if the model is not known.

        >>> found = price_book().explain("azure.ai.openai", "gpt-4o-2024-08-06")
        >>> found.provider, found.model, found.source.name
        ('azure', 'gpt-4o', 'genai-prices')
        """
        view = self._view
        found = self._find(view, provider, model)
        tariff = self._tariff(view, provider, model, None, False)
        if found is None or tariff is None:
            return None
        entry, listed_as = found
        if tariff.card(time.time()) is None:
            state = "free" if entry.free else "unknown"
        else:
            state = "stale" if time.time() > tariff.stale_after else "priced"
        return Explanation(
            entry.provider,
            entry.name,
            listed_as,
            state,
            entry.source,
            tuple(_lines(entry)),
            tuple(sorted(entry.tiers)),
            self.limits(provider, model),
            entry.other.source if entry.other is not None else None,
        )

    def providers(self) -> list[str]:
        """The names of all providers in the catalog and the overrides.

        >>> "openai" in price_book().providers()
        True
        """
        return sorted({*self._catalog().providers, *(entry.provider for entry in self._view.overrides)})

    def models(self, provider: str) -> list[str]:
        """The names of all models of a provider that have an entry.

        >>> "gpt-4o" in price_book().models("openai")
        True
        """
        catalog = self._catalog()
        known = catalog.provider(provider)
        listed = {name for name, _, _ in catalog.models(known)} if known else set()
        key = provider_key(provider)
        return sorted(listed | {entry.name for entry in self._view.overrides if entry.provider == key})

    def search(self, text: str) -> list[tuple[str, str]]:
        """Every ``(provider, model)`` whose name contains all words of a text.

        >>> ("deepseek", "deepseek-v4-pro") in price_book().search("deepseek v4 pro")
        True
        """
        words = text.lower().split()
        return [
            (provider, model)
            for provider in self.providers()
            for model in self.models(provider)
            if all(word in f"{provider} {model}".lower() for word in words)
        ]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of the catalog, with their versions and the day they were read.

        >>> [source.name for source in price_book().sources]
        ['genai-prices', 'litellm']
        """
        return self._catalog().sources

    @property
    def stale_after_days(self) -> float | None:
        """How many days after the catalog was read a price counts as stale; ``None``: never."""
        return self._stale_after_days

    @stale_after_days.setter
    def stale_after_days(self, days: float | None) -> None:
        if days is not None and not (isinstance(days, int | float) and days >= 0):
            raise ValueError(f"stale_after_days must be a number of at least 0 or None, not {days!r}")
        with self._lock:
            self._stale_after_days = days
            self._view = _View(self._view.overrides)

    # --- overrides --------------------------------------------------------------------------------------------

    def register_model(
        self,
        model: str,
        *,
        provider: str = ANY_PROVIDER,
        free: bool = False,
        tiers: Mapping[str, Mapping[str, PriceValue | None]] | None = None,
        above: Mapping[int, Mapping[str, PriceValue | None]] | None = None,
        context_window: int | None = None,
        max_output_tokens: int | None = None,
        **prices: PriceValue | None,
    ) -> None:
        """Set a model's prices; see :func:`tokenbudget_otel.pricing.register_model`."""
        entry = made_entry(
            model,
            provider,
            prices,
            Source("override"),
            free=free,
            tiers=tiers,
            above=above,
            context_window=context_window,
            max_output_tokens=max_output_tokens,
        )
        self._change([entry])

    def map_model(
        self, name: str, model: str, *, provider: str = ANY_PROVIDER, model_provider: str | None = None
    ) -> None:
        """Say which model a name means; see :func:`tokenbudget_otel.pricing.map_model`."""
        target = checked_name("model_provider", model_provider) if model_provider is not None else None
        key = provider_key(checked_name("provider", provider))
        self._change([], [(key, checked_name("name", name), Target(target, checked_name("model", model)))])

    def load_price_file(self, path: str | os.PathLike[str]) -> int:
        """Set what a file says; see :func:`tokenbudget_otel.pricing.load_price_file`."""
        from tokenbudget_otel.pricing.files import read_price_file

        models, aliases = read_price_file(path)
        self._change(models, aliases)
        return len(models) + len(aliases)

    def reset(self) -> None:
        """Forget all overrides, aliases and price files.

        >>> PriceBook().reset()
        """
        with self._lock:
            self._view = _View(Overrides())

    def _change(self, models: list[Entry], maps: list[tuple[str, str, Target]] | None = None) -> None:
        with self._lock:
            self._view = _View(self._view.overrides.adding(models, maps or ()))

    def sets(self, provider: str, model: str) -> bool:
        """Whether the program has said what this very name costs or means: an Azure deployment, a model of its own.

        >>> book = PriceBook()
        >>> book.map_model("prod-chat", "gpt-4o", provider="azure.ai.openai")
        >>> book.sets("azure.ai.openai", "Prod-Chat"), book.sets("azure.ai.openai", "gpt-4o")
        (True, False)
        """
        view = self._view
        if not view.overrides_any or not model.strip():
            return False
        overrides = view.overrides
        known = view.sets.get((provider, model))
        if known is None:
            key, name = provider_key(provider), model.strip().lower()
            known = overrides.model(key, name) is not None or overrides.target(key, name) is not None
            if len(view.sets) >= _MOST_CACHED:
                view.sets.clear()
            view.sets[provider, model] = known
        return known

    def load(self) -> None:
        """Read the catalog now (some milliseconds), and not when the first call is priced. Thread-safe.

        >>> PriceBook().load()
        """
        self._catalog()

    # --- finding ----------------------------------------------------------------------------------------------

    def _catalog(self) -> Catalog:
        return self._catalog_given or catalogs.load()

    def _tariff(self, view: _View, provider: str | None, model: str, tier: str | None, batch: bool) -> Tariff | None:
        try:
            return view.tariffs[provider, model, tier, batch]
        except (KeyError, TypeError):
            pass
        found = self._find(view, provider, model)
        if found is None:
            tariff = None
        else:
            entry = found[0]
            names = tier_name(tier if isinstance(tier, str) else None, bool(batch))
            if entry.other is not None and not names <= entry.tiers and names <= entry.other.tiers:
                entry = entry.other  # only the second source knows this tier
            tariff = Tariff(entry, names, self._stale_after(entry.source))
        if isinstance(model, str):
            if len(view.tariffs) >= _MOST_CACHED:
                view.tariffs.clear()
            view.tariffs[provider, model, tier, batch] = tariff
        return tariff

    def _stale_after(self, source: Source) -> float:
        if source.date is None or self._stale_after_days is None:
            return float("inf")
        read = datetime.fromisoformat(source.date).replace(tzinfo=UTC).timestamp()
        return read + self._stale_after_days * _DAY

    def _find(self, view: _View, provider: str | None, model: str) -> tuple[Entry, str] | None:
        if not isinstance(model, str) or not (provider is None or isinstance(provider, str)) or not model.strip():
            return None
        key = (provider, model)
        try:
            return view.found[key]
        except KeyError:
            pass
        found = self._find_in(view, provider, model)
        if len(view.found) >= _MOST_CACHED:
            view.found.clear()
        return view.found.setdefault(key, found)

    def _find_in(self, view: _View, provider: str | None, model: str) -> tuple[Entry, str] | None:
        catalog = self._catalog()
        provider = (provider or "").strip() or None
        if view.overrides:
            known = None
            if provider is not None:
                in_catalog = catalog.provider(provider)
                known = provider_id(provider) or (in_catalog.id if in_catalog else plain(provider))
            for name in spellings(known or "", model):
                if entry := view.overrides.model(known, name):
                    return entry, name
                if target := view.overrides.target(known, name):
                    return self._find_target(view, catalog, provider, target)
            if provider is None and (given := host_of(model)) and (entry := view.overrides.model(*given)):
                return entry, given[1]
        return catalog.find(provider, model)

    def _find_target(
        self, view: _View, catalog: Catalog, provider: str | None, target: Target
    ) -> tuple[Entry, str] | None:
        """A mapped name: one step, so that mappings cannot go round in circles."""
        of = target.provider or provider
        name = target.model.lower()
        if entry := view.overrides.model(provider_key(of) if of else None, name):
            return entry, name
        return catalog.find(of, name) or (catalog.find(None, name) if target.provider is None else None)


def _lines(entry: Entry) -> Iterator[PriceLine]:
    from tokenbudget_otel.pricing.units import PER

    listed = [("", made) for made in entry.conditions()]
    listed += [("tier " + "+".join(made["w"]), made) for made in (entry.model.get("v", []) if entry.owned else [])]
    for tier, made in listed:
        when = tier
        if "s" in made:
            when = f"{when} since {made['s']}".strip()
        if "t" in made:
            start, end = made["t"]
            when = f"{when} {start // 3600:02}:{start // 60 % 60:02}-{end // 3600:02}:{end // 60 % 60:02} UTC".strip()
        for unit, rate in made["p"].items():
            levels = [(0, rate)] if isinstance(rate, str) else [(0, rate[0]), *rate[1:]]
            for above, usd in levels:
                yield PriceLine(when, unit, usd, PER[unit], above)


_lock = threading.Lock()
_book: PriceBook | None = None


def price_book() -> PriceBook:
    """The price book of this process.

    >>> price_book() is price_book()
    True
    """
    global _book
    if _book is None:
        with _lock:
            if _book is None:
                _book = PriceBook()
    return _book


__all__ = ["Explanation", "ModelLimits", "PriceBook", "PriceLine", "price_book"]
