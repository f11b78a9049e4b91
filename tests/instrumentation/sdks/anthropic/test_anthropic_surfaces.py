"""Every way to call the Messages API: one span, one charge, and the SDK's own objects with the SDK's own data."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic_doors import BODY, MODEL, assert_booked_exactly, client_of, each, entered, in_our_words, known, settled

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall


class Weather(pydantic.BaseModel):
    """What structured outputs are asked for."""

    place: str
    degrees: int


# --- ways to call. Each gives what the program sees of the answer, to be held against an uninstrumented client --------


async def create(client: Any, body: Mapping[str, Any]) -> Any:
    message = await settled(client.messages.create(**body))
    assert type(message) is anthropic.types.Message
    return message


async def create_stream(client: Any, body: Mapping[str, Any]) -> Any:
    stream = await settled(client.messages.create(**body, stream=True))
    assert type(stream) in (anthropic.Stream, anthropic.AsyncStream)
    return [event async for event in each(stream)]


async def stream_in_with(client: Any, body: Mapping[str, Any]) -> Any:
    async with entered(await settled(client.messages.create(**body, stream=True))) as stream:
        return [event async for event in each(stream)]


async def helper_events(client: Any, body: Mapping[str, Any]) -> Any:
    async with entered(client.messages.stream(**body)) as stream:
        assert isinstance(stream, anthropic.MessageStream | anthropic.AsyncMessageStream)
        return [event async for event in each(stream)]


async def helper_text(client: Any, body: Mapping[str, Any]) -> Any:
    async with entered(client.messages.stream(**body)) as stream:
        return [text async for text in each(stream.text_stream)]


async def helper_final_message(client: Any, body: Mapping[str, Any]) -> Any:
    async with entered(client.messages.stream(**body)) as stream:
        return await settled(stream.get_final_message())


async def helper_final_text(client: Any, body: Mapping[str, Any]) -> Any:
    async with entered(client.messages.stream(**body)) as stream:
        return await settled(stream.get_final_text())


async def helper_until_done(client: Any, body: Mapping[str, Any]) -> Any:
    async with entered(client.messages.stream(**body)) as stream:
        await settled(stream.until_done())
        return stream.current_message_snapshot


async def parse(client: Any, body: Mapping[str, Any]) -> Any:
    message = await settled(client.messages.parse(**body, output_format=Weather))
    assert isinstance(message.parsed_output, Weather)
    return message


async def beta_create(client: Any, body: Mapping[str, Any]) -> Any:
    return await settled(client.beta.messages.create(**body, betas=["context-1m-2025-08-07"]))


async def beta_create_stream(client: Any, body: Mapping[str, Any]) -> Any:
    return [event async for event in each(await settled(client.beta.messages.create(**body, stream=True)))]


async def beta_helper(client: Any, body: Mapping[str, Any]) -> Any:
    async with entered(client.beta.messages.stream(**body)) as stream:
        return await settled(stream.get_final_message())


async def beta_parse(client: Any, body: Mapping[str, Any]) -> Any:
    return await settled(client.beta.messages.parse(**body, output_format=Weather))


async def raw(client: Any, body: Mapping[str, Any]) -> Any:
    response = await settled(client.messages.with_raw_response.create(**body))
    message = await settled(response.parse())
    assert response.status_code == 200
    return message, response.http_response.content


async def raw_unparsed(client: Any, body: Mapping[str, Any]) -> Any:
    return (await settled(client.messages.with_raw_response.create(**body))).http_response.content


async def raw_stream(client: Any, body: Mapping[str, Any]) -> Any:
    response = await settled(client.messages.with_raw_response.create(**body, stream=True))
    return [event async for event in each(await settled(response.parse()))]


async def beta_raw_stream(client: Any, body: Mapping[str, Any]) -> Any:
    response = await settled(client.beta.messages.with_raw_response.create(**body, stream=True))
    return [event async for event in each(await settled(response.parse()))]


def streaming_response(
    read: Callable[[Any], Awaitable[Any]], *, stream: bool, beta: bool = False
) -> Callable[[Any, Mapping[str, Any]], Awaitable[Any]]:
    async def call(client: Any, body: Mapping[str, Any]) -> Any:
        messages = client.beta.messages if beta else client.messages
        more = {"stream": True} if stream else {}
        async with entered(messages.with_streaming_response.create(**body, **more)) as response:
            return await read(response)

    return call


async def _parsed(response: Any) -> Any:
    return await settled(response.parse())


async def _parsed_stream(response: Any) -> Any:
    return [event async for event in each(await settled(response.parse()))]


async def _read(response: Any) -> Any:
    return await settled(response.read())


async def _text(response: Any) -> Any:
    return await settled(response.text())


async def _json(response: Any) -> Any:
    return await settled(response.json())


async def _lines(response: Any) -> Any:
    return [line async for line in each(response.iter_lines())]


async def _bytes(response: Any) -> Any:
    return b"".join([part async for part in each(response.iter_bytes(7))])


WAYS: dict[str, Callable[[Any, Mapping[str, Any]], Awaitable[Any]]] = {
    **{
        way.__name__: way
        for way in (
            create, create_stream, stream_in_with, helper_events, helper_text, helper_final_message, helper_final_text,
            helper_until_done, parse, beta_create, beta_create_stream, beta_helper, beta_parse, raw, raw_unparsed,
            raw_stream, beta_raw_stream,
        )
    },
    "streaming_parse": streaming_response(_parsed, stream=False),
    "streaming_read": streaming_response(_read, stream=False),
    "streaming_text": streaming_response(_text, stream=False),
    "streaming_json": streaming_response(_json, stream=False),
    "streaming_lines": streaming_response(_lines, stream=False),
    "streaming_bytes": streaming_response(_bytes, stream=False),
    "streaming_stream_parse": streaming_response(_parsed_stream, stream=True),
    "streaming_stream_lines": streaming_response(_lines, stream=True),
    "streaming_stream_bytes": streaming_response(_bytes, stream=True),
    "streaming_stream_read": streaming_response(_read, stream=True),
    "beta_streaming_stream_lines": streaming_response(_lines, stream=True, beta=True),
}  # fmt: skip
STREAMED = {name for name in WAYS if "stream" in name and not name.startswith("streaming_")} | {
    name for name in WAYS if "streaming_stream" in name or "helper" in name
}

USED = Behaviour(
    text=json.dumps({"place": "Rome", "degrees": 21}),
    input_tokens=160, cached_tokens=40, cache_write_5m_tokens=20, output_tokens=50,
)  # fmt: skip


def plain(value: Any) -> Any:
    """Data without identity, to be compared."""
    if isinstance(value, pydantic.BaseModel):
        return type(value).__name__, value.model_dump()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@pytest.mark.parametrize("name", WAYS)
async def test_one_span_one_charge_and_the_same_data(
    name: str, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    way = WAYS[name]
    sim.default = USED
    seen = plain(await way(client, BODY))
    span = instrumented.span()
    assert span.name == f"chat {MODEL}"
    assert span.attributes[semconv.USAGE_INPUT_TOKENS] == 160, "with what was read from and written to the cache"
    assert span.attributes[semconv.USAGE_OUTPUT_TOKENS] == 50
    assert span.attributes[semconv.RESPONSE_FINISH_REASONS] == ("stop",)
    assert span.attributes[semconv.RESPONSE_MODEL] == MODEL
    assert span.attributes[semconv.RESPONSE_ID].startswith("msg_")
    assert (span.attributes.get(semconv.REQUEST_STREAM) is True) == (name in STREAMED)
    assert (semconv.RESPONSE_TIME_TO_FIRST_CHUNK in span.attributes) == (name in STREAMED)
    assert_booked_exactly(meter, span, sim.billed[0])
    assert len(sim.requests) == 1
    sent = sim.requests[0]

    tb.uninstrument()
    sim.reset()
    sim.default = USED
    assert plain(await way(client, BODY)) == seen, "the program cannot tell"
    assert sim.requests[0].json == sent.json
    assert sim.requests[0].headers == sent.headers


async def test_streaming_response_that_is_never_read(
    client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = Behaviour(output_tokens=50)
    async with entered(client.messages.with_streaming_response.create(**BODY)) as response:
        assert response.status_code == 200
    span = instrumented.span()
    assert span.attributes[semconv.CALL_OUTCOME] == "closed"
    assert span.attributes[semconv.USAGE_ESTIMATED] is True
    assert meter.totals.get().calls == 1


def test_a_streaming_response_is_not_read_before_the_program_reads_it(
    sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    with client_of(sim).messages.with_streaming_response.create(**BODY) as response:
        assert not response.is_closed
        assert not response.http_response.is_stream_consumed
        response.read()


# --- what is counted -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """A behaviour, what the request adds, and what is to be booked besides the books' own counts."""

    behaviour: Behaviour
    body: Mapping[str, Any] = field(default_factory=dict)
    tier: str | None = None
    finish: str = "stop"


