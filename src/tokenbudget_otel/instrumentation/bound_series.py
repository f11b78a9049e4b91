"""Series of the OpenTelemetry SDK's instruments: measurements are given to what aggregates them, with no look for it.

This knows how the SDK is made (1.40 to 1.45): a reader has a ``_ViewInstrumentMatch`` for each view of an instrument,
and that an aggregation for each set of attributes. What is not exactly as known here is never bound. The first
measurement of a series goes through the SDK's own code, which makes the aggregation; cardinality limits, views and
start times are thereby its own affair. What it does for further ones is done here in the same order, under its locks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from math import isnan
from random import random
from time import time_ns
from types import FunctionType
from typing import Any, Final

from opentelemetry.context import Context, get_current
from opentelemetry.sdk.metrics._internal import _view_instrument_match as match_module
from opentelemetry.sdk.metrics._internal import aggregation as aggregation_module
from opentelemetry.sdk.metrics._internal import instrument as instrument_module
from opentelemetry.sdk.metrics._internal import measurement_consumer as consumer_module
from opentelemetry.sdk.metrics._internal import metric_reader_storage as storage_module
from opentelemetry.sdk.metrics._internal.exemplar import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics._internal.exemplar import exemplar_reservoir as reservoir_module
from opentelemetry.sdk.metrics._internal.measurement import Measurement

from tokenbudget_otel.instrumentation.bound_instruments import Moment, Public, Series

SAMPLING: Final[Mapping[type, bool | None]] = {
    AlwaysOffExemplarFilter: False,
    AlwaysOnExemplarFilter: True,
    TraceBasedExemplarFilter: None,
}
"""Which measurements may become exemplars: all, none, or (``None``) those whose span is sampled."""

_INFINITE: Final = float("inf")

_hashed: Final[Any] = getattr(match_module, "_hash_attributes", lambda attributes: frozenset(attributes.items()))
_OVERFLOW: Final[Any] = getattr(match_module, "_OVERFLOW_KEY", None)

_BUCKET_PARTS: Final = {
    f"_ExemplarBucket__{part}" for part in ("value", "attributes", "time_unix_nano", "span_id", "trace_id", "offered")
}
_BUCKETS_ARE_KNOWN: Final = vars(reservoir_module.ExemplarBucket()).keys() == _BUCKET_PARTS

_OURS: Final = (
    (instrument_module, "Counter", "add"),
    (instrument_module, "Histogram", "record"),
    (consumer_module, "SynchronousMeasurementConsumer", "consume_measurement"),
    (storage_module, "MetricReaderStorage", "consume_measurement"),
    (match_module, "_ViewInstrumentMatch", "consume_measurement"),
    (aggregation_module, "_SumAggregation", "aggregate"),
    (aggregation_module, "_ExplicitBucketHistogramAggregation", "aggregate"),
    (aggregation_module, "_ExponentialBucketHistogramAggregation", "aggregate"),
    (aggregation_module, "_LastValueAggregation", "aggregate"),
    (reservoir_module, "FixedSizeExemplarReservoirABC", "offer"),
)
"""Whose work is done here. Where somebody has put something else in its place, that is to be called."""


def is_known(consumer: Any) -> bool:
    """Whether measurements go through the SDK as it was written."""
    return type(consumer) is consumer_module.SynchronousMeasurementConsumer and all(
        _as_written(getattr(module, kind), name, module) for module, kind, name in _OURS
    )


def _as_written(kind: type, name: str, module: Any) -> bool:
    method = getattr(kind, name)
    return type(method) is FunctionType and method.__globals__ is vars(module)


def streams_of(instrument: Any, storages: Mapping[Any, Any]) -> tuple[Stream, ...] | None:
    """Where an instrument's measurements go, of each reader and view; ``None`` where that is not as known."""
    if type(instrument) not in (instrument_module._Counter, instrument_module._Histogram):
        return None
    if {"add", "record"} & vars(instrument).keys():
        return None
    streams = []
    for storage in storages.values():
        if type(storage) is not storage_module.MetricReaderStorage:
            return None
        for match in storage._get_or_init_view_instrument_match(instrument):
            aggregates = type(match._aggregation)
            if type(match) is not match_module._ViewInstrumentMatch:
                return None
            if aggregates is aggregation_module._DropAggregation:
                continue
            kinds = _KINDS.get(aggregates)
            if kinds is None:
                return None
            streams.append(Stream(match, aggregates, kinds[getattr(match, "_reset_on_collect", False)]))
    return tuple(streams)


