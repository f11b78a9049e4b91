"""What was said, on its way out: redacted, cut to size, and written to the span and the event of a call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry._logs import Logger, LogRecord
from opentelemetry.context import Context
from opentelemetry.trace import Span

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.capture import Capture
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.content_parts import Messages, plain
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.redaction import NotRedactedError, tell_of
from tokenbudget_otel.instrumentation.truncation import fitted, written
from tokenbudget_otel.meter import Request

EVENT_NAME: Final = "gen_ai.client.inference.operation.details"

LENGTH_LIMITS: Final = ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")
"""Characters at which OpenTelemetry's SDK cuts an attribute of a span. The first that is set holds."""


class Recording:
    """The content of one call. The request is read before it is sent: the program may change it meanwhile.

    Args:
        capture: where it goes.
        content: how it is read.
        body: the request's.
        logger: where events go.
    """

    __slots__ = ("_asked", "_capture", "_logger")

    def __init__(self, capture: Capture, content: Content, body: Any, logger: Logger) -> None:
        self._capture = capture
        self._logger = logger
        self._asked: dict[str, Messages] = {}
        if capture:
            try:
                instructions, messages = content.request(body)
                self._asked = {
                    semconv.SYSTEM_INSTRUCTIONS: plain(instructions),
                    semconv.INPUT_MESSAGES: plain(messages),
                    semconv.TOOL_DEFINITIONS: content.tools(body),
                }
            except Exception as error:
                log_once("capture content", error)

    def write(
        self,
        request: Request,
        facts: ResponseFacts,
        span: Span,
        ctx: Context,
        attributes: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Write it to the span, to an event with the call's ``attributes``, or both."""
        capture = self._capture
        on_span = capture.span and span.is_recording()
        parts = self._recorded(request, facts) if on_span or capture.event else {}
        if on_span:
            for name, value in _fitted(parts, span_limit(span, capture.max_bytes)).items():
                span.set_attribute(name, written(value))
        looked = request.operation == semconv.FETCH_RESPONSE and not parts.get(semconv.OUTPUT_MESSAGES)
        if capture.emits and not looked:
            known = dict(attributes())
            if capture.event:
                known |= _fitted(parts, capture.max_bytes)
            self._logger.emit(LogRecord(event_name=EVENT_NAME, context=ctx, attributes=known))

    def _recorded(self, request: Request, facts: ResponseFacts) -> dict[str, Messages]:
        """What may be recorded."""
        output: Messages = []
        try:
            output = facts.output(facts) if facts.output is not None else []
        except Exception as error:
            log_once("capture content", error)
        parts = self._asked | {semconv.OUTPUT_MESSAGES: plain(output)}
        parts = {name: value for name, value in parts.items() if value}
        redaction = self._capture.redaction
        if redaction is None:
            return parts
        call = {"provider": request.provider, "model": request.model, "operation": request.operation}
        try:
            return redaction(parts, call)
        except NotRedactedError as reason:
            tell_of(reason)
            return {}


def _fitted(parts: Mapping[str, Messages], limit: int | None) -> dict[str, Messages]:
    return {name: fit for name, value in parts.items() if (fit := fitted(value, limit))}


def span_limit(span: Span, limit: int | None) -> int | None:
    """Bytes that an attribute of ``span`` may have: ``limit``, or less where OpenTelemetry's SDK would cut it, in the
    middle of its JSON."""
    limits = getattr(span, "_limits", None)  # set in code or by the environment
    own = _limit_in_environment() if limits is None else getattr(limits, "max_span_attribute_length", None)
    if not isinstance(own, int) or own < 0:
        return limit
    return own if limit is None else min(own, limit)


def _limit_in_environment() -> int | None:
    said = next((value for name in LENGTH_LIMITS if (value := os.environ.get(name, "").strip())), "")
    return int(said) if said.isdecimal() else None
