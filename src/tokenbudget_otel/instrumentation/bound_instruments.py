"""Instruments that are bound to the attributes of a series, so that what is recorded again and again costs little.

The public way of OpenTelemetry cleans, sorts and hashes the attributes of every measurement anew: 6 to 9 microseconds
each. A :class:`Ground` remembers, for one meter of the SDK, where a series goes (:mod:`.bound_series`); for a meter
that is anything else, or made otherwise than we know it, every measurement goes the public way.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.context import Context, get_current
from opentelemetry.metrics import Counter, Histogram, NoOpCounter, NoOpHistogram
from opentelemetry.trace import INVALID_SPAN, Span, TraceFlags, get_current_span

if TYPE_CHECKING:
    from tokenbudget_otel.instrumentation.bound_series import Stream

BINDING: bool = True
"""Whether instruments are bound at all. May be set before anything is recorded."""

MAX_GAPS = 256
"""Of so many values at once, a random sample goes the public way. May be set."""

Moment = tuple[int, Context, "tuple[int, int] | None"]
"""When and where something is measured, for exemplars: the time, the context, and the ids of span and trace there."""

_INFINITE: Final = float("inf")


class Series(Protocol):
    """An instrument with attributes."""

    def put(self, value: float, context: Context | None, moment: Moment | None) -> None:
        """Add or record a value. ``moment`` is what :meth:`Ground.moment` says of the context."""

    def put_all(self, values: Sequence[float], context: Context | None, moment: Moment | None) -> None:
        """Record doubles, in this order. There is at least one."""


class Public:
    """A series that is told to the instrument in the public way."""

    __slots__ = ("_attributes", "_tell")

    def __init__(self, instrument: Counter | Histogram, attributes: Mapping[str, Any]) -> None:
        self._tell: Callable[..., None] = instrument.record if isinstance(instrument, Histogram) else instrument.add
        self._attributes = attributes

    def put(self, value: float, context: Context | None, moment: Moment | None) -> None:
        self._tell(value, dict(self._attributes), context)

    def put_all(self, values: Sequence[float], context: Context | None, moment: Moment | None) -> None:
        if len(values) > MAX_GAPS:
            values = random.sample(values, MAX_GAPS)
        for value in values:
            self._tell(value, dict(self._attributes), context)


class Several:
    """A series that goes to several readers or views, or to none."""

    __slots__ = ("_each", "_public")

    def __init__(self, each: Sequence[Series], public: Public) -> None:
        self._each = each
        self._public = public

    def put(self, value: float, context: Context | None, moment: Moment | None) -> None:
        if not 0 <= value < _INFINITE:
            self._public.put(value, context, moment)
            return
        for series in self._each:
            series.put(value, context, moment)

    def put_all(self, values: Sequence[float], context: Context | None, moment: Moment | None) -> None:
        if min(values) >= 0 and max(values) < _INFINITE and not isnan(sum(values)):
            for series in self._each:
                series.put_all(values, context, moment)
        else:
            for value in values:
                self.put(value, context, moment)


class Ground:
    """Where the instruments of one meter record to, as it is found when this is made.

    Args:
        instrument: one of the meter's, the last that was made. Those of a meter that came before its provider
            did are all given their real ones in this order.
        binding: whether to bind them.
    """

    __slots__ = ("_config", "_consumer", "_enabled", "_look", "_real", "_samples", "_storages", "_streams", "nowhere")

    def __init__(self, instrument: Counter | Histogram, *, binding: bool = True) -> None:
        self._real: Any = real_instrument(instrument)
        real = self._real
        self.nowhere = real is None or isinstance(real, NoOpCounter | NoOpHistogram)
        """Whether what is recorded can be seen by nobody: there is no meter provider, or one that does nothing."""
        consumer: Any = getattr(real, "_measurement_consumer", None)
        self._consumer = consumer
        self._storages: Any = getattr(consumer, "_reader_storages", None)
        self._config: Any = getattr(real, "_meter_config", None)
        self._enabled: bool = self._config is None or self._config.is_enabled
        self._streams: dict[Any, tuple[Stream, ...] | None] = {}
        self._look: Callable[[Any, Any], tuple[Stream, ...] | None] | None = None
        self._samples: bool | None = False
        """Whether measurements may become exemplars; ``None`` if those may whose span is sampled."""
        # The SDK's own parts are imported only where there are any.
        if (
            binding
            and BINDING
            and self._enabled
            and self._storages is not None
            and "opentelemetry.sdk.metrics" in sys.modules
        ):
            try:
                from tokenbudget_otel.instrumentation import bound_series

                if bound_series.is_known(consumer):
                    self._samples = bound_series.SAMPLING[type(consumer._sdk_config.exemplar_filter)]
                    self._look = bound_series.streams_of
            except (ImportError, AttributeError, KeyError):
                pass  # another SDK than we know: the public way

    def holds(self, instrument: Any) -> bool:
        """Whether all is as it was: the provider, its readers, and whether the meter is enabled."""
        return (
            getattr(instrument, "_real_instrument", instrument) is self._real
            and (self._consumer is None or getattr(self._consumer, "_reader_storages", None) is self._storages)
            and (self._config is None or self._config.is_enabled is self._enabled)
        )

    def moment(self, context: Context | None, span: Span | None = None) -> Moment | None:
        """When and where something is measured, if that may become an exemplar. ``span`` is that of the context, where
        it is at hand."""
        samples = self._samples
        if samples is False:
            return None
        if span is None:
            span = get_current_span(context)
        if span == INVALID_SPAN:
            return None if samples is None else (time_ns(), context or get_current(), None)
        where = span.get_span_context()
        if samples is None and not where.trace_flags & TraceFlags.SAMPLED:
            return None
        return time_ns(), context or get_current(), (where.span_id, where.trace_id)

    def series(self, instrument: Counter | Histogram, attributes: Mapping[str, Any]) -> Series:
        """An instrument with attributes. They must not be changed any more."""
        public = Public(instrument, attributes)
        if self._look is None or (real := real_instrument(instrument)) is None:
            return public
        if real not in self._streams:
            try:
                self._streams[real] = self._look(real, self._storages)
            except AttributeError:  # made otherwise than we know it
                self._streams[real] = None
        streams = self._streams[real]
        if streams is None:
            return public
        each = [stream.series(attributes, public) for stream in streams]
        return each[0] if len(each) == 1 else Several(each, public)


def real_instrument(instrument: Any) -> Any:
    """What stands behind an instrument that was made before its provider; ``None`` as long as there is none."""
    return getattr(instrument, "_real_instrument", instrument)