class Stream:
    """What one view of one reader makes of an instrument.

    Attributes:
        match: the SDK's own.
        aggregates: of which class its aggregations are.
        table, cycle: the aggregations of now and their number. A reader of differences replaces all of them when it
            collects.
    """

    __slots__ = ("_kind", "aggregates", "cycle", "match", "table")

    def __init__(self, match: Any, aggregates: type, kind: type[_Bound]) -> None:
        self.match = match
        self.aggregates = aggregates
        self.table: Any = None
        self.cycle = 0
        self._kind = kind

    def series(self, attributes: Mapping[str, Any], public: Public) -> Series:
        """The series of these attributes."""
        return self._kind(self, attributes, public)

    def find(self, attributes: Mapping[str, Any]) -> Any:
        """The aggregation that the SDK has made for these attributes. To be called with its lock held."""
        match = self.match
        table = match._attributes_aggregation
        if table is not self.table:
            self.table = table
            self.cycle += 1
        if (kept := match._view._attribute_keys) is not None:
            attributes = {name: value for name, value in attributes.items() if name in kept}
        found = table.get(_hashed(attributes))
        if found is None and _OVERFLOW is not None and len(table) >= match._cardinality_limit:
            found = table.get(_OVERFLOW)
        return found if type(found) is self.aggregates else None


class _Given:
    """A measurement as aggregations need it."""

    __slots__ = ("attributes", "context", "time_unix_nano", "value")

    def __init__(self, value: float, moment: Moment | None, attributes: Mapping[str, Any]) -> None:
        self.value = value
        self.attributes = attributes
        self.time_unix_nano = 0 if moment is None else moment[0]
        self.context = None if moment is None else moment[1]


class _Bound:
    """A series whose aggregation stays as long as its reader. It is told as the SDK would, for kinds that are rare."""

    __slots__ = ("_aggregation", "_attributes", "_boundaries", "_cycle", "_extremes", "_lock", "_offers", "_public",
                 "_reservoir", "_stream")  # fmt: skip

    _knows: type | None = None
    """The class of reservoirs that are filled here."""

    def __init__(self, stream: Stream, attributes: Mapping[str, Any], public: Public) -> None:
        self._stream = stream
        self._attributes = attributes
        self._public = public
        self._aggregation: Any = None
        self._lock: Any = None
        self._reservoir: Any = None
        self._offers = True
        self._cycle = -1

    def put(self, value: float, context: Context | None, moment: Moment | None) -> None:
        if self._aggregation is None or not 0 <= value < _INFINITE:
            self._otherwise(value, context, moment)
        else:
            self._aggregation.aggregate(_Given(value, moment, self._attributes), moment is not None)

    def put_all(self, values: Sequence[float], context: Context | None, moment: Moment | None) -> None:
        if not self._put_all(values, moment):
            self.put(values[0], context, moment)
            rest = values[1:]
            if rest and not self._put_all(rest, moment):
                for value in rest:
                    self.put(value, context, moment)

    def _put_all(self, values: Sequence[float], moment: Moment | None) -> bool:
        """Add them, if that can be done at once."""
        return False

    def _otherwise(self, value: float, context: Context | None, moment: Moment | None) -> None:
        """Give a value to the SDK, and see where it has put it."""
        if not 0 <= value < _INFINITE:
            self._public.put(value, context, moment)
            return
        stream = self._stream
        match = stream.match
        given = Measurement(value, time_ns(), match._instrument, context or get_current(), self._attributes)
        match.consume_measurement(given, moment is not None)
        attributes = given.attributes or {}
        with match._lock:
            found = stream.find(attributes)
            if found is not None:
                self._attributes = attributes
                self._bind(found)

    def _bind(self, found: Any) -> None:
        self._lock = found._lock
        self._reservoir = reservoir = found._reservoir
        held = vars(reservoir)
        self._offers = not (
            type(reservoir) is self._knows
            and _BUCKETS_ARE_KNOWN
            and {"_lock", "_reservoir_storage"} <= held.keys()
            and self._fits(found, held)
        )
        self._aggregation = found  # last: it says that the rest is there

    def _fits(self, found: Any, reservoir: Mapping[str, Any]) -> bool:
        """Whether a reservoir of the class that is known is made as known."""
        return False


