"""The provider, in this process: a transport below the SDK's HTTP client that answers at once, and sends nothing.

For streams each piece of the body is one event, as it is where a provider sends as it generates.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import answers

HEADERS = [
    (b"date", b"Mon, 30 Nov 2026 12:00:00 GMT"),
    (b"server", b"cloudflare"),
    (b"access-control-expose-headers", b"X-Request-ID"),
    (b"openai-organization", b"acme-4kq1zx"),
    (b"openai-processing-ms", b"412"),
    (b"openai-version", b"2020-10-01"),
    (b"x-ratelimit-limit-requests", b"10000"),
    (b"x-ratelimit-limit-tokens", b"30000000"),
    (b"x-ratelimit-remaining-requests", b"9999"),
    (b"x-ratelimit-remaining-tokens", b"29998800"),
    (b"x-request-id", b"req_9f86d081884c7d659a2feaa0c55ad015"),
    (b"request-id", b"req_011CSHoEeqs5C35K2UUqR7Fy"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains; preload"),
    (b"cf-ray", b"9a6b1c2d3e4f5a6b-FRA"),
]
WHOLE = [*HEADERS, (b"content-type", b"application/json")]
STREAMED = [*HEADERS, (b"content-type", b"text/event-stream; charset=utf-8")]
EXTENSIONS = {"http_version": b"HTTP/1.1"}

BODIES: dict[str, tuple[list[bytes], list[bytes]]] = {
    "/v1/chat/completions": ([answers.CHAT], answers.CHAT_STREAM),
    "/v1/responses": ([answers.RESPONSES], answers.RESPONSES_STREAM),
    "/v1/embeddings": ([answers.EMBEDDINGS], []),
    "/v1/messages": ([answers.MESSAGES], answers.MESSAGES_STREAM),
}
"""What is answered, whole and streamed."""


def http_of(sdk: ModuleType) -> ModuleType:
    """The HTTP library that an SDK is built on: httpx, or httpx2 of the newer ones."""
    (base,) = (kind for kind in sdk.DefaultHttpxClient.__mro__ if kind.__name__ == "Client")
    return importlib.import_module(base.__module__.partition(".")[0])


def _answer(http: ModuleType, body: type, request: Any) -> Any:
    content = request.content
    whole, pieces = BODIES[request.url.path]
    if b'"stream":true' not in content:
        return http.Response(200, headers=WHOLE, stream=body(whole), request=request, extensions=EXTENSIONS)
    if b'"include_usage":true' in content:
        pieces = answers.CHAT_STREAM_WITH_USAGE
    return http.Response(200, headers=STREAMED, stream=body(pieces), request=request, extensions=EXTENSIONS)


def client_of(sdk: ModuleType, *, is_async: bool) -> Any:
    """An HTTP client for a client of ``sdk``."""
    http = http_of(sdk)

    class Body(http.SyncByteStream):
        def __init__(self, pieces: list[bytes]) -> None:
            self._pieces = pieces

        def __iter__(self) -> Iterator[bytes]:
            return iter(self._pieces)

    class AsyncBody(http.AsyncByteStream):
        def __init__(self, pieces: list[bytes]) -> None:
            self._pieces = pieces

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in self._pieces:
                yield piece

    class Transport(http.BaseTransport):
        def handle_request(self, request: Any) -> Any:
            return _answer(http, Body, request)

    class AsyncTransport(http.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            return _answer(http, AsyncBody, request)

    if is_async:
        return http.AsyncClient(transport=AsyncTransport())
    return http.Client(transport=Transport())
