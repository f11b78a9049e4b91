"""What a door reads off a request and a response: plain data, the same for every provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tokenbudget_otel.instrumentation.fields import NOTHING, Fields, plain_models, way_of, ways
from tokenbudget_otel.meter import Reading
from tokenbudget_otel.usage import TokenUsage


@dataclass(slots=True)
class ResponseFacts:
    """What a response says about itself.

    Attributes:
        usage: what it says was used; ``None`` where it says nothing.
        estimated: whether the usage is an estimate of ours.
        status: where the response stands, for APIs that have such a thing (``completed``, ``queued`` …).
        background: whether the provider goes on working on it after the connection is closed.
        error: the error that the response itself reports (an in-stream error event, a failed response):
            its type and its message.
        attributes: further span attributes.
        output: makes the output messages, given these facts; only there when content is captured.
        more: what else the answer said, for the provider file that read it.
    """

    id: str | None = None
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: TokenUsage | None = None
    estimated: bool = False
    tier: str | None = None
    reported_nano_usd: int | None = None
    status: str | None = None
    background: bool = False
    error: tuple[str, str] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    output: Callable[[ResponseFacts], list[dict[str, Any]]] | None = None
    more: Any = None

    @property
    def unfinished(self) -> bool:
        """Whether the usage will only be known later, by retrieving the response."""
        return self.background and self.usage is None and self.status in ("queued", "in_progress")

    def reading(self) -> Reading:
        """The part of it that the meter books."""
        return Reading(self.usage, self.model, self.tier, self.reported_nano_usd, self.estimated)


def get(source: Any, *path: str) -> Any:
    """Follow ``path`` through mappings and objects; ``None`` where it ends early.

    SDKs give typed objects, raw responses give dictionaries; both are read by the same tables.
    """
    for name in path:
        if type(source) is dict:
            source = source.get(name)
        elif source is None:
            return None
        else:
            way = ways.get(type(source)) or way_of(source)
            source = way.get(source, name)
    return source


def fields(source: Any) -> Fields:
    """The fields of an object or a mapping, for reading many of them: its ``get(name)`` is ``get(source, name)``. To be
    used at once, and never written to.

    >>> fields({"id": "msg_1"}).get("id"), fields(None).get("id")
    ('msg_1', None)
    """
    kind: type = type(source)
    if kind is dict:
        known: dict[str, Any] = source
        return known
    if source is None:
        return NOTHING
    if kind in plain_models:
        # As the way of its class does it: one call less, many times for each answer.
        known = source.__dict__
        try:
            extra = source.__pydantic_extra__
        except AttributeError:  # made without its fields
            return known
        return {**extra, **known} if extra else known
    way = ways.get(kind) or way_of(source)
    return way.fields(source)


def text(value: Any) -> str | None:
    """``value`` if it is a string with something in it."""
    return value if isinstance(value, str) and value else None


def is_count(value: Any) -> bool:
    """Whether ``value`` can be a count: a whole number that is not negative, and no boolean."""
    if type(value) is int:
        return value >= 0
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def positive(value: Any) -> int | None:
    """``value`` if it is a limit or a number of things: a count above zero."""
    if value is None:
        return None
    return value if is_count(value) and value > 0 else None


def listed(value: Any) -> Iterable[Any]:
    """``value`` if it is a list, and nothing otherwise."""
    return value if isinstance(value, list | tuple) else ()
