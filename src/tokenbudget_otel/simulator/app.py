"""The Starlette app: which provider speaks under which path, and the way of one request through it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from tokenbudget_otel.simulator import (
    admin,
    anthropic,
    bedrock,
    cohere,
    google,
    groq,
    mistral,
    ollama,
    openai,
    together,
    voyage,
)
from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.books import RecordedRequest
from tokenbudget_otel.simulator.cohere_errors import cohere_body
from tokenbudget_otel.simulator.damage import damaged
from tokenbudget_otel.simulator.delivery import Line, deliver
from tokenbudget_otel.simulator.errors import anthropic_body, google_body, openai_body
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import ANTHROPIC, AZURE, GOOGLE, HOSTS, OPENAI, Host
from tokenbudget_otel.simulator.mistral_errors import mistral_body
from tokenbudget_otel.simulator.multipart import read_form
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.routing import Handler
from tokenbudget_otel.simulator.state import State
from tokenbudget_otel.simulator.websockets import routes as live_routes

ErrorBody = Callable[[int, str | None, str], bytes]


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
        epoch = state.epoch
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
        if behaviour.damage is not None:
            reply = damaged(reply, behaviour.damage)
        await self._answer(line, exchange, reply, epoch)

    async def _answer(self, line: Line, exchange: Exchange, reply: Reply, epoch: int) -> None:
        def settle(share: float) -> None:
            if reply.usage is not None:
                state.bill(exchange, reply, reply.usage, share, epoch)
            for model, usage in reply.further:
                state.bill(exchange, Reply(model=model), usage, 1.0, epoch)

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
        if self._error_body is bedrock.error_body:
            headers.append((b"x-amzn-errortype", bedrock.error_type(status).encode()))
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
    if content_type.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(body.decode("utf-8", "replace")))
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

    both = openai_routes(OPENAI)
    messages = routes(anthropic.ROUTES, ANTHROPIC, anthropic_body, b"request-id")
    contents = routes(google.ROUTES, GOOGLE, google_body, b"x-request-id")
    other = Endpoint(state, _not_found, OPENAI, openai_body, b"x-request-id")
    # In each mount too: Starlette does not look further once a prefix fits.
    fallback = [Route("/{path:path}", other, methods=["GET", "POST", "DELETE", "PUT", "PATCH"])]
    mounts: list[BaseRoute] = [
        Mount("/v1", routes=[*both[:2], *messages, *both[2:], *contents, *fallback]),
        Mount("/openai/deployments/{deployment}", routes=[*openai_routes(AZURE), *fallback]),
        Mount("/openai/v1", routes=[*openai_routes(AZURE), *fallback]),
        Mount("/openai", routes=[*openai_routes(AZURE), *fallback]),
        Mount("/host/{host}/v1", routes=[*openai_routes(None), *fallback]),
        Mount("/anthropic/v1", routes=[*messages, *fallback]),
        Mount("/mistral/v1", routes=[*routes(mistral.ROUTES, mistral.HOST, mistral_body, b"x-request-id"), *fallback]),
        Mount("/cohere", routes=[*routes(cohere.ROUTES, cohere.HOST, cohere_body, b"x-request-id"), *fallback]),
        Mount("/groq/openai/v1", routes=[*routes(groq.ROUTES, groq.HOST, openai_body, b"x-request-id"), *fallback]),
        Mount(
            "/together/v1", routes=[*routes(together.ROUTES, together.HOST, openai_body, b"x-request-id"), *fallback]
        ),
        *(Mount(prefix, routes=[*contents, *fallback]) for prefix in ("/v1beta1", "/v1beta")),
        Mount(
            "/model", routes=[*routes(bedrock.ROUTES, bedrock.HOST, bedrock.error_body, b"x-amzn-requestid"), *fallback]
        ),
        Mount(
            "/ollama/api", routes=[*routes(ollama.ROUTES, ollama.HOST, ollama.ollama_body, b"x-request-id"), *fallback]
        ),
        Mount(
            "/voyage/v1", routes=[*routes(voyage.ROUTES, voyage.HOST, voyage.voyage_body, b"x-request-id"), *fallback]
        ),
        Mount("/_simulator", routes=admin.routes(state)),
    ]
    return Starlette(routes=[*live_routes(state), *mounts, *fallback])
