"""The AI SDK of Vercel (JavaScript): 3 to 6, and 7 with ``LegacyOpenTelemetry``. What 7 writes by itself are the
conventions."""

from __future__ import annotations

from typing import Final

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects.dialect import Dialect
from tokenbudget_otel.dialects.wire_usage import details

_METADATA: Final = "ai.response.providerMetadata"
_GOOGLE: Final = f"{_METADATA}.google.usageMetadata"

VERCEL: Final = Dialect(
    name="ai-sdk",
    # Programs may pass a tracer of their own, so the scope says nothing.
    marks=("ai.operationId",),
    folded=(_METADATA,),
    operation=("ai.operationId",),
    # The inner span is the call of the provider. The outer one (ai.generateText …) adds up its calls.
    operations={
        "ai.generateText.doGenerate": semconv.CHAT,
        "ai.streamText.doStream": semconv.CHAT,
        "ai.generateObject.doGenerate": semconv.CHAT,
        "ai.streamObject.doStream": semconv.CHAT,
        "ai.embed.doEmbed": semconv.EMBEDDINGS,
        "ai.embedMany.doEmbed": semconv.EMBEDDINGS,
    },
    provider=("ai.model.provider", "gen_ai.system"),
    request_model=("ai.model.id", "gen_ai.request.model"),
    response_model=("ai.response.model", "gen_ai.response.model"),
    response_id=("ai.response.id", "gen_ai.response.id"),
    tier=(f"{_METADATA}.openai.serviceTier", f"{_METADATA}.anthropic.usage.service_tier"),
    counts=(
        ("ai.usage.inputTokens", "input_tokens"),
        ("ai.usage.promptTokens", "input_tokens"),
        ("ai.usage.tokens", "input_tokens"),
        ("gen_ai.usage.input_tokens", "input_tokens"),
        ("ai.usage.outputTokens", "output_tokens"),
        ("ai.usage.completionTokens", "output_tokens"),
        ("gen_ai.usage.output_tokens", "output_tokens"),
        ("ai.usage.inputTokenDetails.cacheReadTokens", "cache_read_tokens"),
        ("ai.usage.cachedInputTokens", "cache_read_tokens"),
        ("ai.usage.inputTokenDetails.cacheWriteTokens", "cache_write_tokens"),
        ("ai.usage.outputTokenDetails.reasoningTokens", "reasoning_tokens"),
        ("ai.usage.reasoningTokens", "reasoning_tokens"),
        (f"{_METADATA}.openai.cachedPromptTokens", "cache_read_tokens"),
        (f"{_METADATA}.openai.reasoningTokens", "reasoning_tokens"),
        (f"{_METADATA}.anthropic.cacheReadInputTokens", "cache_read_tokens"),
        (f"{_METADATA}.anthropic.cacheCreationInputTokens", "cache_write_tokens"),
        *details(f"{_METADATA}.anthropic.usage"),
        (f"{_GOOGLE}.cachedContentTokenCount", "cache_read_tokens"),
        (f"{_GOOGLE}.thoughtsTokenCount", "reasoning_tokens"),
    ),
    # Up to version 5 it takes over what each provider counts; since 6 it counts itself, and has the details.
    input_of={"anthropic": "rest", "aws.bedrock": "rest"},
    output_of={"gcp.gemini": "rest", "gcp.vertex_ai": "rest"},
    whole_where=(
        "ai.usage.inputTokenDetails.noCacheTokens",
        "ai.usage.inputTokenDetails.cacheReadTokens",
        "ai.usage.outputTokenDetails.textTokens",
        "ai.usage.outputTokenDetails.reasoningTokens",
    ),
)
