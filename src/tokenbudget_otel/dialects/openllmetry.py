"""OpenLLMetry: the opentelemetry-instrumentation-* packages of Traceloop (0.20 to 0.62)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenbudget_otel.dialects.conventions import CONVENTIONS

_SCOPE: Final = "opentelemetry.instrumentation."
_PACKAGES: Final = (
    "alephalpha", "anthropic", "cohere", "groq", "haystack", "langchain", "llamaindex", "mistralai", "ollama",
    "replicate", "sagemaker", "together", "transformers", "watsonx", "writer",
)  # fmt: skip

OPENLLMETRY: Final = replace(
    CONVENTIONS,
    name="openllmetry",
    scopes=tuple(_SCOPE + package for package in _PACKAGES),
    # Former versions, and some packages to this day, have no gen_ai.operation.name.
    operation=(*CONVENTIONS.operation, "llm.request.type"),
    streamed=(*CONVENTIONS.streamed, "gen_ai.is_streaming", "llm.is_streaming"),
    counts=(*CONVENTIONS.counts, ("llm.usage.reasoning_tokens", "reasoning_tokens")),
    input="whole",
)
"""Its package for Anthropic adds the cache to the input, and has since it writes the cache at all."""

OPENLLMETRY_OPENAI: Final = replace(
    OPENLLMETRY,
    scopes=(_SCOPE + "openai",),
    # responses.retrieve makes a span like that of the call, with its usage. Only for a response in the background
    # is it the one that has the model: there the call itself made none.
    needs={"gen_ai.response.id": CONVENTIONS.request_model},
)

OPENLLMETRY_BEDROCK: Final = replace(
    OPENLLMETRY,
    scopes=(_SCOPE + "bedrock",),
    input="rest",
    # It cuts the vendor off the id of the model, without which most of them are nobody's.
    vendors={
        "nova-": "amazon.",
        "titan-": "amazon.",
        "llama": "meta.",
        "mistral-": "mistral.",
        "mixtral-": "mistral.",
        "pixtral-": "mistral.",
        "command-": "cohere.",
        "embed-": "cohere.",
        "jamba-": "ai21.",
        "r1-": "deepseek.",
    },
)

OPENLLMETRY_GOOGLE: Final = replace(
    OPENLLMETRY,
    scopes=(_SCOPE + "google_generativeai", _SCOPE + "vertexai"),
    # It writes the candidates as output, and the thoughts nowhere but in the total.
    total=("gen_ai.usage.total_tokens", "llm.usage.total_tokens"),
)

ROWS: Final = (OPENLLMETRY_OPENAI, OPENLLMETRY_BEDROCK, OPENLLMETRY_GOOGLE, OPENLLMETRY)
