"""Prices that users set: checked when they are given, and turned into entries like those of the catalog."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tokenbudget_otel.pricing.names import plain, provider_id
from tokenbudget_otel.pricing.tariff import Entry, Model, Source
from tokenbudget_otel.pricing.units import PER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PriceValue = int | float | str | Decimal
"""A price in US dollars."""

ANY_PROVIDER: Final = "custom"
"""The provider under which a model is meant whoever serves it."""

# Field: unit, and how many of the unit the field's price pays for.
PRICE_FIELDS: Final[dict[str, tuple[str, int]]] = {
    "input_per_1m": ("input_tokens", 1_000_000),
    "output_per_1m": ("output_tokens", 1_000_000),
    "cache_read_per_1m": ("cache_read_tokens", 1_000_000),
    "cache_write_per_1m": ("cache_write_tokens", 1_000_000),
    "cache_write_5m_per_1m": ("cache_write_5m_tokens", 1_000_000),
    "cache_write_30m_per_1m": ("cache_write_30m_tokens", 1_000_000),
    "cache_write_1h_per_1m": ("cache_write_1h_tokens", 1_000_000),
    "cache_write_12h_per_1m": ("cache_write_12h_tokens", 1_000_000),
    "reasoning_per_1m": ("reasoning_tokens", 1_000_000),
    "citation_per_1m": ("citation_tokens", 1_000_000),
    "tool_use_input_per_1m": ("tool_use_input_tokens", 1_000_000),
    "input_audio_per_1m": ("input_audio_tokens", 1_000_000),
    "input_image_per_1m": ("input_image_tokens", 1_000_000),
    "input_video_per_1m": ("input_video_tokens", 1_000_000),
    "cache_read_audio_per_1m": ("cache_read_audio_tokens", 1_000_000),
    "cache_read_image_per_1m": ("cache_read_image_tokens", 1_000_000),
    "output_audio_per_1m": ("output_audio_tokens", 1_000_000),
    "output_image_per_1m": ("output_image_tokens", 1_000_000),
    "output_video_per_1m": ("output_video_tokens", 1_000_000),
    "characters_per_1m": ("input_characters", 1_000_000),
    "input_audio_per_minute": ("input_audio_seconds", 60),
    "output_audio_per_minute": ("output_audio_seconds", 60),
    "input_image_each": ("input_images", 1),
    "output_image_each": ("output_images", 1),
    "page_each": ("document_pages", 1),
    "annotated_page_each": ("annotated_document_pages", 1),
    "web_searches_per_1k": ("web_searches", 1_000),
    "web_fetches_per_1k": ("web_fetches", 1_000),
    "file_searches_per_1k": ("file_searches", 1_000),
    "social_searches_per_1k": ("social_searches", 1_000),
    "rerank_searches_per_1k": ("rerank_searches", 1_000),
    "code_executions_per_1k": ("code_executions", 1_000),
    "computer_calls_per_1k": ("computer_calls", 1_000),
    "request_each": ("requests", 1),
}
"""The prices that can be set, all in US dollars."""

# Parts whose whole must have a price too: without it, what is not such a part would be free.
_WHOLES: Final = {
    "cache_write_5m_tokens": "cache_write_tokens",
    "cache_write_30m_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "cache_write_12h_tokens": "cache_write_tokens",
    "cache_read_audio_tokens": "cache_read_tokens",
    "cache_read_image_tokens": "cache_read_tokens",
    "annotated_document_pages": "document_pages",
    **dict.fromkeys(
        (
            "cache_read_tokens",
            "cache_write_tokens",
            "tool_use_input_tokens",
            "input_audio_tokens",
            "input_image_tokens",
            "input_video_tokens",
        ),
        "input_tokens",
    ),
    **dict.fromkeys(
        ("reasoning_tokens", "citation_tokens", "output_audio_tokens", "output_image_tokens", "output_video_tokens"),
        "output_tokens",
    ),
}


class PriceFileError(ValueError):
    """A price file that cannot be used. The message names the file, the entry and the field."""


class Target(NamedTuple):
    """What a reported name stands for."""

    provider: str | None
    model: str


class Overrides:
    """What users have set. Never changed in place: each setting makes another."""

    __slots__ = ("_maps", "_models")

    def __init__(
        self,
        models: Mapping[tuple[str, str], Entry] | None = None,
        maps: Mapping[tuple[str, str], Target] | None = None,
    ) -> None:
        self._models = dict(models or {})
        self._maps = dict(maps or {})

    def __bool__(self) -> bool:
        return bool(self._models or self._maps)

    def __iter__(self) -> Any:
        return iter(self._models.values())

    def adding(self, models: Iterable[Entry], maps: Iterable[tuple[str, str, Target]] = ()) -> Overrides:
        """A copy with these in addition; later ones replace earlier ones of the same name."""
        return Overrides(
            {**self._models, **{(entry.provider, entry.name.lower()): entry for entry in models}},
            {**self._maps, **{(provider, model.lower()): target for provider, model, target in maps}},
        )

    def model(self, provider: str | None, name: str) -> Entry | None:
        """The entry for a provider and a name in lower case, or for that name of any provider."""
        found = self._models.get((provider, name)) if provider else None
        return found or self._models.get((ANY_PROVIDER, name)) or (self._only(name) if provider is None else None)

    def _only(self, name: str) -> Entry | None:
        found = [entry for (_, model), entry in self._models.items() if model == name]
        return found[0] if len(found) == 1 else None

    def target(self, provider: str | None, name: str) -> Target | None:
        """What a name is mapped to."""
        return (self._maps.get((provider, name)) if provider else None) or self._maps.get((ANY_PROVIDER, name))


def provider_key(provider: str) -> str:
    """The name under which overrides of a provider are kept."""
    return provider_id(provider) or plain(provider)


def made_entry(
    model: object,
    provider: object,
    prices: Mapping[str, object],
    source: Source,
    *,
    free: object = False,
    tiers: object = None,
    above: object = None,
    context_window: object = None,
    max_output_tokens: object = None,
) -> Entry:
    """Check what a user says of a model.

    Raises:
        ValueError, TypeError: naming the field and what is wrong with it.
    """
    name = checked_name("model", model)
    if not isinstance(free, bool):
        raise TypeError(f"free must be true or false, not {free!r}")
    listed = checked_prices(prices)
    if not listed and not free:
        raise ValueError("a model needs at least one price, or free=True")
    if free and any(usd > 0 for usd in listed.values()):
        raise ValueError("a model cannot be free and have a price")
    if listed and not free and not any(usd > 0 for usd in listed.values()):
        raise ValueError("all prices are 0: say free=True if the model is free, or leave it unknown")
    made: Model = {"p": {} if free else _levelled(listed, above)}
    if free:
        made["free"] = 1
    if tiers is not None:
        made["v"] = [
            {"w": [tier.strip().lower()], "p": {unit: _text(usd) for unit, usd in checked_prices(part).items()}}
            for tier, part in _checked_tables("tiers", tiers)
        ]
    for field, key, value in (("context_window", "c", context_window), ("max_output_tokens", "o", max_output_tokens)):
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise ValueError(f"{field} must be a whole number above 0, not {value!r}")
            made[key] = value
    return Entry(provider_key(checked_name("provider", provider)), name, made, source)


def checked_name(field: str, value: object) -> str:
    """A name that is not empty, without the space around it."""
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a text, not {value!r}")
    if not value.strip():
        raise ValueError(f"{field} must not be empty")
    return value.strip()


def checked_prices(prices: Mapping[str, object]) -> dict[str, Decimal]:
    """USD for ``PER[unit]`` by unit; fields that are ``None`` are left out."""
    found: dict[str, Decimal] = {}
    for field, value in prices.items():
        if field not in PRICE_FIELDS:
            raise TypeError(f"unknown field {field!r}; known prices are {', '.join(PRICE_FIELDS)}")
        if value is None:
            continue
        unit, count = PRICE_FIELDS[field]
        found[unit] = _usd(field, value) * PER[unit] / count
    for unit in found:
        if (whole := _WHOLES.get(unit)) and whole not in found:
            raise ValueError(f"{_field_of(unit)} needs {_field_of(whole)} as well")
    return found


def _usd(field: str, value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise TypeError(f"{field} must be a price in US dollars, not {value!r}")
    try:
        usd = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{field} must be a price in US dollars, not {value!r}") from None
    if not usd.is_finite() or usd < 0:
        raise ValueError(f"{field} must be a finite price of at least 0, not {value!r}")
    if usd > 1_000_000 or (usd and math.log10(float(usd)) < -15):
        raise ValueError(f"{field} is not a price in US dollars that can be meant: {value!r}")
    return usd


def _field_of(unit: str) -> str:
    return next(field for field, (priced, _) in PRICE_FIELDS.items() if priced == unit)


def _checked_tables(field: str, value: object) -> list[tuple[Any, Any]]:
    if not isinstance(value, dict) or not all(isinstance(part, dict) and part for part in value.values()):
        raise TypeError(f"{field} must map each of its names to a table of prices, not {value!r}")
    return list(value.items())


def _levelled(listed: Mapping[str, Decimal], above: object) -> dict[str, Any]:
    prices: dict[str, Any] = {unit: [_text(usd)] for unit, usd in listed.items()}
    levels = []
    for start, part in _checked_tables("above", above) if above is not None else ():
        text = str(start)
        if isinstance(start, bool) or not text.isdigit() or int(text) <= 0:
            raise ValueError(f"above: {start!r} is not a number of input tokens")
        levels.append((int(text), checked_prices(part)))
    for start, part in sorted(levels, key=lambda level: level[0]):
        for unit, usd in part.items():
            if unit not in prices:
                raise ValueError(f"above: {_field_of(unit)} needs a price below {start} input tokens as well")
            prices[unit].append([start, _text(usd)])
    return {unit: rate[0] if len(rate) == 1 else rate for unit, rate in prices.items()}


def _text(usd: Decimal) -> str:
    return f"{usd:f}"
