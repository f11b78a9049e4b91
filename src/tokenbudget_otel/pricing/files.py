"""Price files: prices and names of a user's own, in TOML or JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from tokenbudget_otel.pricing.overrides import (
    ANY_PROVIDER,
    PRICE_FIELDS,
    PriceFileError,
    Target,
    checked_name,
    made_entry,
    provider_key,
)
from tokenbudget_otel.pricing.tariff import Entry, Source

_MODEL_FIELDS: Final = frozenset(
    ("model", "provider", "free", "tiers", "above", "context_window", "max_output_tokens", *PRICE_FIELDS)
)
_ALIAS_FIELDS: Final = frozenset(("name", "provider", "model", "model_provider"))


def read_price_file(path: str | os.PathLike[str]) -> tuple[list[Entry], list[tuple[str, str, Target]]]:
    """The models and the aliases in a price file.

    Raises:
        PriceFileError: for whatever is wrong with it.
    """
    file = Path(path)
    content = _read(file)
    unknown = sorted(set(content) - {"model", "alias"})
    if unknown:
        raise PriceFileError(f"{file}: unknown entry {unknown[0]!r}; a price file has [[model]] and [[alias]] entries")
    source = Source("file", file.name)
    models = [_model(file, number, made, source) for number, made in _entries(file, content, "model")]
    aliases = [_alias(file, number, made) for number, made in _entries(file, content, "alias")]
    if not models and not aliases:
        raise PriceFileError(f"{file}: no [[model]] and no [[alias]] entry")
    return models, aliases


def _read(file: Path) -> dict[str, Any]:
    import json
    import tomllib
    from decimal import Decimal

    kind = file.suffix.lower()
    if kind not in (".toml", ".json"):
        raise PriceFileError(f"{file}: a price file ends in .toml or .json")
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as problem:
        raise PriceFileError(f"{file}: cannot be read: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise PriceFileError(f"{file}: is not UTF-8 text: {problem.reason} at byte {problem.start}") from None
    try:
        if kind == ".toml":
            content: object = tomllib.loads(text, parse_float=Decimal)
        else:
            content = json.loads(text, parse_float=Decimal)
    except RecursionError:
        raise PriceFileError(f"{file}: is nested too deeply") from None
    except ValueError as problem:
        raise PriceFileError(f"{file}: is not valid {kind[1:].upper()}: {problem}") from None
    if not isinstance(content, dict):
        raise PriceFileError(f"{file}: must be an object with the lists 'model' and 'alias'")
    return content


def _entries(file: Path, content: dict[str, Any], kind: str) -> list[tuple[int, dict[str, Any]]]:
    listed = content.get(kind, [])
    if not isinstance(listed, list) or not all(isinstance(made, dict) for made in listed):
        raise PriceFileError(f"{file}: {kind!r} must be a list of entries ([[{kind}]] in TOML)")
    return list(enumerate(listed, 1))


def _model(file: Path, number: int, made: dict[str, Any], source: Source) -> Entry:
    where = f"{file}: model {number}" + (f" ({made['model']!r})" if "model" in made else "")
    unknown = sorted(set(made) - _MODEL_FIELDS)
    if unknown:
        raise PriceFileError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(_MODEL_FIELDS))}")
    try:
        return made_entry(
            made.get("model"),
            made.get("provider", ANY_PROVIDER),
            {field: value for field, value in made.items() if field in PRICE_FIELDS},
            source,
            free=made.get("free", False),
            tiers=made.get("tiers"),
            above=made.get("above"),
            context_window=made.get("context_window"),
            max_output_tokens=made.get("max_output_tokens"),
        )
    except (TypeError, ValueError) as problem:
        raise PriceFileError(f"{where}: {problem}") from None


def _alias(file: Path, number: int, made: dict[str, Any]) -> tuple[str, str, Target]:
    where = f"{file}: alias {number}" + (f" ({made['name']!r})" if "name" in made else "")
    unknown = sorted(set(made) - _ALIAS_FIELDS)
    if unknown:
        raise PriceFileError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(_ALIAS_FIELDS))}")
    try:
        provider = checked_name("provider", made.get("provider", ANY_PROVIDER))
        name = checked_name("name", made.get("name"))
        model = checked_name("model", made.get("model"))
        target = checked_name("model_provider", made["model_provider"]) if "model_provider" in made else None
    except (TypeError, ValueError) as problem:
        raise PriceFileError(f"{where}: {problem}") from None
    return provider_key(provider), name, Target(target, model)
