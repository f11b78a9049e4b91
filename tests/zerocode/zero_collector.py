"""What receives OTLP over HTTP, and keeps it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """A span."""

    name: str
    attributes: dict[str, Any]
    span_id: bytes
    parent_id: bytes
    trace_id: bytes


class Collector:
    """Receives on a port of its own, while it is entered."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.points: dict[str, list[tuple[dict[str, Any], float]]] = {}
        """The data points of each metric, of all processes and exports: attributes and value (a sum, of histograms)."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    collector._take_spans(ExportTraceServiceRequest.FromString(body))
                elif self.path == "/v1/metrics":
                    collector._take_metrics(ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Collector:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def calls(self) -> list[Received]:
        """The spans of calls."""
        return [span for span in self.spans if span.attributes.get("gen_ai.operation.name") == "chat"]

    def last(self, metric: str) -> float:
        """The value that was last exported of a metric, over all of its attributes."""
        latest = {tuple(sorted(attributes.items())): value for attributes, value in self.points.get(metric, ())}
        return sum(latest.values())

    def _take_spans(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Received(span.name, _plain(span.attributes), span.span_id, span.parent_span_id, span.trace_id)
                    )

    def _take_metrics(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points:
                        value = point.sum if kind == "histogram" else point.as_double or point.as_int
                        self.points.setdefault(metric.name, []).append((_plain(point.attributes), value))


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