def _fill(bucket: Any, value: float, moment: Moment, attributes: Mapping[str, Any]) -> None:
    """As ``ExemplarBucket.offer``."""
    bucket._ExemplarBucket__value = value
    bucket._ExemplarBucket__attributes = attributes
    bucket._ExemplarBucket__time_unix_nano, _, ids = moment
    if ids is not None:
        bucket._ExemplarBucket__span_id, bucket._ExemplarBucket__trace_id = ids
    bucket._ExemplarBucket__offered = True


class _Sum(_Bound):
    """A sum."""

    __slots__ = ()

    _knows = reservoir_module.SimpleFixedSizeExemplarReservoir

    def put(self, value: float, context: Context | None, moment: Moment | None) -> None:
        aggregation = self._aggregation
        if aggregation is None or not 0 <= value < _INFINITE:
            self._otherwise(value, context, moment)
            return
        with self._lock:
            held = aggregation._value
            aggregation._value = (0 if held is None else held) + value
        if moment is None:
            return
        reservoir = self._reservoir
        if self._offers:
            reservoir.offer(value, moment[0], self._attributes, moment[1])
            return
        with reservoir._lock:
            index = seen = reservoir._measurements_seen
            reservoir._measurements_seen = seen + 1
            if seen >= reservoir._size:
                index = int(random() * (seen + 1))
            if index < reservoir._size:
                _fill(reservoir._reservoir_storage[index], value, moment, self._attributes)

    def _fits(self, found: Any, reservoir: Mapping[str, Any]) -> bool:
        return {"_measurements_seen", "_size"} <= reservoir.keys()


