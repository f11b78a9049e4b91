"""What is particular to OpenAI's Realtime API."""

from __future__ import annotations

import asyncio
import base64
import gc
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_rows import REALTIME, SILENCE, SPEECH, OpenAITalk, openai_row, say

import tokenbudget_otel as tb
from both_modes import settled
from tokenbudget_otel.instrumentation.endpoint import Peer
from tokenbudget_otel.instrumentation.openai_realtime import RealtimeDoor, RealtimeSession
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

openai = pytest.importorskip("openai", reason="openai is not installed here")

Make = Callable[[Any], Any]
SYNC, ASYNC = openai_row("openai", "OpenAI"), openai_row("openai-async", "AsyncOpenAI")
SLOW = Behaviour(text="One two three " * 20, chunk_s=0.02, input_tokens=100, output_tokens=60)


@pytest.fixture(params=[SYNC, ASYNC], ids=["sync", "async"])
def row(request: pytest.FixtureRequest) -> Any:
    return request.param


async def read_until(talk: Any, *kinds: str) -> list[dict[str, Any]]:
    """Read until every one of these events has come."""
    left, events = set(kinds), []
    while left:
        event = await settled(talk.connection.recv())
        events.append(event.to_dict(warnings=False))
        left.discard(event.type)
    return events


async def test_cancelled(make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(SLOW)
    async with row.session(make(row)) as talk:
        await talk.ask()
        await talk.some(2)
        await settled(talk.connection.response.cancel())
        await talk.turn()
    span = instrumented.span()
    (bill,) = sim.billed
    assert not bill.completed
    assert span.attributes["tokenbudget.call.outcome"] == "cancelled"
    assert span.attributes["gen_ai.response.finish_reasons"] == ("client_cancelled",)
    assert "tokenbudget.usage.estimated" not in span.attributes
    assert span.attributes["gen_ai.usage.output_tokens"] == bill.usage.output_tokens < 60


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason", "error"),
    [
        ({"outcome": "incomplete"}, "completed", "max_output_tokens", None),
        ({"outcome": "failed"}, "failed", "failed", "server_error"),
        ({"error_event_after": 2}, "failed", "failed", "server_error"),
    ],
    ids=["incomplete", "failed", "failed in the middle"],
)
async def test_statuses(
    make: Make, sim: Simulator, instrumented: Any, behaviour: Any, outcome: str, reason: str, error: str | None
) -> None:
    sim.then(Behaviour(text="One two three four five six.", **behaviour))
    async with SYNC.session(make(SYNC)) as talk:
        await talk.ask()
        await talk.turn()
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.call.outcome"] == outcome
    assert attributes["gen_ai.response.finish_reasons"] == (reason,)
    assert attributes.get("error.type") == error
    assert attributes["gen_ai.usage.output_tokens"] == sim.billed[0].usage.output_tokens


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-mini-transcribe"])
async def test_transcriptions(
    make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter, model: str
) -> None:
    """What the user says is transcribed by another model, billed for itself."""
    completed = "conversation.item.input_audio_transcription.completed"
    async with row.session(make(row)) as talk:
        listening = {"type": "realtime", "audio": {"input": {"transcription": {"model": model}}}}
        await settled(talk.connection.session.update(session=listening))
        await talk.hear(SPEECH)
        await talk.hear(SILENCE)
        await read_until(talk, completed, "response.done")
    by_model = meter.totals.get("model")
    assert set(by_model) == {REALTIME, model}
    heard = next(bill for bill in sim.billed if bill.model == model).usage
    if model == "whisper-1":
        assert by_model[model].usage == tb.TokenUsage(input_audio_seconds=heard.audio_seconds)
    else:
        assert by_model[model].usage.input_audio_tokens == heard.input_audio_tokens
        assert by_model[model].usage.output_tokens == heard.output_tokens
    assert by_model[model].nano_usd > 0
    assert {span.name for span in instrumented.spans()} == {f"chat {REALTIME}", f"transcription {model}"}


