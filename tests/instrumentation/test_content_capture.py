"""Content is captured where, and only where, the standard environment variable says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from tokenbudget_otel.instrumentation.anthropic import AnthropicInstrumentor
from tokenbudget_otel.instrumentation.capture import ENVIRONMENT
from tokenbudget_otel.instrumentation.content import EVENT_NAME
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

ANSWER = Behaviour(text="It is noon.", chunks=3)
CALLS = Behaviour(text="", tool_calls=(ToolCall("clock", {"zone": "UTC"}),))
TOOL = {"name": "clock", "description": "the time", "parameters": {"type": "object", "properties": {}}}
CHAT_TOOLS: Any = [{"type": "function", "function": TOOL}]
CLAUDE_TOOLS: Any = [{"name": "clock", "input_schema": {"type": "object", "properties": {}}}]

SAID = {
    "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
    "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "What time is it?"}]}],
}


def chat(sim: Simulator, stream: bool, **more: Any) -> Any:
    client = openai.OpenAI(base_url=sim.openai_url, api_key="any")
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What time is it?"}]
    return client.chat.completions.create(model="gpt-4o", messages=messages, stream=stream, **more)


def respond(sim: Simulator, stream: bool, **more: Any) -> Any:
    client = openai.OpenAI(base_url=sim.openai_url, api_key="any")
    return client.responses.create(
        model="gpt-5", instructions="Be brief.", input="What time is it?", stream=stream, **more
    )


def message(sim: Simulator, stream: bool, **more: Any) -> Any:
    client = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="any")
    messages: Any = [{"role": "user", "content": "What time is it?"}]
    return client.messages.create(
        model="claude-haiku-4-5", max_tokens=99, system="Be brief.", messages=messages, stream=stream, **more
    )


@pytest.fixture
def capturing(telemetry: Any, meter: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Instrument under a mode; gives the exporter of events."""
    events = InMemoryLogRecordExporter()
    loggers = LoggerProvider()
    loggers.add_log_record_processor(SimpleLogRecordProcessor(events))
    used = (OpenAIInstrumentor(), AnthropicInstrumentor())

    def start(mode: str | None) -> InMemoryLogRecordExporter:
        monkeypatch.setenv(ENVIRONMENT, mode) if mode is not None else monkeypatch.delenv(ENVIRONMENT, raising=False)
        for instrumentor in used:
            instrumentor.instrument(tracer_provider=telemetry.tracer_provider, logger_provider=loggers)
        return events

    yield start
    for instrumentor in used:
        instrumentor.uninstrument()


def read(answer: Any, stream: bool) -> None:
    if stream:
        for _ in answer:
            pass


WAYS = pytest.mark.parametrize("way", [chat, respond, message], ids=lambda way: way.__name__)
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@WAYS
@STREAMED
@pytest.mark.parametrize(
    ("mode", "on_span", "in_event"),
    [
        (None, False, False),
        ("NO_CONTENT", False, False),
        ("no such mode", False, False),
        ("SPAN_ONLY", True, False),
        ("EVENT_ONLY", False, True),
        ("SPAN_AND_EVENT", True, True),
    ],
)
def test_captured_where_it_should_be(
    sim: Simulator, telemetry: Any, capturing: Any, way: Callable[..., Any], stream: bool, mode: str | None,
    on_span: bool, in_event: bool,
) -> None:  # fmt: skip
    events = capturing(mode)
    sim.then(ANSWER)
    read(way(sim, stream), stream)
    attributes = telemetry.span().attributes
    assert ("gen_ai.input.messages" in attributes) is on_span
    if on_span:
        for name, value in SAID.items():
            assert json.loads(attributes[name]) == value
        [answer] = json.loads(attributes["gen_ai.output.messages"])
        assert (answer["role"], answer["parts"]) == ("assistant", [{"type": "text", "content": "It is noon."}])
    records = [record.log_record for record in events.get_finished_logs()]
    assert [record.event_name for record in records] == [EVENT_NAME] * in_event
    if in_event:
        assert records[0].trace_id == telemetry.span().context.trace_id
        assert records[0].attributes["gen_ai.input.messages"][0]["role"] == "user"
    # Whatever is captured, what is counted is the same.
    assert attributes["gen_ai.usage.output_tokens"] == sim.billed[0].usage.output_tokens


@STREAMED
@pytest.mark.parametrize(("way", "tools"), [(chat, CHAT_TOOLS), (message, CLAUDE_TOOLS)], ids=["chat", "message"])
def test_tool_calls(
    sim: Simulator, telemetry: Any, capturing: Any, way: Callable[..., Any], tools: Any, stream: bool
) -> None:
    capturing("SPAN_ONLY")
    sim.then(CALLS)
    read(way(sim, stream, tools=tools), stream)
    [answer] = json.loads(telemetry.span().attributes["gen_ai.output.messages"])
    call = next(part for part in answer["parts"] if part["type"] == "tool_call")
    arguments = call["arguments"]
    assert call["name"] == "clock"
    assert (json.loads(arguments) if isinstance(arguments, str) else arguments) == {"zone": "UTC"}
