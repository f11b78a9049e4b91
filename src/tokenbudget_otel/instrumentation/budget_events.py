"""What budgets did with a call, on its span: who warned, and what became of the request so that it fits."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import Span

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets import Hold
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.meter import Request


def note_budgets(span: Span, hold: Hold, request: Request) -> None:
    """Write an event for each budget that let the call through without having room, and attributes for what was
    changed of the request. Never raises."""
    try:
        if not span.is_recording():
            return
        for shortfall in hold.warnings:
            span.add_event(
                semconv.EVENT_BUDGET_WARNING,
                {
                    semconv.BUDGET_NAME: shortfall.budget,
                    semconv.BUDGET_SCOPE: semconv.scope_text(shortfall.scope),
                    semconv.BUDGET_WINDOW: shortfall.window,
                    semconv.BUDGET_ACTION: shortfall.action,
                    semconv.BUDGET_DRY_RUN: shortfall.dry_run,
                    "message": str(shortfall),
                },
            )
        change = hold.change
        attributes: dict[str, Any] = {}
        if change.model is not None:
            attributes[semconv.BUDGET_ASKED_MODEL] = request.asked_model
        if change.max_output_tokens is not None:
            attributes[semconv.REQUEST_MAX_TOKENS] = change.max_output_tokens
            attributes[semconv.BUDGET_SHRUNK] = True
        if change.waited:
            attributes[semconv.BUDGET_WAITED] = change.waited
        span.set_attributes(attributes)
    except Exception as error:
        log_once("note budgets on a span", error)
