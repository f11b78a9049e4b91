"""Where spans and metrics go: the OpenTelemetry SDK as a program has it, with an exporter that throws away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

QUEUE = 1 << 17
"""Spans that wait to be exported: so many that none is dropped, which would cost a side less."""


class Discarding(SpanExporter):
    """Throws spans away; keeps them while a check looks at them."""

    def __init__(self) -> None:
        self.kept: list[ReadableSpan] | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.kept is not None:
            self.kept.extend(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


class Telemetry:
    """The providers of one process. With ``sampled=False`` the global tracer provider samples nothing; the floor has
    one of its own that does."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.exporter = Discarding()
        self.processor = self.batching()
        self.recording = TracerProvider()
        self.recording.add_span_processor(self.processor)
        if sampled:
            trace.set_tracer_provider(self.recording)
        else:
            provider = TracerProvider(sampler=ALWAYS_OFF)
            provider.add_span_processor(self.processor)
            trace.set_tracer_provider(provider)
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        metrics.set_meter_provider(self.meters)

    def batching(self) -> BatchSpanProcessor:
        """A processor before the exporter, for a peer that brings a tracer provider of its own."""
        return BatchSpanProcessor(self.exporter, max_queue_size=QUEUE)

    def spans_of(self, flush: Sequence[Any] = ()) -> list[ReadableSpan]:
        """The spans since :meth:`keep`."""
        for processor in (self.processor, *flush):
            processor.force_flush()
        kept, self.exporter.kept = self.exporter.kept or [], None
        return kept

    def keep(self, flush: Sequence[Any] = ()) -> None:
        """Keep spans from now on."""
        for processor in (self.processor, *flush):
            processor.force_flush()
        self.exporter.kept = []
