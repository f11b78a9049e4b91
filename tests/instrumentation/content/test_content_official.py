"""Side by side with the official packages: the same calls, and every difference with its reason."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from content_calls import chat, message, read, respond

import content_shape
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

PACKAGES = {"chat": "openai.OpenAI", "respond": "openai.OpenAI", "message": "anthropic.Anthropic"}

SCHEMA = {"type": "object", "properties": {"zone": {"type": "string"}}}
FUNCTION = {"name": "clock", "description": "the time", "parameters": SCHEMA}
MORE: dict[str, dict[str, Any]] = {
    "chat": {
        "tools": [{"type": "function", "function": FUNCTION}],
        "temperature": 0.5, "seed": 7, "stop": "END", "max_tokens": 99, "top_p": 0.9, "service_tier": "flex",
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "response_format": {"type": "json_object"},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "bob", "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": {"url": "https://a.example/1.png"}},
            ]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        ],
    },
    "respond": {
        "tools": [{"type": "function", **FUNCTION}, {"type": "web_search"}],
        "temperature": 0.5, "max_output_tokens": 99, "top_p": 0.9, "previous_response_id": "resp_1",
        "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}},
        "input": [
            {"role": "user", "content": "Hi"},
            {"type": "function_call", "call_id": "call_1", "name": "clock", "arguments": '{"zone": "UTC"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "noon"},
        ],
    },
    "message": {
        "tools": [{"name": "clock", "description": "the time", "input_schema": SCHEMA},
                  {"type": "bash_20250124", "name": "bash"}],
        "stop_sequences": ["END"],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "call_1", "name": "clock", "input": {"zone": "UTC"}}
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "noon"}]},
        ],
    },
}  # fmt: skip

OURS_ALONE = {
    "gen_ai.usage.cost": (("chat", "respond", "message"), "the cost"),
    "openai.api.type": (("chat",), "theirs has it for responses only"),
    "openai.response.system_fingerprint": (("chat-streamed",), "theirs does not read it from streams"),
    "anthropic.response.service_tier": (("message",), "the tier that answered has a price of its own"),
    "gen_ai.response.status": (("respond",), "theirs has it for looks at a response; one that is created has it too"),
    "gen_ai.request.reasoning.level": (("respond",), "theirs does not read it from requests"),
    "gen_ai.request.previous_response.id": (("respond",), "theirs does not read it from requests"),
}
"""Attributes that the official packages do not set for these calls, and why ours does."""

THEIRS_OTHERWISE = {
    "gen_ai.response.finish_reasons": "for responses theirs has one for each item of the output, in OpenAI's words for"
    " tool calls; ours has that of the response",
    "gen_ai.response.time_to_first_chunk": "measured",
    "gen_ai.response.id": "made anew for every call",
}


def without_nulls(value: Any) -> Any:
    """Theirs writes fields that say nothing as null; here they are left out, but for those that have to be there."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list | tuple) else value


def normal(name: str, items: Any) -> Any:
    """Content with the named differences taken out."""
    shown = without_nulls(content_shape.listed(json.loads(items) if isinstance(items, str) else items))
    for item in shown:
        if name == "gen_ai.output.messages":
            # Tool calls stand after the text here, as they come; theirs puts those of chat completions before it. A
            # turn is one message here, reasoning and all (conventions: a message for each choice); theirs leaves the
            # reasoning of responses out where it has no status.
            item["parts"] = sorted(
                (part for part in item["parts"] if part["type"] != "reasoning"), key=lambda part: part["type"]
            )
            for part in item["parts"]:
                part.pop("id", None)  # made anew for every call
    return shown


@pytest.mark.parametrize("way", [chat, respond, message], ids=lambda way: way.__name__)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_same_event_but_for_what_is_named_here(
    sim: Simulator, captured: Any, monkeypatch: pytest.MonkeyPatch, way: Any, stream: bool
) -> None:
    kind = f"{way.__name__}-{'streamed' if stream else 'whole'}"
    module, _, name = PACKAGES[way.__name__].rpartition(".")
    path = f"opentelemetry.instrumentation.genai.{module}"
    package = pytest.importorskip(path, reason="the official package is not installed")
    official = getattr(importlib.import_module(package.__name__), f"{name}Instrumentor")()
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_AND_EVENT")
    behaviour = Behaviour(
        text="Noon.", thinking="Hm.", tool_calls=(ToolCall("clock", {"zone": "UTC"}),), chunks=3, input_tokens=100,
        cached_tokens=40, output_tokens=30, reasoning_tokens=10,
    )  # fmt: skip

    def call() -> None:
        sim.reset()
        sim.then(behaviour)
        more = {**MORE[way.__name__], **({"stream_options": {"include_usage": True}} if stream and way is chat else {})}
        read(way(sim, stream=stream, **more))

    official.instrument(tracer_provider=captured.tracer_provider, logger_provider=captured.loggers)
    try:
        call()
    finally:
        official.uninstrument()
    captured.start()
    call()
    theirs, ours = captured.records()
    their_span, our_span = captured.telemetry.spans()
    assert (ours.event_name, ours.severity_number, ours.severity_text, ours.body, ours.timestamp) == (
        theirs.event_name, theirs.severity_number, theirs.severity_text, theirs.body, theirs.timestamp,
    )  # fmt: skip
    assert (ours.trace_id, ours.span_id) == (our_span.context.trace_id, our_span.context.span_id)
    assert ours.observed_timestamp
    assert (theirs.trace_id, theirs.span_id) == (their_span.context.trace_id, their_span.context.span_id)
    assert content_shape.of_event(ours) == content_shape.of_span(our_span) != {}
    for their_attributes, our_attributes in (
        (theirs.attributes, ours.attributes),
        (their_span.attributes, our_span.attributes),
    ):
        for attribute, value in their_attributes.items():
            if attribute in content_shape.NAMES:
                said = our_attributes[attribute]
                assert type(said) is type(value), "JSON on spans, and structured in events"
                assert normal(attribute, said) == normal(attribute, value), attribute
            elif attribute not in THEIRS_OTHERWISE:
                assert our_attributes[attribute] == value, attribute
            else:
                assert attribute in our_attributes
        more = {name for name, value in our_attributes.items() if value != 0 or isinstance(value, bool)}
        more = {name for name in more - set(their_attributes) if not name.startswith("tokenbudget.")}
        # Zeros apart: here a count that is reported as 0 is one.
        assert more == {name for name, (where, _) in OURS_ALONE.items() if {way.__name__, kind} & set(where)}
