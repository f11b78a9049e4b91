"""Errors come out as the SDK raises them; what was surely not billed is given back, and nothing else is."""

from __future__ import annotations

import socket
from typing import Any

import openai
import pydantic
import pytest
from openai_harness import (
    MESSAGES,
    VERSION,
    bare,
    chat_tokens,
    entered,
    one_call,
    outcome_of,
    read,
    response_tokens,
    seen,
    settled,
)
from opentelemetry.trace import StatusCode

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour

BUDGET = tb.Budget(limit_usd=5, name="errors")


@pytest.fixture
def budget(meter: Any) -> Any:
    meter.enforcer.add(BUDGET)

    def status() -> Any:
        (one,) = meter.enforcer.status()
        return one

    return status


async def chat(client: Any, **options: Any) -> Any:
    return await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **options))


async def chat_stream(client: Any, **options: Any) -> Any:
    return await read(await chat(client, stream=True, **options))


async def chat_helper(client: Any, **options: Any) -> Any:
    async with entered(client.chat.completions.stream(model="gpt-4o", messages=MESSAGES, **options)) as stream:
        return await read(stream)


async def chat_raw(client: Any, **options: Any) -> Any:
    return await settled(client.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES, **options))


async def chat_streaming_response(client: Any, **options: Any) -> Any:
    manager = client.chat.completions.with_streaming_response.create(model="gpt-4o", messages=MESSAGES, **options)
    async with entered(manager) as response:
        return await settled(response.parse())


WAYS = (chat, chat_stream, chat_helper, chat_raw, chat_streaming_response)

STATUSES = {
    # Status: the SDK's exception, and whether the provider may have billed it.
    400: ("BadRequestError", False),
    401: ("AuthenticationError", False),
    404: ("NotFoundError", False),
    429: ("RateLimitError", False),
    500: ("InternalServerError", True),
    503: ("InternalServerError", True),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("status", STATUSES)
async def test_statuses(status, way, client, sim, instrumented, meter, budget):
    name, billed = STATUSES[status]
    behaviour = Behaviour(status=status, error_message=f"no: {status}")
    sim.then(behaviour)
    with bare(client):
        without = await outcome_of(way(client))
    sim.then(behaviour)
    assert await outcome_of(way(client)) == without
    assert without[0] is getattr(openai, name)
    span = one_call(instrumented, meter, outcome="failed", error=f"openai.{name}", charged=billed, estimated=billed)
    assert f"no: {status}" in span.status.description
    assert budget().reserved_usd == 0
    assert bool(budget().spent_usd) is billed


async def test_timeout(client, sim, instrumented, meter, budget):
    sim.then(Behaviour(timeout=True))
    with pytest.raises(openai.APITimeoutError):
        await chat(client, timeout=0.1)
    # It may well have been answered, had we waited.
    one_call(instrumented, meter, outcome="failed", error="openai.APITimeoutError", estimated=True)
    assert budget().spent_usd > 0 == budget().reserved_usd


@pytest.mark.parametrize("way", [chat, chat_stream], ids=lambda way: way.__name__)
async def test_connection_refused(way, mode, clients, sim, instrumented, meter, budget):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        client = clients(mode, f"http://127.0.0.1:{port}/v1")
        with pytest.raises(openai.APIConnectionError) as caught:
            await way(client)
    assert type(caught.value) is openai.APIConnectionError
    # Not a byte was sent.
    one_call(instrumented, meter, outcome="failed", error="openai.APIConnectionError", charged=False)
    assert budget().spent_usd == 0 == budget().reserved_usd


async def test_dropped_connection_may_have_been_billed(client, sim, instrumented, meter):
    sim.then(Behaviour(drop=True))
    with pytest.raises(openai.APIConnectionError):
        await chat(client)
    one_call(instrumented, meter, outcome="failed", error="openai.APIConnectionError", estimated=True)


@pytest.mark.parametrize("way", [chat, chat_stream], ids=lambda way: way.__name__)
@pytest.mark.parametrize("status", [429, 500])
async def test_retries_that_succeed_are_one_call(status, way, mode, clients, sim, instrumented, meter, budget):
    client = clients(mode, max_retries=2)
    sim.then(Behaviour(status=status, fail_times=2, retry_after_s=0.01))
    await way(client)
    assert len(sim.requests) == 3
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))
    assert budget().reserved_usd == 0
    assert budget().spent_usd == meter.totals.get().cost_usd


async def test_retries_that_are_used_up(mode, clients, sim, instrumented, meter):
    client = clients(mode, max_retries=1)
    sim.then(*[Behaviour(status=429, retry_after_s=0.01)] * 2)
    with pytest.raises(openai.RateLimitError):
        await chat(client)
    assert len(sim.requests) == 2
    one_call(instrumented, meter, outcome="failed", error="openai.RateLimitError", charged=False)


async def test_an_earlier_attempt_may_have_been_billed(mode, clients, sim, instrumented, meter, budget):
    # The last answer was a refusal, but the one before came after the work: not provably unbilled.
    client = clients(mode, max_retries=1)
    sim.then(Behaviour(status=500, retry_after_s=0.01), Behaviour(status=429))
    with pytest.raises(openai.RateLimitError):
        await chat(client)
    one_call(instrumented, meter, outcome="failed", error="openai.RateLimitError", estimated=True)
    assert budget().spent_usd > 0


