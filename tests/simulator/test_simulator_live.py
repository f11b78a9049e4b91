"""The simulator's live sessions, spoken to without an SDK: what they send, and what they bill."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tokenbudget_otel.simulator import Behaviour, Simulator

client = pytest.importorskip("websockets.sync.client", reason="live sessions need websockets")
exceptions = pytest.importorskip("websockets.exceptions")

GEMINI = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
SETUP = {"setup": {"model": "models/gemini-live", "generationConfig": {"responseModalities": ["TEXT"]}}}
ASK = {"client_content": {"turns": [{"parts": [{"text": "Hello."}]}], "turnComplete": True}}


def connected(sim: Simulator, path: str) -> Any:
    return client.connect(sim.live_url + path, proxy=None)


def send(socket: Any, message: Any) -> None:
    socket.send(json.dumps(message))


def read(socket: Any, kind: str) -> list[dict[str, Any]]:
    """Read until an event of this type."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(socket.recv()))
    return events


@pytest.mark.parametrize(
    "path", ["/v1/realtime?model=m", "/openai/realtime?deployment=m", "/openai/v1/realtime?model=m"]
)
def test_a_response(sim: Simulator, path: str) -> None:
    sim.then(Behaviour(text="One two.", input_tokens=100, cached_tokens=10))
    with connected(sim, path) as socket:
        (created,) = read(socket, "session.created")
        assert created["session"]["model"] == "m"
        send(socket, {"type": "response.create", "response": {"output_modalities": ["text"]}})
        *_, done = read(socket, "response.done")
    assert sim.settle()
    (bill,) = sim.billed
    assert bill.provider == ("azure" if "openai" in path else "openai")
    assert bill.model == "m"
    assert done["response"]["usage"]["input_tokens"] == bill.usage.input_tokens == 100
    assert done["response"]["usage"]["output_tokens"] == bill.usage.output_tokens == 2
    assert [request.json["type"] for request in sim.requests] == ["response.create"]


def test_the_parts_of_the_usage_add_up(sim: Simulator) -> None:
    sim.then(Behaviour(input_tokens=100, input_audio_tokens=60, cached_tokens=50))
    with connected(sim, "/v1/realtime") as socket:
        send(socket, {"type": "response.create"})
        *_, done = read(socket, "response.done")
    usage = done["response"]["usage"]
    details, cached = usage["input_token_details"], usage["input_token_details"]["cached_tokens_details"]
    assert details["text_tokens"] + details["audio_tokens"] + details["image_tokens"] == usage["input_tokens"]
    assert sum(cached.values()) == details["cached_tokens"] == 50
    assert sum(usage["output_token_details"].values()) == usage["output_tokens"]


def test_what_is_cancelled_is_billed_as_far_as_it_came(sim: Simulator) -> None:
    sim.then(Behaviour(text="One two three " * 20, chunk_s=0.02))
    with connected(sim, "/v1/realtime") as socket:
        send(socket, {"type": "response.create", "response": {"output_modalities": ["text"]}})
        read(socket, "response.output_text.delta")
        send(socket, {"type": "response.cancel"})
        *_, done = read(socket, "response.done")
    assert done["response"]["status"] == "cancelled"
    (bill,) = sim.billed
    assert not bill.completed
    assert 0 < bill.usage.output_tokens < 60
    assert done["response"]["usage"]["output_tokens"] == bill.usage.output_tokens


def test_who_leaves_is_billed_as_well(sim: Simulator) -> None:
    sim.then(Behaviour(text="One two three " * 20, chunk_s=0.02))
    with connected(sim, "/v1/realtime") as socket:
        send(socket, {"type": "response.create", "response": {"output_modalities": ["text"]}})
        read(socket, "response.output_text.delta")
    assert sim.settle()
    (bill,) = sim.billed
    assert 0 < bill.usage.output_tokens < 60


def test_names_of_the_beta(sim: Simulator) -> None:
    headers = {"OpenAI-Beta": "realtime=v1"}
    with client.connect(sim.live_url + "/v1/realtime", additional_headers=headers, proxy=None) as socket:
        send(socket, {"type": "response.create", "response": {"modalities": ["text", "audio"]}})
        kinds = {event["type"] for event in read(socket, "response.done")}
    assert {"response.audio.delta", "response.audio_transcript.delta"} <= kinds


def test_a_turn_of_gemini(sim: Simulator) -> None:
    sim.then(Behaviour(text="One two.", input_tokens=100, reasoning_tokens=5))
    with connected(sim, GEMINI) as socket:
        send(socket, SETUP)
        assert json.loads(socket.recv()) == {"setupComplete": {}}
        send(socket, ASK)
        messages = [json.loads(socket.recv()) for _ in range(4)]
    usage = messages[-1]["usageMetadata"]
    assert messages[-1]["serverContent"] == {"turnComplete": True}
    assert (usage["promptTokenCount"], usage["responseTokenCount"], usage["thoughtsTokenCount"]) == (100, 2, 5)
    (bill,) = sim.billed
    assert bill.usage.output_tokens == 7


@pytest.mark.parametrize(("fault", "code"), [({"cut_after": 1}, 1006), ({"error_event_after": 1}, 1011)])
def test_faults_of_gemini(sim: Simulator, fault: Any, code: int) -> None:
    sim.then(Behaviour(text="One two three.", **fault))
    with connected(sim, GEMINI) as socket:
        send(socket, SETUP)
        send(socket, ASK)
        with pytest.raises(exceptions.ConnectionClosedError) as closed:
            while True:
                socket.recv()
        received = closed.value.rcvd
        assert (1006 if received is None else received.code) == code
    assert sim.settle()
    assert not sim.billed[0].completed


def test_no_such_endpoint(sim: Simulator) -> None:
    with pytest.raises(exceptions.InvalidStatus):
        connected(sim, "/v1/nothing")


def test_stops_at_once_with_sessions_open() -> None:
    simulator = Simulator(default=Behaviour(timeout=True)).start()
    socket = connected(simulator, "/v1/realtime")
    send(socket, {"type": "response.create"})
    read(socket, "session.created")
    started = time.monotonic()
    simulator.stop()
    assert time.monotonic() - started < 2
    with pytest.raises(exceptions.ConnectionClosed):
        socket.recv()
    socket.close()
