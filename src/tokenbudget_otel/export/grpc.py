"""Spans over OTLP/gRPC, from a spool. Needs the package ``opentelemetry-exporter-otlp-proto-grpc``."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tokenbudget_otel.export.spool import Spool
from tokenbudget_otel.export.spool_error import SpoolError
from tokenbudget_otel.export.wire import Answer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tokenbudget_otel.export.destination import Destination

STATUSES: Final = {
    "CANCELLED": 503,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 503,
    "OUT_OF_RANGE": 503,
    "UNIMPLEMENTED": 404,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 503,
    "UNAUTHENTICATED": 401,
}
"""The status of HTTP that comes nearest to each of gRPC; which are tried again is then what OTLP says for them."""


def grpc_exporter(**options: Any) -> Any:
    """OpenTelemetry's exporter of spans over OTLP/gRPC.

    Raises:
        SpoolError: if its package is not installed.
    """
    try:
        module = importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    except ImportError:
        raise SpoolError(
            "OTLP over gRPC needs a package that is not installed: pip install opentelemetry-exporter-otlp-proto-grpc"
        ) from None
    return module.OTLPSpanExporter(**options)


class SpooledGrpcSpanExporter(SpanExporter):
    """The standard exporter of spans over OTLP/gRPC, with a spool under it.

    Args:
        spool: where requests are kept.
        options: those of ``opentelemetry.exporter.otlp.proto.grpc.trace_exporter.OTLPSpanExporter``; environment
            variables count as they do there.

    Raises:
        SpoolError: if that package is not installed.
    """

    def __init__(self, spool: Spool, **options: Any) -> None:
        self._spool = spool
        # It reads options and environment, and makes the channel. What it exports itself is nothing.
        self._exporter: Any = grpc_exporter(**options)
        self._shut_down = False
        scheme = "grpc" if self._exporter._insecure else "grpcs"
        headers = {str(name): str(value) for name, value in self._exporter._headers}
        self._destination: Destination = spool.to(
            f"{scheme}://{self._exporter._endpoint}", GrpcWire(self._exporter), headers
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep spans, and have them delivered."""
        if self._shut_down:
            return SpanExportResult.FAILURE
        self._destination.put(self._exporter._translate_data(spans).SerializeToString())
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here: what was exported is in the spool."""
        return True

    def shutdown(self) -> None:
        """Deliver what can be delivered in time, and leave the rest to the spool."""
        if self._shut_down:
            return
        self._shut_down = True
        self._spool.leave(self._destination)
        self._exporter.shutdown()


class GrpcWire:
    """OTLP over the channel of an exporter of OpenTelemetry's."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._pid = os.getpid()
        self._error: Any = importlib.import_module("grpc").RpcError
        self._retry_info: Any = importlib.import_module("google.rpc.error_details_pb2").RetryInfo

    def post(self, body: bytes) -> Answer:
        """Send a request, and give gRPC's answer as HTTP's."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        exporter = self._exporter
        if self._pid != os.getpid():
            self._pid = os.getpid()
            exporter._initialize_channel_and_stub()  # the other one is the parent's
        try:
            answer = exporter._client.Export(
                request=ExportTraceServiceRequest.FromString(body),
                metadata=exporter._headers,
                timeout=exporter._timeout,
            )
        except self._error as error:
            code, details = error.code().name, error.details() or ""
            if code == "RESOURCE_EXHAUSTED" and "larger than max" in details:
                return Answer(413)
            if code == "UNAVAILABLE":
                exporter._channel.close()
                exporter._initialize_channel_and_stub()
            asked = None
            for name, value in error.trailing_metadata() or ():
                if name == "google.rpc.retryinfo-bin":
                    delay = self._retry_info.FromString(value).retry_delay
                    asked = delay.seconds + delay.nanos / 1e9
            return Answer(STATUSES.get(code, 503), asked)
        return Answer(200, None, answer.SerializeToString())
