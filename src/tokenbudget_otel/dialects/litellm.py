"""LiteLLM: its own ``otel`` logger (1.110)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects.conventions import CONVENTIONS, OPERATIONS
from tokenbudget_otel.dialects.wire_usage import details

_USAGE: Final = "metadata.usage_object"
_WRITTEN: Final = f"{_USAGE}.prompt_tokens_details.cache_creation_token_details"

_CALL_TYPES: Final = {
    "completion": semconv.CHAT,
    "responses": semconv.CHAT,
    "anthropic_messages": semconv.CHAT,
    "text_completion": semconv.TEXT_COMPLETION,
    "embedding": semconv.EMBEDDINGS,
    "generate_content": semconv.GENERATE_CONTENT,
    "generate_content_stream": semconv.GENERATE_CONTENT,
    "image_generation": semconv.IMAGE_GENERATION,
    "transcription": semconv.TRANSCRIPTION,
    "speech": semconv.SPEECH,
}

LITELLM: Final = replace(
    CONVENTIONS,
    name="litellm",
    scopes=("litellm",),
    folded=(_USAGE,),
    operation=(*CONVENTIONS.operation, "llm.request.type"),
    # The async half of the library names its calls with an "a" in front. Reranking, moderations and files are none.
    operations=OPERATIONS | _CALL_TYPES | {f"a{name}": operation for name, operation in _CALL_TYPES.items()},
    unless={"litellm.cache_hit": (True, "True")},
    streamed=("llm.is_streaming",),
    counts=(
        *CONVENTIONS.counts,
        *details(_USAGE),
        (f"{_WRITTEN}.ephemeral_5m_input_tokens", "cache_write_5m_tokens"),
        (f"{_WRITTEN}.ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
    ),
    input="whole",
)
"""``gen_ai.cost.*`` is worked out by LiteLLM. Its ``raw_gen_ai_request`` has none of the names of a call."""

LITELLM_ON_OTHERS: Final = replace(LITELLM, scopes=(), marks=("litellm.call_id",))
"""Where a span is open already (a proxy's, a program's), LiteLLM writes on that and makes none."""
