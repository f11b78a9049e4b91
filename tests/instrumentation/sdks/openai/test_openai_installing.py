"""Putting the door before the SDK and taking it away: exactly, once, and whoever else is there."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai_harness import MESSAGES, ORIGINALS, OWNERS, chat_tokens, one_call, read, settled, some, until
from opentelemetry import context
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.simulator import Behaviour


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    tb.uninstrument()
    for mode, owner in OWNERS.items():
        owner.request = ORIGINALS[mode]  # whatever a test left, the next one starts with the SDK


def on(telemetry: Any, **options: Any) -> None:
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider, **options)


async def chat(client: Any, **options: Any) -> Any:
    return await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **options))


def test_uninstrument_restores_the_methods(telemetry, meter):
    before = {mode: dict(vars(owner)) for mode, owner in OWNERS.items()}
    for _ in range(2):
        on(telemetry)
        assert all(vars(owner)["request"] is not ORIGINALS[mode] for mode, owner in OWNERS.items())
        tb.uninstrument()
        assert {mode: dict(vars(owner)) for mode, owner in OWNERS.items()} == before
    assert "request" not in vars(openai.OpenAI)


async def test_twice_is_once(client, sim, telemetry, meter):
    on(telemetry)
    on(telemetry)
    OpenAIInstrumentor().instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    await chat(client)
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[0].usage))
    tb.uninstrument()
    tb.uninstrument()
    assert all(vars(owner)["request"] is ORIGINALS[mode] for mode, owner in OWNERS.items())


async def test_a_client_made_before(mode, clients, sim, telemetry, meter):
    client = clients(mode)
    completions = client.chat.completions
    on(telemetry)
    await settled(completions.create(model="gpt-4o", messages=MESSAGES))
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[0].usage))


async def test_a_stream_that_outlives_the_instrumentation(client, sim, telemetry, meter):
    on(telemetry)
    sim.then(Behaviour(text="one two three four five six seven eight", chunks=4))
    stream = await chat(client, stream=True)
    tb.uninstrument()
    await read(stream)
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[0].usage))


def foreign(mode: str, calls: list[str]) -> Any:
    """A wrapper of somebody else's, put on top of whatever is there."""
    owner = OWNERS[mode]
    inner = owner.request

    if mode == "async":

        @functools.wraps(inner)
        async def request(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append("foreign")
            return await inner(self, *args, **kwargs)
    else:

        @functools.wraps(inner)
        def request(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append("foreign")
            return inner(self, *args, **kwargs)

    owner.request = request
    return request


async def test_uninstrument_under_somebody_elses_wrapper(client, mode, sim, telemetry, meter):
    calls: list[str] = []
    on(telemetry)
    wrapper = foreign(mode, calls)
    tb.uninstrument()
    assert vars(OWNERS[mode])["request"] is wrapper, "theirs stays"
    await chat(client)
    assert calls == ["foreign"]
    # Our door cannot be pulled out from under it, but it has to stand open.
    assert telemetry.spans() == []
    assert meter.totals.get().calls == 0

    on(telemetry)
    await chat(client)
    assert calls == ["foreign", "foreign"]
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[-1].usage))


async def test_on_top_of_somebody_elses_wrapper(client, mode, sim, telemetry, meter):
    calls: list[str] = []
    wrapper = foreign(mode, calls)
    on(telemetry)
    await chat(client)
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[0].usage))
    tb.uninstrument()
    assert vars(OWNERS[mode])["request"] is wrapper
    await chat(client)
    assert calls == ["foreign", "foreign"]


# --- one client only ---------------------------------------------------------------------------------------------


def wrapped(telemetry: Any, client: Any) -> Any:
    made = tb.wrap(client, tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    assert made is client
    return made


async def test_wrap_is_this_client_only(mode, clients, sim, telemetry, meter):
    client, other = wrapped(telemetry, clients(mode)), clients(mode)
    await chat(other)
    assert meter.totals.get().calls == 0
    await read(await chat(client, stream=True))
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[-1].usage))
    assert all(vars(owner)["request"] is ORIGINALS[mode] for mode, owner in OWNERS.items())


