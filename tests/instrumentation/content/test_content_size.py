"""Content that is too large is cut so that it still reads as what it is, and says how much is missing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from content_calls import chat, message, openai_client, read, respond
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import content_shape
from tokenbudget_otel.instrumentation import content, openai_content
from tokenbudget_otel.instrumentation.capture import ENVELOPE, Capture
from tokenbudget_otel.instrumentation.content import Kept
from tokenbudget_otel.instrumentation.content_parts import media, plain, said, sound, tool_definitions
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.truncation import cut, fitted, size_of
from tokenbudget_otel.simulator import Behaviour, Simulator

# Long texts of short draws: hypothesis takes its time for each character.
WORDS = st.builds(lambda words, times: words * times, st.text(max_size=12), st.integers(min_value=0, max_value=40))
TEXTS = st.builds(lambda words: {"type": "text", "content": words}, WORDS)
CALLS = st.builds(
    lambda value: {"type": "tool_call", "id": "call_0123456789", "name": "clock", "arguments": value},
    st.lists(WORDS, max_size=3) | st.dictionaries(st.text(max_size=5), WORDS | st.integers(), max_size=3) | WORDS,
)
MESSAGES = st.lists(
    st.builds(
        lambda role, parts: {"role": role, "parts": parts, "finish_reason": "stop"},
        st.sampled_from(["user", "assistant"]),
        st.lists(TEXTS | CALLS, max_size=3),
    ),
    max_size=6,
)
LEFT_OUT = re.compile(r"(\d+) bytes left out\]")


@given(items=MESSAGES.map(plain), limit=st.integers(min_value=1, max_value=3_000))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_is_cut_fits_and_is_still_content(items: Any, limit: int) -> None:
    fit = fitted(items, limit)
    if size_of(items) <= limit:
        assert fit == items
        return
    assert fit == [] or size_of(fit) <= limit
    written = json.dumps(fit, ensure_ascii=False)
    written.encode()  # no half of a character
    if fit:
        content_shape.check("gen_ai.output.messages", [message for message in fit if message["parts"]] or fit)
        assert LEFT_OUT.search(written), "it says that something is missing"
        assert fit[-1]["role"] in ("user", "assistant")


@given(words=st.text(), most=st.integers(min_value=0, max_value=50))
def test_a_text_is_cut_between_characters_and_says_how_much_is_missing(words: str, most: int) -> None:
    short = cut(sound(words), most)
    if (found := LEFT_OUT.search(short)) and short != words:
        kept = short.partition("…[")[0] if "…[" not in words else short.rpartition("…[")[0]
        assert sound(words).startswith(kept)
        assert len(kept.encode()) <= most
        assert int(found[1]) == len(sound(words).encode()) - len(kept.encode())
    else:
        assert short == sound(words)


def text(words: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": words}]}


def test_the_longest_texts_are_cut_first() -> None:
    items = [text("short"), text("long " * 2_000), text("medium " * 20)]
    fit = fitted(items, 1_000)
    assert fit[0] == items[0]
    assert fit[2] == items[2]
    assert fit[1]["parts"][0]["content"].startswith("long long")
    # Of the room there is little is left unused.
    assert size_of(fit) > 950


def test_messages_in_the_middle_are_left_out_where_texts_would_be_too_short() -> None:
    items = [text(f"{number} " + "word " * 20) for number in range(100)]
    fit = fitted(items, 2_000)
    kept = [int(item["parts"][0]["content"].split()[0]) for item in fit if item["parts"][0]["type"] == "text"]
    assert kept[0] == 0
    assert kept[-1] == 99
    [omission] = [item for item in fit if item["parts"][0]["type"] == "truncated"]
    found = re.fullmatch(r"\[(\d+) messages, (\d+) bytes left out\]", omission["parts"][0]["content"])
    assert found is not None
    assert int(found[1]) == 100 - len(kept)


@pytest.mark.parametrize(
    "items",
    [
        [{"role": "user", "parts": [{"type": "text", "content": f"part {number}"} for number in range(500)]}],
        [{"type": "text", "content": f"instruction {number}"} for number in range(500)],
        [{"type": "function", "name": f"tool_{number}", "parameters": {"type": "object"}} for number in range(500)],
        [{"type": "tool_call", "id": "1", "name": "t", "arguments": {str(number): number for number in range(9_999)}}],
    ],
    ids=["parts", "instructions", "definitions", "arguments"],
)
def test_whatever_there_is_much_of(items: Any) -> None:
    fit = fitted(items, 1_000)
    assert 300 < size_of(fit) <= 1_000
    assert LEFT_OUT.search(json.dumps(fit))
    named = "parts" in items[0]
    content_shape.check("gen_ai.input.messages" if named else "gen_ai.tool.definitions", fit) if named else None


@pytest.mark.parametrize("way", [chat, respond, message], ids=lambda way: way.__name__)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_every_attribute_keeps_to_the_limit(sim: Simulator, captured: Any, way: Any, stream: bool) -> None:
    captured.start(capture_content="both", content_max_bytes=600)
    sim.then(Behaviour(text="Größe " * 400, chunks=40))
    much = {"input": "Köln " * 300} if way is respond else {"messages": [{"role": "user", "content": "Köln " * 300}]}
    read(way(sim, stream=stream, **much))
    attributes = captured.telemetry.span().attributes
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        assert 400 < len(attributes[name].encode()) <= 600
        assert "bytes left out]" in attributes[name]
    assert captured.on_span() == captured.in_event()


def test_the_default_is_64_kib_and_0_is_no_limit(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="span")
    long = [{"role": "user", "content": "word " * 40_000}]
    chat(sim, messages=long)
    assert 60_000 < len(captured.telemetry.span().attributes["gen_ai.input.messages"]) <= 65_536
    captured.stop()
    captured.telemetry.exporter.clear()
    captured.start(capture_content="span", content_max_bytes=0)
    chat(sim, messages=long)
    assert captured.on_span()["gen_ai.input.messages"][0]["parts"][0]["content"] == long[0]["content"]


@pytest.mark.parametrize("said_by", ["code", "environment"])
def test_opentelemetrys_own_limit_does_not_break_the_json(
    sim: Simulator, captured: Any, monkeypatch: pytest.MonkeyPatch, said_by: str
) -> None:
    """Its SDK cuts an attribute wherever the limit falls."""
    if said_by == "environment":
        monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "500")
    limits = SpanLimits(max_span_attribute_length=500) if said_by == "code" else None
    provider = TracerProvider(span_limits=limits)
    provider.add_span_processor(SimpleSpanProcessor(captured.telemetry.exporter))
    captured.tracer_provider = provider
    captured.start(capture_content="both")
    chat(sim, messages=[{"role": "user", "content": "word " * 1_000}])
    words = captured.on_span()["gen_ai.input.messages"][0]["parts"][0]["content"]
    assert words.endswith("bytes left out]")
    # What is in the event is not cut for the span's sake.
    assert captured.in_event()["gen_ai.input.messages"][0]["parts"][0]["content"] == "word " * 1_000


# --- what is kept of a stream ----------------------------------------------------------------------------------------


def test_of_a_stream_no_more_is_kept_than_there_is_room_for() -> None:
    kept = Kept(1_000)
    for number in range(10_000):
        kept.add(json.dumps({"choices": [{"index": 0, "delta": {"content": f"{number} "}}]}).encode(), 60)
    assert sum(map(len, kept._events)) <= 1_000
    [answer] = kept.output(openai_content.CHAT, ResponseFacts(finish_reasons=("stop",)))
    assert answer["finish_reason"] == "stop"
    assert answer["parts"][0]["content"].startswith("0 1 2 ")
    assert answer["parts"][1] == {"type": "truncated", "content": "[9984 events of the stream, 599040 bytes left out]"}


@pytest.mark.parametrize("way", [chat, respond, message], ids=lambda way: way.__name__)
def test_a_stream_of_which_not_all_was_kept_says_so(sim: Simulator, captured: Any, way: Any) -> None:
    captured.start(capture_content="both", content_max_bytes=400)
    sim.then(Behaviour(text="word " * 3_000, chunks=400))
    read(way(sim, stream=True))
    [answer] = captured.on_span()["gen_ai.output.messages"]
    assert answer["parts"][-1]["type"] == "truncated"
    assert answer["parts"][-1]["content"].endswith("bytes left out]")
    assert answer["finish_reason"]
    assert captured.telemetry.span().attributes["gen_ai.usage.output_tokens"] == sim.billed[0].usage.output_tokens


def test_how_much_is_kept_goes_with_the_limit() -> None:
    assert Capture(max_bytes=1_000).kept_bytes == 1_000 * ENVELOPE
    assert Capture(max_bytes=None).kept_bytes == Capture(max_bytes=10**9).kept_bytes == 32 * 1024 * 1024
    assert content.item_size({"chunk": {"bytes": b"abc"}}) == 3
    assert content.item_size({"messageStart": {}}) == content.ITEM_BYTES


# --- what can be sent at all -----------------------------------------------------------------------------------------


def test_what_no_exporter_takes_is_made_sendable(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both")
    client = openai_client(sim)
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "t", "arguments": json.dumps({"a": 2**70, "b": "\ud800"})},
    }
    client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "assistant", "content": None, "tool_calls": [call]}],  # type: ignore[list-item]
    )
    [part] = captured.in_event()["gen_ai.input.messages"][0]["parts"]
    assert part["arguments"] == {"a": str(2**70), "b": "???"}
    captured.telemetry.span().attributes["gen_ai.input.messages"].encode()
    encoder = pytest.importorskip("opentelemetry.exporter.otlp.proto.common._log_encoder", reason="not installed")
    assert b"gen_ai.input.messages" in encoder.encode_logs(captured.exporter.get_finished_logs()).SerializeToString()


@given(value=st.recursive(st.text() | st.integers() | st.floats() | st.binary() | st.none(), st.lists))
def test_everything_plain_can_be_written(value: Any) -> None:
    json.dumps(plain(value), allow_nan=False, ensure_ascii=False).encode()


def test_what_has_no_end_is_left_off() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "nested too deep" in json.dumps(plain(endless))
    iterator = iter([1, 2, 3])
    assert plain({"a": iterator})["a"].startswith("<list_iterator")
    assert list(iterator) == [1, 2, 3]


MEDIA: dict[str, tuple[Any, dict[str, Any]]] = {
    "image_url, hosted": (
        {"type": "image_url", "image_url": {"url": "https://a.example/1.png"}},
        {"type": "uri", "modality": "image", "uri": "https://a.example/1.png"},
    ),
    "input_image, inline": (
        {"type": "input_image", "image_url": "data:image/jpeg;base64,QUJDRA=="},
        {"type": "blob", "modality": "image", "mime_type": "image/jpeg", "content": "", "omitted_bytes": 4},
    ),
    "input_audio": (
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "", "omitted_bytes": 3},
    ),
    "file by its id": (
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "modality": "document", "file_id": "file-1"},
    ),
    "anthropic image": (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "", "omitted_bytes": 3},
    ),
    "anthropic document at a URL": (
        {"type": "document", "source": {"type": "url", "url": "https://a.example/1.pdf"}},
        {"type": "uri", "modality": "document", "uri": "https://a.example/1.pdf"},
    ),
    "anthropic document of text": (
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hello."}},
        {"type": "text", "content": "Hello."},
    ),
    "something new": ({"type": "hologram", "beam": 7}, {"type": "hologram"}),
}


@pytest.mark.parametrize("name", MEDIA)
def test_media_are_named_and_not_copied(name: str) -> None:
    part, expected = MEDIA[name]
    assert said([part]) == [expected]
    content_shape.check_part(expected)
    assert "QUJD" not in json.dumps(media(part["type"], part))


FUNCTION = {"type": "function", "name": "f", "description": "does", "parameters": {"type": "object"}}
DEFINITIONS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "chat completions": (
        {"tools": [{"type": "function", "function": {k: FUNCTION[k] for k in ("name", "description", "parameters")}}]},
        [FUNCTION],
    ),
    "responses": (
        {"tools": [FUNCTION, {"type": "web_search"}]}, [FUNCTION, {"type": "web_search", "name": "web_search"}],
    ),
    "anthropic": (
        {"tools": [{"name": "f", "description": "does", "input_schema": {"type": "object"}},
                   {"type": "bash_20250124", "name": "bash"}]},
        [FUNCTION, {"type": "bash_20250124", "name": "bash"}],
    ),
    "google": (
        {"tools": [{"functionDeclarations": [{"name": "f", "description": "does", "parameters": {"type": "object"}}]},
                   {"googleSearch": {}}]},
        [FUNCTION, {"type": "googleSearch", "name": "googleSearch"}],
    ),
    "bedrock": (
        {"toolConfig": {"tools": [
            {"toolSpec": {"name": "f", "description": "does", "inputSchema": {"json": {"type": "object"}}}}
        ]}},
        [FUNCTION],
    ),
    "cohere, version 1": (
        {"tools": [{"name": "f", "description": "does", "parameter_definitions": {"type": "object"}}]}, [FUNCTION],
    ),
    "none": ({}, []),
    "nonsense": ({"tools": [7, None, "x", {}]}, []),
    "an iterator": ({"tools": iter([FUNCTION])}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFINITIONS)
def test_tool_definitions_of_every_shape(name: str) -> None:
    body, expected = DEFINITIONS[name]
    assert tool_definitions(body) == expected
    for definition in expected:
        content_shape.check("gen_ai.tool.definitions", [definition])
