"""SDKs of versions that nobody has tried: one warning that names the range, and metered as far as they are alike."""

from __future__ import annotations

import logging
from typing import Any

import openai
import pytest

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import guard, instrumentor
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Simulator


@pytest.fixture(autouse=True)
def _unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrumentor, "_warned", set())


def pretend(monkeypatch: pytest.MonkeyPatch, distribution: str, version: str) -> None:
    real = instrumentor.metadata.version
    monkeypatch.setattr(instrumentor.metadata, "version", lambda name: version if name == distribution else real(name))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "tokenbudget_otel" and record.levelno >= logging.WARNING
    ]


def call(sim: Simulator) -> Any:
    client = openai.OpenAI(base_url=sim.openai_url, api_key="any", max_retries=0)
    return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize("version", ["9.1.0", "1.99.0", "4.0.0rc1"])
def test_an_unknown_version_is_metered_after_one_warning(
    version: str, sim: Simulator, telemetry: Any, meter: Meter, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, "openai", version)
    for _ in range(2):
        tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        call(sim)
        tb.uninstrument()
    assert meter.totals.get().calls == 2
    [warning] = warnings(caplog)
    assert "openai >=2,<4" in warning
    assert version in warning


def test_a_known_version_is_not_warned_of(telemetry: Any, meter: Meter, caplog: pytest.LogCaptureFixture) -> None:
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    tb.uninstrument()
    assert warnings(caplog) == []


@pytest.mark.parametrize("version", ["", "not a version"])
def test_a_version_that_cannot_be_read_is_taken_as_it_is(
    version: str, telemetry: Any, meter: Meter, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, "openai", version)
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    tb.uninstrument()
    assert warnings(caplog) == []


def test_what_a_version_lacks_is_passed_over(
    sim: Simulator, telemetry: Any, meter: Meter, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, "openai", "9.1.0")
    monkeypatch.setattr(openai, "AsyncOpenAI", object)  # which sends nothing in a way that we know
    OpenAIInstrumentor().instrument(tracer_provider=telemetry.tracer_provider)
    try:
        call(sim)
    finally:
        OpenAIInstrumentor().uninstrument()
    assert meter.totals.get().calls == 1
    unknown, missing = warnings(caplog)
    assert "9.1.0" in unknown
    assert "AsyncOpenAI" in missing
    guard._logged.clear()  # this one was meant to be


def test_the_loader_of_opentelemetry_is_not_refused(telemetry: Any, meter: Meter, monkeypatch: Any) -> None:
    """`opentelemetry-instrument` asks for the dependencies by itself, and would leave an unknown version out."""
    pretend(monkeypatch, "openai", "9.1.0")
    OpenAIInstrumentor().instrument(skip_dep_check=False)
    assert OpenAIInstrumentor().is_instrumented_by_opentelemetry
    OpenAIInstrumentor().uninstrument()
