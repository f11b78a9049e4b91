"""Together: the instrumentor and its endpoints.

    >>> from tokenbudget_otel.instrumentation.together import TogetherInstrumentor
    >>> TogetherInstrumentor().instrument()
    >>> TogetherInstrumentor().uninstrument()

The wire format is OpenAI's for the most part. A stream ends with its usage without being asked.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.instrumentor import SdkInstrumentor
from tokenbudget_otel.instrumentation.openai import ENDPOINTS as OPENAI_ENDPOINTS
from tokenbudget_otel.instrumentation.openai import MEDIA
from tokenbudget_otel.instrumentation.openai_streams import CHUNK_HINTS, CHUNK_MARKS, CHUNK_VOID, DONE, ChunkReader
from tokenbudget_otel.instrumentation.openai_usage import chat_usage, image_usage
from tokenbudget_otel.instrumentation.sizing import measure
from tokenbudget_otel.instrumentation.stainless import StainlessDoor
from tokenbudget_otel.instrumentation.streams import StreamFormat
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, Size
from tokenbudget_otel.usage import TokenUsage

_TOKEN: Final = re.compile(rb'"token":\s*\{[^{}]*?"text":\s*"((?:[^"\\]|\\.)*)"')
"""Text of completions, which comes twice in each chunk: as a choice, and as a token."""

_SOUND_MARKS: Final = re.compile(rb'"error":\s*[{"]|data:\s*\[DONE\]')


class SoundReader:
    """Speech as events. None of them has usage: it is billed by the characters of the request."""

    def __init__(self, body: Body) -> None:
        self.complete = False
        self.facts = _spoken(body)
        self.usage_is_final = self.facts.usage is not None

    def event(self, data: bytes) -> bool:
        if data.startswith(DONE):
            self.complete = True
        return False


def _spoken(body: Body) -> ResponseFacts:
    said = body.get("input")
    return ResponseFacts(usage=TokenUsage(input_characters=len(said)) if isinstance(said, str) else None)


def _sound(body: Body, _provider: str) -> StreamFormat:
    return StreamFormat(_SOUND_MARKS, (b'"error"', b"[DONE]"), _TOKEN, lambda _hide: SoundReader(body))


def _completion_chunks(_body: Body, provider: str) -> StreamFormat:
    return StreamFormat(CHUNK_MARKS, CHUNK_HINTS, _TOKEN, functools.partial(ChunkReader, provider), CHUNK_VOID)


def _rerank_size(body: Body, _options: Any) -> Size:
    query, documents = body.get("query"), body.get("documents")
    extent, once = measure(query, documents), measure(query)
    # The query is read with every document.
    pairs = len(documents) if isinstance(documents, list) else 1
    bound, again = extent.bound(MEDIA), once.bound(MEDIA)
    most = None if bound is None or again is None else bound + pairs * again
    return Size(extent.likely(MEDIA) + pairs * once.likely(MEDIA), most, expected_output_tokens=0, text_only=True)


def _no_attributes(_body: Body) -> Mapping[str, Any]:
    return {}


def _read_rerank(data: Any, _body: Body, provider: str) -> ResponseFacts:
    usage = chat_usage(get(data, "usage"), provider)
    return ResponseFacts(id=text(get(data, "id")), model=text(get(data, "model")), usage=usage)


def _image_size(body: Body, _options: Any) -> Size:
    images = body.get("n")
    count = images if isinstance(images, int) and images > 0 else 1
    return Size(0, 0, expected_output_tokens=0, extra=TokenUsage(output_images=count))


def _read_images(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    return ResponseFacts(id=text(get(data, "id")), model=text(get(data, "model")), usage=image_usage(data))


_IMAGES: Final = replace(OPENAI_ENDPOINTS["post", "/images/generations"], size=_image_size, read=_read_images)

ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "/v1/chat/completions": OPENAI_ENDPOINTS["post", "/chat/completions"],
    "/v1/completions": replace(OPENAI_ENDPOINTS["post", "/completions"], stream=_completion_chunks),
    "/v1/embeddings": OPENAI_ENDPOINTS["post", "/embeddings"],
    "/v1/rerank": Endpoint("rerank", _rerank_size, _no_attributes, _read_rerank),
    "/v1/images/generations": _IMAGES,
    "/v1/audio/speech": replace(OPENAI_ENDPOINTS["post", "/audio/speech"], stream=_sound),
    "/v1/audio/transcriptions": OPENAI_ENDPOINTS["post", "/audio/transcriptions"],
    "/v1/audio/translations": OPENAI_ENDPOINTS["post", "/audio/translations"],
}
"""Every endpoint that bills, by its path."""


class TogetherDoor(StainlessDoor):
    """The Together SDK's door."""

    provider = "together"
    clients = ("Together", "AsyncTogether")

    def endpoint(self, method: str, url: str) -> Endpoint | None:
        # With a base URL of the program's own, the SDK leaves the version to it.
        path = url.partition("?")[0]
        if method.lower() != "post":
            return None
        return ENDPOINTS.get(path) or ENDPOINTS.get("/v1" + path)


class TogetherInstrumentor(SdkInstrumentor):
    """Meters the ``together`` SDK.

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider`` and ``former_names`` (set attributes
    under their former names too).

    >>> TogetherInstrumentor().instrument()
    >>> TogetherInstrumentor().uninstrument()
    """

    sdk = "together"
    versions = ">=2,<4"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return TogetherDoor(telemetry, meter)
