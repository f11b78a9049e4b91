"""OpenAI, and every host that speaks its API: the instrumentor, and what its endpoints are.

>>> from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
>>> OpenAIInstrumentor().instrument()
>>> OpenAIInstrumentor().uninstrument()
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import openai_content as content
from tokenbudget_otel.instrumentation.changes import THINKING, Changes, Fields, Path
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer
from tokenbudget_otel.instrumentation.facts import ResponseFacts, fields, get, positive, text
from tokenbudget_otel.instrumentation.fields import plain_models
from tokenbudget_otel.instrumentation.guard import tell_once
from tokenbudget_otel.instrumentation.hosts import COMPATIBLE, by_class, provider_of, tell_of_unknown
from tokenbudget_otel.instrumentation.instrumentor import Doors, SdkInstrumentor
from tokenbudget_otel.instrumentation.openai_background import BackgroundResponses
from tokenbudget_otel.instrumentation.openai_batches import OpenAIBatches
from tokenbudget_otel.instrumentation.openai_realtime import RealtimeDoor, ResponsesDoor
from tokenbudget_otel.instrumentation.openai_streams import (
    CHUNK_HINTS,
    CHUNK_MARKS,
    CHUNK_TEXT,
    CHUNK_VOID,
    MEDIA_HINTS,
    MEDIA_MARKS,
    RESPONSE_HINTS,
    RESPONSE_MARKS,
    RESPONSE_TEXT,
    ChunkReader,
    MediaEventReader,
    ResponseEventReader,
    note_upstream,
    read_response,
)
from tokenbudget_otel.instrumentation.openai_usage import (
    REPORTED,
    SEARCH,
    MadeImages,
    audio_usage,
    chat_usage,
    image_model,
    image_usage,
    reported_cost,
    searched,
)
from tokenbudget_otel.instrumentation.sizing import MediaTokens, input_tokens, measure
from tokenbudget_otel.instrumentation.stainless import StainlessDoor, changed_options, key_of
from tokenbudget_otel.instrumentation.streams import StreamFormat
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.instrumentation.uploads import sound_seconds
from tokenbudget_otel.meter import Meter, Reading, Request, Size
from tokenbudget_otel.money import NANO_PER_USD
from tokenbudget_otel.settings import option
from tokenbudget_otel.usage import TokenUsage

PROVIDER: Final = "openai"

CLASSES: Final = {
    "BaseAzureClient": "azure.ai.openai",
    "BedrockOpenAI": "aws.bedrock",
    "AsyncBedrockOpenAI": "aws.bedrock",
    "BaseBedrockClient": "aws.bedrock",
}
"""Client classes that stand for a provider, whatever their base URL."""

RUNTIMES: Final = {"bedrock": "aws.bedrock"}
"""The same of ``OpenAI(provider=…)``, by the name that the SDK gives what is configured so."""

MEDIA: Final = MediaTokens(image=(1_100, 50_000), other=(1_000, None))
"""Image parts: gpt-4o-mini bills the most tokens of all, 48,169 for eight tiles at high detail
(OpenAI, "Images and vision": 2,833 + 8 x 5,667). Files and audio cannot be told beforehand."""

IMAGE_OUTPUT_TOKENS: Final = 16_384
"""Output tokens allowed for one generated image; gpt-image-1 in high quality, 1024 x 1536, makes 6,240."""

MAX_AUDIO_BYTES: Final = 25 * 1024 * 1024
"""The largest upload that is transcribed (OpenAI, "Speech to text")."""

LEAST_AUDIO_RATE: Final = 500
"""Bytes of a second of audio, at least: 4 kbit/s, below which no codec for speech goes."""

USUAL_AUDIO_RATE: Final = 16_000
"""Bytes of a second of audio, usually: 128 kbit/s."""

IMAGES_COST: Final = "tokenbudget.image_generation.cost"
IMAGES_MODEL: Final = "tokenbudget.image_generation.model"
"""What a response's image generation tool cost beside the response, and its model."""

SECONDS: Final = "tokenbudget.seconds"
"""Where the length of an upload is kept with the fields of its request."""