@pytest.mark.parametrize("copying", ["with_options", "copy", "copy of a copy"])
async def test_wrap_covers_copies(copying, mode, clients, sim, telemetry, meter):
    client = wrapped(telemetry, clients(mode))
    made = client.copy(timeout=9) if copying == "copy" else client.with_options(timeout=9)
    if copying == "copy of a copy":
        made = made.with_options(max_retries=1)
    assert type(made) is type(client)
    await chat(made)
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[0].usage))


@pytest.mark.parametrize("order", ["wrap first", "instrument first"])
async def test_wrapped_and_instrumented_counts_once(order, mode, clients, sim, telemetry, meter):
    client = clients(mode)
    if order == "wrap first":
        wrapped(telemetry, client)
    on(telemetry)
    if order == "instrument first":
        wrapped(telemetry, client)
    wrapped(telemetry, client)
    await chat(client)
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[0].usage))
    await chat(client.with_options(timeout=9))
    assert meter.totals.get().calls == 2


async def test_wrapped_under_instrumentation_and_somebody_elses_wrapper_counts_once(
    mode, clients, sim, telemetry, meter
):
    calls: list[str] = []
    on(telemetry)
    foreign(mode, calls)
    client = wrapped(telemetry, clients(mode))
    await chat(client)
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[0].usage))
    assert calls == ["foreign"], "and theirs is not passed over"


async def test_unwrap(mode, clients, sim, telemetry, meter):
    client = clients(mode)
    before = dict(vars(client))
    copied = wrapped(telemetry, client).with_options(timeout=9)
    assert tb.unwrap(client) is client
    assert vars(client) == before
    await chat(client)
    await chat(copied)
    assert meter.totals.get().calls == 0
    assert tb.unwrap(client) is client


def test_wrap_wants_a_client(telemetry, meter):
    with pytest.raises(TypeError, match=r"tb\.wrap"):
        tb.wrap(object())


async def test_copies_of_a_wrapped_client_are_not_kept(mode, clients, sim, telemetry, meter):
    # `with_options` for every request is how programs set a timeout: a copy must not live on in our books.
    client = wrapped(telemetry, clients(mode))
    copies = [weakref.ref(client.with_options(timeout=number + 1)) for number in range(5)]
    gc.collect()
    assert [reference() for reference in copies] == [None] * 5


async def test_azure_wrapped(mode, clients, sim, telemetry, meter):
    client = wrapped(telemetry, clients(mode, kind="azure"))
    await chat(client)
    one_call(telemetry, meter, usage=chat_tokens(sim.billed[0].usage), provider="azure.ai.openai")


# --- without spans -----------------------------------------------------------------------------------------------


async def exercise(client: Any, sim: Any, meter: Any, name: str = "three") -> Any:
    """Calls of several kinds and a refusal: the totals, and how often the budget refused."""
    meter.enforcer.add(tb.Budget(limit_calls=3, name=name))
    await chat(client)
    await read(await chat(client, stream=True))
    sim.then(Behaviour(text="one two three four five six", chunks=3, chunk_s=30))
    stream = await chat(client, stream=True)
    await some(stream, 2)
    await settled(stream.close())
    with pytest.raises(tb.BudgetExceeded):
        await chat(client)
    assert len(sim.requests) == 3
    totals = meter.totals.get()
    assert totals.refused_calls == 1
    assert totals.calls == 3
    assert totals.estimated_calls == 1
    assert totals.cost_usd > 0
    return totals


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, TraceIdRatioBased(0.1), None], ids=["off", "tenth", "no sdk"])
async def test_metering_does_not_depend_on_spans(sampler, mode, clients, sim, telemetry, meter, monkeypatch):
    client = clients(mode)
    on(telemetry)
    expected = await exercise(client, sim, meter)
    tb.uninstrument()
    meter.totals.clear()
    meter.enforcer.clear()
    sim.reset()
    if sampler is None:
        tb.instrument()  # the global proxy, no provider behind it
    else:
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(telemetry.exporter))
        tb.instrument(provider)
    assert await exercise(client, sim, meter, "three more") == expected


