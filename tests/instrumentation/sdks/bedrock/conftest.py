"""Clients of boto3 and aiobotocore in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from bedrock_harness import client_of

from tokenbudget_otel.instrumentation.bedrock import BedrockInstrumentor
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Simulator


@pytest.fixture
def instrumented(telemetry: Any, meter: Meter) -> Iterator[Any]:
    """Bedrock alone instrumented, which is much quicker than all SDKs."""
    BedrockInstrumentor().instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    yield telemetry
    BedrockInstrumentor().uninstrument()


@pytest.fixture(params=(False, True), ids=("sync", "async"))
def asynchronous(request: pytest.FixtureRequest) -> bool:
    """The sync and the async client in turn."""
    return bool(request.param)


@pytest.fixture
async def client(sim: Simulator, asynchronous: bool) -> AsyncIterator[Any]:
    """A ``bedrock-runtime`` client, sync and async in turn."""
    made = client_of(sim, asynchronous)
    if asynchronous:
        async with made as entered:
            yield entered
    else:
        yield made
        made.close()
