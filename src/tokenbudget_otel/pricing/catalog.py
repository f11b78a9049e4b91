"""The catalog that ships with the package: loaded on first use, looked up by provider and name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from tokenbudget_otel.pricing.card import has_positive
from tokenbudget_otel.pricing.names import (
    Clause,
    dashed_date,
    host_of,
    matches,
    names_a_model,
    own_vendor,
    plain,
    provider_id,
    spellings,
)
from tokenbudget_otel.pricing.tariff import Entry, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenbudget_otel.pricing.tariff import Model


class Provider:
    """One provider's models. They are read, and their index made, when the provider is first asked for one."""

    __slots__ = ("_clauses", "_exact", "_lines", "_lock", "_read", "clause", "fallback", "id", "name")

    def __init__(self, name: str, about: dict[str, Any], lines: bytes) -> None:
        self.id = name
        self.name: str = about["name"]
        self.clause: Clause | None = about.get("match")
        """Which models are its own when no provider is named."""
        self.fallback: list[str] = about.get("fallback", [])
        """Whose models it sells as well, at their price."""
        self._lines = lines
        self._read: tuple[list[Model], dict[str, Model]] | None = None
        self._exact: dict[str, int] | None = None
        self._clauses: list[tuple[int, Clause]] = []
        self._lock = threading.Lock()

    def _content(self) -> tuple[list[Model], dict[str, Model]]:
        if self._read is None:
            import json

            made = json.loads(self._lines)
            self._read = made["models"], made.get("extra", {})
        return self._read

    @property
    def models(self) -> list[Model]:
        """Models that the first source has, in its order."""
        return self._content()[0]

    @property
    def extra(self) -> dict[str, Model]:
        """Models by name that only the second source has, or has otherwise."""
        return self._content()[1]

    def match(self, name: str) -> Model | None:
        """The first model in the catalog's order one of whose clauses matches."""
        if self._exact is None:
            self._index()
        assert self._exact is not None
        models = self.models
        first = self._exact.get(name, len(models))
        for index, clause in self._clauses:
            if index >= first:
                break
            if matches(clause, name):
                return models[index]
        return models[first] if first < len(models) else None

    def _index(self) -> None:
        with self._lock:
            if self._exact is not None:
                return
            exact: dict[str, int] = {}
            for index, model in enumerate(self.models):
                clause = model.get("m", "=" + model["id"].lower())
                for part in clause if isinstance(clause, list) and clause[0] != "&" else [clause]:
                    if isinstance(part, str) and part[0] == "=":
                        exact.setdefault(part[1:], index)
                    else:
                        self._clauses.append((index, part))
            self._exact = exact


class Catalog:
    """All providers. Made by :func:`load`."""

    def __init__(self, lines: bytes) -> None:
        import json

        # The first line says who the providers are, each line after it lists the models of one.
        first, *others = lines.splitlines()
        raw = json.loads(first)
        self.sources = tuple(Source(**source) for source in raw["sources"])
        self.providers = {
            name: Provider(name, about, line)
            for (name, about), line in zip(raw["providers"].items(), others, strict=True)
        }
        self._ids = {plain(name): name for name in self.providers}

    def provider(self, name: str) -> Provider | None:
        """The provider that a reported name means."""
        known = provider_id(name) or self._ids.get(plain(name))
        return self.providers.get(known) if known is not None else None

    def find(self, provider: str | None, reported: str) -> tuple[Entry, str] | None:
        """The entry for a reported name, and the spelling of the name that is listed.

        Without a provider, the model's own vendor is taken where the name leaves no doubt.
        """
        if provider is None:
            return self._find_anywhere(reported)
        if plain(provider) == "litellm":
            # The proxy writes the provider in front of the model.
            head, _, tail = reported.strip().partition("/")
            host = self.provider(head) if tail else None
            return self._find_in(host, tail) if host else self._find_anywhere(reported)
        known = self.provider(provider)
        return self._find_in(known, reported) if known else None

    def _find_anywhere(self, reported: str) -> tuple[Entry, str] | None:
        if (given := host_of(reported)) and (known := self.provider(given[0])):
            return self._find_in(known, given[1])
        name = reported.strip().lower()
        vendor = own_vendor(name)
        found = [
            entry
            for candidate in self.providers.values()
            if (candidate.id == vendor or (candidate.clause is not None and matches(candidate.clause, name)))
            and (entry := self._find_in(candidate, name))
        ]
        return found[0] if len(found) == 1 else None

    def _find_in(self, provider: Provider, reported: str) -> tuple[Entry, str] | None:
        for name in spellings(provider.id, reported):
            if name.startswith("arn:") and not names_a_model(name):
                continue
            second = provider.extra.get(name)
            for listed in dict.fromkeys((name, dashed_date(name))):
                if found := self._match(provider, listed):
                    owner, model = found
                    second = second or (provider.extra.get(model["id"].lower()) if owner is provider else None)
                    other = Entry(provider.id, name, second, self.sources[1]) if second else None
                    if other and not _priced(model):
                        return other, name
                    return Entry(
                        provider.id, model["id"], model, self.sources[0], owned=owner is provider, other=other
                    ), name
            if second:
                return Entry(provider.id, name, second, self.sources[1]), name
        return None

    def _match(self, provider: Provider, name: str) -> tuple[Provider, Model] | None:
        if model := provider.match(name):
            return provider, model
        for other in provider.fallback:
            if model := self.providers[other].match(name):
                return self.providers[other], model
        return None

    def models(self, provider: Provider) -> Iterator[tuple[str, Model, Source]]:
        """Every model of a provider that one of the sources prices, by name."""
        seen = set()
        for model in provider.models:
            seen.add(model["id"].lower())
            yield model["id"], model, self.sources[0]
        for name, model in provider.extra.items():
            if name not in seen and not self._match(provider, name):
                yield name, model, self.sources[1]


def _priced(model: Model) -> bool:
    prices = model["p"]
    listed = [made["p"] for made in prices] if isinstance(prices, list) else [prices]
    return bool(model.get("free")) or any(has_positive(made) for made in listed)


_lock = threading.Lock()
_loaded: Catalog | None = None


def load() -> Catalog:
    """The catalog of this package: read once, on first use, by whichever thread comes first."""
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = read()
    return _loaded


def read() -> Catalog:
    """Read the catalog anew."""
    import gzip
    import pkgutil

    packed = pkgutil.get_data("tokenbudget_otel.pricing", "data/catalog.json.gz")
    assert packed is not None
    return Catalog(gzip.decompress(packed))
