"""The lifetime of one call: opened before a byte is sent, finished exactly once, however it ends."""

from __future__ import annotations

import functools
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, set_span_in_context

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets import BudgetExceeded
from tokenbudget_otel.budgets.remedies import UNCHANGED
from tokenbudget_otel.budgets.steps import Steps, run, run_async
from tokenbudget_otel.dialects import METERED_KEY
from tokenbudget_otel.instrumentation import carrier, metered_calls
from tokenbudget_otel.instrumentation.budget_events import note_budgets
from tokenbudget_otel.instrumentation.emitters import NONE, recorded_elsewhere
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.metered_calls import MeteredCall
from tokenbudget_otel.instrumentation.peers import around_this_call, say_whose_span, scope_of
from tokenbudget_otel.instrumentation.span_writing import set_clean
from tokenbudget_otel.instrumentation.suppression import span_of_this_call, suppressed
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Charge, Meter, Reading, Request, Ticket
from tokenbudget_otel.money import NANO_PER_USD
from tokenbudget_otel.scopes import detach
from tokenbudget_otel.tags import current_tags
from tokenbudget_otel.usage import UNIT_FIELDS, TokenUsage

if TYPE_CHECKING:
    from tokenbudget_otel.instrumentation.recording import Recording

_TOKEN_ATTRIBUTES: Final = dict((
    ("input_tokens", semconv.USAGE_INPUT_TOKENS),
    ("output_tokens", semconv.USAGE_OUTPUT_TOKENS),
    ("cache_read_tokens", semconv.USAGE_CACHE_READ),
    ("cache_write_tokens", semconv.USAGE_CACHE_WRITE),
    ("reasoning_tokens", semconv.USAGE_REASONING),
    ("input_text_tokens", "gen_ai.usage.text.input_tokens"),
    ("input_audio_tokens", "gen_ai.usage.audio.input_tokens"),
    ("input_image_tokens", "gen_ai.usage.image.input_tokens"),
    ("input_video_tokens", "gen_ai.usage.video.input_tokens"),
    ("output_text_tokens", "gen_ai.usage.text.output_tokens"),
    ("output_audio_tokens", "gen_ai.usage.audio.output_tokens"),
    ("output_image_tokens", "gen_ai.usage.image.output_tokens"),
    ("output_video_tokens", "gen_ai.usage.video.output_tokens"),
    ("cache_read_text_tokens", "gen_ai.usage.text.cache_read.input_tokens"),
    ("cache_read_audio_tokens", "gen_ai.usage.audio.cache_read.input_tokens"),
    ("cache_read_image_tokens", "gen_ai.usage.image.cache_read.input_tokens"),
    ("cache_read_video_tokens", "gen_ai.usage.video.cache_read.input_tokens"),
    *(
        (name, semconv.USAGE_UNIT_PREFIX + name)
        for name in (
            "cache_write_5m_tokens", "cache_write_30m_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens",
            "tool_use_input_tokens", "citation_tokens", "rejected_prediction_tokens", *UNIT_FIELDS,
        )
    ),
))  # fmt: skip
"""Counts of a usage, and the attribute of each."""


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

_SPAN_KEY: Final = next(iter(set_span_in_context(INVALID_SPAN, Context())))
"""Where a context has its current span."""


class Reader(Protocol):
    """Follows a response as it arrives; ``usage_is_final`` is whether the provider's own count has been seen."""

    @property
    def usage_is_final(self) -> bool: ...

    @property
    def facts(self) -> ResponseFacts: ...


