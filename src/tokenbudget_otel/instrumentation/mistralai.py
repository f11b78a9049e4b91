"""Mistral, also on Azure and Vertex through its own SDK: the instrumentor and its endpoints.

    >>> from tokenbudget_otel.instrumentation.mistralai import MistralAIInstrumentor
    >>> MistralAIInstrumentor().instrument()
    >>> MistralAIInstrumentor().uninstrument()

The SDK makes spans of its own where a program asks it to. While this instrumentor is active they are not made for calls
whose span goes the same way: one call, one span.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, Final
from urllib.parse import parse_qsl

from opentelemetry import trace

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import mistralai_streams
from tokenbudget_otel.instrumentation import openai_content as content
from tokenbudget_otel.instrumentation.attempts import note_attempt
from tokenbudget_otel.instrumentation.changes import Changes
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer, mark_of
from tokenbudget_otel.instrumentation.facts import ResponseFacts, fields, get, positive, text
from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.instrumentation.http_door import RequestDoor
from tokenbudget_otel.instrumentation.instrumentor import SdkInstrumentor
from tokenbudget_otel.instrumentation.mistralai_content import CONVERSATION
from tokenbudget_otel.instrumentation.mistralai_usage import (
    pages_of,
    read_completion,
    read_conversation,
    read_document,
    read_judgement,
    read_transcription,
)
from tokenbudget_otel.instrumentation.nesting import part_of_another, under_way
from tokenbudget_otel.instrumentation.openai import ENDPOINTS as OPENAI_ENDPOINTS
from tokenbudget_otel.instrumentation.sizing import MediaTokens, measure
from tokenbudget_otel.instrumentation.streams import StreamFormat
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, Size
from tokenbudget_otel.usage import TokenUsage

PROVIDER: Final = "mistral_ai"

PACKAGES: Final = {
    "mistralai.client": PROVIDER,
    "mistralai.azure.client": "azure.ai.inference",
    "mistralai.gcp.client": "gcp.vertex_ai",
}
"""Packages with a client of their own, and who it talks to."""

MEDIA: Final = MediaTokens(image=(1_000, 5_000), other=(3_000, None))
"""A picture is at most 64 x 64 patches of 16 pixels, and a token for the end of each row (Mistral, "Vision")."""

MOST_PAGES: Final = 1_000
"""Pages of a document, at most (Mistral, "OCR")."""

USUAL_PAGES: Final = 10

LEAST_AUDIO_RATE: Final = 500
"""Bytes of a second of audio, at least: 4 kbit/s, below which no codec for speech goes."""

USUAL_AUDIO_RATE: Final = 16_000
"""Bytes of a second of audio, usually: 128 kbit/s."""

MOST_AUDIO_SECONDS: Final = 3 * 3_600
"""The longest recording that is transcribed (Mistral, "Audio & Transcription")."""


# --- requests ----------------------------------------------------------------------------------------------------


def _completion_size(body: Body, _options: Any) -> Size:
    extent = measure(*(body.get(part) for part in ("messages", "prompt", "suffix", "tools", "response_format")))
    # What an agent was told when it was made is not in the request.
    bound = None if body.get("agent_id") else extent.bound(MEDIA)
    return Size(
        extent.likely(MEDIA),
        bound,
        max_output_tokens=positive(body.get("max_tokens")),
        choices=positive(body.get("n")) or 1,
        text_only=not extent.others,
    )


def _conversation_size(body: Body, options: Any) -> Size:
    extent = measure(*(body.get(part) for part in ("inputs", "instructions", "tools")))
    # Earlier turns, agents and what tools of the server find are not in the request.
    tools = [tool for tool in body.get("tools") or () if get(tool, "type") != "function"]
    seen = not tools and not body.get("agent_id") and not options
    return Size(
        extent.likely(MEDIA),
        extent.bound(MEDIA) if seen else None,
        max_output_tokens=positive(get(body.get("completion_args"), "max_tokens")),
        text_only=seen and not extent.others,
    )


def _input_size(body: Body, _options: Any) -> Size:
    extent = measure(body.get("input"))
    return Size(extent.likely(MEDIA), extent.bound(MEDIA), expected_output_tokens=0, text_only=True)


def _document_size(body: Body, _options: Any) -> Size:
    pages = body.get("pages")
    known = len(pages) if isinstance(pages, list) else None
    most, likely = pages_of(known or MOST_PAGES, body), pages_of(known or USUAL_PAGES, body)
    return Size(0, 0, expected_output_tokens=0, extra=most, expected_extra=likely)


def _transcription_size(body: Body, _options: Any) -> Size:
    size = positive(body.get(UPLOADED))
    most = MOST_AUDIO_SECONDS if size is None else min(size // LEAST_AUDIO_RATE + 1, MOST_AUDIO_SECONDS)
    likely = 60 if size is None else size // USUAL_AUDIO_RATE + 1
    return Size(
        1_000,
        None,
        expected_output_tokens=200,
        extra=TokenUsage(input_audio_seconds=most),
        expected_extra=TokenUsage(input_audio_seconds=likely),
    )


def _speech_size(body: Body, _options: Any) -> Size:
    said = text(body.get("input")) or ""
    extent = measure(said)
    return Size(extent.likely(MEDIA), extent.bound(MEDIA), extra=TokenUsage(input_characters=len(said)))


_SAMPLING: Final = (
    (semconv.REQUEST_TEMPERATURE, "temperature", (int, float)),
    (semconv.REQUEST_TOP_P, "top_p", (int, float)),
    (semconv.REQUEST_TOP_K, "top_k", (int, float)),
    (semconv.REQUEST_FREQUENCY_PENALTY, "frequency_penalty", (int, float)),
    (semconv.REQUEST_PRESENCE_PENALTY, "presence_penalty", (int, float)),
    (semconv.REQUEST_SEED, "random_seed", int),
    (semconv.REQUEST_MAX_TOKENS, "max_tokens", int),
    (semconv.REQUEST_MAX_TOKENS, "max_output_tokens", int),
    (semconv.REQUEST_REASONING_LEVEL, "reasoning_effort", str),
    (semconv.EMBEDDINGS_DIMENSION_COUNT, "output_dimension", int),
    ("gen_ai.agent.id", "agent_id", str),
)

_OUTPUT_TYPES: Final = {"text": "text", "json_object": "json", "json_schema": "json"}


def _attributes(body: Body) -> Mapping[str, Any]:
    attributes: dict[str, Any] = {}
    # A conversation has its sampling arguments apart.
    for source in (body, body.get("completion_args")):
        if source is None:
            continue
        told = fields(source)
        for name, field, kind in _SAMPLING:
            value = told.get(field)
            if value is not None and isinstance(value, kind) and not isinstance(value, bool):
                attributes[name] = value
        stop = told.get("stop")
        if isinstance(stop, str):
            attributes[semconv.REQUEST_STOP_SEQUENCES] = (stop,)
        elif isinstance(stop, list) and stop and all(isinstance(one, str) for one in stop):
            attributes[semconv.REQUEST_STOP_SEQUENCES] = tuple(stop)
        form = get(told.get("response_format"), "type")
        if isinstance(form, str) and form in _OUTPUT_TYPES:
            attributes[semconv.OUTPUT_TYPE] = _OUTPUT_TYPES[form]
    if body.get("stream") is True:
        attributes[semconv.REQUEST_STREAM] = True
    if (choices := positive(body.get("n"))) is not None and choices != 1:
        attributes[semconv.REQUEST_CHOICE_COUNT] = choices
    return attributes


def _characters(body: Body) -> TokenUsage | None:
    """Speech is billed by the characters that are spoken. The tokens that a stream tells are not billed."""
    said = body.get("input")
    return TokenUsage(input_characters=len(said)) if isinstance(said, str) else None


def _read_speech(_data: Any, body: Body, _provider: str) -> ResponseFacts:
    return ResponseFacts(usage=_characters(body))


# --- endpoints ---------------------------------------------------------------------------------------------------


def _conversation_events(body: Body, _provider: str) -> StreamFormat:
    return mistralai_streams.CONVERSATION if body.get("model") else mistralai_streams.AGENT_CONVERSATION


def _always(form: StreamFormat) -> Callable[[Body, str], StreamFormat]:
    return lambda _body, _provider: form


_COMPLETED: Final = _always(mistralai_streams.COMPLETION)
_LIMITED: Final = Changes(limits=(("max_tokens",),))
_MODEL: Final = Changes()
"""Of what has no limit on its output."""

_CHAT: Final = Endpoint(
    semconv.CHAT, _completion_size, _attributes, read_completion, _COMPLETED, content=content.CHAT, changes=_LIMITED
)
_CONVERSATION: Final = Endpoint(
    semconv.CHAT, _conversation_size, _attributes, read_conversation, _conversation_events, content=CONVERSATION,
    changes=Changes(limits=(("completion_args", "max_tokens"),)),
)  # fmt: skip
_FIM: Final = Endpoint(
    semconv.TEXT_COMPLETION, _completion_size, _attributes, read_completion, _COMPLETED, content=content.COMPLETION,
    changes=_LIMITED,
)  # fmt: skip
_JUDGEMENT: Final = Endpoint("moderation", _input_size, _attributes, read_judgement, changes=_MODEL)
_CLASSIFICATION: Final = Endpoint("classification", _input_size, _attributes, read_judgement, changes=_MODEL)
_DOCUMENT: Final = Endpoint("ocr", _document_size, _attributes, read_document, changes=_MODEL)

ENDPOINTS: Final[tuple[tuple[str, Endpoint], ...]] = (
    (r"/chat/completions", _CHAT),
    (r"/fim/completions", _FIM),
    (r"/agents/completions", _CHAT),
    (r"/conversations(?:/[^/]+(?:/restart)?)?", _CONVERSATION),
    (r"/responses", OPENAI_ENDPOINTS["post", "/responses"]),
    (r"/embeddings", Endpoint(semconv.EMBEDDINGS, _input_size, _attributes, read_judgement, changes=_MODEL)),
    (r"/ocr", _DOCUMENT),
    (
        r"/audio/transcriptions",
        Endpoint(
            semconv.TRANSCRIPTION,
            _transcription_size,
            _attributes,
            read_transcription,
            _always(mistralai_streams.audio()),
        ),
    ),
    (
        r"/audio/speech",
        Endpoint(
            semconv.SPEECH,
            _speech_size,
            _attributes,
            _read_speech,
            lambda body, _provider: mistralai_streams.audio(_characters(body)),
        ),
    ),
    (r"(?:/chat)?/moderations", _JUDGEMENT),
    (r"(?:/chat)?/classifications", _CLASSIFICATION),
    (r"(?:/[^/]+)?[/:](?:streamR|r)awPredict", _CHAT),  # Vertex
)
"""Every endpoint that bills, by the end of its path."""

_ENDING: Final = re.compile("|".join(f"(?P<e{number}>{path}$)" for number, (path, _) in enumerate(ENDPOINTS)))


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """The endpoint at ``path``, or ``None`` where nothing is billed.

    >>> endpoint_of("POST", "/v1/chat/completions").operation
    'chat'
    >>> endpoint_of("GET", "/v1/conversations") is None
    True
    """
    if method.upper() != "POST" or (found := _ENDING.search(path)) is None:
        return None
    return ENDPOINTS[int(str(found.lastgroup)[1:])][1]


# --- the door ----------------------------------------------------------------------------------------------------

UPLOADED: Final = "\0uploaded"
"""Where the body of a form keeps the size of what is uploaded, in bytes."""


class MistralDoor(RequestDoor):
    """The Mistral SDK's door: ``do_request`` of its base class, below every helper and above its retries."""

    provider = PROVIDER

    def install(self, sdk: ModuleType) -> None:
        base = importlib.import_module(f"{sdk.__name__}.basesdk").BaseSDK
        self.hook(base, "do_request", is_async=False)
        self.hook(base, "do_request_async", is_async=True)
        retries = importlib.import_module(f"{sdk.__name__}.utils.retries")
        if (pause := vars(retries).get("_get_sleep_interval")) is not None:
            self.put(retries, "_get_sleep_interval", _noting(pause))
        if sdk.__name__ == "mistralai.client":
            hook = importlib.import_module("mistralai.client._hooks.tracing").TracingHook
            self.put(hook, "before_request", self._quietly(hook.before_request))

    def wrap(self, client: Any) -> None:
        """Hook one client, and the parts that it is made of, which it makes when they are first asked for."""
        if not callable(getattr(type(client), "do_request", None)):
            raise TypeError(f"{type(client)!r} is not a client")
        self._wrap_part(client)
        hooks = vars(client.sdk_configuration).get("_hooks")
        for hook in getattr(hooks, "before_request_hooks", ()):
            if type(hook).__name__ == "TracingHook":
                self.put(hook, "before_request", functools.partial(self._quietly(type(hook).before_request), hook))

    def _wrap_part(self, part: Any) -> None:
        self.hook_client(part, "do_request", is_async=False)
        self.hook_client(part, "do_request_async", is_async=True)
        if callable(load := getattr(part, "dynamic_import", None)):
            self.put(part, "dynamic_import", self._wrapping_import(load))
        for name, inner in list(vars(part).items()):
            if name != "parent_ref" and callable(getattr(type(inner), "do_request", None)):
                self._wrap_part(inner)

    def _wrapping_import(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """The way in which a client gets at the class of a part, made to give one whose instances are hooked."""

        @functools.wraps(load)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            module = load(*args, **kwargs)

            def made(kind: Any) -> Any:
                @functools.wraps(kind, updated=())
                def make(*args: Any, **kwargs: Any) -> Any:
                    part = kind(*args, **kwargs)
                    if self.is_open:
                        self._wrap_part(part)
                    return part

                return make

            return SimpleNamespace(
                **{name: made(kind) for name, kind in vars(module).items() if hasattr(kind, "do_request")}
            )

        return wrapper

    def _quietly(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The SDK's hook that makes a span before a request is sent, made to leave out those that we have made."""

        @functools.wraps(original)
        def before_request(hook: Any, hook_ctx: Any, request: Any) -> Any:
            opened = under_way.get()
            try:
                if opened is not None and self.is_open and self._has_span(opened, hook):
                    hook._store_span_on_request(request, None)
                    return request
            except Exception as error:
                log_once("leave out a span of the SDK", error)
            return original(hook, hook_ctx, request)

        return before_request

    def _has_span(self, opened: Opened, hook: Any) -> bool:
        """Whether the call has a span that goes where the SDK's would go. Telemetry that a program sends to Mistral
        itself, by a provider of its own, is none of our business."""
        theirs = getattr(hook, "tracer_provider", None) or trace.get_tracer_provider()
        way = getattr(theirs.get_tracer(__name__), "span_processor", None)
        return opened.call.span.is_recording() and way is getattr(self.telemetry.tracer, "span_processor", way)

    # --- one call ----------------------------------------------------------------------------------------------

    def open(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opened | None:
        request = kwargs["request"] if "request" in kwargs else args[1]
        if part_of_another(request):
            return None
        endpoint = endpoint_of(request.method, request.url.path)
        if endpoint is None:
            return None
        body = _body(request)
        url = request.url
        package = type(client).__module__.partition(".client")[0] + ".client"
        mark = mark_of(_key_of(request)) if package == "mistralai.client" else ""
        peer = Peer(provider_of(str(url), PACKAGES.get(package, PROVIDER)), url.host, url.port, api_key=mark)
        continued = endpoint is _CONVERSATION and not url.path.endswith("/conversations")
        return self.admit(
            peer,
            endpoint,
            body,
            continued,
            model=_model(body, url.path),
            tier=text(body.get("service_tier")),
            key=request,
            fields=body if "json" in _kind(request) else {},
        )


def _kind(request: Any) -> str:
    return request.headers.get("content-type") or ""


def _key_of(request: Any) -> str:
    scheme, _, key = (request.headers.get("authorization") or "").partition(" ")
    return key if scheme.lower() == "bearer" else ""


def _model(body: Body, path: str) -> str:
    named = text(body.get("model"))
    if named is None and (found := re.search(r"/models/([^/:]+)", path)) is not None:
        named = found.group(1)  # Vertex
    return named or ""


def _body(request: Any) -> Body:
    """The fields of a request. Forms are not read, they may be uploads: their plain fields are looked at."""
    kind = _kind(request)
    if "json" in kind:
        body = json.loads(request.content)
        return body if isinstance(body, dict) else {}
    if "urlencoded" in kind:
        return {name: _plain(value) for name, value in parse_qsl(request.content.decode("utf-8", "replace"))}
    return dict(_form(getattr(request.stream, "fields", ())))


def _form(fields: Any) -> Iterator[tuple[str, Any]]:
    for field in fields:
        value = getattr(field, "value", None)
        if value is not None:
            yield field.name, _plain(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
        elif callable(length := getattr(field, "get_length", None)):
            yield UPLOADED, length()


def _plain(value: Any) -> Any:
    return True if value == "true" else value


def _noting(pause: Callable[..., Any]) -> Callable[..., Any]:
    """The SDK's pause before another attempt, made to note whether the attempt that failed may have been billed."""

    @functools.wraps(pause)
    def wrapper(exception: BaseException, *args: Any, **kwargs: Any) -> Any:
        note_attempt(getattr(exception, "response", None), getattr(exception, "inner", None) or exception)
        return pause(exception, *args, **kwargs)

    return wrapper


class MistralAIInstrumentor(SdkInstrumentor):
    """Meters the ``mistralai`` SDK, including its clients for Azure and Vertex.

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider`` and ``former_names`` (set attributes
    under their former names too).

    >>> MistralAIInstrumentor().instrument()
    >>> MistralAIInstrumentor().uninstrument()
    """

    sdk = "mistralai"
    modules = tuple(
        PACKAGES
    )  # `mistralai` itself is a namespace, which is never imported: each client is met on its own
    versions = ">=2,<4"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return MistralDoor(telemetry, meter)
