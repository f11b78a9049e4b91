"""Which price a call gets on AWS and on Vertex: by the id that was asked for, whatever SDK asked for it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from bedrock_harness import MESSAGE, MESSAGES, client_of, each, settled

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ACCOUNT = "arn:aws:bedrock:eu-central-1:111122223333:"
COUNTED = Behaviour(input_tokens=10_000, output_tokens=1_000)
GLOBAL, REGIONAL = 45_000_000, 49_500_000
"""Nano-USD at $3 and $15 for a million tokens, and 10 % more where the place is fixed."""

IDS = [
    (f"global.{SONNET}", GLOBAL),
    (f"{ACCOUNT}inference-profile/global.{SONNET}", GLOBAL),
    *(
        (f"{place}{SONNET}", REGIONAL)
        for place in ("", "us.", "eu.", "apac.", "jp.", "au.", "us-gov.", f"{ACCOUNT}inference-profile/eu.")
    ),
    (f"arn:aws:bedrock:eu-central-1::foundation-model/{SONNET}", REGIONAL),
    (f"arn:aws-us-gov:bedrock:us-gov-west-1:111122223333:inference-profile/us-gov.{SONNET}", REGIONAL),
    *(
        (f"{ACCOUNT}{kind}/a1b2c3d4e5f6", None)
        for kind in ("application-inference-profile", "provisioned-model", "custom-model", "imported-model")
    ),
]


@pytest.fixture
def instrumented(telemetry: Any, meter: Meter) -> Iterator[Any]:
    """All SDKs instrumented."""
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    yield telemetry
    tb.uninstrument()


@pytest.mark.parametrize(("model", "nano_usd"), IDS)
def test_the_price_of_an_id(model: str, nano_usd: int | None, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    """InvokeModel's answer names the model without its place, and that must not change the price."""
    sim.default = COUNTED
    client = client_of(sim)
    client.converse(modelId=model, messages=MESSAGES)
    answer = client.invoke_model(modelId=model, body=json.dumps(MESSAGE))
    assert json.load(answer["body"])["model"]
    converse, invoke = instrumented.spans()
    for span in (converse, invoke):
        assert span.attributes["gen_ai.request.model"] == model
        assert span.attributes.get("gen_ai.usage.cost") == (nano_usd and nano_usd / 1e9)
        assert span.attributes["tokenbudget.cost.state"] == ("priced" if nano_usd else "unknown")
    assert meter.totals.get().unpriced_calls == (0 if nano_usd else 2)


def test_a_profile_of_the_users_own_is_priced_as_he_says(sim: Simulator, instrumented: Any, meter: Meter) -> None:
    arn = f"{ACCOUNT}application-inference-profile/0a1b2c3d4e5f"
    tb.map_model(arn, f"global.{SONNET}", provider="aws.bedrock")
    sim.default = COUNTED
    client = client_of(sim)
    client.converse(modelId=arn, messages=MESSAGES)
    client.invoke_model(modelId=arn, body=json.dumps(MESSAGE))["body"].read()
    assert meter.totals.get().nano_usd == 2 * GLOBAL


# --- the SDKs of the vendors -------------------------------------------------------------------------------------


def _bedrock(sim: Simulator, asynchronous: bool, name: str = "AnthropicBedrock", url: str = "") -> Any:
    kind = getattr(anthropic, f"Async{name}" if asynchronous else name, None)
    if kind is None:
        pytest.skip(f"this version of the SDK has no {name}")
    http: Any = anthropic.DefaultAsyncHttpxClient if asynchronous else anthropic.DefaultHttpxClient
    return kind(
        aws_region="eu-central-1",
        aws_access_key="any",
        aws_secret_key="any",
        base_url=sim.bedrock_url + url,
        max_retries=0,
        http_client=http(verify=False),
    )


ASKED = {"max_tokens": 500, "messages": MESSAGE["messages"]}


