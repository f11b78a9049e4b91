"""OTLP as JSON: what it looks like, and how a server comes to get it."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
import requests
from export_requests import request_of
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from receiver import Mood, Receiver, Request

from tokenbudget_otel.export import Answer, HttpWire, Spool
from tokenbudget_otel.export.json_fallback import JsonFallback, _taken, as_meant
from tokenbudget_otel.export.otlp_json import otlp_as_json
from tokenbudget_otel.export.own_session import OwnSpoolingSession

JSON, PROTOBUF = "application/json", "application/x-protobuf"

# --- the same request --------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=20)
uint64 = st.integers(0, 2**64 - 1)
uint32 = st.integers(0, 2**32 - 1)


def any_values() -> st.SearchStrategy[AnyValue]:
    plain = st.one_of(
        st.builds(AnyValue),
        st.builds(AnyValue, string_value=texts),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(AnyValue, double_value=st.floats(allow_nan=False) | st.just(math.nan)),
        st.builds(AnyValue, bytes_value=st.binary(max_size=20)),
    )

    def nested(inner: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
        def listed(values: list[AnyValue]) -> AnyValue:
            value = AnyValue()
            value.array_value.values.extend(values)
            return value

        def mapped(values: list[tuple[str, AnyValue]]) -> AnyValue:
            value = AnyValue()
            value.kvlist_value.values.extend(KeyValue(key=key, value=each) for key, each in values)
            return value

        names = texts | st.sampled_from(("traceId", "spanId"))
        return st.builds(listed, st.lists(inner, max_size=3)) | st.builds(
            mapped, st.lists(st.tuples(names, inner), max_size=3)
        )

    return st.recursive(plain, nested, max_leaves=5)


attributes = st.lists(st.builds(KeyValue, key=texts, value=any_values()), max_size=3)
ids = st.binary(max_size=16)
spans = st.builds(
    Span,
    trace_id=ids,
    span_id=ids,
    parent_span_id=ids,
    trace_state=texts,
    name=texts,
    kind=st.integers(0, 5),
    start_time_unix_nano=uint64,
    end_time_unix_nano=uint64,
    flags=uint32,
    attributes=attributes,
    dropped_attributes_count=uint32,
    events=st.lists(st.builds(Span.Event, name=texts, time_unix_nano=uint64, attributes=attributes), max_size=2),
    links=st.lists(st.builds(Span.Link, trace_id=ids, span_id=ids, attributes=attributes), max_size=2),
    status=st.builds(Status, code=st.integers(0, 2), message=texts),
)


@st.composite
def trace_requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        resource = request.resource_spans.add(schema_url=draw(texts))
        resource.resource.attributes.extend(draw(attributes))
        for _ in range(draw(st.integers(0, 2))):
            scope = resource.scope_spans.add(spans=draw(st.lists(spans, max_size=3)))
            scope.scope.name = draw(texts)
    return request


def parsed(body: bytes) -> ExportTraceServiceRequest:
    """A request from OTLP's JSON."""
    document = json.loads(body)
    for resource in document.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for item in (span, *span.get("links", ())):
                    for name in ("traceId", "spanId", "parentSpanId"):
                        if name in item:
                            item[name] = b64encode(bytes.fromhex(item[name])).decode()
    return json_format.ParseDict(document, ExportTraceServiceRequest())


@given(trace_requests())
def test_json_says_the_same(request: ExportTraceServiceRequest) -> None:
    body = request.SerializeToString(deterministic=True)
    assert parsed(otlp_as_json(body)).SerializeToString(deterministic=True) == body


@given(st.binary(max_size=60))
def test_what_is_no_request_is_said_to_be_none(body: bytes) -> None:
    try:
        json.loads(otlp_as_json(body))
    except ValueError as error:
        assert "no OTLP request" in str(error)


