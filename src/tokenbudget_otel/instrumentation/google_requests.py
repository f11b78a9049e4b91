"""How requests to Google's APIs read: how large they are, and what they ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.endpoint import Body
from tokenbudget_otel.instrumentation.facts import fields, get, text
from tokenbudget_otel.instrumentation.google_usage import count
from tokenbudget_otel.instrumentation.sizing import Extent, MediaTokens, measure
from tokenbudget_otel.meter import Size
from tokenbudget_otel.usage import TokenUsage

MEDIA: Final = MediaTokens(image=(1_120, 6_192), other=(1_000, None))
"""An image is cut into tiles of 258 tokens, usually no more than four (Gemini 3: 1,120 at high resolution); 24 tiles
are a bound for all but very long strips. The length of a document or a video cannot be told beforehand."""

AUDIO_TOKENS_PER_SECOND: Final = 32
USUAL_AUDIO_RATE: Final = 16_000
"""Bytes of a second of audio, usually: 128 kbit/s."""
LEAST_AUDIO_RATE: Final = 500
"""Bytes of a second of audio, at least: 4 kbit/s, below which no codec for speech goes."""

UNCAPPED_SEARCHES: Final = 10
"""Queries allowed for in a request with Google Search: the API has no limit of its own. Models that are billed by the
request need one."""

IMAGES_UNLESS_TOLD: Final = 4
"""Images that Imagen makes where a request does not say how many (Vertex AI, "Imagen API")."""

_INLINE: Final = ("inlineData", "inline_data")
_FILE: Final = ("fileData", "file_data")
_OWN_TOOLS: Final = frozenset(("functionDeclarations", "function_declarations"))
"""Tools that the program runs; all others are the server's, which reads what they find."""
_SEARCH_TOOLS: Final = frozenset(("googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval"))
_WRITES_MEDIA: Final = re.compile(r"image|banana|tts|audio|live|omni|lyria|veo")
"""Models that write more than text without being asked to."""


# --- sizes -------------------------------------------------------------------------------------------------------