@pytest.mark.parametrize(("model", "nano_usd"), [(f"global.{SONNET}", GLOBAL), (f"eu.{SONNET}", REGIONAL)])
async def test_anthropic_on_bedrock(
    model: str, nano_usd: int, asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.default = COUNTED
    client = _bedrock(sim, asynchronous)
    message = await settled(client.messages.create(model=model, **ASKED))
    assert message.model == "claude-sonnet-4-5-20250929"
    stream = await settled(client.messages.create(model=model, stream=True, **ASKED))
    assert [event.type async for event in each(stream)][-1] == "message_stop"
    for span in instrumented.spans():
        assert span.attributes["gen_ai.provider.name"] == "aws.bedrock"
        assert span.attributes["gen_ai.request.model"] == model
        assert span.attributes["tokenbudget.call.outcome"] == "completed"
    assert (meter.totals.get().nano_usd, meter.totals.get().estimated_calls) == (2 * nano_usd, 0)


async def test_an_error_inside_a_stream_of_anthropic_on_bedrock(
    asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.default = Behaviour(text="word " * 20, chunks=10, error_event_after=5)
    stream = await settled(_bedrock(sim, asynchronous).messages.create(model=f"eu.{SONNET}", stream=True, **ASKED))
    with pytest.raises(anthropic.APIError):
        async for _ in each(stream):
            pass
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "failed"
    assert span.attributes["error.type"] == "modelStreamErrorException"
    assert meter.totals.get().estimated_calls == 1


async def test_anthropic_on_mantle(asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = COUNTED
    client = _bedrock(sim, asynchronous, "AnthropicBedrockMantle", "/anthropic")
    await settled(client.messages.create(model="anthropic.claude-sonnet-4-5", **ASKED))
    assert instrumented.span().attributes["gen_ai.provider.name"] == "aws.bedrock"
    assert meter.totals.get().usage.input_tokens == 10_000


async def test_anthropic_on_vertex(asynchronous: bool, instrumented: Any, meter: Meter) -> None:
    """The name has its version after an @, there only."""
    usage = {"input_tokens": 10_000, "output_tokens": 1_000}
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929", "usage": usage,
        "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "stop_sequence": None,
    }  # fmt: skip
    http = importlib.import_module(anthropic.DefaultHttpxClient.__mro__[2].__module__.partition(".")[0])
    transport = http.MockTransport(lambda _request: http.Response(200, json=message))
    kind: Any = anthropic.AsyncAnthropicVertex if asynchronous else anthropic.AnthropicVertex
    made: Any = anthropic.DefaultAsyncHttpxClient if asynchronous else anthropic.DefaultHttpxClient
    client = kind(region="us-east5", project_id="p", access_token="any", http_client=made(transport=transport))
    await settled(client.messages.create(model="claude-sonnet-4-5@20250929", **ASKED))
    told = instrumented.span().attributes
    assert told["gen_ai.provider.name"] == "gcp.vertex_ai"
    assert told["gen_ai.request.model"] == "claude-sonnet-4-5@20250929"
    assert meter.totals.get().nano_usd == GLOBAL


async def test_openai_on_bedrock(asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = COUNTED
    kind: Any = openai.AsyncBedrockOpenAI if asynchronous else openai.BedrockOpenAI
    http: Any = openai.DefaultAsyncHttpxClient if asynchronous else openai.DefaultHttpxClient
    client = kind(
        api_key="any", aws_region="eu-central-1", base_url=sim.openai_url, max_retries=0, http_client=http(verify=False)
    )
    given = {"model": "openai.gpt-oss-120b-1:0", "messages": MESSAGE["messages"]}
    await settled(client.chat.completions.create(**given))
    async for _ in each(await settled(client.chat.completions.create(**given, stream=True))):
        pass
    for span in instrumented.spans():
        assert span.attributes["gen_ai.provider.name"] == "aws.bedrock"
    usage = tb.TokenUsage(input_tokens=10_000, output_tokens=1_000)
    cost = tb.calculate_cost("openai.gpt-oss-120b-1:0", usage, provider="aws.bedrock")
    assert cost is not None
    assert meter.totals.get().nano_usd == 2 * (cost.nano_usd or 0) > 0


def test_openai_with_bedrock_as_its_provider(sim: Simulator, instrumented: Any) -> None:
    providers = pytest.importorskip("openai.providers.bedrock", reason="openai before 3 has no providers")
    configured = providers.bedrock(region="eu-central-1", base_url=sim.openai_url, api_key="any")
    client: Any = openai.OpenAI(provider=configured, max_retries=0, http_client=openai.DefaultHttpxClient(verify=False))
    client.chat.completions.create(model="openai.gpt-oss-120b-1:0", messages=MESSAGE["messages"])
    assert instrumented.span().attributes["gen_ai.provider.name"] == "aws.bedrock"
