"""Writing to a span that has ended and has not been exported."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import Span

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects import COVERED_BY
from tokenbudget_otel.forks import renew_after_fork

_ESSENTIAL: Final = 2
"""How many of the attributes are set even where others have to go for them: the cost and its state."""

_ORDER: Final = {
    name: index
    for index, name in enumerate(
        (
            semconv.USAGE_COST,
            semconv.COST_STATE,
            semconv.CALL_ID,
            COVERED_BY,
            semconv.USAGE_ESTIMATED,
            semconv.COST_SOURCE,
            semconv.COST_UNPRICED,
            semconv.COST_MODEL,
            semconv.COST_SOURCE_VERSION,
        )
    )
}


class _Freeze:
    """The lock under which attributes are thawed: two processors may be at one span."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()


_freeze: Final = _Freeze()


def write_frozen(span: Any, attributes: Mapping[str, Any]) -> bool:
    """Add attributes to a span that has ended and has not been exported. Whether that could be done.

    SDK 1.45 freezes the attributes of a span before it tells processors that it ends, and hands the same
    attributes to all of them. There is no public way that works in any order of processors, so the freeze is
    lifted for the moment, where it is as we know it. Limits of the span hold.
    """
    target = getattr(span, "_attributes", None)
    if isinstance(target, dict | MappingProxyType):
        # A span that somebody has made anew for the processors, all of which get this one (logfire does).
        span._attributes = {**target, **attributes}
        return True
    if not isinstance(target, BoundedAttributes) or not isinstance(getattr(target, "_immutable", None), bool):
        return False
    fitting = sorted(attributes, key=lambda name: _ORDER.get(name, len(_ORDER)))
    if target.maxlen is not None:
        room = target.maxlen - len(target)
        new = [name for name in fitting if name not in target]
        dropped = set(new[max(room, _ESSENTIAL) :])
        fitting = [name for name in fitting if name not in dropped]
    with _freeze.lock:
        frozen = target._immutable
        target._immutable = False
        try:
            for name in fitting:
                target[name] = attributes[name]
        finally:
            target._immutable = frozen
    return target.maxlen == 0 or all(name in target for name in fitting[:1])


def write(span: Any, attributes: Mapping[str, Any]) -> bool:
    """Add attributes to a span, whether it records or has just ended. Whether that could be done."""
    if isinstance(span, Span) and span.is_recording():
        # As the specification has it. SDK 1.45 is not there yet.
        span.set_attributes(attributes)
        return True
    return write_frozen(span, attributes)
