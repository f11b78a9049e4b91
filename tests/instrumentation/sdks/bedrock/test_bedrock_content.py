"""What was said, where it is captured: the same messages, whichever shape a vendor gives them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bedrock_harness import CLAUDE, NOVA, client_of

from tokenbudget_otel.instrumentation import bedrock_content
from tokenbudget_otel.instrumentation.bedrock import BedrockInstrumentor
from tokenbudget_otel.instrumentation.capture import ENVIRONMENT
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

ASKED = "What time is it?"
BLOCKS = [{"role": "user", "content": [{"text": ASKED}, {"image": {"format": "png", "source": {"bytes": "eA=="}}}]}]
PICTURE = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "", "omitted_bytes": 1}
PLAIN = [{"role": "user", "content": ASKED}]
BODIES: dict[str, Any] = {
    "anthropic": (CLAUDE, {"anthropic_version": "x", "max_tokens": 9, "messages": PLAIN}),
    "nova": (NOVA, {"messages": [{"role": "user", "content": [{"text": ASKED}]}]}),
    "llama": ("meta.llama3-1-70b-instruct-v1:0", {"prompt": ASKED}),
    "titan": ("amazon.titan-text-express-v1", {"inputText": ASKED}),
    "mistral": ("mistral.mistral-large-2402-v1:0", {"prompt": ASKED}),
    "command-r": ("cohere.command-r-v1:0", {"message": ASKED}),
    "gpt-oss": ("openai.gpt-oss-120b-1:0", {"messages": PLAIN}),
}


@pytest.fixture
def capturing(telemetry: Any, meter: Meter, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(ENVIRONMENT, "SPAN_ONLY")
    BedrockInstrumentor().instrument(tracer_provider=telemetry.tracer_provider)
    yield telemetry
    BedrockInstrumentor().uninstrument()


def messages_of(span: Any) -> tuple[Any, Any]:
    asked, answered = (json.loads(span.attributes[f"gen_ai.{way}.messages"]) for way in ("input", "output"))
    return asked, answered[0]["parts"]


@pytest.mark.parametrize("streamed", [False, True], ids=("whole", "streamed"))
@pytest.mark.parametrize("name", BODIES)
def test_every_shape(name: str, streamed: bool, sim: Simulator, capturing: Any) -> None:
    model, body = BODIES[name]
    sim.default = Behaviour(text="It is noon.", chunks=3)
    given = {"modelId": model, "body": json.dumps(body)}
    if streamed:
        list(client_of(sim).invoke_model_with_response_stream(**given)["body"])
    else:
        client_of(sim).invoke_model(**given)["body"].read()
    asked, parts = messages_of(capturing.span())
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": ASKED}]}]
    assert parts == [{"type": "text", "content": "It is noon."}]


@pytest.mark.parametrize("streamed", [False, True], ids=("whole", "streamed"))
def test_converse(streamed: bool, sim: Simulator, capturing: Any) -> None:
    sim.default = Behaviour(thinking="Well.", text="", tool_calls=(ToolCall("clock", {"zone": "UTC"}),), chunks=2)
    given: Any = {"modelId": NOVA, "messages": BLOCKS, "system": [{"text": "Be brief."}]}
    client = client_of(sim)
    if streamed:
        list(client.converse_stream(**given)["stream"])
    else:
        client.converse(**given)
    span = capturing.span()
    assert json.loads(span.attributes["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    asked, (thought, call) = messages_of(span)
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": ASKED}, PICTURE]}]
    assert thought == {"type": "reasoning", "content": "Well."}
    assert (call["type"], call["name"]) == ("tool_call", "clock")
    assert call["arguments"] == {"zone": "UTC"}


def test_results_of_tools_have_no_bytes() -> None:
    result = {
        "toolUseId": "1",
        "content": [{"text": "noon"}, {"image": {"source": {"bytes": b"x"}}}, {"json": {"a": 1}}],
    }
    assert bedrock_content.blocks([{"toolResult": result}, {"cachePoint": {"type": "default"}}]) == [
        {
            "type": "tool_call_response",
            "id": "1",
            "response": [
                {"type": "text", "content": "noon"},
                {"type": "blob", "modality": "image", "content": "", "omitted_bytes": 1},
                {"json": {"a": 1}},
            ],
        }
    ]


@pytest.mark.parametrize(
    "odd", [None, 7, "odd", [], [7], {}, {"messages": 7}, {"prompt": 7}, {"output": 7}, [{"chunk": 7}]]
)
def test_nothing_odd_raises(odd: Any) -> None:
    body = odd if isinstance(odd, dict) else {}
    shape = bedrock_content.shape_of(body)
    for each in (shape, bedrock_content.CONVERSE):
        each.request(body)
        each.response(odd)
        each.events(odd if isinstance(odd, list) else [])
    bedrock_content.blocks(odd)
