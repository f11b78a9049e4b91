"""Google's Gen AI SDK, ``google.genai``: Gemini and its kin, in AI Studio and on Vertex AI.

    >>> from tokenbudget_otel.instrumentation.google_genai import GoogleGenAIInstrumentor
    >>> GoogleGenAIInstrumentor().instrument()
    >>> GoogleGenAIInstrumentor().uninstrument()

Every request goes through four methods of the SDK's API client, as JSON: below ``models``, ``chats`` and automatic
function calling, of which each round trip is a call. Interactions go another way: ``google_interactions.py``.
Counting tokens is free and not metered; neither are, because no unit of theirs is known, batches, caches and videos.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import followed
from tokenbudget_otel.instrumentation.changes import Changes, edited
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer, mark_of
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.failures import provably_unbilled
from tokenbudget_otel.instrumentation.google_content import CONTENTS
from tokenbudget_otel.instrumentation.google_interactions import InteractionsDoor
from tokenbudget_otel.instrumentation.google_live import GoogleLiveDoor
from tokenbudget_otel.instrumentation.google_requests import (
    content_attributes,
    content_size,
    embedding_attributes,
    embedding_size,
    image_attributes,
    image_size,
    streamed_content_attributes,
)
from tokenbudget_otel.instrumentation.google_streams import ChunkReader, read_content
from tokenbudget_otel.instrumentation.google_usage import embedding_usage, image_usage, served_tier
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.instrumentor import Doors, SdkInstrumentor
from tokenbudget_otel.instrumentation.nesting import part_of_another, under_way
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.usage import TokenUsage

AI_STUDIO: Final = "gcp.gemini"
VERTEX_AI: Final = "gcp.vertex_ai"

SENDING: Final = ("request", "request_streamed", "async_request", "async_request_streamed")
"""Methods of ``BaseApiClient`` that send a request: ``(http_method, path, request_dict, http_options)``."""

ATTEMPTS: Final = ("_request_once", "_async_request_once")
"""Methods that make one attempt; retries (``http_options.retry_options``) call them again."""

_PATH: Final = re.compile(r"^(?P<model>.*):(?P<verb>\w+)$")
_MODEL: Final = re.compile(r"^(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/[^/]+/)?models/([^/]+)$")
_NUMBERS: Final = re.compile(r'("values":\s*\[)[-+.\deE,\s]*\]')
"""The numbers of an embedding. They say nothing of usage, and take longer to read than all the rest."""


def _read_content(data: Any, body: Body, _provider: str) -> ResponseFacts:
    return read_content(data, str(body.get("model")))


def _read_embeddings(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    return ResponseFacts(usage=embedding_usage(data))


def _read_images(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    return ResponseFacts(usage=image_usage(data))


_CHANGES: Final = Changes(limits=(("generationConfig", "maxOutputTokens"),))

_CONTENT: Final = Endpoint(
    semconv.GENERATE_CONTENT, content_size, content_attributes, _read_content, content=CONTENTS, changes=_CHANGES
)
_STREAM: Final = Endpoint(
    semconv.GENERATE_CONTENT, content_size, streamed_content_attributes, _read_content,
    items=lambda body, _provider: ChunkReader(str(body.get("model"))), content=CONTENTS, changes=_CHANGES,
)  # fmt: skip
_EMBEDDING: Final = Endpoint(semconv.EMBEDDINGS, embedding_size, embedding_attributes, _read_embeddings)
_IMAGE: Final = Endpoint(semconv.IMAGE_GENERATION, image_size, image_attributes, _read_images)

ENDPOINTS: Final[Mapping[str, Callable[[Body], Endpoint | None]]] = {
    "generateContent": lambda _body: _CONTENT,
    "streamGenerateContent": lambda _body: _STREAM,
    "embedContent": lambda _body: _EMBEDDING,
    "batchEmbedContents": lambda _body: _EMBEDDING,
    "predict": lambda body: _predicted(body),
}
"""Every method of a model that bills, and what it is; ``predict`` is embeddings or images, as its instances show."""


def _predicted(body: Body) -> Endpoint | None:
    instances = body.get("instances")
    first = instances[0] if isinstance(instances, list) and instances else None
    if not isinstance(first, Mapping):
        return None
    return _EMBEDDING if "content" in first else _IMAGE


class GoogleGenAIDoor(Door):
    """Stands before the methods of the SDK's API client that send requests."""

    provider = AI_STUDIO

    # --- installing --------------------------------------------------------------------------------------------

    def install(self, sdk: Any) -> None:
        owner = sdk._api_client.BaseApiClient
        for name in SENDING:
            self.hook(owner, name, is_async=name.startswith("async"))
        for name in ATTEMPTS:
            if name in vars(owner):
                self.put(owner, name, _noting_attempts(vars(owner)[name]))

    def wrap(self, client: Any) -> None:
        """Hook the API client of a ``Client`` (or of its ``aio``).

        Raises:
            TypeError: for an object without an API client.
        """
        api_client = getattr(client, "_api_client", None)
        if not all(callable(getattr(type(api_client), name, None)) for name in SENDING):
            raise TypeError(f"{type(client)!r} is not a client")
        for name in SENDING:
            self.hook_client(api_client, name, is_async=name.startswith("async"))
        for name in ATTEMPTS:
            if (attempt := getattr(type(api_client), name, None)) is not None:
                self.put(api_client, name, functools.partial(_noting_attempts(attempt), api_client))

    # --- one call ----------------------------------------------------------------------------------------------

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        asked = _asked(args, kwargs)
        request = asked.get("request_dict")
        if str(asked.get("http_method")).lower() != "post" or not isinstance(request, dict) or part_of_another(request):
            return None
        found = _PATH.match(str(asked.get("path")).partition("?")[0])
        options = asked.get("http_options")
        extra = get(options, "extra_body") or get(client, "_http_options", "extra_body")
        body = _body(request, extra)
        choose = ENDPOINTS.get(found["verb"]) if found is not None else None
        endpoint = choose(body) if choose is not None else None
        if found is None or endpoint is None:
            return None
        named = _MODEL.match(found["model"])
        body["model"] = named[1] if named is not None else found["model"]  # of the path, as a part of what is asked
        opened = self.admit(self.peer(client, options), endpoint, body, tier=text(body.get("serviceTier")), key=request)
        if named is None:
            opened.call.request.changes -= {"model"}
        if get(extra, "generationConfig") is not None:
            opened.call.request.changes -= {"max_output_tokens"}  # it is merged in below us, and wins
        return opened

    def revised(
        self, opened: Opened, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        asked, edits = _asked(args, kwargs), dict(opened.edits or {})
        if (model := edits.pop(("model",), None)) is not None:
            before, _, rest = str(asked["path"]).rpartition("/")
            asked["path"] = f"{before}/{model}:{rest.partition(':')[2]}"
        opened.key = asked["request_dict"] = edited(asked["request_dict"], edits)
        return (), asked

    def peer(self, client: Any, options: Any) -> Peer:
        """Who ``client`` talks to: Vertex AI or AI Studio, or whoever is known to answer at its URL."""
        url = str(get(options, "base_url") or get(client, "_http_options", "base_url") or "")
        parts = urlsplit(url)
        provider = provider_of(url, VERTEX_AI if get(client, "vertexai") else AI_STUDIO)
        return Peer(provider, parts.hostname, parts.port, api_key=mark_of(get(client, "api_key")))

    def returned(self, opened: Opened, result: Any) -> Any:
        """Read the JSON of an answer, or follow its chunks."""
        try:
            if followed.is_stream(result):
                return super().returned(opened, result)
            answer = get(result, "body")
            data = json.loads(_NUMBERS.sub(r"\1]", answer)) if isinstance(answer, str) and answer else None
            facts = self.facts(opened, data)
            facts.tier = facts.tier or served_tier(get(result, "headers"))
            if facts.usage is not None and opened.endpoint is _CONTENT and _no_tokens(facts.usage):
                # Searches, but no tokens: the answer says nothing of them.
                facts.usage = facts.usage.replace(input_tokens=opened.call.request.size().input_tokens)
                facts.estimated = True
            self.finish(opened, "completed", facts)
        except Exception as error:
            if not isinstance(error, ValueError):  # no JSON: nothing is known of it, and the SDK says so itself
                log_once("read a response", error)
            self._finish_unknown(opened)
        return result


def _asked(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(("http_method", "path", "request_dict", "http_options"), args, strict=False)) | dict(kwargs)


def _body(request: dict[str, Any], extra: Any) -> dict[str, Any]:
    """The body as it will be sent: ``extra_body`` is merged into it, and names with ``_`` are the SDK's own."""
    body = {name: value for name, value in request.items() if not name.startswith("_")}
    return _merged(body, extra) if isinstance(extra, Mapping) and extra else body


def _merged(body: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(body)
    for name, value in extra.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def _no_tokens(usage: TokenUsage) -> bool:
    return usage.input_tokens is None and usage.output_tokens is None


def _noting_attempts(attempt: Callable[..., Any]) -> Callable[..., Any]:
    """One attempt of the SDK, made to note whether it may have been billed: one that failed after the provider may have
    begun, and one whose answer has begun to come in."""

    def note(error: BaseException | None) -> None:
        opened = under_way.get()
        if opened is not None and (error is None or not provably_unbilled(error)):
            opened.billed_before = True

    if inspect.iscoroutinefunction(attempt):

        @functools.wraps(attempt)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                result = await attempt(*args, **kwargs)
            except BaseException as error:
                note(error)
                raise
            note(None)
            return result

        return async_wrapper

    @functools.wraps(attempt)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            result = attempt(*args, **kwargs)
        except BaseException as error:
            note(error)
            raise
        note(None)
        return result

    return wrapper


class GoogleGenAIInstrumentor(SdkInstrumentor):
    """Meters the ``google-genai`` SDK, for AI Studio and Vertex AI.

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider`` and ``former_names`` (set attributes under
    their former names too).

    >>> GoogleGenAIInstrumentor().instrument()
    >>> GoogleGenAIInstrumentor().uninstrument()
    """

    sdk = "google.genai"
    distribution = "google-genai"
    versions = ">=2,<4"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return Doors(
            GoogleGenAIDoor(telemetry, meter), InteractionsDoor(telemetry, meter), GoogleLiveDoor(telemetry, meter)
        )
