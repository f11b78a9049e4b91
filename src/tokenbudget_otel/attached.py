"""The span processor, put on a tracer provider once, and taken off again.

OpenTelemetry has no way to name a span processor from outside of a program, and no way to take one off.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.trace import TracerProvider

from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.processor import TokenBudgetSpanProcessor
from tokenbudget_otel.settings import option
from tokenbudget_otel.weak_identity import ByIdentity


class AttachedSpanProcessor(TokenBudgetSpanProcessor):
    """The processor as :func:`attach` puts it on. It stays on its provider, and can be switched off there."""

    on = True

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See :class:`.TokenBudgetSpanProcessor`."""
        if self.on:
            super().on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        if self.on:
            super()._on_ending(span)

    on_ending = _on_ending

    def on_end(self, span: ReadableSpan) -> None:
        """See :class:`.TokenBudgetSpanProcessor`."""
        if self.on:
            super().on_end(span)


_attached: Final[ByIdentity[TracerProvider, AttachedSpanProcessor]] = ByIdentity()

_SET: Final = "set_tracer_provider"
_awaiting: Callable[..., None] | None = None
"""What stands in the place of ``trace.set_tracer_provider`` until a provider is set."""


def attach(provider: TracerProvider | None = None, **options: Any) -> None:
    """Put the span processor on a provider that has none yet. Doing so again changes nothing.

    Args:
        provider: the one; the global one by default. Where that is not set yet, the processor is put on when it is.
        options: those of :class:`.TokenBudgetSpanProcessor`; as configured for the process where they are ``None``.

    >>> from opentelemetry.sdk.trace import TracerProvider
    >>> attach(provider := TracerProvider())
    >>> is_attached(provider)
    True
    >>> detach()
    >>> is_attached(provider)
    False
    """
    target = trace.get_tracer_provider() if provider is None else provider
    add = getattr(target, "add_span_processor", None)
    if add is None:
        if provider is None:
            _await(options)
        return
    if (ours := _attached.get(target)) is not None:
        ours.on = True
    elif not _has_one(target):
        given = {name: value for name, value in options.items() if value is not None}
        configured = {"former_names": option("former_names", False), "tags": option("span_tags", "all")}
        configured |= {name: option(name, None) for name in ("metric_names", "metric_tags")}
        processor = AttachedSpanProcessor(**{**configured, **given})
        _attached.set(target, processor)
        add(processor)


def is_attached(provider: TracerProvider) -> bool:
    """Whether :func:`attach` has put a processor on a provider, and it is in use."""
    ours = _attached.get(provider)
    return ours is not None and ours.on


def detach() -> None:
    """Switch off whatever :func:`attach` has put on, and wait for no provider any more."""
    for processor in tuple(_attached.values()):
        processor.on = False
    _await_no_more()


def _has_one(provider: Any) -> bool:
    """Whether the program has put a processor of its own on a provider: that one's options are meant. Where the SDK
    does not keep its processors as we know it, there are two, which charge once, and the second finds nothing to do."""
    known = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
    return any(isinstance(each, TokenBudgetSpanProcessor) for each in known)


def _await(options: dict[str, Any]) -> None:
    global _awaiting
    if _awaiting is not None:
        return
    original = trace.set_tracer_provider

    @functools.wraps(original)
    def set_tracer_provider(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        if _awaiting is not set_tracer_provider:
            return  # somebody kept a reference to what stood here for a while
        try:
            _await_no_more()
            attach(**options)
        except Exception as error:
            log_once("put the span processor on a tracer provider", error)

    _awaiting = set_tracer_provider
    setattr(trace, _SET, set_tracer_provider)


def _await_no_more() -> None:
    global _awaiting
    ours, _awaiting = _awaiting, None
    if ours is not None and getattr(trace, _SET) is ours:
        setattr(trace, _SET, ours.__wrapped__)  # type: ignore[attr-defined]
