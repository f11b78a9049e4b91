"""OTLP as JSON, as the real Collector reads it: the same as protobuf."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from receiver import Receiver

from tokenbudget_otel.export import HttpWire
from tokenbudget_otel.export.otlp_json import otlp_as_json
from tokenbudget_otel.export.wire import JSON, PROTOBUF


def the_collector() -> str:
    """Its path. Skip where it has not been built. Where everything is, it has to be there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenbudget-otel" / "programs"
    built = Path(os.environ.get("TOKENBUDGET_PROGRAMS") or cache) / "otelcol-tokenbudget"
    found = str(built) if built.is_file() else shutil.which("otelcol-contrib") or shutil.which("otelcol")
    if found is None:
        say = pytest.fail if os.environ.get("TOKENBUDGET_CI") else pytest.skip
        say("no Collector: tools/programs.sh builds one")
    return str(found)


@pytest.fixture
def collector(receiver: Receiver, tmp_path: Path) -> Iterator[str]:
    """The URL of a Collector that passes on to ``receiver``."""
    program = the_collector()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "collector.yaml").write_text(
        f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{otlphttp: {{traces_endpoint: "{receiver.url}", compression: none}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlphttp]}}}}
"""
    )
    log = (tmp_path / "collector.log").open("wb")
    started = subprocess.Popen([program, "--config", str(tmp_path / "collector.yaml")], stdout=log, stderr=log)
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert started.poll() is None and time.monotonic() < end, (tmp_path / "collector.log").read_text()
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/v1/traces"
    started.terminate()
    started.wait(20)
    log.close()


def a_request() -> bytes:
    """Spans with about all that a span can have."""
    seen = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    tracer = provider.get_tracer("test", "1.0", "https://example.com/schema", {"scope": True})
    with tracer.start_as_current_span("parent", kind=SpanKind.SERVER):
        span = tracer.start_span(
            "chat",
            kind=SpanKind.CLIENT,
            links=[Link(SpanContext(3, 4, is_remote=True), {"why": "it"})],
            attributes={
                "text": "ä€😀",
                "int": 2**53 + 1,
                "double": 0.1,
                "yes": True,
                "list": (1, 2),
                "texts": ("a", "b"),
            },
        )
        span.add_event("event", {"n": 1})
        span.set_status(Status(StatusCode.ERROR, "no"))
        span.end()
    return encode_spans(seen.get_finished_spans()).SerializeToString()


def test_the_collector_reads_the_same_in_json(collector: str, receiver: Receiver) -> None:
    body = a_request()
    wire = HttpWire(requests.Session(), collector, compression="gzip")
    assert wire.post(body, PROTOBUF).status == 200
    assert wire.post(otlp_as_json(body), JSON).status == 200
    end = time.monotonic() + 20
    while len(receiver.requests) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    as_protobuf, as_json = (
        ExportTraceServiceRequest.FromString(request.body).SerializeToString(deterministic=True)
        for request in receiver.requests
    )
    assert as_json == as_protobuf
    assert set(receiver.spans.values()) == {2} and sorted(receiver.names) == ["chat", "chat", "parent", "parent"]