REFUSES_STREAM_OPTIONS: Final = frozenset(("mistral_ai", "openrouter", "perplexity"))
"""Providers that send the usage without being asked; some of them refuse ``stream_options``."""

MAX_REFUSING: Final = 1_000
"""Servers remembered as refusing ``stream_options``, for each door."""


# --- requests ----------------------------------------------------------------------------------------------------


def _chat_size(body: Body, _options: Any) -> Size:
    asked = body.get
    likely, bound, only_text, _ = input_tokens(
        MEDIA, asked("messages"), asked("tools"), asked("functions"), asked("response_format")
    )
    limit = asked("max_completion_tokens") or asked("max_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        limit = positive(asked("max_completion_tokens")) or positive(asked("max_tokens"))
    choices, model = asked("n"), asked("model")
    return Size(
        likely,
        bound,
        limit,
        1 if choices is None else positive(choices) or 1,
        TokenUsage(web_searches=1) if isinstance(model, str) and SEARCH in model and searched(body, PROVIDER) else None,
        None,
        None,
        None,
        only_text and not asked("audio"),
    )


def _completion_size(body: Body, _options: Any) -> Size:
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    likely, bound, _, _ = input_tokens(MEDIA, prompt, body.get("suffix"))
    choices = max(positive(body.get("n")) or 1, positive(body.get("best_of")) or 1)
    # 16 is the API's own default for max_tokens of legacy completions.
    most = positive(body.get("max_tokens")) or 16
    return Size(likely, bound, most, prompts * choices, text_only=True)


def _response_size(body: Body, _options: Any) -> Size:
    asked, tools = body.get, body.get("tools")
    previous, stored = asked("previous_response_id") or asked("conversation"), asked("prompt")
    likely, bound, only_text, _ = input_tokens(
        MEDIA, asked("input"), asked("instructions"), tools, asked("text"), stored
    )
    # Earlier turns and stored prompts are not in the request; only the context window bounds them. The same
    # goes for what server-side tools feed back into the model.
    unseen = bool(previous or stored)
    server_tools = [tool for tool in tools if get(tool, "type") not in ("function", "custom")] if tools else ()
    searches = positive(asked("max_tool_calls")) if server_tools else None
    return Size(
        likely,
        None if unseen or server_tools else bound,
        positive(asked("max_output_tokens")),
        text_only=only_text and not (server_tools or unseen),
        extra=TokenUsage(web_searches=searches) if searches and _searches(server_tools) else None,
    )


def _searches(tools: Iterable[Any]) -> bool:
    return any(str(get(tool, "type")).startswith("web_search") for tool in tools)


def _embedding_size(body: Body, _options: Any) -> Size:
    inputs = body.get("input")
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], int):
        tokens = len(inputs)
        return Size(tokens, tokens, expected_output_tokens=0, text_only=True)
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], list):
        tokens = sum(len(tokens) for tokens in inputs)
        return Size(tokens, tokens, expected_output_tokens=0, text_only=True)
    likely, bound, _, _ = input_tokens(MEDIA, inputs)
    return Size(likely, bound, expected_output_tokens=0, text_only=True)


def _image_size(body: Body, options: Any) -> Size:
    extent = measure(body.get("prompt"))
    images = positive(body.get("n")) or 1
    pictures = len(options.files or ())
    bound = extent.bound(MEDIA)
    return Size(
        extent.likely(MEDIA) + pictures * MEDIA.image[0],
        None if bound is None else bound + pictures * MEDIA.image[1],
        max_output_tokens=IMAGE_OUTPUT_TOKENS,
        choices=images,
        expected_output_tokens=1_500,
        extra=TokenUsage(output_images=images),
    )


