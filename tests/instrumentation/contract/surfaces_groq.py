"""Groq, through its own SDK."""

from __future__ import annotations

from typing import Any

from surface import Because, Call, Surface

from tokenbudget_otel.simulator import Simulator

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]
NO_STREAM = Because("the API does not stream")


def client(simulator: Simulator, asynchronous: bool) -> Any:
    import groq

    kind = groq.AsyncGroq if asynchronous else groq.Groq
    http = groq.DefaultAsyncHttpxClient if asynchronous else groq.DefaultHttpxClient
    return kind(api_key="any", base_url=simulator.groq_url, max_retries=0, timeout=20, http_client=http(verify=False))


def method(path: str, **arguments: Any) -> Call:
    """``create`` of a resource (``chat.completions``), or of its raw responses."""

    def call(client: Any) -> Any:
        resource = client
        for name in path.split("."):
            resource = getattr(resource, name)
        return resource.create(**arguments)

    return call


CHAT = {"model": "openai/gpt-oss-120b", "messages": MESSAGES}
COUNTED = {"input_tokens": 1_200, "cached_tokens": 700, "output_tokens": 150, "reasoning_tokens": 60}
USAGE = {
    "input_tokens": 1_200,
    "cache_read_tokens": 700,
    "input_audio_tokens": 0,
    "output_tokens": 150,
    "reasoning_tokens": 60,
    "rejected_prediction_tokens": 0,
    "output_audio_tokens": 0,
}
HEARD = {"model": "whisper-large-v3-turbo", "file": ("a.wav", b"\0" * 32_000), "response_format": "verbose_json"}
SPOKEN = {"model": "playai-tts", "input": "The river turns east.", "voice": "Fritz-PlayAI"}


def row(name: str, call: Call | Because, stream: Call | Because = NO_STREAM, **fields: Any) -> Surface:
    options: dict[str, Any] = {
        "provider": "Groq",
        "sdk": "groq",
        "system": "groq",
        "model": "openai/gpt-oss-120b",
        "client": client,
        "behaviour": COUNTED,
        "usage": USAGE,
    }
    return Surface(**options | fields | {"name": name, "call": call, "stream": stream})


SURFACES = [
    row(
        "chat.completions.create",
        method("chat.completions", **CHAT),
        method("chat.completions", **CHAT, stream=True),
        raw=method("chat.completions.with_raw_response", **CHAT),
    ),
    row(
        "embeddings.create",
        method("embeddings", model="nomic-embed-text-v1_5", input="a river"),
        raw=method("embeddings.with_raw_response", model="nomic-embed-text-v1_5", input="a river"),
        model="nomic-embed-text-v1_5",
        operation="embeddings",
        behaviour={"input_tokens": 20},
        usage={"input_tokens": 20},
        cost_state="unknown",
    ),
    row(
        "audio.transcriptions.create",
        method("audio.transcriptions", **HEARD),
        raw=method("audio.transcriptions.with_raw_response", **HEARD),
        model="whisper-large-v3-turbo",
        operation="transcription",
        behaviour={"audio_seconds": 62.5},
        usage={"input_audio_seconds": 62.5},
        without_usage="counted",
    ),
    row(
        "audio.speech.create",
        method("audio.speech", **SPOKEN),
        raw=method("audio.speech.with_raw_response", **SPOKEN),
        model="playai-tts",
        operation="speech",
        behaviour={},
        usage={"input_characters": 21},
        cost_state="unknown",
        without_usage="counted",
        fuzz=Because("sound has no fields that could be damaged"),
    ),
]