@pytest.mark.parametrize("body", ["malformed", "cut"])
@pytest.mark.parametrize("way", [chat, chat_streaming_response], ids=lambda way: way.__name__)
async def test_a_broken_answer_was_billed_all_the_same(way, body, client, sim, instrumented, meter, budget):
    # 200, and then JSON that cannot be read: the SDK raises, and the provider has done its work.
    behaviour = Behaviour(malformed_after=0) if body == "malformed" else Behaviour(cut_after=0)
    sim.then(behaviour)
    with bare(client):
        without = await outcome_of(way(client))
    assert issubclass(without[0], Exception)
    sim.reset()  # so that the answer is the same, to the byte
    sim.then(behaviour)
    assert await outcome_of(way(client)) == without
    span = instrumented.span()
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert meter.totals.get().calls == meter.totals.get().estimated_calls == 1
    assert budget().spent_usd > 0 == budget().reserved_usd


async def test_a_broken_answer_is_an_error_of_the_call(client, sim, instrumented):
    sim.then(Behaviour(malformed_after=0))
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        await chat(client)
    span = instrumented.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"].endswith("JSONDecodeError")


# --- helpers that raise after the answer -------------------------------------------------------------------------


class Answer(pydantic.BaseModel):
    title: str
    pages: int


async def parse_chat(client: Any) -> Any:
    return await settled(client.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=Answer))


async def parse_response(client: Any) -> Any:
    return await settled(client.responses.parse(model="gpt-4o", input="A story.", text_format=Answer))


RAISING = {
    "not the schema": (parse_chat, Behaviour(text='{"title": 1}', input_tokens=500, output_tokens=80), "chat"),
    "not json": (parse_chat, Behaviour(text="Sorry.", input_tokens=500, output_tokens=80), "chat"),
    "length": (
        parse_chat,
        Behaviour(text='{"title": "a', finish_reason="length", input_tokens=500, output_tokens=80),
        "chat",
    ),
    "filtered": (
        parse_chat,
        Behaviour(text='{"title": "a', finish_reason="content_filter", input_tokens=500, output_tokens=80),
        "chat",
    ),
    "response": (parse_response, Behaviour(text="Sorry.", input_tokens=500, output_tokens=80), "responses"),
}


@pytest.mark.parametrize("case", RAISING)
async def test_an_answer_that_parse_refuses_is_charged(case, client, sim, instrumented, meter, budget):
    """The provider answered and billed; that the helper then raises is between the program and the SDK."""
    way, behaviour, _ = RAISING[case]
    sim.then(behaviour)
    with bare(client):
        without = await outcome_of(way(client))
    assert issubclass(without[0], Exception)
    sim.reset()
    sim.then(behaviour)
    assert await outcome_of(way(client)) == without
    assert len(instrumented.spans()) == 1
    assert meter.totals.get().calls == 1
    assert budget().spent_usd > 0 == budget().reserved_usd


@pytest.mark.parametrize("case", RAISING)
async def test_an_answer_that_parse_refuses_is_counted_exactly(case, client, sim, instrumented, meter):
    way, behaviour, surface = RAISING[case]
    sim.then(behaviour)
    with pytest.raises(Exception):  # noqa: B017 - which one, the test above says
        await way(client)
    tokens = chat_tokens if surface == "chat" else response_tokens
    assert meter.totals.get().usage == tokens(sim.billed[0].usage)
    assert meter.totals.get().estimated_calls == 0


async def test_a_bad_argument_costs_nothing(client, sim, instrumented, meter, budget):
    # The body cannot be encoded: the SDK raises before a byte is sent.
    async def run() -> Any:
        return await chat(client, extra_body={"x": object()})

    with bare(client):
        without = await outcome_of(run())
    assert await outcome_of(run()) == without
    assert sim.requests == []
    assert meter.totals.get().calls == 0
    assert budget().reserved_usd == 0


async def test_a_client_that_is_closed_sends_nothing(mode, clients, sim, instrumented, meter, budget):
    client = clients(mode)
    if mode == "async":
        await client.close()
    else:
        client.close()
    with pytest.raises((openai.APIConnectionError, RuntimeError)):
        await chat(client)
    assert sim.requests == []
    assert meter.totals.get().calls == 0
    assert budget().spent_usd == 0 == budget().reserved_usd


async def test_an_error_of_the_program_in_the_transport(mode, clients, sim, instrumented, meter):
    class Unlucky(openai.DefaultAsyncHttpxClient if mode == "async" else openai.DefaultHttpxClient):  # type: ignore[misc]
        def send(self, *args: Any, **kwargs: Any) -> Any:
            raise LookupError("mine")

    # Version 2 takes whatever its HTTP client raises for a broken connection.
    kind: type[Exception] = LookupError if VERSION >= 3 else openai.APIConnectionError
    with pytest.raises(kind):
        await chat(clients(mode, http_client=Unlucky(verify=False), max_retries=0))
    assert instrumented.span().attributes["error.type"].endswith(kind.__name__)


async def test_an_error_object_carries_what_it_always_does(client, sim, instrumented):
    sim.then(Behaviour(status=429), Behaviour(status=429))
    with bare(client), pytest.raises(openai.RateLimitError) as plain:
        await chat(client)
    with pytest.raises(openai.RateLimitError) as ours:
        await chat(client)
    assert ours.value.status_code == plain.value.status_code
    assert ours.value.body == plain.value.body
    assert ours.value.code == plain.value.code
    assert ours.value.response.status_code == 429
    assert ours.value.__cause__ is plain.value.__cause__ is None
    assert seen(list(ours.value.args)) == seen(list(plain.value.args))
