"""One row, one client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from live_rows import CORE, ROWS, Live

from both_modes import settled
from tokenbudget_otel.instrumentation.google_genai import GoogleGenAIInstrumentor
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.simulator import Simulator


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every row for what the SDKs do each in its own way; for the rest, one sync and one async, and the other SDK."""
    if "row" in metafunc.fixturenames and metafunc.module.__name__.endswith("test_live_contract"):
        rows = ROWS if getattr(metafunc.function, "every_row", False) else CORE
        rows = tuple(row for row in rows if row.speaks or not getattr(metafunc.function, "spoken", False))
        metafunc.parametrize("row", rows, ids=[row.name for row in rows], indirect=True)


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Live:
    found: Live = request.param
    pytest.importorskip(found.sdk, reason=f"{found.sdk} is not installed here")
    pytest.importorskip("websockets", reason="live sessions need websockets")
    try:
        found.classes()
    except ImportError:
        pytest.skip("this version of the SDK has no such sessions")
    return found


@pytest.fixture
async def make(sim: Simulator) -> AsyncIterator[Callable[[Live], Any]]:
    """Makes clients, and closes them."""
    made: list[Any] = []

    def client(row: Live) -> Any:
        made.append(row.client(sim))
        return made[-1]

    yield client
    for one in made:
        if hasattr(one, "aio"):
            await one.aio.aclose() if hasattr(one.aio, "aclose") else None
        await settled(one.close())


@pytest.fixture
def client(row: Live, make: Callable[[Live], Any]) -> Any:
    return make(row)


@pytest.fixture
def instrumented(telemetry: Any, meter: Any) -> Iterator[Any]:
    """The two SDKs that speak live."""
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    instrumentors = [OpenAIInstrumentor(), GoogleGenAIInstrumentor()]
    for instrumentor in instrumentors:
        instrumentor.instrument(**options)
    yield telemetry
    for instrumentor in instrumentors:
        instrumentor.uninstrument()