async def test_suppressed(client, sim, instrumented, meter):
    with suppress_instrumentation():
        await exercise(client, sim, meter)
    assert instrumented.spans() == []
    assert "gen_ai.client.operation.duration" not in instrumented.metrics()
    # The cost is nobody else's to record.
    costs = instrumented.metrics()["gen_ai.client.operation.cost"]
    assert sum(point.value for point in costs) == pytest.approx(float(meter.totals.get().cost_usd))


@pytest.mark.parametrize(
    "key", ["suppress_language_model_instrumentation", "opentelemetry.genai.client.inference.context"]
)
async def test_suppressed_by_the_keys_of_others(key, client, sim, instrumented, meter):
    token = context.attach(context.set_value(key, True))
    try:
        await read(await chat(client, stream=True))
    finally:
        context.detach(token)
    assert instrumented.spans() == []
    assert meter.totals.get().usage == chat_tokens(sim.billed[0].usage)


async def test_somebody_elses_span_for_this_call(client, sim, instrumented, meter):
    """Another instrumentor above us has made the span: it gets what it lacks, and there is no second one."""
    tracer = instrumented.tracer_provider.get_tracer("other")
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 1,
    }
    with tracer.start_as_current_span("chat gpt-4o", attributes=attributes):
        await chat(client)
    span = instrumented.span()
    assert span.instrumentation_scope.name == "other"
    assert span.attributes["gen_ai.usage.cost"] == float(meter.totals.get().cost_usd)
    assert span.attributes["gen_ai.usage.input_tokens"] == 1, "theirs to say"
    (duration,) = instrumented.metrics()["gen_ai.client.operation.duration"]
    assert duration.count == 1, "nobody is known to record metrics under the name of the other"
    assert meter.totals.get().calls == 1


async def test_an_agent_span_is_not_the_calls(client, sim, instrumented, meter):
    tracer = instrumented.tracer_provider.get_tracer("agents")
    with tracer.start_as_current_span("invoke_agent a", attributes={"gen_ai.operation.name": "invoke_agent"}):
        await chat(client)
        await chat(client)
    spans = instrumented.spans()
    assert [span.name for span in spans] == ["chat gpt-4o", "chat gpt-4o", "invoke_agent a"]
    assert all(span.parent.span_id == spans[2].context.span_id for span in spans[:2])


async def test_two_calls_under_one_span_of_others(client, sim, instrumented, meter):
    # A framework's span that says it is a chat of this model covers one call; the next has a span of its own.
    tracer = instrumented.tracer_provider.get_tracer("framework")
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
    with tracer.start_as_current_span("loop", attributes=attributes):
        await chat(client)
        await chat(client)
    spans = instrumented.spans()
    assert meter.totals.get().calls == 2
    assert sum(span.attributes["gen_ai.usage.cost"] for span in spans) == pytest.approx(
        float(meter.totals.get().cost_usd)
    )


async def test_former_names(client, sim, telemetry, meter):
    on(telemetry, former_names=True)
    sim.then(Behaviour(input_tokens=100, output_tokens=20, reasoning_tokens=7, cache_write_30m_tokens=9))
    await chat(client)
    span = telemetry.span()
    for name, former in (
        ("gen_ai.provider.name", "gen_ai.system"),
        ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens"),
        ("gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ):
        assert span.attributes[former] == span.attributes[name]


async def test_an_error_of_ours_is_logged_once_and_the_call_goes_on(
    mode, clients, sim, telemetry, meter, monkeypatch, caplog
):
    client = clients(mode)
    on(telemetry)
    monkeypatch.setattr(meter, "settle", lambda *_: 1 / 0)
    for _ in range(2):
        assert (await chat(client)).choices
        await read(await chat(client, stream=True))
    messages = [record.getMessage() for record in caplog.records if record.name == "tokenbudget_otel"]
    assert messages
    assert len(messages) == len(set(messages))
    await until(lambda: len(telemetry.spans()) == 4)  # spans end all the same
    guard._logged.clear()
