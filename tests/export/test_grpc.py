"""OTLP over gRPC, with a real server of gRPC and the real exporter."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from export_requests import Tracing

from tokenbudget_otel.export import Spool, SpooledGrpcSpanExporter, SpoolError

if not os.environ.get("TOKENBUDGET_CI"):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc", reason="the exporter over gRPC is not installed")

MakeSpool = Callable[..., Spool]


class Server:
    """Takes OTLP over gRPC, after as many errors as it is told."""

    def __init__(self) -> None:
        import grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

        outer = self
        self.names: list[str] = []
        self.metadata: dict[str, str] = {}
        self.errors: list[tuple[str, str]] = []
        self.hang = threading.Event()
        self.hang.set()

        class Service(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the RPC
                outer.hang.wait(30)
                outer.metadata = dict(context.invocation_metadata())
                if outer.errors:
                    code, details = outer.errors.pop(0)
                    context.abort(getattr(grpc.StatusCode, code), details)
                outer.names += [
                    span.name for r in request.resource_spans for scope in r.scope_spans for span in scope.spans
                ]
                return trace_service_pb2.ExportTraceServiceResponse()

        self._servicer = Service()
        self._add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        self._grpc: Any = grpc
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = self._grpc.server(
            ThreadPoolExecutor(4), options=(("grpc.max_receive_message_length", 4_000), ("grpc.so_reuseport", 0))
        )
        self._add(self._servicer, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.hang.set()
    found.stop()


@pytest.fixture
def traced(server: Server, make_spool: MakeSpool) -> Iterator[Tracing]:
    spool = make_spool()
    found = Tracing(
        spool,
        SpooledGrpcSpanExporter(
            spool, endpoint=f"http://127.0.0.1:{server.port}", headers={"x-key": "mine"}, timeout=2
        ),
    )
    yield found
    server.hang.set()
    found.provider.shutdown()


def test_spans_arrive(server: Server, traced: Tracing) -> None:
    server.errors += [("UNAVAILABLE", ""), ("RESOURCE_EXHAUSTED", "slow down"), ("DEADLINE_EXCEEDED", "")]
    traced.spans(3)
    assert traced.spool.flush(10)
    assert server.names == ["span 0", "span 1", "span 2"]
    assert server.metadata["x-key"] == "mine"
    assert traced.spool.counts == {"accepted": 3, "delivered": 3}


def test_a_server_that_comes_late(server: Server, traced: Tracing) -> None:
    server.stop()
    traced.spans(2)
    time.sleep(0.1)
    assert len(list(traced.spool.folder.glob("*/*.otlp"))) == 1
    server.start()
    assert traced.spool.flush(30)
    assert server.names == ["span 0", "span 1"]


def test_what_is_refused(server: Server, traced: Tracing) -> None:
    server.errors += [("UNAUTHENTICATED", "who are you")]
    traced.spans(2)
    assert traced.spool.flush(10)
    assert traced.spool.counts == {"accepted": 2, "refused": 2}


def test_too_large_is_halved(server: Server, traced: Tracing) -> None:
    traced.spans(100)
    assert traced.spool.flush(10)
    assert server.names == [f"span {number}" for number in range(100)]
    assert traced.spool.counts == {"accepted": 100, "delivered": 100}


def test_a_server_that_hangs_keeps_nobody(server: Server, traced: Tracing) -> None:
    server.hang.clear()
    traced.spans(2)
    begun = time.monotonic()
    traced.provider.shutdown()
    assert time.monotonic() - begun < 10
    assert len(list(traced.spool.folder.glob("*/*.otlp"))) == 1


def test_without_the_package(make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(SpoolError, match="pip install opentelemetry-exporter-otlp-proto-grpc"):
        SpooledGrpcSpanExporter(make_spool())