COUNTED = {
    "plain": Counted(Behaviour()),
    "cache_read": Counted(Behaviour(input_tokens=5_000, cached_tokens=4_500, output_tokens=10)),
    "cache_write_5m": Counted(Behaviour(input_tokens=5_000, cache_write_5m_tokens=4_000, output_tokens=10)),
    "cache_write_1h": Counted(Behaviour(input_tokens=5_000, cache_write_1h_tokens=4_000, output_tokens=10)),
    "cache_all": Counted(
        Behaviour(
            input_tokens=5_000, cached_tokens=1_000, cache_write_5m_tokens=500, cache_write_1h_tokens=2_000,
            output_tokens=10,
        )
    ),
    "thinking": Counted(Behaviour(thinking="let me see now", reasoning_tokens=300, output_tokens=350)),
    "tool_use": Counted(
        Behaviour(tool_calls=(ToolCall("weather", {"place": "Rome"}),)),
        {"tools": [{"name": "weather", "input_schema": {"type": "object"}}]},
        finish="tool_call",
    ),
    "web_search": Counted(
        Behaviour(web_searches=3, input_tokens=900, output_tokens=40),
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]},
    ),
    "refusal": Counted(Behaviour(refusal="No."), finish="content_filter"),
    "length": Counted(Behaviour(finish_reason="max_tokens"), finish="length"),
    "pause": Counted(Behaviour(finish_reason="pause_turn"), finish="pause_turn"),
    "priority": Counted(Behaviour(service_tier="priority"), {"service_tier": "auto"}, tier="priority"),
    "long_context": Counted(Behaviour(input_tokens=300_000, output_tokens=1_000)),
    "snapshot": Counted(Behaviour(model="claude-sonnet-4-6-20991231")),
}  # fmt: skip


