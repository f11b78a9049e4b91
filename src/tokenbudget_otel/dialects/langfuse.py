"""Langfuse (Python 5.0; the names are those of its OTLP endpoint since 3). ``cost_details`` is not the provider's."""

from __future__ import annotations

from typing import Final

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects.dialect import Dialect
from tokenbudget_otel.dialects.wire_usage import details

_USAGE: Final = "langfuse.observation.usage_details"
_ASKED: Final = "langfuse.observation.model.parameters"

_CACHE_READ: Final = ("cache_read_input_tokens", "input_cache_read", "input_cached_tokens")
_CACHE_WRITE: Final = ("cache_creation_input_tokens", "input_cache_creation")
_REASONING: Final = ("output_reasoning", "output_reasoning_tokens")

LANGFUSE: Final = Dialect(
    name="langfuse",
    marks=("langfuse.observation.type",),
    folded=(_USAGE, _ASKED),
    operation=("langfuse.observation.type",),
    # All other types are no calls of a model: span, event, agent, chain, tool, retriever, evaluator, guardrail.
    operations={"generation": semconv.CHAT, "embedding": semconv.EMBEDDINGS},
    provider=(),
    request_model=("langfuse.observation.model.name",),
    response_model=(),
    response_id=(),
    tier=(f"{_ASKED}.service_tier",),
    counts=(
        *((f"{_USAGE}.{name}", "input_tokens") for name in ("input", "prompt_tokens", "input_tokens")),
        *((f"{_USAGE}.{name}", "output_tokens") for name in ("output", "completion_tokens", "output_tokens")),
        *details(_USAGE, without=frozenset((*_CACHE_READ, *_CACHE_WRITE))),
        *((f"{_USAGE}.{name}", "cache_read_tokens") for name in _CACHE_READ),
        *((f"{_USAGE}.{name}", "cache_write_tokens") for name in _CACHE_WRITE),
        *((f"{_USAGE}.{name}", "reasoning_tokens") for name in _REASONING),
        (f"{_USAGE}.input_audio", "input_audio_tokens"),
        (f"{_USAGE}.output_audio", "output_audio_tokens"),
    ),
    # Langfuse adds up what stands side by side, so these are no parts of the two totals. What the drop-in for
    # openai writes is as OpenAI counts: parts lie deeper.
    added=(
        *((f"{_USAGE}.{name}", "input_tokens") for name in (*_CACHE_READ, *_CACHE_WRITE, "input_audio")),
        *((f"{_USAGE}.{name}", "output_tokens") for name in (*_REASONING, "output_audio")),
    ),
    input="whole",
)
