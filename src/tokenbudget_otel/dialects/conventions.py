"""The GenAI conventions, and emitters that write little else."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects.dialect import Dialect, ReportedCost
from tokenbudget_otel.usage import FIELDS

_MODALITIES: Final = ("text", "audio", "image", "video")

OPERATIONS: Final = {name: name for name in semconv.INFERENCE_OPERATIONS} | {
    "completion": semconv.TEXT_COMPLETION,
    "text_completions": semconv.TEXT_COMPLETION,  # Semantic Kernel
    "embedding": semconv.EMBEDDINGS,
}

CURRENT_COUNTS: Final = (
    (semconv.USAGE_INPUT_TOKENS, "input_tokens"),
    (semconv.USAGE_OUTPUT_TOKENS, "output_tokens"),
    (semconv.USAGE_CACHE_READ, "cache_read_tokens"),
    (semconv.USAGE_CACHE_WRITE, "cache_write_tokens"),
    (semconv.USAGE_REASONING, "reasoning_tokens"),
    *((f"gen_ai.usage.{kind}.input_tokens", f"input_{kind}_tokens") for kind in _MODALITIES),
    *((f"gen_ai.usage.{kind}.output_tokens", f"output_{kind}_tokens") for kind in _MODALITIES),
    *((f"gen_ai.usage.{kind}.cache_read.input_tokens", f"cache_read_{kind}_tokens") for kind in _MODALITIES),
)

FORMER_COUNTS: Final = (
    ("gen_ai.usage.prompt_tokens", "input_tokens"),
    ("gen_ai.usage.completion_tokens", "output_tokens"),
    ("gen_ai.usage.cache_creation.input_tokens", "cache_write_tokens"),
    ("gen_ai.usage.cache_creation_input_tokens", "cache_write_tokens"),
    ("gen_ai.usage.cache_read_input_tokens", "cache_read_tokens"),
    ("gen_ai.usage.reasoning_tokens", "reasoning_tokens"),
)

CONVENTIONS: Final = Dialect(
    name="conventions",
    marks=(semconv.OPERATION_NAME, semconv.PROVIDER_NAME, "gen_ai.system"),
    operation=(semconv.OPERATION_NAME,),
    operations=OPERATIONS,
    assumed_operation=semconv.CHAT,
    provider=(semconv.PROVIDER_NAME, "gen_ai.system"),
    request_model=(semconv.REQUEST_MODEL,),
    response_model=(semconv.RESPONSE_MODEL,),
    response_id=(semconv.RESPONSE_ID,),
    tier=(
        semconv.OPENAI_RESPONSE_SERVICE_TIER,
        "gen_ai.openai.response.service_tier",
        semconv.ANTHROPIC_RESPONSE_SERVICE_TIER,
        semconv.OPENAI_REQUEST_SERVICE_TIER,
        "gen_ai.openai.request.service_tier",
        semconv.ANTHROPIC_REQUEST_SERVICE_TIER,
    ),
    streamed=(semconv.REQUEST_STREAM,),
    counts=CURRENT_COUNTS + FORMER_COUNTS,
    # The draft of a cost convention (semantic-conventions-genai, pull request 443).
    costs=(ReportedCost("gen_ai.usage.cost.amount", "gen_ai.usage.cost.currency", "gen_ai.usage.cost.source"),),
)
"""The GenAI conventions, current and former names, by anyone. Emitters mix them, so they are one row. It also reads
those who need no row of their own: Strands Agents, Microsoft's Agent Framework, Semantic Kernel, AI SDK 7."""

OWN: Final = replace(
    CONVENTIONS,
    name="tokenbudget",
    scopes=("tokenbudget_otel",),
    assumed_operation=None,
    counts=CURRENT_COUNTS + tuple((semconv.USAGE_UNIT_PREFIX + name, name) for name in sorted(FIELDS)),
    input="whole",
    costs=(ReportedCost(semconv.USAGE_COST, None, semconv.COST_SOURCE),),
)
"""Spans that our own instrumentors make."""

ANTHROPIC_SDK: Final = replace(
    CONVENTIONS,
    name="anthropic-sdk",
    # The SDK adds the platform of the client to the scope: com.anthropic.sdk.python.bedrock.
    scopes=("com.anthropic.sdk.python",),
    assumed_operation=None,
    assumed_provider="anthropic",
    counts=(
        *CURRENT_COUNTS,
        ("anthropic.usage.cache_creation.ephemeral_5m_input_tokens", "cache_write_5m_tokens"),
        ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
    ),
    # "The usage above leaves out the tokens of the compactions", which are billed like the rest.
    added=(
        ("anthropic.usage.compaction.input_tokens", "input_tokens"),
        ("anthropic.usage.compaction.output_tokens", "output_tokens"),
    ),
    input="whole",
)
"""Spans that the anthropic SDK makes of itself (since 1.14)."""

OFFICIAL: Final = replace(
    CONVENTIONS,
    name="official",
    scopes=("opentelemetry.instrumentation.genai", "opentelemetry.util.genai"),
    assumed_operation=None,
    input="whole",
)
"""Spans of the official packages (opentelemetry-instrumentation-genai-* 1.3b0, opentelemetry-util-genai)."""

OFFICIAL_BEDROCK: Final = replace(OFFICIAL, scopes=("opentelemetry.instrumentation.genai.bedrock",), input="rest")
"""The official package for Bedrock takes over what Bedrock counts, which is without the cache (1.3b0)."""

MISTRALAI_SDK: Final = replace(
    CONVENTIONS,
    name="mistralai-sdk",
    scopes=("mistralai_sdk_tracer",),
    assumed_operation=None,
    # A conversation, or an agent at Mistral, is one request with one usage. Spans below it, called chats, only have the
    # messages that came of it.
    operations=OPERATIONS | {"invoke_agent": semconv.CHAT},
    needs={semconv.RESPONSE_ID: (semconv.REQUEST_MODEL, semconv.USAGE_INPUT_TOKENS)},
)
"""Spans that the mistralai SDK makes of itself where it is told to (3.7)."""

XAI_SDK: Final = replace(
    CONVENTIONS,
    name="xai-sdk",
    scopes=("xai_sdk",),
    assumed_operation=None,
    assumed_provider="xai",
    operations=OPERATIONS | {"generate_image": semconv.IMAGE_GENERATION},
    counts=(
        *CONVENTIONS.counts,
        ("gen_ai.usage.cached_prompt_text_tokens", "cache_read_tokens"),
        ("gen_ai.usage.prompt_image_tokens", "input_image_tokens"),
    ),
    input="whole",
    output="rest",
    costs=(ReportedCost("gen_ai.usage.cost_in_usd_ticks", per_usd=10**10),),
)
"""Spans that the xai SDK makes of itself (1.21): xAI counts reasoning beside completions, and says what a call cost."""
