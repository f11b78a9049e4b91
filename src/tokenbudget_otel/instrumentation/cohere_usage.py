"""What Cohere's API reports as usage: what it bills, with what the models really read and wrote beside it."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation.endpoint import Body
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.usage import TokenUsage

FINISH_REASONS: Final = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_call",
    "ERROR_TOXIC": "content_filter",
    "ERROR_LIMIT": "length",
    "ERROR": "error",
    "TIMEOUT": "error",
}
"""Finish reasons in the words of the conventions; others are passed on."""


def billed_usage(usage: Any) -> TokenUsage | None:
    """Usage of any endpoint: ``usage`` of version 2's chat, or the ``meta`` of all others.

    Billed units are what the conventions ask for where both are told. ``tokens`` (with the framing that nobody pays
    for) only stands in where nothing was billed by units.
    """
    units = get(usage, "billed_units")
    source = units if units is not None else get(usage, "tokens")
    return (
        TokenUsage.reading(
            {
                "input_tokens": get(source, "input_tokens"),
                "output_tokens": get(source, "output_tokens"),
                "cache_read_tokens": get(usage, "cached_tokens"),
                "input_text_tokens": get(units, "text_tokens"),
                "input_image_tokens": get(units, "image_tokens"),
                "input_images": get(units, "images"),
                "rerank_searches": get(units, "search_units"),
                "document_pages": get(units, "pages"),
            }
        )
        or None
    )


def finish_reasons(reason: Any) -> tuple[str, ...]:
    """The reason why an answer ends, as a span has it."""
    known = text(reason)
    return (FINISH_REASONS.get(known, known),) if known else ()


def read_chat(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """An answer of version 2's chat, or of version 1's."""
    usage = get(data, "usage")
    return ResponseFacts(
        id=text(get(data, "id")) or text(get(data, "response_id")),
        finish_reasons=finish_reasons(get(data, "finish_reason")),
        usage=billed_usage(get(data, "meta") if usage is None else usage),
    )


def read_meta(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """Embeddings, reranking and whatever else tells its usage as ``meta``."""
    return ResponseFacts(id=text(get(data, "id")), usage=billed_usage(get(data, "meta")))


def read_heard(_data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """A transcription, which says nothing of what it took."""
    return ResponseFacts()
