"""OpenAI, and Azure OpenAI through the same SDK."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping
from typing import Any

import pydantic
from surface import Because, Call, Surface

from tokenbudget_otel.simulator import Simulator

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]
SPOKEN = "The river turns east."


class Answer(pydantic.BaseModel):
    """What structured outputs are asked for."""

    answer: str


def sound(seconds: int = 2) -> tuple[str, bytes]:
    """A WAV file of silence: 16 bits, 16 kHz, one channel."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0" * 16_000 * seconds)
    return "sound.wav", buffer.getvalue()


def options(asynchronous: bool) -> dict[str, Any]:
    """What every client is made with. Without certificates: loading them takes longer than a whole test."""
    import openai

    http = openai.DefaultAsyncHttpxClient if asynchronous else openai.DefaultHttpxClient
    return {"api_key": "any", "max_retries": 0, "timeout": 20, "http_client": http(verify=False)}


def client(simulator: Simulator, asynchronous: bool) -> Any:
    import openai

    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return kind(base_url=simulator.openai_url, **options(asynchronous))


def azure(simulator: Simulator, asynchronous: bool) -> Any:
    import openai

    kind = openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI
    return kind(azure_endpoint=simulator.azure_url, api_version="2025-04-01-preview", **options(asynchronous))


def azure_v1(simulator: Simulator, asynchronous: bool) -> Any:
    """The plain client at a resource's ``/openai/v1/``; who answers there is told by its host (``map_host``)."""
    import openai

    from tokenbudget_otel import map_host

    base_url = f"{simulator.azure_url}/openai/v1/"
    map_host(base_url, "azure.ai.openai")
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return kind(base_url=base_url, **options(asynchronous))


def raw_of(path: str, **body: Any) -> Call:
    """The raw response of ``path`` (``chat.completions``), called with ``body``."""

    def call(client: Any) -> Any:
        resource = client
        for name in path.split("."):
            resource = getattr(resource, name)
        return resource.with_raw_response.create(**body)

    return call


NO_STREAM = Because("the API does not stream")
NO_CALL = Because("only as a stream")

CHAT = {"model": "gpt-4o", "messages": MESSAGES}
CHAT_COUNTED = {
    "input_tokens": 1_200,
    "cached_tokens": 700,
    "cache_write_30m_tokens": 100,
    "input_audio_tokens": 30,
    "input_image_tokens": 20,
    "output_tokens": 150,
    "reasoning_tokens": 60,
    "rejected_prediction_tokens": 7,
    "output_audio_tokens": 11,
}
CHAT_USAGE = {
    "input_tokens": 1_200,
    "cache_read_tokens": 700,
    "cache_write_tokens": 100,
    "input_audio_tokens": 30,
    "input_image_tokens": 20,
    "output_tokens": 150,
    "reasoning_tokens": 60,
    "rejected_prediction_tokens": 7,
    "output_audio_tokens": 11,
}
PARSED = {"text": '{"answer": "the river"}', "input_tokens": 120, "cached_tokens": 40, "output_tokens": 15}
PARSED_USAGE = {
    "input_tokens": 120,
    "cache_read_tokens": 40,
    "input_audio_tokens": 0,
    "output_tokens": 15,
    "reasoning_tokens": 0,
    "rejected_prediction_tokens": 0,
    "output_audio_tokens": 0,
}
SEARCHED_USAGE = PARSED_USAGE | {"web_searches": 1}
LEGACY = {"model": "gpt-3.5-turbo-instruct", "prompt": "Once", "max_tokens": 40}

RESPONSE = {"model": "gpt-5", "input": "Tell me a story.", "tools": [{"type": "web_search"}]}
RESPONSE_COUNTED = {
    "input_tokens": 900,
    "cached_tokens": 300,
    "cache_write_30m_tokens": 40,
    "cache_write_12h_tokens": 60,
    "output_tokens": 200,
    "reasoning_tokens": 120,
    "web_searches": 2,
}
RESPONSE_USAGE = {
    "input_tokens": 900,
    "cache_read_tokens": 300,
    "cache_write_tokens": 100,
    "cache_write_30m_tokens": 40,
    "cache_write_12h_tokens": 60,
    "output_tokens": 200,
    "reasoning_tokens": 120,
    "web_searches": 2,
}
RESPONSE_PARSED_USAGE = {
    "input_tokens": 120,
    "cache_read_tokens": 40,
    "cache_write_tokens": 0,
    "output_tokens": 15,
    "reasoning_tokens": 0,
}

PICTURE = {"model": "gpt-image-1", "prompt": "A river", "quality": "low"}
PICTURE_COUNTED = {"input_tokens": 50, "input_image_tokens": 20, "output_tokens": 300, "output_image_tokens": 290}
PICTURE_USAGE = {
    "input_tokens": 50,
    "input_text_tokens": 30,
    "input_image_tokens": 20,
    "output_tokens": 300,
    "output_text_tokens": 10,
    "output_image_tokens": 290,
}
HEARD = {"model": "gpt-4o-transcribe", "file": sound()}
HEARD_COUNTED = {"input_tokens": 60, "input_audio_tokens": 50, "output_tokens": 12}
HEARD_USAGE = {"input_tokens": 60, "input_text_tokens": 10, "input_audio_tokens": 50, "output_tokens": 12}

FAULTLESS = Because("audio comes back as bytes without a form that could be damaged")


def _surface(name: str, model: str, behaviour: Mapping[str, Any], usage: Mapping[str, Any], **more: Any) -> Surface:
    given: dict[str, Any] = {
        "provider": "OpenAI", "sdk": "openai", "system": "openai", "client": client, "stream": NO_STREAM,
    }  # fmt: skip
    return Surface(name=name, model=model, behaviour=behaviour, usage=usage, **(given | more))


