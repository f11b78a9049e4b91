"""Raw and streaming responses: counted however they are read, and read exactly as the SDK gives them."""

from __future__ import annotations

from typing import Any

import pytest
from openai_harness import MESSAGES, bare, chat_tokens, entered, http, one_call, read, response_tokens, seen, settled

from tokenbudget_otel.simulator import Behaviour

BEHAVIOUR = Behaviour(
    text="The river turns east, and the bridge is old. 河は流れる.",
    input_tokens=300,
    cached_tokens=200,
    output_tokens=60,
    reasoning_tokens=20,
)
SURFACES = {
    "chat": ("gpt-4o", chat_tokens, lambda client: client.chat.completions, {"messages": MESSAGES}),
    "responses": ("gpt-5", response_tokens, lambda client: client.responses, {"input": "Tell me a story."}),
}


async def parse(response: Any) -> Any:
    parsed = await settled(response.parse())
    return await read(parsed) if hasattr(parsed, "response") else parsed


async def parse_twice(response: Any) -> Any:
    first = await settled(response.parse())
    assert await settled(response.parse()) is first
    return first


async def read_all(response: Any) -> Any:
    return await settled(response.read())


async def text(response: Any) -> Any:
    return await settled(response.text())


async def json(response: Any) -> Any:
    return await settled(response.json())


async def lines(response: Any) -> Any:
    return await read(response.iter_lines())


async def pieces(response: Any) -> Any:
    return b"".join(await read(response.iter_bytes()))


async def pieces_of_7(response: Any) -> Any:
    return b"".join(await read(response.iter_bytes(7)))


async def texts(response: Any) -> Any:
    return "".join(await read(response.iter_text()))


async def parse_custom(response: Any) -> Any:
    return await settled(response.parse(to=str))


STREAMING_READERS = {
    False: (parse, parse_twice, parse_custom, read_all, text, json, lines, pieces, pieces_of_7, texts),
    True: (parse, read_all, text, lines, pieces, pieces_of_7, texts),
}
STREAMING = [(reader, streamed) for streamed, readers in STREAMING_READERS.items() for reader in readers]


def _id(value: Any) -> str:
    return value.__name__ if callable(value) else {True: "stream", False: "whole"}.get(value, str(value))


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("reader", "streamed"), STREAMING, ids=_id)
async def test_with_streaming_response(reader, streamed, surface, client, sim, instrumented, meter):
    model, tokens, resource, body = SURFACES[surface]

    async def run() -> Any:
        sim.reset()
        sim.then(BEHAVIOUR)
        manager = resource(client).with_streaming_response.create(model=model, stream=streamed, **body)
        async with entered(manager) as response:
            # Nothing may read the body before the program does.
            assert not response.http_response.is_stream_consumed
            return type(response).__name__, seen(await reader(response))

    with bare(client):
        without = await run()
    assert await run() == without
    one_call(instrumented, meter, model=model, usage=tokens(sim.billed[0].usage))


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("streamed", [False, True])
async def test_with_streaming_response_not_read(surface, streamed, client, sim, instrumented, meter):
    model, _, resource, body = SURFACES[surface]
    sim.then(BEHAVIOUR)
    manager = resource(client).with_streaming_response.create(model=model, stream=streamed, **body)
    async with entered(manager):
        pass
    assert len(instrumented.exporter.get_finished_spans()) == 1
    one_call(instrumented, meter, model=model, outcome="closed", estimated=True)


async def raw_parse(raw: Any) -> Any:
    return await parse(raw)


async def raw_content(raw: Any) -> Any:
    return raw.content


async def raw_text(raw: Any) -> Any:
    return raw.text


async def raw_nothing(raw: Any) -> Any:
    return raw.status_code


RAW = [(raw_parse, False), (raw_content, False), (raw_text, False), (raw_nothing, False), (raw_parse, True)]


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("reader", "streamed"), RAW, ids=_id)
async def test_with_raw_response(reader, streamed, surface, client, sim, instrumented, meter):
    model, tokens, resource, body = SURFACES[surface]

    async def run() -> Any:
        sim.reset()
        sim.then(BEHAVIOUR)
        raw = await settled(resource(client).with_raw_response.create(model=model, stream=streamed, **body))
        assert raw.headers["x-request-id"]
        return type(raw).__name__, seen(await reader(raw))

    with bare(client):
        without = await run()
    assert await run() == without
    one_call(instrumented, meter, model=model, usage=tokens(sim.billed[0].usage))


@pytest.mark.parametrize("method", ["iter_lines", "iter_text", "iter_bytes", "iter_raw"])
async def test_raw_stream_read_from_the_http_response(method, mode, client, sim, instrumented, meter):
    async def run() -> Any:
        sim.reset()
        sim.then(BEHAVIOUR)
        raw = await settled(
            client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES, stream=True)
        )
        parts = await read(getattr(raw.http_response, method if mode == "sync" else f"a{method}")())
        return seen(parts if method == "iter_lines" else parts[0][:0].join(parts))

    with bare(client):
        without = await run()
    # The chunk that only our request for usage brought is in none of these.
    assert await run() == without
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


async def test_with_raw_response_of_parse(client, sim, instrumented, meter):
    sim.then(BEHAVIOUR)
    raw = await settled(client.chat.completions.with_raw_response.parse(model="gpt-4o", messages=MESSAGES))
    assert raw.parse().choices[0].message.content == BEHAVIOUR.text
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


async def test_raw_embeddings(client, sim, instrumented, meter):
    raw = await settled(client.embeddings.with_raw_response.create(model="text-embedding-3-small", input="a river"))
    assert len(raw.parse().data[0].embedding) == 1536
    assert meter.totals.get().usage.input_tokens == sim.billed[0].usage.input_tokens


async def test_the_http_response_itself(client, sim, instrumented, meter):
    sim.then(BEHAVIOUR)
    response = await settled(
        client.post("/chat/completions", cast_to=http.Response, body={"model": "gpt-4o", "messages": MESSAGES})
    )
    assert type(response) is http.Response
    assert response.json()["usage"]["prompt_tokens"] == 300
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))
