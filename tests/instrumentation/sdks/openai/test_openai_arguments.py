"""What the program hands to the SDK stays its own: nothing drained, nothing changed, everything sent."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import openai
import pytest
from openai._models import FinalRequestOptions
from openai_harness import (
    MESSAGES,
    ORIGINALS,
    OWNERS,
    VERSION,
    bare,
    chat_tokens,
    entered,
    mode_of,
    one_call,
    outcome_of,
    read,
    settled,
    stream_types,
)

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour

MANY = [{"role": "user", "content": f"Message {number}"} for number in range(5)]
NO_PARAMETERS = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
TOOLS = [
    # Strict, as `parse` will have them.
    {"type": "function", "function": {"name": name, "parameters": NO_PARAMETERS, "strict": True}}
    for name in ("now", "later")
]
RESPONSE_TOOLS = [{"type": "function", "name": "now", "parameters": {}, "strict": False}]


def generated(items: list[Any]) -> Any:
    yield from items


async def chat(client: Any, **options: Any) -> Any:
    return await settled(client.chat.completions.create(model="gpt-4o", **{"messages": MESSAGES} | options))


async def chat_stream(client: Any, **options: Any) -> Any:
    return await read(await chat(client, stream=True, **options))


async def chat_parse(client: Any, **options: Any) -> Any:
    return await settled(client.chat.completions.parse(model="gpt-4o", **{"messages": MESSAGES} | options))


async def chat_helper(client: Any, **options: Any) -> Any:
    async with entered(client.chat.completions.stream(model="gpt-4o", **{"messages": MESSAGES} | options)) as stream:
        return await read(stream)


async def chat_raw(client: Any, **options: Any) -> Any:
    return await settled(
        client.chat.completions.with_raw_response.create(model="gpt-4o", **{"messages": MESSAGES} | options)
    )


@pytest.mark.parametrize("budgeted", [False, True])
@pytest.mark.parametrize("way", [chat, chat_stream, chat_parse, chat_raw], ids=lambda way: way.__name__)
async def test_generators_arrive_whole(way, budgeted, client, sim, instrumented, meter):
    if budgeted:
        # A budget measures the request: it must not do so by using it up.
        meter.enforcer.add(tb.Budget(limit_usd=10, name="b", mode="worst_case"))
    if VERSION < 3 and way is chat_parse:
        tools: Any = TOOLS  # `parse` of version 2 reads a generator of tools for itself before it sends them
    else:
        tools = generated(TOOLS)
    await way(client, messages=generated(MANY), tools=tools)
    sent = sim.requests[0].json
    assert sent["messages"] == MANY
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["now", "later"]


async def test_a_generator_as_input_of_embeddings(client, sim, instrumented):
    async def run() -> Any:
        return await settled(
            client.embeddings.create(model="text-embedding-3-small", input=generated(["a river", "a bridge"]))
        )

    with bare(client):
        without = await outcome_of(run())
    assert (await outcome_of(run()))[0] == without[0]


OWN = {
    "chat": lambda: {
        "messages": copy.deepcopy(MANY),
        "tools": copy.deepcopy(TOOLS),
        "stop": ["END"],
        "metadata": {"a": "b"},
        "extra_body": {"custom": {"deep": [1, 2]}},
        "extra_headers": {"x-mine": "1"},
        "extra_query": {"q": "1"},
        "logit_bias": {"50256": -100},
        "stream_options": {"include_obfuscation": False},
    },
    "responses": lambda: {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "A river"}]}],
        "tools": copy.deepcopy(RESPONSE_TOOLS),
        "metadata": {"a": "b"},
        "extra_body": {"custom": {"deep": [1, 2]}},
        "extra_headers": {"x-mine": "1"},
    },
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("surface", OWN)
async def test_nothing_of_the_programs_is_changed(surface, streamed, mode, clients, sim, instrumented):
    defaults = {"x-default": "1"}
    client = clients(mode, default_headers=defaults)
    own = OWN[surface]()
    if not streamed:
        own.pop("stream_options", None)
    before = copy.deepcopy(own)
    resource = client.chat.completions if surface == "chat" else client.responses
    result = await settled(resource.create(model="gpt-4o", stream=streamed, **own))
    if streamed:
        await read(result)
    assert own == before
    assert defaults == {"x-default": "1"}
    assert client._custom_headers == defaults
    (request,) = sim.requests
    assert request.json["custom"] == {"deep": [1, 2]}
    assert request.json["metadata"] == {"a": "b"}
    assert request.headers["x-mine"] == request.headers["x-default"] == "1"
    assert "custom" not in own.get("metadata", {})


async def test_options_given_to_post_are_not_changed(client, sim, instrumented, meter):
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
    options = {"headers": {"x-mine": "1"}, "extra_json": {"seed": 5}}
    before = copy.deepcopy((body, options))
    stream = await settled(
        client.post(
            "/chat/completions",
            cast_to=openai.types.chat.ChatCompletionChunk,
            body=body,
            options=options,
            stream=True,
            stream_cls=stream_types(mode_of(client))[openai.types.chat.ChatCompletionChunk],
        )
    )
    await read(stream)
    assert (body, options) == before
    assert sim.requests[0].json["seed"] == 5
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


async def test_extra_body_wins_as_it_does_in_the_sdk(client, sim, instrumented, meter):
    await chat(client, extra_body={"model": "gpt-4o-mini", "temperature": 0.25})
    assert sim.requests[0].json["model"] == "gpt-4o-mini"
    span = one_call(instrumented, meter, model="gpt-4o-mini", usage=chat_tokens(sim.billed[0].usage))
    assert span.attributes["gen_ai.request.temperature"] == 0.25


async def test_extra_body_may_ask_for_a_stream_by_itself(client, sim, instrumented, meter):
    # The SDK does not know that it is a stream, reads it whole and fails to make sense of it: so be it.
    async def run() -> Any:
        return await chat(client, extra_body={"stream": True})

    with bare(client):
        without = await outcome_of(run())
    sim.reset()
    assert await outcome_of(run()) == without
    assert "stream_options" not in sim.requests[0].json
    assert meter.totals.get().calls == 1


async def test_with_options_and_copies(client, sim, instrumented, meter):
    other = client.with_options(timeout=7, max_retries=1)
    assert type(other) is type(client)
    await chat(other)
    await chat(client.copy(default_headers={"x-copy": "1"}))
    assert sim.requests[1].headers["x-copy"] == "1"
    assert meter.totals.get().calls == 2
    assert len(instrumented.spans()) == 2


async def test_a_subclass_with_a_request_of_its_own(mode, clients, sim, instrumented, meter):
    seen: list[str] = []

    class Sync(openai.OpenAI):
        def request(self, cast_to: Any, options: Any, **kwargs: Any) -> Any:
            seen.append(options.url)
            return super().request(cast_to, options, **kwargs)

    class Async(openai.AsyncOpenAI):
        async def request(self, cast_to: Any, options: Any, **kwargs: Any) -> Any:
            seen.append(options.url)
            return await super().request(cast_to, options, **kwargs)

    await chat_stream(clients(mode, cls=Async if mode == "async" else Sync))
    assert seen == ["/chat/completions"]
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


async def test_a_transport_of_the_programs_own(mode, clients, sim, instrumented, meter):
    sent: list[Any] = []

    async def note_async(request: Any) -> None:
        sent.append(request)

    http = openai.DefaultAsyncHttpxClient if mode == "async" else openai.DefaultHttpxClient
    hook = note_async if mode == "async" else sent.append
    client = clients(mode, http_client=http(verify=False, event_hooks={"request": [hook]}))
    await chat_stream(client)
    assert len(sent) == 1
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


async def test_positional_arguments_of_request(client, sim, instrumented, meter):
    options = FinalRequestOptions.construct(
        method="post", url="/chat/completions", json_data={"model": "gpt-4o", "messages": MESSAGES}
    )
    made = await settled(client.request(openai.types.chat.ChatCompletion, options))
    assert isinstance(made, openai.types.chat.ChatCompletion)
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))


async def test_the_signature_stays(instrumented):
    for mode, owner in OWNERS.items():
        assert inspect.signature(owner.request) == inspect.signature(ORIGINALS[mode])
        assert inspect.iscoroutinefunction(owner.request) is (mode == "async")
        assert owner.request.__qualname__ == ORIGINALS[mode].__qualname__


ODD = {
    "numbers as text": {"temperature": "0.5", "max_tokens": "10"},
    "model that is none": {"model": None},
    "model as a list": {"model": ["gpt-4o"]},
    "no messages": {"messages": None},
    "messages as text": {"messages": "hello"},
    "huge": {"max_tokens": 10**30, "n": 1},
    "stop as tuple": {"stop": ("a", "b")},
    "nan": {"seed": True, "frequency_penalty": -5},
}


@pytest.mark.parametrize("case", ODD)
async def test_odd_arguments_are_between_the_program_and_the_sdk(case, client, sim, instrumented, meter):
    options = {"model": "gpt-4o", "messages": MESSAGES} | ODD[case]

    async def run() -> Any:
        return await settled(client.chat.completions.create(**options))

    meter.enforcer.add(tb.Budget(limit_calls=100, name="b", mode="worst_case"))
    sim.default = Behaviour(text="Fine.")
    with bare(client):
        without = await outcome_of(run())
    sim.reset()
    sim.default = Behaviour(text="Fine.")
    assert await outcome_of(run()) == without
