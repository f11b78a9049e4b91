"""Every fault, as the real SDKs see it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest

from tokenbudget_otel.simulator import Behaviour, Simulator

ASK: list[Any] = [{"role": "user", "content": "Tell me of the river."}]
LONG = {"text": "one two three four five six seven eight", "tokens_per_chunk": 1}

CALLS: dict[str, tuple[str, Callable[..., Any]]] = {
    "chat": ("openai", lambda c, **more: c.chat.completions.create(model="gpt-5", messages=ASK, **more)),
    "responses": ("openai", lambda c, **more: c.responses.create(model="gpt-5", input="Hi", **more)),
    "messages": (
        "anthropic",
        lambda c, **more: c.messages.create(model="claude-opus-5", max_tokens=99, messages=ASK, **more),
    ),
}

STATUSES: dict[int, tuple[str, str, str]] = {
    400: ("BadRequestError", "invalid_request_error", "invalid_request_error"),
    401: ("AuthenticationError", "invalid_request_error", "authentication_error"),
    403: ("PermissionDeniedError", "invalid_request_error", "permission_error"),
    404: ("NotFoundError", "invalid_request_error", "not_found_error"),
    413: ("APIStatusError", "invalid_request_error", "request_too_large"),
    422: ("UnprocessableEntityError", "invalid_request_error", "invalid_request_error"),
    429: ("RateLimitError", "requests", "rate_limit_error"),
    500: ("InternalServerError", "server_error", "api_error"),
    503: ("InternalServerError", "server_error", "api_error"),
    529: ("InternalServerError", "server_error", "overloaded_error"),
}
"""Status -> the exceptions' name in both SDKs, the type that OpenAI gives, and Anthropic's."""


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("stream", [False, True])
def test_status(name: str, status: int, stream: bool, sim: Simulator, clients: Any) -> None:
    client, call = CALLS[name]
    kind, openai_type, anthropic_type = STATUSES[status]
    sim.then(Behaviour(status=status, error_message="Because.", retry_after_s=2))
    sdk: Any = openai if client == "openai" else anthropic
    with pytest.raises(getattr(sdk, kind)) as caught:
        call(clients.get(client), stream=stream)
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "2"
    assert "Because." in str(caught.value)
    error = caught.value.response.json()["error"]
    assert error["type"] == (openai_type if client == "openai" else anthropic_type)
    assert sim.billed == []


class StreamFault(NamedTuple):
    behaviour: Behaviour
    error: dict[str, Any]
    """What the SDKs raise, by the call; None: nothing."""


CUT = {
    "chat": openai.APIConnectionError,
    "responses": openai.APIConnectionError,
    "messages": httpx2.RemoteProtocolError,
}
STREAM_FAULTS = {
    "cut": StreamFault(Behaviour(cut_after=3, **LONG), CUT),
    "cut at once": StreamFault(Behaviour(cut_after=0, **LONG), CUT),
    "cut before the final events": StreamFault(Behaviour(cut_after=99, **LONG), CUT),
    "cut while compressed": StreamFault(Behaviour(cut_after=3, gzip=True, **LONG), CUT),
    "silent end": StreamFault(Behaviour(silent_end_after=3, **LONG), dict.fromkeys(CALLS)),
    "error event": StreamFault(
        Behaviour(error_event_after=3, **LONG),
        {"chat": openai.APIError, "responses": None, "messages": anthropic.APIStatusError},
    ),
    "malformed": StreamFault(Behaviour(malformed_after=3, **LONG), dict.fromkeys(CALLS, json.JSONDecodeError)),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
@pytest.mark.parametrize("name", CALLS)
def test_stream_fault(fault: str, name: str, sim: Simulator, clients: Any) -> None:
    client, call = CALLS[name]
    behaviour, errors = STREAM_FAULTS[fault]
    sim.then(behaviour)
    events: list[Any] = []
    error = errors[name]
    if error:
        with pytest.raises(error):
            for event in call(clients.get(client), stream=True):
                events.append(event)
    else:
        events += call(clients.get(client), stream=True)
    fault_name, count = behaviour.stream_fault or ("", 0)
    texts = [text for text in map(text_of, events) if text]
    assert "".join(texts).split() == str(behaviour.text).split()[: min(count, 8)]
    if fault_name == "error_event_after" and name == "responses":
        assert (events[-1].type, events[-1].sequence_number) == ("error", len(events) - 1)
    [bill] = sim.billed
    assert not bill.completed
    assert bill.usage.output_tokens == min(count, 8)
    assert bill.whole is not None
    assert bill.whole.output_tokens == 8


def text_of(event: Any) -> str | None:
    """The text that an event of any of the three streams carries."""
    if getattr(event, "choices", None):
        return event.choices[0].delta.content
    delta = getattr(event, "delta", None)
    return delta if isinstance(delta, str) else getattr(delta, "text", None)


@pytest.mark.parametrize("name", CALLS)
async def test_stream_cut_async(name: str, sim: Simulator, clients: Any) -> None:
    client, call = CALLS[name]
    sim.then(Behaviour(cut_after=2, **LONG))
    with pytest.raises(CUT[name]):
        async for _ in await call(clients.get(client, asynchronous=True), stream=True):
            pass


@pytest.mark.parametrize("name", CALLS)
def test_body_faults(name: str, sim: Simulator, clients: Any) -> None:
    client, call = CALLS[name]
    sdk: Any = openai if client == "openai" else anthropic
    sim.then(Behaviour(cut_after=1), Behaviour(drop=True))
    for _ in range(2):
        with pytest.raises(sdk.APIConnectionError):
            call(clients.get(client))
    sim.then(Behaviour(malformed_after=1))
    with pytest.raises(Exception, match=r"Unterminated|Expecting|invalid|delimiter"):
        call(clients.get(client))
    assert [bill.completed for bill in sim.billed] == [False, False]


@pytest.mark.parametrize("name", CALLS)
def test_timeout(name: str, sim: Simulator, clients: Any) -> None:
    client, call = CALLS[name]
    sdk: Any = openai if client == "openai" else anthropic
    sim.then(Behaviour(timeout=True), Behaviour(latency_s=5), Behaviour(first_chunk_s=5))
    for stream in (False, False, True):
        with pytest.raises((sdk.APITimeoutError, httpx2.ReadTimeout)):
            list(call(clients.get(client), timeout=0.1, stream=stream))
    assert sim.settle()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("way", "fault"),
    [
        # The SDKs' own pause after a dropped connection is long: once is enough.
        ("queue", {"drop": True}),
        *((way, {"status": status}) for way in ("queue", "default", "header") for status in (429, 500)),
    ],
)
def test_retries_succeed_in_the_end(name: str, fault: dict[str, Any], way: str, sim: Simulator, clients: Any) -> None:
    client, call = CALLS[name]
    fault = {"fail_times": 2, "retry_after_s": 0.001, **fault}
    more: dict[str, Any] = {}
    if way == "queue":
        sim.then(Behaviour(**fault))
    elif way == "default":
        sim.default = Behaviour(**fault)
    else:
        more["extra_headers"] = {"x-simulate": json.dumps(fault)}
    assert call(clients.get(client).with_options(max_retries=2), **more).usage
    assert [request.attempt for request in sim.requests] == [0, 1, 2]
    assert len(sim.billed) == 1


def test_attempts_of_other_clients_are_counted(sim: Simulator) -> None:
    sim.default = Behaviour(fail_times=2)
    body = {"model": "m", "messages": ASK}
    answers = [httpx2.post(f"{sim.openai_url}/chat/completions", json=body).status_code for _ in range(4)]
    assert answers == [500, 500, 200, 500]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(split=1, **LONG),
        Behaviour(split=7, crlf=True, **LONG),
        Behaviour(gzip=True, **LONG),
        Behaviour(gzip=True, split=3, crlf=True, **LONG),
        Behaviour(chunk_s=0.001, first_chunk_s=0.001, latency_s=0.001, **LONG),
    ],
    ids=["split", "split-crlf", "gzip", "gzip-split-crlf", "slow"],
)
async def test_odd_deliveries_are_read_as_ever(name: str, behaviour: Behaviour, sim: Simulator, clients: Any) -> None:
    client, call = CALLS[name]
    sim.default = behaviour
    assert call(clients.get(client)).usage
    events = [event async for event in await call(clients.get(client, asynchronous=True), stream=True)]
    assert "".join(filter(None, map(text_of, events))) == behaviour.text
    assert [bill.completed for bill in sim.billed] == [True, True]


def test_pauses_lie_where_they_are_asked_for(sim: Simulator, clients: Any) -> None:
    sim.then(Behaviour(latency_s=0.1, first_chunk_s=0.05, chunk_s=0.02, chunks=4, text="one two three four"))
    begin = time.perf_counter()
    stream = clients.get("openai").chat.completions.create(model="m", messages=ASK, stream=True)
    headers = time.perf_counter()
    times = []
    for _ in stream:
        times.append(time.perf_counter())
    assert headers - begin >= 0.1
    assert times[0] - headers >= 0.04
    assert times[-1] - times[0] >= 0.05


@pytest.mark.parametrize("name", CALLS)
def test_a_stream_that_is_left_is_billed_as_far_as_it_went(name: str, sim: Simulator, clients: Any) -> None:
    client, call = CALLS[name]
    sim.then(Behaviour(chunk_s=0.05, **LONG))
    stream = call(clients.get(client), stream=True)
    while not text_of(next(stream)):
        pass
    stream.close()
    assert sim.settle()
    [bill] = sim.billed
    assert not bill.completed
    assert 1 <= bill.usage.output_tokens < 8


def test_stop_does_not_wait_for_requests_that_hang() -> None:
    seen: list[BaseException] = []
    with Simulator() as sim:
        sim.default = Behaviour(timeout=True)
        client = openai.OpenAI(base_url=sim.openai_url, api_key="x", max_retries=0)

        def hang() -> None:
            try:
                client.responses.create(model="m", input="Hi")
            except openai.APIConnectionError as error:
                seen.append(error)

        threads = [threading.Thread(target=hang) for _ in range(5)]
        for thread in threads:
            thread.start()
        while sim.open_requests < 5:
            time.sleep(0.005)
        begin = time.perf_counter()
    assert time.perf_counter() - begin < 2  # Mostly some milliseconds; the machine may be busy.
    for thread in threads:
        thread.join(5)
    assert len(seen) == 5