class LlmCall:
    """One call to a provider, from its admission to its end.

    The span is ours, or one that somebody else made for this very call (then only what they lack is added),
    or none where spans are suppressed. Metering and budgets do not depend on it.
    """

    __slots__ = ("__weakref__", "_admit", "_attached", "_attributes", "_first_chunk", "_gaps", "_last_chunk", "_later",
                 "_maker", "_meter", "_noted", "_once", "_own", "_quiet", "_reader", "_remembered", "_server",
                 "_started", "_telemetry", "_wall_start", "context", "recording", "request", "span",
                 "ticket")  # fmt: skip

    def __init__(
        self,
        telemetry: Telemetry,
        meter: Meter,
        request: Request,
        *,
        server: Mapping[str, Any] = NOTHING,
        attributes: Callable[[], Mapping[str, Any]] | None = None,
        admit: bool = True,
        quiet: bool = False,
    ) -> None:
        """A call that is about to be made; :meth:`begin` is next. ``server`` is the attributes of the server's address;
        ``attributes`` is asked for further ones if the span records.

        Without ``admit`` no budget is asked: for requests that cost nothing themselves. A ``quiet`` one has a span
        only if it ends with something to charge.
        """
        self._telemetry = telemetry
        self._meter = meter
        self.request = request
        self._once = [None]
        self._server = server
        self._attached: Token[Context] | None = None
        self._first_chunk: float | None = None
        self._last_chunk = 0.0
        self._gaps: list[float] | array[float] | None = None
        self.ticket = Ticket(request, None)
        self.context = request.context if request.context is not None else context_api.get_current()
        self.span: Span = INVALID_SPAN
        self._own = False
        self._maker: str | None = None
        self.recording: Recording | None = None
        """What was said, where that is captured or told in an event."""
        self._noted: dict[str, Any] | None = None
        self._attributes = attributes
        self._admit = admit
        self._later: Callable[[], None] | None = None
        self._reader: Reader | None = None
        self._remembered: MeteredCall | None = None
        self._quiet = quiet
        self._wall_start = time.time_ns()
        self._started = time.perf_counter()

    def begin(self) -> LlmCall:
        """Have the call admitted, and open its span.

        Raises:
            BudgetExceeded: when a budget refuses the call. A span that says so has been made and ended.
        """
        if not self.begun_at_once():
            run(self._beginning(), self._meter.enforcer.way)
        return self

    async def begin_async(self) -> LlmCall:
        """:meth:`begin` on an event loop, which goes on while budgets are asked."""
        await run_async(self._beginning(), self._meter.enforcer.way)
        return self

    def begun_at_once(self) -> bool:
        """Begin where nothing has to be waited for, as with budgets in memory. Whether that could be done."""
        if self._admit:
            try:
                ticket = self._meter.admit_now(self.request)
            except BudgetExceeded as refusal:
                self._tell_refused(refusal)
                raise
            if ticket is None:
                return False
            self.ticket = ticket
        self._admitted()
        return True

    def _beginning(self) -> Steps[None]:
        if self._admit:
            try:
                self.ticket = yield from self._meter.admission(self.request)
            except BudgetExceeded as refusal:
                self._tell_refused(refusal)
                raise
        self._admitted()

    def _admitted(self) -> None:
        parent = self.context
        if self._quiet:
            self._later = functools.partial(self._open_span, parent)
        else:
            self._open_span(parent)
            if (hold := self.ticket.hold) is not None and (hold.warnings or hold.change is not UNCHANGED):
                note_budgets(self.span, hold, self.request)

    def _tell_refused(self, refusal: BudgetExceeded) -> None:
        self._open_span(self.context)
        try:
            self._refused(refusal)
        except Exception as error:  # somebody's processor raised: the refusal stands
            log_once("end the span of a refused call", error)

    def _open_span(self, parent: Context) -> None:
        """Find or make the span. Without one (a sampler or processor of somebody's raised) the call is metered
        all the same."""
        try:
            request, telemetry = self.request, self._telemetry
            maker = around_this_call(telemetry.sdk)
            if _SPAN_KEY in parent:
                adopted = span_of_this_call(parent, request.operation, request.asked_model or request.model, maker)
                if adopted is not None:
                    self.span = adopted
                    maker = scope_of(adopted) or maker
            self._maker = maker
            if maker is not None:
                # Its span may not be current, or may come later: the cost is put on it when it ends.
                say_whose_span(maker)
                carrier.attach(telemetry.tracer_provider)
            elif not suppressed(parent):
                operation, model = request.operation, request.model
                # What samplers may ask for; the rest is set on spans that record.
                start = {semconv.OPERATION_NAME: operation, semconv.PROVIDER_NAME: request.provider, **self._server}
                if model:
                    start[semconv.REQUEST_MODEL] = model
                if telemetry.former_names:
                    start[semconv.FORMER_NAMES[semconv.PROVIDER_NAME]] = request.provider
                self.span = telemetry.tracer.start_span(
                    f"{operation} {model}" if model else operation,
                    parent,
                    SpanKind.CLIENT,
                    start,
                    start_time=self._wall_start,
                )
                self._own = True
            recording = self.span.is_recording()
            if metered_calls.listened_to():
                self._remembered = metered_calls.remember(
                    request.id,
                    {name for name in (request.model, request.asked_model) if name},
                    self._wall_start,
                    maker=maker,
                    shown=recording,
                    so_far=self._so_far,
                )
            # Whoever makes another span inside this call (the SDK itself, where ours is suppressed) is told that the
            # call is metered here.
            inside = {**parent, METERED_KEY: request.id}
            if self._own:
                inside[_SPAN_KEY] = self.span
            self.context = Context(inside)
            if recording:
                # On a span of others the id at once: whoever made it may end it before we know the usage.
                known = self._asked() if self._own else {semconv.CALL_ID: request.id}
                for name, value in request.tags.items():
                    known[semconv.TAG_PREFIX + name] = value
                set_clean(self.span, known)
        except Exception as error:
            log_once("start a span", error)

    def _asked(self) -> dict[str, Any]:
        """The span attributes of the request, beside those that every span begins with."""
        return {} if self._attributes is None else dict(self._attributes())

    # --- while the SDK works -----------------------------------------------------------------------------------

    def __enter__(self) -> LlmCall:
        """Make the span current, so that spans of the HTTP client become its children."""
        self._attached = context_api.attach(self.context)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._attached is not None:
            detach(self._attached)
            self._attached = None

    def chunk_arrived(self, count: int = 1) -> None:
        """Note the time of chunks of a stream: of ``count`` that arrived together.

        A chunk is what an SDK makes an object of: an event of the stream. Of bytes with no whole event there are none;
        it counts when the rest of it has come.
        """
        if not count:
            return
        now = time.perf_counter()
        if (gaps := self._gaps) is None:
            self._first_chunk = now - self._started
            gaps = self._gaps = array("d")
        else:
            gaps.append(now - self._last_chunk)
        self._last_chunk = now
        if count > 1:
            gaps.extend(repeat(0.0, count - 1))

    def chunks_arrived(self, first: float, last: float, gaps: list[float] | array[float]) -> None:
        """Note the times of all chunks of a stream, which somebody else has put down: of the first and the last one, by
        ``time.perf_counter()``, and between each and the next."""
        self._first_chunk = first - self._started
        self._last_chunk = last
        self._gaps = gaps

    # --- the end -----------------------------------------------------------------------------------------------

    @property
    def meter(self) -> Meter:
        """Where the call was admitted, and is settled."""
        return self._meter

    @property
    def owns_span(self) -> bool:
        """Whether the span of this call is ours."""
        return self._own

    @property
    def has_span(self) -> bool:
        """Whether the call has a span, ours or somebody else's, or will have."""
        return self._own or self._maker is not None or self.span.is_recording()

    @property
    def finished(self) -> bool:
        """Whether the call has ended."""
        return not self._once

    def finish(
        self,
        outcome: str,
        facts: ResponseFacts,
        error: BaseException | None = None,
        *,
        billed: bool = True,
        book: Callable[[Reading], Charge] | None = None,
        keep_ticket: bool = False,
    ) -> Charge | None:
        """End the call: settle or release, write the span, record the metrics. Only the first time counts.

        Args:
            outcome: one of the values of :data:`tokenbudget_otel.semconv.CALL_OUTCOME`.
            facts: what the response said.
            error: what the program is told, if it is told of an error.
            billed: whether the provider may have billed the call.
            book: how the usage is booked; by settling the reservation of this call, unless said otherwise.
            keep_ticket: leave the reservation open: the usage will be known later (background responses).
        """
        try:
            self._once.pop()
        except IndexError:
            return None
        duration = time.perf_counter() - self._started
        charge: Charge | None = None
        if billed and self._later is not None:
            self._later()
        try:
            if not billed:
                self._meter.release(self.ticket)
            elif not keep_ticket:
                reading = facts.reading()
                charge = book(reading) if book is not None else self._meter.settle(self.ticket, reading)
        finally:
            try:
                if self._remembered is not None:
                    self._remember(self._remembered, facts, charge)
                error_type = facts.error[0] if facts.error else None if error is None else error_name(error)
                if isinstance(error, BudgetExceeded) and self._own:
                    self.note(semconv.BUDGET_NAME, error.budget)
                if self.span.is_recording():
                    self._write_span(outcome, facts, error, charge, error_type)
                if self.recording is not None:
                    self._write_content(facts, lambda: self._ended(outcome, facts, charge, error_type))
                self._record(duration, facts, charge, error_type)
            finally:
                if self._own:
                    self.span.end()
        return charge

    def _refused(self, refusal: BudgetExceeded) -> None:
        self._once.pop()
        error_type = error_name(refusal)
        self._telemetry.metrics.refused(self.request, refusal)
        attributes = {
            semconv.CALL_ID: self.request.id,
            semconv.CALL_OUTCOME: "refused",
            semconv.BUDGET_NAME: str(refusal.budget),
            semconv.ERROR_TYPE: error_type,
        }
        if self.span.is_recording():
            set_clean(self.span, attributes)
            self.span.set_status(Status(StatusCode.ERROR, str(refusal)))
        if self.recording is not None:
            self._write_content(ResponseFacts(), lambda: attributes)
        if self._own:
            self.span.end()

    def follow(self, reader: Reader) -> None:
        """Tell who reads the response as it arrives: there may be somebody who wants to know before it has ended."""
        self._reader = reader

    def _so_far(self) -> Mapping[str, Any] | None:
        """What the call costs, as soon as the provider's count has arrived."""
        if self._reader is None or not self._reader.usage_is_final:
            return None
        return charge_attributes(self._meter.price(self.request, self._reader.facts.reading()), tokens=False)

    def _remember(self, call: MeteredCall, facts: ResponseFacts, charge: Charge | None) -> None:
        """For the spans that others make of this call, and end later."""
        recording = self.span.is_recording()
        if not recording:
            call.span_is_gone()
        usage = None if charge is None else charge.usage
        # What our own span shows need not be shown again.
        cost = {} if charge is None or (recording and self._own) else charge_attributes(charge, tokens=False)
        used = None if usage is None else (usage.input_tokens, usage.output_tokens)
        call.finish(time.time_ns(), cost, used, facts.id, facts.model)

    def _write_span(
        self,
        outcome: str,
        facts: ResponseFacts,
        error: BaseException | None,
        charge: Charge | None,
        error_type: str | None,
    ) -> None:
        if self._own and error_type is not None:
            message = facts.error[1] if facts.error else str(error)
            self.span.set_status(Status(StatusCode.ERROR, message[:1_000]))
        set_clean(self.span, self._ended(outcome, facts, charge, error_type))

    def _ended(
        self, outcome: str, facts: ResponseFacts, charge: Charge | None, error_type: str | None
    ) -> dict[str, Any]:
        """What is known of the call at its end."""
        own = self._own
        attributes: dict[str, Any] = {semconv.CALL_ID: self.request.id, semconv.CALL_OUTCOME: outcome}
        if charge is not None:
            _add_charge(attributes, charge, former_names=self._telemetry.former_names, tokens=own)
        if own:
            if facts.id is not None:
                attributes[semconv.RESPONSE_ID] = facts.id
            if facts.model is not None:
                attributes[semconv.RESPONSE_MODEL] = facts.model
            if facts.finish_reasons:
                attributes[semconv.RESPONSE_FINISH_REASONS] = facts.finish_reasons
            if facts.status is not None:
                attributes[semconv.RESPONSE_STATUS] = facts.status
            if self._first_chunk is not None:
                attributes[semconv.RESPONSE_TIME_TO_FIRST_CHUNK] = self._first_chunk
            if error_type is not None:
                attributes[semconv.ERROR_TYPE] = error_type
            if facts.attributes:
                attributes.update(facts.attributes)
        return attributes

    def _write_content(self, facts: ResponseFacts, ended: Callable[[], Mapping[str, Any]]) -> None:
        """Write what was said, and the event, where the span is ours: for a span that somebody else made, it is theirs
        to say. The event has what our span has, also where a sampler dropped that."""
        recording, self.recording = self.recording, None
        if recording is None or not self._own:
            return
        request = self.request

        def attributes() -> dict[str, Any]:
            known = {semconv.OPERATION_NAME: request.operation, semconv.PROVIDER_NAME: request.provider, **self._server}
            known |= {semconv.REQUEST_MODEL: request.model} if request.model else {}
            tags = {semconv.TAG_PREFIX + name: value for name, value in request.tags.items()}
            return {**known, **self._asked(), **tags, **(self._noted or {}), **ended()}

        try:
            recording.write(request, facts, self.span, self.context, attributes)
        except Exception as error:
            log_once("capture content", error)

    def note(self, name: str, value: Any) -> None:
        """Set a further attribute of the span that is ours, and of the event."""
        self._noted = {**(self._noted or {}), name: value}
        if self._own:
            self.span.set_attribute(name, value)

    def _record(self, duration: float, facts: ResponseFacts, charge: Charge | None, error_type: str | None) -> None:
        request = self.request
        if self._quiet and charge is None and not self._own:
            return  # a look that found nothing new
        self._telemetry.metrics.record(
            request.operation,
            request.provider,
            request.model,
            facts.model,
            self.context,
            server=self._server,
            tags=request.tags,
            charge=charge,
            duration=duration,
            first_chunk=self._first_chunk,
            gaps=_listed(self._gaps),
            error_type=error_type,
            recorded=NONE if self._own else recorded_elsewhere(self.span, self.context, self._maker),
            span=self.span if self._own else None,
        )


