"""What is particular to OpenAI's responses over a websocket: they are counted as the same responses over HTTP."""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_rows import ResponsesTalk, responses_row, say

import tokenbudget_otel as tb
from both_modes import settled
from tokenbudget_otel.instrumentation.endpoint import Peer
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.instrumentation.openai_realtime import ResponsesSession
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

openai = pytest.importorskip("openai", reason="openai is not installed here")
owner = pytest.importorskip("openai.resources.responses.responses")
if not hasattr(owner.Responses, "connect"):
    pytest.skip("this version of the SDK has no responses over a websocket", allow_module_level=True)

Make = Callable[[Any], Any]
SYNC, ASYNC = responses_row("sync", "OpenAI"), responses_row("async", "AsyncOpenAI")
SLOW = Behaviour(text="One two three " * 20, chunk_s=0.02, tokens_per_chunk=1, input_tokens=100, output_tokens=60)
STEERABLE = pytest.mark.skipif(
    not hasattr(owner.ResponsesResponseResource, "steer"), reason="this version of the SDK cannot steer responses"
)


@pytest.fixture(params=[SYNC, ASYNC], ids=["sync", "async"])
def row(request: pytest.FixtureRequest) -> Any:
    return request.param


def reserved(meter: Meter) -> list[int]:
    return [status.reserved_calls for status in meter.enforcer.status()]


