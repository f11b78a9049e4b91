"""Puts what a call came to on the span that another instrumentor makes for it, when that span ends.

:class:`~tokenbudget_otel.processor.TokenBudgetSpanProcessor` does so where it is added. Where it is not, and another
instrumentor turns out to make the spans, a :class:`Carrier` is added to the tracer provider in its place: it prices and
counts nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import TracerProvider

from tokenbudget_otel import dialects, semconv
from tokenbudget_otel.dialects import COVERED_BY
from tokenbudget_otel.instrumentation import metered_calls
from tokenbudget_otel.instrumentation.frozen_spans import write
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.metered_calls import EndedSpan, MeteredCall

if TYPE_CHECKING:
    from tokenbudget_otel.dialects import Inference


def metered_call(span: Any, scope: str | None, told: Inference) -> MeteredCall | None:
    """The call that a span of somebody else's tells of, where it is metered already."""
    if told.call_id is not None:
        return metered_calls.by_id(told.call_id)
    ended = EndedSpan(span.context.span_id, scope, span.start_time or 0, span.end_time or 0)
    return metered_calls.told_by_span(ended, told)


def to_show(call: MeteredCall, told: Inference, attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a span that tells of ``call`` is to carry further; ``None`` where nothing is known yet.

    Each call is shown on one span: others of the same call say that it is.
    """
    if told.call_id is None and call.shown:
        return {COVERED_BY: call.id}
    if (cost := call.known()) is None:
        return None
    call.shown = call.carried = True
    # Also on a span that has them: whoever made it may have written a cost of its own over ours.
    known = {semconv.CALL_ID: call.id, **cost}
    return {name: value for name, value in known.items() if attributes.get(name) != value}


class Carrier:
    """A span processor that adds to the spans of others what doors have metered, and nothing else."""

    def __init__(self) -> None:
        self._sees_ending = False
        metered_calls.listen()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Nothing to do."""

    def _on_ending(self, span: Any) -> None:
        self._sees_ending = True
        self._end(span)

    on_ending = _on_ending

    def on_end(self, span: Any) -> None:
        """Where the SDK has no step before this one."""
        if not self._sees_ending:
            self._end(span)

    def _end(self, span: Any) -> None:
        try:
            scope = span.instrumentation_scope
            name, version = (None, None) if scope is None else (scope.name, scope.version)
            attributes = span.attributes or {}
            if (name or "").startswith("tokenbudget_otel.") or not dialects.candidate(attributes, name, version):
                return
            told = dialects.read(dict(attributes), name, version)
            call = None if told is None else metered_call(span, name, told)
            if told is not None and call is not None and (more := to_show(call, told, attributes)):
                write(span, more)
        except Exception as error:
            log_once("put a cost on a span", error)

    def shutdown(self) -> None:
        """Nothing to close."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """``True`` at once."""
        return True


def attach(provider: TracerProvider) -> None:
    """See that the spans of others get their cost, where nobody sees to it yet."""
    if metered_calls.listened_to():
        return
    add = getattr(provider, "add_span_processor", None)
    if callable(add):
        add(Carrier())
