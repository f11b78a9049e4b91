"""Spans and requests for the tests of delivery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tokenbudget_otel.export import Spool


class Recording(SpanExporter):
    """Passes on to an exporter, and books what was handed over."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter
        self.handed: list[tuple[str, str]] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self.exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.handed += [(f"{s.context.trace_id:032x}", f"{s.context.span_id:016x}") for s in spans]
        return result

    def shutdown(self) -> None:
        self.exporter.shutdown()


class Tracing:
    """A tracer provider with a batch processor over a spool."""

    def __init__(self, spool: Spool, exporter: SpanExporter) -> None:
        self.spool = spool
        self.exporter = Recording(exporter)
        self.provider = TracerProvider()
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self._count = 0

    def spans(self, number: int) -> None:
        """Make so many, and export them in one request."""
        for _ in range(number):
            with self.tracer.start_as_current_span(f"span {self._count}"):
                pass
            self._count += 1
        self.provider.force_flush()


def request_of(spans: int, first: int = 0, resources: int = 1, **attributes: Any) -> bytes:
    """An OTLP request with so many spans, spread over so many resources."""
    request = ExportTraceServiceRequest()
    for resource in range(resources):
        found = request.resource_spans.add(schema_url="https://example.com/schema")
        found.resource.attributes.add(key="service.name").value.string_value = f"service {resource}"
        scope = found.scope_spans.add(schema_url="https://example.com/scope")
        scope.scope.name = "test"
        for number in range(resource, spans, resources):
            span = scope.spans.add(name=f"span {first + number}", span_id=(first + number + 1).to_bytes(8, "big"))
            span.trace_id = bytes(15) + b"\x01"
            for name, value in attributes.items():
                span.attributes.add(key=name).value.string_value = str(value)
    return request.SerializeToString()


def names_in(body: bytes) -> list[str]:
    """The names of the spans of a request, in order."""
    return [
        span.name
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
