"""Every surface of the SDK: one span, the provider's own counts, the exact cost, and the SDK's own objects."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai_harness import (
    MESSAGES,
    bare,
    characters_said,
    chat_tokens,
    each,
    embedding_tokens,
    entered,
    heard_tokens,
    image_tokens,
    mode_of,
    one_call,
    picture_count,
    read,
    response_tokens,
    seconds_heard,
    seen,
    settled,
    spoken_tokens,
    stream_types,
)

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour, ToolCall

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # audio.translations

TEXT = "The river turns east, and the bridge is old. 河は流れる."
RICH = Behaviour(
    text=TEXT,
    input_tokens=1200,
    cached_tokens=1000,
    input_audio_tokens=30,
    output_tokens=90,
    reasoning_tokens=40,
    output_audio_tokens=11,
    rejected_prediction_tokens=5,
)
TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]
PARSED = Behaviour(text='{"title": "The river", "pages": 12}', input_tokens=50, cached_tokens=10)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Answer(pydantic.BaseModel):
    title: str
    pages: int


def sound() -> Any:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * 32_000)
    return "sound.wav", buffer.getvalue()


# --- what the program does ---------------------------------------------------------------------------------------


async def chat_create(client: Any) -> Any:
    return await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, temperature=0.5, seed=3))


async def chat_parse(client: Any) -> Any:
    return await settled(client.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=Answer))


async def chat_beta_parse(client: Any) -> Any:
    return await settled(client.beta.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=Answer))


async def chat_tools(client: Any) -> Any:
    return await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=TOOLS))


async def chat_stream(client: Any) -> Any:
    stream = await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True))
    assert type(stream) is stream_types(mode_of(client))
    assert stream.response.status_code == 200
    return await read(stream)


async def chat_stream_tools(client: Any) -> Any:
    return await read(
        await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=TOOLS, stream=True))
    )


async def chat_helper(client: Any) -> Any:
    async with entered(client.chat.completions.stream(model="gpt-4o", messages=MESSAGES)) as stream:
        events = await read(stream)
        return [*events, await settled(stream.get_final_completion())]


async def chat_helper_until_done(client: Any) -> Any:
    async with entered(
        client.chat.completions.stream(model="gpt-4o", messages=MESSAGES, response_format=Answer)
    ) as stream:
        await settled(stream.until_done())
        return await settled(stream.get_final_completion())


async def response_create(client: Any) -> Any:
    return await settled(client.responses.create(model="gpt-5", input="Tell me a story.", reasoning={"effort": "low"}))


async def response_tool_use(client: Any) -> Any:
    return await settled(client.responses.create(model="gpt-5", input="Search.", tools=[{"type": "web_search"}]))


async def response_parse(client: Any) -> Any:
    return await settled(client.responses.parse(model="gpt-5", input="Tell me a story.", text_format=Answer))


async def response_stream(client: Any) -> Any:
    stream = await settled(client.responses.create(model="gpt-5", input="Tell me a story.", stream=True))
    assert type(stream) is stream_types(mode_of(client))
    return await read(stream)


async def response_helper(client: Any) -> Any:
    async with entered(client.responses.stream(model="gpt-5", input="Tell me a story.")) as stream:
        events = await read(stream)
        return [*events, await settled(stream.get_final_response())]


async def completion_create(client: Any) -> Any:
    return await settled(client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once", max_tokens=40))


async def completion_stream(client: Any) -> Any:
    return await read(
        await settled(
            client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once", max_tokens=40, stream=True)
        )
    )


async def embedding_default(client: Any) -> Any:
    made = await settled(client.embeddings.create(model="text-embedding-3-small", input=["a river", "a bridge"]))
    assert isinstance(made.data[0].embedding[0], float)
    return made


async def embedding_floats(client: Any) -> Any:
    return await settled(
        client.embeddings.create(
            model="text-embedding-3-small", input=[[1, 2, 3], [4, 5]], encoding_format="float", dimensions=32
        )
    )


async def embedding_base64(client: Any) -> Any:
    made = await settled(
        client.embeddings.create(model="text-embedding-3-small", input="a river", encoding_format="base64")
    )
    assert isinstance(made.data[0].embedding, str)
    return made


async def image_generate(client: Any) -> Any:
    return await settled(client.images.generate(model="gpt-image-1", prompt="A river", n=2, quality="low"))


async def image_generate_old(client: Any) -> Any:
    return await settled(client.images.generate(model="dall-e-3", prompt="A river"))


async def image_generate_stream(client: Any) -> Any:
    return await read(
        await settled(client.images.generate(model="gpt-image-1", prompt="A river", stream=True, partial_images=2))
    )


async def image_edit(client: Any) -> Any:
    return await settled(client.images.edit(model="gpt-image-1", prompt="A boat", image=("a.png", PNG)))


async def image_edit_stream(client: Any) -> Any:
    return await read(
        await settled(
            client.images.edit(
                model="gpt-image-1", prompt="A boat", image=("a.png", PNG), stream=True, partial_images=1
            )
        )
    )


async def transcribe(client: Any) -> Any:
    return await settled(client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound()))


async def transcribe_seconds(client: Any) -> Any:
    return await settled(client.audio.transcriptions.create(model="whisper-1", file=sound()))


async def transcribe_verbose(client: Any) -> Any:
    return await settled(
        client.audio.transcriptions.create(model="whisper-1", file=sound(), response_format="verbose_json")
    )


async def transcribe_stream(client: Any) -> Any:
    return await read(
        await settled(client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound(), stream=True))
    )


async def translate_verbose(client: Any) -> Any:
    return await settled(
        client.audio.translations.create(model="whisper-1", file=sound(), response_format="verbose_json")
    )


async def speak(client: Any) -> Any:
    spoken = await settled(client.audio.speech.create(model="tts-1", voice="alloy", input="Hello, river."))
    return spoken.content


async def speak_streaming(client: Any) -> Any:
    manager = client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="Hello, river.")
    async with entered(manager) as response:
        return b"".join(await read(response.iter_bytes()))


async def speak_events(client: Any) -> Any:
    """Read as the SDK gives it: the whole body of events, as bytes."""
    spoken = await settled(
        client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello, river.", stream_format="sse")
    )
    return spoken.content


async def speak_events_streaming(client: Any) -> Any:
    manager = client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello, river.", stream_format="sse"
    )
    async with entered(manager) as response:
        return await read(response.iter_lines())


async def generic_post(client: Any) -> Any:
    """The way to endpoints and fields that the SDK does not know."""
    return await settled(
        client.post("/chat/completions", cast_to=ChatCompletion, body={"model": "gpt-4o", "messages": MESSAGES})
    )


async def generic_post_stream(client: Any) -> Any:
    kind = stream_types(mode_of(client))
    stream = await settled(
        client.post(
            "/chat/completions",
            cast_to=ChatCompletionChunk,
            body={"model": "gpt-4o", "messages": MESSAGES, "stream": True},
            stream=True,
            stream_cls=kind[ChatCompletionChunk],
        )
    )
    assert isinstance(stream, kind)
    return await read(stream)


@dataclass(frozen=True)
class Surface:
    name: str
    run: Callable[[Any], Awaitable[Any]]
    model: str
    tokens: Callable[[Any], tb.TokenUsage]
    operation: str = "chat"
    # The text is given: by itself it would follow from the request, and forms have a random boundary.
    behaviour: Behaviour = field(default_factory=lambda: Behaviour(text=TEXT))
    attributes: dict[str, Any] = field(default_factory=dict)
    """Further attributes that the span must have."""


CHAT_FACTS = {
    "openai.api.type": "chat_completions",
    "gen_ai.response.model": "gpt-4o",
    "gen_ai.response.finish_reasons": ("stop",),
}
RESPONSE_FACTS = {"openai.api.type": "responses", "gen_ai.response.status": "completed"}
STREAMED = {"gen_ai.request.stream": True}
RESPONSE_RICH = Behaviour(
    text=TEXT, input_tokens=700, cached_tokens=300, cache_write_30m_tokens=0, output_tokens=150, reasoning_tokens=100
)
IMAGE, HEAR, SPEAK = "image_generation", "transcription", "speech"

SURFACES = (
    Surface(
        "chat.create",
        chat_create,
        "gpt-4o",
        chat_tokens,
        behaviour=RICH,
        attributes=CHAT_FACTS | {"gen_ai.request.temperature": 0.5, "gen_ai.request.seed": 3},
    ),
    Surface(
        "chat.parse", chat_parse, "gpt-4o", chat_tokens, behaviour=PARSED, attributes={"gen_ai.output.type": "json"}
    ),
    Surface("beta.chat.parse", chat_beta_parse, "gpt-4o", chat_tokens, behaviour=PARSED),
    Surface(
        "chat.tools",
        chat_tools,
        "gpt-4o",
        chat_tokens,
        behaviour=Behaviour(tool_calls=(ToolCall("now", {"zone": "UTC"}),)),
        attributes={"gen_ai.response.finish_reasons": ("tool_calls",)},
    ),
    Surface("chat.stream", chat_stream, "gpt-4o", chat_tokens, behaviour=RICH, attributes=CHAT_FACTS | STREAMED),
    Surface(
        "chat.stream.tools",
        chat_stream_tools,
        "gpt-4o",
        chat_tokens,
        behaviour=Behaviour(tool_calls=(ToolCall("now", {"zone": "UTC"}),)),
    ),
    Surface("chat.helper", chat_helper, "gpt-4o", chat_tokens, behaviour=RICH, attributes=CHAT_FACTS | STREAMED),
    Surface("chat.helper.parsed", chat_helper_until_done, "gpt-4o", chat_tokens, behaviour=PARSED),
    Surface(
        "responses.create",
        response_create,
        "gpt-5",
        response_tokens,
        behaviour=RESPONSE_RICH,
        attributes=RESPONSE_FACTS | {"gen_ai.request.reasoning.level": "low"},
    ),
    Surface(
        "responses.tools",
        response_tool_use,
        "gpt-5",
        response_tokens,
        behaviour=Behaviour(web_searches=2, file_searches=1, code_interpreter_calls=1),
    ),
    Surface("responses.parse", response_parse, "gpt-5", response_tokens, behaviour=PARSED),
    Surface(
        "responses.stream",
        response_stream,
        "gpt-5",
        response_tokens,
        behaviour=RESPONSE_RICH,
        attributes=RESPONSE_FACTS | STREAMED,
    ),
    Surface("responses.helper", response_helper, "gpt-5", response_tokens, behaviour=RESPONSE_RICH),
    Surface("completions", completion_create, "gpt-3.5-turbo-instruct", chat_tokens, "text_completion"),
    Surface("completions.stream", completion_stream, "gpt-3.5-turbo-instruct", chat_tokens, "text_completion"),
    Surface("embeddings", embedding_default, "text-embedding-3-small", embedding_tokens, "embeddings"),
    Surface(
        "embeddings.float",
        embedding_floats,
        "text-embedding-3-small",
        embedding_tokens,
        "embeddings",
        attributes={"gen_ai.request.encoding_formats": ("float",), "gen_ai.embeddings.dimension.count": 32},
    ),
    Surface("embeddings.base64", embedding_base64, "text-embedding-3-small", embedding_tokens, "embeddings"),
    Surface("images.generate", image_generate, "gpt-image-1", image_tokens, IMAGE),
    Surface("images.generate.by_the_image", image_generate_old, "dall-e-3", picture_count, IMAGE),
    Surface("images.generate.stream", image_generate_stream, "gpt-image-1", image_tokens, IMAGE),
    Surface("images.edit", image_edit, "gpt-image-1", image_tokens, IMAGE),
    Surface("images.edit.stream", image_edit_stream, "gpt-image-1", image_tokens, IMAGE),
    Surface("transcriptions", transcribe, "gpt-4o-transcribe", heard_tokens, HEAR),
    Surface("transcriptions.seconds", transcribe_seconds, "whisper-1", seconds_heard, HEAR),
    Surface("transcriptions.verbose", transcribe_verbose, "whisper-1", seconds_heard, HEAR),
    Surface("transcriptions.stream", transcribe_stream, "gpt-4o-transcribe", heard_tokens, HEAR),
    Surface("translations.verbose", translate_verbose, "whisper-1", seconds_heard, "translation"),
    Surface("speech", speak, "tts-1", characters_said, SPEAK),
    Surface("speech.streaming", speak_streaming, "tts-1", characters_said, SPEAK),
    Surface("speech.events", speak_events, "gpt-4o-mini-tts", spoken_tokens, SPEAK),
    Surface("speech.events.streaming", speak_events_streaming, "gpt-4o-mini-tts", spoken_tokens, SPEAK),
    Surface("post", generic_post, "gpt-4o", chat_tokens, behaviour=RICH),
    Surface("post.stream", generic_post_stream, "gpt-4o", chat_tokens, behaviour=RICH),
)


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
async def test_counted_priced_and_unchanged(surface, client, sim, instrumented, meter):
    sim.then(surface.behaviour)
    with bare(client):
        without = seen(await surface.run(client))
    (unmetered,) = sim.billed
    assert meter.totals.get().calls == 0
    sim.reset()

    sim.then(surface.behaviour)
    with_us = seen(await surface.run(client))

    assert with_us == without
    (billed,) = sim.billed
    assert billed.usage == unmetered.usage
    span = one_call(
        instrumented, meter, usage=surface.tokens(billed.usage), model=surface.model, operation=surface.operation
    )
    for name, value in surface.attributes.items():
        assert span.attributes[name] == value, name
    streamed = span.attributes.get("gen_ai.request.stream") is True
    assert ("gen_ai.response.time_to_first_chunk" in span.attributes) or not streamed
    assert len(sim.requests) == 1


@pytest.mark.parametrize("form", ["text", "srt", "json"])
async def test_an_answer_without_usage_is_an_estimate(form, client, sim, instrumented, meter):
    # Text, and JSON of translations, say nothing of what was used: whatever is booked has to say so.
    if form == "json":
        await settled(client.audio.translations.create(model="whisper-1", file=sound()))
    else:
        said = await settled(client.audio.transcriptions.create(model="whisper-1", file=sound(), response_format=form))
        assert isinstance(said, str)
    one_call(
        instrumented,
        meter,
        model="whisper-1",
        operation="translation" if form == "json" else "transcription",
        estimated=True,
    )


async def test_speech_of_a_model_billed_by_tokens_is_never_priced_at_nothing(client, sim, instrumented, meter):
    # The audio comes back without a count; the characters of the input do not price such a model.
    await settled(client.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input="Hello, river. " * 20))
    span = instrumented.span()
    state = span.attributes["tokenbudget.cost.state"]
    assert span.attributes.get("gen_ai.usage.cost") != 0
    assert state not in ("priced", "free")
    assert meter.totals.get().unpriced_calls == 1


@pytest.mark.parametrize("usage", ["absent", "null"])
@pytest.mark.parametrize("run", [chat_create, response_create, embedding_default], ids=lambda run: run.__name__)
async def test_usage_that_is_not_reported_is_estimated(run, usage, client, sim, instrumented, meter):
    sim.then(Behaviour(usage=usage))
    await run(client)
    span = instrumented.span()
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert span.attributes["gen_ai.usage.input_tokens"] > 0
    assert meter.totals.get().estimated_calls == 1


async def test_the_tier_that_served_it_prices_it(client, sim, instrumented, meter):
    sim.then(Behaviour(service_tier="priority", input_tokens=10_000, output_tokens=1_000))
    await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, service_tier="auto"))
    (billed,) = sim.billed
    span = one_call(instrumented, meter, usage=chat_tokens(billed.usage), tier="priority")
    plain = tb.calculate_cost("gpt-4o", chat_tokens(billed.usage), "openai")
    assert meter.totals.get().nano_usd > plain.nano_usd
    assert span.attributes["openai.request.service_tier"] == "auto"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("surface", ["chat", "responses"])
async def test_the_span_says_which_tier_served_it(surface, streamed, client, sim, instrumented):
    sim.then(Behaviour(service_tier="priority"))
    if surface == "chat":
        result = await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=streamed))
    else:
        result = await settled(client.responses.create(model="gpt-5", input="Hi", stream=streamed))
    if streamed:
        await read(result)
    span = instrumented.span()
    assert span.attributes["openai.response.service_tier"] == "priority"
    if surface == "chat":
        assert span.attributes["openai.response.system_fingerprint"] == "fp_simulator"


@pytest.mark.parametrize("streamed", [False, True])
async def test_several_choices_are_one_call(streamed, client, sim, instrumented, meter):
    result = await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, n=3, stream=streamed))
    if streamed:
        await read(result)
    (billed,) = sim.billed
    span = one_call(instrumented, meter, usage=chat_tokens(billed.usage))
    assert span.attributes["gen_ai.request.choice.count"] == 3
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop", "stop", "stop")


@pytest.mark.parametrize("outcome", ["failed", "incomplete"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_that_does_not_complete(outcome, streamed, client, sim, instrumented, meter):
    sim.then(Behaviour(outcome=outcome))
    result = await settled(client.responses.create(model="gpt-5", input="Hi", stream=streamed))
    if streamed:
        await read(result)
    span = instrumented.span()
    assert span.attributes["gen_ai.response.status"] == outcome
    if outcome == "incomplete":
        (billed,) = sim.billed
        one_call(instrumented, meter, model="gpt-5", usage=response_tokens(billed.usage))
        assert span.attributes["gen_ai.response.finish_reasons"] == ("max_output_tokens",)
    else:
        one_call(instrumented, meter, model="gpt-5", outcome="failed", error="server_error", estimated=True)


async def test_what_costs_nothing_makes_no_span(client, sim, instrumented, meter):
    await read(await settled(client.models.list()))
    await settled(client.moderations.create(input="a river"))
    await settled(client.responses.input_tokens.count(model="gpt-5", input="a river"))
    assert len(sim.requests) == 3
    assert instrumented.spans() == []
    assert meter.totals.get().calls == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_azure_is_its_own_provider(streamed, mode, clients, sim, instrumented, meter):
    client = clients(mode, kind="azure")
    sim.then(RICH)
    with bare(client):
        result = await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=streamed))
        without = seen(await read(result) if streamed else result)
    sim.reset()
    sim.then(RICH)
    result = await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=streamed))
    assert seen(await read(result) if streamed else result) == without
    (billed,) = sim.billed
    assert billed.provider == "azure"
    one_call(instrumented, meter, usage=chat_tokens(billed.usage), provider="azure.ai.openai")
    assert sim.requests[0].path == "/openai/deployments/gpt-4o/chat/completions"


@pytest.mark.parametrize("run", [response_create, embedding_default, transcribe], ids=lambda run: run.__name__)
async def test_azure_other_surfaces(run, mode, clients, sim, instrumented, meter):
    await run(clients(mode, kind="azure"))
    assert len(sim.billed) == 1
    assert instrumented.span().attributes["gen_ai.provider.name"] == "azure.ai.openai"
    assert meter.totals.get(by="provider")["azure.ai.openai"].calls == 1


async def test_models_made_by_others_are_typed_as_ever(client, sim, instrumented):
    # What comes back is the SDK's own class, not a proxy that only claims to be one.
    made = await chat_create(client)
    assert type(made) is ChatCompletion
    assert isinstance(await embedding_default(client), openai.types.CreateEmbeddingResponse)


async def test_reading_chunks_one_by_one(client, sim, instrumented, meter):
    # `next` and `for` mixed, as helpers of other libraries do.
    stream = await settled(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True))
    if hasattr(stream, "__anext__"):
        await stream.__anext__()
    else:
        next(stream)
    async for _ in each(stream):
        pass
    one_call(instrumented, meter, usage=chat_tokens(sim.billed[0].usage))
