"""Converse: counts, tiers, reasons to stop, and how large a request is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from bedrock_harness import CLAUDE, MESSAGES, NOVA, client_of, read, settled
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import bedrock_converse
from tokenbudget_otel.instrumentation.bedrock_converse import ConverseReader, converse_usage, size, tier_of
from tokenbudget_otel.meter import Meter, Reading, Request, Size
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall


async def test_what_a_request_says(client: Any, sim: Simulator, instrumented: Any) -> None:
    await settled(
        client.converse(
            modelId=CLAUDE,
            messages=MESSAGES,
            inferenceConfig={"maxTokens": 90, "temperature": 0.5, "topP": 0.75, "stopSequences": ["END"]},
            additionalModelRequestFields={"top_k": 40},
            guardrailConfig={"guardrailIdentifier": "abc123", "guardrailVersion": "1"},
        )
    )
    told = instrumented.span().attributes
    assert {name: told[name] for name in told if name.startswith(("gen_ai.request.", "aws.bedrock"))} == {
        "gen_ai.request.model": CLAUDE,
        "gen_ai.request.max_tokens": 90,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.75,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.stop_sequences": ("END",),
        "aws.bedrock.guardrail.id": "abc123",
    }
    assert told["cloud.region"] == "eu-central-1"
    assert told["aws.request_id"]


TIERS = [
    # service tier asked, served, latency; what is priced, and how
    ("priority", None, None, "priority", "priced"),
    ("flex", None, None, "flex", "priced"),
    ("priority", "default", None, "default", "priced"),
    (None, "default", None, None, "priced"),
    ("reserved", None, None, "reserved", "partial"),
    (None, None, "optimized", "optimized", "partial"),
    (None, None, "standard", None, "priced"),
    ("default", None, "optimized", "optimized", "partial"),
]


@pytest.mark.parametrize(
    ("streamed", "asked", "served", "latency", "tier", "state"),
    [*((False, *row) for row in TIERS), *((True, *row) for row in TIERS[1:6:2])],
)
async def test_tiers(
    streamed: bool, asked: Any, served: Any, latency: Any, tier: Any, state: str,
    sim: Simulator, instrumented: Any, meter: Meter,
) -> None:  # fmt: skip
    model = "us.amazon.nova-pro-v1:0"
    sim.default = Behaviour(input_tokens=1_000, output_tokens=100, service_tier=served)
    given: dict[str, Any] = {"modelId": model, "messages": MESSAGES}
    if asked:
        given["serviceTier"] = {"type": asked}
    if latency:
        given["performanceConfig"] = {"latency": latency}
    client = client_of(sim)
    if streamed:
        await read(client.converse_stream(**given)["stream"])
    else:
        client.converse(**given)
    usage = tb.TokenUsage(input_tokens=1_000, output_tokens=100)
    expected = tb.calculate_cost(model, usage, provider="aws.bedrock", tier=tier)
    assert expected is not None
    assert instrumented.span().attributes["tokenbudget.cost.state"] == state
    assert meter.totals.get().nano_usd == expected.nano_usd


@pytest.mark.parametrize(
    ("service", "latency", "tier"),
    [(None, None, None), ("priority", "optimized", "priority"), ("default", None, "default"), (7, {}, None)],
)
def test_one_tier_of_two(service: Any, latency: Any, tier: Any) -> None:
    assert tier_of(service, latency) == tier


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_call"),
        ("guardrail_intervened", "content_filter"),
        ("malformed_tool_use", "malformed_tool_use"),
    ],
)
async def test_reasons_to_stop(reason: str, said: str, client: Any, sim: Simulator, instrumented: Any) -> None:
    sim.default = Behaviour(finish_reason=reason)
    await settled(client.converse(modelId=NOVA, messages=MESSAGES))
    await read((await settled(client.converse_stream(modelId=NOVA, messages=MESSAGES)))["stream"])
    for span in instrumented.spans():
        assert span.attributes["gen_ai.response.finish_reasons"] == (said,)


async def test_tools_and_thoughts_are_text_that_arrived(
    client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    call = ToolCall("look", {"where": "under the bridge " * 8})
    sim.default = Behaviour(thinking="so " * 20, tool_calls=(call,), chunks=4, usage="absent")
    await read((await settled(client.converse_stream(modelId=NOVA, messages=MESSAGES)))["stream"])
    assert meter.totals.get().estimated_calls == 1
    assert meter.totals.get().usage.output_tokens >= (len(call.json) + 60) // 4


def test_a_router_says_which_model_it_was() -> None:
    arn = "arn:aws:bedrock:us-east-1:111122223333:default-prompt-router/anthropic.claude:1"
    invoked = "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-3-5-haiku-20241022-v1:0"
    metadata = {"usage": {"inputTokens": 9, "outputTokens": 3}, "trace": {"promptRouter": {"invokedModelId": invoked}}}
    reader = ConverseReader({}, "aws.bedrock")
    reader.item({"metadata": metadata})
    assert reader.facts.model == invoked
    assert reader.complete and reader.usage_is_final
    asked = Request("aws.bedrock", arn, "chat", lambda: Size(9, 9))
    charge = Meter().record(asked, Reading(reader.facts.usage, reader.facts.model))
    assert charge.cost.model == "regional.anthropic.claude-3-5-haiku-20241022-v1:0"


# --- usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        (None, None),
        ({}, None),
        ({"inputTokens": 0, "outputTokens": 0}, {"input_tokens": 0, "output_tokens": 0}),
        ({"outputTokens": 5, "cacheReadInputTokens": 9}, {"output_tokens": 5, "cache_read_tokens": 9}),
        (
            {"inputTokens": 1, "outputTokens": 2, "cacheWriteInputTokens": 30,
             "cacheDetails": [{"ttl": "1h", "inputTokens": 10}, {"ttl": "5m", "inputTokens": 20}]},
            {"input_tokens": 31, "output_tokens": 2, "cache_write_tokens": 30, "cache_write_1h_tokens": 10,
             "cache_write_5m_tokens": 20},
        ),
        ({"inputTokens": "9", "outputTokens": -1, "cacheDetails": "odd"}, None),
        ({"inputTokens": 4, "outputTokens": True, "cacheDetails": [7, {"ttl": "9y"}]}, {"input_tokens": 4}),
    ],
)  # fmt: skip
def test_counts(said: Any, counts: Any) -> None:
    usage = converse_usage(said)
    assert (usage and usage.counts()) == counts


NAMES = (
    "usage", "inputTokens", "outputTokens", "cacheDetails", "ttl", "metadata", "trace", "promptRouter", "stopReason",
    "messageStop", "contentBlockDelta", "delta", "text", "serviceTier", "type",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(JSON)
def test_nothing_that_comes_raises(data: Any) -> None:
    bedrock_converse.read(data, {}, "aws.bedrock")
    reader = ConverseReader({}, "aws.bedrock")
    assert reader.item(data) is False


# --- sizes -------------------------------------------------------------------------------------------------------


def said(*blocks: Any) -> Any:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def tools(*given: Any) -> Any:
    return {"toolConfig": {"tools": list(given)}}


TEXT = {"text": "x" * 4_000}


@pytest.mark.parametrize(
    ("body", "likely", "bound"),
    [
        (said(TEXT), 1_000, 4_000),
        (said({"image": {"format": "png", "source": {"bytes": b"x" * 90_000}}}), 1_600, 50_000),
        (said({"toolResult": {"toolUseId": "1", "content": [{"image": {"source": {"bytes": b"x"}}}]}}), 1_600, 50_000),
        (said({"document": {"format": "pdf", "name": "a", "source": {"bytes": b"x"}}}), 3_000, None),
        (said({"document": {"format": "txt", "name": "a", "source": {"text": "x" * 4_000}}}), 1_000, 4_000),
        (said({"document": {"name": "a", "source": {"content": [TEXT]}}}), 1_000, 4_000),
        (said({"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://a/b"}}}}), 3_000, None),
        (said({"audio": {"format": "mp3", "source": {"bytes": b"x"}}}), 3_000, None),
        (said({"toolUse": {"toolUseId": "1", "name": "look", "input": {"where": "x" * 4_000}}}), 1_000, 4_000),
        (said({"toolResult": {"toolUseId": "1", "content": [{"json": {"found": "x" * 4_000}}]}}), 1_000, 4_000),
        (said({"guardContent": {"text": TEXT}}), 1_000, 4_000),
        (said({"reasoningContent": {"reasoningText": TEXT}}), 1_000, 4_000),
        (said({"reasoningContent": {"redactedContent": b"xx"}}), 3_000, None),
        ({"system": [TEXT], **said({"text": ""})}, 1_000, 4_000),
        (said({"text": ""}) | tools({"toolSpec": {"name": "n", "description": "x" * 4_000}}), 1_000, 4_000),
        (said({"text": ""}) | tools({"systemTool": {"name": "nova_grounding"}}), 0, None),
        ({"modelId": "arn:aws:bedrock:us-east-1:111122223333:prompt/ABCDE:1"}, 0, None),
        ({"messages": 7, "toolConfig": {"tools": 7}}, 0, 0),
    ],
)  # fmt: skip
def test_sizes_of_requests(body: Any, likely: int, bound: int | None) -> None:
    found = size(body, None)
    assert likely <= found.input_tokens <= likely + 60
    assert (found.input_bound is None) if bound is None else bound <= found.input_bound <= bound + 2_000


@pytest.mark.parametrize(
    ("body", "ttl"),
    [
        (said({"text": "a"}), "none"),
        (said({"text": "a"}, {"cachePoint": {"type": "default"}}), "5m"),
        (said({"cachePoint": {"type": "default"}}, {"cachePoint": {"type": "default", "ttl": "1h"}}), "1h"),
        ({"system": [{"cachePoint": {"type": "default", "ttl": "5m"}}]}, "5m"),
        ({"toolConfig": {"tools": [{"cachePoint": {"type": "default", "ttl": "1h"}}]}}, "1h"),
        (said({"toolResult": {"content": [{"cachePoint": {"type": "default"}}]}}), "5m"),
    ],
)
def test_cache_points(body: Any, ttl: str) -> None:
    assert size(body, None).cache_write_ttl == ttl


def test_nothing_of_the_program_is_changed(sim: Simulator, instrumented: Any) -> None:
    image = {"image": {"format": "png", "source": {"bytes": b"x"}}}
    given_messages = [{"role": "user", "content": [{"text": "What is it?"}, image]}]
    before = deepcopy(given_messages)
    with tb.budget(max_cost_usd=1):
        client_of(sim).converse(modelId=NOVA, messages=given_messages)
    assert given_messages == before
