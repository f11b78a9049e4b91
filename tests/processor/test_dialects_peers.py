"""What other emitters wrote, held against what the provider counted.

``spans/*.json`` has the attributes of spans that real emitters made of real calls to the simulator, as far as they
say anything about usage. Every span of a call is read; the table says which are calls and what they come to. All
calls to one model were answered with the same usage, so that the table also shows what an emitter loses.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processor_bench import Bench

from tokenbudget_otel import semconv
from tokenbudget_otel.dialects import candidate, read
from tokenbudget_otel.usage import TokenUsage

SPANS = Path(__file__).parent / "spans"

# What the simulator counted.
GPT = {"input_tokens": 1200, "output_tokens": 80, "cache_read_tokens": 1000, "reasoning_tokens": 64}
CLAUDE = {"input_tokens": 3210, "output_tokens": 50, "cache_read_tokens": 3000, "cache_write_tokens": 200,
          "cache_write_5m_tokens": 150, "cache_write_1h_tokens": 50, "reasoning_tokens": 20}  # fmt: skip
BEDROCK = {"input_tokens": 3210, "output_tokens": 50, "cache_read_tokens": 3000, "cache_write_tokens": 200}
GEMINI = {"input_tokens": 107, "output_tokens": 80, "cache_read_tokens": 40, "reasoning_tokens": 30,
          "tool_use_input_tokens": 7}  # fmt: skip
AUDIO = {"input_tokens": 160, "output_tokens": 50, "input_audio_tokens": 60, "output_audio_tokens": 20}
EMBEDDED = {"input_tokens": 8}
SMALL = {"input_tokens": 12, "output_tokens": 4}

TTL = ("cache_write_5m_tokens", "cache_write_1h_tokens")
TOOLS = ("tool_use_input_tokens",)

ASKED_GPT = ("openai", "chat", "gpt-4o")
ASKED_CLAUDE = ("anthropic", "chat", "claude-sonnet-4-6")
ASKED_SONNET = ("aws.bedrock", "chat", "anthropic.claude-sonnet-4-5-20250929-v1:0")
ASKED_EMBEDDING = ("openai", "embeddings", "text-embedding-3-small")
ASKED_MISTRAL = ("mistral_ai", "chat", "mistral-large-latest")
ASKED_IMAGE = ("openai", "image_generation", "gpt-image-1")


def without(usage: dict[str, int], *names: str, **others: int) -> dict[str, int]:
    """Usage less what an emitter does not write, with what it writes otherwise."""
    return {name: value for name, value in usage.items() if name not in names} | others


CALLS: dict[tuple[str, str], list[tuple[str, tuple[str, str, str], dict[str, int] | None]]] = {
    # --- OpenLLMetry ---
    ("openllmetry", "openai chat"): [("openllmetry", ASKED_GPT, GPT)],
    ("openllmetry", "openai chat stream usage"): [("openllmetry", ASKED_GPT, without(GPT, "reasoning_tokens"))],
    ("openllmetry", "openai chat stream no usage"): [("openllmetry", ASKED_GPT, None)],
    ("openllmetry", "openai chat flex tier"): [("openllmetry", ("openai", "chat", "o4-mini"), GPT)],
    ("openllmetry", "openai responses"): [("openllmetry", ASKED_GPT, GPT)],
    ("openllmetry", "openai retrieve"): [("openllmetry", ASKED_GPT, GPT)],
    ("openllmetry", "openai embeddings"): [("openllmetry", ASKED_EMBEDDING, EMBEDDED)],
    ("openllmetry", "openai completions"): [
        ("openllmetry", ("openai", "text_completion", "gpt-3.5-turbo-instruct"), SMALL)
    ],
    ("openllmetry", "openai error"): [("openllmetry", ASKED_GPT, None)],
    ("openllmetry", "anthropic create"): [("openllmetry", ASKED_CLAUDE, BEDROCK)],
    # It adds the token that the stream announces at its beginning to those counted at its end.
    ("openllmetry", "anthropic stream"): [("openllmetry", ASKED_CLAUDE, without(BEDROCK, output_tokens=51))],
    # The thoughts, and what results of tools made, are only in its total: as output.
    ("openllmetry", "google generate"): [
        ("openllmetry", ("gcp.gen_ai", "generate_content", "gemini-2.5-flash"),
         {"input_tokens": 100, "output_tokens": 87, "cache_read_tokens": 40})
    ],
    ("openllmetry", "bedrock converse"): [
        ("openllmetry", ("aws.bedrock", "chat", "claude-sonnet-4-5-20250929-v1:0"), BEDROCK)
    ],
    # Where the body is Anthropic's and streamed, it loses the cache.
    ("openllmetry", "bedrock invoke stream"): [
        ("openllmetry", ("aws.bedrock", "chat", "claude-sonnet-4-5-20250929-v1:0"),
         {"input_tokens": 10, "output_tokens": 50})
    ],
    ("openllmetry", "bedrock nova"): [("openllmetry", ("aws.bedrock", "chat", "amazon.nova-pro-v1:0"), BEDROCK)],
    # The SDK tells of the call as well; it is below the other, and the one that is charged.
    ("openllmetry", "langchain anthropic"): [
        ("anthropic-sdk", ASKED_CLAUDE, CLAUDE),
        ("openllmetry", ASKED_CLAUDE, without(BEDROCK, "cache_write_tokens")),
    ],
    ("openllmetry", "langchain chain"): [("openllmetry", ASKED_GPT, without(GPT, "reasoning_tokens"))],
    ("openllmetry", "groq"): [
        ("openllmetry", ("groq", "chat", "llama-3.3-70b-versatile"), without(GPT, "reasoning_tokens"))
    ],
    ("openllmetry", "ollama"): [
        ("openllmetry", ("ollama", "chat", "llama3.2"), SMALL)
    ],
    # --- OpenInference ---
    ("openinference", "openai chat"): [("openinference", ASKED_GPT, GPT)],
    ("openinference", "openai chat flex tier"): [("openinference", ("openai", "chat", "o4-mini"), GPT)],
    ("openinference", "openai retrieve"): [("openinference", ASKED_GPT, GPT)],
    ("openinference", "openai embeddings"): [("openinference", ASKED_EMBEDDING, EMBEDDED)],
    # A call like others to it, and no usage.
    ("openinference", "openai images"): [("openinference", ("openai", "chat", "gpt-image-1"), None)],
    ("openinference", "openai audio in/out"): [
        ("openinference", ("openai", "chat", "gpt-4o-audio-preview"), AUDIO)
    ],
    ("openinference", "openai moderation"): [],
    ("openinference", "anthropic create"): [("openinference", ASKED_CLAUDE, without(CLAUDE, *TTL))],
    ("openinference", "anthropic count_tokens"): [],
    ("openinference", "google generate"): [
        ("openinference", ("gcp.gen_ai", "chat", "gemini-2.5-flash"), without(GEMINI, *TOOLS))
    ],
    ("openinference", "google embed"): [("openinference", ("gcp.gen_ai", "embeddings", "gemini-embedding-001"), None)],
    ("openinference", "bedrock converse"): [("openinference", ASKED_SONNET, BEDROCK)],
    ("openinference", "langchain chain"): [("openinference", ASKED_GPT, GPT)],
    ("openinference", "litellm anthropic"): [
        ("openinference", ("anthropic", "chat", "anthropic/claude-sonnet-4-6"), without(CLAUDE, *TTL))
    ],
    ("openinference", "litellm embedding"): [
        ("openinference", ("", "embeddings", "openai/text-embedding-3-small"), EMBEDDED)
    ],
    # --- OpenLIT ---
    ("openlit", "openai chat"): [("openlit", ASKED_GPT, without(GPT, "reasoning_tokens"))],
    # It has made these up, and does not say so.
    ("openlit", "openai chat stream no usage"): [("openlit", ASKED_GPT, SMALL)],
    ("openlit", "openai responses"): [("openlit", ASKED_GPT, GPT)],
    ("openlit", "openai retrieve"): [("openlit", ASKED_GPT, GPT)],
    ("openlit", "openai embeddings"): [("openlit", ASKED_EMBEDDING, EMBEDDED)],
    ("openlit", "openai images"): [("openlit", ASKED_IMAGE, None)],
    ("openlit", "openai moderation"): [],
    ("openlit", "anthropic create"): [("openlit", ASKED_CLAUDE, BEDROCK)],
    ("openlit", "google generate"): [
        ("openlit", ("gcp.gemini", "chat", "gemini-2.5-flash"), without(GEMINI, *TOOLS, input_tokens=100))
    ],
    ("openlit", "bedrock converse"): [("openlit", ASKED_SONNET, BEDROCK)],
    # --- logfire and pydantic-ai ---
    ("logfire", "openai chat"): [("logfire", ASKED_GPT, GPT)],
    ("logfire", "openai chat stream usage"): [("logfire", ASKED_GPT, GPT)],
    ("logfire", "openai responses"): [("logfire", ASKED_GPT, GPT)],
    ("logfire", "openai retrieve"): [("logfire", ASKED_GPT, GPT)],
    ("logfire", "openai embeddings"): [("logfire", ASKED_EMBEDDING, EMBEDDED)],
    ("logfire", "openai images"): [
        ("logfire", ASKED_IMAGE,
         {"input_tokens": 1, "output_tokens": 1056, "input_text_tokens": 1, "output_image_tokens": 1056})
    ],
    ("logfire", "openai audio in/out"): [("logfire", ("openai", "chat", "gpt-4o-audio-preview"), AUDIO)],
    ("logfire", "openai moderation"): [],
    ("logfire", "anthropic create"): [("logfire", ASKED_CLAUDE, CLAUDE)],
    ("logfire", "anthropic stream"): [("logfire", ASKED_CLAUDE, CLAUDE)],
    # One below the other, but for logfire's second span, which lies beside the first.
    ("logfire", "pai anthropic"): [
        ("anthropic-sdk", ASKED_CLAUDE, CLAUDE),
        ("logfire", ASKED_CLAUDE, CLAUDE),
        ("pydantic-ai", ASKED_CLAUDE, without(CLAUDE, "cache_write_5m_tokens")),
    ],
    ("logfire", "pai google"): [("pydantic-ai", ("gcp.gen_ai", "chat", "gemini-2.5-flash"), GEMINI)],
    # --- Langfuse: it names no provider ---
    ("langfuse", "chat"): [("langfuse", ("", *ASKED_GPT[1:]), GPT)],
    ("langfuse", "responses"): [("langfuse", ("", *ASKED_GPT[1:]), GPT)],
    ("langfuse", "embeddings"): [("langfuse", ("", *ASKED_EMBEDDING[1:]), EMBEDDED)],
    ("langfuse", "audio"): [("langfuse", ("", "chat", "gpt-4o-audio-preview"), AUDIO)],
    ("langfuse", "manual"): [("langfuse", ("", *ASKED_CLAUDE[1:]), BEDROCK)],
    # --- LiteLLM: no provider but for chat ---
    ("litellm", "openai"): [("litellm", ASKED_GPT, GPT)],
    ("litellm", "openai stream"): [("litellm", ASKED_GPT, GPT)],
    ("litellm", "anthropic"): [("litellm", ASKED_CLAUDE, CLAUDE)],
    ("litellm", "embedding"): [("litellm", ("", *ASKED_EMBEDDING[1:]), EMBEDDED)],
    ("litellm", "responses"): [("litellm", ("", *ASKED_GPT[1:]), GPT)],
    ("litellm", "error"): [("litellm", ASKED_GPT, None)],
    # --- the mistralai SDK ---
    ("mistralai_sdk", "chat"): [("mistralai-sdk", ASKED_MISTRAL, without(GPT, "reasoning_tokens"))],
    ("mistralai_sdk", "chat stream"): [("mistralai-sdk", ASKED_MISTRAL, without(GPT, "reasoning_tokens"))],
    ("mistralai_sdk", "embeddings"): [("mistralai-sdk", ("mistral_ai", "embeddings", "mistral-embed"), EMBEDDED)],
    ("mistralai_sdk", "conversation"): [
        ("mistralai-sdk", ASKED_MISTRAL, {"input_tokens": 120, "output_tokens": 80})
    ],
    # --- AI SDK ---
    ("ai_sdk", "4 openai chat"): [("ai-sdk", ASKED_GPT, GPT)],
    ("ai_sdk", "4 anthropic"): [("ai-sdk", ASKED_CLAUDE, BEDROCK)],
    ("ai_sdk", "4 google"): [
        ("ai-sdk", ("gcp.gemini", "chat", "gemini-2.5-flash"), {"input_tokens": 100, "output_tokens": 50})
    ],
    ("ai_sdk", "4 embed"): [("ai-sdk", ASKED_EMBEDDING, EMBEDDED)],
    ("ai_sdk", "5 openai chat"): [("ai-sdk", ASKED_GPT, without(GPT, "cache_read_tokens", "reasoning_tokens"))],
    ("ai_sdk", "5 openai chat stream"): [("ai-sdk", ASKED_GPT, GPT)],
    ("ai_sdk", "5 anthropic"): [("ai-sdk", ASKED_CLAUDE, CLAUDE)],
    ("ai_sdk", "5 google stream"): [
        ("ai-sdk", ("gcp.gemini", "chat", "gemini-2.5-flash"), without(GEMINI, *TOOLS, input_tokens=100))
    ],
    ("ai_sdk", "6 openai chat"): [("ai-sdk", ASKED_GPT, GPT)],
    ("ai_sdk", "6 anthropic"): [("ai-sdk", ASKED_CLAUDE, CLAUDE)],
    ("ai_sdk", "6 google"): [
        ("ai-sdk", ("gcp.gemini", "chat", "gemini-2.5-flash"), without(GEMINI, *TOOLS, input_tokens=100))
    ],
    ("ai_sdk", "7 legacy anthropic"): [("ai-sdk", ASKED_CLAUDE, without(CLAUDE, *TTL))],
    ("ai_sdk", "7 anthropic"): [("conventions", ASKED_CLAUDE, BEDROCK)],
    # The outer span of the two is one of the same operation, and has no usage.
    ("ai_sdk", "7 embed"): [("conventions", ASKED_EMBEDDING, EMBEDDED), ("conventions", ASKED_EMBEDDING, None)],
}  # fmt: skip

NOT_FINITE = ("ai_sdk", "4 openai chat stream")
"""A stream without usage, of which the AI SDK 4 says that it was not a number."""


def spans_of(file: str, call: str) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = json.loads((SPANS / f"{file}.json").read_text())["calls"][call]
    return spans


def test_every_call_that_was_recorded_is_in_the_table() -> None:
    recorded = {(path.stem, call) for path in SPANS.glob("*.json") for call in json.loads(path.read_text())["calls"]}
    assert recorded == {*CALLS, NOT_FINITE}


@pytest.mark.parametrize(("file", "call"), CALLS, ids=map(": ".join, CALLS))
def test_reads_the_calls_among_what_an_emitter_wrote_and_nothing_else(file: str, call: str) -> None:
    found = []
    for span in spans_of(file, call):
        inference = read(span["attributes"], span["scope"], span["version"])
        if inference is None:
            continue
        assert candidate(span["attributes"], span["scope"], span["version"])
        assert inference.rejected == ()
        assert inference.reported_nano_usd is None, "none of these emitters has a cost from the provider"
        assert inference.charged_nano_usd is None
        usage = None
        if inference.usage is not None:
            usage = {name: value for name, value in inference.usage.counts().items() if value}
        found.append((inference.dialect, (inference.provider, inference.operation, inference.model), usage))
    assert found == CALLS[file, call]


def test_only_what_is_worked_out_from_a_total_is_an_estimate() -> None:
    estimated = {
        key
        for key in CALLS
        for span in spans_of(*key)
        if (inference := read(span["attributes"], span["scope"], span["version"])) and inference.estimated
    }
    assert estimated == {("openllmetry", "google generate")}


COSTS = {
    # gpt-4o: 2.50 / 10 USD for a million, cached 1.25. claude-sonnet-4-6: 3 / 15, cache reads 0.30, writes 3.75 (5
    # minutes, also where the span does not say) and 6 (1 hour). o4-mini at flex: 0.55 / 2.20, cached 0.138.
    ("openllmetry", "openai chat"): 2_550_000,
    ("openllmetry", "openai chat flex tier"): 424_000,
    ("openllmetry", "anthropic create"): 2_430_000,
    ("openllmetry", "bedrock nova"): 928_000,
    ("openinference", "openai retrieve"): 2_550_000,
    ("openinference", "anthropic create"): 2_430_000,
    ("openinference", "litellm anthropic"): 2_430_000,
    ("openlit", "openai retrieve"): 2_550_000,
    ("openlit", "anthropic create"): 2_430_000,
    ("logfire", "openai chat stream usage"): 2_550_000,
    ("logfire", "anthropic stream"): 2_542_500,
    ("langfuse", "chat"): 2_550_000,
    ("langfuse", "embeddings"): 160,
    ("litellm", "responses"): 2_550_000,
    ("litellm", "anthropic"): 2_542_500,
    ("ai_sdk", "4 openai chat"): 2_550_000,
    ("ai_sdk", "5 anthropic"): 2_542_500,
    ("ai_sdk", "6 anthropic"): 2_542_500,
}


@pytest.mark.parametrize(("file", "call"), COSTS, ids=map(": ".join, COSTS))
def test_the_processor_charges_the_call_once_and_exactly(make: Callable[..., Bench], file: str, call: str) -> None:
    bench = make()
    for span in spans_of(file, call):
        tracer = bench.provider.get_tracer(span["scope"], span["version"])
        tracer.start_span("a span", attributes=span["attributes"]).end()
    totals = bench.meter.totals.get()
    assert (totals.calls, totals.nano_usd) == (1, COSTS[file, call])
    # OpenLIT's own cost of 0 is replaced by the one that is right.
    assert [
        span.attributes[semconv.USAGE_COST] for span in bench.with_cost() if span.attributes[semconv.USAGE_COST]
    ] == [COSTS[file, call] / 1e9]


TIERS = {
    ("openllmetry", "openai chat flex tier"): "flex",
    ("openinference", "openai chat flex tier"): "flex",
    ("litellm", "anthropic"): "standard",
    ("logfire", "anthropic create"): "standard",
    ("langfuse", "manual"): "flex",
    ("ai_sdk", "5 anthropic"): "standard",
}


@pytest.mark.parametrize(("file", "call"), TIERS, ids=map(": ".join, TIERS))
def test_reads_the_tier_wherever_it_stands(file: str, call: str) -> None:
    inferences = [read(span["attributes"], span["scope"], span["version"]) for span in spans_of(file, call)]
    assert [inference.tier for inference in inferences if inference] == [TIERS[file, call]]


def test_a_number_that_is_none_is_named() -> None:
    inner, outer = spans_of(*NOT_FINITE)
    inference = read(inner["attributes"], inner["scope"])
    assert inference is not None and inference.usage is None
    assert ("not_finite", "ai.usage.promptTokens") in inference.rejected
    assert read(outer["attributes"], outer["scope"]) is None


def test_the_ai_sdk_is_known_whatever_the_tracer_is_called() -> None:
    span = spans_of("ai_sdk", "6 anthropic")[0]
    inference = read(span["attributes"], "my-next-app", "1.0.0")
    assert inference is not None and inference.usage == TokenUsage(**CLAUDE)


def test_openinference_is_known_by_its_mark() -> None:
    span = spans_of("openinference", "anthropic create")[0]
    inference = read(span["attributes"], "somebody.else")
    assert inference is not None and inference.usage == TokenUsage(**without(CLAUDE, *TTL))


def test_litellm_is_known_where_it_writes_on_the_span_of_somebody_else() -> None:
    span = spans_of("litellm", "anthropic")[0]
    inference = read(span["attributes"], "my.proxy")
    assert inference is not None
    assert (inference.dialect, inference.usage) == ("litellm", TokenUsage(**CLAUDE))


@pytest.mark.parametrize("hit", [True, "True"])
def test_what_litellm_had_in_its_cache_is_no_call(hit: Any) -> None:
    span = spans_of("litellm", "openai")[0]
    assert read(span["attributes"] | {"litellm.cache_hit": hit}, span["scope"]) is None


def test_a_response_in_the_background_is_charged_where_its_usage_is_known() -> None:
    """OpenLLMetry makes the span of such a response when it is fetched: that one has the model."""
    _, fetched = spans_of("openllmetry", "openai retrieve")
    known = fetched["attributes"] | {"gen_ai.request.model": "gpt-4o"}
    inference = read(known, fetched["scope"], fetched["version"])
    assert inference is not None and inference.usage is not None


# --- former versions, and emitters that could not be run here, by what their source says ------------------------

OLD_OPENLLMETRY = [
    (
        "opentelemetry.instrumentation.openai.v1",
        {
            "gen_ai.system": "OpenAI",
            "llm.request.type": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.prompt_tokens": 1200,
            "gen_ai.usage.completion_tokens": 80,
            "gen_ai.usage.cache_read_input_tokens": 1000,
            "llm.usage.reasoning_tokens": 64,
            "llm.usage.total_tokens": 1280,
            "llm.is_streaming": True,
        },
        (*ASKED_GPT, GPT),
    ),
    (
        "opentelemetry.instrumentation.anthropic",
        {
            "gen_ai.system": "Anthropic",
            "llm.request.type": "completion",
            "gen_ai.request.model": "claude-sonnet-4-6",
            "gen_ai.usage.prompt_tokens": 3210,
            "gen_ai.usage.completion_tokens": 50,
            "gen_ai.usage.cache_read_input_tokens": 3000,
            "gen_ai.usage.cache_creation_input_tokens": 200,
            "llm.usage.total_tokens": 3260,
        },
        ("anthropic", "text_completion", "claude-sonnet-4-6", BEDROCK),
    ),
    (
        "opentelemetry.instrumentation.vertexai",
        {
            "gen_ai.system": "Google",
            "llm.request.type": "completion",
            "gen_ai.request.model": "gemini-2.5-flash",
            "gen_ai.usage.prompt_tokens": 100,
            "gen_ai.usage.completion_tokens": 50,
            "llm.usage.total_tokens": 180,
        },
        ("gcp.gen_ai", "text_completion", "gemini-2.5-flash", {"input_tokens": 100, "output_tokens": 80}),
    ),
]


@pytest.mark.parametrize(("scope", "attributes", "told"), OLD_OPENLLMETRY)
def test_former_versions_of_openllmetry(scope: str, attributes: dict[str, Any], told: tuple[Any, ...]) -> None:
    inference = read(attributes, scope, "0.40.14")
    assert inference is not None and inference.usage is not None
    assert (inference.dialect, inference.rejected) == ("openllmetry", ())
    assert (inference.provider, inference.operation, inference.model, inference.usage.counts()) == told
    assert inference.streamed == ("llm.is_streaming" in attributes)


def test_bedrock_in_the_official_package_is_without_the_cache() -> None:
    inference = read(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "gen_ai.usage.input_tokens": 5000,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.cache_read.input_tokens": 3000,
        },
        "opentelemetry.instrumentation.genai.bedrock",
        "1.3b0",
    )
    assert inference is not None
    assert inference.usage == TokenUsage(input_tokens=8000, output_tokens=50, cache_read_tokens=3000)


def test_xai_says_what_a_call_cost() -> None:
    inference = read(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "xai",
            "gen_ai.request.model": "grok-4",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 10,
            "gen_ai.usage.total_tokens": 160,
            "gen_ai.usage.reasoning_tokens": 50,
            "gen_ai.usage.cached_prompt_text_tokens": 40,
            "gen_ai.usage.prompt_text_tokens": 100,
            "gen_ai.usage.prompt_image_tokens": 0,
            "gen_ai.usage.cost_in_usd_ticks": 37_756_000,
        },
        "xai_sdk.sync.chat",
        "1.21.0",
    )
    assert inference is not None
    assert inference.provider == "x_ai"
    assert inference.usage == TokenUsage(
        input_tokens=100, output_tokens=60, cache_read_tokens=40, reasoning_tokens=50, input_image_tokens=0
    )
    assert inference.reported_nano_usd == 3_775_600


def test_langsmith_prints_the_details() -> None:
    span = {
        "langsmith.span.kind": "llm",
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-6",
        "gen_ai.usage.input_tokens": 3210,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.input_token_details": "{'cache_creation': 200, 'cache_read': 3000}",
        "gen_ai.usage.output_token_details": "{'reasoning': 20}",
    }
    inference = read(span, "langsmith")
    assert inference is not None and inference.usage == TokenUsage(**without(CLAUDE, *TTL))
    # It calls a retriever "embeddings" and a template "chat".
    for kind, operation in [("retriever", "embeddings"), ("prompt", "chat"), ("chain", "chain"), ("tool", "x")]:
        assert read(span | {"langsmith.span.kind": kind, "gen_ai.operation.name": operation}, "langsmith") is None


# --- spans that are no calls ---------------------------------------------------------------------------------------

NO_CALLS: list[tuple[str | None, dict[str, Any]]] = [
    *((None, {"openinference.span.kind": kind, "llm.model_name": "m", "llm.token_count.prompt": 9}) for kind in (
        "AGENT", "CHAIN", "TOOL", "RETRIEVER", "RERANKER", "GUARDRAIL", "EVALUATOR", "PROMPT", "UNKNOWN", "llm", ""
    )),
    *(("langfuse-sdk", {
        "langfuse.observation.type": kind, "langfuse.observation.model.name": "m",
        "langfuse.observation.usage_details": '{"input": 9}',
    }) for kind in ("span", "event", "agent", "chain", "tool", "retriever", "evaluator", "guardrail")),
    *(("ai", {"ai.operationId": kind, "ai.model.id": "m", "ai.usage.inputTokens": 9}) for kind in (
        "ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject", "ai.embed", "ai.embedMany",
        "ai.toolCall", "ai.rerank", "ai.rerank.doRerank", "ai.workflowAgent.stream",
    )),
    *((f"opentelemetry.instrumentation.{package}", {
        "gen_ai.operation.name": operation, "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 9,
    }) for package in ("langchain", "openai", "bedrock", "llamaindex") for operation in (
        "invoke_agent", "create_agent", "execute_tool", "execute_task", "vector_db_retrieve", "goto"
    )),
    *((f"opentelemetry.instrumentation.{package}", {
        "llm.request.type": kind, "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 9,
    }) for package, kind in (("cohere", "rerank"), ("ollama", "unknown"))),
    *(("openlit.instrumentation.x", {
        "gen_ai.operation.name": operation, "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 9,
    }) for operation in (
        "invoke_agent", "invoke_workflow", "execute_tool", "retrieval", "vectordb", "moderation", "task", "agent",
    )),
    *(("litellm", {
        "gen_ai.operation.name": operation, "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 9,
    }) for operation in ("rerank", "arerank", "moderation", "pass_through_endpoint", "create_file", "create_batch")),
    ("litellm", {"guardrail_name": "pii", "guardrail_mode": "pre_call"}),
    ("litellm", {"service": "redis", "call_type": "async_set_cache"}),
    ("pydantic-ai", {"gen_ai.operation.name": "invoke_agent", "gen_ai.aggregated_usage.input_tokens": 9}),
    ("pydantic-ai", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}),
    ("logfire.openai", {
        "logfire.span_type": "pending_span", "gen_ai.operation.name": "chat", "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 9,
    }),
    ("strands.telemetry.tracer", {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 9,
    }),
    ("traceloop.tracer", {"traceloop.span.kind": "workflow", "traceloop.entity.name": "n"}),
]  # fmt: skip


@pytest.mark.parametrize(("scope", "attributes"), NO_CALLS, ids=lambda value: str(value)[:80])
def test_spans_that_repeat_calls_or_bill_nothing_are_no_calls(scope: str | None, attributes: dict[str, Any]) -> None:
    assert read(attributes, scope, "1.0") is None
