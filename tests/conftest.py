"""What all tests share: one simulator for the session, spans and metrics in memory, a fresh meter."""

from __future__ import annotations

# Before any tracer provider is made: what one does in a forked child (OpenTelemetry 1.45 asks for resources again, on
# threads) waits for ever for a lock of this module that is only put right there if the module was imported earlier.
import concurrent.futures.thread  # noqa: F401
import gc
import itertools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import settings
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tokenbudget_otel as tb
from tokenbudget_otel import meter as meter_module
from tokenbudget_otel.instrumentation import deferred, guard, hosts, metered_calls
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Simulator

# On a contributor's machine every run looks at other examples; in CI the same commit gives the same answer.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


_PROCESS: Final = os.getpid()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """A child that a test has forked, and that an error has led out of the test, ends here: otherwise it would go on as
    a second run of all the tests that follow, and keep the first from ending."""
    if os.getpid() != _PROCESS:
        if call.excinfo is not None:
            os.write(2, f"in a forked child: {call.excinfo.getrepr(style='short')}\n".encode())
        os._exit(70)


_UNFREEZE_EVERY: Final = 400
"""Tests after which what was left lying around is looked through after all."""

_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def _small_heap() -> None:
    """Most tests collect garbage, to see what becomes of what was abandoned. With a dozen SDKs imported that would take
    seconds each: the collector is told to leave alone what was there before the test."""
    if next(_tests) % _UNFREEZE_EVERY == 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _simulator() -> Iterator[Simulator]:
    with Simulator(seed=7) as simulator:
        # Who answers at 127.0.0.1 is not known by itself; programs that tests start are told as well.
        os.environ["TOKENBUDGET_HOSTS"] = f"{simulator.openai_url}=openai"
        yield simulator


@pytest.fixture
def sim(_simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """The provider simulator, with nothing left over from the test before. Other hosts are the test's own to name."""
    monkeypatch.setattr(hosts, "_configured", {})
    tb.map_host(_simulator.openai_url, "openai")
    _simulator.reset()
    yield _simulator
    _simulator.reset()


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    """A meter of this test's own, in the place of the process-wide one."""
    fresh = Meter()
    metered_calls.forget()  # the simulator gives the responses of each test the same ids
    monkeypatch.setattr(meter_module, "_meter", fresh)
    return fresh


@dataclass
class Telemetry:
    """Spans and metrics of one test."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    log: list[logging.LogRecord] = field(default_factory=list)

    def spans(self) -> list[ReadableSpan]:
        """Finished spans, after abandoned calls were ended."""
        gc.collect()
        deferred.drain()
        return list(self.exporter.get_finished_spans())

    def span(self) -> ReadableSpan:
        """The one finished span."""
        spans = self.spans()
        assert len(spans) == 1, [span.name for span in spans]
        return spans[0]

    def metrics(self) -> dict[str, list[Any]]:
        """Data points by metric name."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def telemetry(caplog: pytest.LogCaptureFixture) -> Iterator[Telemetry]:
    """Tracer and meter providers that keep everything in memory. Nothing of ours may have failed meanwhile."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    guard._logged.clear()
    yield Telemetry(tracer_provider, MeterProvider([reader]), exporter, reader)
    tracer_provider.shutdown()
    assert not guard._logged, f"telemetry failed: {guard._logged}"
    detached = [record.getMessage() for record in caplog.records if "detach" in record.getMessage()]
    assert not detached, detached


@pytest.fixture
def instrumented(telemetry: Telemetry, meter: Meter) -> Iterator[Telemetry]:
    """All SDKs instrumented, into ``telemetry`` and ``meter``."""
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    yield telemetry
    tb.uninstrument()