OPENAI = [
    _surface(
        "chat.completions.create", "gpt-4o", CHAT_COUNTED, CHAT_USAGE,
        call=lambda client: client.chat.completions.create(**CHAT),
        stream=lambda client: client.chat.completions.create(**CHAT, stream=True),
        raw=raw_of("chat.completions", **CHAT),
    ),
    _surface(
        "chat.completions.parse and stream", "gpt-4o", PARSED, PARSED_USAGE,
        call=lambda client: client.chat.completions.parse(**CHAT, response_format=Answer),
        stream=lambda client: client.chat.completions.stream(**CHAT, response_format=Answer),
        raw=Because("a helper has the raw response of `create`"),
        fuzz=Because("the helpers check what they parse: damage is an error of theirs"),
    ),
    _surface(
        "completions.create", "gpt-3.5-turbo-instruct", PARSED, PARSED_USAGE,
        operation="text_completion",
        call=lambda client: client.completions.create(**LEGACY),
        stream=lambda client: client.completions.create(**LEGACY, stream=True),
        raw=raw_of("completions", **LEGACY),
    ),
    _surface(
        "responses.create", "gpt-5", RESPONSE_COUNTED, RESPONSE_USAGE,
        cost_state="partial",  # what is kept for twelve hours has no price in the catalog
        call=lambda client: client.responses.create(**RESPONSE),
        stream=lambda client: client.responses.create(**RESPONSE, stream=True),
        raw=raw_of("responses", **RESPONSE),
    ),
    _surface(
        "responses.parse and stream", "gpt-5", PARSED, RESPONSE_PARSED_USAGE,
        call=lambda client: client.responses.parse(model="gpt-5", input="Go on.", text_format=Answer),
        stream=lambda client: client.responses.stream(model="gpt-5", input="Go on.", text_format=Answer),
        raw=Because("a helper has the raw response of `create`"),
        fuzz=Because("the helpers check what they parse: damage is an error of theirs"),
    ),
    _surface(
        "embeddings.create", "text-embedding-3-small", {"input_tokens": 9}, {"input_tokens": 9},
        operation="embeddings",
        call=lambda client: client.embeddings.create(model="text-embedding-3-small", input=["a river", "a bridge"]),
        raw=raw_of("embeddings", model="text-embedding-3-small", input="a river"),
    ),
    _surface(
        "images.generate", "gpt-image-1", PICTURE_COUNTED, PICTURE_USAGE,
        operation="image_generation",
        without_usage="counted",  # by the image
        call=lambda client: client.images.generate(**PICTURE),
        stream=lambda client: client.images.generate(**PICTURE, stream=True, partial_images=2),
        raw=lambda client: client.images.with_raw_response.generate(**PICTURE),
    ),
    _surface(
        "audio.transcriptions.create", "gpt-4o-transcribe", HEARD_COUNTED, HEARD_USAGE,
        operation="transcription",
        call=lambda client: client.audio.transcriptions.create(**HEARD),
        stream=lambda client: client.audio.transcriptions.create(**HEARD, stream=True),
        raw=raw_of("audio.transcriptions", **HEARD),
    ),
    _surface(
        "audio.transcriptions.create (by the second)", "whisper-1",
        {"audio_seconds": 2.5}, {"input_audio_seconds": 2.5},
        operation="transcription",
        call=lambda client: client.audio.transcriptions.create(model="whisper-1", file=sound()),
        raw=raw_of("audio.transcriptions", model="whisper-1", file=sound()),
    ),
    _surface(
        "audio.translations.create", "whisper-1", {"audio_seconds": 2.5}, {"input_audio_seconds": 2.5},
        operation="translation",
        without_usage="counted",  # by the duration of verbose_json
        call=lambda client: client.audio.translations.create(
            model="whisper-1", file=sound(), response_format="verbose_json"
        ),
        raw=raw_of("audio.translations", model="whisper-1", file=sound(), response_format="verbose_json"),
    ),
    _surface(
        "audio.speech.create (by the character)", "tts-1", {}, {"input_characters": len(SPOKEN)},
        operation="speech",
        call=lambda client: client.audio.speech.create(model="tts-1", voice="alloy", input=SPOKEN),
        raw=raw_of("audio.speech", model="tts-1", voice="alloy", input=SPOKEN),
        fuzz=FAULTLESS,
    ),
]  # fmt: skip

AZURE = [
    _surface(
        name, model, counted, usage, provider="Azure OpenAI", system="azure.ai.openai", client=made, **calls
    )
    for made, suffix in ((azure, ""), (azure_v1, " (/openai/v1)"))
    for name, model, counted, usage, calls in (
        (
            f"chat.completions.create{suffix}", "gpt-4o", CHAT_COUNTED, CHAT_USAGE,
            {
                "call": lambda client: client.chat.completions.create(**CHAT),
                "stream": lambda client: client.chat.completions.create(**CHAT, stream=True),
                "raw": raw_of("chat.completions", **CHAT),
            },
        ),
        (
            f"responses.create{suffix}", "gpt-5", PARSED, RESPONSE_PARSED_USAGE,
            {
                "call": lambda client: client.responses.create(model="gpt-5", input="Go on."),
                "stream": lambda client: client.responses.create(model="gpt-5", input="Go on.", stream=True),
                "raw": raw_of("responses", model="gpt-5", input="Go on."),
            },
        ),
    )
]  # fmt: skip

SURFACES = OPENAI + AZURE
