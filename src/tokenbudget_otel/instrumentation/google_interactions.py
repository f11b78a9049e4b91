"""Google's Interactions API, which ``google.genai`` speaks through a client of its own (``google.genai._gaos``).

That client sends each request through ``do_request``, as a request of httpx. An interaction that is continued takes
several, and each is billed. Fetching an interaction is free; the usage of one that went on in the background becomes
known there.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import wrapt

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.changes import Changes
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer, mark_of
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.google_content import FETCHED, INTERACTION
from tokenbudget_otel.instrumentation.google_requests import interaction_attributes, interaction_size
from tokenbudget_otel.instrumentation.google_streams import (
    INTERACTION_HINTS,
    INTERACTION_MARKS,
    INTERACTION_TEXT,
    InteractionReader,
    read_interaction,
)
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.http_door import RequestDoor
from tokenbudget_otel.instrumentation.nesting import part_of_another
from tokenbudget_otel.instrumentation.openai_background import BackgroundResponses
from tokenbudget_otel.instrumentation.streams import StreamFormat
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, Size

_MODULE: Final = "google.genai._gaos.basesdk"
_SENDING: Final = (("BaseSDK", "do_request", False), ("AsyncBaseSDK", "do_request_async", True))

_CREATE: Final = re.compile(r"/interactions$")
_FETCH_PATH: Final = re.compile(r"/interactions/[^/]+(?:/cancel)?$")


def _asked(body: Body) -> str:
    """The model (or the agent) that is asked for."""
    return (text(body.get("model")) or text(body.get("agent")) or "").rpartition("/")[2]


def _read(data: Any, body: Body, _provider: str) -> ResponseFacts:
    facts = ResponseFacts(background=body.get("background") is True)
    return read_interaction(data, _asked(body), facts)


def _events(body: Body, _provider: str) -> StreamFormat:
    make = functools.partial(InteractionReader, _asked(body), body.get("background") is True)
    return StreamFormat(INTERACTION_MARKS, INTERACTION_HINTS, INTERACTION_TEXT, lambda _hide: make())


CREATE: Final = Endpoint(
    semconv.CHAT, interaction_size, interaction_attributes, _read, _events, content=INTERACTION,
    changes=Changes(limits=(("generation_config", "max_output_tokens"),)),
)  # fmt: skip
FETCH: Final = Endpoint(
    semconv.FETCH_RESPONSE,
    lambda _body, _options: Size(0, 0),
    lambda _body: {},
    _read,
    _events,
    billed=False,
    content=FETCHED,
)


class InteractionsDoor(RequestDoor):
    """Stands before the method of the Interactions client that sends a request."""

    provider = "gcp.gemini"

    def __init__(self, telemetry: Telemetry, meter: Meter) -> None:
        super().__init__(telemetry, meter)
        self._background = BackgroundResponses(meter)

    def install(self, sdk: Any) -> None:
        # The SDK imports this part of itself, which takes a second, when it is first used.
        wrapt.register_post_import_hook(self._install, _MODULE)

    def _install(self, module: Any) -> None:
        if self.is_open:
            for owner, name, is_async in _SENDING:
                self.hook(getattr(module, owner), name, is_async=is_async)

    def wrap(self, client: Any) -> None:
        """Hook the interactions of a ``Client`` and of its ``aio``, or of the latter alone. Making them imports that
        part of the SDK."""
        for part in (client, getattr(client, "aio", None)):
            interactions = getattr(part, "interactions", None)
            for _, name, is_async in _SENDING:
                if hasattr(type(interactions), name):
                    self.hook_client(interactions, name, is_async=is_async)

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        request = kwargs["request"] if "request" in kwargs else args[1]
        if part_of_another(request):
            return None
        endpoint = self.endpoint(request.method, request.url.path)
        if endpoint is None:
            return None
        body = json.loads(request.content) if endpoint is CREATE else {}
        # Not of the request: who answers at `…/v1` of this host may be somebody else.
        url = str(client.sdk_configuration.get_server_details()[0])
        vertex = "/projects/" in request.url.path
        provider = provider_of(url, "gcp.vertex_ai" if vertex else self.provider)
        mark = mark_of(get(client, "sdk_configuration", "security", "api_key"))
        peer = Peer(provider, request.url.host, request.url.port, api_key=mark)
        return self.admit(peer, endpoint, body, model=_asked(body), tier=text(body.get("service_tier")), key=request)

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        """The endpoint of a request, or ``None`` for one that is not metered."""
        method = method.upper()
        if method == "POST" and _CREATE.search(path):
            return CREATE
        return FETCH if method in ("GET", "POST") and _FETCH_PATH.search(path) else None

    def finish(self, opened: Opened, outcome: str, facts: ResponseFacts, error: BaseException | None = None) -> None:
        if opened.endpoint is FETCH:
            book = self._background.booking(opened.peer.provider, facts)
            opened.call.finish(outcome, facts, error, billed=book is not None, book=book)
            return
        if facts.id is not None and facts.background:
            if facts.unfinished:
                self._background.remember(facts.id, opened.call.ticket)
            elif facts.usage is not None:
                self._background.booked(facts.id)
        super().finish(opened, outcome, facts, error)
