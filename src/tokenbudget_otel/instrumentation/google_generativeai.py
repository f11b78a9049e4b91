"""Google's former SDK, ``google.generativeai``, which has reached the end of its life: Gemini in AI Studio.

    >>> from tokenbudget_otel.instrumentation.google_generativeai import GoogleGenerativeAIInstrumentor
    >>> GoogleGenerativeAIInstrumentor().instrument()
    >>> GoogleGenerativeAIInstrumentor().uninstrument()

``GenerativeModel``, chats and ``embed_content`` all go through the generated client below them
(``google.ai.generativelanguage``), whose messages read as JSON like those of ``google.genai``. That client knows no
count of thoughts: they are what the total has beyond the rest.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import wrapt

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.changes import Changes
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.content_parts import Messages
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.google_content import CONTENTS
from tokenbudget_otel.instrumentation.google_requests import (
    content_attributes,
    content_size,
    embedding_attributes,
    embedding_size,
    server_tools,
    streamed_content_attributes,
)
from tokenbudget_otel.instrumentation.google_streams import ContentReader, read_content
from tokenbudget_otel.instrumentation.google_usage import with_thoughts
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.instrumentor import SdkInstrumentor
from tokenbudget_otel.instrumentation.nesting import part_of_another
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter


def as_json(message: Any) -> dict[str, Any]:
    """A message of protobuf as the JSON that it stands for; counts of nothing are left out."""
    if isinstance(message, Mapping):
        return dict(message)
    plain = type(message).pb(message)
    form = sys.modules["google.protobuf.json_format"]
    made: dict[str, Any] = form.MessageToDict(plain)
    return made


def _doubtful(facts: ResponseFacts, body: Body) -> ResponseFacts:
    """With tools of the server's own, what the total has beyond the rest may be their results as well as thoughts: it
    is charged as output, which is dearer, and marked."""
    if server_tools(body) and facts.usage is not None and facts.usage.reasoning_tokens:
        facts.usage = facts.usage.replace(reasoning_tokens=None)
        facts.estimated = True
    return facts


def _read(answer: Any, body: Body, _provider: str) -> ResponseFacts:
    data = as_json(answer)
    data["usageMetadata"] = with_thoughts(data.get("usageMetadata"))
    return _doubtful(read_content(data, str(body.get("model"))), body)


class MessageReader(ContentReader):
    """Follows the messages of a stream."""

    def __init__(self, body: Body) -> None:
        super().__init__(str(body.get("model")))
        self._body = body

    @property
    def facts(self) -> ResponseFacts:
        """What the messages so far said."""
        return _doubtful(super().facts, self._body)

    def reported(self) -> Any:
        return with_thoughts(self._usage)

    def item(self, item: Any) -> bool:
        """Take a message; the program sees them all."""
        self.chunk(as_json(item))
        return False


def _chunks(messages: list[Any]) -> Messages:
    return CONTENTS.events([as_json(message) for message in messages])


_CONTENT: Final = Content(CONTENTS.request, lambda answer: CONTENTS.response(as_json(answer)), _chunks)

_CHANGES: Final = Changes(limits=(("generationConfig", "maxOutputTokens"),))

_GENERATE: Final = Endpoint(
    semconv.GENERATE_CONTENT, content_size, content_attributes, _read, content=_CONTENT, changes=_CHANGES
)  # fmt: skip
_STREAM: Final = Endpoint(
    semconv.GENERATE_CONTENT, content_size, streamed_content_attributes, _read,
    items=lambda body, _provider: MessageReader(body), content=_CONTENT, changes=_CHANGES,
)  # fmt: skip
_EMBED: Final = Endpoint(
    semconv.EMBEDDINGS, embedding_size, embedding_attributes,
    # Answers say nothing of what was read.
    lambda _answer, _body, _provider: ResponseFacts(),
)  # fmt: skip

METHODS: Final[Mapping[str, Endpoint]] = {
    "generate_content": _GENERATE,
    "stream_generate_content": _STREAM,
    "embed_content": _EMBED,
    "batch_embed_contents": _EMBED,
}
"""Methods of the generated clients that bill. ``count_tokens`` is free."""

CLIENTS: Final = (("GenerativeServiceClient", False), ("GenerativeServiceAsyncClient", True))
_MODEL_METHODS: Final = (
    ("generate_content", "_client", "get_default_generative_client"),
    ("generate_content_async", "_async_client", "get_default_generative_async_client"),
)


class GoogleGenerativeAIDoor(Door):
    """Stands before the methods of the generated clients."""

    provider = "gcp.gemini"

    def install(self, _sdk: Any) -> None:
        generated = importlib.import_module("google.ai.generativelanguage")
        for name, is_async in CLIENTS:
            owner = getattr(generated, name)
            for method in METHODS:
                if method in vars(owner):
                    self.put(owner, method, self._method(method).hooked(vars(owner)[method], is_async=is_async))

    def wrap(self, client: Any) -> None:
        """Meter one ``GenerativeModel``: it gets a client of its own, which passes everything on.

        Raises:
            TypeError: for anything else.
        """
        if not all(hasattr(client, attribute) for _, attribute, _ in _MODEL_METHODS):
            raise TypeError(f"{type(client)!r} is not a model")
        for name, attribute, default in _MODEL_METHODS:
            original = getattr(type(client), name)
            self.put(client, name, functools.partial(self._with_client(original, attribute, default), client))

    def _with_client(self, original: Callable[..., Any], attribute: str, default: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def wrapper(model: Any, *args: Any, **kwargs: Any) -> Any:
            client = getattr(model, attribute)
            if not isinstance(client, _MeteredClient):
                clients = importlib.import_module("google.generativeai.client")
                client = getattr(clients, default)() if client is None else client
                is_async = type(client).__name__ == CLIENTS[1][0]
                setattr(model, attribute, _MeteredClient(client, self._methods_of(client, is_async)))
            return original(model, *args, **kwargs)

        return wrapper

    def _methods_of(self, client: Any, is_async: bool) -> dict[str, Any]:
        return {
            name: functools.partial(self._method(name).hooked(getattr(type(client), name), is_async=is_async), client)
            for name in METHODS
        }

    def _method(self, name: str) -> _OneMethod:
        return _OneMethod(self, METHODS[name])


class _OneMethod(Door):
    """The part of the door that stands before one method."""

    def __init__(self, parent: GoogleGenerativeAIDoor, endpoint: Endpoint) -> None:
        super().__init__(parent.telemetry, parent.meter)
        self._parent = parent
        self._endpoint = endpoint

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        request = kwargs.get("request", args[0] if args else None)
        if not self._parent.is_open or request is None or part_of_another(request):
            return None
        body = as_json(request)
        body["model"] = str(body.get("model") or "").removeprefix("models/")
        host = str(getattr(client, "api_endpoint", None) or "")
        parts = urlsplit(host if "://" in host else f"//{host}")
        peer = Peer(provider_of(host if "://" in host else f"https://{host}", "gcp.gemini"), parts.hostname, parts.port)
        opened = self.admit(peer, self._endpoint, body, key=request)
        if isinstance(request, Mapping):
            opened.call.request.changes = frozenset()
        elif not request.model.startswith("models/"):
            opened.call.request.changes -= {"model"}
        return opened

    def revised(
        self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        request = kwargs.get("request", args[0] if args else None)
        opened.key = changed = type(request)(request)  # a message of its own
        for path, value in (opened.edits or {}).items():
            if path == ("model",):
                changed.model = f"models/{value}"
            else:
                changed.generation_config.max_output_tokens = value
        return ((), {**kwargs, "request": changed}) if "request" in kwargs else ((changed, *args[1:]), dict(kwargs))


if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:  # which wrapt 1 does not know as a generic
    _Proxy = wrapt.ObjectProxy


class _MeteredClient(_Proxy):
    """A generated client of which some methods have a door before them."""

    def __init__(self, client: Any, methods: dict[str, Any]) -> None:
        super().__init__(client)
        self._self_methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._self_methods[name] if name in self._self_methods else getattr(self.__wrapped__, name)


class GoogleGenerativeAIInstrumentor(SdkInstrumentor):
    """Meters the ``google-generativeai`` SDK.

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider`` and ``former_names`` (set attributes under
    their former names too).

    >>> GoogleGenerativeAIInstrumentor().instrument()
    >>> GoogleGenerativeAIInstrumentor().uninstrument()
    """

    sdk = "google.generativeai"
    distribution = "google-generativeai"
    versions = ">=0.8,<0.9"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return GoogleGenerativeAIDoor(telemetry, meter)
