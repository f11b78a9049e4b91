"""Requests as bytes are read and halved as the real protobuf classes read them."""

from __future__ import annotations

import pytest
from export_requests import names_in, request_of
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tokenbudget_otel.export.otlp_bytes import halves, items_in, rejected


@given(st.integers(0, 40), st.integers(1, 5), st.text(max_size=300))
def test_halves_have_all_items_once_in_order(spans: int, resources: int, text: str) -> None:
    body = request_of(spans, resources=resources, text=text)
    assert items_in(body) == spans
    found = halves(body)
    if spans < 2:
        assert found is None
        return
    assert found is not None
    (first, number_of_first), (second, number_of_second) = found
    assert names_in(first) + names_in(second) == names_in(body)
    assert (items_in(first), items_in(second)) == (number_of_first, number_of_second)
    assert abs(number_of_first - number_of_second) <= 1
    assert halves(body) == found
    # Each span keeps its resource and scope.
    wholes = ExportTraceServiceRequest.FromString(body)
    homes = {
        span.name: (resource.resource.SerializeToString(), resource.schema_url, scope.scope.name, scope.schema_url)
        for resource in wholes.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    for half in (first, second):
        for resource in ExportTraceServiceRequest.FromString(half).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    home = (resource.resource.SerializeToString(), resource.schema_url)
                    assert homes[span.name] == (*home, scope.scope.name, scope.schema_url)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_asked(body: bytes) -> None:
    items_in(body)
    rejected(body)
    found = halves(body)
    assert found is None or sum(number for _, number in found) == items_in(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (0, "")),
        (b"{}", (0, "")),
        (b'{"partialSuccess": {"rejectedLogRecords": 4}}', (4, "")),
        (b'{"partialSuccess": {"rejectedSpans": "many"}}', (0, "")),
        (b"<html>", (0, "")),
    ],
)
def test_answers(body: bytes, expected: tuple[int, str]) -> None:
    assert rejected(body) == expected


def test_an_answer_in_protobuf() -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 300
    answer.partial_success.error_message = "too old"
    assert rejected(answer.SerializeToString()) == (300, "too old")
