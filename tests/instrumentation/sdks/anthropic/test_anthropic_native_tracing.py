"""The SDK makes spans of its own: while ours are made theirs are not, and without ours they are as usual."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from anthropic_doors import BODY, assert_booked_exactly, client_of, each, entered, settled
from opentelemetry.instrumentation.utils import suppress_instrumentation

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Simulator

NATIVE = "com.anthropic.sdk.python"


async def create(client: Any) -> None:
    await settled(client.messages.create(**BODY))


async def streamed(client: Any) -> None:
    async for _ in each(await settled(client.messages.create(**BODY, stream=True))):
        pass


async def helper(client: Any) -> None:
    async with entered(client.messages.stream(**BODY)) as stream:
        await settled(stream.get_final_message())


async def beta(client: Any) -> None:
    await settled(client.beta.messages.create(**BODY))


async def raw(client: Any) -> None:
    await settled(client.messages.with_raw_response.create(**BODY))


async def streaming_lines(client: Any) -> None:
    async with entered(client.messages.with_streaming_response.create(**BODY, stream=True)) as response:
        async for _ in each(response.iter_lines()):
            pass


WAYS = (create, streamed, helper, beta, raw, streaming_lines)


def tracing_client(sim: Simulator, asynchronous: bool, telemetry: Any) -> Any:
    return client_of(sim, asynchronous, open_telemetry={"tracer_provider": telemetry.tracer_provider})


@pytest.mark.parametrize("way", WAYS)
async def test_with_ours_only_ours(
    way: Any, asynchronous: bool, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    await way(tracing_client(sim, asynchronous, instrumented))
    span = instrumented.span()
    assert span.instrumentation_scope.name == "tokenbudget_otel.instrumentation.anthropic"
    assert_booked_exactly(meter, span, sim.billed[0])


@pytest.mark.parametrize("way", WAYS)
async def test_without_ours_theirs_as_usual(
    way: Any, asynchronous: bool, sim: Simulator, meter: Meter, telemetry: Any
) -> None:
    client = tracing_client(sim, asynchronous, telemetry)
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    await way(client)
    tb.uninstrument()
    await way(client)
    ours, theirs = telemetry.spans()
    assert theirs.instrumentation_scope.name == NATIVE
    assert ours.instrumentation_scope.name != NATIVE
    assert meter.totals.get().calls == 1


async def test_endpoints_that_are_not_ours_stay_theirs(
    asynchronous: bool, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    client = tracing_client(sim, asynchronous, instrumented)
    await settled(client.messages.count_tokens(model=BODY["model"], messages=BODY["messages"]))
    span = instrumented.span()
    assert span.instrumentation_scope.name == NATIVE
    assert meter.totals.get().calls == 0


async def test_suppressed_spans_are_metered_all_the_same(
    client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    with suppress_instrumentation():
        await streamed(client)
        await create(client)
    assert instrumented.spans() == []
    assert meter.totals.get().calls == 2
    assert meter.totals.get().nano_usd > 0


async def test_a_span_that_somebody_made_for_this_call_is_taken_over(
    client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    tracer = instrumented.tracer_provider.get_tracer("somebody")
    attributes = {semconv.OPERATION_NAME: "chat", semconv.REQUEST_MODEL: BODY["model"]}
    with tracer.start_as_current_span("theirs", attributes=attributes):
        await streamed(client)
    span = instrumented.span()
    assert span.name == "theirs"
    assert span.attributes[semconv.USAGE_COST] > 0
    assert meter.totals.get().calls == 1


GLOBAL_PROVIDER = """
import sys
import anthropic
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import tokenbudget_otel as tb

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="any")
body = {"model": "claude-sonnet-4-6", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}

def use():
    client.messages.create(**body)
    list(client.messages.create(**body, stream=True))
    with client.messages.stream(**body) as stream:
        stream.get_final_message()
    scopes = [span.instrumentation_scope.name for span in exporter.get_finished_spans()]
    exporter.clear()
    return scopes

assert use() == ["com.anthropic.sdk.python"] * 3
tb.instrument()
assert use() == ["tokenbudget_otel.instrumentation.anthropic"] * 3
tb.uninstrument()
assert use() == ["com.anthropic.sdk.python"] * 3
assert tb.usage().calls == 3
"""


def test_a_global_provider_sees_one_span_a_call(sim: Simulator) -> None:
    """In a process of its own: a global provider cannot be taken back."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    done = subprocess.run(
        [sys.executable, "-c", GLOBAL_PROVIDER, sim.anthropic_url],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tokenbudget" not in done.stderr
