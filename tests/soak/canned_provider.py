"""A provider that answers from memory, in a process of its own: what the simulator said once, as fast as a loop can.

The simulator works out each answer, at two or three hundred a second. Here it is asked once for each kind of request,
and what it said is repeated, byte for byte, at more than ten thousand a second.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any, Final

import httpx

from tokenbudget_otel.simulator import Behaviour, Simulator

HELLO: Final = [{"role": "user", "content": "Say hello."}]

CHAT: Final[Mapping[str, Any]] = {"model": "gpt-4o-mini", "messages": HELLO}
MESSAGE: Final[Mapping[str, Any]] = {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": HELLO}
STREAMED: Final = {"stream": True, "stream_options": {"include_usage": True}}
GEMINI: Final[Mapping[str, Any]] = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
CONVERSE: Final[Mapping[str, Any]] = {"messages": [{"role": "user", "content": [{"text": "Say hello."}]}]}

GEMINI_MODEL: Final = "gemini-2.5-flash"
BEDROCK_MODEL: Final = "amazon.nova-lite-v1:0"

_Kind = tuple[bytes, bool]
"""The last part of a path, and whether a stream is asked for."""

RECORDED: Final[Mapping[_Kind, tuple[str, Mapping[str, Any]]]] = {
    (b"completions", False): ("openai_url:/chat/completions", CHAT),
    (b"completions", True): ("openai_url:/chat/completions", {**CHAT, **STREAMED}),
    (b"messages", False): ("anthropic_url:/v1/messages", MESSAGE),
    (b"messages", True): ("anthropic_url:/v1/messages", {**MESSAGE, "stream": True}),
    (b"generateContent", False): (f"google_url:/v1beta/models/{GEMINI_MODEL}:generateContent", GEMINI),
    (b"converse", False): (f"bedrock_url:/model/{BEDROCK_MODEL}/converse", CONVERSE),
}

_KEYS: Final = {
    "authorization": "Bearer any",
    "x-api-key": "any",
    "x-goog-api-key": "any",
    "anthropic-version": "2023-06-01",
}


def record() -> dict[_Kind, bytes]:
    """Ask the simulator for one answer of each kind; gives them as they go over the wire."""
    said: dict[_Kind, bytes] = {}
    with Simulator(seed=7, default=Behaviour(text="Hello there, how are you today?", chunks=4)) as sim:
        for kind, (target, body) in RECORDED.items():
            base, _, path = target.partition(":")
            answer = httpx.post(f"{getattr(sim, base)}{path}", json=body, headers=_KEYS, timeout=30)
            answer.raise_for_status()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: " + answer.headers["content-type"].encode() + b"\r\n"
            if answer.headers["content-type"].startswith("text/event-stream"):
                events = [event + b"\n\n" for event in answer.content.split(b"\n\n") if event]
                chunks = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
                said[kind] = head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
            else:
                said[kind] = head + b"content-length: %d\r\n\r\n" % len(answer.content) + answer.content
    return said


class _Connection(asyncio.Protocol):
    def __init__(self, said: Mapping[_Kind, bytes]) -> None:
        self._said = said
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        held = self._held + data
        while (end := held.find(b"\r\n\r\n")) >= 0:
            head = held[:end]
            whole = end + 4 + _length(head)
            if len(held) < whole:
                break
            body, held = held[end + 4 : whole], held[whole:]
            path = head.split(b" ", 2)[1].partition(b"?")[0]
            streamed = b'"stream":true' in body or b'"stream": true' in body
            self._transport.write(self._said[path.rpartition(b"/")[2].rpartition(b":")[2], streamed])
        self._held = held


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def serve() -> None:
    """Say on which port it listens, and answer until standard input is closed."""
    said = record()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(said), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
