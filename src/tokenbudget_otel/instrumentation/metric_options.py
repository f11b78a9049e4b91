"""Which names metrics have, and which tags they carry: options of the instrumentors, or of the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tokenbudget_otel.instrumentation.guard import tell_once
from tokenbudget_otel.tags import checked_tags

NAMES_ENVIRONMENT: Final = "TOKENBUDGET_METRIC_NAMES"
TAGS_ENVIRONMENT: Final = "TOKENBUDGET_METRIC_TAGS"

NAMES: Final = ("current", "coming", "both")
"""The names that metrics may have: those that the newest official packages emit, those that the conventions have
agreed on and no official package emits yet, or each of them."""


@dataclass(frozen=True, slots=True)
class MetricOptions:
    """How calls are measured.

    Attributes:
        current: whether metrics have the names that are in use.
        coming: whether they have those that are coming.
        tags: which tags of a call become attributes of its metrics.
    """

    current: bool = True
    coming: bool = False
    tags: tuple[str, ...] = ()


def metric_options(names: str | None = None, tags: Iterable[str] | None = None) -> MetricOptions:
    """The options as given, or else as ``TOKENBUDGET_METRIC_NAMES`` and ``TOKENBUDGET_METRIC_TAGS`` have them.

    Raises:
        ValueError: for names that are none of :data:`NAMES`, or tags that cannot be. The environment never raises: what
            it says wrongly is logged once, and left out.

    >>> metric_options("both", ("tenant",))
    MetricOptions(current=True, coming=True, tags=('tenant',))
    """
    if names is None:
        names = _names_of_environment()
    elif names not in NAMES:
        raise ValueError(f"metric_names must be one of {_listed()}, not {names!r}")
    named = _tags_of_environment() if tags is None else _checked(tags)
    return MetricOptions(names != "coming", names != "current", named)


def _listed() -> str:
    return ", ".join(map(repr, NAMES))


def _checked(tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise ValueError(f"metric_tags must be several names, such as ({tags!r},), not the string {tags!r}")
    named = tuple(dict.fromkeys(tags))
    for name in named:
        if not isinstance(name, str):
            raise ValueError(f"metric_tags must be names of tags, not {name!r}")
        checked_tags({name: "any"})
    return named


def _names_of_environment() -> str:
    value = os.environ.get(NAMES_ENVIRONMENT, "").strip().lower()
    if not value or value in NAMES:
        return value or NAMES[0]
    tell_once(
        NAMES_ENVIRONMENT,
        "%s is %r; known are %s. Metrics have the %s names.",
        NAMES_ENVIRONMENT,
        value,
        _listed(),
        NAMES[0],
    )
    return NAMES[0]


def _tags_of_environment() -> tuple[str, ...]:
    named: dict[str, None] = {}
    for part in os.environ.get(TAGS_ENVIRONMENT, "").split(","):
        if name := part.strip():
            try:
                _checked((name,))
            except ValueError as error:
                tell_once(
                    f"{TAGS_ENVIRONMENT} {name}", "%s names a tag that cannot be: %s. It is left out.",
                    TAGS_ENVIRONMENT, error,
                )  # fmt: skip
            else:
                named[name] = None
    return tuple(named)
