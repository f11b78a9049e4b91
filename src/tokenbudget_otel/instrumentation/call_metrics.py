"""The metrics of calls: what each is called, and what one call adds to them. The same for calls that are metered at our
doors and for spans that others made.

Standard metrics have the names that are in use, those that the conventions have agreed on since, or both
(:mod:`.metric_options`). What no convention has (calls by price state, parts of the tokens, tags) is ours.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, Meter, NoOpCounter

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.instrumentation import emitters
from tokenbudget_otel.instrumentation.bounded import Bounded
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

MAX_GAPS = 256
"""Times between chunks that are recorded of one stream: of a longer one, a random sample. To record one takes the
OpenTelemetry SDK some 7 microseconds, ten times what all else for a chunk does. May be set."""

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


@dataclass(slots=True)
class Measured:
    """One call as metrics see it.

    Attributes:
        server: the attributes of the server's address.
        tags: the tags of the call, of which metrics carry those that were asked for.
        charge: what it came to; ``None`` where nothing was billed.
        cost_state: how its price is known, where the charge does not say.
        duration, first_chunk: seconds; ``None`` where there is no such thing.
        gaps: seconds between its chunks, from the second on.
        error_type: what went wrong, if something did.
        recorded: what somebody else records of the standard metrics; ``None`` where nobody is to record any.
    """

    operation: str
    provider: str
    request_model: str | None
    response_model: str | None
    context: Context | None
    server: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    charge: Charge | None = None
    cost_state: str | None = None
    duration: float | None = None
    first_chunk: float | None = None
    gaps: Sequence[float] = ()
    error_type: str | None = None
    recorded: frozenset[str] | None = emitters.NONE


class CallMetrics:
    """The instruments of one OpenTelemetry meter, and what each call adds to them."""

    def __init__(self, meter: Meter, options: MetricOptions) -> None:
        self._tags = tuple((name, semconv.TAG_PREFIX + name, _values_of(name)) for name in options.tags)
        self._cost = meter.create_counter(
            semconv.METRIC_COST, "{USD}", "Known cost of GenAI client operations, in US dollars."
        )
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

    def record(self, call: Measured) -> None:
        """Add a call that has ended."""
        if not _goes_anywhere(self._cost):
            return
        attributes: dict[str, Any] = {
            semconv.OPERATION_NAME: call.operation,
            semconv.PROVIDER_NAME: call.provider,
            **call.server,
        }
        if call.request_model:
            attributes[semconv.REQUEST_MODEL] = _asked(call.request_model)
        if call.response_model:
            attributes[semconv.RESPONSE_MODEL] = _answered(call.response_model)
        if self._tags:
            self._add_tags(attributes, call.tags)
        used = {**attributes, semconv.USAGE_ESTIMATED: True} if call.charge and call.charge.estimated else attributes
        self._record_own(call, used)
        if call.recorded is None:
            return
        if len(call.gaps) > MAX_GAPS:
            call.gaps = random.sample(call.gaps, MAX_GAPS)
        if self._current is not None:
            self._current.record(call, attributes, used, call.recorded)
        if self._coming is not None:
            self._coming.record(call, attributes, used, call.recorded, beside_current=self._current is not None)

    def refused(self, request: Request, refusal: BudgetExceeded) -> None:
        """Add a call that a budget refused."""
        if not _goes_anywhere(self._refusals):
            return
        attributes: dict[str, Any] = {
            semconv.PROVIDER_NAME: request.provider,
            semconv.REQUEST_MODEL: _asked(request.model),
            semconv.BUDGET_NAME: str(refusal.budget),
            semconv.BUDGET_SCOPE: _scopes(semconv.scope_text(refusal.scope)),
        }
        self._add_tags(attributes, request.tags)
        self._refusals.add(1, attributes)

    def _add_tags(self, attributes: dict[str, Any], tags: Mapping[str, str]) -> None:
        for name, attribute, bounded in self._tags:
            if (value := tags.get(name)) is not None:
                attributes[attribute] = bounded(value)

    def _record_own(self, call: Measured, used: Mapping[str, Any]) -> None:
        charge, context = call.charge, call.context
        state = call.cost_state if charge is None else charge.cost.state
        if state is not None:
            self._calls.add(1, {**used, semconv.COST_STATE: state}, context)
        if charge is None:
            return
        if charge.cost.nano_usd:
            self._cost.add(charge.cost.nano_usd / NANO_PER_USD, used, context)
        if charge.usage is not None:
            for name, count in vars(charge.usage).items():
                if count and (part := _PARTS.get(name)) is not None:
                    self._details.add(count, {**used, semconv.TOKEN_DETAIL: part}, context)


class _Current:
    """The standard metrics as the newest official packages emit them (opentelemetry-util-genai 1.3b0)."""

    def __init__(self, meter: Meter, duration: Histogram) -> None:
        self._duration = duration
        self._tokens = _tokens(meter, semconv.METRIC_TOKEN_USAGE, "Tokens used by GenAI client operations.")
        self._first_chunk, self._chunks = _chunk_times(
            meter, semconv.METRIC_TIME_TO_FIRST_CHUNK, semconv.METRIC_TIME_PER_OUTPUT_CHUNK
        )

    def record(
        self, call: Measured, attributes: Mapping[str, Any], used: Mapping[str, Any], recorded: frozenset[str]
    ) -> None:
        context = call.context
        # Chunks came before anybody knew of an error.
        if emitters.FIRST_CHUNK not in recorded and call.first_chunk is not None:
            self._first_chunk.record(call.first_chunk, attributes, context)
        if emitters.CHUNKS not in recorded:
            for gap in call.gaps:
                self._chunks.record(gap, attributes, context)
        failed = _with_error(attributes, call)
        if emitters.DURATION not in recorded and call.duration is not None:
            self._duration.record(call.duration, failed, context)
        if emitters.TOKENS not in recorded and call.charge is not None and call.charge.usage is not None:
            for kind, name in _WHOLES:
                if (count := getattr(call.charge.usage, name)) is not None:
                    self._tokens.record(count, {**_with_error(used, call), semconv.TOKEN_TYPE: kind}, context)


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
        call: Measured,
        attributes: Mapping[str, Any],
        used: Mapping[str, Any],
        recorded: frozenset[str],
        *,
        beside_current: bool,
    ) -> None:
        usage = None if call.charge is None else call.charge.usage
        if call.operation in _NO_INFERENCE:
            if not beside_current and emitters.DURATION not in recorded:
                self._time(self._operation, call, attributes)
            self._count(usage, call, used)
        elif call.operation == semconv.EMBEDDINGS:
            self._time(self._embeddings, call, attributes)
            if usage is not None and usage.input_tokens is not None:
                self._each_embedding.record(usage.input_tokens, used, call.context)
        else:
            self._time(self._duration, call, attributes)
            self._chunk(call, attributes)
            self._count(usage, call, used)
            for name, histogram in self._each.items():
                if (count := getattr(usage, name, None)) is not None:
                    histogram.record(count, used, call.context)

    def _time(self, histogram: Histogram, call: Measured, attributes: Mapping[str, Any]) -> None:
        if call.duration is not None:
            histogram.record(call.duration, _with_error(attributes, call), call.context)

    def _chunk(self, call: Measured, attributes: Mapping[str, Any]) -> None:
        if call.first_chunk is not None:
            self._first_chunk.record(call.first_chunk, attributes, call.context)
        for gap in call.gaps:
            self._chunks.record(gap, attributes, call.context)

    def _count(self, usage: TokenUsage | None, call: Measured, used: Mapping[str, Any]) -> None:
        if usage is None:
            return
        for name, (counter, modalities) in self._counters.items():
            for modality, count in by_modality(usage, name, modalities):
                counter.add(count, {**used, semconv.TOKEN_MODALITY: modality}, call.context)


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


def _values_of(tag: str) -> Bounded:
    return _tags.setdefault(tag, Bounded(semconv.TAG_PREFIX + tag, MAX_TAG_VALUES))


def _with_error(attributes: Mapping[str, Any], call: Measured) -> Mapping[str, Any]:
    return attributes if call.error_type is None else {**attributes, semconv.ERROR_TYPE: call.error_type}


def _goes_anywhere(counter: Counter) -> bool:
    """Whether what is recorded can be seen by anybody: not without a meter provider, nor with one that does nothing."""
    real = getattr(counter, "_real_instrument", counter)
    return real is not None and not isinstance(real, NoOpCounter)


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
