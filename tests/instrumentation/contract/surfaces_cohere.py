"""Cohere, through its own SDK: version 2 of the API, and version 1."""

from __future__ import annotations

from typing import Any

from surface import Because, Call, Surface

from tokenbudget_otel.simulator import Simulator

NO_STREAM = Because("the API does not stream")
NO_RAW_ROW = Because("as in the row above")


def client(simulator: Simulator, asynchronous: bool) -> Any:
    import cohere

    return _made(cohere.AsyncClientV2 if asynchronous else cohere.ClientV2, simulator, asynchronous)


def client_v1(simulator: Simulator, asynchronous: bool) -> Any:
    import cohere

    return _made(cohere.AsyncClient if asynchronous else cohere.Client, simulator, asynchronous)


def _made(kind: Any, simulator: Simulator, asynchronous: bool) -> Any:
    import httpx

    http = (httpx.AsyncClient if asynchronous else httpx.Client)(verify=False, timeout=20)
    return kind(
        api_key="any",
        base_url=simulator.cohere_url,
        httpx_client=http,
        log_warning_experimental_features=False,
    )


NO_RETRIES = {"max_retries": 0}


def method(name: str, **arguments: Any) -> Call:
    return lambda client: getattr(client, name)(**arguments, request_options=NO_RETRIES)


def raw_of(name: str, **arguments: Any) -> Call:
    """The raw response; what comes of an async client is awaited by the suite."""
    return lambda client: getattr(client.with_raw_response, name)(**arguments, request_options=NO_RETRIES)


CHAT = {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "Tell me a story about a river."}]}
CHAT_V1 = {"model": "command-a-03-2025", "message": "Tell me a story about a river."}
EMBED = {
    "model": "embed-v4.0",
    "texts": ["a river", "a bridge"],
    "input_type": "search_document",
    "embedding_types": ["float"],
}
RERANK = {"model": "rerank-v3.5", "query": "a river", "documents": ["a bridge", "water"] * 60}
COUNTED = {"input_tokens": 1_200, "cached_tokens": 700, "output_tokens": 150, "reasoning_tokens": 60}
USAGE = {"input_tokens": 1_200, "cache_read_tokens": 700, "output_tokens": 150}
EMBEDDED = {"input_tokens": 20}


def row(name: str, call: Call | Because, stream: Call | Because = NO_STREAM, **fields: Any) -> Surface:
    options: dict[str, Any] = {
        "provider": "Cohere",
        "sdk": "cohere",
        "system": "cohere",
        "model": "command-a-03-2025",
        "client": client,
        "behaviour": COUNTED,
        "usage": USAGE,
    }
    return Surface(**options | fields | {"name": name, "call": call, "stream": stream})


SURFACES = [
    row("chat, chat_stream", method("chat", **CHAT), method("chat_stream", **CHAT), raw=raw_of("chat", **CHAT)),
    row(
        "embed",
        method("embed", **EMBED),
        raw=raw_of("embed", **EMBED),
        model="embed-v4.0",
        operation="embeddings",
        behaviour=EMBEDDED,
        usage=EMBEDDED,
    ),
    row(
        "rerank",
        method("rerank", **RERANK),
        raw=raw_of("rerank", **RERANK),
        model="rerank-v3.5",
        operation="rerank",
        behaviour={},
        usage={"rerank_searches": 2},
    ),
    row(
        "v1 chat, chat_stream",
        method("chat", **CHAT_V1),
        method("chat_stream", **CHAT_V1),
        raw=raw_of("chat", **CHAT_V1),
        client=client_v1,
    ),
    row(
        "v1 embed",
        method("embed", **EMBED),
        raw=Because("the answers of several requests are put together"),
        client=client_v1,
        model="embed-v4.0",
        operation="embeddings",
        behaviour=EMBEDDED,
        usage=EMBEDDED,
    ),
]