async def read_until(talk: Any, *kinds: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    left = list(kinds)
    while left:
        event = await settled(talk.connection.recv())
        events.append(event.to_dict(warnings=False))
        if event.type in left:
            left.remove(event.type)
    return events


# --- as over HTTP ----------------------------------------------------------------------------------------------------

PLACES = ("tokenbudget.call.id", "gen_ai.response.id", "gen_ai.response.time_to_first_chunk")
ANSWERS: dict[str, dict[str, Any]] = {
    "reasoning": {"input_tokens": 900, "cached_tokens": 300, "output_tokens": 80, "reasoning_tokens": 30},
    "tools": {"tool_calls": (ToolCall("f", {"a": 1}),), "web_searches": 2, "pages_opened": 1, "file_searches": 1},
    "images": {"images_generated": 2},
    "tier": {"service_tier": "priority", "model": "gpt-5-mini-2025-08-07"},
    "incomplete": {"outcome": "incomplete"},
    "failed": {"outcome": "failed"},
    "error event": {"text": "One two three four.", "tokens_per_chunk": 1, "error_event_after": 2},
    "no count": {"usage": "absent"},
    "refused": {"status": 429},
    "broken": {"status": 500},
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_as_over_http(make: Make, sim: Simulator, instrumented: Any, meter: Meter, name: str) -> None:
    client = make(SYNC)
    asked = {"model": "gpt-5-mini", "input": "Hello.", "max_output_tokens": 100, "reasoning": {"effort": "low"}}
    sim.then(*[Behaviour(**{"text": "One two three.", **ANSWERS[name]})] * 2)
    try:
        for _ in client.responses.create(**asked, stream=True):
            pass
    except openai.APIError:
        pass
    over_http = meter.totals.get()
    async with SYNC.session(client) as talk:
        await talk.ask(**{key: value for key, value in asked.items() if key != "input"}, text=asked["input"])
        await talk.turn()
    first, second = [
        {key: value for key, value in span.attributes.items() if key not in PLACES} for span in instrumented.spans()
    ]
    # The SDK's own exceptions name the errors of HTTP.
    for attributes in (first, second):
        attributes.pop("error.type", None)
    assert first == second
    totals = meter.totals.get()
    assert totals.calls == 2 * over_http.calls
    assert totals.nano_usd == 2 * over_http.nano_usd
    assert totals.estimated_calls == 2 * over_http.estimated_calls


async def test_content(make: Make, sim: Simulator, telemetry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    OpenAIInstrumentor().instrument(tracer_provider=telemetry.tracer_provider)
    try:
        sim.then(Behaviour(text="Under the bridge."))
        async with SYNC.session(make(SYNC)) as talk:
            await talk.ask("Where is the river?")
            await talk.turn()
    finally:
        OpenAIInstrumentor().uninstrument()
    attributes = telemetry.span().attributes
    assert "Where is the river?" in attributes["gen_ai.input.messages"]
    assert "Under the bridge." in attributes["gen_ai.output.messages"]


# --- several on one connection ---------------------------------------------------------------------------------------


async def test_asked_together(make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    """The server answers them one after the other; each is admitted when it is asked for."""
    meter.enforcer.add(tb.Budget(name="agent", limit_calls=2))
    async with row.session(make(row)) as talk:
        await talk.ask("One")
        await talk.ask("Two", model="gpt-5")
        with pytest.raises(tb.BudgetExceeded):
            await talk.ask("Three")
        await read_until(talk, "response.completed", "response.completed")
    assert reserved(meter) == [0]
    assert {name: totals.calls for name, totals in meter.totals.get("model").items() if totals.calls} == {
        "gpt-5-mini": 1,
        "gpt-5": 1,
    }
    assert meter.totals.get().usage.output_tokens == sum(bill.usage.output_tokens for bill in sim.billed)


async def test_a_request_that_is_not_accepted(
    make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    meter.enforcer.add(tb.Budget(name="agent", limit_calls=2))
    sim.then(Behaviour(status=400), Behaviour(text="Yes."))
    async with row.session(make(row)) as talk:
        await talk.ask()
        await talk.turn()
        assert reserved(meter) == [0]
        await settled(talk.connection.send_raw('{"type": "nonsense"}'))
        await read_until(talk, "error")
        await talk.ask()
        await talk.turn()
    assert [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()] == ["failed", "completed"]
    assert instrumented.spans()[0].attributes["error.type"] == "invalid_value"
    assert meter.totals.get().calls == len(sim.billed) == 1


async def test_what_the_program_hands_over_is_left_alone(
    make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    """Tools may come from an iterator, which is the SDK's to use up."""

    def tools() -> Iterator[dict[str, Any]]:
        yield {"type": "function", "name": "f", "parameters": {}, "strict": True}

    meter.enforcer.add(tb.Budget(name="agent", limit_usd=50, mode="worst_case"))
    async with row.session(make(row)) as talk:
        await talk.ask(tools=tools())
        await talk.turn()
    assert [tool["name"] for tool in sim.requests[0].json["tools"]] == ["f"]
    assert meter.totals.get().calls == 1


async def test_events_as_objects(make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    events = importlib.import_module("openai.types.responses.responses_client_event")
    kind = getattr(events, "ResponseCreate", None) or events.ResponsesClientEvent
    async with row.session(make(row)) as talk:
        await settled(talk.connection.send(kind(type="response.create", model="gpt-5-mini", input="Hello.")))
        await talk.turn()
    assert instrumented.span().attributes["gen_ai.request.model"] == "gpt-5-mini"
    assert meter.totals.get().calls == len(sim.billed) == 1


@pytest.mark.parametrize("fault", [{"silent_end_after": 2}, {"malformed_after": 2}, {"drop": True}], ids=str)
async def test_broken_off(
    make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter, fault: dict[str, Any]
) -> None:
    meter.enforcer.add(tb.Budget(name="agent", limit_calls=9))
    sim.then(Behaviour(text="One two three four.", tokens_per_chunk=1, **fault))
    async with row.session(make(row)) as talk:
        await talk.ask()
        with pytest.raises(Exception):  # noqa: B017
            while True:
                await talk.turn()
        with contextlib.suppress(Exception):
            await talk.turn()  # a message that cannot be read is not yet the end of the connection
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "cut"
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert span.attributes["gen_ai.usage.output_tokens"] == (0 if "drop" in fault else pytest.approx(2, abs=1))
    assert reserved(meter) == [0]


async def test_raw_messages(make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(name="agent", limit_calls=1))
    message = json.dumps({"model": "gpt-5-mini", "input": "Hello.", "type": "response.create"})
    async with row.session(make(row)) as talk:
        await settled(talk.connection.send_raw(message))
        kind = ""
        while kind != "response.completed":
            kind = talk.connection.parse_event(await settled(talk.connection.recv_bytes())).type
        with pytest.raises(tb.BudgetExceeded):
            await settled(talk.connection.send_raw(message.encode()))
    assert meter.totals.get().calls == len(sim.billed) == 1


async def test_after_a_reconnection(make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(text="One two three four.", tokens_per_chunk=1, cut_after=2), Behaviour(text="Five six."))
    manager = make(row).responses.connect(on_reconnecting=lambda _event: None, initial_delay=0.01)
    connection = await settled(manager.enter())
    talk = ResponsesTalk(connection)
    try:
        await talk.ask()
        await talk.some(2)
        with pytest.raises(Exception, match="close"):
            await talk.turn()
        assert instrumented.span().attributes["tokenbudget.call.outcome"] == "cut"
        reconnected = await settled(connection._reconnect(ConnectionError()))
        assert reconnected
        await talk.ask()
        await talk.turn()
    finally:
        await settled(connection.close())
    outcomes = [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()]
    assert outcomes == ["cut", "completed"]
    assert meter.totals.get().calls == len(sim.billed) == 2


async def test_a_response_that_goes_on_from_another(
    make: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    """Its history is known from what the other one came to: neither left out, nor taken for a full context window."""
    meter.enforcer.add(tb.Budget(name="agent", limit_tokens=100_000, mode="worst_case"))
    sim.then(Behaviour(input_tokens=5_000, output_tokens=300), SLOW)
    async with SYNC.session(make(SYNC)) as talk:
        await talk.ask(max_output_tokens=500)
        done = (await talk.turn())[-1]["response"]
        await talk.ask("And then?", previous_response_id=done["id"], max_output_tokens=500)
        (status,) = meter.enforcer.status()
        assert 5_300 + 500 < status.reserved_tokens < 5_300 + 500 + 2_000
        await talk.some(2)
    last = instrumented.spans()[-1].attributes
    assert last["tokenbudget.usage.estimated"] is True
    assert last["gen_ai.usage.input_tokens"] >= 5_300


# --- steering --------------------------------------------------------------------------------------------------------


@STEERABLE
async def test_steered(make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    """The response that follows a steered one by itself is admitted when the program steers."""
    meter.enforcer.add(tb.Budget(name="agent", limit_calls=2))
    sim.then(SLOW, Behaviour(text="Left.", model="gpt-5-mini"))
    async with row.session(make(row)) as talk:
        await talk.ask()
        (created, *_) = await read_until(talk, "response.output_text.delta")
        parent = created["response"]["id"]
        with tb.tags(tenant="who-steers"):
            await settled(talk.connection.response.steer(input="Shorter!", previous_response_id=parent))
        assert reserved(meter) == [2]
        with pytest.raises(tb.BudgetExceeded):
            await settled(talk.connection.response.steer(input="Longer!", previous_response_id=parent))
        await read_until(talk, "response.incomplete", "response.completed")
        assert reserved(meter) == [0]
    spans = [span for span in instrumented.spans() if span.attributes["tokenbudget.call.outcome"] == "completed"]
    assert [span.attributes["gen_ai.response.finish_reasons"] for span in spans] == [("steered",), ("stop",)]
    assert {span.attributes["gen_ai.request.model"] for span in spans} == {"gpt-5-mini"}
    totals = meter.totals.get()
    assert totals.calls == len(sim.billed) == 2
    assert totals.usage.output_tokens == sum(bill.usage.output_tokens for bill in sim.billed)
    assert meter.totals.get("tenant")["who-steers"].calls == 1


@STEERABLE
async def test_steering_that_fails(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(name="agent", limit_calls=9))
    async with SYNC.session(make(SYNC)) as talk:
        talk.connection.response.steer(input="Shorter!", previous_response_id="resp_other")
        assert reserved(meter) == [1]
        await read_until(talk, "response.steer.failed")
        assert reserved(meter) == [0]
        talk.connection.response.steer(input="Shorter!", previous_response_id="resp_another")
    assert reserved(meter) == [0]
    assert meter.totals.get().calls == 0


# --- without a server ------------------------------------------------------------------------------------------------


def follow(meter: Meter) -> ResponsesSession:
    door = OpenAIInstrumentor().door(meter=meter).doors[-1]  # type: ignore[attr-defined]
    endpoint = door.sdk.endpoint("post", "/responses")
    made = ResponsesSession(door, Peer("openai"), endpoint)
    made.connected = True
    return made


@pytest.fixture
def followed(meter: Meter) -> ResponsesSession:
    return follow(meter)


def test_lanes(followed: ResponsesSession, meter: Meter) -> None:
    """Responses of several lanes come at the same time; their pieces say which is whose."""

    def event(kind: str, lane: str, **fields: Any) -> None:
        followed.arrived(json.dumps({"type": f"response.{kind}", **fields, "stream_id": lane}).encode())

    def response(lane: str, **fields: Any) -> dict[str, Any]:
        return {"response": {"id": f"resp_{lane}", "model": f"m-{lane}", **fields}}

    for lane in "ab":
        say(followed, {"type": "response.create", "model": f"m-{lane}", "input": "Hello.", "stream_id": lane})
    for lane in "ba":
        event("created", lane, **response(lane, status="in_progress"))
    for lane in "abaab":
        event("output_text.delta", lane, delta="word")
    event("completed", "b", **response("b", status="completed", usage={"input_tokens": 3, "output_tokens": 7}))
    followed.ended("cut")
    by_model = meter.totals.get("model")
    assert {name: totals.usage.output_tokens for name, totals in by_model.items()} == {"m-a": 3, "m-b": 7}
    assert by_model["m-b"].estimated_calls == 0
    assert by_model["m-a"].estimated_calls == 1


def test_a_successor_that_nobody_announced(followed: ResponsesSession, meter: Meter) -> None:
    """It is charged, if not admitted."""
    meter.enforcer.add(tb.Budget(name="agent", limit_calls=1))
    usage = {"input_tokens": 3, "output_tokens": 7}
    done = {"id": "resp_1", "model": "gpt-5-mini", "status": "completed", "usage": usage}
    followed.arrived(json.dumps({"type": "response.created", "response": {"id": "resp_1"}}).encode())
    for _ in range(2):  # what comes twice is counted once
        followed.arrived(json.dumps({"type": "response.completed", "response": done}).encode())
    (status,) = meter.enforcer.status()
    assert status.spent_calls == meter.totals.get().calls == 1


@pytest.mark.parametrize(
    ("more", "tokens"), [({}, 4_000), ({"generate": False}, 0)], ids=["generated", "only made ready"]
)
def test_output_is_expected_where_there_will_be_some(
    followed: ResponsesSession, more: dict[str, Any], tokens: int
) -> None:
    body = {"type": "response.create", "model": "gpt-5-mini", "input": "Hi", "max_output_tokens": 4_000}
    turn = say(followed, body | more)
    assert turn is not None
    estimate = followed.door.meter._estimate(turn.call.request)
    bound = turn.call.request.size().input_bound
    assert bound is not None
    assert estimate.worst_case.tokens == bound + tokens
    followed.ended("closed")


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5_000) | st.sampled_from(("a", "b", "")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(
        ("id", "usage", "status", "input_tokens", "output_tokens", "error", "steer", "previous_response_id", "output")
    ), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
_kinds = st.sampled_from(
    ("response.created", "response.completed", "response.failed", "response.output_text.delta", "error",
     "response.steer.failed", "response.in_progress", "response.create", "response.steer")
)  # fmt: skip
_fields = st.sampled_from(
    ("response", "error", "delta", "stream_id", "sequence_number", "status", "steer", "previous_response_id", "tools",
     "input", "model")
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_kinds, st.dictionaries(_fields, _values, max_size=4)), max_size=8))
def test_no_event_breaks_it(meter: Meter, events: list[tuple[str, dict[str, Any]]]) -> None:
    session = follow(meter)
    for kind, fields in events:
        say(session, {"type": kind, **fields})
        session.arrived(json.dumps({"type": kind, **fields}).encode())
        session.arrived(json.dumps({**fields, "type": kind}).encode())
    session.ended("closed")
    assert not session.busy
