"""The span processor: prices the GenAI spans that others make, and tags spans from baggage.

    >>> from opentelemetry.sdk.trace import TracerProvider
    >>> from tokenbudget_otel.meter import Meter
    >>> provider = TracerProvider()
    >>> provider.add_span_processor(TokenBudgetSpanProcessor(meter := Meter()))
    >>> span = provider.get_tracer("somebody").start_span(
    ...     "chat gpt-4o",
    ...     attributes={"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
    ...                 "gen_ai.request.model": "gpt-4o"},
    ... )
    >>> span.set_attributes({"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100})
    >>> span.end()
    >>> span.attributes["gen_ai.usage.cost"]
    0.0035
    >>> meter.totals.get().calls
    1

It sees only spans that are sampled, so what it counts is right only where all are. Our instrumentors
count without spans. docs/span-processor.md has the rules.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode

from tokenbudget_otel import dialects, semconv
from tokenbudget_otel.dialects import COVERED_BY, DIALECTS, METERED_KEY, Dialect, Inference, Reader
from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.instrumentation import metered_calls
from tokenbudget_otel.instrumentation.call import charge_attributes
from tokenbudget_otel.instrumentation.call_metrics import CallMetrics
from tokenbudget_otel.instrumentation.carrier import metered_call, to_show
from tokenbudget_otel.instrumentation.emitters import NONE, recorded_by
from tokenbudget_otel.instrumentation.frozen_spans import write
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.metric_options import metric_options
from tokenbudget_otel.instrumentation.telemetry import SCHEMA_URL
from tokenbudget_otel.meter import Charge, Meter, Reading, Request, Size, Ticket, meter
from tokenbudget_otel.tags import current_tags
from tokenbudget_otel.usage import TokenUsage
from tokenbudget_otel.version import __version__

logger: Final = logging.getLogger("tokenbudget_otel")

SCOPE: Final = "tokenbudget_otel.processor"

METRIC_REJECTED: Final = "tokenbudget.spans.rejected"
REJECTED_REASON: Final = "tokenbudget.rejected.reason"
REJECTED_DIALECT: Final = "tokenbudget.dialect"

MAX_OPEN: Final = 20_000
"""Spans under way that are remembered. Beyond it the oldest are forgotten: those that were never ended."""

MAX_CHARGED: Final = 1_024
"""Ended spans whose call is remembered, for a child of theirs that ends later."""

MAX_BELOW: Final = 16
"""Calls remembered for each span above them. A span of one call has few below; an agent's may have thousands."""

MAX_DEPTH: Final = 128
"""Levels that are looked up the tree from a call."""

MAX_TAGS: Final = 32
"""Tags that are set on a span. Baggage may come from another service, and a span holds few attributes."""

UNKNOWN_CALL: Final = "unknown"
"""Stands for the id of a call that is not known yet."""

OTHER_ERROR: Final = "_OTHER"
"""What the conventions call an error that nobody names."""

_SERVER: Final = (semconv.SERVER_ADDRESS, semconv.SERVER_PORT)

TagScope = Literal["all", "genai", "none"]


class _Call:
    """A call that is charged, or is metered at the door: told by its id, or the provider's id of the response."""

    __slots__ = ("charged", "ended_ns", "id", "response_id")

    def __init__(self) -> None:
        self.id: str | None = None
        self.response_id: str | None = None
        self.ended_ns = 0
        self.charged = True

    def is_also(self, other: _Call) -> bool:
        """Whether two nested spans tell of one call. What is nested does, unless the responses are different ones
        (a stream that stays current in its caller becomes the parent of calls that are none of its business)."""
        return self.response_id is None or other.response_id is None or self.response_id == other.response_id


class _Start:
    """A GenAI span that is under way."""

    __slots__ = ("call", "context", "door", "is_tool", "parent", "recorded")

    def __init__(
        self, parent: int, ctx: Context, *, door: str | None, is_tool: bool, recorded: frozenset[str] = NONE
    ) -> None:
        self.parent = parent
        self.context = ctx
        self.door = door
        self.is_tool = is_tool
        self.recorded = recorded
        self.call = _Call()