def test_ids_are_hexadecimal_and_numbers_what_the_specification_says() -> None:
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(
            trace_id=bytes(range(16)),
            span_id=bytes(range(8)),
            kind=Span.SPAN_KIND_CLIENT,
            start_time_unix_nano=2**60,
            status=Status(code=Status.STATUS_CODE_ERROR),
        )
    )
    span.attributes.add(key="n").value.int_value = 5
    span.attributes.add(key="raw").value.bytes_value = b"\x00\xff"
    (found,) = json.loads(otlp_as_json(request.SerializeToString()))["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert found == {
        "traceId": "000102030405060708090a0b0c0d0e0f",
        "spanId": "0001020304050607",
        "kind": 3,
        "startTimeUnixNano": str(2**60),
        "status": {"code": 2},
        "attributes": [
            {"key": "n", "value": {"intValue": "5"}},
            {"key": "raw", "value": {"bytesValue": "AP8="}},
        ],
    }


# --- negotiation ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    _taken.clear()


def wire_to(receiver: Receiver, compression: str = "gzip") -> JsonFallback:
    return JsonFallback(HttpWire(requests.Session(), receiver.url, compression=compression))


def forms(receiver: Receiver, log: list[tuple[str, str | None]]) -> Callable[[Request], Mood]:
    """Books how requests are written; see ``mood`` of the receiver."""

    def met(request: Request) -> Mood:
        form = (request.headers["content-type"], request.headers.get("content-encoding"))
        log.append(form)
        return receiver.answers.get(form, receiver.answers["else"])  # type: ignore[attr-defined]

    return met


def asked(receiver: Receiver, answers: dict[Any, Mood]) -> list[tuple[str, str | None]]:
    log: list[tuple[str, str | None]] = []
    receiver.answers = answers  # type: ignore[attr-defined]
    receiver.mood = forms(receiver, log)
    return log


FINE = Mood()


@pytest.mark.parametrize("status", [415, 400])
def test_a_server_that_takes_json_alone_gets_json_and_is_not_asked_again(receiver: Receiver, status: int) -> None:
    log = asked(receiver, {(JSON, "gzip"): FINE, "else": Mood(status)})
    body = request_of(3)
    assert wire_to(receiver).post(body).status == 200
    assert wire_to(receiver).post(body).status == 200, "what is known is known to all wires of the process"
    assert log == [(PROTOBUF, "gzip"), (JSON, "gzip"), (JSON, "gzip")]
    for request in receiver.requests:
        assert parsed(request.body).SerializeToString() == body


@pytest.mark.parametrize(
    ("taken", "tries"), [((PROTOBUF, "gzip"), 1), ((JSON, "gzip"), 2), ((PROTOBUF, None), 3), ((JSON, None), 4)]
)
def test_a_server_is_asked_what_it_takes(receiver: Receiver, taken: tuple[str, str | None], tries: int) -> None:
    log = asked(receiver, {taken: FINE, "else": Mood(415)})
    wire = wire_to(receiver)
    for _ in range(3):
        assert wire.post(request_of(1)).status == 200
    assert len(log) == tries + 2 and set(log[tries:]) == {taken}
    assert len(receiver.spans) == 1 and len(receiver.requests) == 3


def test_where_nothing_is_compressed_it_is_asked_twice(receiver: Receiver) -> None:
    log = asked(receiver, {"else": Mood(415, body=b"neither")})
    assert wire_to(receiver, "none").post(request_of(1)) == Answer(415, None, b"neither")
    assert log == [(PROTOBUF, None), (JSON, None)]


def test_where_no_form_is_taken_the_first_answer_stands(receiver: Receiver) -> None:
    asked(receiver, {(PROTOBUF, "gzip"): Mood(400, body=b"the first"), "else": Mood(415)})
    wire = wire_to(receiver)
    assert wire.post(request_of(1)) == Answer(400, None, b"the first")
    assert wire.taken is None


@pytest.mark.parametrize("status", [401, 403, 404, 408, 413, 429, 500, 503])
def test_other_answers_say_nothing_of_the_form(receiver: Receiver, status: int) -> None:
    log = asked(receiver, {"else": Mood(status, {"Retry-After": "7"})})
    answer = wire_to(receiver).post(request_of(1))
    assert (answer.status, answer.retry_after) == (status, 7.0)
    assert log == [(PROTOBUF, "gzip")]


