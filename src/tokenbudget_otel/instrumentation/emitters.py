"""Who records the standard metrics of a call whose span somebody else made.

Exactly one does: the emitter as far as it records them (:data:`EMITTERS`, by its instrumentation scope), and we do
the rest.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span

from tokenbudget_otel.instrumentation.peers import scope_of
from tokenbudget_otel.instrumentation.suppression import (
    OFFICIAL_KEYS,
    OPENLIT_CONTEXT_VARIABLE,
    SILENCE,
    SUPPRESS_LANGUAGE_MODEL,
)

DURATION: Final = "duration"
TOKENS: Final = "tokens"
FIRST_CHUNK: Final = "first chunk"
CHUNKS: Final = "chunks"
"""The standard metrics: duration, tokens, time to the first chunk, and time per chunk after it."""

NONE: Final[frozenset[str]] = frozenset()
ALL: Final = frozenset((DURATION, TOKENS, FIRST_CHUNK, CHUNKS))
_USUAL: Final = frozenset((DURATION, TOKENS))

EMITTERS: Final = {
    # opentelemetry-util-genai 1.3b0 and the packages over it.
    "opentelemetry.util.genai": ALL,
    "opentelemetry.instrumentation.genai": ALL,
    "opentelemetry.instrumentation.google_genai": ALL,
    # Official, of the previous conventions.
    "opentelemetry.instrumentation.openai_v2": _USUAL,
    "opentelemetry.instrumentation.botocore.bedrock-runtime": _USUAL,
    # OpenLLMetry 0.62. Its packages for Cohere, LlamaIndex, Mistral, Together, Vertex AI and Voyage record none.
    **{
        f"opentelemetry.instrumentation.{name}": _USUAL
        for name in (
            "anthropic", "bedrock", "crewai", "google_generativeai", "groq", "langchain", "ollama", "openai", "watsonx",
        )
    },
    "openlit": ALL,  # 1.45
    "pydantic-ai": frozenset((TOKENS, FIRST_CHUNK)),  # 2.68
    "agent_framework": _USUAL,  # 1.23
    "gcp.vertex.agent": _USUAL,  # google-adk
}  # fmt: skip
"""Which of the metrics emitters record themselves, under the current names; ``a.b`` also stands for ``a.b.c``. Read in
the source of the versions named. Whoever is not here records none: OpenInference, the anthropic SDK, langfuse, logfire,
and spans that programs make by hand."""


@lru_cache(maxsize=512)
def recorded_by(scope: str | None) -> frozenset[str]:
    """What the maker of a span records, by the name of its instrumentation scope.

    >>> sorted(recorded_by("opentelemetry.instrumentation.openai.v1"))
    ['duration', 'tokens']
    >>> sorted(recorded_by("openinference.instrumentation.openai"))
    []
    """
    name = scope or ""
    while name:
        if (recorded := EMITTERS.get(name)) is not None:
            return recorded
        name = name.rpartition(".")[0]
    return NONE


def recorded_elsewhere(span: Span, ctx: Context, maker: str | None = None) -> frozenset[str] | None:
    """What others record of a call that is metered at our door and has no span of ours.

    Args:
        span: the one that stands for the call: of somebody else, or none.
        ctx: the context in which the call is made.
        maker: the scope or the module of whoever is known to make the span, also where that is not sampled.

    Returns:
        ``None`` where nobody is to record any: OpenTelemetry's own key asks for silence.
    """
    if any(ctx.get(key) for key in SILENCE):
        return None
    if any(ctx.get(key) for key in OFFICIAL_KEYS):
        return ALL  # on the invocation around this one
    if ctx.get(SUPPRESS_LANGUAGE_MODEL):
        # By a framework's instrumentation, around a span of its own. Where that is not sampled nobody can tell whose.
        around = trace.get_current_span(ctx)
        return recorded_by(scope_of(around)) if hasattr(around, "instrumentation_scope") else _USUAL
    if maker is not None:
        return recorded_by(maker)
    if span is not INVALID_SPAN:
        return recorded_by(scope_of(span))
    if OPENLIT_CONTEXT_VARIABLE[0] in sys.modules:
        return ALL  # its flag may be down again by now
    return NONE
