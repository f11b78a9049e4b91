"""What was said is kept where the environment asks for it, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google_harness import MODEL, NEWER, make

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.capture import ENVIRONMENT
from tokenbudget_otel.simulator import Behaviour, ToolCall

QUESTION = "What time is it?"
SYSTEM = [{"type": "text", "content": "Be brief."}]
ASKED = [{"role": "user", "parts": [{"type": "text", "content": QUESTION}]}]
ANSWERED = [{"role": "assistant", "parts": [{"type": "text", "content": "It is noon."}]}]


def generate(client: Any) -> None:
    client.models.generate_content(model=MODEL, contents=QUESTION, config={"system_instruction": "Be brief."})


def stream(client: Any) -> None:
    config = {"system_instruction": "Be brief."}
    list(client.models.generate_content_stream(model=MODEL, contents=QUESTION, config=config))


def interact(client: Any) -> None:
    client.interactions.create(model=NEWER, input=QUESTION, system_instruction="Be brief.")


def interact_streaming(client: Any) -> None:
    list(client.interactions.create(model=NEWER, input=QUESTION, system_instruction="Be brief.", stream=True))


@pytest.mark.parametrize("call", [generate, stream, interact, interact_streaming])
@pytest.mark.parametrize("mode", ["SPAN_ONLY", "NO_CONTENT"])
def test_content(call: Any, mode: str, sim: Any, telemetry: Any, meter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, mode)
    sim.then(Behaviour(text="It is noon.", chunks=3))
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    try:
        call(make(sim))
    finally:
        tb.uninstrument()
    attributes = telemetry.span().attributes
    if mode == "NO_CONTENT":
        assert not [name for name in attributes if name.endswith((".messages", "instructions"))]
        return
    assert json.loads(attributes["gen_ai.system_instructions"]) == SYSTEM
    assert json.loads(attributes["gen_ai.input.messages"]) == ASKED
    said = json.loads(attributes["gen_ai.output.messages"])
    for message in said:
        message.pop("finish_reason", None)
    assert said == ANSWERED


def test_arguments_that_look_like_an_embedding(sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(tool_calls=[ToolCall("sort", {"values": ["a]b", "c"]})], input_tokens=7, output_tokens=5))
    answer = make(sim).models.generate_content(model=MODEL, contents=QUESTION)
    assert answer.function_calls[0].args == {"values": ["a]b", "c"]}
    assert meter.totals.get().usage.input_tokens == 7
    assert "tokenbudget.usage.estimated" not in instrumented.span().attributes