def test_a_server_that_is_busy_when_it_gets_json_is_asked_again_later(receiver: Receiver) -> None:
    asked(receiver, {(JSON, "gzip"): Mood(503), "else": Mood(415)})
    wire = wire_to(receiver)
    assert wire.post(request_of(1)).status == 503, "415 would mean that it is never sent again"
    asked(receiver, {(JSON, "gzip"): FINE, "else": Mood(415)})
    assert wire.post(request_of(1)).status == 200


def test_a_request_that_is_malformed_does_not_make_a_server_be_asked_again(receiver: Receiver) -> None:
    wire = wire_to(receiver)
    assert wire.post(request_of(1)).status == 200
    log = asked(receiver, {(PROTOBUF, "gzip"): Mood(400), "else": FINE})
    assert wire.post(request_of(1)).status == 400
    assert log == [(PROTOBUF, "gzip")]


def test_a_server_that_was_replaced_is_asked_anew(receiver: Receiver) -> None:
    wire = wire_to(receiver)
    assert wire.post(request_of(1)).status == 200
    log = asked(receiver, {(JSON, "gzip"): FINE, "else": Mood(415)})
    assert wire.post(request_of(1)).status == 200
    asked(receiver, {(PROTOBUF, "gzip"): FINE, "else": Mood(415)})
    assert wire.post(request_of(1)).status == 200
    assert log == [(PROTOBUF, "gzip"), (JSON, "gzip")]


def test_bytes_that_are_no_traces_are_sent_as_they_are(receiver: Receiver) -> None:
    receiver.mood = Mood(400)
    assert wire_to(receiver).post(b"\xff\xff").status == 400
    assert receiver.posts == 2, "as protobuf, with and without compression"


FORMER = b'{"accepted": 0, "error": "invalid request body"}'
"""What the former server answers, with 200, to protobuf and to whatever is compressed."""


def test_the_former_server_that_says_yes_and_takes_nothing_gets_json(receiver: Receiver) -> None:
    log = asked(receiver, {(JSON, None): Mood(body=b'{"accepted": 1, "persisted": true}'), "else": Mood(body=FORMER)})
    wire = wire_to(receiver)
    assert wire.post(request_of(1)).status == 200
    assert wire.post(request_of(1)).body == b'{"accepted": 1, "persisted": true}'
    assert log[-2:] == [(JSON, None), (JSON, None)] and len(log) == 5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"accepted": 2, "error": "one of them"}',
        b'{"error": ""}',
        b'{"error": 1}',
        b'{"error"',
        b'["error"]',
    ],
)
def test_other_answers_with_200_are_a_yes(body: bytes) -> None:
    assert as_meant(Answer(200, None, body)).status == 200


# --- beneath an exporter ---------------------------------------------------------------------------------------------


def test_negotiation_in_the_spool_loses_nothing(receiver: Receiver, make_spool: Callable[..., Spool]) -> None:
    asked(receiver, {(JSON, "gzip"): FINE, "else": Mood(415)})
    spool = make_spool()
    session = OwnSpoolingSession(spool, headers=("Authorization",), through=JsonFallback)
    for number in range(20):
        answer = session.post(
            receiver.url,
            data=HttpWire(session, receiver.url, compression="gzip")._compress(request_of(5, 5 * number)),
            headers={
                "Content-Type": PROTOBUF,
                "Content-Encoding": "gzip",
                "Authorization": "Bearer k",
                "X-Other": "no",
            },
        )
        assert answer.status_code == 200
    assert spool.flush(10)
    session.close()
    assert len(receiver.spans) == 100 and set(receiver.spans.values()) == {1}
    assert receiver.posts == 21, "one of 20 was tried twice"
    assert all("x-other" not in request.headers for request in receiver.requests)
    assert spool.counts["delivered"] == 100
