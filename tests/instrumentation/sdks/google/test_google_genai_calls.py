"""What is particular to ``google.genai``: function calling, chats, tiers, grounding, retries, and what it sends."""

from __future__ import annotations

import asyncio
import gc
from copy import deepcopy
from typing import Any

import pytest
from google_harness import MODEL, NEWER, PROMPT, both, genai, make, of_mode

import tokenbudget_otel as tb
from both_modes import each, settled
from tokenbudget_otel.simulator import Behaviour, ToolCall

types = genai.types


def river(name: str) -> str:
    """How long a river is."""
    return f"{name} is 300 km long."


@both
async def test_each_round_trip_of_function_calling_is_a_call(
    mode: str, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(tool_calls=[ToolCall("river", {"name": "Main"})], input_tokens=50, output_tokens=9))
    sim.then(Behaviour(text="It is long.", input_tokens=80, output_tokens=4))
    models = of_mode(make(sim), mode).models
    answer = await settled(models.generate_content(model=MODEL, contents=PROMPT, config={"tools": [river]}))
    assert answer.text == "It is long."
    first, second = instrumented.spans()
    assert first.attributes["gen_ai.response.finish_reasons"] == ("tool_call",)
    assert second.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert (meter.totals.get().calls, meter.totals.get().usage.input_tokens) == (2, 130)


@both
async def test_a_budget_stops_function_calling_between_two_calls(mode: str, sim: Any, instrumented: Any) -> None:
    sim.then(Behaviour(tool_calls=[ToolCall("river", {"name": "Main"})]))
    models = of_mode(make(sim), mode).models
    with tb.budget(max_calls=1), pytest.raises(tb.BudgetExceeded):
        await settled(models.generate_content(model=MODEL, contents=PROMPT, config={"tools": [river]}))
    assert len(sim.requests) == 1


@both
async def test_a_chat_of_several_turns(mode: str, sim: Any, instrumented: Any, meter: Any) -> None:
    chat = of_mode(make(sim), mode).chats.create(model=MODEL)
    for _ in range(2):
        await settled(chat.send_message(PROMPT))
    assert [item async for item in each(await settled(chat.send_message_stream(PROMPT)))]
    assert sim.settle()
    assert meter.totals.get().calls == 3
    assert meter.totals.get().usage.input_tokens == sum(bill.usage.input_tokens for bill in sim.billed)
    assert len(sim.requests[2].json["contents"]) == 5


@both
async def test_what_the_program_gave_is_not_changed(mode: str, sim: Any, instrumented: Any, meter: Any) -> None:
    extra = {"generationConfig": {"maxOutputTokens": 9}}
    config = types.GenerateContentConfig(
        temperature=0.2, top_k=7, seed=3, stop_sequences=["END"], http_options=types.HttpOptions(extra_body=extra)
    )
    contents = [{"role": "user", "parts": [{"text": PROMPT}]}]
    before = config.model_copy(deep=True), deepcopy(contents), deepcopy(extra)
    models = of_mode(make(sim), mode).models
    await settled(models.generate_content(model=f"models/{MODEL}", contents=contents, config=config))
    assert (config, contents, extra) == before
    assert sim.requests[0].json["generationConfig"]["maxOutputTokens"] == 9
    assert "model" not in sim.requests[0].json
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.request.max_tokens"] == 9  # of extra_body, which is what is sent
    assert attributes["gen_ai.request.temperature"] == 0.2
    assert attributes["gen_ai.request.top_k"] == 7
    assert attributes["gen_ai.request.stop_sequences"] == ("END",)
    assert attributes["gen_ai.request.model"] == MODEL


@pytest.mark.parametrize(
    ("model", "searches"), [(MODEL, 1), (NEWER, 3), ("gemini-2.0-flash", 1), ("gemini-flash-latest", 3)]
)
def test_searches_are_billed_by_the_request_or_by_the_query(
    model: str, searches: int, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(web_searches=3), Behaviour(web_searches=3))
    models = make(sim).models
    models.generate_content(model=model, contents=PROMPT, config={"tools": [{"google_search": {}}]})
    list(models.generate_content_stream(model=model, contents=PROMPT, config={"tools": [{"google_search": {}}]}))
    assert [span.attributes["tokenbudget.usage.web_searches"] for span in instrumented.spans()] == [searches] * 2


