"""Spans for the TokenBudget backend."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tokenbudget_otel.export.backend_options import API_KEY, backend_options
from tokenbudget_otel.export.destination_name import public_url
from tokenbudget_otel.export.genai_spans import for_backend
from tokenbudget_otel.export.json_fallback import JsonFallback
from tokenbudget_otel.export.own_session import DirectSession, OwnSpoolingSession
from tokenbudget_otel.export.process_spools import spool_for
from tokenbudget_otel.export.spool import Spool

logger: Final = logging.getLogger("tokenbudget_otel.export")

_COMPRESSIONS: Final = {
    "gzip": Compression.Gzip,
    "deflate": Compression.Deflate,
    "none": Compression.NoCompression,
}


class TokenBudgetSpanExporter(SpanExporter):
    """Sends spans of LLM calls to the TokenBudget backend, by OpenTelemetry's own OTLP/HTTP exporter.

    What cannot be delivered now is kept on disk, and sent later. Attributes are also set under their former names, for
    servers that read those; the program's spans stay as they are. A server that takes no protobuf gets JSON.

    Args:
        endpoint: of the backend, with or without ``/v1/traces``; by default what ``TOKENBUDGET_ENDPOINT`` says, else
            ``http://localhost:8000``.
        api_key: sent as ``Authorization: Bearer …`` and ``X-TokenBudget-Key``; ``TOKENBUDGET_API_KEY``.
        compression: ``gzip`` (the default), ``deflate`` or ``none``; ``TOKENBUDGET_COMPRESSION``.
        timeout: seconds that a request may take, 10 by default; ``TOKENBUDGET_TIMEOUT``.
        all_spans: send spans of anything, and not only those of LLM calls; ``TOKENBUDGET_EXPORT_ALL_SPANS``.
        spool: a :class:`Spool`, the folder of one, or ``False`` for none; by default as ``TOKENBUDGET_SPOOL`` says.
        certificate_file, client_key_file, client_certificate_file: paths, as for the OTLP exporter.

    Raises:
        ValueError: for what cannot be meant; it names the argument or the variable, and what to do. A
            :class:`SpoolError` if the spool cannot be used.

    >>> from opentelemetry.sdk.trace import TracerProvider
    >>> from opentelemetry.sdk.trace.export import BatchSpanProcessor
    >>> exporter = TokenBudgetSpanExporter("http://127.0.0.1:8000", api_key="tb_ak_1", spool=False)
    >>> provider = TracerProvider()
    >>> provider.add_span_processor(BatchSpanProcessor(exporter))
    >>> provider.shutdown()
    """

    def __init__(
        self,
        endpoint: str | None = None,
        api_key: str | None = None,
        compression: str | Compression | None = None,
        timeout: float | None = None,
        all_spans: bool | None = None,
        spool: Spool | str | os.PathLike[str] | bool | None = None,
        certificate_file: str | None = None,
        client_key_file: str | None = None,
        client_certificate_file: str | None = None,
    ) -> None:
        options = backend_options(endpoint, api_key, compression, timeout, all_spans)
        if options.lacks_key:
            logger.warning(
                "there is no key for %s, which will refuse spans if it wants one: set %s, or give api_key",
                public_url(options.url),
                API_KEY,
            )
        self._all_spans = options.all_spans
        kept = spool_for(spool)
        session: OwnSpoolingSession | DirectSession
        if kept is None:
            session = DirectSession(headers=options.headers, through=JsonFallback)
        else:
            session = OwnSpoolingSession(kept, headers=options.headers, through=JsonFallback)
        self._otlp: SpanExporter = OTLPSpanExporter(
            endpoint=options.url,
            certificate_file=certificate_file,
            client_key_file=client_key_file,
            client_certificate_file=client_certificate_file,
            # Headers that are given keep the older exporters from reading OTEL_EXPORTER_OTLP_HEADERS.
            headers=options.headers or {"Content-Type": "application/x-protobuf"},
            timeout=options.timeout,
            compression=_COMPRESSIONS[options.compression],
            session=session,
        )
        # Nothing: what an earlier process could not deliver is sent now, and not with the first span.
        if kept is not None:
            self._otlp.export(())
        _load_dialects()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, or keep them to be sent."""
        chosen = for_backend(spans, self._all_spans)
        return self._otlp.export(chosen) if chosen else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Deliver what can be delivered within seconds; the rest is in the spool."""
        self._otlp.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return self._otlp.force_flush(timeout_millis)


def _load_dialects() -> None:
    """Not only when the interpreter ends, and may import nothing any more."""
    importlib.import_module("tokenbudget_otel.dialects.table")