def measured(*values: Any) -> tuple[Extent, int, int]:
    """Walk through contents; the tokens of their audio, likely and at most, are apart."""
    parts: list[Any] = []
    likely = bound = 0
    for part in _parts(values, 0):
        mime, data = _media(part)
        if mime is None:
            parts.append(part)
        elif mime.startswith("image/"):
            parts.append({"type": "image"})
        elif mime.startswith("audio/") and data is not None:
            size = len(data) * 3 // 4 if isinstance(data, str) else len(data)
            likely += (size // USUAL_AUDIO_RATE + 1) * AUDIO_TOKENS_PER_SECOND
            bound += (size // LEAST_AUDIO_RATE + 1) * AUDIO_TOKENS_PER_SECOND
        else:
            parts.append({"type": "file"})
    return measure(*parts), likely, bound


def _parts(value: Any, depth: int) -> Iterator[Any]:
    """The parts in contents, one by one; whatever else there is, whole."""
    if depth > 8:
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item, depth + 1)
    elif (type(value) is dict or isinstance(value, Mapping)) and isinstance(value.get("parts"), list | tuple):
        yield {name: item for name, item in value.items() if name != "parts"}
        yield from _parts(value["parts"], depth + 1)
    else:
        yield value


def _media(part: Any) -> tuple[str | None, Any]:
    """The MIME type of a part that is not text, and its data where that is in the request."""
    if type(part) is dict or isinstance(part, Mapping):
        for name in _INLINE:
            if (blob := part.get(name)) is not None:
                return _mime(blob), get(blob, "data") if isinstance(get(blob, "data"), str | bytes) else None
        for name in _FILE:
            if (file := part.get(name)) is not None:
                return _mime(file), None
    return None, None


def _mime(blob: Any) -> str:
    return text(get(blob, "mimeType")) or text(get(blob, "mime_type")) or "unknown"


def content_size(body: Body, _options: Any) -> Size:
    """The size of a request to ``generateContent``; ``maxOutputTokens`` caps thoughts and text together."""
    config = body.get("generationConfig")
    extent, likely, bound = measured(
        *(body.get(part) for part in ("contents", "systemInstruction", "tools")),
        *(get(config, schema) for schema in ("responseSchema", "responseJsonSchema")),
    )
    tools = server_tools(body)
    # What a cache holds and what the server's own tools find is read by the model too.
    unseen = bool(body.get("cachedContent") or tools)
    most = extent.bound(MEDIA)
    searches = tools & _SEARCH_TOOLS
    modalities = [str(one).upper() for one in _listed(get(config, "responseModalities"))]
    return Size(
        extent.likely(MEDIA) + likely,
        None if unseen or most is None else most + bound,
        max_output_tokens=count(get(config, "maxOutputTokens")) or None,
        choices=count(get(config, "candidateCount")) or 1,
        extra=TokenUsage(web_searches=UNCAPPED_SEARCHES) if searches else None,
        expected_extra=TokenUsage(web_searches=1) if searches else None,
        text_only=not (
            extent.images
            or extent.others
            or likely
            or body.get("cachedContent")
            or _WRITES_MEDIA.search(str(body.get("model")))
        )
        and set(modalities) <= {"TEXT"},
    )


def server_tools(body: Body) -> set[str]:
    """The tools in a request to ``generateContent`` that Google runs, by name."""
    tools = {name for tool in _listed(body.get("tools")) if isinstance(tool, Mapping) for name in tool}
    return tools - _OWN_TOOLS


def embedding_size(body: Body, _options: Any) -> Size:
    """The size of a request for embeddings: ``content``, ``requests`` or, on Vertex AI, ``instances``."""
    contents = [get(request, "content") for request in _listed(body.get("requests"))]
    extent, likely, bound = measured(contents, body.get("content"), body.get("instances"))
    most = extent.bound(MEDIA)
    return Size(
        extent.likely(MEDIA) + likely,
        None if most is None else most + bound,
        expected_output_tokens=0,
        text_only=not (extent.images or extent.others or likely),
    )


def image_size(body: Body, _options: Any) -> Size:
    """The size of a request for images, which are billed by their number."""
    instances = _listed(body.get("instances"))
    extent = measure(*(get(instance, "prompt") for instance in instances))
    images = (count(get(body, "parameters", "sampleCount")) or IMAGES_UNLESS_TOLD) * max(1, len(instances))
    return Size(
        extent.likely(MEDIA),
        extent.bound(MEDIA),
        expected_output_tokens=0,
        extra=TokenUsage(output_images=images),
    )


def interaction_size(body: Body, _options: Any) -> Size:
    """The size of a request for an interaction. Its parts name their type, as those of most other APIs do."""
    config = body.get("generation_config")
    extent = measure(*(body.get(part) for part in ("input", "system_instruction", "tools", "response_format")))
    tools = [str(get(tool, "type")) for tool in _listed(body.get("tools"))]
    # Earlier turns are kept by the server, an agent works on its own, and the server's tools find what they find.
    unseen = any(
        body.get(name) for name in ("previous_interaction_id", "agent", "cached_content", "continuation_token")
    )
    server_tools = any(tool != "function" for tool in tools)
    model = str(body.get("model") or "")
    searches = "google_search" in tools
    return Size(
        extent.likely(MEDIA),
        None if unseen or server_tools else extent.bound(MEDIA),
        max_output_tokens=count(get(config, "max_output_tokens")) or None,
        extra=TokenUsage(web_searches=UNCAPPED_SEARCHES) if searches else None,
        expected_extra=TokenUsage(web_searches=1) if searches else None,
        text_only=not (
            extent.images or extent.others or unseen or body.get("response_modalities") or body.get("response_format")
        )
        and not _WRITES_MEDIA.search(model),
    )


# --- attributes --------------------------------------------------------------------------------------------------

_CONFIG: Final = (
    (semconv.REQUEST_TEMPERATURE, ("temperature",), (int, float)),
    (semconv.REQUEST_TOP_P, ("topP", "top_p"), (int, float)),
    (semconv.REQUEST_TOP_K, ("topK", "top_k"), (int, float)),
    (semconv.REQUEST_MAX_TOKENS, ("maxOutputTokens", "max_output_tokens"), int),
    (semconv.REQUEST_SEED, ("seed",), int),
    (semconv.REQUEST_FREQUENCY_PENALTY, ("frequencyPenalty", "frequency_penalty"), (int, float)),
    (semconv.REQUEST_PRESENCE_PENALTY, ("presencePenalty", "presence_penalty"), (int, float)),
    (semconv.REQUEST_REASONING_LEVEL, ("thinking_level",), str),
)

_OUTPUT_TYPES: Final = {"application/json": "json", "text/x.enum": "json", "text/plain": "text"}


def content_attributes(body: Body) -> Mapping[str, Any]:
    """Span attributes of a request to ``generateContent``."""
    config = body.get("generationConfig")
    attributes = config_attributes(config)
    if (level := text(get(config, "thinkingConfig", "thinkingLevel"))) is not None:
        attributes[semconv.REQUEST_REASONING_LEVEL] = level.lower()
    if (choices := count(get(config, "candidateCount"))) is not None and choices > 1:
        attributes[semconv.REQUEST_CHOICE_COUNT] = choices
    if (form := _OUTPUT_TYPES.get(str(get(config, "responseMimeType")))) is not None:
        attributes[semconv.OUTPUT_TYPE] = form
    return attributes


def streamed_content_attributes(body: Body) -> Mapping[str, Any]:
    """The same of ``streamGenerateContent``."""
    return {**content_attributes(body), semconv.REQUEST_STREAM: True}


def config_attributes(config: Any) -> dict[str, Any]:
    """Span attributes of a ``generationConfig``, as JSON or as the arguments of an SDK."""
    attributes: dict[str, Any] = {}
    if config is None:
        return attributes
    told = fields(config)
    for name, places, kind in _CONFIG:
        for field in places:
            value = told.get(field)
            if value is not None and isinstance(value, kind) and not isinstance(value, bool):
                attributes[name] = value
    for field in ("stopSequences", "stop_sequences"):
        stops = told.get(field)
        if isinstance(stops, list) and stops and all(isinstance(stop, str) for stop in stops):
            attributes[semconv.REQUEST_STOP_SEQUENCES] = tuple(stops)
    return attributes


def embedding_attributes(body: Body) -> Mapping[str, Any]:
    """Span attributes of a request for embeddings."""
    requests = _listed(body.get("requests"))
    for source in (body, body.get("parameters"), body.get("embedContentConfig"), requests[0] if requests else None):
        if (width := count(get(source, "outputDimensionality"))) is not None:
            return {semconv.EMBEDDINGS_DIMENSION_COUNT: width}
    return {}


def image_attributes(body: Body) -> Mapping[str, Any]:
    """Span attributes of a request for images."""
    images = count(get(body, "parameters", "sampleCount"))
    return {semconv.REQUEST_CHOICE_COUNT: images} if images is not None and images > 1 else {}


def interaction_attributes(body: Body) -> Mapping[str, Any]:
    """Span attributes of a request for an interaction."""
    attributes = config_attributes(body.get("generation_config"))
    if body.get("stream") is True:
        attributes[semconv.REQUEST_STREAM] = True
    if (previous := text(body.get("previous_interaction_id"))) is not None:
        attributes[semconv.REQUEST_PREVIOUS_RESPONSE_ID] = previous
    return attributes


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