@pytest.mark.parametrize(
    ("vertex", "served", "tier"),
    [(False, "flex", "flex"), (False, "standard", None), (True, "priority", "priority"), (True, "flex", "flex")],
)
def test_the_tier_that_served_a_request_makes_its_price(
    vertex: bool, served: str, tier: str | None, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(*[Behaviour(service_tier=served, input_tokens=1_000, output_tokens=100)] * 2)
    models = make(sim, vertex=vertex).models
    models.generate_content(model=MODEL, contents=PROMPT)
    list(models.generate_content_stream(model=MODEL, contents=PROMPT))
    usage = tb.TokenUsage(input_tokens=1_000, output_tokens=100)
    expected = tb.calculate_cost(MODEL, usage, "gcp.gemini", tier=tier)
    assert expected is not None
    assert expected.nano_usd is not None
    assert meter.totals.get().nano_usd == 2 * expected.nano_usd


def test_embeddings_that_are_not_counted_are_estimated(sim: Any, instrumented: Any, meter: Any) -> None:
    make(sim).models.embed_content(model="gemini-embedding-001", contents=["a river", "a bridge"])
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.usage.estimated"] is True
    assert attributes["gen_ai.usage.input_tokens"] > 0
    assert "gen_ai.usage.output_tokens" not in attributes


def test_counting_tokens_is_free(sim: Any, instrumented: Any, meter: Any) -> None:
    with tb.budget(max_calls=0):
        make(sim).models.count_tokens(model=MODEL, contents=PROMPT)
    assert instrumented.spans() == []
    assert meter.totals.get().calls == 0


@both
async def test_attempts_are_one_call(mode: str, sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(status=503, fail_times=2, input_tokens=9, output_tokens=3))
    models = of_mode(make(sim, attempts=3), mode).models
    await settled(models.generate_content(model=MODEL, contents=PROMPT))
    assert len(sim.requests) == 3
    assert (meter.totals.get().calls, meter.totals.get().usage.input_tokens) == (1, 9)
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"


@both
async def test_an_attempt_that_may_have_been_billed_is_not_forgotten(
    mode: str, sim: Any, instrumented: Any, meter: Any
) -> None:
    sim.then(Behaviour(status=500), Behaviour(status=429))
    models = of_mode(make(sim, attempts=2), mode).models
    with pytest.raises(genai.errors.ClientError) as raised:
        await settled(models.generate_content(model=MODEL, contents=PROMPT))
    assert raised.value.code == 429
    assert (meter.totals.get().calls, meter.totals.get().estimated_calls) == (1, 1)


@both
@pytest.mark.parametrize("fault", ["cut_after", "silent_end_after", "error_event_after", "malformed_after"])
async def test_streams_that_break_are_estimated(mode: str, fault: str, sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(text="word " * 40, chunks=10, input_tokens=77, chunk_s=0.001, **{fault: 4}))
    models = of_mode(make(sim), mode).models
    seen = []
    try:
        async for chunk in each(await settled(models.generate_content_stream(model=MODEL, contents=PROMPT))):
            seen.append(chunk)
    except Exception:  # what the SDK makes of it is its own affair; the contract compares that
        assert fault != "silent_end_after"
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.call.outcome"] in ("cut", "failed")
    assert attributes["tokenbudget.usage.estimated"] is True
    assert attributes["gen_ai.usage.input_tokens"] == 77  # each chunk says so
    assert attributes["gen_ai.usage.output_tokens"] >= 16
    assert seen


@pytest.mark.parametrize("library", ["aiohttp", "httpx"])
async def test_a_cancelled_task(library: str, sim: Any, instrumented: Any, meter: Any) -> None:
    args = {} if library == "aiohttp" else {"httpx_async_client": _async_client()}
    client = make(sim, **args)
    assert client._api_client._use_aiohttp() is (library == "aiohttp")
    sim.then(Behaviour(text="word " * 40, chunks=40, chunk_s=0.05))
    arrived = asyncio.Event()

    async def read() -> None:
        async for _ in await client.aio.models.generate_content_stream(model=MODEL, contents=PROMPT):
            arrived.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(arrived.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await client.aio.aclose()
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "cancelled"
    assert span.attributes["tokenbudget.usage.estimated"] is True


def _async_client() -> Any:
    import httpx

    return httpx.AsyncClient(verify=False, timeout=20)


async def test_httpx_serves_as_well(sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(input_tokens=9, output_tokens=3), Behaviour(input_tokens=9, output_tokens=3))
    async with _async_client() as http:
        models = make(sim, httpx_async_client=http).aio.models
        await models.generate_content(model=MODEL, contents=PROMPT)
        assert [item async for item in await models.generate_content_stream(model=MODEL, contents=PROMPT)]
    assert (meter.totals.get().calls, meter.totals.get().usage.input_tokens) == (2, 18)
    assert [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()] == ["completed"] * 2


async def test_a_stream_that_is_opened_and_dropped(sim: Any, instrumented: Any, meter: Any) -> None:
    """The async client sends the request before the first chunk is asked for."""
    api = make(sim)._api_client
    body = {"contents": [{"parts": [{"text": PROMPT}]}]}
    stream = await api.async_request_streamed("post", f"models/{MODEL}:streamGenerateContent?alt=sse", body)
    del stream
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0)
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.call.outcome"] in ("abandoned", "closed")
    assert attributes["tokenbudget.usage.estimated"] is True
    assert meter.totals.get().calls == 1


def test_a_stream_that_is_never_asked_costs_nothing(sim: Any, instrumented: Any, meter: Any) -> None:
    stream = make(sim).models.generate_content_stream(model=MODEL, contents=PROMPT)
    del stream
    assert instrumented.spans() == []
    assert (sim.requests, meter.totals.get().calls) == ([], 0)


def test_iterators_of_the_program_are_left_to_the_sdk(sim: Any, instrumented: Any, meter: Any) -> None:
    """A file that the SDK is to read is read by nobody else."""
    picture = types.Part.from_bytes(data=b"\x89PNG" + b"\0" * 40_000, mime_type="image/png")
    meter.enforcer.add(tb.Budget(limit_usd=1, window="hour", name="pictures"))
    make(sim).models.generate_content(model=MODEL, contents=[PROMPT, picture])
    assert sim.requests[0].json["contents"][0]["parts"][1]["inlineData"]["data"]
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"


def test_a_client_and_its_async_side_are_wrapped_as_one(sim: Any, telemetry: Any, meter: Any) -> None:
    client = make(sim)
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    assert tb.wrap(client, **options) is client
    assert tb.wrap(client.aio, **options) is client.aio
    client.models.generate_content(model=MODEL, contents=PROMPT)
    assert (len(telemetry.spans()), meter.totals.get().calls) == (1, 1)
    make(sim).models.generate_content(model=MODEL, contents=PROMPT)
    assert meter.totals.get().calls == 1
    tb.unwrap(client.aio)
    tb.unwrap(client)
    client.models.generate_content(model=MODEL, contents=PROMPT)
    assert meter.totals.get().calls == 1


def test_models_of_other_publishers_and_endpoints(sim: Any, instrumented: Any, meter: Any) -> None:
    models = make(sim, vertex=True).models
    for model in ("publishers/meta/models/llama-4", "projects/p/locations/l/endpoints/123"):
        models.generate_content(model=model, contents=PROMPT)
    asked = [span.attributes["gen_ai.request.model"] for span in instrumented.spans()]
    assert asked == ["llama-4", "projects/p/locations/l/endpoints/123"]
    assert {span.attributes["gen_ai.provider.name"] for span in instrumented.spans()} == {"gcp.vertex_ai"}
