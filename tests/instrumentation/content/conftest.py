"""Where content goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

import content_shape
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.instrumentation.anthropic import AnthropicInstrumentor
from tokenbudget_otel.instrumentation.capture import EMIT_EVENT, ENVIRONMENT, MAX_BYTES
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.instrumentation.redaction import REDACT

VARIABLES = (ENVIRONMENT, EMIT_EVENT, MAX_BYTES, REDACT)


class Captured:
    """What was recorded, and the instrumentors that do it."""

    def __init__(self, telemetry: Any) -> None:
        self.telemetry = telemetry
        self.tracer_provider = telemetry.tracer_provider
        self.exporter = InMemoryLogRecordExporter()
        self.loggers = LoggerProvider()
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))
        self._used = (OpenAIInstrumentor(), AnthropicInstrumentor())

    def start(self, **options: Any) -> None:
        for instrumentor in self._used:
            instrumentor.instrument(tracer_provider=self.tracer_provider, logger_provider=self.loggers, **options)

    def stop(self) -> None:
        for instrumentor in self._used:
            instrumentor.uninstrument()

    def records(self) -> list[Any]:
        """The events."""
        return [record.log_record for record in self.exporter.get_finished_logs()]

    def on_span(self) -> dict[str, Any]:
        """The content of the one span."""
        return content_shape.of_span(self.telemetry.span())

    def in_event(self) -> dict[str, Any]:
        """The content of the one event."""
        [record] = self.records()
        return content_shape.of_event(record)


@pytest.fixture
def captured(telemetry: Any, meter: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Captured]:
    """Nothing is instrumented until it is started, and the environment says nothing."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(guard, "_told", set())
    captured = Captured(telemetry)
    yield captured
    captured.stop()