@pytest.mark.parametrize("streamed", (False, True), ids=("whole", "streamed"))
@pytest.mark.parametrize("name", COUNTED)
async def test_what_the_provider_counts_is_what_is_booked(
    name: str, streamed: bool, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    case = COUNTED[name]
    sim.default = case.behaviour
    way = helper_final_message if streamed else create
    await way(client, {**BODY, **case.body})
    span = instrumented.span()
    usage = in_our_words(sim.billed[0].usage)
    assert known(meter.totals.get().usage) == usage
    assert span.attributes[semconv.RESPONSE_FINISH_REASONS] == (case.finish,)
    if name == "snapshot":  # of a model whose snapshot the catalog does not know: priced as the one asked for
        cost = tb.calculate_cost(MODEL, usage, provider="anthropic")
        assert cost is not None
        assert meter.totals.get().nano_usd == cost.nano_usd
        assert span.attributes[semconv.RESPONSE_MODEL] == "claude-sonnet-4-6-20991231"
        return
    assert_booked_exactly(meter, span, sim.billed[0], tier=case.tier)
    if name == "web_search":
        assert meter.totals.get().usage.web_searches == 3
        without = tb.calculate_cost(MODEL, usage.replace(web_searches=None), provider="anthropic")
        assert without is not None
        assert meter.totals.get().nano_usd - without.nano_usd == 30_000_000, "10 dollars for a thousand searches"
    if name == "priority":
        assert span.attributes[semconv.ANTHROPIC_REQUEST_SERVICE_TIER] == "auto"


@pytest.mark.parametrize("streamed", (False, True), ids=("whole", "streamed"))
async def test_fast_mode_has_prices_of_its_own(
    streamed: bool, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.default = Behaviour(input_tokens=1_000, output_tokens=1_000, speed="fast", model="claude-opus-5")
    body = {**BODY, "model": "claude-opus-5", "extra_body": {"speed": "fast"}, "max_tokens": 2_000}
    await (create_stream if streamed else create)(client, body)
    usage = tb.TokenUsage(input_tokens=1_000, output_tokens=1_000)
    fast, usual = (tb.calculate_cost("claude-opus-5", usage, provider="anthropic", tier=t) for t in ("fast", None))
    assert fast is not None
    assert usual is not None
    assert meter.totals.get().nano_usd == fast.nano_usd > usual.nano_usd


async def test_count_tokens_is_not_charged(client: Any, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=0))
    counted = await settled(
        client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "How many?"}])
    )
    await settled(client.beta.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "How many?"}]))
    assert counted.input_tokens > 0
    assert meter.totals.get().calls == 0
    assert instrumented.spans() == []