async def test_audio_is_free_where_nothing_is_made_of_it(
    make: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    """Without automatic responses, the program says when the model speaks: only that is asked of the budgets."""
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1))
    async with SYNC.session(make(SYNC)) as talk:
        quiet = {"type": "realtime", "audio": {"input": {"turn_detection": {"create_response": False}}}}
        talk.connection.session.update(session=quiet)
        await read_until(talk, "session.updated")
        await read_until(talk, "session.updated")
        await talk.ask()
        await talk.turn()
        await talk.hear(SPEECH)
        await talk.hear(SILENCE)
        await read_until(talk, "input_audio_buffer.committed")
        with pytest.raises(tb.BudgetExceeded):
            talk.connection.response.create()
    assert len(sim.billed) == 1


@pytest.mark.parametrize("named", [True, False])
async def test_a_response_that_the_server_does_not_begin(
    make: Make, sim: Simulator, instrumented: Any, meter: Meter, named: bool
) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=10))
    sim.then(Behaviour(text="One two three " * 4, chunk_s=0.02))
    more: dict[str, Any] = {"event_id": "event_mine"} if named else {}
    async with SYNC.session(make(SYNC)) as talk:
        await talk.ask()
        await talk.some(1)
        talk.connection.response.create(**more)
        events = await read_until(talk, "error")
        assert events[-1]["error"]["code"] == "conversation_already_has_active_response"
        await talk.turn()
        assert [status.reserved_calls for status in meter.enforcer.status()] == [0]
    by_outcome = {span.attributes["tokenbudget.call.outcome"]: span for span in instrumented.spans()}
    assert set(by_outcome) == {"completed", "failed"}
    assert by_outcome["failed"].attributes["error.type"] == "conversation_already_has_active_response"
    assert meter.totals.get().calls == 1


async def test_other_errors_leave_the_turn_alone(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    async with SYNC.session(make(SYNC)) as talk:
        talk.connection.response.cancel()
        talk.connection.send_raw('{"type": "nonsense", "event_id": "event_other"}')
        await talk.ask()
        await read_until(talk, "error", "response.done")
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"


RAW = ('{"type": "response.create"}', b'{"event_id": "e1", "type": "response.create"}',
       '{"response": {"type": "x"}, "type": "response.create"}')  # fmt: skip


@pytest.mark.parametrize("message", RAW, ids=["text", "bytes", "type last"])
async def test_raw_messages(
    make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter, message: Any
) -> None:
    """As the program writes and reads them itself."""
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1))
    async with row.session(make(row)) as talk:
        await settled(talk.connection.send_raw(message))
        kind = ""
        while kind != "response.done":
            kind = talk.connection.parse_event(await settled(talk.connection.recv_bytes())).type
        with pytest.raises(tb.BudgetExceeded):
            await settled(talk.connection.send_raw(message))
    assert meter.totals.get().calls == len(sim.billed) == 1


async def test_messages_before_the_connection(
    make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1))
    manager = make(row).realtime.connect(model=REALTIME)
    manager.send({"type": "response.create", "response": {"output_modalities": ["text"]}})
    with pytest.raises(tb.BudgetExceeded):
        manager.send({"type": "response.create"})
    connection = await settled(manager.enter())
    try:
        await OpenAITalk(connection).turn()
    finally:
        await settled(connection.close())
    assert meter.totals.get().calls == len(sim.billed) == 1
    assert len(sim.requests) == 1


async def test_a_message_for_a_connection_that_never_comes(make: Make, instrumented: Any, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1))
    manager = make(SYNC).realtime.connect(model=REALTIME)
    manager.send({"type": "response.create"})
    del manager
    instrumented.spans()
    assert [status.reserved_calls for status in meter.enforcer.status()] == [0]
    assert meter.totals.get().calls == 0


async def test_a_connection_that_is_dropped(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=9))
    client = make(SYNC)
    sim.then(SLOW)
    connection = client.realtime.connect(model=REALTIME).enter()
    low = connection._connection
    connection.response.create(response={"output_modalities": ["text"]})
    while connection.recv().type != "response.output_text.delta":
        pass
    del connection
    gc.collect()
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "abandoned"
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert [status.reserved_calls for status in meter.enforcer.status()] == [0]
    low.close()


