"""Every vendor's bodies: what the request asks for, and what was used, by the body or by Bedrock's own count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bedrock_harness import CLAUDE, MESSAGE, MESSAGES, client_of, read

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import bedrock_bodies
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

CHAT = MESSAGE["messages"]
COUNTED = Behaviour(input_tokens=120, output_tokens=30)
NAMED = {"max_tokens": "gen_ai.request.max_tokens", "temperature": "gen_ai.request.temperature"}

FAMILIES = {
    # model, body, operation; each asks for 90 tokens at a temperature of 0.5, in its own words
    "anthropic": (CLAUDE, MESSAGE | {"max_tokens": 90, "temperature": 0.5}, "chat"),
    "nova": (
        "us.amazon.nova-lite-v1:0",
        {"messages": MESSAGES, "inferenceConfig": {"maxTokens": 90, "temperature": 0.5}},
        "chat",
    ),
    "titan": (
        "amazon.titan-text-express-v1",
        {"inputText": "A story.", "textGenerationConfig": {"maxTokenCount": 90, "temperature": 0.5}},
        "text_completion",
    ),
    "llama": (
        "meta.llama3-1-70b-instruct-v1:0",
        {"prompt": "A story.", "max_gen_len": 90, "temperature": 0.5},
        "text_completion",
    ),
    "mistral": (
        "mistral.mistral-large-2402-v1:0",
        {"prompt": "A story.", "max_tokens": 90, "temperature": 0.5},
        "text_completion",
    ),
    "deepseek": (
        "us.deepseek.r1-v1:0",
        {"prompt": "A story.", "max_tokens": 90, "temperature": 0.5},
        "text_completion",
    ),
    "command": (
        "cohere.command-text-v14",
        {"prompt": "A story.", "max_tokens": 90, "temperature": 0.5},
        "text_completion",
    ),
    "command-r": ("cohere.command-r-v1:0", {"message": "A story.", "max_tokens": 90, "temperature": 0.5}, "chat"),
    "jamba": ("ai21.jamba-1-5-mini-v1:0", {"messages": CHAT, "max_tokens": 90, "temperature": 0.5}, "chat"),
    "gpt-oss": ("openai.gpt-oss-20b-1:0", {"messages": CHAT, "max_completion_tokens": 90, "temperature": 0.5}, "chat"),
    "custom": (
        "arn:aws:bedrock:eu-central-1:111122223333:custom-model-deployment/a1b2",
        {"messages": MESSAGES, "inferenceConfig": {"maxTokens": 90, "temperature": 0.5}},
        "chat",
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
async def test_whole_and_streamed(name: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    model, body, operation = FAMILIES[name]
    sim.default = COUNTED
    client = client_of(sim)
    client.invoke_model(modelId=model, body=json.dumps(body))["body"].read()
    await read(client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body).encode())["body"])
    whole, streamed = instrumented.spans()
    for span in (whole, streamed):
        told = span.attributes
        assert span.name == f"{operation} {model}"
        assert told["tokenbudget.call.outcome"] == "completed"
        assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (120, 30)
        assert (told["gen_ai.request.max_tokens"], told["gen_ai.request.temperature"]) == (90, 0.5)
        assert told["gen_ai.response.finish_reasons"] == ("stop",)
        assert told["cloud.region"] == "eu-central-1"
        assert told["aws.request_id"].startswith("req_")
    assert streamed.attributes["gen_ai.request.stream"] is True
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (2, 0)
    assert totals.unpriced_calls == (2 if name in ("custom", "command-r") else 0)


@pytest.mark.parametrize(
    ("model", "body", "counts"),
    [
        ("amazon.titan-embed-text-v2:0", {"inputText": "A river."}, {"input_tokens": 120}),
        ("cohere.embed-english-v3", {"texts": ["A river."], "input_type": "x"}, {"input_tokens": 120}),
        ("eu.cohere.embed-v4:0", {"texts": ["A river."], "input_type": "x"}, {"input_tokens": 120}),
    ],
)
def test_embeddings_have_no_output(
    model: str, body: Any, counts: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.default = Behaviour(input_tokens=120)
    with tb.budget(max_tokens=2_000):
        client_of(sim).invoke_model(modelId=model, body=json.dumps(body))["body"].read()
    assert instrumented.span().name == f"embeddings {model}"
    assert meter.totals.get().usage.counts() == counts


@pytest.mark.parametrize(
    "name", [name for name in FAMILIES if name not in ("mistral", "deepseek", "command", "command-r")]
)
def test_what_the_body_says_wins_and_the_headers_fill_what_it_lacks(
    name: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    model, body, _ = FAMILIES[name]
    sim.default = Behaviour(input_tokens=120, cached_tokens=20, output_tokens=30, usage="null")
    client_of(sim).invoke_model(modelId=model, body=json.dumps(body))["body"].read()
    assert meter.totals.get().usage.counts() == {
        "input_tokens": 120, "cache_read_tokens": 20, "cache_write_tokens": 0, "output_tokens": 30
    }  # fmt: skip
    assert meter.totals.get().estimated_calls == 0


@pytest.mark.parametrize("name", ["mistral", "llama", "nova", "jamba", "titan", "command"])
def test_without_any_count_the_text_is_estimated(name: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    model, body, _ = FAMILIES[name]
    sim.default = Behaviour(text="A river, a bridge and a boat.", usage="absent")
    client_of(sim).invoke_model(modelId=model, body=json.dumps(body))["body"].read()
    totals = meter.totals.get()
    assert totals.estimated_calls == 1
    assert totals.usage.input_tokens
    assert totals.usage.output_tokens == 8  # 29 bytes
    assert instrumented.span().attributes["tokenbudget.usage.estimated"] is True


def test_a_long_document_is_reranked_in_pieces() -> None:
    assert bedrock_bodies.searches({"documents": ["short"] * 100}) == (1, True)
    assert bedrock_bodies.searches({"documents": ["short"] * 101}) == (2, True)
    assert bedrock_bodies.searches({"documents": ["long " * 1_000] * 100}) == (3, False)
    assert bedrock_bodies.searches({"documents": "odd"}) == (1, True)


@pytest.mark.parametrize("body", ['{"prompt": ', b"\xff\xfe", "[]", "7", ""])
def test_a_body_that_is_no_json_is_sent_all_the_same(
    body: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    client = client_of(sim)
    client.invoke_model(modelId="meta.llama3-1-70b-instruct-v1:0", body=body)["body"].read()
    assert sim.requests[0].body == (body.encode() if isinstance(body, str) else body)
    assert meter.totals.get().calls == 1


def _said(block: Any) -> Any:
    return {"messages": [{"role": "user", "content": [block]}]}


@pytest.mark.parametrize(
    ("body", "likely", "bound"),
    [
        ({"prompt": "x" * 4_000, "max_gen_len": 9}, (1_000, 1_100), (4_000, 6_000)),
        (_said({"image": {"source": {"bytes": "x" * 90_000}}}), (1_600, 1_700), (50_000, 53_000)),
        ({"inputText": "x" * 400, "inputImage": "y" * 90_000}, (1_700, 1_800), (50_000, 53_000)),
        (_said({"video": {"source": {"bytes": "x"}}}), (3_000, 3_100), None),
    ],
)
def test_sizes(body: Any, likely: Any, bound: Any) -> None:
    size = bedrock_bodies.size(body, {"modelId": "any"})
    assert likely[0] <= size.input_tokens <= likely[1]
    assert (size.input_bound is None) if bound is None else bound[0] <= size.input_bound <= bound[1]