def _listed(gaps: list[float] | array[float] | None) -> Sequence[float]:
    return gaps.tolist() if isinstance(gaps, array) else gaps or ()


def charge_attributes(charge: Charge, *, former_names: bool = False, tokens: bool = True) -> dict[str, Any]:
    """Span attributes of what a call used (with ``tokens``) and cost."""
    attributes: dict[str, Any] = {}
    _add_charge(attributes, charge, former_names=former_names, tokens=tokens)
    return attributes


def _add_charge(attributes: dict[str, Any], charge: Charge, *, former_names: bool, tokens: bool) -> None:
    if tokens and charge.usage is not None:
        add_usage(attributes, charge.usage, former_names=former_names)
    if charge.estimated:
        attributes[semconv.USAGE_ESTIMATED] = True
    cost = charge.cost
    attributes[semconv.COST_STATE] = cost.state
    if (nano_usd := cost.nano_usd) is not None:
        attributes[semconv.USAGE_COST] = nano_usd / NANO_PER_USD
        for part, nano_usd in cost.breakdown.items():
            attributes[semconv.COST_PART_PREFIX + part] = nano_usd / NANO_PER_USD
    attributes.update(cost.provenance)
    if unpriced := cost.unpriced:
        attributes[semconv.COST_UNPRICED] = unpriced