async def test_request_attributes(client: Any, sim: Simulator, instrumented: Any) -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 7}  # no longer named by the SDK, still sent by programs
    await settled(client.messages.create(**BODY, stop_sequences=["STOP"], stream=False, extra_body=sampling))
    attributes = instrumented.span().attributes
    assert attributes[semconv.REQUEST_MAX_TOKENS] == 500
    assert attributes[semconv.REQUEST_TEMPERATURE] == 0.5
    assert attributes[semconv.REQUEST_TOP_P] == 0.9
    assert attributes[semconv.REQUEST_TOP_K] == 7
    assert attributes[semconv.REQUEST_STOP_SEQUENCES] == ("STOP",)
    assert semconv.REQUEST_STREAM not in attributes
    assert attributes[semconv.SERVER_ADDRESS] == "127.0.0.1"
    assert attributes[semconv.SERVER_PORT] == int(sim.url.rpartition(":")[2])
    text = " ".join(map(str, attributes.values()))
    assert "Tell me a story" not in text, "content is off by default"


async def test_metrics(client: Any, sim: Simulator, instrumented: Any) -> None:
    sim.default = USED
    await create_stream(client, BODY)
    metrics = instrumented.metrics()
    tokens = {point.attributes[semconv.TOKEN_TYPE]: point.sum for point in metrics[semconv.METRIC_TOKEN_USAGE]}
    assert tokens == {"input": 160, "output": 50}
    assert [point.count for point in metrics[semconv.METRIC_DURATION]] == [1]
    assert [point.count for point in metrics[semconv.METRIC_TIME_TO_FIRST_CHUNK]] == [1]
    cost = tb.calculate_cost(
        MODEL,
        tb.TokenUsage(input_tokens=160, output_tokens=50, cache_read_tokens=40, cache_write_tokens=20,
                      cache_write_5m_tokens=20),
        provider="anthropic",
    )  # fmt: skip
    assert cost is not None
    assert [point.value for point in metrics[semconv.METRIC_COST]] == [pytest.approx(cost.nano_usd / 1e9)]


@pytest.mark.parametrize("kind", (list, tuple, iter, lambda values: (value for value in values)))
async def test_messages_of_any_iterable_reach_the_provider_whole(
    kind: Any, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    """Peers drain a generator, and the request goes out with no messages."""
    meter.enforcer.add(tb.Budget(limit_usd=50, mode="worst_case"))
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    messages.append({"role": "user", "content": "three"})
    await settled(client.messages.create(model=MODEL, max_tokens=10, messages=kind(messages)))
    assert sim.requests[0].json["messages"] == messages
    assert meter.totals.get().calls == 1


async def test_nothing_of_the_programs_is_changed(client: Any, sim: Simulator, instrumented: Any) -> None:
    body = json.loads(json.dumps({**BODY, "metadata": {"user_id": "u"}, "system": [{"type": "text", "text": "Be."}]}))
    before = json.dumps(body)
    await settled(client.messages.create(**body))
    async with entered(client.messages.stream(**body)) as stream:
        await settled(stream.get_final_message())
    assert json.dumps(body) == before


async def test_tags_are_on_the_span_and_in_the_totals(client: Any, sim: Simulator, instrumented: Any) -> None:
    with tb.tags(tenant="acme", feature="chat"):
        await create(client, BODY)
    assert instrumented.span().attributes[semconv.TAG_PREFIX + "tenant"] == "acme"
    assert tb.usage(by=("tenant", "feature"))["acme", "chat"].calls == 1
