"""What receives OTLP over HTTP, and keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otlp_server import OtlpServer, plain


@dataclass(frozen=True)
class Received:
    """A span."""

    name: str
    attributes: dict[str, Any]
    span_id: bytes
    parent_id: bytes
    trace_id: bytes


class Collector(OtlpServer):
    """Keeps spans, and the data points of metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[Received] = []
        self.points: dict[str, list[tuple[dict[str, Any], float]]] = {}
        """The data points of each metric, of all processes and exports: attributes and value (a sum, of histograms)."""

    def calls(self) -> list[Received]:
        """The spans of calls."""
        return [span for span in self.spans if span.attributes.get("gen_ai.operation.name") == "chat"]

    def last(self, metric: str) -> float:
        """The value that was last exported of a metric, over all of its attributes."""
        latest = {tuple(sorted(attributes.items())): value for attributes, value in self.points.get(metric, ())}
        return sum(latest.values())

    def take_spans(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Received(span.name, plain(span.attributes), span.span_id, span.parent_span_id, span.trace_id)
                    )

    def take_metrics(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points:
                        value = point.sum if kind == "histogram" else point.as_double or point.as_int
                        self.points.setdefault(metric.name, []).append((plain(point.attributes), value))