def _transcription_size(_body: Body, options: Any) -> Size:
    # The length of the audio is not known before it is decoded: the context window bounds its tokens, and the size
    # of the upload its seconds.
    size = _uploaded(options.files)
    heard = sound_seconds(options.files)
    if heard is None:
        heard = (0 if size is None else size) // USUAL_AUDIO_RATE + 1
    return Size(
        1_000,
        None,
        expected_output_tokens=200,
        extra=TokenUsage(input_audio_seconds=(MAX_AUDIO_BYTES if size is None else size) // LEAST_AUDIO_RATE + 1),
        expected_extra=TokenUsage(input_audio_seconds=heard),
    )


def _uploaded(files: Any) -> int | None:
    """Bytes of the audio that is uploaded, or ``None`` where that cannot be told without reading it."""
    total = 0
    for _, part in files.items() if isinstance(files, Mapping) else files or ():
        if isinstance(part, tuple) and len(part) > 1:
            part = part[1]  # (file name, content, type …)
        if not isinstance(part, bytes | bytearray):
            return None
        total += len(part)
    return total or None


def _speech_size(body: Body, _options: Any) -> Size:
    said = text(body.get("input")) or ""
    extent = measure(said, body.get("instructions"))
    return Size(extent.likely(MEDIA), extent.bound(MEDIA), extra=TokenUsage(input_characters=len(said)))


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _alone(value: Any) -> tuple[str] | None:
    return (value,) if isinstance(value, str) else None


def _stops(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _choices(value: Any) -> int | None:
    return value if (choices := positive(value)) is not None and choices != 1 else None


def _conversation(value: Any) -> str | None:
    return text(value) or text(get(value, "id"))


def _effort(value: Any) -> str | None:
    return text(get(value, "effort"))


_OUTPUT_TYPES: Final = {"text": "text", "json_object": "json", "json_schema": "json"}

_NUMBERS: Final = (int, float)
_WHOLE: Final = (int,)
_TEXTS: Final = (str,)

_ATTRIBUTES: Final[Mapping[str, tuple[str, tuple[type, ...], Callable[[Any], Any], tuple[str, ...]]]] = {
    "temperature": (semconv.REQUEST_TEMPERATURE, _NUMBERS, _number, ()),
    "top_p": (semconv.REQUEST_TOP_P, _NUMBERS, _number, ()),
    "frequency_penalty": (semconv.REQUEST_FREQUENCY_PENALTY, _NUMBERS, _number, ()),
    "presence_penalty": (semconv.REQUEST_PRESENCE_PENALTY, _NUMBERS, _number, ()),
    "seed": (semconv.REQUEST_SEED, _WHOLE, _whole, ()),
    "max_tokens": (semconv.REQUEST_MAX_TOKENS, _WHOLE, _whole, ("max_completion_tokens", "max_output_tokens")),
    "max_completion_tokens": (semconv.REQUEST_MAX_TOKENS, _WHOLE, _whole, ("max_output_tokens",)),
    "max_output_tokens": (semconv.REQUEST_MAX_TOKENS, _WHOLE, _whole, ()),
    "reasoning_effort": (semconv.REQUEST_REASONING_LEVEL, _TEXTS, _text, ("reasoning",)),
    "reasoning": (semconv.REQUEST_REASONING_LEVEL, (), _effort, ()),
    "previous_response_id": (semconv.REQUEST_PREVIOUS_RESPONSE_ID, _TEXTS, _text, ()),
    "dimensions": (semconv.EMBEDDINGS_DIMENSION_COUNT, _WHOLE, _whole, ()),
    "service_tier": (semconv.OPENAI_REQUEST_SERVICE_TIER, _TEXTS, _text, ()),
    "stream": (semconv.REQUEST_STREAM, (), lambda value: True if value is True else None, ()),
    "stop": (semconv.REQUEST_STOP_SEQUENCES, (), _stops, ()),
    "n": (semconv.REQUEST_CHOICE_COUNT, (), _choices, ()),
    "encoding_format": (semconv.REQUEST_ENCODING_FORMATS, (), _alone, ()),
    "conversation": (semconv.CONVERSATION_ID, (), _conversation, ()),
}
"""Fields of requests: the span attribute that each becomes, the types whose values become it as they are, how others
are read, and the fields that say the same better."""


def _request_attributes(api_type: str | None, body: Body) -> Mapping[str, Any]:
    attributes: dict[str, Any] = {}
    for field, value in body.items():
        row = _ATTRIBUTES.get(field)
        if row is None or value is None:
            continue
        name, as_it_is, read, better = row
        known = value if type(value) in as_it_is else read(value)
        if known is None:
            continue
        for other in better:
            if other in body and _says(other, body):
                break
        else:
            attributes[name] = known
    if "response_format" in body or "text" in body:
        form = get(body.get("response_format"), "type") or get(body.get("text"), "format", "type")
        if isinstance(form, str) and form in _OUTPUT_TYPES:
            attributes[semconv.OUTPUT_TYPE] = _OUTPUT_TYPES[form]
    if api_type is not None:
        attributes[semconv.OPENAI_API_TYPE] = api_type
    return attributes


def _says(field: str, body: Body) -> bool:
    """Whether a field of a request becomes an attribute."""
    value = body.get(field)
    return value is not None and _ATTRIBUTES[field][2](value) is not None


# --- responses ---------------------------------------------------------------------------------------------------


def _read_chat(data: Any, body: Body, provider: str) -> ResponseFacts:
    # The texts as `text` has them, and the fields of a choice as `get` has them, without the calls.
    said = fields(data).get
    choices, usage = said("choices"), said("usage")
    reasons: tuple[str, ...] = ()
    for choice in choices if isinstance(choices, list) else ():
        reason = choice.__dict__.get("finish_reason") if type(choice) in plain_models else None
        if reason is None:
            reason = get(choice, "finish_reason")
        if isinstance(reason, str) and reason:
            reasons += (reason,)
    attributes: dict[str, Any] = {}
    if isinstance(fingerprint := said("system_fingerprint"), str) and fingerprint:
        attributes[semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT] = fingerprint
    asked, answered, answer, tier = body.get("model"), said("model"), said("id"), said("service_tier")
    searches = searched(body, provider) if isinstance(asked, str) and SEARCH in asked else 0
    facts = ResponseFacts(
        answer if isinstance(answer, str) and answer else None,
        answered if isinstance(answered, str) and answered else None,
        reasons,
        chat_usage(usage, provider, searches),
        False,
        tier if isinstance(tier, str) and tier else None,
        attributes=attributes,
    )
    if provider in REPORTED:  # the gateway that names its upstream is among those
        facts.reported_nano_usd = reported_cost(usage, provider)
        note_upstream(data, provider, facts)
    return facts


def _read_response(data: Any, _body: Body, provider: str) -> ResponseFacts:
    return read_response(data, provider=provider)


def _read_images(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    return ResponseFacts(usage=image_usage(data))


def _read_audio(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    return ResponseFacts(usage=audio_usage(data))


def _read_heard(data: Any, body: Body, _provider: str) -> ResponseFacts:
    usage = audio_usage(data)
    return ResponseFacts(usage=usage) if usage is not None or data is None else _heard(body)


def _heard(body: Body) -> ResponseFacts:
    """A transcription without a word about what was used: billed by the second, where the upload tells them."""
    seconds = body.get(SECONDS)
    if seconds is not None:
        return ResponseFacts(usage=TokenUsage(input_audio_seconds=seconds), estimated=True)
    model, form = text(body.get("model")) or "", text(body.get("response_format")) or "json"
    tell_once(
        f"transcription {model} {form}",
        "tokenbudget-otel: %s in the format %r does not say what it used, and the length of this upload cannot be "
        "told: the cost of this call is unknown. Ask for %s to have it, or send WAV.",
        model,
        form,
        "verbose_json" if model.startswith("whisper") else "json",
    )
    return ResponseFacts()


def _spoken(body: Body) -> ResponseFacts:
    """Speech comes back as audio without a count; models billed by the character are billed by the input."""
    said = body.get("input")
    if (model := text(body.get("model")) or "").startswith("gpt-"):
        tell_once(
            f"speech {model}",
            "tokenbudget-otel: speech by %s is billed by tokens, which only event streams report: the cost of this "
            "call is unknown. Ask for stream_format='sse' to have it.",
            model,
        )
    return ResponseFacts(usage=TokenUsage(input_characters=len(said)) if isinstance(said, str) else None)


def _chunks(body: Body, provider: str) -> StreamFormat:
    return _chunk_format(provider, searched(body, provider))


@functools.lru_cache(maxsize=64)
def _chunk_format(provider: str, searches: int) -> StreamFormat:
    reader = functools.partial(ChunkReader, provider, searches=searches)
    return StreamFormat(CHUNK_MARKS, CHUNK_HINTS, CHUNK_TEXT, reader, CHUNK_VOID)


def _events(_body: Body, provider: str) -> StreamFormat:
    return _event_format(provider)


@functools.lru_cache(maxsize=64)
def _event_format(provider: str) -> StreamFormat:
    reader = functools.partial(ResponseEventReader, provider)
    return StreamFormat(RESPONSE_MARKS, RESPONSE_HINTS, RESPONSE_TEXT, reader)


def _media(operation: str) -> Any:
    form = StreamFormat(MEDIA_MARKS, MEDIA_HINTS, RESPONSE_TEXT, lambda _hide: MediaEventReader(operation))
    return lambda _body, _provider: form


_CHAT = functools.partial(_request_attributes, "chat_completions")
_RESPONSES = functools.partial(_request_attributes, "responses")
_PLAIN = functools.partial(_request_attributes, None)


def _chat_limit(_fields: Fields, provider: str, _model: str) -> Path:
    # Reasoning models of OpenAI refuse the former name, and most other hosts do not know the new one.
    return ("max_completion_tokens",) if provider in ("openai", "azure.ai.openai") else ("max_tokens",)


_CHAT_CHANGES = Changes(
    limits=(("max_completion_tokens",), ("max_tokens",)), unset=_chat_limit, thinking=(THINKING,)
)  # fmt: skip
_MODEL = Changes()
"""Of what has no limit on its output."""

_RESPONSE = Endpoint(
    semconv.CHAT, _response_size, _RESPONSES, _read_response, _events, content=content.RESPONSE,
    changes=Changes(limits=(("max_output_tokens",),)),
)  # fmt: skip

ENDPOINTS: Final[Mapping[tuple[str, str], Endpoint]] = {
    ("post", "/chat/completions"): Endpoint(
        semconv.CHAT, _chat_size, _CHAT, _read_chat, _chunks, wants_usage=True, content=content.CHAT,
        changes=_CHAT_CHANGES,
    ),
    ("post", "/completions"): Endpoint(
        semconv.TEXT_COMPLETION, _completion_size, _PLAIN, _read_chat, _chunks, wants_usage=True,
        content=content.COMPLETION, changes=Changes(limits=(("max_tokens",),)),
    ),
    ("post", "/responses"): _RESPONSE,
    ("post", "/responses/compact"): replace(_RESPONSE, changes=_MODEL),
    ("post", "/embeddings"): Endpoint(semconv.EMBEDDINGS, _embedding_size, _PLAIN, _read_chat, changes=_MODEL),
    ("post", "/images/generations"): Endpoint(
        semconv.IMAGE_GENERATION, _image_size, _PLAIN, _read_images, _media(semconv.IMAGE_GENERATION), changes=_MODEL
    ),
    ("post", "/images/edits"): Endpoint(
        semconv.IMAGE_GENERATION, _image_size, _PLAIN, _read_images, _media(semconv.IMAGE_GENERATION), changes=_MODEL
    ),
    ("post", "/images/variations"): Endpoint(
        semconv.IMAGE_GENERATION, _image_size, _PLAIN, _read_images, changes=_MODEL
    ),
    ("post", "/audio/transcriptions"): Endpoint(
        semconv.TRANSCRIPTION, _transcription_size, _PLAIN, _read_heard, _media(semconv.TRANSCRIPTION),
        binary=_heard, changes=_MODEL,
    ),
    ("post", "/audio/translations"): Endpoint(
        semconv.TRANSLATION, _transcription_size, _PLAIN, _read_heard, binary=_heard, changes=_MODEL
    ),
    ("post", "/audio/speech"): Endpoint(
        semconv.SPEECH, _speech_size, _PLAIN, _read_audio, _media(semconv.SPEECH), binary=_spoken, changes=_MODEL
    ),
}  # fmt: skip
"""Every endpoint that bills, by method and path."""

_FETCH: Final = Endpoint(
    semconv.FETCH_RESPONSE,
    lambda _body, _options: Size(0, 0),
    _RESPONSES,
    _read_response,
    _events,
    billed=False,
    content=content.FETCHED,
)
"""Looking at a response that was made before, or stopping it: free, but the usage of a response that went on
in the background becomes known here."""

_ENDING: Final = re.compile("(" + "|".join(re.escape(path) for _, path in ENDPOINTS) + ")$")
_RESPONSE_ID: Final = re.compile(r"/responses/(resp[\w-]+)(?:/cancel)?$")


@functools.lru_cache(maxsize=256)
def _by_path(method: str, url: str) -> Endpoint | None:
    """The endpoint of a URL with more to it: a deployment before it, an id behind it."""
    method, path = method.lower(), url.partition("?")[0]
    if _RESPONSE_ID.search(path) and method in ("get", "post"):
        return _FETCH
    if (ending := _ENDING.search(path)) is not None:
        return ENDPOINTS.get((method, ending.group(1)))
    return None


@functools.lru_cache(maxsize=256)
def _is_deploying(client: type) -> bool:
    """Whether clients of a class are Azure's."""
    return any(kind.__name__ == "BaseAzureClient" for kind in client.__mro__)


# --- the door ----------------------------------------------------------------------------------------------------


class OpenAIDoor(StainlessDoor):
    """The OpenAI SDK's door.

    Args:
        stream_usage: whether streams are asked for their usage (``stream_options.include_usage``) where the
            program does not ask itself; the additional chunk is withheld from it.
    """

    provider = PROVIDER
    clients = ("OpenAI", "AsyncOpenAI")
    classes = CLASSES

    def __init__(self, telemetry: Telemetry, meter: Meter, *, stream_usage: bool = True) -> None:
        super().__init__(telemetry, meter)
        self._stream_usage = stream_usage
        self._refusing: set[str] = set()
        self._background = BackgroundResponses(meter)
        self._batches = OpenAIBatches(meter)

    def find_peer(self, client: Any) -> Peer:
        """Half the world speaks OpenAI's API: a host is OpenAI's only if it is known to be."""
        url = client.base_url
        runtime = RUNTIMES.get(str(get(client, "_provider_runtime", "name")))
        provider = by_class(client, self.classes) or runtime or provider_of(str(url), COMPATIBLE)
        if provider == COMPATIBLE:
            tell_of_unknown(str(url))
        return Peer(provider, url.host, url.port, api_key=key_of(client))

    def model_in_url(self, client: Any, url: str) -> bool:
        # The name of one of Azure's deployments stands in the URL, put there by the SDK or by the program.
        kind: Any = type(client)
        return _is_deploying(kind) or "/deployments/" in f"{self._peers.base_url(client)}{url}"

    def endpoint(self, method: str, url: str) -> Endpoint | None:
        known = ENDPOINTS.get((method, url)) or _by_path(method, url)
        return known if known is not None else self._batches.endpoint(method.lower(), url.partition("?")[0])

    def prepare(self, opened: Opened, client: Any, *, stream: bool) -> None:
        body = opened.body
        if opened.endpoint.binary is _heard and (seconds := sound_seconds(opened.options.files)) is not None:
            opened.body = {**body, SECONDS: seconds}
        if not (stream and opened.endpoint.wants_usage and self._stream_usage and body.get("stream") is True):
            return
        asked = body.get("stream_options")
        if asked is not None and (not isinstance(asked, Mapping) or "include_usage" in asked):
            return
        if opened.peer.provider in REFUSES_STREAM_OPTIONS or self._peers.base_url(client) in self._refusing:
            return
        options = opened.options
        headers = options.headers if isinstance(options.headers, Mapping) else {}
        if not any(name.lower() == "accept-encoding" for name in headers):
            # The chunk that we asked for can only be withheld from a body that is not compressed.
            headers = {**headers, "Accept-Encoding": "identity"}
        wanted = {"stream_options": {**(asked or {}), "include_usage": True}}
        extra = options.extra_json
        opened.options = (
            # The SDK lets `extra_body` win over the body, field by field.
            changed_options(options, extra_json={**extra, **wanted}, headers=headers)
            if isinstance(extra, Mapping) and "stream_options" in extra
            else changed_options(options, json_data={**options.json_data, **wanted}, headers=headers)
        )
        opened.asked_usage = True
        opened.base_url = self._peers.base_url(client)

    def refused_change(self, opened: Opened, error: BaseException) -> bool:
        if getattr(error, "status_code", None) not in (400, 422):
            return False
        message = f"{error} {getattr(error, 'body', '')}"
        if "stream_options" not in message and "include_usage" not in message:
            return False
        if len(self._refusing) >= MAX_REFUSING:
            self._refusing.clear()  # those that are still asked say it again
        self._refusing.add(opened.base_url)
        return True

    def finish(self, opened: Opened, outcome: str, facts: ResponseFacts, error: BaseException | None = None) -> None:
        if facts.tier is not None:
            facts.attributes[semconv.OPENAI_RESPONSE_SERVICE_TIER] = facts.tier
        if opened.endpoint is _FETCH:
            book = self._background.booking(opened.peer.provider, facts)
            images = self._images_made(opened, facts) if book is not None else None
            opened.call.finish(outcome, facts, error, billed=book is not None, book=book)
            if images is not None:
                self.meter.record(*images)
            return
        if opened.endpoint.operation in (semconv.CREATE_BATCH, semconv.FETCH_BATCH):
            self._batches.finish(opened, outcome, facts, error)
            return
        if facts.id is not None and facts.background:
            if facts.unfinished:
                self._background.remember(facts.id, opened.call.ticket)
            elif not self._background.booked(facts.id, opened.call.request):
                opened.call.finish(outcome, facts, error, billed=False)
                return  # followed to its end, but somebody who retrieved it was faster
        images = None if facts.more is None else self._images_made(opened, facts)
        if facts.error is None and not facts.background:
            opened.call.finish(outcome, facts, error)  # as below, without asking further
        else:
            super().finish(opened, outcome, facts, error)
        if images is not None:
            self.meter.record(*images)

    def _images_made(self, opened: Opened, facts: ResponseFacts) -> tuple[Request, Reading] | None:
        """What a response's image generation tool used: booked beside it, at the price of the image model."""
        made, call = facts.more, opened.call
        if not isinstance(made, MadeImages) or call.finished or facts.unfinished:
            return None
        model = made.model or image_model(opened.body) or ""
        asked = call.request
        request = Request(
            asked.provider, model, semconv.IMAGE_GENERATION, lambda: Size(0, 0), at=asked.at, tags=asked.tags,
            context=asked.context,
        )  # fmt: skip
        reading = Reading(made.usage, model)
        cost = self.meter.price(request, reading).cost
        facts.attributes[IMAGES_MODEL] = model
        if cost.nano_usd is not None:
            facts.attributes[IMAGES_COST] = cost.nano_usd / NANO_PER_USD
        return request, reading


class OpenAIInstrumentor(SdkInstrumentor):
    """Meters the ``openai`` SDK, for OpenAI itself, Azure OpenAI and every compatible host.

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider``, ``stream_usage`` (see
    :class:`OpenAIDoor`; also ``TOKENBUDGET_STREAM_USAGE=false``) and ``former_names`` (set attributes under
    their former names too).

    >>> OpenAIInstrumentor().instrument()
    >>> OpenAIInstrumentor().uninstrument()
    """

    sdk = "openai"
    versions = ">=2,<4"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        asked = options.get("stream_usage")
        door = OpenAIDoor(telemetry, meter, stream_usage=bool(option("stream_usage", True) if asked is None else asked))
        return Doors(door, RealtimeDoor(telemetry, meter, door.peer), ResponsesDoor(telemetry, meter, door))
