"""Cohere, also on Bedrock, SageMaker and Oracle's cloud through its own SDK: the instrumentor and its endpoints.

    >>> from tokenbudget_otel.instrumentation.cohere import CohereInstrumentor
    >>> CohereInstrumentor().instrument()
    >>> CohereInstrumentor().uninstrument()

What is counted is what Cohere bills (``billed_units``), which is less than what the models read.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import context as context_api
from opentelemetry.context import Context

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.attempts import note_attempt
from tokenbudget_otel.instrumentation.changes import Changes, edited
from tokenbudget_otel.instrumentation.cohere_content import CHAT, CHAT_V1, GENERATED
from tokenbudget_otel.instrumentation.cohere_streams import EVENTS, LINES, as_events
from tokenbudget_otel.instrumentation.cohere_usage import read_chat, read_heard, read_meta
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer, mark_of
from tokenbudget_otel.instrumentation.facts import get, positive
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.http_door import HttpDoor
from tokenbudget_otel.instrumentation.instrumentor import SdkInstrumentor
from tokenbudget_otel.instrumentation.nesting import part_of_another, under_way
from tokenbudget_otel.instrumentation.sizing import MediaTokens, measure
from tokenbudget_otel.instrumentation.streams import StreamFormat, StreamWatcher
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, Size
from tokenbudget_otel.scopes import detach
from tokenbudget_otel.usage import TokenUsage

PROVIDER: Final = "cohere"

MEDIA: Final = MediaTokens(image=(1_000, 8_000), other=(1_000, None))
"""A picture is cut into at most twelve tiles of 256 tokens and a thumbnail (Cohere, "Image Inputs")."""

DOCUMENTS_PER_SEARCH: Final = 100
"""A search unit is a query with up to so many documents (Cohere, "How Does Cohere's Pricing Work?")."""

BYTES_PER_CHUNK: Final = 500
"""Bytes of a document that count as one document, at least: it is cut where it is longer than 500 tokens."""

PLATFORMS: Final = {
    ("cohere.aws_client", "bedrock"): ("aws.bedrock", "bedrock-runtime.{region}.amazonaws.com"),
    ("cohere.aws_client", "sagemaker"): ("aws.sagemaker", "runtime.sagemaker.{region}.amazonaws.com"),
    ("cohere.oci_client", None): ("oci", "inference.generativeai.{region}.oci.oraclecloud.com"),
}
"""Clients that send requests elsewhere: the module of their HTTP hooks and the service there, and who answers."""


# --- requests ----------------------------------------------------------------------------------------------------


_READ: Final = ("messages", "tools", "documents", "response_format", "message", "chat_history", "preamble", "prompt",
                "tool_results", "text")  # fmt: skip


def _chat_size(body: Body, _options: Any) -> Size:
    extent = measure(*(body.get(part) for part in _READ))
    # What connectors find, or a conversation that is kept, is not in the request.
    unseen = bool(body.get("connectors") or body.get("conversation_id"))
    return Size(
        extent.likely(MEDIA),
        None if unseen else extent.bound(MEDIA),
        max_output_tokens=positive(body.get("max_tokens")),
        choices=positive(body.get("num_generations")) or 1,
        text_only=not (extent.images or extent.others),
    )


def _embed_size(body: Body, _options: Any) -> Size:
    extent, images = measure(body.get("texts"), body.get("inputs"), body.get("examples")), body.get("images")
    pictures = len(images) if isinstance(images, list) else 0
    bound = extent.bound(MEDIA)
    return Size(
        extent.likely(MEDIA) + pictures * MEDIA.image[0],
        None if bound is None else bound + pictures * MEDIA.image[1],
        expected_output_tokens=0,
        extra=TokenUsage(input_images=pictures) if pictures else None,
        text_only=not (pictures or extent.images),
    )


def _rerank_size(body: Body, _options: Any) -> Size:
    documents = body.get("documents")
    count = len(documents) if isinstance(documents, list) else 1
    # Long documents are cut, and each piece counts as a document.
    pieces = count + measure(documents).bytes // BYTES_PER_CHUNK
    return Size(
        0,
        0,
        expected_output_tokens=0,
        extra=TokenUsage(rerank_searches=-(-pieces // DOCUMENTS_PER_SEARCH)),
        expected_extra=TokenUsage(rerank_searches=max(1, -(-count // DOCUMENTS_PER_SEARCH))),
    )


def _unseen_size(_body: Body, _options: Any) -> Size:
    return Size(1_000, None)


_SAMPLING: Final = (
    (semconv.REQUEST_TEMPERATURE, "temperature", (int, float)),
    (semconv.REQUEST_TOP_P, "p", (int, float)),
    (semconv.REQUEST_TOP_K, "k", (int, float)),
    (semconv.REQUEST_FREQUENCY_PENALTY, "frequency_penalty", (int, float)),
    (semconv.REQUEST_PRESENCE_PENALTY, "presence_penalty", (int, float)),
    (semconv.REQUEST_SEED, "seed", int),
    (semconv.REQUEST_MAX_TOKENS, "max_tokens", int),
    (semconv.EMBEDDINGS_DIMENSION_COUNT, "output_dimension", int),
    (semconv.CONVERSATION_ID, "conversation_id", str),
)

_OUTPUT_TYPES: Final = {"text": "text", "json_object": "json"}


def _attributes(body: Body) -> Mapping[str, Any]:
    attributes: dict[str, Any] = {}
    for name, field, kind in _SAMPLING:
        value = body.get(field)
        if value is not None and isinstance(value, kind) and not isinstance(value, bool):
            attributes[name] = value
    if body.get("stream") is True:
        attributes[semconv.REQUEST_STREAM] = True
    for name, field in (
        (semconv.REQUEST_STOP_SEQUENCES, "stop_sequences"),
        (semconv.REQUEST_ENCODING_FORMATS, "embedding_types"),
    ):
        words = body.get(field)
        if isinstance(words, list | tuple) and words and all(isinstance(word, str) for word in words):
            attributes[name] = tuple(words)
    form = get(body.get("response_format"), "type")
    if isinstance(form, str) and form in _OUTPUT_TYPES:
        attributes[semconv.OUTPUT_TYPE] = _OUTPUT_TYPES[form]
    return attributes


def _always(form: StreamFormat) -> Callable[[Body, str], StreamFormat]:
    return lambda _body, _provider: form


_LIMITED: Final = Changes(limits=(("max_tokens",),))
_MODEL: Final = Changes()
"""Of what has no limit on its output."""

_CHAT_V1: Final = Endpoint(
    semconv.CHAT, _chat_size, _attributes, read_chat, _always(LINES), content=CHAT_V1, changes=_LIMITED
)
_GENERATE: Final = Endpoint(
    semconv.TEXT_COMPLETION, _chat_size, _attributes, read_meta, _always(LINES), content=GENERATED, changes=_LIMITED
)
_EMBED: Final = Endpoint(semconv.EMBEDDINGS, _embed_size, _attributes, read_meta, changes=_MODEL)
_RERANK: Final = Endpoint("rerank", _rerank_size, _attributes, read_meta, changes=_MODEL)

ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "v2/chat": Endpoint(
        semconv.CHAT, _chat_size, _attributes, read_chat, _always(EVENTS), content=CHAT, changes=_LIMITED
    ),
    "v2/embed": _EMBED,
    "v2/rerank": _RERANK,
    "v2/parse": Endpoint("ocr", _unseen_size, _attributes, read_meta),
    "v2/audio/transcriptions": Endpoint(semconv.TRANSCRIPTION, _unseen_size, _attributes, read_heard),
    "v1/chat": _CHAT_V1,
    "v1/generate": _GENERATE,
    "v1/summarize": _GENERATE,
    "v1/embed": _EMBED,
    "v1/rerank": _RERANK,
    "v1/classify": Endpoint("classification", _embed_size, _attributes, read_meta),
}
"""Every endpoint that bills, by its path. Tokenizing is free."""

_VERSIONED: Final = re.compile(r"v[12]/[a-z/]+$")


# --- the door ----------------------------------------------------------------------------------------------------


class CarriedOptions(dict[str, Any]):
    """Options of a request that also carry the context of the call that makes it: embeddings of many texts are sent
    from threads of the SDK's own, which know nothing of the caller's tags and budgets."""

    context: Context


class CohereDoor(HttpDoor):
    """The Cohere SDK's door: ``request`` and ``stream`` of its HTTP client, below every helper and above retries."""

    provider = PROVIDER

    def install(self, sdk: ModuleType) -> None:
        core = importlib.import_module(f"{sdk.__name__}.core.http_client")
        self.hook(core.HttpClient, "request", is_async=False)
        self.hook(core.AsyncHttpClient, "request", is_async=True)
        self.put(core.HttpClient, "stream", self._streaming(core.HttpClient.stream))
        self.put(core.AsyncHttpClient, "stream", self._streaming_async(core.AsyncHttpClient.stream))
        if (pause := vars(core).get("_retry_timeout")) is not None:
            self.put(core, "_retry_timeout", _noting(pause))
        client = importlib.import_module(f"{sdk.__name__}.client").Client
        if "embed" in vars(client):
            self.put(client, "embed", _carrying(client.embed))

    def wrap(self, client: Any) -> None:
        """Hook the HTTP client of one client, which all of its parts work with."""
        http = get(client, "_client_wrapper", "httpx_client")
        if not callable(getattr(type(http), "request", None)):
            raise TypeError(f"{type(client)!r} is not a client")
        is_async = type(http).__name__.startswith("Async")
        self.hook_client(http, "request", is_async=is_async)
        streaming = (self._streaming_async if is_async else self._streaming)(type(http).stream)
        self.put(http, "stream", functools.partial(streaming, http))
        base = importlib.import_module("cohere.client").Client
        if getattr(type(client), "embed", None) is vars(base).get("embed"):
            self.put(client, "embed", functools.partial(_carrying(type(client).embed), client))

    def _streaming(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The manager of a streamed response, with the door before it: a call begins when it is entered."""
        door = self

        @contextmanager
        @functools.wraps(original)
        def stream(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            opened = door.let_in(self, args, kwargs)
            if opened is None:
                with original(self, *args, **kwargs) as response:
                    yield response
                return
            token = under_way.set(opened)
            try:
                with opened.call:
                    manager = door.pass_on(original, self, opened, args, kwargs)
                    response = manager.__enter__()
            except BaseException as error:
                door.failed(opened, error)
                raise
            finally:
                under_way.reset(token)
            with _Entered(manager):
                yield door.returned(opened, response)

        return stream

    def _streaming_async(self, original: Callable[..., Any]) -> Callable[..., Any]:
        door = self

        @asynccontextmanager
        @functools.wraps(original)
        async def stream(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            opened = await door.let_in_async(self, args, kwargs)
            if opened is None:
                async with original(self, *args, **kwargs) as response:
                    yield response
                return
            token = under_way.set(opened)
            try:
                with opened.call:
                    manager = door.pass_on(original, self, opened, args, kwargs)
                    response = await manager.__aenter__()
            except BaseException as error:
                door.failed(opened, error)
                raise
            finally:
                under_way.reset(token)
            async with _Entered(manager):
                yield door.returned(opened, response)

        return stream

    # --- one call ----------------------------------------------------------------------------------------------

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        if part_of_another(None):
            return None  # another attempt at the same request
        path = str(args[0] if args else kwargs.get("path") or "")
        if str(kwargs.get("method")).upper() != "POST" or (found := _VERSIONED.search(path)) is None:
            return None
        endpoint = ENDPOINTS.get(found.group())
        if endpoint is None:
            return None
        given = kwargs.get("request_options")
        body = _body(kwargs, given)
        context = getattr(given, "context", None) if isinstance(given, CarriedOptions) else None
        token = context_api.attach(context) if context is not None else None
        try:
            return self.admit(_peer(client, kwargs.get("base_url")), endpoint, body, key=kwargs, covers=True)
        finally:
            if token is not None:
                detach(token)

    def revised(
        self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        sent, edits = dict(kwargs), dict(opened.edits or {})
        given = kwargs.get("request_options")
        extra = get(given, "additional_body_parameters")
        above = {path: edits.pop(path) for path in tuple(edits) if isinstance(extra, Mapping) and path[0] in extra}
        if above:
            sent["request_options"] = copy(given)
            sent["request_options"]["additional_body_parameters"] = edited(extra, above)
        # Of a form, which is sent where there are files, the fields are in "data".
        name = "data" if isinstance(kwargs.get("data"), Mapping) and not kwargs.get("json") else "json"
        if edits:
            sent[name] = edited(kwargs.get(name), edits)
        return args, sent

    def _stream_watcher(
        self, opened: Opened, kind: str, decode: Callable[[bytes], bytes] | None
    ) -> StreamWatcher | None:
        if opened.endpoint.stream is not None and opened.body.get("stream") is True:
            form = opened.endpoint.stream(opened.body, opened.peer.provider)
            if form is LINES:  # also on Bedrock, where the SDK takes the frames off below us
                return super()._stream_watcher(opened, "text/event-stream", as_events(decode))
        return super()._stream_watcher(opened, kind, decode)


class _Entered:
    """A manager that has been entered already: only to be left."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __enter__(self) -> None: ...

    def __exit__(self, *error: Any) -> Any:
        return self._manager.__exit__(*error)

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *error: Any) -> Any:
        return await self._manager.__aexit__(*error)


