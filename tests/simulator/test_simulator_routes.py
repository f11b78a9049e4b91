"""Every route, asked by the real SDKs (sync and async) with strict validation of what comes back."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from tokenbudget_otel.simulator import Behaviour, Simulator, Usage

ASK: list[Any] = [{"role": "user", "content": "Tell me of the river."}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
SEARCHED = {"web_searches": 2, "file_searches": 1, "code_interpreter_calls": 1, "reasoning_tokens": 9}
WAV = ("a.wav", b"\0" * 64_000)
PNG = ("a.png", b"\x89PNG")


class City(BaseModel):
    name: str
    people: int
    tags: list[str]
    coastal: bool


class Case(NamedTuple):
    """A call, and what must be true of its result (of a stream: of the list of its events) and its bill."""

    name: str
    client: str
    call: Callable[[Any], Any]
    check: Callable[[Any], Any]
    behaviour: Behaviour = Behaviour()
    billed: Callable[[Usage], Any] | None = lambda usage: usage.input_tokens > 0 and usage.output_tokens > 0


def chat(**more: Any) -> Callable[[Any], Any]:
    return lambda c: c.chat.completions.create(model="gpt-5", messages=ASK, **more)


def respond(**more: Any) -> Callable[[Any], Any]:
    return lambda c: c.responses.create(model="gpt-5", input="Tell me of the river.", **more)


def message(**more: Any) -> Callable[[Any], Any]:
    return lambda c: c.messages.create(model="claude-opus-5", max_tokens=200, messages=ASK, **more)


def types(events: list[Any]) -> list[str]:
    """Their types, each run of equal ones once."""
    found = [event.type for event in events]
    return [kind for place, kind in enumerate(found) if place == 0 or found[place - 1] != kind]


def seconds_only(usage: Usage) -> bool:
    return usage.audio_seconds is not None and usage.total_tokens == 0


RESPONSE_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]
MESSAGE_EVENTS = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
]
CALLS = Behaviour(tool_calls=[{"name": "look", "arguments": {"at": "the old river"}}])

CASES = [
    Case("chat", "openai", chat(), lambda r: r.usage.total_tokens > 0 and r.choices[0].finish_reason == "stop"),
    Case("chat n", "openai", chat(n=3), lambda r: [choice.index for choice in r.choices] == [0, 1, 2]),
    Case("chat length", "openai", chat(max_tokens=3), lambda r: r.choices[0].finish_reason == "length"
         and r.usage.completion_tokens == 3),
    Case("chat tier", "openai", chat(service_tier="flex"), lambda r: r.service_tier == "flex"),
    Case("chat tier said", "openai", chat(service_tier="priority"), lambda r: r.service_tier == "default",
         Behaviour(service_tier="default")),
    Case("chat tools", "openai", chat(tools=[TOOL]), lambda r: r.choices[0].finish_reason == "tool_calls"
         and r.choices[0].message.content is None
         and r.choices[0].message.tool_calls[0].function.arguments == '{"at": "the old river"}', CALLS),
    Case("chat refusal", "openai", chat(), lambda r: r.choices[0].message.refusal == "No, no.",
         Behaviour(refusal="No, no.")),
    Case("chat parse", "openai",
         lambda c: c.chat.completions.parse(model="gpt-5", messages=ASK, response_format=City),
         lambda r: isinstance(r.choices[0].message.parsed, City)),
    Case("chat json", "openai", chat(response_format={"type": "json_object"}),
         lambda r: r.choices[0].message.content == '{"answer": "yes"}'),
    Case("chat stream", "openai", chat(stream=True), lambda e: all(chunk.usage is None for chunk in e)
         and "usage" not in e[0].model_fields_set and e[-1].choices[0].finish_reason == "stop"),
    Case("chat stream usage", "openai", chat(stream=True, stream_options={"include_usage": True}),
         lambda e: e[-1].choices == [] and e[-1].usage.total_tokens > 0
         and all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in e[:-1])),
    Case("chat stream tools", "openai", chat(stream=True, tools=[TOOL]),
         lambda e: "".join(call.function.arguments or "" for chunk in e for choice in chunk.choices
                           for call in choice.delta.tool_calls or []) == '{"at": "the old river"}',
         Behaviour(tool_calls=[{"name": "look", "arguments": {"at": "the old river"}}], tokens_per_chunk=1)),
    Case("chat stream chunks", "openai", chat(stream=True), lambda e: len(e) == 7 + 2, Behaviour(chunks=7)),
    Case("chat stream n", "openai", chat(stream=True, n=2),
         lambda e: {choice.index for chunk in e for choice in chunk.choices} == {0, 1}),
    Case("azure chat", "azure", chat(), lambda r: r.model == "gpt-5"),
    Case("azure chat stream", "azure lenient", chat(stream=True), lambda e: e[0].choices == []
         and e[0].model_extra["prompt_filter_results"]),
    Case("azure responses", "azure", respond(), lambda r: r.status == "completed"),
    Case("azure embeddings", "azure lenient", lambda c: c.embeddings.create(model="e", input="word"),
         lambda r: r.usage.prompt_tokens == 1, billed=lambda usage: usage.input_tokens == 1),
    Case("completion", "openai", lambda c: c.completions.create(model="davinci-002", prompt="Once"),
         lambda r: r.object == "text_completion" and r.usage.total_tokens > 0),
    Case("completion stream", "openai lenient",
         lambda c: c.completions.create(model="davinci-002", prompt=["Once", "Twice"], stream=True,
                                        stream_options={"include_usage": True}),
         lambda e: e[-1].choices == [] and e[-1].usage.completion_tokens > 0),
    Case("response", "openai", respond(), lambda r: r.output_text and r.usage.total_tokens > 0
         and r.status == "completed"),
    Case("response tools", "openai", respond(tools=[{"type": "function", "name": "look", "parameters": {}}]),
         lambda r: r.output[0].name == "look" and r.tools[0].strict is True, CALLS),
    Case("response items", "openai", respond(reasoning={"summary": "auto"}),
         lambda r: [item.type for item in r.output] == ["reasoning", "web_search_call", "web_search_call",
                                                        "file_search_call", "code_interpreter_call", "message"]
         and r.usage.output_tokens_details.reasoning_tokens == 9,
         Behaviour(**SEARCHED), billed=lambda usage: usage.web_searches == 2),
    Case("response parse", "openai", lambda c: c.responses.parse(model="gpt-5", input="A city", text_format=City),
         lambda r: isinstance(r.output_parsed, City)),
    Case("response refusal", "openai", respond(), lambda r: r.output[0].content[0].refusal == "No.",
         Behaviour(refusal="No.")),
    Case("response failed", "openai", respond(), lambda r: r.status == "failed" and r.error.code == "server_error"
         and r.usage is None, Behaviour(outcome="failed"), billed=None),
    Case("response incomplete", "openai", respond(max_output_tokens=2), lambda r: r.status == "incomplete"
         and r.incomplete_details.reason == "max_output_tokens" and r.usage.output_tokens == 2),
    Case("response stream", "openai", respond(stream=True), lambda e: types(e) == RESPONSE_EVENTS
         and [event.sequence_number for event in e] == list(range(len(e))) and e[-1].response.usage.total_tokens > 0),
    Case("response stream items", "openai", respond(stream=True, reasoning={"summary": "auto"}),
         lambda e: len({event.type for event in e}) == 24, Behaviour(**SEARCHED)),
    Case("response stream tools", "openai", respond(stream=True),
         lambda e: "response.function_call_arguments.done" in types(e), CALLS),
    Case("response stream refusal", "openai", respond(stream=True),
         lambda e: "response.refusal.delta" in types(e), Behaviour(refusal="I would rather not.")),
    Case("response stream failed", "openai", respond(stream=True), lambda e: e[-1].type == "response.failed",
         Behaviour(outcome="failed"), billed=None),
    Case("response stream incomplete", "openai", respond(stream=True),
         lambda e: e[-1].type == "response.incomplete", Behaviour(outcome="incomplete")),
    Case("response count", "openai", lambda c: c.responses.input_tokens.count(model="gpt-5", input="word word"),
         lambda r: r.input_tokens == 3, billed=None),
    Case("embeddings", "openai lenient", lambda c: c.embeddings.create(model="e", input=["one word", "two"]),
         lambda r: [len(vector.embedding) for vector in r.data] == [1536, 1536],
         billed=lambda usage: usage.input_tokens == 3),
    Case("embeddings float", "openai",
         lambda c: c.embeddings.create(model="e", input="one", dimensions=5, encoding_format="float"),
         lambda r: len(r.data[0].embedding) == 5, billed=lambda usage: usage.output_tokens == 0),
    Case("embeddings tokens", "openai lenient", lambda c: c.embeddings.create(model="e", input=[[1, 2, 3], [4]]),
         lambda r: r.usage.total_tokens == 4, billed=lambda usage: usage.input_tokens == 4),
    Case("image", "openai", lambda c: c.images.generate(model="gpt-image-1", prompt="A river", n=2, quality="low"),
         lambda r: r.usage.output_tokens == 544 and r.usage.output_tokens_details.image_tokens == 544
         and r.usage.input_tokens_details.text_tokens == 2 and len(r.data) == 2),
    Case("image by the piece", "openai", lambda c: c.images.generate(model="dall-e-3", prompt="A river"),
         lambda r: r.usage is None and r.data[0].url, billed=lambda usage: usage.output_images == 1),
    Case("image stream", "openai",
         lambda c: c.images.generate(model="gpt-image-1", prompt="A", stream=True, partial_images=2),
         lambda e: types(e) == ["image_generation.partial_image", "image_generation.completed"]
         and e[-1].usage.output_tokens == 1056),
    Case("image edit", "openai", lambda c: c.images.edit(model="gpt-image-1", image=[PNG, PNG], prompt="A river"),
         lambda r: r.usage.input_tokens_details.image_tokens == 646),
    Case("image edit stream", "openai",
         lambda c: c.images.edit(model="gpt-image-1", image=PNG, prompt="A", stream=True, partial_images=1),
         lambda e: types(e) == ["image_edit.partial_image", "image_edit.completed"]),
    Case("transcription", "openai", lambda c: c.audio.transcriptions.create(model="gpt-4o-transcribe", file=WAV),
         lambda r: r.usage.type == "tokens" and r.usage.input_token_details.audio_tokens == 20),
    Case("transcription seconds", "openai", lambda c: c.audio.transcriptions.create(model="whisper-1", file=WAV),
         lambda r: r.usage.type == "duration" and r.usage.seconds == 2, billed=seconds_only),
    Case("transcription verbose", "openai",
         lambda c: c.audio.transcriptions.create(model="whisper-1", file=WAV, response_format="verbose_json"),
         lambda r: r.duration == 7.5 and r.usage.seconds == 7.5 and r.segments, Behaviour(audio_seconds=7.5),
         billed=seconds_only),
    Case("transcription text", "openai",
         lambda c: c.audio.transcriptions.create(model="whisper-1", file=WAV, response_format="text"),
         lambda r: r == "So it goes.\n", Behaviour(text="So it goes."), billed=seconds_only),
    Case("transcription stream", "openai",
         lambda c: c.audio.transcriptions.create(model="gpt-4o-transcribe", file=WAV, stream=True),
         lambda e: types(e) == ["transcript.text.delta", "transcript.text.done"] and e[-1].usage.input_tokens == 20),
    Case("translation", "openai", lambda c: c.audio.translations.create(model="whisper-1", file=WAV),
         lambda r: r.text, billed=seconds_only),
    Case("translation verbose", "openai",
         lambda c: c.audio.translations.create(model="whisper-1", file=WAV, response_format="verbose_json"),
         lambda r: r.duration == 2, billed=seconds_only),
    Case("speech", "openai", lambda c: c.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hi you"),
         lambda r: len(r.read()) == 64, billed=lambda usage: usage.output_audio_tokens == 12),
    Case("speech by characters", "openai", lambda c: c.audio.speech.create(model="tts-1", voice="alloy", input="Hi"),
         lambda r: r.response.headers["content-type"] == "audio/mpeg",
         billed=lambda usage: usage == Usage(input_characters=2)),
    Case("speech sse", "openai",
         lambda c: c.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hi", stream_format="sse"),
         lambda r: b'"speech.audio.done","usage":{"input_tokens":1,"output_tokens":6,' in r.read()),
    Case("moderation", "openai", lambda c: c.moderations.create(input=["one", "two"]),
         lambda r: [result.flagged for result in r.results] == [False, False], billed=None),
    Case("models", "openai", lambda c: c.models.list(), lambda r: "gpt-5" in [model.id for model in r.data],
         billed=None),
    Case("model", "openai", lambda c: c.models.retrieve("ft:gpt-4o:me/x"), lambda r: r.id == "ft:gpt-4o:me/x",
         billed=None),
    Case("batch", "openai",
         lambda c: c.batches.create(input_file_id="f", endpoint="/v1/responses", completion_window="24h"),
         lambda r: r.status == "validating", billed=None),
    Case("message", "anthropic", message(), lambda r: r.usage.input_tokens > 0 and r.stop_reason == "end_turn"),
    Case("message length", "anthropic",
         lambda c: c.messages.create(model="c", max_tokens=2, messages=ASK), lambda r: r.stop_reason == "max_tokens"),
    Case("message blocks", "anthropic", message(),
         lambda r: [block.type for block in r.content] == ["thinking", "server_tool_use", "web_search_tool_result",
                                                           "text"]
         and r.usage.server_tool_use.web_search_requests == 1 and r.usage.output_tokens_details.thinking_tokens == 9,
         Behaviour(reasoning_tokens=9, web_searches=1), billed=lambda usage: usage.web_searches == 1),
    Case("message tools", "anthropic", message(), lambda r: r.content[0].input == {"at": "the old river"}
         and r.stop_reason == "tool_use", CALLS),
    Case("message refusal", "anthropic", message(), lambda r: r.stop_reason == "refusal", Behaviour(refusal="No.")),
    Case("message stream", "anthropic", message(stream=True), lambda e: types(e) == MESSAGE_EVENTS
         and e[0].message.usage.output_tokens == 1 and e[-2].usage.output_tokens > 1),
    Case("message stream blocks", "anthropic", message(stream=True),
         lambda e: {event.delta.type for event in e if event.type == "content_block_delta"}
         == {"thinking_delta", "signature_delta", "input_json_delta", "text_delta"},
         Behaviour(text="I look.", thinking="Well then.", web_searches=1, tool_calls=CALLS.tool_calls)),
    Case("message parse", "anthropic",
         lambda c: c.messages.parse(model="c", max_tokens=99, messages=ASK, output_format=City),
         lambda r: isinstance(r.parsed_output, City)),
    Case("beta message", "anthropic", lambda c: c.beta.messages.create(model="c", max_tokens=99, messages=ASK),
         lambda r: r.usage.output_tokens > 0),
    Case("beta message stream", "anthropic",
         lambda c: c.beta.messages.create(model="c", max_tokens=99, messages=ASK, stream=True),
         lambda e: types(e) == MESSAGE_EVENTS),
    Case("count tokens", "anthropic", lambda c: c.messages.count_tokens(model="c", messages=ASK),
         lambda r: r.input_tokens == 6, billed=None),
    Case("anthropic models", "anthropic", lambda c: c.models.list(), lambda r: r.data[0].type == "model", billed=None),
]  # fmt: skip


def check(case: Case, sim: Simulator, result: Any) -> None:
    assert case.check(result), result
    if case.billed is None:
        assert sim.billed == []
    else:
        [bill] = sim.billed
        assert case.billed(bill.usage), bill
        assert bill.completed
        assert bill.provider == case.client.split()[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_route(case: Case, sim: Simulator, clients: Any) -> None:
    sim.then(case.behaviour)
    result = case.call(clients.get(case.client))
    check(case, sim, list(result) if "Stream" in type(result).__name__ else result)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_route_async(case: Case, sim: Simulator, clients: Any) -> None:
    sim.then(case.behaviour)
    result = case.call(clients.get(case.client, asynchronous=True))
    if inspect.isawaitable(result):
        result = await result
    check(case, sim, [event async for event in result] if "Stream" in type(result).__name__ else result)


def test_chat_stream_helper(sim: Simulator, clients: Any) -> None:
    with clients.get("openai").chat.completions.stream(model="gpt-5", messages=ASK) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content


def test_chat_stream_helper_parses(sim: Simulator, clients: Any) -> None:
    with clients.get("openai").chat.completions.stream(model="m", messages=ASK, response_format=City) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, City)


def test_responses_stream_helper(sim: Simulator, clients: Any) -> None:
    with clients.get("openai").responses.stream(model="gpt-5", input="Hi", text_format=City) as stream:
        assert len([event for event in stream]) > 8  # noqa: C416
        assert isinstance(stream.get_final_response().output_parsed, City)


async def test_async_helpers(sim: Simulator, clients: Any) -> None:
    async with clients.get("openai", True).responses.stream(model="gpt-5", input="Hi") as stream:
        assert (await stream.get_final_response()).usage
    async with clients.get("openai", True).chat.completions.stream(model="gpt-5", messages=ASK) as stream:
        assert (await stream.get_final_completion()).choices
    async with clients.get("anthropic", True).messages.stream(model="c", max_tokens=99, messages=ASK) as stream:
        assert [text async for text in stream.text_stream]


def test_messages_stream_helper(sim: Simulator, clients: Any) -> None:
    sim.default = Behaviour(text="Down the river.", cached_tokens=5, cache_write_1h_tokens=3)
    client = clients.get("anthropic")
    for messages in (client.messages, client.beta.messages):
        with messages.stream(model="c", max_tokens=99, messages=ASK) as stream:
            assert "".join(stream.text_stream) == "Down the river."
            usage = stream.get_final_message().usage
        assert usage.cache_read_input_tokens == 5
        assert usage.cache_creation.ephemeral_1h_input_tokens == 3


RAW = {
    "chat": ("openai", lambda c: c.chat.completions, {"model": "m", "messages": ASK}),
    "responses": ("openai", lambda c: c.responses, {"model": "m", "input": "Hi"}),
    "messages": ("anthropic", lambda c: c.messages, {"model": "m", "messages": ASK, "max_tokens": 9}),
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("stream", [False, True])
async def test_raw_and_streaming_responses(name: str, stream: bool, sim: Simulator, clients: Any) -> None:
    client, resource, arguments = RAW[name]
    raw = resource(clients.get(client)).with_raw_response.create(**arguments, stream=stream)
    parsed = raw.parse()
    assert list(parsed) if stream else parsed.usage
    with resource(clients.get(client)).with_streaming_response.create(**arguments, stream=stream) as response:
        assert response.request_id or response.headers["request-id"]
        assert list(response.iter_lines())
    async with resource(clients.get(client, True)).with_streaming_response.create(**arguments, stream=stream) as answer:
        assert [line async for line in answer.iter_lines()]
    assert [bill.completed for bill in sim.billed] == [True, True, True]


def test_speech_streams_its_bytes(sim: Simulator, clients: Any) -> None:
    create = clients.get("openai").audio.speech.with_streaming_response.create
    with create(model="tts-1", voice="alloy", input="one two three four five") as response:
        assert len(b"".join(response.iter_bytes())) == 128


class TestBackground:
    """Background responses: queued, in progress, completed; billed once."""

    def test_polled(self, sim: Simulator, clients: Any) -> None:
        client = clients.get("openai")
        sim.then(Behaviour(polls=3, input_tokens=50, output_tokens=20))
        response = client.responses.create(model="gpt-5", input="Hi", background=True)
        assert (response.status, response.usage, response.output) == ("queued", None, [])
        assert sim.billed == []
        seen = [client.responses.retrieve(response.id) for _ in range(4)]
        assert [item.status for item in seen] == ["in_progress", "in_progress", "completed", "completed"]
        assert [item.usage and item.usage.total_tokens for item in seen] == [None, None, 70, 70]
        assert [bill.usage.total_tokens for bill in sim.billed] == [70]

    def test_streamed(self, sim: Simulator, clients: Any) -> None:
        client = clients.get("openai")
        events = list(client.responses.create(model="gpt-5", input="Hi", background=True, stream=True))
        assert types(events)[:3] == ["response.created", "response.queued", "response.in_progress"]
        again = list(client.responses.retrieve(events[0].response.id, stream=True, starting_after=4))
        assert [event.sequence_number for event in again] == list(range(5, len(events)))
        assert len(sim.billed) == 1

    def test_retrieved_as_a_stream(self, sim: Simulator, clients: Any) -> None:
        client = clients.get("openai")
        response = client.responses.create(model="gpt-5", input="Hi", background=True)
        assert list(client.responses.retrieve(response.id, stream=True))[-1].type == "response.completed"
        assert client.responses.retrieve(response.id).status == "completed"
        assert len(sim.billed) == 1

    def test_cancelled_and_deleted(self, sim: Simulator, clients: Any) -> None:
        client = clients.get("openai")
        response = client.responses.create(model="gpt-5", input="Hi", background=True)
        assert client.responses.cancel(response.id).status == "cancelled"
        assert client.responses.retrieve(response.id).status == "cancelled"
        client.responses.delete(response.id)
        with pytest.raises(Exception, match="not found"):
            client.responses.retrieve(response.id)
        assert sim.billed == []

    def test_failed(self, sim: Simulator, clients: Any) -> None:
        client = clients.get("openai")
        sim.then(Behaviour(polls=1, outcome="failed"))
        response = client.responses.create(model="gpt-5", input="Hi", background=True)
        assert client.responses.retrieve(response.id).status == "failed"
        assert sim.billed == []

    def test_ordinary_responses_are_kept_too(self, sim: Simulator, clients: Any) -> None:
        client = clients.get("openai")
        response = client.responses.create(model="gpt-5", input="Hi")
        assert client.responses.retrieve(response.id).usage == response.usage
        unkept = client.responses.create(model="gpt-5", input="Hi", store=False)
        with pytest.raises(Exception, match="not found"):
            client.responses.retrieve(unkept.id)
        assert len(sim.billed) == 2


def test_batch_is_billed_once(sim: Simulator, clients: Any) -> None:
    client = clients.get("openai")
    sim.then(Behaviour(input_tokens=700, output_tokens=300))
    batch = client.batches.create(input_file_id="f", endpoint="/v1/responses", completion_window="24h")
    seen = [client.batches.retrieve(batch.id) for _ in range(3)]
    assert [item.status for item in seen] == ["in_progress", "completed", "completed"]
    assert seen[-1].usage.total_tokens == 1000
    assert [bill.usage.total_tokens for bill in sim.billed] == [1000]


def test_a_file_object_is_uploaded(sim: Simulator, clients: Any) -> None:
    sound = io.BytesIO(b"\0" * 100_000)
    sound.name = "speech.wav"
    clients.get("openai").audio.transcriptions.create(model="whisper-1", file=sound)
    assert sim.billed[0].usage.audio_seconds == 4
