"""OpenInference: Arize's instrumentors (Python 0.1.x to 3.1), and whoever else writes its names."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects.dialect import Dialect

_PROMPT: Final = "llm.token_count.prompt"
_COMPLETION: Final = "llm.token_count.completion"
_ASKED: Final = "llm.invocation_parameters"

OPENINFERENCE: Final = Dialect(
    name="openinference",
    marks=("openinference.span.kind",),
    folded=(_ASKED, "embedding.invocation_parameters"),
    operation=("openinference.span.kind",),
    # All other kinds are no calls of a model: AGENT, CHAIN, TOOL, RETRIEVER, RERANKER, GUARDRAIL, EVALUATOR, PROMPT.
    operations={"LLM": semconv.CHAT, "EMBEDDING": semconv.EMBEDDINGS},
    provider=("llm.provider", "llm.system"),
    request_model=("llm.request.model_name", f"{_ASKED}.model", "embedding.invocation_parameters.model"),
    response_model=("llm.response.model_name", "llm.model_name", "embedding.model_name"),
    response_id=("llm.response.id",),
    tier=(f"{_ASKED}.service_tier",),
    streamed=(f"{_ASKED}.stream",),
    counts=(
        (_PROMPT, "input_tokens"),
        (_COMPLETION, "output_tokens"),
        (f"{_PROMPT}_details.cache_read", "cache_read_tokens"),
        (f"{_PROMPT}_details.cache_input", "cache_read_tokens"),
        (f"{_PROMPT}_details.cache_write", "cache_write_tokens"),
        (f"{_PROMPT}_details.audio", "input_audio_tokens"),
        (f"{_COMPLETION}_details.reasoning", "reasoning_tokens"),
        (f"{_COMPLETION}_details.audio", "output_audio_tokens"),
    ),
)
"""``llm.cost.*`` is worked out by the emitter, so it is not taken."""

# The instrumentors of these two SDKs make an LLM span for whatever the client sends.

OPENINFERENCE_OPENAI: Final = replace(
    OPENINFERENCE,
    scopes=("openinference.instrumentation.openai",),
    # Fetching a response names no model, nor do moderations, which are free.
    needs={_ASKED: (f"{_ASKED}.model",)},
)

OPENINFERENCE_ANTHROPIC: Final = replace(
    OPENINFERENCE,
    scopes=("openinference.instrumentation.anthropic",),
    # Counting tokens is free, and no model answers.
    needs={"llm.request.model_name": ("llm.response.model_name", _PROMPT, _COMPLETION)},
)

ROWS: Final = (OPENINFERENCE_OPENAI, OPENINFERENCE_ANTHROPIC)
"""Those that go by scope. :data:`OPENINFERENCE` goes by its mark."""
