"""Whatever comes back, the program gets exactly what the SDK gives without us, and nothing of ours fails."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic_doors import BODY, each, settled
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import deferred, guard
from tokenbudget_otel.meter import Meter

USAGE = {
    "input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7,
    "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0}, "service_tier": "standard",
    "server_tool_use": {"web_search_requests": 1}, "output_tokens_details": {"thinking_tokens": 3}, "speed": None,
    "iterations": [{"type": "compaction", "input_tokens": 1, "output_tokens": 1}],
}  # fmt: skip
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": BODY["model"], "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "Hi"}], "usage": USAGE,
}  # fmt: skip
EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi \"there\" \\ ü"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE},
    {"type": "message_stop"},
]  # fmt: skip

odd = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**20), st.floats(), st.text(max_size=4),
    st.lists(st.integers(-1, 3), max_size=2),
    st.dictionaries(st.sampled_from(["type", "x"]), st.integers(), max_size=2),
)  # fmt: skip
MISSING = object()


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something could be wrong."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*before, key)
        yield from paths(item, (*before, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    made = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is MISSING:
        del made[path[0]]
    else:
        made[path[0]] = changed(made[path[0]], path[1:], new)
    return made


def damaged(value: Any) -> st.SearchStrategy[Any]:
    """The value with one or two things wrong in it."""
    places = st.sampled_from(list(paths(value)))
    wrong = st.lists(st.tuples(places, st.one_of(st.just(MISSING), odd)), min_size=1, max_size=2)

    def apply(changes: list[tuple[tuple[Any, ...], Any]]) -> Any:
        made = value
        for path, new in changes:
            try:
                made = changed(made, path, new)
            except (KeyError, IndexError, TypeError, ValueError):
                pass  # the first change took the place away
        return made

    return wrong.map(apply)


class Damaged:
    """An HTTP client that answers with given bytes, in given pieces."""

    def __init__(self, body: bytes, content_type: str, pieces: int = 0, asynchronous: bool = False) -> None:
        parts = [body[start : start + pieces] for start in range(0, len(body), pieces)] if pieces else [body]
        kind = anthropic.DefaultAsyncHttpxClient if asynchronous else anthropic.DefaultHttpxClient

        class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield from parts

            async def __aiter__(self) -> Any:
                for part in parts:
                    yield part

        def answer(_request: Any) -> Any:
            return httpx2.Response(200, headers={"content-type": content_type}, stream=Pieces())

        self.client = kind(transport=httpx2.MockTransport(answer))
        self.asynchronous = asynchronous


def sse(events: list[Any], end: str = "\n") -> bytes:
    made = []
    for event in events:
        name = event.get("type") if isinstance(event, dict) else None
        made.append(f"event: {name if isinstance(name, str) else 'x'}{end}data: {json.dumps(event)}{end}{end}")
    return "".join(made).encode()


def told(value: Any) -> Any:
    """What the program sees, as text that can be compared."""
    if isinstance(value, list):
        return [told(item) for item in value]
    return type(value).__name__, repr(value)


async def seen(http: Damaged, stream: bool, way: str) -> Any:
    """All that a program can tell of one call: its data, or its error."""
    kind: Any = anthropic.AsyncAnthropic if http.asynchronous else anthropic.Anthropic
    client = kind(api_key="any", max_retries=0, http_client=http.client)
    try:
        if way == "raw":
            response = await settled(client.messages.with_raw_response.create(**BODY, stream=stream))
            value = await settled(response.parse())
            return told([item async for item in each(value)] if stream else value)
        if way == "bytes":
            manager = client.messages.with_streaming_response.create(**BODY, stream=stream)
            if http.asynchronous:
                async with manager as response:
                    return await response.read()
            with manager as response:
                return response.read()
        if way == "helper":
            if http.asynchronous:
                async with client.messages.stream(**BODY) as helper:
                    return told([event async for event in helper])
            with client.messages.stream(**BODY) as helper:
                return told(list(helper))
        value = await settled(client.messages.create(**BODY, stream=stream))
        return told([item async for item in each(value)] if stream else value)
    except Exception as error:
        return type(error), str(error)


def assert_the_program_cannot_tell(http: Damaged, stream: bool, way: str, meter: Meter) -> None:
    without = asyncio.run(seen(http, stream, way))
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    guard._logged.clear()
    before = meter.totals.get().calls
    tb.instrument(provider)
    try:
        assert asyncio.run(seen(http, stream, way)) == without
    finally:
        tb.uninstrument()
    deferred.drain()
    assert not guard._logged, f"our own mistake: {guard._logged}"
    assert len(exporter.get_finished_spans()) == 1
    assert meter.totals.get().calls == before + 1
    assert not meter.enforcer.ledger.holds()
    for name, value in exporter.get_finished_spans()[0].attributes.items():
        if name.startswith("gen_ai.usage.") and name != semconv.USAGE_COST:
            assert isinstance(value, int)
            assert value >= 0


few = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
ways = st.sampled_from(("plain", "raw", "bytes"))


@few
@given(damaged(MESSAGE), ways, st.booleans())
@example([], "plain", False)
@example(None, "plain", False)
@example("text", "raw", True)
@example(7, "plain", True)
@example({}, "bytes", False)
def test_damaged_messages(meter: Meter, message: Any, way: str, asynchronous: bool) -> None:
    http = Damaged(json.dumps(message).encode(), "application/json", asynchronous=asynchronous)
    assert_the_program_cannot_tell(http, False, way, meter)


@few
@given(
    damaged(EVENTS),
    st.sampled_from(("plain", "raw", "bytes", "helper")),
    st.sampled_from((0, 1, 3, 64)),
    st.sampled_from(("\n", "\r\n", "\r")),
    st.booleans(),
)
@example([], "plain", 0, "\n", False)
@example([[]], "plain", 0, "\n", False)
@example([None, 7, "x"], "plain", 0, "\n", True)
@example([{"type": "error"}], "plain", 0, "\n", False)
@example([{"type": "error", "error": "text"}], "plain", 0, "\n", True)
@example([{"type": "message_start", "message": []}], "plain", 0, "\n", True)
@example([{"type": "message_delta", "usage": 7, "delta": []}], "plain", 0, "\n", True)
def test_damaged_streams(meter: Meter, events: list[Any], way: str, pieces: int, end: str, asynchronous: bool) -> None:
    http = Damaged(sse(events, end), "text/event-stream", pieces, asynchronous)
    assert_the_program_cannot_tell(http, True, way, meter)


BODIES = {
    "empty": b"",
    "not_json": b"data: {\n\n",
    "no_end": sse(EVENTS)[:-5],
    "half_an_event": sse(EVENTS)[:300],
    "comments": b": ping\n\n" + sse(EVENTS) + b": bye\n\n",
    "bom": b"\xef\xbb\xbf" + sse(EVENTS),
    "not_utf8": b"event: message_start\ndata: \xff\xfe\n\n",
    "two_data_lines": b'event: message_stop\ndata: {"type":\ndata: "message_stop"}\n\n',
    "html": b"<html>Bad gateway</html>",
    "json_where_a_stream_was_asked_for": json.dumps(MESSAGE).encode(),
}


@pytest.mark.parametrize("kind", ("text/event-stream", "text/event-stream; charset=utf-8", "application/json", ""))
@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_should_not_be(name: str, kind: str, meter: Meter) -> None:
    for asynchronous in (False, True):
        assert_the_program_cannot_tell(Damaged(BODIES[name], kind, 0, asynchronous), True, "plain", meter)


ODD_EVENTS = {
    "a_number": b"data: 7\n\n",
    "a_list": b"data: []\n\n",
    "broken": b'data: {"type": "error"\n\n',
    "unknown": b'event: novelty\ndata: {"type": "novelty", "text": 7}\n\n',
    "a_comment": b": keep-alive\n\n",
    "with_a_mark_in_its_text": b'data: {"type": "content_block_delta", "x": "\\"type\\": \\"error\\""}\n\n',
}


@pytest.mark.parametrize("place", (0, 1, 3, 5))
@pytest.mark.parametrize("odd_event", ODD_EVENTS.values(), ids=ODD_EVENTS)
def test_an_odd_event_does_not_cost_the_count_of_the_others(
    odd_event: bytes, place: int, meter: Meter, instrumented: Any
) -> None:
    parts = [sse([event]) for event in EVENTS]
    wire = b"".join((*parts[:place], odd_event, *parts[place:]))
    for pieces in (0, 9):
        meter.totals.clear()
        client = anthropic.Anthropic(api_key="any", http_client=Damaged(wire, "text/event-stream", pieces).client)
        with client.messages.with_streaming_response.create(**BODY, stream=True) as response:
            assert response.read() == wire
        totals = meter.totals.get()
        assert (totals.calls, totals.estimated_calls) == (1, 0)
        assert (totals.usage.input_tokens, totals.usage.output_tokens) == (113, 11)


# --- the same messages in another envelope ---------------------------------------------------------------------------


def aws_event(event: Mapping[str, Any]) -> bytes:
    """A frame of ``application/vnd.amazon.eventstream``, as Bedrock streams messages."""
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
    headers = b""
    for name, value in (
        (b":event-type", b"chunk"), (b":content-type", b"application/json"), (b":message-type", b"event"),
    ):  # fmt: skip
        headers += bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack(">I", binascii.crc32(prelude))
    frame = prelude + headers + payload
    return frame + struct.pack(">I", binascii.crc32(frame))


@pytest.mark.parametrize("pieces", (0, 1, 50))
def test_a_bedrock_stream_is_counted(pieces: int, meter: Meter, instrumented: Any) -> None:
    """Read as bytes, which needs no botocore: it is decoded by the SDK above, or by nobody."""
    events = [
        changed(EVENTS[0], ("message", "usage", "output_tokens"), 1),
        *EVENTS[1:4],
        changed(EVENTS[4], ("usage", "iterations"), []),
        EVENTS[5],
    ]
    events[0]["message"]["usage"]["iterations"] = []
    wire = b"".join(map(aws_event, events))
    http = Damaged(wire, "application/vnd.amazon.eventstream", pieces)
    client = anthropic.AnthropicBedrock(aws_region="us-east-1", api_key="any", http_client=http.client)
    with client.messages.with_streaming_response.create(**BODY, stream=True) as response:
        assert b"".join(response.iter_bytes()) == wire
    attributes = instrumented.span().attributes
    assert attributes[semconv.PROVIDER_NAME] == "aws.bedrock"
    assert attributes[semconv.CALL_OUTCOME] == "completed"
    assert (attributes[semconv.USAGE_INPUT_TOKENS], attributes[semconv.USAGE_OUTPUT_TOKENS]) == (112, 10)
    assert semconv.USAGE_ESTIMATED not in attributes
