"""The Starlette app: which provider speaks under which path, and the way of one request through it."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from tokenbudget_otel.simulator import anthropic, openai
from tokenbudget_otel.simulator.behaviour import Behaviour, from_header
from tokenbudget_otel.simulator.books import Billed, RecordedRequest, Store
from tokenbudget_otel.simulator.delivery import Line, deliver
from tokenbudget_otel.simulator.errors import anthropic_body, openai_body
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import ANTHROPIC, AZURE, HOSTS, OPENAI, Host
from tokenbudget_otel.simulator.multipart import read_form
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.routing import Handler
from tokenbudget_otel.simulator.usage import Usage

Clock = Callable[[], float]
ErrorBody = Callable[[int, str | None, str], bytes]


@dataclass(slots=True)
class State:
    """What the requests of one simulator share. Under the lock: they come from the server's thread, and are
    read from the tests'."""

    seed: int
    clock: Clock
    keep: int | None
    default: Behaviour = field(default_factory=Behaviour)
    lock: threading.Lock = field(default_factory=threading.Lock)
    queue: deque[Behaviour] = field(default_factory=deque)
    requests: deque[RecordedRequest] = field(init=False)
    billed: deque[Billed] = field(init=False)
    seen: dict[bytes, int] = field(default_factory=dict)
    """How many requests like this one there were, by their digest."""
    failed: dict[bytes, int] = field(default_factory=dict)
    """How often a request failed so far, for clients that do not number their attempts."""
    store: Store = field(default_factory=Store)
    peers: dict[Any, Any] = field(default_factory=dict)
    """Transports of open connections, by the client's address."""

    open: int = 0
    """Requests that are being answered."""

    def __post_init__(self) -> None:
        self.requests = deque(maxlen=self.keep)
        self.billed = deque(maxlen=self.keep)

    def reset(self) -> None:
        with self.lock:
            for books in (self.queue, self.requests, self.billed, self.seen, self.failed, self.store):
                books.clear()
            self.default = Behaviour()

    def then(self, behaviours: tuple[Behaviour, ...]) -> None:
        with self.lock:
            for behaviour in behaviours:
                # Each failing attempt takes one place in the queue, and the one that succeeds another.
                times = behaviour.fail_times or 0
                self.queue.extend([_always(behaviour)] * times)
                self.queue.append(behaviour.healthy() if times else behaviour)

    def enter(self, request: RecordedRequest) -> tuple[bytes, Behaviour]:
        """Note a request; its key, and the behaviour that is due.

        Raises:
            ValueError: its ``x-simulate`` header describes none.
        """
        content = b"%s\0%s\0%s\0" % (request.method.encode(), request.path.encode(), request.query.encode())
        like = blake2b(content + request.body, digest_size=12).digest()
        asked = request.headers.get("x-simulate")
        with self.lock:
            self.requests.append(request)
            number = self.seen.get(like, 0)
            self.seen[like] = number + 1
            if asked is None and self.queue:
                behaviour = self.queue.popleft()
            else:
                behaviour = self.default if asked is None else from_header(asked)
                if behaviour.fail_times is not None:
                    behaviour = self._attempt(request, like, behaviour)
        key = blake2b(like + b"%d:%d" % (self.seed, number), digest_size=12).digest()
        return key, behaviour

    def bill(self, exchange: Exchange, reply: Reply, usage: Usage, share: float) -> None:
        """Write into the books what a reply costs of which the client got this share."""
        entry = Billed(
            provider=exchange.host.provider,
            path=exchange.path,
            model=reply.model or exchange.model,
            usage=usage if reply.frames is None else usage.until(share),
            completed=share >= 1,
            service_tier=exchange.behaviour.service_tier or exchange.body.get("service_tier"),
            request_id=exchange.request_id,
            whole=usage,
        )
        with self.lock:
            self.billed.append(entry)

    def _attempt(self, request: RecordedRequest, like: bytes, behaviour: Behaviour) -> Behaviour:
        """The behaviour with its fault, or without if the request has failed often enough."""
        times = behaviour.fail_times or 0
        if "x-stainless-retry-count" in request.headers:
            return _always(behaviour) if request.attempt < times else behaviour.healthy()
        failed = self.failed.get(like, 0)
        if failed < times:
            self.failed[like] = failed + 1
            return _always(behaviour)
        self.failed.pop(like, None)
        return behaviour.healthy()


def _always(behaviour: Behaviour) -> Behaviour:
    """The behaviour with its fault for good."""
    return replace(behaviour, fail_times=None)


