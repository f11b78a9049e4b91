"""LangSmith: what it exports by OpenTelemetry (0.15)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects.conventions import CONVENTIONS

_INPUT: Final = "gen_ai.usage.input_token_details"
_OUTPUT: Final = "gen_ai.usage.output_token_details"

LANGSMITH: Final = replace(
    CONVENTIONS,
    name="langsmith",
    scopes=("langsmith",),
    folded=(_INPUT, _OUTPUT),
    # Its gen_ai.operation.name calls a retriever embeddings and a template a chat.
    operation=("langsmith.span.kind",),
    operations={"llm": semconv.CHAT, "embedding": semconv.EMBEDDINGS},
    assumed_operation=None,
    tier=("gen_ai.response.service_tier", "gen_ai.request.service_tier"),
    counts=(
        *CONVENTIONS.counts,
        (f"{_INPUT}.cache_read", "cache_read_tokens"),
        (f"{_INPUT}.cache_creation", "cache_write_tokens"),
        (f"{_INPUT}.audio", "input_audio_tokens"),
        (f"{_OUTPUT}.reasoning", "reasoning_tokens"),
        (f"{_OUTPUT}.audio", "output_audio_tokens"),
    ),
    input="whole",
)
