"""Exact usage of streams that nobody asked for it: what is added to the request, and that nothing of it shows."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from openai_harness import MESSAGES, bare, chat_tokens, entered, one_call, read, seen, settled

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour

BEHAVIOUR = Behaviour(
    text="The river turns east, and the bridge is old. 河は流れる. “quoted”, {braces} and \\ too.",
    chunks=9,
    input_tokens=300,
    cached_tokens=200,
    output_tokens=60,
    reasoning_tokens=20,
)
INCLUDE = {"stream_options": {"include_usage": True}}


async def stream_of(client: Any, **options: Any) -> list[Any]:
    return await read(
        await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True, **options))
    )


async def both(client: Any, sim: Any, behaviour: Behaviour, **options: Any) -> tuple[Any, Any, Any]:
    """What the program sees without us and with us, and the request that we sent."""
    results = []
    for uninstrumented in (True, False):
        sim.reset()
        sim.then(behaviour, behaviour)
        if uninstrumented:
            with bare(client):
                results.append(seen(await stream_of(client, **options)))
        else:
            results.append(seen(await stream_of(client, **options)))
    return results[0], results[1], sim.requests[-1].json


async def test_asked_for_and_withheld(client, sim, instrumented, meter):
    without, with_us, request = await both(client, sim, BEHAVIOUR)
    assert with_us == without
    assert request["stream_options"] == {"include_usage": True}
    assert all("usage" not in chunk for _, chunk in with_us)
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


# What the program asks itself, and whether its stream then tells the usage.
OWN = {
    "true": ({"include_usage": True}, True),
    "false": ({"include_usage": False}, False),
}


@pytest.mark.parametrize("where", ["argument", "extra_body"])
@pytest.mark.parametrize("own", OWN)
async def test_the_programs_own_choice_stands(own, where, client, sim, instrumented, meter):
    options, told = OWN[own]
    given = {"stream_options": options} if where == "argument" else {"extra_body": {"stream_options": options}}
    without, with_us, request = await both(client, sim, BEHAVIOUR, **given)
    assert with_us == without
    assert request["stream_options"] == options
    if told:
        assert with_us[-1][1]["usage"]["prompt_tokens"] == 300
        one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))
    else:
        # Asked not to be told: an estimate, that says so.
        one_call(instrumented, meter, estimated=True)


@pytest.mark.parametrize("where", ["argument", "extra_body"])
async def test_other_stream_options_are_kept_and_usage_is_exact(where, client, sim, instrumented, meter):
    options = {"include_obfuscation": False}
    given = {"stream_options": options} if where == "argument" else {"extra_body": {"stream_options": options}}
    without, with_us, request = await both(client, sim, BEHAVIOUR, **given)
    assert with_us == without
    assert options == {"include_obfuscation": False}
    assert request["stream_options"]["include_obfuscation"] is False
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


@pytest.mark.parametrize("how", ["argument", "environment"])
async def test_opting_out(how, mode, clients, sim, telemetry, meter, monkeypatch):
    if how == "environment":
        monkeypatch.setenv("TOKENBUDGET_STREAM_USAGE", "false")
    tb.instrument(
        telemetry.tracer_provider, telemetry.meter_provider, stream_usage=False if how == "argument" else None
    )
    try:
        client = clients(mode)
        without, with_us, request = await both(client, sim, BEHAVIOUR)
        assert with_us == without
        assert "stream_options" not in request
        one_call(telemetry, meter, estimated=True)
    finally:
        tb.uninstrument()


async def test_whole_answers_are_sent_as_they_are(client, sim, instrumented):
    await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES))
    with bare(client):
        await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES))
    ours, plain = sim.requests
    assert ours.body == plain.body
    assert {name: value for name, value in ours.headers.items() if name != "idempotency-key"} == {
        name: value for name, value in plain.headers.items() if name != "idempotency-key"
    }


# --- how the bytes come ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [1, 2, 3, 7, 64, None])
@pytest.mark.parametrize("crlf", [False, True])
@pytest.mark.parametrize("asked", [False, True])
async def test_in_pieces(split, crlf, asked, client, sim, instrumented, meter):
    behaviour = Behaviour(
        text=BEHAVIOUR.text, chunks=4, input_tokens=300, output_tokens=60, cached_tokens=200, split=split, crlf=crlf
    )
    without, with_us, _ = await both(client, sim, behaviour, **(INCLUDE if asked else {}))
    assert with_us == without
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("split", [5, None])
async def test_compressed_against_our_request(split, asked, client, sim, instrumented, meter):
    # We ask for an uncompressed body, so that the chunk can be withheld; a server need not follow.
    behaviour = Behaviour(
        text=BEHAVIOUR.text, chunks=4, input_tokens=300, output_tokens=60, cached_tokens=200, split=split, gzip=True
    )
    without, with_us, _ = await both(client, sim, behaviour, **(INCLUDE if asked else {}))
    words = [[chunk["choices"][0]["delta"] for _, chunk in side if chunk["choices"]] for side in (without, with_us)]
    assert words[0] == words[1]
    if asked:
        assert with_us == without
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


@pytest.mark.parametrize("surface", ["chat", "responses"])
async def test_compressed_json_read_late(surface, client, sim, instrumented, meter):
    sim.then(Behaviour(gzip=True, input_tokens=300, output_tokens=60))
    resource, body = (
        (client.chat.completions, {"messages": MESSAGES})
        if surface == "chat"
        else (client.responses, {"input": "A story."})
    )
    async with entered(resource.with_streaming_response.create(model="gpt-4o", **body)) as response:
        assert (await settled(response.json()))["usage"]
    assert meter.totals.get().usage.input_tokens == 300
    assert meter.totals.get().estimated_calls == 0


def _events(*chunks: Any, tight: bool) -> bytes:
    separators = (",", ":") if tight else (", ", ": ")
    return b"".join(b"data: %s\n\n" % json.dumps(chunk, separators=separators).encode() for chunk in chunks) + (
        b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize("buffered", [False, True], ids=["streamed", "buffered"])
@pytest.mark.parametrize("tight", [True, False], ids=["compact", "spaced"])
async def test_null_usage_on_every_chunk_does_not_show(tight, buffered, mode, clients, sim, instrumented, meter):
    """Asked for usage, OpenAI writes `usage: null` on all other chunks; servers in Python write it with a space.

    Buffered: a transport of the program's own (a cache, a recorder) has read the body before the SDK gets it.
    """

    def answer(request: Any) -> Any:
        asked = bool(json.loads(request.content).get("stream_options"))
        empty = {"usage": None} if asked else {}
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
        say = [{"index": 0, "delta": {"content": 'a ,"usage":null b'}, "finish_reason": None}]
        end = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        chunks = [base | {"choices": say} | empty, base | {"choices": end} | empty]
        if asked:
            chunks.append(base | {"choices": [], "usage": usage})
        body = _events(*chunks, tight=tight)
        return httpx2.Response(
            200,
            headers={"content-type": "text/event-stream"},
            **({"content": body} if buffered else {"stream": httpx2.ByteStream(body)}),
        )

    http = httpx2.AsyncClient if mode == "async" else httpx2.Client
    client = clients(mode, "http://127.0.0.1:1/v1", http_client=http(transport=httpx2.MockTransport(answer)))
    with bare(client):
        without = seen(await stream_of(client))
    assert seen(await stream_of(client)) == without
    one_call(instrumented, meter, usage=tb.TokenUsage(input_tokens=7, output_tokens=5))


# --- hosts that refuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["strict", "strict422"])
async def test_a_host_that_refuses_is_asked_once_and_remembered(host, mode, clients, sim, instrumented, meter):
    client = clients(mode, sim.host_url(host))
    sim.default = BEHAVIOUR
    with bare(client):
        without = seen(await stream_of(client))
    sim.reset()
    sim.default = BEHAVIOUR
    assert seen(await stream_of(client)) == without
    assert ["stream_options" in request.json for request in sim.requests] == [True, False]
    one_call(instrumented, meter, estimated=True)

    await stream_of(client)
    await stream_of(client.with_options(timeout=20))
    assert ["stream_options" in request.json for request in sim.requests] == [True, False, False, False]
    # The refusal is that of one host: another is still asked.
    await stream_of(clients(mode))
    assert "stream_options" in sim.requests[-1].json
    assert meter.totals.get().calls == 4


@pytest.mark.parametrize("host", ["strict", "strict422"])
async def test_a_refusal_of_the_programs_own_options_reaches_it(host, mode, clients, sim, instrumented, meter):
    client = clients(mode, sim.host_url(host))
    with pytest.raises(openai.APIStatusError) as caught:
        await stream_of(client, **INCLUDE)
    assert len(sim.requests) == 1
    one_call(instrumented, meter, outcome="failed", error=f"openai.{type(caught.value).__name__}", charged=False)


async def test_another_bad_request_is_not_tried_again(client, sim, instrumented, meter):
    sim.then(Behaviour(status=400, error_message="max_tokens is too large"))
    with pytest.raises(openai.BadRequestError):
        await stream_of(client)
    assert len(sim.requests) == 1
    one_call(instrumented, meter, outcome="failed", error="openai.BadRequestError", charged=False)