class TokenBudgetSpanProcessor(SpanProcessor):
    """Prices GenAI spans that somebody else made, through the same meter as everything else.

    Add it in any order relative to exporters: ``provider.add_span_processor(TokenBudgetSpanProcessor())``.
    It never raises, never refuses a call (the call has been made), and leaves alone what our instrumentors
    charged. Of nested spans of one call the innermost that knows the usage is charged.

    Args:
        meter: where calls are counted; that of the process by default.
        former_names: also set standard attributes of priced spans under the names of the previous conventions.
        tags: which spans get the tags in baggage as ``tokenbudget.tag.<name>``: ``"all"``, only ``"genai"`` ones,
            or ``"none"``.
        meter_provider: where metrics go; the global one by default.
        metric_names, metric_tags: as of :func:`tokenbudget_otel.instrument`.
        table: the dialects to read.

    Raises:
        ValueError: for a ``tags`` that is none of these, and for metric names or tags that cannot be.
    """

    def __init__(
        self,
        meter: Meter | None = None,
        *,
        former_names: bool = False,
        tags: TagScope = "all",
        meter_provider: MeterProvider | None = None,
        metric_names: str | None = None,
        metric_tags: Iterable[str] | None = None,
        table: tuple[Dialect, ...] = DIALECTS,
    ) -> None:
        if tags not in ("all", "genai", "none"):
            raise ValueError(f"tags must be 'all', 'genai' or 'none', not {tags!r}")
        self._meter = meter
        self._former_names = former_names
        self._tags = tags
        self._reader = Reader(table) if table is not DIALECTS else None
        self._candidate = (self._reader or dialects).candidate
        self._read = (self._reader or dialects).read
        metrics = get_meter(SCOPE, __version__, meter_provider, SCHEMA_URL)
        self._metrics = CallMetrics(metrics, metric_options(metric_names, metric_tags))
        self._rejected = metrics.create_counter(
            METRIC_REJECTED, "{span}", "GenAI spans of which something could not be counted."
        )
        # Every span under way, by id: its parent's id, or a _Start where it is a GenAI span.
        self._open: dict[int, int | _Start] = {}
        self._below: dict[int, list[_Call]] = {}
        self._charged: OrderedDict[int, _Call] = OrderedDict()
        self._told: set[str] = set()
        self._sees_ending = False
        self._lock = threading.Lock()
        renew_after_fork(self)
        metered_calls.listen()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    # --- what the SDK calls ------------------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Tag the span, and note it."""
        try:
            self._note_start(span, parent_context)
        except Exception as error:
            log_once("note the start of a span", error)

    def _on_ending(self, span: Span) -> None:
        """Price the span. Here and not in ``on_end``, so that exporters registered earlier see it as well."""
        self._sees_ending = True
        try:
            self._note_end(span)
        except Exception as error:
            log_once("price a span", error)

    on_ending = _on_ending
    """The name that the specification has for it; an SDK may drop the underscore."""

    def on_end(self, span: ReadableSpan) -> None:
        """Price the span where the SDK has no step before this one."""
        if self._sees_ending:
            return
        try:
            self._note_end(span)
        except Exception as error:
            log_once("price a span", error)

    def shutdown(self) -> None:
        """Nothing to close. Spans that end afterwards are still counted: the calls have been made."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """``True`` at once: nothing is held back."""
        return True

    # --- start -------------------------------------------------------------------------------------------------

    def _note_start(self, span: Span, parent_context: Context | None) -> None:
        parent = span.parent
        parent_id = 0 if parent is None or parent.is_remote else parent.span_id
        scope, version = _scope(span)
        attributes = _attributes(span)
        genai = self._candidate(attributes, scope, version)
        if self._tags == "all" or (genai and self._tags == "genai"):
            self._tag(span, attributes, parent_context)
        if len(self._open) >= MAX_OPEN:
            self._forget_oldest()
        span_id = span.context.span_id
        if not genai:
            self._open[span_id] = parent_id
            return
        ctx = context_api.get_current() if parent_context is None else parent_context
        operation = str(attributes.get(semconv.OPERATION_NAME))
        start = _Start(
            parent_id,
            # Tags and budgets are read from it later. The span in it is let go: with one that never ends, a tree of
            # spans would stay in memory.
            trace.set_span_in_context(trace.INVALID_SPAN, ctx),
            door=_metered_above(ctx),
            is_tool=operation == "execute_tool" or attributes.get("openinference.span.kind") == "TOOL",
            recorded=recorded_by(scope) if operation in semconv.INFERENCE_OPERATIONS else NONE,
        )
        self._open[span_id] = start
        if _is_ours(scope):
            # Charged at the door however it ends, so spans above are told now: they may end before it.
            with self._lock:
                self._mark_above(start.parent, start.call)

    def _tag(self, span: Span, attributes: Mapping[str, Any], ctx: Context | None) -> None:
        tags = current_tags(ctx)
        if tags and span.is_recording():
            named = ((semconv.TAG_PREFIX + name, value) for name, value in list(tags.items())[:MAX_TAGS])
            span.set_attributes({name: value for name, value in named if name not in attributes})

    def _forget_oldest(self) -> None:
        with self._lock:
            for span_id in list(self._open)[: MAX_OPEN // 10]:
                self._open.pop(span_id, None)
                self._below.pop(span_id, None)

    # --- end ---------------------------------------------------------------------------------------------------

    def _note_end(self, span: Span | ReadableSpan) -> None:
        ids = span.context
        scope, version = _scope(span)
        attributes = _attributes(span)
        ours = _is_ours(scope)
        if ours and attributes.get(semconv.OPERATION_NAME) in semconv.INFERENCE_OPERATIONS:
            self._note_own(span, attributes)
            return
        inference = None
        if not ours and self._candidate(attributes, scope, version):
            inference = self._read(dict(attributes), scope, version)
        if inference is None:
            self._open.pop(ids.span_id, None)
            if self._below:
                self._below.pop(ids.span_id, None)
            return
        metered = metered_call(span, scope, inference)
        # Taking the span off the books and putting its call on them is one step: two nested spans may end in two
        # threads at once, and one of them has to see the other.
        with self._lock:
            below = self._below.pop(ids.span_id, [])
            start = self._started(span, self._open.pop(ids.span_id, None))
            call = start.call
            call.id = metered.id if metered else inference.call_id or f"{ids.trace_id:032x}{ids.span_id:016x}"
            call.response_id = inference.response_id
            call.ended_ns = span.end_time or time.time_ns()
            charged = metered is not None or inference.call_id is not None
            covering = None if charged else inference.covered_by or self._covering(span, start, below)
            call.charged = charged or inference.usage is not None
            if covering is None:
                self._mark_above(start.parent, call)
            if covering is None and call.charged:
                self._remember_charged(ids.span_id, call)
        if charged:
            more = None if metered is None else to_show(metered, inference, attributes)
            if more:
                self._write(span, more)
            elif more is None and inference.usage is not None and semconv.COST_STATE not in attributes:
                # The span of a metered call ended before the door could tell what that came to.
                self._price(span, start, inference, inference.usage, call.id, counted=True)
                if metered is not None:
                    metered.shown = metered.carried = True
            return
        if covering is not None:
            self._write(span, {COVERED_BY: covering})
            return
        if inference.rejected:
            self._reject(inference)
        if inference.usage is not None:
            self._price(span, start, inference, inference.usage, call.id)
        elif span.status.status_code is not StatusCode.ERROR and inference.error_type is None:
            # The provider will bill it, and nothing is known: that is said, and no number is made up.
            if not inference.rejected:
                self._count_rejected("no_usage", inference, "it has no usage")
            self._write(span, {semconv.COST_STATE: "unknown"})
            self._record(span, start, inference, below, cost_state="unknown")
        else:
            self._record(span, start, inference, below)

    def _note_own(self, span: Span | ReadableSpan, attributes: Mapping[str, Any]) -> None:
        """Note the call of a span of our instrumentors: it was charged at the door, which wrote all that is known."""
        ids = span.context
        with self._lock:
            self._below.pop(ids.span_id, None)
            start = self._started(span, self._open.pop(ids.span_id, None))
            call = start.call
            call.id = attributes.get(semconv.CALL_ID) or f"{ids.trace_id:032x}{ids.span_id:016x}"
            call.response_id = attributes.get(semconv.RESPONSE_ID)
            call.ended_ns = span.end_time or time.time_ns()
            self._mark_above(start.parent, call)
            self._remember_charged(ids.span_id, call)

    def _remember_charged(self, span_id: int, call: _Call) -> None:
        self._charged[span_id] = call
        if len(self._charged) > MAX_CHARGED:
            self._charged.popitem(last=False)

    def _started(self, span: Span | ReadableSpan, noted: int | _Start | None) -> _Start:
        if isinstance(noted, _Start):
            return noted
        # Only its later attributes told what it is, or it began before the processor was added.
        parent = span.parent
        return _Start(parent.span_id if parent is not None else 0, context_api.get_current(), door=None, is_tool=False)

    def _covering(self, span: Span | ReadableSpan, start: _Start, below: list[_Call]) -> str | None:
        """The id of the call that a span repeats, if that is charged elsewhere."""
        if start.door is not None:
            return start.door
        for other in below:
            if other.charged and other.is_also(start.call):
                return other.id or UNKNOWN_CALL
        for span_id in self._above(start.parent):
            ended = self._charged.get(span_id)
            # What began after its parent ended is another call: the parent only stayed current by mistake.
            if ended is not None and (span.start_time or 0) <= ended.ended_ns and ended.is_also(start.call):
                return ended.id or UNKNOWN_CALL
        return None

    def _above(self, span_id: int, *, past_tools: bool = False) -> Iterator[int]:
        """The ids of the spans above, nearest first, up to a tool: what a tool calls is a call of its own."""
        for _ in range(MAX_DEPTH):
            if not span_id:
                return
            node = self._open.get(span_id, 0)
            if isinstance(node, _Start):
                if node.is_tool and not past_tools:
                    return
                yield span_id
                span_id = node.parent
            else:
                yield span_id
                span_id = node

    def _mark_above(self, span_id: int, call: _Call) -> None:
        """Tell the spans above, as far as they are under way, that a call below them is charged."""
        for above in self._above(span_id):
            if above not in self._open:
                return
            calls = self._below.setdefault(above, [])
            if call not in calls:
                calls.append(call)
                if len(calls) > MAX_BELOW:
                    del calls[0]
            if above not in self._open:  # it ended just now, in another thread, and nobody will look here again
                self._below.pop(above, None)

    def _price(
        self,
        span: Span | ReadableSpan,
        start: _Start,
        inference: Inference,
        usage: TokenUsage,
        call_id: str,
        *,
        counted: bool = False,
    ) -> None:
        """Put the cost on a span; and charge it, unless the call is counted already."""
        started_ns = span.start_time
        request = Request(
            _provider(inference),
            inference.model,
            inference.operation,
            lambda: Size(usage.input_tokens or 0, usage.input_tokens),
            tier=inference.tier,
            tags={**current_tags(start.context), **inference.tags},
            context=start.context,
            id=call_id,
        )
        if started_ns is not None:
            request.at = started_ns / 1e9
        reading = Reading(
            usage, inference.response_model, inference.tier, inference.reported_nano_usd, inference.estimated
        )
        book = self._meter or meter()
        # Settling a ticket that is closed tells the price and counts nothing.
        charge = book.settle(Ticket(request, None, open=False), reading) if counted else book.record(request, reading)
        attributes = {semconv.CALL_ID: call_id, **charge_attributes(charge, tokens=False)}
        if self._former_names:
            known = _attributes(span)
            attributes |= {
                former: known[name]
                for name, former in semconv.FORMER_NAMES.items()
                if name in known and former not in known
            }
        self._write(span, attributes)
        if not counted:
            self._remember(span, start, inference, call_id)
            self._record(span, start, inference, charge=charge)

    def _remember(self, span: Span | ReadableSpan, start: _Start, inference: Inference, call_id: str) -> None:
        """For other spans of this call, in other traces or beside it in this one."""
        models = {model for model in (inference.request_model, inference.response_model) if model}
        call = metered_calls.remember(call_id, models, span.start_time or 0)
        if call is not None and inference.usage is not None:
            call.above = frozenset(self._above(start.parent, past_tools=True))
            call.scope = _scope(span)[0]
            used = (inference.usage.input_tokens, inference.usage.output_tokens)
            call.finish(span.end_time or time.time_ns(), {}, used, inference.response_id, inference.response_model)

    def _record(
        self,
        span: Span | ReadableSpan,
        start: _Start,
        inference: Inference,
        below: Sequence[_Call] = (),
        charge: Charge | None = None,
        cost_state: str | None = None,
    ) -> None:
        """Add the call to the metrics: what nobody has but us, and of the standard ones what the emitter leaves out.
        Once, at the innermost span, also where none of them is charged."""
        if any(other.is_also(start.call) for other in below):
            return
        attributes = _attributes(span)
        error_type = inference.error_type
        if error_type is None and span.status.status_code is StatusCode.ERROR:
            error_type = OTHER_ERROR
        first_chunk = attributes.get(semconv.RESPONSE_TIME_TO_FIRST_CHUNK)
        self._metrics.record(
            inference.operation,
            _provider(inference),
            inference.request_model,
            inference.response_model,
            trace.set_span_in_context(trace.NonRecordingSpan(span.context), start.context),
            server={name: value for name in _SERVER if isinstance(value := attributes.get(name), str | int)},
            tags={**current_tags(start.context), **inference.tags},
            charge=charge,
            cost_state=cost_state,
            duration=_seconds(span),
            first_chunk=first_chunk if isinstance(first_chunk, float) and 0 <= first_chunk < math.inf else None,
            error_type=error_type,
            recorded=self._recorded(span, start),
        )

    def _recorded(self, span: Span | ReadableSpan, start: _Start) -> frozenset[str]:
        """What the makers of this span, and of inferences around it that are under way, record of the call."""
        recorded = recorded_by(_scope(span)[0])
        for span_id in self._above(start.parent):
            node = self._open.get(span_id)
            if isinstance(node, _Start):
                recorded |= node.recorded
        return recorded

    def _reject(self, inference: Inference) -> None:
        for reason in dict.fromkeys(reason for reason, _ in inference.rejected):
            what = ", ".join(text for why, text in inference.rejected if why == reason)
            self._count_rejected(reason, inference, what)

    def _count_rejected(self, reason: str, inference: Inference, what: str) -> None:
        self._rejected.add(1, {REJECTED_REASON: reason, REJECTED_DIALECT: inference.dialect})
        if reason not in self._told:
            self._told.add(reason)
            logger.warning(
                "tokenbudget-otel cannot count all of a GenAI span made by others (%s: %s; provider %r, model %r). "
                "More of this kind are counted in the metric %s; this is logged once.",
                reason,
                what,
                inference.provider,
                inference.model,
                METRIC_REJECTED,
            )

    def _write(self, span: Span | ReadableSpan, attributes: Mapping[str, Any]) -> None:
        if not write(span, attributes) and "read only" not in self._told:
            self._told.add("read only")
            logger.warning(
                "This version of the OpenTelemetry SDK lets no processor add attributes to a span that ends. Calls of "
                "others are counted and charged to budgets, but their spans do not show the cost. This is logged once."
            )


def _scope(span: Span | ReadableSpan) -> tuple[str | None, str | None]:
    scope = span.instrumentation_scope
    return (None, None) if scope is None else (scope.name, scope.version)


def _seconds(span: Span | ReadableSpan) -> float | None:
    """How long a span took."""
    if span.start_time is None:
        return None
    return max(0.0, ((span.end_time or time.time_ns()) - span.start_time) / 1e9)


def _attributes(span: Span | ReadableSpan) -> Mapping[str, Any]:
    """The attributes of a span; the plain dictionary inside, where it is as we know it. Every span of the program
    is looked at twice, and a look through the SDK's two wrappers costs ten times as much."""
    inner = getattr(getattr(span, "_attributes", None), "_dict", None)
    return inner if type(inner) is dict else span.attributes or {}


def _is_ours(scope: str | None) -> bool:
    return scope is not None and scope.startswith("tokenbudget_otel.")


def _provider(inference: Inference) -> str:
    """Who served the call. Clients of OpenAI's SDK talk to many hosts, and most emitters call all of them openai."""
    if inference.provider == "openai" and inference.server_address:
        return provider_of(f"https://{inference.server_address}", inference.provider)
    return inference.provider


def _metered_above(ctx: Context) -> str | None:
    """The id of the call that is metered at the door in this context, if a span of it is about to start."""
    metered = ctx.get(METERED_KEY)
    if metered:
        return str(metered)
    above = trace.get_current_span(ctx)
    if isinstance(above, Span) and above.is_recording():
        call_id = (above.attributes or {}).get(semconv.CALL_ID)
        if isinstance(call_id, str):
            return call_id
    return None
