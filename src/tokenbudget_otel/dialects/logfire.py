"""logfire's own instrumentations (5.4), and pydantic-ai (2.68). Their ``operation.cost`` is worked out by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenbudget_otel.dialects.conventions import CONVENTIONS
from tokenbudget_otel.dialects.wire_usage import details

_RAW: Final = "gen_ai.usage.raw"
_DETAILS: Final = "gen_ai.usage.details"

LOGFIRE: Final = replace(
    CONVENTIONS,
    name="logfire",
    # Not "logfire": that is the scope of the spans that a program makes for itself.
    scopes=("logfire.openai", "logfire.anthropic"),
    folded=(_RAW,),
    unless={"logfire.span_type": ("pending_span",)},
    needs={
        # What is fetched, and what is free, names no model.
        "gen_ai.system": CONVENTIONS.request_model,
        # The span of a stream ends where it begins. What it used is on a second one.
        CONVENTIONS.request_model[0]: (*CONVENTIONS.response_id, _RAW, "gen_ai.usage.input_tokens"),
    },
    tier=(*CONVENTIONS.tier, f"{_RAW}.service_tier"),
    counts=CONVENTIONS.counts + details(_RAW),
    input="whole",
)

PYDANTIC_AI: Final = replace(
    CONVENTIONS,
    name="pydantic-ai",
    scopes=("pydantic-ai",),
    counts=(
        *CONVENTIONS.counts,
        (f"{_DETAILS}.reasoning_tokens", "reasoning_tokens"),
        (f"{_DETAILS}.thinking_tokens", "reasoning_tokens"),
        (f"{_DETAILS}.thoughts_tokens", "reasoning_tokens"),
        (f"{_DETAILS}.ephemeral_5m_input_tokens", "cache_write_5m_tokens"),
        (f"{_DETAILS}.ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
        (f"{_DETAILS}.tool_use_prompt_tokens", "tool_use_input_tokens"),
    ),
)
