"""Setting many attributes of a span at once."""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import Span

_PLAIN: Final = frozenset((str, bool, int, float, tuple))
"""Types of values that a span takes as they are."""


class _KnownSpan:
    """The class of the OpenTelemetry SDK whose spans are as we know them."""

    def __init__(self) -> None:
        self.kind: Any = None
        self.setter: Any = None

    def learn(self, span: Span) -> bool:
        """Whether ``span`` is one of the SDK's own, made as we know them."""
        sdk: Any = sys.modules.get("opentelemetry.sdk.trace")
        if sdk is None or type(span) is not getattr(sdk, "_Span", None):
            return False
        setter = type(span).set_attributes
        if type(setter) is not FunctionType or setter.__globals__ is not vars(sdk):
            return False  # somebody wants to see what is set
        held = vars(span)
        attributes = held.get("_attributes")
        if "_lock" not in held or "_end_time" not in held or type(attributes) is not BoundedAttributes:
            return False
        parts = vars(attributes)
        if type(parts.get("_dict")) is not dict or type(parts.get("_immutable")) is not bool or "_lock" not in parts:
            return False
        self.kind, self.setter = type(span), setter
        return True


_known: Final = _KnownSpan()


def set_clean(span: Span, attributes: dict[str, Any]) -> None:
    """``span.set_attributes(attributes)`` at a fraction of what it takes: the SDK cleans and stores values one by one.

    Names must be strings that are not empty, and a tuple hold only what may stand in one. Where a value is of any other
    type, the span is no recording one of the SDK's own, values have a longest length or there is no room for all of
    them, the span is told in the public way.
    """
    own: Any = span
    if (
        (type(own) is _known.kind and type(own).set_attributes is _known.setter) or _known.learn(span)
    ) and _PLAIN.issuperset(map(type, attributes.values())):
        with own._lock:
            target = own._attributes
            if own._end_time is None and target.max_value_len is None and not target._immutable:
                with target._lock:
                    held = target._dict
                    if target.maxlen is None or len(held) + len(attributes) <= target.maxlen:
                        if not held.keys().isdisjoint(attributes):
                            for name in attributes:  # what is set anew stands last
                                held.pop(name, None)
                        held.update(attributes)
                        return
    span.set_attributes(attributes)
