"""What is particular to Gemini's Live API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from live_rows import GEMINI, GOOGLE_USAGE, SPEECH, google_row, say, studio, vertex

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.endpoint import Peer
from tokenbudget_otel.instrumentation.google_live import GoogleLiveDoor, GoogleLiveSession, live_usage
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

genai = pytest.importorskip("google.genai", reason="google-genai is not installed here")

Make = Callable[[Any], Any]
STUDIO = google_row("gemini", studio, "gcp.gemini", "")
VERTEX = google_row("vertex", vertex, "gcp.vertex_ai", "")
LOOK_UP = (ToolCall("look_up", {"what": "rivers"}),)


async def answer_tools(talk: Any) -> None:
    """Read a turn, and answer the tools that it calls."""
    async for message in talk.connection.receive():
        if message.tool_call:
            (call,) = message.tool_call.function_calls
            answer = genai.types.FunctionResponse(id=call.id, name=call.name, response={"found": "a river"})
            await talk.connection.send_tool_response(function_responses=answer)


@pytest.mark.parametrize("row", [STUDIO, VERTEX], ids=["studio", "vertex"])
async def test_a_turn_with_a_tool_is_one_charge(
    make: Make, row: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=10))
    sim.then(Behaviour(text="A river.", tool_calls=LOOK_UP, input_tokens=500, reasoning_tokens=20))
    async with row.session(make(row)) as talk:
        await talk.ask()
        await answer_tools(talk)
    (bill,) = sim.billed
    assert meter.totals.get().calls == 1
    assert meter.totals.get().usage.input_tokens == bill.usage.input_tokens == 500
    assert meter.totals.get().usage.output_tokens == bill.usage.output_tokens
    assert [status.reserved_calls for status in meter.enforcer.status()] == [0]


async def test_a_tool_is_not_answered_on_an_empty_budget(
    make: Make, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    """What the model does with the answer costs as much as another turn."""
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1))
    sim.then(Behaviour(text="A river.", tool_calls=LOOK_UP))
    async with STUDIO.session(make(STUDIO)) as talk:
        await talk.ask()
        with pytest.raises(tb.BudgetExceeded):
            await answer_tools(talk)
    outcomes = [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()]
    assert outcomes == ["refused", "closed"]
    assert [status.reserved_calls for status in meter.enforcer.status()] == [0]


async def test_interrupted(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(text="One two three " * 20, chunk_s=0.02), Behaviour(text="Yes."))
    async with STUDIO.session(make(STUDIO)) as talk:
        await talk.ask()
        await talk.some(2)
        await talk.ask("Wait.")
        await talk.turn()
        await talk.turn()
    first, second = sim.billed
    assert not first.completed
    assert second.completed
    spans = instrumented.spans()
    assert [span.attributes["tokenbudget.call.outcome"] for span in spans] == ["cancelled", "completed"]
    assert spans[0].attributes["gen_ai.response.finish_reasons"] == ("interrupted",)
    assert spans[0].attributes["gen_ai.usage.output_tokens"] == first.usage.output_tokens
    assert meter.totals.get().usage.output_tokens == first.usage.output_tokens + second.usage.output_tokens


async def test_the_server_gives_up(make: Make, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(text="One two three four.", error_event_after=2))
    async with STUDIO.session(make(STUDIO)) as talk:
        await talk.ask()
        with pytest.raises(genai.errors.APIError):
            await talk.turn()
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "cut"
    assert meter.totals.get().usage.output_tokens == pytest.approx(2, abs=1)


async def test_the_async_half_of_a_client(make: Make, sim: Simulator, meter: Meter) -> None:
    """It can be wrapped by itself."""
    client, door = make(STUDIO), GoogleLiveDoor(Telemetry.make("test", None, None, None), meter)
    door.wrap(client.aio)
    for _ in range(2):
        async with STUDIO.session(client) as talk:
            await talk.ask()
            await talk.turn()
        door.unhook()
    assert meter.totals.get().calls == 1
    assert len(sim.billed) == 2


# --- what the server may send, message by message --------------------------------------------------------------------

WORDS = b'{"serverContent": {"modelTurn": {"parts": [{"text": "Yes."}]}}}'
OVER = b'{"serverContent": {"turnComplete": true}}'
COUNT = b'{"usageMetadata": {"promptTokenCount": 10, "responseTokenCount": 2, "totalTokenCount": 12}}'
BOTH = OVER[:-1] + b", " + COUNT[1:]
MORE = COUNT.replace(b": 2,", b": 5,")
TRANSCRIPT = b'{"serverContent": {"outputTranscription": {"text": "Yes."}}}'
TOOL = b'{"toolCall": {"functionCalls": [{"id": "1", "name": "look_up", "args": {}}]}}'
ASK = '{"client_content": {"turns": [{"parts": [{"text": "Is it?"}]}], "turnComplete": true}}'
ANSWER = '{"tool_response": {"functionResponses": [{"id": "1", "response": {}}]}}'


def session() -> GoogleLiveSession:
    door = GoogleLiveDoor(Telemetry.make("test", None, None, None), Meter())
    made = GoogleLiveSession(door, Peer("gcp.gemini"), GEMINI, {})
    made.connected = True
    return made


@pytest.mark.parametrize(
    ("messages", "calls", "written", "estimated"),
    [
        ((ASK, WORDS, BOTH), 1, 2, 0),
        ((ASK, WORDS, COUNT, OVER), 1, 2, 0),
        ((ASK, WORDS, OVER, COUNT), 1, 2, 0),
        ((ASK, WORDS, BOTH, COUNT), 1, 2, 0),  # the same again
        ((ASK, WORDS, COUNT, MORE, OVER), 1, 5, 0),  # the count of one generation goes up
        ((ASK, WORDS, BOTH, TRANSCRIPT), 1, 2, 0),  # late, and not a turn
        ((ASK, TOOL, COUNT, ANSWER, WORDS, BOTH), 1, 4, 0),  # two generations, each with a count
        ((ASK, TOOL, BOTH, ANSWER, WORDS, BOTH), 2, 4, 0),  # Vertex AI: each with a turn of its own
        ((ASK, ASK, WORDS, BOTH), 1, 2, 0),  # both are answered at once
        ((ASK, WORDS, OVER, ASK, WORDS, BOTH), 2, 3, 1),  # never counted
        ((ASK, WORDS, OVER), 1, 1, 1),
        ((WORDS, BOTH, WORDS, BOTH), 2, 4, 0),  # by itself
        ((OVER,), 0, None, 0),
        ((b"not json", b'{"serverContent": 7}', b"[]"), 0, None, 0),
    ],
)
def test_messages(messages: tuple[Any, ...], calls: int, written: int | None, estimated: int) -> None:
    followed = session()
    for message in messages:
        if isinstance(message, str):
            say(followed, message)
        else:
            followed.arrived(message)
    followed.ended("closed")
    totals = followed.door.meter.totals.get()
    assert totals.calls == calls
    assert totals.usage.output_tokens == written
    assert totals.estimated_calls == estimated


def test_searches_are_billed() -> None:
    followed = session()
    found = b'{"serverContent": {"groundingMetadata": {"webSearchQueries": ["river", "bridge"]}}}'
    say(followed, ASK)
    for message in (WORDS, found, found, BOTH):
        followed.arrived(message)
    assert followed.door.meter.totals.get().usage.web_searches == 1  # Gemini 2: once a turn


def test_thoughts_are_output_whatever_the_total_says() -> None:
    reported = {
        "promptTokenCount": 522,
        "responseTokenCount": 42,
        "thoughtsTokenCount": 136,
        "totalTokenCount": 564,
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 42}],
    }
    usage = live_usage(reported)
    assert usage is not None
    assert usage.output_tokens == 178
    assert usage.output_audio_tokens == 42
    assert usage.reasoning_tokens == 136


def test_audio_in_pieces_is_found_wherever_it_is() -> None:
    import base64

    followed = session()
    say(followed, ASK)
    sound = base64.b64encode(SPEECH).decode()
    part = f'{{"inlineData": {{"mimeType": "audio/pcm", "data": "{sound}"}}}}'
    followed.arrived(f'{{"serverContent": {{"modelTurn": {{"parts": [{part}, {part}]}}}}}}'.encode())
    followed.ended("closed")
    assert followed.door.meter.totals.get().usage.output_audio_tokens == 50
    assert GOOGLE_USAGE["output_audio_tokens"]