class _Buckets(_Bound):
    """A histogram of explicit buckets."""

    __slots__ = ()

    _knows = reservoir_module.AlignedHistogramBucketExemplarReservoir

    def _bind(self, found: Any) -> None:
        self._boundaries: tuple[float, ...] = found._boundaries
        self._extremes: bool = found._record_min_max
        super()._bind(found)

    def put(self, value: float, context: Context | None, moment: Moment | None) -> None:
        aggregation = self._aggregation
        if aggregation is None or not 0 <= value < _INFINITE:
            self._otherwise(value, context, moment)
            return
        index = bisect_left(self._boundaries, value)
        with self._lock:
            counts = aggregation._value
            if counts is None:
                counts = aggregation._value = [0] * (len(self._boundaries) + 1)
            counts[index] += 1
            aggregation._sum += value
            if self._extremes:
                if value < aggregation._min:
                    aggregation._min = value
                if value > aggregation._max:
                    aggregation._max = value
        if moment is None:
            return
        reservoir = self._reservoir
        if self._offers:
            reservoir.offer(value, moment[0], self._attributes, moment[1])
            return
        with reservoir._lock:
            _fill(reservoir._reservoir_storage[index], value, moment, self._attributes)

    def _fits(self, found: Any, reservoir: Mapping[str, Any]) -> bool:
        return tuple(reservoir.get("_boundaries", ())) == self._boundaries

    def _put_all(self, values: Sequence[float], moment: Moment | None) -> bool:
        if self._aggregation is None or (ordered := _in_order(values)) is None:
            return False
        self._add_all(values, ordered, moment)
        return True

    def _add_all(self, values: Sequence[float], ordered: list[float], moment: Moment | None) -> None:
        aggregation, boundaries = self._aggregation, self._boundaries
        least, most = ordered[0], ordered[-1]
        lowest, highest = bisect_left(boundaries, least), bisect_left(boundaries, most)
        found: dict[int, Sequence[float]] = {}
        start = 0
        for index in range(lowest, highest):
            end = bisect_right(ordered, boundaries[index], start)
            if end > start:
                found[index] = ordered[start:end]
            start = end
        found[highest] = ordered[start:]
        with self._lock:
            counts = aggregation._value
            if counts is None:
                counts = aggregation._value = [0] * (len(boundaries) + 1)
            for index, inside in found.items():
                counts[index] += len(inside)
            total = aggregation._sum
            for value in values:  # in the order in which they came: sums of doubles depend on it
                total += value
            aggregation._sum = total
            if self._extremes:
                if least < aggregation._min:
                    aggregation._min = least
                if most > aggregation._max:
                    aggregation._max = most
        if moment is not None:
            self._offer_all(values, found, moment)

    def _offer_all(self, values: Sequence[float], found: dict[int, Sequence[float]], moment: Moment) -> None:
        reservoir = self._reservoir
        if type(reservoir) is not self._knows:
            for value in values:
                reservoir.offer(value, moment[0], self._attributes, moment[1])
            return
        # Of each bucket the last value stays. That of one among them is known, others are looked for from the end.
        last = {index: inside[0] for index, inside in found.items() if len(inside) == 1}
        if len(last) < len(found):
            for value in reversed(values):
                last.setdefault(bisect_left(self._boundaries, value), value)
                if len(last) == len(found):
                    break
        for index, value in last.items():
            if self._offers:
                reservoir.offer(value, moment[0], self._attributes, moment[1])
            else:
                with reservoir._lock:
                    _fill(reservoir._reservoir_storage[index], value, moment, self._attributes)


def _in_order(values: Sequence[float]) -> list[float] | None:
    """Values that can be recorded, from the least to the greatest; ``None`` if one of them cannot."""
    ordered = sorted(values)
    return ordered if ordered[0] >= 0 and ordered[-1] < _INFINITE and not isnan(sum(ordered)) else None


class _Renewed(_Bound):
    """A series whose reader begins with new aggregations whenever it has collected."""

    __slots__ = ()

    def put(self, value: float, context: Context | None, moment: Moment | None) -> None:
        if 0 <= value < _INFINITE:
            # The SDK's lock keeps the reader from taking the aggregation away meanwhile.
            with self._stream.match._lock:
                if self._is_in_force():
                    super().put(value, context, moment)
                    return
        self._otherwise(value, context, moment)

    def _is_in_force(self) -> bool:
        stream = self._stream
        return self._cycle == stream.cycle and stream.match._attributes_aggregation is stream.table

    def _bind(self, found: Any) -> None:
        super()._bind(found)
        self._cycle = self._stream.cycle


class _RenewedSum(_Renewed, _Sum):
    __slots__ = ()


class _RenewedBuckets(_Renewed, _Buckets):
    __slots__ = ()

    def _put_all(self, values: Sequence[float], moment: Moment | None) -> bool:
        if (ordered := _in_order(values)) is None:
            return False
        with self._stream.match._lock:
            if not self._is_in_force():
                return False
            self._add_all(values, ordered, moment)
        return True


_KINDS: Final[Mapping[type, tuple[type[_Bound], type[_Bound]]]] = {
    aggregation_module._SumAggregation: (_Sum, _RenewedSum),
    aggregation_module._ExplicitBucketHistogramAggregation: (_Buckets, _RenewedBuckets),
    aggregation_module._ExponentialBucketHistogramAggregation: (_Bound, _Renewed),
    aggregation_module._LastValueAggregation: (_Bound, _Renewed),
}
"""Series of each kind of aggregation: where those stay, and where they are made anew."""
