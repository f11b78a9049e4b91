"""What Cohere's API reports as usage: what it bills, with what the models really read and wrote beside it."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation.endpoint import Body
from tokenbudget_otel.instrumentation.facts import ResponseFacts, fields, get, text
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


_UNITS: Final = (
    ("text_tokens", "input_text_tokens"),
    ("image_tokens", "input_image_tokens"),
    ("images", "input_images"),
    ("search_units", "rerank_searches"),
    ("pages", "document_pages"),
)
"""Billed units besides tokens, and the counts that they are."""


def billed_usage(usage: Any) -> TokenUsage | None:
    """Usage of any endpoint: ``usage`` of version 2's chat, or the ``meta`` of all others.

    Billed units are what the conventions ask for where both are told. ``tokens`` (with the framing that nobody pays
    for) only stands in where nothing was billed by units.
    """
    if usage is None:
        return None
    told = fields(usage)
    units = told.get("billed_units")
    source = fields(units if units is not None else told.get("tokens"))
    counts: dict[str, Any] = {
        "input_tokens": source.get("input_tokens"),
        "output_tokens": source.get("output_tokens"),
        "cache_read_tokens": told.get("cached_tokens"),
    }
    if units is not None:
        for name, count in _UNITS:
            if (value := source.get(name)) is not None:
                counts[count] = value
    return TokenUsage.reading(counts) or None


def finish_reasons(reason: Any) -> tuple[str, ...]:
    """The reason why an answer ends, as a span has it."""
    known = text(reason)
    return (FINISH_REASONS.get(known, known),) if known else ()


def read_chat(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """An answer of version 2's chat, or of version 1's."""
    said = fields(data)
    usage = said.get("usage")
    return ResponseFacts(
        id=text(said.get("id")) or text(said.get("response_id")),
        finish_reasons=finish_reasons(said.get("finish_reason")),
        usage=billed_usage(said.get("meta") if usage is None else usage),
    )


def read_meta(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """Embeddings, reranking and whatever else tells its usage as ``meta``."""
    return ResponseFacts(id=text(get(data, "id")), usage=billed_usage(get(data, "meta")))


def read_heard(_data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """A transcription, which says nothing of what it took."""
    return ResponseFacts()
