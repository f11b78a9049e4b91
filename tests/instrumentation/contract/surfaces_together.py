"""Together, through its own SDK."""

from __future__ import annotations

from typing import Any

from surface import Because, Call, Surface

from tokenbudget_otel.simulator import Simulator

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]
LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
NO_STREAM = Because("the API does not stream")


def client(simulator: Simulator, asynchronous: bool) -> Any:
    import together

    kind = together.AsyncTogether if asynchronous else together.Together
    http = together.DefaultAsyncHttpxClient if asynchronous else together.DefaultHttpxClient
    return kind(
        api_key="any", base_url=simulator.together_url, max_retries=0, timeout=20, http_client=http(verify=False)
    )


def method(path: str, **arguments: Any) -> Call:
    """A method of a resource (``chat.completions.create``), or of its raw responses."""

    def call(client: Any) -> Any:
        found = client
        for name in path.split("."):
            found = getattr(found, name)
        return found(**arguments)

    return call


def row(name: str, path: str, arguments: dict[str, Any], **fields: Any) -> Surface:
    resource, _, last = path.rpartition(".")
    options: dict[str, Any] = {
        "provider": "Together",
        "sdk": "together",
        "name": name,
        "system": "together",
        "model": arguments["model"],
        "client": client,
        "call": method(path, **arguments),
        "raw": method(f"{resource}.with_raw_response.{last}", **arguments),
        "stream": NO_STREAM,
        "behaviour": {"input_tokens": 1_200, "output_tokens": 150},
        "usage": {"input_tokens": 1_200, "output_tokens": 150},
    }
    return Surface(**options | fields)


CHAT = {"model": LLAMA, "messages": MESSAGES}
PROMPT = {"model": LLAMA, "prompt": "Once upon a time", "max_tokens": 200}
HEARD = {"model": "openai/whisper-large-v3", "file": ("a.wav", b"\0" * 32_000), "response_format": "verbose_json"}
SPOKEN = {"model": "cartesia/sonic", "input": "The river turns east.", "voice": "calm"}

SURFACES = [
    row(
        "chat.completions.create",
        "chat.completions.create",
        CHAT,
        stream=method("chat.completions.create", **CHAT, stream=True),
    ),
    row(
        "completions.create",
        "completions.create",
        PROMPT,
        stream=method("completions.create", **PROMPT, stream=True),
        operation="text_completion",
    ),
    row(
        "embeddings.create",
        "embeddings.create",
        {"model": "BAAI/bge-base-en-v1.5", "input": "a river"},
        operation="embeddings",
        behaviour={"input_tokens": 20},
        usage={"input_tokens": 20},
    ),
    row(
        "rerank.create",
        "rerank.create",
        {"model": "Salesforce/Llama-Rank-V1", "query": "a river", "documents": ["a bridge", "water"]},
        operation="rerank",
        behaviour={"input_tokens": 100},
        usage={"input_tokens": 100, "output_tokens": 0},
    ),
    row(
        "images.generate",
        "images.generate",
        {"model": "black-forest-labs/FLUX.1-schnell", "prompt": "a river", "n": 2},
        operation="image_generation",
        behaviour={},
        usage={"output_images": 2},
        cost_state="unknown",
        without_usage="counted",
    ),
    row(
        "audio.transcriptions.create",
        "audio.transcriptions.create",
        HEARD,
        operation="transcription",
        behaviour={"audio_seconds": 62.5},
        usage={"input_audio_seconds": 62.5},
        cost_state="unknown",
        without_usage="counted",
    ),
    row(
        "audio.speech.create",
        "audio.speech.create",
        SPOKEN,
        stream=method("audio.speech.create", **SPOKEN, stream=True),
        operation="speech",
        behaviour={},
        usage={"input_characters": 21},
        cost_state="unknown",
        without_usage="counted",
        early=Because("it is billed by the characters of the request, however much of it is heard"),
        fuzz=Because("sound has no fields that could be damaged"),
    ),
]
