"""Mistral, through its own SDK."""

from __future__ import annotations

from typing import Any

from surface import Because, Call, Surface

from tokenbudget_otel.simulator import Simulator

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]
NO_STREAM = Because("the API does not stream")


def client(simulator: Simulator, asynchronous: bool) -> Any:
    """One class is both: which of its methods are called is noted on it."""
    from mistralai.client import Mistral
    from mistralai.client.basesdk import httpx  # version 3 has httpx2 under this name

    made = Mistral(
        api_key="any",
        server_url=simulator.mistral_url,
        timeout_ms=20_000,
        client=httpx.Client(verify=False, follow_redirects=True),
        async_client=httpx.AsyncClient(verify=False, follow_redirects=True),
    )
    vars(made)["asynchronous"] = asynchronous
    return made


def method(path: str, name: str, **arguments: Any) -> Call:
    """The method of a part of the client: ``chat``, ``complete``."""

    def call(client: Any) -> Any:
        part = client
        for step in path.split("."):
            part = getattr(part, step)
        return getattr(part, f"{name}_async" if client.asynchronous else name)(**arguments)

    return call


COUNTED = {"input_tokens": 1_200, "cached_tokens": 700, "output_tokens": 150, "reasoning_tokens": 60}
USAGE = {"input_tokens": 1_200, "cache_read_tokens": 700, "output_tokens": 150}
PROMPTED = {"input_tokens": 20, "cached_tokens": 4}
PROMPTED_USAGE = {"input_tokens": 20, "cache_read_tokens": 4, "output_tokens": 0}


def row(name: str, call: Call | Because, stream: Call | Because = NO_STREAM, **fields: Any) -> Surface:
    options: dict[str, Any] = {
        "provider": "Mistral",
        "sdk": "mistralai",
        "system": "mistral_ai",
        "model": "mistral-large-latest",
        "client": client,
        "behaviour": COUNTED,
        "usage": USAGE,
    }
    return Surface(**options | fields | {"name": name, "call": call, "stream": stream})


CHAT = {"model": "mistral-large-latest", "messages": MESSAGES}
FIM = {"model": "codestral-latest", "prompt": "def river():", "suffix": "return water"}
TALK = {"model": "mistral-medium-latest", "inputs": "Tell me a story."}
ANSWER = {"model": "mistral-large-latest", "input": "Tell me a story."}
SOUND = {"model": "voxtral-mini-latest", "file": {"file_name": "a.wav", "content": b"\0" * 32_000}}
SPOKEN = {"model": "voxtral-mini-tts-2603", "input": "The river turns east."}
PAGES = {"model": "mistral-ocr-latest", "document": {"type": "document_url", "document_url": "https://example.com/a"}}


def parsed(client: Any) -> Any:
    """Structured outputs."""
    import pydantic

    class Answer(pydantic.BaseModel):
        answer: str

    arguments = CHAT | {"response_format": Answer}
    return method("chat", "parse", **arguments)(client)


def parsed_stream(client: Any) -> Any:
    """Structured outputs as a stream."""
    import pydantic

    class Answer(pydantic.BaseModel):
        answer: str

    arguments = CHAT | {"response_format": Answer}
    return method("chat", "parse_stream", **arguments)(client)


SURFACES = [
    row("chat.complete, chat.stream", method("chat", "complete", **CHAT), method("chat", "stream", **CHAT)),
    row(
        "chat.parse, chat.parse_stream",
        parsed,
        parsed_stream,
        behaviour={"text": '{"answer": "the river"}', "input_tokens": 120, "output_tokens": 15},
        usage={"input_tokens": 120, "output_tokens": 15, "cache_read_tokens": 0},
        fuzz=Because("the SDK parses the text of the answer, and the damaged one has none to parse"),
    ),
    row(
        "fim.complete, fim.stream",
        method("fim", "complete", **FIM),
        method("fim", "stream", **FIM),
        model="codestral-latest",
        operation="text_completion",
    ),
    row(
        "beta.conversations.start",
        method("beta.conversations", "start", **TALK),
        method("beta.conversations", "start_stream", **TALK),
        model="mistral-medium-latest",
        behaviour={"input_tokens": 900, "output_tokens": 40},
        usage={"input_tokens": 900, "output_tokens": 40},
    ),
    row(
        "beta.conversations.start with connectors",
        method("beta.conversations", "start", **TALK, tools=[{"type": "web_search"}]),
        method("beta.conversations", "start_stream", **TALK, tools=[{"type": "web_search"}]),
        model="mistral-medium-latest",
        behaviour={"input_tokens": 900, "output_tokens": 40, "web_searches": 2, "tool_use_input_tokens": 300},
        usage={"input_tokens": 900, "output_tokens": 40, "tool_use_input_tokens": 300, "web_searches": 2},
        cost_state="partial",
    ),
    row(
        "embeddings.create",
        method("embeddings", "create", model="mistral-embed", inputs=["a river", "a bridge"]),
        model="mistral-embed",
        operation="embeddings",
        behaviour=PROMPTED,
        usage=PROMPTED_USAGE,
    ),
    row(
        "ocr.process",
        method("ocr", "process", **PAGES),
        model="mistral-ocr-latest",
        operation="ocr",
        behaviour={},
        usage={"document_pages": 2},
    ),
    row(
        "audio.transcriptions",
        method("audio.transcriptions", "complete", **SOUND),
        method("audio.transcriptions", "stream", **SOUND),
        model="voxtral-mini-latest",
        operation="transcription",
        behaviour={"audio_seconds": 62.0},
        usage={"input_audio_seconds": 62},
    ),
    row(
        "audio.speech.complete",
        method("audio.speech", "complete", **SPOKEN),
        method("audio.speech", "complete", **SPOKEN, stream=True),
        model="voxtral-mini-tts-2603",
        operation="speech",
        behaviour={},
        usage={"input_characters": 21},
        without_usage="counted",
        early=Because("it is billed by the characters of the request, however much of it is heard"),
    ),
    row(
        "classifiers.moderate",
        method("classifiers", "moderate", model="mistral-moderation-latest", inputs=["a river"]),
        model="mistral-moderation-latest",
        operation="moderation",
        behaviour=PROMPTED,
        usage=PROMPTED_USAGE,
        cost_state="unknown",
    ),
    row(
        "classifiers.classify",
        method("classifiers", "classify", model="ft:classifier:mine", inputs=["a river"]),
        model="ft:classifier:mine",
        operation="classification",
        behaviour=PROMPTED,
        usage=PROMPTED_USAGE,
        cost_state="unknown",
    ),
]
