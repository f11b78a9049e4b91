"""The standard exporter of spans, by HTTP or gRPC, with a spool under it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tokenbudget_otel.export.process_spools import spool_for
from tokenbudget_otel.export.spool import Spool

PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""Which protocol is spoken: the first that is set says so."""

HTTP: Final = "http/protobuf"


class SpooledOTLPSpanExporter(SpanExporter):
    """OpenTelemetry's own exporter of spans, with a spool under it: what cannot be delivered now is sent later.

    All environment variables of OTLP count as they do for ``otlp``; without a protocol it is ``http/protobuf``.

    Args:
        protocol: ``http/protobuf`` or ``grpc``; by default as the environment says.
        spool: a :class:`Spool`, or the folder of one; by default as ``TOKENBUDGET_SPOOL`` says. Without one this is
            the exporter alone.
        options: those of the exporter for that protocol.

    Raises:
        ValueError: for another protocol. A :class:`SpoolError` if the spool cannot be used, or if the package for gRPC
            is not installed.

    >>> import tempfile
    >>> exporter = SpooledOTLPSpanExporter("http/protobuf", endpoint="http://127.0.0.1:4318/v1/traces",
    ...                                    spool=tempfile.mkdtemp())
    >>> exporter.shutdown()
    """

    def __init__(
        self,
        protocol: str | None = None,
        spool: Spool | str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        name, said = ("protocol", protocol) if protocol is not None else _protocol()
        if said not in _EXPORTERS:
            raise ValueError(f"{name}: {said!r} is not known here: give one of {', '.join(_EXPORTERS)}")
        self._beneath: SpanExporter = _EXPORTERS[said](spool_for(spool), options)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep spans, and have them delivered."""
        return self._beneath.export(spans)

    def shutdown(self) -> None:
        """Deliver what can be delivered within seconds; the rest is in the spool."""
        self._beneath.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return self._beneath.force_flush(timeout_millis)


def _protocol() -> tuple[str, str]:
    for name in PROTOCOLS:
        if said := os.environ.get(name, "").strip().lower():
            return name, said
    return PROTOCOLS[-1], HTTP


def _by_http(spool: Spool | None, options: dict[str, Any]) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from tokenbudget_otel.export.own_session import BeginningSession

    if spool is None:
        return OTLPSpanExporter(**options)
    exporter = OTLPSpanExporter(session=BeginningSession(spool), **options)
    exporter.export(())  # what an earlier process could not deliver is sent now, and not with the first span
    return exporter


def _by_grpc(spool: Spool | None, options: dict[str, Any]) -> SpanExporter:
    from tokenbudget_otel.export.grpc import SpooledGrpcSpanExporter, grpc_exporter

    if spool is None:
        exporter: SpanExporter = grpc_exporter(**options)
        return exporter
    return SpooledGrpcSpanExporter(spool, **options)


_EXPORTERS: Final[dict[str, Callable[[Spool | None, dict[str, Any]], SpanExporter]]] = {
    HTTP: _by_http,
    "grpc": _by_grpc,
}