class Endpoint:
    """One handler as an ASGI app: reads the request, finds its behaviour, answers, and bills."""

    __slots__ = ("_error_body", "_handler", "_host", "_id_header", "_state")

    def __init__(self, state: State, handler: Handler, host: Host | None, error_body: ErrorBody, id_header: bytes):
        self._state, self._handler, self._host = state, handler, host
        self._error_body, self._id_header = error_body, id_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = Line(receive, send, lambda: _close(self._state, scope))
        self._state.open += 1  # Only ever changed in the server's loop.
        try:
            await self._serve(scope, line, await _read(receive))
        finally:
            self._state.open -= 1
            line.release()

    async def _serve(self, scope: Scope, line: Line, body: bytes) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope["query_string"].decode("latin-1")
        request = RecordedRequest(scope["method"], scope["path"], query, headers, body)
        state, params = self._state, scope.get("path_params", {})
        host = self._host or HOSTS.get(params.get("host", ""))
        try:
            key, behaviour = state.enter(request)
        except ValueError as error:
            await self._fail(line, 400, str(error), "req_unknown", None)
            return
        exchange = Exchange(
            key=key,
            method=request.method,
            path=request.path,
            query=query,
            params=params,
            headers=headers,
            body=_parse(headers.get("content-type", ""), body),
            behaviour=behaviour,
            host=host or OPENAI,
            created=int(state.clock()),
            store=state.store,
        )
        if behaviour.latency_s and await line.pause(behaviour.latency_s):
            return
        if behaviour.timeout:
            await line.pause(None)
            return
        if behaviour.drop:
            await line.hang_up()
            return
        if host is None:
            names = ", ".join(HOSTS)
            await self._fail(line, 404, f"no such host here: {params.get('host')}; there are {names}", key.hex(), None)
            return
        if behaviour.status != 200:
            await self._fail(line, behaviour.status, behaviour.error_message, exchange.request_id, behaviour)
            return
        try:
            reply = self._handler(exchange)
        except RefusedError as refusal:
            reply = Reply(refusal.body, status=refusal.status)
        await self._answer(line, exchange, reply)

    async def _answer(self, line: Line, exchange: Exchange, reply: Reply) -> None:
        def settle(share: float) -> None:
            if reply.usage is not None:
                state.bill(exchange, reply, reply.usage, share)

        state = self._state
        headers = [(b"content-type", reply.content_type.encode()), (self._id_header, exchange.request_id.encode())]
        headers += [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await deliver(line, reply, exchange.behaviour, headers, settle)

    async def _fail(
        self, line: Line, status: int, message: str | None, request_id: str, behaviour: Behaviour | None
    ) -> None:
        body = self._error_body(status, message, request_id)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (self._id_header, request_id.encode()),
        ]
        after = behaviour.retry_after_s if behaviour else None
        if after is None and status in _RETRY_LATER:
            after = _RETRY_LATER[status]
        if after is not None:
            headers.append((b"retry-after", b"%g" % after))
            headers.append((b"retry-after-ms", b"%g" % (after * 1000)))
        await line.start(status, headers)
        await line.body(body, more=False)


_RETRY_LATER: Final = {429: 0.01, 529: 0.01}
"""Seconds. Short, because who simulates does not want to wait."""


async def _read(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body"):
        return bytes(message.get("body", b""))
    parts = [message["body"]]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)


def _parse(content_type: str, body: bytes) -> dict[str, Any]:
    """The fields of a request, from JSON or from a form; none from anything else."""
    if content_type.startswith("multipart/form-data"):
        return read_form(content_type, body)
    try:
        parsed = json.loads(body) if body else {}
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _close(state: State, scope: Scope) -> None:
    transport = state.peers.get(tuple(scope["client"] or ()))
    if transport is not None:
        transport.close()


def _not_found(exchange: Exchange) -> Reply:
    message = f"Invalid URL ({exchange.method} {exchange.path})"
    raise RefusedError(404, openai_body(404, message, ""))


def build(state: State) -> Starlette:
    """The app: each provider's routes under its prefixes.

    The order is that of how often they are asked for; a prefix that is the start of another comes
    after it.
    """

    def routes(table: dict[tuple[str, str], Handler], host: Host | None, error: ErrorBody, name: bytes) -> list[Route]:
        return [
            Route(path, Endpoint(state, handler, host, error, name), methods=[method])
            for (method, path), handler in table.items()
        ]

    def openai_routes(host: Host | None) -> list[Route]:
        return routes(openai.ROUTES, host, openai_body, b"x-request-id")

    messages = routes(anthropic.ROUTES, ANTHROPIC, anthropic_body, b"request-id")
    other = Endpoint(state, _not_found, OPENAI, openai_body, b"x-request-id")
    mounts: list[BaseRoute] = [
        Mount("/v1", routes=[*openai_routes(OPENAI)[:2], *messages, *openai_routes(OPENAI)[2:]]),
        Mount("/openai/deployments/{deployment}", routes=openai_routes(AZURE)),
        Mount("/openai/v1", routes=openai_routes(AZURE)),
        Mount("/openai", routes=openai_routes(AZURE)),
        Mount("/host/{host}/v1", routes=openai_routes(None)),
        Mount("/anthropic/v1", routes=messages),
    ]
    return Starlette(routes=[*mounts, Route("/{path:path}", other, methods=["GET", "POST", "DELETE"])])
