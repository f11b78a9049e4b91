"""Gemini in AI Studio and on Vertex AI, through ``google.genai``; and through the SDK before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surface import Because, Surface

from tokenbudget_otel.simulator import Simulator

PROMPT = "Tell me a story about a river."
MODEL = "gemini-2.5-flash"
NEWER = "gemini-3-pro-preview"
"""A model whose searches are billed one by one."""

NO_STREAM = Because("the API does not stream")


def made(simulator: Simulator, asynchronous: bool, **more: Any) -> Any:
    """A client that does not load certificates and does not retry."""
    from google import genai

    options = {
        "base_url": simulator.google_url,
        "timeout": 20_000,
        "client_args": {"verify": unverified()},
        "async_client_args": {"verify": unverified(), "ssl": unverified()},
        "retry_options": {"attempts": 1},
    }
    client = genai.Client(api_key="any", http_options=options, **more)
    if genai.__version__.startswith("2"):  # counts retries of interactions there, and lets nobody set none
        client._api_client._http_options.retry_options.attempts = 0
    return client.aio if asynchronous else client


def unverified() -> Any:
    """A TLS context without certificates; loading them takes longer than a whole test."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def studio(simulator: Simulator, asynchronous: bool) -> Any:
    return made(simulator, asynchronous, vertexai=False)


def vertex(simulator: Simulator, asynchronous: bool) -> Any:
    return made(simulator, asynchronous, vertexai=True)


CONFIG = {
    "temperature": 0.5,
    "max_output_tokens": 2_000,
    "system_instruction": "Be brief.",
    "tools": [{"google_search": {}}],
}
COUNTED = {
    "input_tokens": 1_200,
    "cached_tokens": 700,
    "input_audio_tokens": 30,
    "input_image_tokens": 20,
    "tool_use_input_tokens": 100,
    "output_tokens": 150,
    "reasoning_tokens": 60,
    "web_searches": 2,
}
USAGE = {
    "input_tokens": 1_200,
    "input_text_tokens": 1_150,
    "input_audio_tokens": 30,
    "input_image_tokens": 20,
    "cache_read_tokens": 700,
    "cache_read_text_tokens": 700,
    "cache_read_audio_tokens": 0,
    "cache_read_image_tokens": 0,
    "tool_use_input_tokens": 100,
    "output_tokens": 150,
    "reasoning_tokens": 60,
}
VERTEX_USAGE = USAGE | {"output_text_tokens": 90}
PAINTED = {"input_tokens": 40, "output_tokens": 1_300, "output_image_tokens": 1_290}
PAINTED_USAGE = {
    "input_tokens": 40,
    "input_text_tokens": 40,
    "output_tokens": 1_300,
    "output_text_tokens": 10,
    "output_image_tokens": 1_290,
}
CHAT_COUNTED = {"input_tokens": 120, "output_tokens": 30, "reasoning_tokens": 12, "thinking": "Rivers run."}
CHAT_USAGE = {"input_tokens": 120, "input_text_tokens": 120, "output_tokens": 30, "reasoning_tokens": 12}

INTERACTION_COUNTED = {name: value for name, value in COUNTED.items() if name != "web_searches"} | {"web_searches": 3}
INTERACTION_USAGE = USAGE | {"input_text_tokens": 1_050, "web_searches": 3}
INTERACTION = {"model": NEWER, "input": PROMPT, "tools": [{"type": "google_search"}]}

TEXTS = ["a river", "a bridge"]
CHARACTERS = sum(len(text.replace(" ", "")) for text in TEXTS)


def _generate(client: Any, model: str = MODEL, **config: Any) -> Any:
    return client.models.generate_content(model=model, contents=PROMPT, config=CONFIG | config)


def _stream(client: Any, model: str = MODEL) -> Any:
    return client.models.generate_content_stream(model=model, contents=PROMPT, config=CONFIG)


def _surface(name: str, model: str, behaviour: Mapping[str, Any], usage: Mapping[str, Any], **more: Any) -> Surface:
    given: dict[str, Any] = {
        "provider": "Google Gemini", "sdk": "google.genai", "system": "gcp.gemini", "client": studio,
        "operation": "generate_content", "stream": NO_STREAM,
    }  # fmt: skip
    return Surface(name=name, model=model, behaviour=behaviour, usage=usage, **(given | more))


def _raw(client: Any, model: str = MODEL) -> Any:
    return _generate(client, model, should_return_http_response=True)


