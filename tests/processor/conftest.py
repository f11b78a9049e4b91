"""Fixtures of the processor's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from processor_bench import Bench

from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.processor import TokenBudgetSpanProcessor


@pytest.fixture
def make(meter: Meter) -> Iterator[Callable[..., Bench]]:
    """Makes a bench; by default the exporter is registered before the processor, the harder order."""
    made: list[Bench] = []
    guard._logged.clear()

    def build(exporter_first: bool = True, provider: TracerProvider | None = None, **options: Any) -> Bench:
        reader = InMemoryMetricReader()
        processor = TokenBudgetSpanProcessor(meter_provider=MeterProvider([reader]), **options)
        bench = Bench(meter, provider or TracerProvider(), processor, reader=reader)
        both = [SimpleSpanProcessor(bench.exporter), processor]
        for each in both if exporter_first else reversed(both):
            bench.provider.add_span_processor(each)
        made.append(bench)
        return bench

    yield build
    for bench in made:
        bench.provider.shutdown()
        assert not bench.processor._open, "spans that ended are forgotten"
        assert not bench.processor._below
    assert not guard._logged, f"telemetry failed: {guard._logged}"


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()
