"""The metrics of calls: what each is called, and what one call adds to them. The same for calls that are metered at our
doors and for spans that others made.

Standard metrics have the names that are in use, those that the conventions have agreed on since, or both
(:mod:`.metric_options`). What no convention has (calls by price state, parts of the tokens, tags) is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, Meter
from opentelemetry.trace import Span

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.instrumentation import emitters
from tokenbudget_otel.instrumentation.bound_instruments import Ground, Moment, Series
from tokenbudget_otel.instrumentation.bounded import Bounded
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.metric_options import MetricOptions
from tokenbudget_otel.meter import Charge, Request
from tokenbudget_otel.money import NANO_PER_USD
from tokenbudget_otel.usage import CACHE_READ_MODALITIES, INPUT_MODALITIES, OUTPUT_MODALITIES, TOKEN_FIELDS, TokenUsage

MAX_TAG_VALUES = 1_000
"""Values of one tag that metrics keep apart in this process. May be set before anything is instrumented."""

MAX_SCOPES: Final = 1_000
"""Scopes of budgets that the metric of refusals keeps apart."""

MAX_MODELS: Final = 500
"""Models asked for, and models that answered, that metrics keep apart. Programs and their users make names up."""

MAX_ALIKE = 1_024
"""Kinds of calls whose series are remembered. Beyond it they are looked up anew, which takes longer. May be set."""

MODALITIES: Final = ("text", "audio", "image", "video")

_asked: Final = Bounded(semconv.REQUEST_MODEL, MAX_MODELS)
_answered: Final = Bounded(semconv.RESPONSE_MODEL, MAX_MODELS)
_scopes: Final = Bounded(semconv.BUDGET_SCOPE, MAX_SCOPES)
_tags: Final[dict[str, Bounded]] = {}
"""One for the process: an SDK that several instrumentors record to has no more series for that."""

_WHOLES: Final = (("input", "input_tokens"), ("output", "output_tokens"))

_PARTS: Final = {name: name.removesuffix("_tokens") for name in TOKEN_FIELDS if name not in dict(_WHOLES).values()}
"""Counts that are a part of the input or the output, and what each is called on metrics."""

_COMING_COUNTERS: Final = (
    ("input_tokens", semconv.METRIC_INFERENCE_INPUT, "All input tokens, cached or not.", INPUT_MODALITIES),
    ("output_tokens", semconv.METRIC_INFERENCE_OUTPUT, "All output tokens, reasoning included.", OUTPUT_MODALITIES),
    ("cache_read_tokens", semconv.METRIC_INFERENCE_CACHE_READ, "Input tokens that came from a cache.",
     CACHE_READ_MODALITIES),
    ("cache_write_tokens", semconv.METRIC_INFERENCE_CACHE_WRITE, "Input tokens that were written to a cache.", ()),
    ("reasoning_tokens", semconv.METRIC_INFERENCE_REASONING, "Output tokens that the model thought with.", ()),
)  # fmt: skip

_NO_INFERENCE: Final = frozenset((semconv.FETCH_RESPONSE, semconv.CREATE_BATCH, semconv.FETCH_BATCH))
"""Operations that are no inference themselves, though the usage of one may be seen there first."""

_Value = TypeVar("_Value")

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class _Alike:
    """Calls that metrics cannot tell apart: their attributes, and the series that they are added to.

    Attributes:
        attributes: what they have in common.
        used: the same, and whether their usage is an estimate.
        failed, failed_used: either, and what went wrong.
        series: the series as far as there has been anything to add, by what is added.
    """

    __slots__ = ("_ground", "attributes", "failed", "failed_used", "series", "used")

    def __init__(self, ground: Ground, attributes: dict[str, Any], estimated: bool, error_type: str | None) -> None:
        self._ground = ground
        self.attributes = self.used = self.failed = self.failed_used = attributes
        if estimated:
            self.used = self.failed_used = {**attributes, semconv.USAGE_ESTIMATED: True}
        if error_type is not None:
            self.failed = {**attributes, semconv.ERROR_TYPE: error_type}
            self.failed_used = {**self.used, semconv.ERROR_TYPE: error_type}
        self.series: dict[object, Series] = {}

    def of(
        self, what: object, instrument: Counter | Histogram, attributes: dict[str, Any], name: str = "", value: str = ""
    ) -> Series:
        """The series of ``what`` is added: an instrument with attributes, and with one more if that has a ``name``."""
        series = self.series.get(what)
        if series is None:
            if name:
                attributes = {**attributes, name: value}
            series = self.series[what] = self._ground.series(instrument, attributes)
        return series


class _Place:
    """Where the instruments record to, and what is known there."""

    __slots__ = ("alike", "ground", "refusals")

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.alike: dict[tuple[object, ...], _Alike] = {}
        self.refusals: dict[tuple[object, ...], Series] = {}


class CallMetrics:
    """The instruments of one OpenTelemetry meter, and what each call adds to them."""

    def __init__(self, meter: Meter, options: MetricOptions) -> None:
        self._tags = tuple((name, semconv.TAG_PREFIX + name, _values_of(name)) for name in options.tags)
        self._calls = meter.create_counter(
            semconv.METRIC_CALLS, "{call}", "Calls that were charged, by whether their price is known."
        )
        self._details = meter.create_counter(
            semconv.METRIC_TOKEN_DETAILS, "{token}", "Tokens that are a part of the input or the output, by kind."
        )
        self._refusals = meter.create_counter(semconv.METRIC_REFUSALS, "{call}", "Calls that a budget refused.")
        self._duration = _seconds(meter, semconv.METRIC_DURATION, "Duration of GenAI client operations.")
        self._current = _Current(meter, self._duration) if options.current else None
        self._coming = _Coming(meter, self._duration) if options.coming else None
        # The last: by it is seen what all of them record to.
        self._cost = meter.create_counter(
            semconv.METRIC_COST, "{USD}", "Known cost of GenAI client operations, in US dollars."
        )
        self._place = _Place(Ground(self._cost))

    def record(
        self,
        operation: str,
        provider: str,
        request_model: str | None,
        response_model: str | None,
        context: Context | None,
        *,
        server: Mapping[str, Any] = _NOTHING,
        tags: Mapping[str, str] = _NOTHING,
        charge: Charge | None = None,
        cost_state: str | None = None,
        duration: float | None = None,
        first_chunk: float | None = None,
        gaps: Sequence[float] = (),
        error_type: str | None = None,
        recorded: frozenset[str] | None = emitters.NONE,
        span: Span | None = None,
    ) -> None:
        """Add a call that has ended.

        Args:
            server: the attributes of the server: its address and port.
            tags: the tags of the call, of which metrics carry those that were asked for.
            charge: what it came to; ``None`` where nothing was billed.
            cost_state: how its price is known, where the charge does not say.
            duration, first_chunk: seconds; ``None`` where there is no such thing.
            gaps: seconds between its chunks, from the second on.
            error_type: what went wrong, if something did.
            recorded: what somebody else records of the standard metrics; ``None`` where nobody is to record any.
            span: the span of the context, where it is at hand.
        """
        place = self._place
        if not place.ground.holds(self._cost):
            place = self._place = _Place(Ground(self._cost))
        if place.ground.nowhere:
            return
        try:
            estimated = charge is not None and charge.estimated
            state = cost_state if charge is None else charge.cost.state
            key: tuple[object, ...] = (
                operation, provider, request_model, response_model, error_type, state, estimated,
                server.get(semconv.SERVER_ADDRESS), server.get(semconv.SERVER_PORT),
            )  # fmt: skip
            if self._tags:
                key += tuple([tags.get(name) for name, _, _ in self._tags])
            alike = place.alike.get(key)
            if alike is None:
                attributes: dict[str, Any] = {
                    semconv.OPERATION_NAME: operation,
                    semconv.PROVIDER_NAME: provider,
                    **server,
                }
                if request_model:
                    attributes[semconv.REQUEST_MODEL] = _asked(request_model)
                if response_model:
                    attributes[semconv.RESPONSE_MODEL] = _answered(response_model)
                self._add_tags(attributes, tags)
                alike = _kept(place.alike, key, _Alike(place.ground, attributes, estimated, error_type))
            moment = place.ground.moment(context, span)
            self._record_own(alike, charge, state, context, moment)
            if recorded is None:
                return
            usage = None if charge is None else charge.usage
            known = {} if usage is None else vars(usage)
            if self._current is not None:
                self._current.record(alike, known, duration, first_chunk, gaps, recorded, context, moment)
            if self._coming is not None:
                beside = self._current is not None or emitters.DURATION in recorded
                self._coming.record(alike, operation, usage, duration, first_chunk, gaps, beside, context, moment)
        except Exception as error:
            self._failed(error)

    def refused(self, request: Request, refusal: BudgetExceeded) -> None:
        """Add a call that a budget refused."""
        place = self._place
        if not place.ground.holds(self._cost):
            place = self._place = _Place(Ground(self._cost))
        if place.ground.nowhere:
            return
        try:
            self._add_refusal(place, request, refusal)
        except Exception as error:
            self._failed(error)

    def _add_refusal(self, place: _Place, request: Request, refusal: BudgetExceeded) -> None:
        scope, tags = refusal.scope, request.tags
        key: tuple[object, ...] = (request.provider, request.model, str(refusal.budget), *scope.items())
        if self._tags:
            key += tuple([tags.get(name) for name, _, _ in self._tags])
        series = place.refusals.get(key)
        if series is None:
            attributes: dict[str, Any] = {
                semconv.PROVIDER_NAME: request.provider,
                semconv.REQUEST_MODEL: _asked(request.model),
                semconv.BUDGET_NAME: str(refusal.budget),
                semconv.BUDGET_SCOPE: _scopes(semconv.scope_text(scope)),
            }
            self._add_tags(attributes, tags)
            series = _kept(place.refusals, key, place.ground.series(self._refusals, attributes))
        series.put(1, None, place.ground.moment(None))

    def _failed(self, error: Exception) -> None:
        """It may be the short way through the SDK: the next call takes the public one."""
        self._place = _Place(Ground(self._cost, binding=False))
        log_once("record metrics", error)

    def _add_tags(self, attributes: dict[str, Any], tags: Mapping[str, str]) -> None:
        for name, attribute, bounded in self._tags:
            if (value := tags.get(name)) is not None:
                attributes[attribute] = bounded(value)

    def _record_own(
        self, alike: _Alike, charge: Charge | None, state: str | None, context: Context | None, moment: Moment | None
    ) -> None:
        series, used = alike.series, alike.used
        if state is not None:
            calls = series.get("calls") or alike.of("calls", self._calls, used, semconv.COST_STATE, state)
            calls.put(1, context, moment)
        if charge is None:
            return
        if charge.cost.nano_usd:
            cost = series.get("cost") or alike.of("cost", self._cost, used)
            cost.put(charge.cost.nano_usd / NANO_PER_USD, context, moment)
        if charge.usage is not None:
            for name, count in vars(charge.usage).items():
                if count and (part := _PARTS.get(name)) is not None:
                    details = series.get(part) or alike.of(part, self._details, used, semconv.TOKEN_DETAIL, part)
                    details.put(count, context, moment)


class _Current:
    """The standard metrics as the newest official packages emit them (opentelemetry-util-genai 1.3b0)."""

    def __init__(self, meter: Meter, duration: Histogram) -> None:
        self._duration = duration
        self._tokens = _tokens(meter, semconv.METRIC_TOKEN_USAGE, "Tokens used by GenAI client operations.")
        self._first_chunk, self._chunks = _chunk_times(
            meter, semconv.METRIC_TIME_TO_FIRST_CHUNK, semconv.METRIC_TIME_PER_OUTPUT_CHUNK
        )

    def record(
        self,
        alike: _Alike,
        usage: Mapping[str, Any],
        duration: float | None,
        first_chunk: float | None,
        gaps: Sequence[float],
        recorded: frozenset[str],
        context: Context | None,
        moment: Moment | None,
    ) -> None:
        series = alike.series
        # Chunks came before anybody knew of an error.
        if first_chunk is not None and emitters.FIRST_CHUNK not in recorded:
            first = series.get("first") or alike.of("first", self._first_chunk, alike.attributes)
            first.put(first_chunk, context, moment)
        if gaps and emitters.CHUNKS not in recorded:
            chunks = series.get("chunks") or alike.of("chunks", self._chunks, alike.attributes)
            chunks.put_all(gaps, context, moment)
        if duration is not None and emitters.DURATION not in recorded:
            time = series.get("duration") or alike.of("duration", self._duration, alike.failed)
            time.put(duration, context, moment)
        if usage and emitters.TOKENS not in recorded:
            for kind, name in _WHOLES:
                if (count := usage.get(name)) is not None:
                    tokens = series.get(name) or alike.of(
                        name, self._tokens, alike.failed_used, semconv.TOKEN_TYPE, kind
                    )
                    tokens.put(count, context, moment)


class _Coming:
    """The standard metrics as semantic-conventions-genai has them since 0.1.0. Nobody else emits them yet, so they are
    recorded whatever emitters record under the current names."""

    def __init__(self, meter: Meter, duration: Histogram) -> None:
        self._operation = duration
        self._duration = _seconds(meter, semconv.METRIC_INFERENCE_DURATION, "Duration of inferences.")
        self._embeddings = _seconds(meter, semconv.METRIC_EMBEDDINGS_DURATION, "Duration of embeddings operations.")
        self._first_chunk, self._chunks = _chunk_times(
            meter, semconv.METRIC_INFERENCE_FIRST_CHUNK, semconv.METRIC_INFERENCE_PER_CHUNK
        )
        self._counters = {
            name: (meter.create_counter(metric, "{token}", description), modalities)
            for name, metric, description, modalities in _COMING_COUNTERS
        }
        self._each: dict[str, Histogram] = {
            "input_tokens": _tokens(meter, semconv.METRIC_INFERENCE_EACH_INPUT, "Input tokens of each inference."),
            "output_tokens": _tokens(meter, semconv.METRIC_INFERENCE_EACH_OUTPUT, "Output tokens of each inference."),
        }
        self._each_embedding = _tokens(
            meter, semconv.METRIC_EMBEDDINGS_EACH_INPUT, "Input tokens of each embeddings operation."
        )

    def record(
        self,
        alike: _Alike,
        operation: str,
        usage: TokenUsage | None,
        duration: float | None,
        first_chunk: float | None,
        gaps: Sequence[float],
        timed: bool,
        context: Context | None,
        moment: Moment | None,
    ) -> None:
        """Add a call. ``timed`` is whether somebody or something else records the duration of its operation."""
        if operation in _NO_INFERENCE:
            if duration is not None and not timed:
                alike.of("duration", self._operation, alike.failed).put(duration, context, moment)
            self._count(usage, alike, context, moment)
        elif operation == semconv.EMBEDDINGS:
            if duration is not None:
                alike.of("embedding", self._embeddings, alike.failed).put(duration, context, moment)
            if usage is not None and usage.input_tokens is not None:
                each = alike.of("each embedding", self._each_embedding, alike.used)
                each.put(usage.input_tokens, context, moment)
        else:
            if duration is not None:
                alike.of("inference", self._duration, alike.failed).put(duration, context, moment)
            if first_chunk is not None:
                first = alike.of("first of inference", self._first_chunk, alike.attributes)
                first.put(first_chunk, context, moment)
            if gaps:
                alike.of("chunks of inference", self._chunks, alike.attributes).put_all(gaps, context, moment)
            self._count(usage, alike, context, moment)
            for name, histogram in self._each.items():
                if (count := getattr(usage, name, None)) is not None:
                    alike.of(("each", name), histogram, alike.used).put(count, context, moment)

    def _count(self, usage: TokenUsage | None, alike: _Alike, context: Context | None, moment: Moment | None) -> None:
        if usage is None:
            return
        for name, (counter, modalities) in self._counters.items():
            for modality, count in by_modality(usage, name, modalities):
                series = alike.of((name, modality), counter, alike.used, semconv.TOKEN_MODALITY, modality)
                series.put(count, context, moment)


def by_modality(usage: TokenUsage, name: str, modalities: Sequence[str]) -> list[tuple[str, int]]:
    """A count by modality. What the provider does not say the modality of is ``unknown``, so that the sum is the whole.

    >>> by_modality(TokenUsage(input_tokens=100, input_audio_tokens=80), "input_tokens", INPUT_MODALITIES)
    [('audio', 80), ('unknown', 20)]
    """
    rest = getattr(usage, name) or 0
    found = []
    for modality, part in zip(MODALITIES, modalities, strict=False):
        if rest and (count := min(getattr(usage, part) or 0, rest)):
            found.append((modality, count))
            rest -= count
    return [*found, ("unknown", rest)] if rest else found


def _kept(table: dict[tuple[object, ...], _Value], key: tuple[object, ...], value: _Value) -> _Value:
    """Keep ``value`` in a table that is emptied when it is full."""
    if len(table) >= MAX_ALIKE:
        table.clear()
    table[key] = value
    return value


def _values_of(tag: str) -> Bounded:
    return _tags.setdefault(tag, Bounded(semconv.TAG_PREFIX + tag, MAX_TAG_VALUES))


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, "s", description, explicit_bucket_boundaries_advisory=semconv.DURATION_BOUNDARIES
    )


def _tokens(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, "{token}", description, explicit_bucket_boundaries_advisory=semconv.TOKEN_BOUNDARIES
    )


def _chunk_times(meter: Meter, first: str, each: str) -> tuple[Histogram, Histogram]:
    return (
        _seconds(meter, first, "Time to the first chunk of a streamed response."),
        _seconds(meter, each, "Time from chunk to chunk of a streamed response."),
    )