def add_usage(attributes: dict[str, Any], usage: TokenUsage, *, former_names: bool) -> None:
    """Add every count that is known."""
    for field, value in usage.__dict__.items():
        if (name := _TOKEN_ATTRIBUTES.get(field)) is not None:
            attributes[name] = value if isinstance(value, int) else float(value)
            if former_names and (former := semconv.FORMER_NAMES.get(name)) is not None:
                attributes[former] = attributes[name]


def error_name(error: BaseException) -> str:
    """``error.type`` of an exception: its full name, with the SDK's public module (``openai.RateLimitError``)."""
    kind = type(error)
    module = kind.__module__
    if module == "builtins":
        return kind.__qualname__
    if isinstance(error, BudgetExceeded):
        return f"{module.partition('.')[0]}.{kind.__qualname__}"  # where programs import it from
    # SDKs raise from private modules (openai._exceptions) what they publish at the top.
    return f"{module.partition('._')[0]}.{kind.__qualname__}"


def open_request(
    provider: str,
    model: str,
    operation: str,
    size: Any,
    *,
    tier: str | None = None,
    at: float | None = None,
    free: bool = False,
    api_key: str = "",
    changing: Callable[[], tuple[frozenset[str], int]] | None = None,
) -> Request:
    """A request of the current context."""
    ctx = context_api.get_current()
    return Request(
        provider,
        model,
        operation,
        size,
        tier=tier,
        free=free,
        at=time.time() if at is None else at,
        tags=current_tags(ctx),
        context=ctx,
        api_key=api_key,
        changing=changing,
    )