def _peer(client: Any, base_url: Any) -> Peer:
    for hook in get(client, "httpx_client", "event_hooks", "request") or ():
        for (module, service), (provider, host) in PLATFORMS.items():
            if getattr(hook, "__module__", None) == module:
                known = inspect.getclosurevars(hook).nonlocals
                if service in (None, known.get("service")):
                    region = known.get("aws_region") or known.get("region")
                    return Peer(provider, host.format(region=region) if isinstance(region, str) else None, 443)
    url = str(client.get_base_url(base_url) if hasattr(client, "get_base_url") else base_url or "")
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    mark = mark_of(get(client, "base_headers", "__self__", "_token"))
    return Peer(provider_of(url, PROVIDER), parts.hostname, port, api_key=mark)


def _body(kwargs: Mapping[str, Any], given: Any) -> Body:
    """The fields as they will be sent: what the SDK was not given is left out, extra ones win."""
    body: dict[str, Any] = {}
    for name in ("json", "data"):
        if isinstance(fields := kwargs.get(name), Mapping):
            body |= fields
    if isinstance(extra := get(given, "additional_body_parameters"), Mapping):
        body |= extra
    omit = kwargs.get("omit")
    return {name: value for name, value in body.items() if value is not None and value is not omit}


def _carrying(embed: Callable[..., Any]) -> Callable[..., Any]:
    """The SDK's ``embed``, made to take the caller's context along to the threads that it sends from."""

    @functools.wraps(embed)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        options = CarriedOptions(kwargs.get("request_options") or {})
        options.context = context_api.get_current()
        return embed(self, *args, **{**kwargs, "request_options": options})

    return wrapper


def _noting(pause: Callable[..., Any]) -> Callable[..., Any]:
    """The SDK's pause before another attempt, made to note whether the attempt that failed may have been billed."""

    @functools.wraps(pause)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        note_attempt(kwargs.get("response") or (args[0] if args else None), sys.exc_info()[1])
        return pause(*args, **kwargs)

    return wrapper


class CohereInstrumentor(SdkInstrumentor):
    """Meters the ``cohere`` SDK, including its clients for Bedrock, SageMaker and Oracle's cloud.

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider`` and ``former_names`` (set attributes
    under their former names too).

    >>> CohereInstrumentor().instrument()
    >>> CohereInstrumentor().uninstrument()
    """

    sdk = "cohere"
    versions = ">=6,<8"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return CohereDoor(telemetry, meter)
