"""Nothing is recorded that the program's hook has not let through, and a hook that fails lets nothing through."""

from __future__ import annotations

import json
import logging
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from content_calls import ASKED, WAYS, chat, message, read
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import content_shape
import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.redaction import REDACT, NotRedactedError, Place, Redaction
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

SECRET = re.compile(r"\d{4}")
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "card 1111",
            "parameters": {"type": "object", "properties": {"card": {"type": "string", "default": "2222"}}},
        },
    }
]
HISTORY: Any = [
    {"role": "system", "content": "My pin is 3333."},
    {"role": "user", "name": "bob4444", "content": [{"type": "text", "text": "5555"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "lookup", "arguments": '{"card": {"6666": [7777, "8888", true, null, 1.5]}}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "it is 9999"},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/1234.png"}}]},
]
ANSWER = Behaviour(text="Your pin: 4321.", tool_calls=(ToolCall("lookup", {"card": "8765"}),), chunks=9)


def mask(text: str, place: Place) -> str:
    return SECRET.sub("####", text)


def everything(captured: Any) -> str:
    return json.dumps([captured.on_span(), captured.in_event()])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_every_text_passes_the_hook(sim: Simulator, captured: Any, stream: bool) -> None:
    captured.start(capture_content="both", redact=mask)
    sim.then(ANSWER)
    read(chat(sim, messages=HISTORY, tools=TOOLS, stream=stream))
    said = everything(captured)
    assert not SECRET.search(re.sub(r'"id": "[^"]*"', "", said))
    assert captured.on_span() == captured.in_event()
    messages = captured.in_event()["gen_ai.input.messages"]
    assert [entry["role"] for entry in messages] == ["system", "user", "assistant", "tool", "user"]
    assert messages[1]["name"] == "bob####"
    assert messages[2]["parts"][0]["arguments"] == {"card": {"####": ["####", "####", True, None, 1.5]}}
    assert messages[3]["parts"][0]["response"] == "it is ####"
    assert messages[4]["parts"][0]["uri"] == "https://example.com/####.png"
    [tool] = captured.in_event()["gen_ai.tool.definitions"]
    assert tool["description"] == "card ####"
    assert tool["parameters"]["properties"]["card"]["default"] == "####"
    # The call itself is as it was.
    assert sim.requests[-1].json["messages"] == HISTORY


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_once_a_call_for_span_and_event_alike(
    sim: Simulator, captured: Any, way: Callable[..., Any], stream: bool
) -> None:
    asked: list[str] = []

    def redact(text: str, place: Place) -> str:
        asked.append(text)
        return text

    captured.start(capture_content="both", redact=redact)
    sim.then(Behaviour(text="It is noon.", chunks=5))
    read(way(sim, stream=stream))
    assert sorted(asked) == ["Be brief.", "It is noon.", "What time is it?"]


def test_the_hook_is_told_where_a_text_stands(sim: Simulator, captured: Any) -> None:
    places: dict[str, Place] = {}

    def redact(text: str, place: Place) -> str:
        places[text] = place
        return text

    captured.start(capture_content="span", redact=redact)
    sim.then(ANSWER)
    chat(sim, messages=HISTORY, tools=TOOLS)
    call = {"provider": "openai", "model": "gpt-4o", "operation": "chat"}
    asked, told = "gen_ai.input.messages", "gen_ai.output.messages"
    called = {"part": "tool_call", "field": "arguments", "tool": "lookup"}
    expected = {
        "My pin is 3333.": Place(asked, "system", "text", "content", **call),
        "bob4444": Place(asked, "user", None, "name", **call),
        "6666": Place(asked, "assistant", path=("card", "6666"), is_key=True, **called, **call),
        "7777": Place(asked, "assistant", path=("card", "6666", 0), **called, **call),
        "8888": Place(asked, "assistant", path=("card", "6666", 1), **called, **call),
        "it is 9999": Place(asked, "tool", "tool_call_response", "response", **call),
        "https://example.com/1234.png": Place(asked, "user", "uri", "uri", **call),
        "Your pin: 4321.": Place(told, "assistant", "text", "content", **call),
        "8765": Place(told, "assistant", path=("card",), **called, **call),
        "card 1111": Place(
            "gen_ai.tool.definitions", part="function", field="description", tool="lookup", **call
        ),
        "2222": Place(
            "gen_ai.tool.definitions", part="function", field="parameters", tool="lookup",
            path=("properties", "card", "default"), **call,
        ),
    }  # fmt: skip
    assert {text: places[text] for text in expected} == expected


DROPS: dict[str, tuple[Callable[[str, Place], str | None], Callable[[dict[str, Any]], Any], Any]] = {
    "a text": (
        lambda text, place: None if text == "My pin is 3333." else text,
        lambda said: said["gen_ai.input.messages"][0],
        {"role": "system", "parts": []},
    ),
    "the results of tools": (
        lambda text, place: None if place.part == "tool_call_response" else text,
        lambda said: said["gen_ai.input.messages"][3]["parts"],
        [{"type": "tool_call_response", "id": "call_1", "response": None}],
    ),
    "what a tool is given": (
        lambda text, place: None if place.field == "arguments" else text,
        lambda said: said["gen_ai.input.messages"][2]["parts"],
        [{"type": "tool_call", "id": "call_1", "name": "lookup", "arguments": {}}],
    ),
    "one argument": (
        lambda text, place: None if place.path[-1:] == (1,) else text,
        lambda said: said["gen_ai.input.messages"][2]["parts"][0]["arguments"],
        {"card": {"6666": [7777, True, None, 1.5]}},
    ),
    "an argument by its name": (
        lambda text, place: None if place.is_key and text == "6666" else text,
        lambda said: said["gen_ai.input.messages"][2]["parts"][0]["arguments"],
        {"card": {}},
    ),
    "who speaks": (
        lambda text, place: None if place.field == "name" else text,
        lambda said: "name" in said["gen_ai.input.messages"][1],
        False,
    ),
    "where a picture is": (
        lambda text, place: None if place.part == "uri" else text,
        lambda said: said["gen_ai.input.messages"][4]["parts"],
        [],
    ),
    "all of the answer": (
        lambda text, place: None if place.attribute == "gen_ai.output.messages" else text,
        lambda said: [part["type"] for part in said["gen_ai.output.messages"][0]["parts"]],
        ["tool_call"],
    ),
}


@pytest.mark.parametrize("name", DROPS)
def test_the_hook_drops(name: str, sim: Simulator, captured: Any) -> None:
    redact, look, expected = DROPS[name]
    captured.start(capture_content="both", redact=redact)
    sim.then(ANSWER)
    chat(sim, messages=HISTORY, tools=TOOLS)
    assert look(captured.in_event()) == expected
    assert captured.on_span() == captured.in_event()


# --- it fails closed -------------------------------------------------------------------------------------------------


def raises(text: str, place: Place) -> str:
    raise ValueError(f"cannot read {text}")


async def waits(text: str, place: Place) -> str:
    return text


NONSENSE: dict[str, Any] = {
    "raises": raises,
    "raises for one text only": lambda text, place: text if place.role == "system" else raises(text, place),
    "number": lambda text, place: 7,
    "bytes": lambda text, place: text.encode(),
    "true": lambda text, place: True,
    "list": lambda text, place: [text],
    "wrong arguments": lambda text: text,
    "coroutine": lambda text, place: waits(text, place),
    "recursion": lambda text, place: NONSENSE["recursion"](text, place),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_content_of_which_the_hook_does_not_speak_is_not_recorded(
    name: str, sim: Simulator, captured: Any, caplog: pytest.LogCaptureFixture
) -> None:
    captured.start(capture_content="both", redact=NONSENSE[name])
    with caplog.at_level(logging.WARNING, "tokenbudget_otel"):
        for _ in range(3):
            assert chat(sim).choices[0].message.content
    told = [record for record in caplog.records if "redaction hook" in record.getMessage()]
    assert len(told) == 1
    # Neither text nor traceback, which may show it.
    assert "What time" not in caplog.text
    assert "Be brief" not in caplog.text
    assert told[0].exc_info is None
    for span in captured.telemetry.spans():
        assert content_shape.of_span(span) == {}
        assert span.attributes["gen_ai.usage.output_tokens"]
    # The event is there, and says all the rest.
    records = captured.records()
    assert len(records) == 3
    assert all(content_shape.of_event(record) == {} for record in records)
    assert all(record.attributes["gen_ai.response.id"] for record in records)


def test_a_hook_may_call_a_model_itself(sim: Simulator, captured: Any) -> None:
    """Of that call nobody says what may be recorded."""
    asked: list[str] = []

    def redact(text: str, place: Place) -> str:
        asked.append(text)
        message(sim, messages=[{"role": "user", "content": f"Is this a secret: {text}"}])
        return "[judged]"

    captured.start(capture_content="span", redact=redact)
    chat(sim, messages=[{"role": "user", "content": "My pin."}])
    spans = captured.telemetry.spans()
    [outer] = [span for span in spans if span.attributes["gen_ai.provider.name"] == "openai"]
    said = content_shape.of_span(outer)
    assert content_shape.texts(said["gen_ai.input.messages"]) == "[judged]"
    assert [content_shape.of_span(span) for span in spans if span is not outer] == [{}] * len(asked)


def test_an_interrupt_inside_the_hook_is_the_programs(sim: Simulator, captured: Any) -> None:
    def redact(text: str, place: Place) -> str:
        raise KeyboardInterrupt

    captured.start(capture_content="both", redact=redact)
    with pytest.raises(KeyboardInterrupt):
        chat(sim)
    assert captured.on_span() == {}


def test_a_hook_that_comes_after_the_instrumentation_holds(
    sim: Simulator, captured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`opentelemetry-instrument` has put the doors up before the program can say anything."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "EVENT_ONLY")
    captured.start()
    tb.instrument(redact=mask)
    chat(sim, messages=HISTORY)
    assert captured.in_event()["gen_ai.input.messages"][0]["parts"][0]["content"] == "My pin is ####."
    # What was said before goes on to hold.
    tb.instrument(capture_content="span", content_max_bytes=300)
    chat(sim, messages=HISTORY)
    span = captured.telemetry.spans()[-1]
    assert "My pin is" in span.attributes["gen_ai.input.messages"]
    assert "3333" not in span.attributes["gen_ai.input.messages"]
    assert len(span.attributes["gen_ai.input.messages"].encode()) <= 300
    with pytest.raises(ValueError, match="capture_content is 'all'"):
        tb.instrument(capture_content="all")
    tb.uninstrument()


# --- named by the environment ----------------------------------------------------------------------------------------


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("program_redaction")
    monkeypatch.setitem(sys.modules, "program_redaction", made)
    return made


def test_named_by_the_environment(sim: Simulator, captured: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REDACT, "program_redaction:Rules.mask")
    captured.start(capture_content="both")
    # Programs are instrumented before their own modules are there.
    module.Rules = type("Rules", (), {"mask": staticmethod(mask)})
    chat(sim, messages=HISTORY)
    assert captured.in_event()["gen_ai.input.messages"][0]["parts"][0]["content"] == "My pin is ####."


def test_the_programs_own_hook_goes_over_the_environment(
    sim: Simulator, captured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REDACT, "nowhere:to_be_found")
    captured.start(capture_content="span", redact=lambda text, place: "[ours]")
    chat(sim)
    assert captured.on_span()["gen_ai.input.messages"][1]["parts"] == [{"type": "text", "content": "[ours]"}]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere_to_be_found:redact", "ModuleNotFoundError"),
        ("program_redaction:missing", "AttributeError"),
        ("program_redaction", "is not like 'package.module:function'"),
        ("program_redaction:number", "must be a function"),
        ("program_redaction:waits", "must not be async"),
        (":redact", "is not like"),
    ],
)
def test_a_hook_that_cannot_be_found_lets_nothing_through(
    name: str, reason: str, sim: Simulator, captured: Any, module: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    module.number, module.waits = 7, waits
    monkeypatch.setenv(REDACT, name)
    captured.start(capture_content="both")
    with caplog.at_level(logging.WARNING, "tokenbudget_otel"):
        chat(sim)
        chat(sim)
    warned = [record.getMessage() for record in caplog.records if REDACT in record.getMessage()]
    assert len(warned) == 1
    assert name in warned[0]
    assert reason in warned[0]
    assert [content_shape.of_span(span) for span in captured.telemetry.spans()] == [{}, {}]
    assert [content_shape.of_event(record) for record in captured.records()] == [{}, {}]


def test_a_module_that_fails_to_import_lets_nothing_through(
    sim: Simulator, captured: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_redaction.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(REDACT, "broken_redaction:redact")
    captured.start(capture_content="span")
    chat(sim)
    assert captured.on_span() == {}


# --- of whatever shape -----------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


@given(arguments=VALUES, result=VALUES)
def test_what_is_let_through_is_what_was_there(arguments: Any, result: Any) -> None:
    content = {
        "gen_ai.input.messages": [
            {**ASKED, "parts": [{"type": "tool_call", "id": "1", "name": "t", "arguments": arguments}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": result}]},
        ]
    }
    assert Redaction(lambda text, place: text)(content, {}) == content


@given(arguments=VALUES)
def test_no_text_or_number_gets_past_a_hook_that_replaces_all(arguments: Any) -> None:
    call = {"type": "tool_call", "id": "1", "name": "t", "arguments": arguments}
    content = {"gen_ai.input.messages": [{"role": "assistant", "parts": [call]}]}
    redacted = Redaction(lambda text, place: "#")(content, {})

    def leaves(value: Any) -> Any:
        if isinstance(value, dict):
            for name, each in value.items():
                yield name
                yield from leaves(each)
        elif isinstance(value, list):
            for each in value:
                yield from leaves(each)
        else:
            yield value

    [part] = redacted["gen_ai.input.messages"][0]["parts"]
    assert set(leaves(part["arguments"])) <= {"#", "", None, True, False}


def test_what_is_nested_too_deep_is_not_let_through() -> None:
    deep: Any = "secret"
    for _ in range(200):
        deep = [deep]
    part = {"type": "tool_call_response", "id": "1", "response": deep}
    with pytest.raises(NotRedactedError, match="deep"):
        Redaction(mask)({"gen_ai.input.messages": [{"role": "tool", "parts": [part]}]}, {})


def test_the_hook_is_not_asked_where_nothing_is_recorded(sim: Simulator, captured: Any) -> None:

    asked: list[str] = []

    def redact(text: str, place: Place) -> str:
        asked.append(text)
        return text

    captured.tracer_provider = TracerProvider(sampler=ALWAYS_OFF)
    captured.start(capture_content="span", redact=redact)
    chat(sim)
    captured.stop()
    captured.start(capture_content="both", redact=redact)
    with suppress_instrumentation():
        chat(sim)
    assert (asked, captured.records()) == ([], [])
