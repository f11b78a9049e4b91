"""What the names ``tokenbudget`` and ``otlp_spooled`` in ``OTEL_TRACES_EXPORTER`` stand for.

An exporter that raises when it is made keeps OpenTelemetry from starting at all: no other exporter, and no
instrumentation, ours neither, so that no budget is in force. Here a mistake is logged as an error that says what to do,
nothing is exported by this one, and all else goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tokenbudget_otel.export.spooled_otlp import SpooledOTLPSpanExporter
from tokenbudget_otel.export.tokenbudget import TokenBudgetSpanExporter

logger: Final = logging.getLogger("tokenbudget_otel.export")


class _Lenient(SpanExporter):
    """Stands before the class of an exporter among the bases of another: makes it, or does nothing."""

    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        self._works = False
        try:
            super().__init__(**options)
        except (TypeError, ValueError) as error:
            logger.error("the exporter %s exports nothing: %s", self.name, error)
        except Exception:
            logger.exception("the exporter %s exports nothing: it could not be made", self.name)
        else:
            self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, or keep them to be sent."""
        return super().export(spans) if self._works else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Deliver what can be delivered within seconds; the rest is in the spool."""
        if self._works:
            super().shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return True


class ConfiguredTokenBudgetExporter(_Lenient, TokenBudgetSpanExporter):
    """``tokenbudget``: a :class:`TokenBudgetSpanExporter`, or nothing where that cannot be.

    >>> exporter = ConfiguredTokenBudgetExporter(endpoint="http://127.0.0.1:8000", spool=False)
    >>> exporter.shutdown()
    """

    name = "tokenbudget"


class ConfiguredSpooledExporter(_Lenient, SpooledOTLPSpanExporter):
    """``otlp_spooled``: a :class:`SpooledOTLPSpanExporter`, or nothing where that cannot be."""

    name = "otlp_spooled"