async def test_after_a_reconnection(make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    """The SDK connects again by itself: the turn that was cut is over, the next one is counted."""
    sim.then(Behaviour(text="One two three four.", cut_after=2), Behaviour(text="Five six."))
    manager = make(row).realtime.connect(model=REALTIME, on_reconnecting=lambda _event: None, initial_delay=0.01)
    done = 0
    connection = await settled(manager.enter())
    try:
        await settled(connection.response.create(response={"output_modalities": ["text"]}))
        events = connection.__aiter__() if row is ASYNC else connection.__iter__()
        created = 0
        while not done:
            event = await anext(events) if row is ASYNC else next(events)
            created += event.type == "session.created"
            if event.type == "session.created" and created == 2:
                await settled(connection.response.create(response={"output_modalities": ["text"]}))
            done += event.type == "response.done"
    finally:
        await settled(connection.close())
    outcomes = [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()]
    assert outcomes == ["cut", "completed"]
    assert meter.totals.get().calls == len(sim.billed) == 2


async def test_copies_of_a_wrapped_client(make: Make, sim: Simulator, telemetry: Any, meter: Meter) -> None:
    original = vars(SYNC.classes())["connect"]
    client = make(SYNC)
    tb.wrap(client, tracer_provider=telemetry.tracer_provider)
    async with SYNC.session(client.with_options(timeout=3)) as talk:
        await talk.ask()
        await talk.turn()
    tb.unwrap(client)
    assert vars(SYNC.classes())["connect"] is original
    assert meter.totals.get().calls == 1
    async with SYNC.session(client) as talk:
        await talk.ask()
        await talk.turn()
    assert meter.totals.get().calls == 1


async def test_sending_and_receiving_at_once(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    """Audio goes out while the answer comes in, and cuts it short: as with a microphone that is never off."""
    sim.default = Behaviour(text="One two three four five six.", chunk_s=0.01)
    async with ASYNC.session(make(ASYNC)) as talk:

        async def microphone() -> None:
            for _ in range(3):
                await talk.hear(SPEECH)
                await talk.hear(SILENCE)
                await asyncio.sleep(0.03)

        speaking = asyncio.create_task(microphone())
        ended = 0
        while ended < 3:
            ended += (await talk.connection.recv()).type == "response.done"
        await speaking
    totals = meter.totals.get()
    assert totals.calls == len(sim.billed) == 3
    assert totals.usage.output_tokens == sum(bill.usage.output_tokens for bill in sim.billed)
    outcomes = {span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()}
    assert outcomes <= {"completed", "cancelled"}


# --- whatever comes --------------------------------------------------------------------------------------------------

_scalars = st.none() | st.booleans() | st.integers(-5, 5_000) | st.floats() | st.text(max_size=5)
_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
    ("id", "type", "usage", "response", "session", "status", "input_tokens", "output_tokens", "input_token_details",
     "audio_tokens", "cached_tokens", "audio", "input", "model", "error", "turn_detection", "status_details")
), inner, max_size=4), max_leaves=12)  # fmt: skip
_kinds = st.sampled_from(
    ("response.created", "response.done", "session.created", "session.updated", "error", "response.output_text.delta",
     "response.output_audio.delta", "conversation.item.input_audio_transcription.completed", "other")
)  # fmt: skip


def session() -> RealtimeSession:
    door = RealtimeDoor(Telemetry.make("test", None, None, None), Meter(), lambda _client: Peer("openai"))
    made = RealtimeSession(door, Peer("openai"), REALTIME)
    made.connected = True
    return made


_fields = st.sampled_from(("response", "session", "error", "usage", "delta", "response_id", "item_id"))
_events = st.lists(st.tuples(_kinds, st.dictionaries(_fields, _values, max_size=4)), max_size=6)


@settings(max_examples=40, deadline=None)
@given(_events)
def test_no_event_breaks_it(events: list[tuple[str, dict[str, Any]]]) -> None:
    followed = session()
    for kind, fields in events:
        say(followed, {"type": "response.create", "response": fields.get("response")})
        followed.arrived(json.dumps({"type": kind, **fields}).encode())
        followed.arrived(json.dumps({**fields, "type": kind}).encode())
    followed.ended("closed")
    assert not followed.busy


