"""Live sessions over websockets: what the wire formats of OpenAI and Google share, and their routes.

A message that brings the model to answer is one request with one behaviour, as over HTTP. Every message of the client
is kept in ``sim.requests`` (method ``WEBSOCKET``), every answer is billed for itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import Any, ClassVar

from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.books import RecordedRequest
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import AZURE, GOOGLE, OPENAI, Host
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import dump
from tokenbudget_otel.simulator.state import State
from tokenbudget_otel.simulator.usage import Usage


class Conversation:
    """One live connection. A subclass is a wire format: it says what is sent when, and what a message means."""

    text: ClassVar[bool] = True
    """Whether messages go out as text frames."""

    def __init__(self, state: State, socket: WebSocket, host: Host) -> None:
        self.state, self.socket, self.host = state, socket, host
        self.query = dict(socket.query_params)
        self.path = socket.scope["path"]
        self.context: list[Any] = []
        """What the model reads in its next answer."""
        self.speaking: asyncio.Task[None] | None = None
        self.stop = asyncio.Event()
        """Set where the answer under way is to end early."""
        self.sent = 0
        """Pieces of the answer under way that have been sent."""
        self._message: RecordedRequest | None = None

    # --- what a subclass provides ------------------------------------------------------------------------------

    async def opened(self) -> None:
        """The connection is there."""

    async def heard(self, message: Mapping[str, Any]) -> None:
        """The client sent a message."""
        raise NotImplementedError

    # --- the connection ----------------------------------------------------------------------------------------

    async def serve(self) -> None:
        await self.socket.accept()
        client = tuple(self.socket.scope["client"] or ())[:2]
        try:
            await self.opened()
            while True:
                await self._take(await self.socket.receive())
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the client has gone, or we have
        finally:
            if self.speaking is not None:
                self.speaking.cancel()
                await asyncio.gather(self.speaking, return_exceptions=True)
            self.state.peers.pop(client, None)

    async def _take(self, event: Any) -> None:
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        body = event.get("bytes") or (event.get("text") or "").encode()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.socket.headers.raw}
        query = self.socket.scope["query_string"].decode("latin-1")
        self._message = RecordedRequest("WEBSOCKET", self.path, query, headers, body)
        try:
            message = json.loads(body)
        except ValueError:
            message = None
        await self.heard(message if isinstance(message, dict) else {})
        if self._message is not None:  # it has brought nothing about
            with self.state.lock:
                self.state.requests.append(self._message)

    async def send(self, message: Any) -> None:
        data = dump(message)
        await (self.socket.send_text(data.decode()) if self.text else self.socket.send_bytes(data))

    def hang_up(self) -> None:
        """Close the TCP connection, without a word."""
        transport = self.state.peers.get(tuple(self.socket.scope["client"] or ())[:2])
        if transport is not None:
            transport.close()

    # --- an answer ---------------------------------------------------------------------------------------------

    def enter(self, body: dict[str, Any]) -> tuple[Exchange, int]:
        """What the last message asks for: with the behaviour that is due, and the epoch of the books."""
        assert self._message is not None
        message, self._message, epoch = self._message, None, self.state.epoch
        key, behaviour = self.state.enter(message)
        return self.exchange(key, behaviour, body, message), epoch

    def aside(self, body: dict[str, Any]) -> tuple[Exchange, int]:
        """Something that is done beside the answer."""
        key = blake2b(dump(body) + b"%d" % len(self.context), digest_size=12).digest()
        empty = RecordedRequest("WEBSOCKET", self.path, "", {}, b"")
        return self.exchange(key, Behaviour(), body, empty), self.state.epoch

    def exchange(self, key: bytes, behaviour: Behaviour, body: dict[str, Any], message: RecordedRequest) -> Exchange:
        return Exchange(
            key=key,
            method=message.method,
            path=self.path,
            query=message.query,
            params=self.query,
            headers=message.headers,
            body=body,
            behaviour=behaviour,
            host=self.host,
            created=int(self.state.clock()),
            store=self.state.store,
        )

    def bill(self, exchange: Exchange, usage: Usage, share: float, epoch: int) -> None:
        reply = Reply(frames=[], usage=usage, model=exchange.model)
        self.state.bill(exchange, reply, usage, share, epoch)

    def say(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin an answer, and go on listening."""
        self.stop.clear()
        self.speaking = asyncio.create_task(self._speak(work))

    async def _speak(self, work: Callable[[], Awaitable[None]]) -> None:
        self.state.open += 1
        try:
            await work()
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the client has gone
        finally:
            self.state.open -= 1

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self.speaking is not None and not self.speaking.done()

    async def interrupt(self) -> None:
        """End the answer under way, and wait for its last words."""
        if self.speaking is not None:
            self.stop.set()
            await asyncio.gather(self.speaking, return_exceptions=True)

    async def pieces(self, behaviour: Behaviour, pieces: list[Any]) -> str | None:
        """Send the pieces of an answer, and count them in ``sent``: what ended it, if it was not the last piece
        (``stopped``, or the name of a fault)."""
        fault, after = behaviour.stream_fault or (None, 0)
        self.sent = 0
        if behaviour.first_chunk_s:
            await asyncio.sleep(behaviour.first_chunk_s)
        for piece in pieces:
            if fault is not None and self.sent >= after:
                return fault
            if self.stop.is_set():
                return "stopped"
            await self.send(piece)
            self.sent += 1
            if behaviour.chunk_s:
                try:
                    await asyncio.wait_for(self.stop.wait(), behaviour.chunk_s)
                except TimeoutError:
                    continue
        return "stopped" if self.stop.is_set() and behaviour.chunk_s else fault


def is_silence(audio: str) -> bool:
    """Whether audio (base64) holds nothing but silence: after it, the simulated server knows that somebody has stopped
    speaking.

    Example:
        >>> is_silence("AAAAAAAA"), is_silence("AAECAwQF"), is_silence("")
        (True, False, False)
    """
    data = base64.b64decode(audio)
    return bool(data) and not any(data)


class _Route:
    """One endpoint: makes a conversation for every connection."""

    def __init__(self, state: State, make: type[Conversation], host: Host) -> None:
        self._state, self._make, self._host = state, make, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._make(self._state, WebSocket(scope, receive, send), self._host).serve()


def routes(state: State) -> list[WebSocketRoute]:
    """Every endpoint that is spoken to over a websocket."""
    from tokenbudget_otel.simulator.google_live import GoogleLive, VertexLive
    from tokenbudget_otel.simulator.openai_realtime import Realtime, Responses

    table: tuple[tuple[str, type[Conversation], Host], ...] = (
        ("/v1/realtime", Realtime, OPENAI),
        ("/openai/realtime", Realtime, AZURE),
        ("/openai/v1/realtime", Realtime, AZURE),
        ("/v1/responses", Responses, OPENAI),
        ("/openai/responses", Responses, AZURE),
        ("/openai/v1/responses", Responses, AZURE),
        ("/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent", GoogleLive, GOOGLE),
        ("/ws/google.cloud.aiplatform.{version}.LlmBidiService/BidiGenerateContent", VertexLive, GOOGLE),
    )
    return [WebSocketRoute(path, _Route(state, make, host)) for path, make, host in table]