GEMINI = [
    _surface(
        "models.generate_content", MODEL, COUNTED, USAGE | {"web_searches": 1},
        call=_generate, stream=_stream, raw=_raw,
    ),
    _surface(
        "chats.send_message", MODEL, CHAT_COUNTED, CHAT_USAGE,
        call=lambda client: client.chats.create(model=MODEL).send_message(PROMPT),
        stream=lambda client: client.chats.create(model=MODEL).send_message_stream(PROMPT),
    ),
    _surface(
        "models.generate_content (images)", "gemini-2.5-flash-image", PAINTED, PAINTED_USAGE,
        call=lambda client: client.models.generate_content(model="gemini-2.5-flash-image", contents=PROMPT),
        stream=lambda client: client.models.generate_content_stream(model="gemini-2.5-flash-image", contents=PROMPT),
    ),
    _surface(
        "models.embed_content", "gemini-embedding-2", {"input_tokens": 9}, {"input_tokens": 9, "input_text_tokens": 9},
        operation="embeddings",
        call=lambda client: client.models.embed_content(model="gemini-embedding-2", contents=TEXTS),
    ),
    _surface(
        "interactions.create", NEWER, INTERACTION_COUNTED, INTERACTION_USAGE,
        operation="chat",
        call=lambda client: client.interactions.create(**INTERACTION),
        stream=lambda client: client.interactions.create(**INTERACTION, stream=True),
        raw=lambda client: client.interactions.with_raw_response.create(**INTERACTION),
    ),
]  # fmt: skip

VERTEX = [
    _surface(
        "models.generate_content", NEWER, COUNTED, VERTEX_USAGE | {"web_searches": 2},
        provider="Google Vertex AI", system="gcp.vertex_ai", client=vertex,
        call=lambda client: _generate(client, NEWER), stream=lambda client: _stream(client, NEWER),
        raw=lambda client: _raw(client, NEWER),
    ),
    _surface(
        "models.embed_content", "text-embedding-005", {"input_tokens": 9},
        {"input_tokens": 9, "input_characters": CHARACTERS},
        provider="Google Vertex AI", system="gcp.vertex_ai", client=vertex, operation="embeddings",
        call=lambda client: client.models.embed_content(model="text-embedding-005", contents=TEXTS),
    ),
    _surface(
        "models.embed_content (by the token)", "gemini-embedding-2", {"input_tokens": 9},
        {"input_tokens": 9, "input_text_tokens": 9},
        provider="Google Vertex AI", system="gcp.vertex_ai", client=vertex, operation="embeddings",
        call=lambda client: client.models.embed_content(model="gemini-embedding-2", contents="a river"),
    ),
    _surface(
        "models.generate_images", "imagen-3.0-generate-001", {}, {"output_images": 2},
        provider="Google Vertex AI", system="gcp.vertex_ai", client=vertex, operation="image_generation",
        call=lambda client: client.models.generate_images(
            model="imagen-3.0-generate-001", prompt="A river", config={"number_of_images": 2}
        ),
        without_usage="counted",
    ),
]  # fmt: skip


# --- the SDK before -----------------------------------------------------------------------------------------------


def former(simulator: Simulator, _asynchronous: bool) -> Any:
    import google.generativeai as former_sdk
    from google.generativeai import client as clients

    clients._client_manager = clients._ClientManager()
    former_sdk.configure(api_key="any", transport="rest", client_options={"api_endpoint": simulator.google_url})
    return former_sdk.GenerativeModel("gemini-2.0-flash", system_instruction="Be brief.")


NO_ASYNC = {"sync": None, "async": Because("the SDK's async client speaks gRPC only")}
FORMER_COUNTED = {"input_tokens": 120, "cached_tokens": 50, "output_tokens": 40, "reasoning_tokens": 15}
FORMER_USAGE = {"input_tokens": 120, "cache_read_tokens": 50, "output_tokens": 40, "reasoning_tokens": 15}
NO_RETRY = {"retry": None, "timeout": 20}


def _embed_with_former(_client: Any) -> Any:
    import google.generativeai as former_sdk

    return former_sdk.embed_content("models/text-embedding-004", TEXTS, request_options=NO_RETRY)


FORMER = [
    _surface(
        name, "gemini-2.0-flash", FORMER_COUNTED, FORMER_USAGE,
        provider="Google Gemini (google-generativeai)", sdk="google.generativeai", client=former, modes=NO_ASYNC,
        call=call, stream=stream,
        fuzz=Because("answers are parsed by protobuf, which takes nothing that is not well-formed"),
    )
    for name, call, stream in (
        (
            "GenerativeModel.generate_content",
            lambda model: model.generate_content(PROMPT, request_options=NO_RETRY),
            lambda model: model.generate_content(PROMPT, stream=True, request_options=NO_RETRY),
        ),
        (
            "start_chat().send_message",
            lambda model: model.start_chat().send_message(PROMPT, request_options=NO_RETRY),
            lambda model: model.start_chat().send_message(PROMPT, stream=True, request_options=NO_RETRY),
        ),
    )
]  # fmt: skip

SURFACES = GEMINI + VERTEX + FORMER
