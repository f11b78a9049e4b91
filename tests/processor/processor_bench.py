"""What the tests of the processor share: a tracer provider with it, and ways to make the spans that others make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenbudget_otel import semconv
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.processor import TokenBudgetSpanProcessor

CHAT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
}
USED: dict[str, Any] = {"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100}
COST = 0.0035


@dataclass
class Bench:
    """A tracer provider with the processor, an exporter, and what they saw."""

    meter: Meter
    provider: TracerProvider
    processor: TokenBudgetSpanProcessor
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def start(self, name: str = "chat gpt-4o", scope: str = "somebody", **kwargs: Any) -> Any:
        return self.provider.get_tracer(scope).start_span(name, **kwargs)

    def chat(self, scope: str = "somebody", used: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """A whole chat span of somebody else's."""
        span = self.start(scope=scope, attributes=CHAT, **kwargs)
        span.set_attributes(USED if used is None else used)
        span.end()
        return span

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    @property
    def calls(self) -> int:
        return self.meter.totals.get().calls

    def with_cost(self) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if semconv.USAGE_COST in (span.attributes or {})]

    def metric(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