def test_audio_is_measured_by_its_length() -> None:
    """Twenty tokens a second: the provider's own rate."""
    followed = session()
    say(followed, {"type": "response.create"})
    followed.arrived(b'{"type":"response.created","response":{"id":"r"}}')
    sound = base64.b64encode(b"\1" * 48_000)
    for _ in range(2):
        followed.arrived(b'{"type":"response.output_audio.delta","response_id":"r","delta":"' + sound + b'"}')
    followed.arrived(rb'{"type":"response.output_audio_transcript.delta","response_id":"r","delta":"Say \"yes\"."}')
    followed.ended("closed")
    usage = followed.door.meter.totals.get().usage
    assert usage.output_audio_tokens == 40
    assert usage.output_text_tokens == 3
    assert usage.output_tokens == 43


# --- whether anything but text can be in a turn ----------------------------------------------------------------------

WRITES: dict[str, Any] = {"type": "session.updated", "session": {"output_modalities": ["text"]}}
SPEAKS: dict[str, Any] = {"type": "session.created", "session": {"output_modalities": ["audio"]}}
SPOKEN: dict[str, Any] = {"type": "response.done", "response": {"id": "r", "output_modalities": ["audio"]}}
BETA: dict[str, Any] = {"type": "session.updated", "session": {"modalities": ["text"]}}
PROMPT: dict[str, Any] = {"type": "session.updated", "session": {"output_modalities": ["text"], "prompt": {"id": "p"}}}


def item(*kinds: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": kind} for kind in kinds]
    return {"type": "conversation.item.create", "item": {"type": "message", "content": content, **fields}}


def update(*modalities: str) -> dict[str, Any]:
    return {"type": "session.update", "session": {"output_modalities": modalities}}


@pytest.mark.parametrize(
    ("arrived", "sent", "response", "text_only"),
    [
        ([], [], {}, False),
        ([SPEAKS], [], {}, False),
        ([SPEAKS], [update("text")], {}, False),
        ([SPEAKS, WRITES], [update("text"), item("input_text")], {}, True),
        ([BETA], [item("input_text")], {}, True),
        ([SPEAKS], [], {"output_modalities": ["text"]}, True),
        ([WRITES], [], {"output_modalities": ["audio"]}, False),
        ([WRITES], [], {"input": [item("input_image")["item"]]}, False),
        ([WRITES], [], {"prompt": {"id": "p"}}, False),
        ([WRITES], [item("input_image")], {}, False),
        ([WRITES], [item("output_audio")], {}, False),
        ([WRITES], [item(output=[{"type": "input_image"}])], {}, False),
        ([WRITES], [{"type": "input_audio_buffer.append", "audio": "AAAA"}], {}, False),
        ([WRITES], [update("audio")], {}, False),
        ([SPOKEN, WRITES], [], {}, False),
        ([PROMPT], [], {}, False),
    ],
)
def test_text_only(arrived: list[Any], sent: list[Any], response: dict[str, Any], text_only: bool) -> None:
    """Only then is the price of audio left out of what a turn may cost at most."""
    followed = session()
    for message in arrived:
        followed.arrived(json.dumps(message).encode())
    for message in sent:
        say(followed, message)
    turn = say(followed, {"type": "response.create", "response": response})
    assert turn is not None
    assert turn.call.request.size().text_only is text_only
    followed.ended("closed")


async def test_a_session_that_was_joined_may_have_been_spoken_in(make: Make, instrumented: Any) -> None:
    from tokenbudget_otel.instrumentation.live import _SESSION

    client = make(SYNC)
    if "call_id" not in inspect.signature(client.realtime.connect).parameters:
        pytest.skip("this version of the SDK joins no calls")
    assert not vars(client.realtime.connect(call_id="rtc_1"))[_SESSION].plain
    assert vars(client.realtime.connect(model=REALTIME))[_SESSION].plain
