"""Groq: the instrumentor and its endpoints.

    >>> from tokenbudget_otel.instrumentation.groq import GroqInstrumentor
    >>> GroqInstrumentor().instrument()
    >>> GroqInstrumentor().uninstrument()

The wire format is OpenAI's. A stream reports its usage in the last chunk (``x_groq``) without being asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint
from tokenbudget_otel.instrumentation.facts import ResponseFacts
from tokenbudget_otel.instrumentation.instrumentor import SdkInstrumentor
from tokenbudget_otel.instrumentation.openai import ENDPOINTS as OPENAI_ENDPOINTS
from tokenbudget_otel.instrumentation.openai_usage import audio_usage
from tokenbudget_otel.instrumentation.stainless import StainlessDoor
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter

LEAST_SECONDS: Final = 10
"""A recording is billed as one of ten seconds at least (Groq, "Speech to Text")."""


def _heard(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    usage = audio_usage(data)
    if usage is not None and usage.input_audio_seconds is not None:
        usage = usage.replace(input_audio_seconds=max(usage.input_audio_seconds, LEAST_SECONDS))
    return ResponseFacts(usage=usage)


_AUDIO: Final = {
    path: replace(OPENAI_ENDPOINTS["post", path], read=_heard)
    for path in ("/audio/transcriptions", "/audio/translations")
}

ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "/openai/v1" + path: _AUDIO.get(path, OPENAI_ENDPOINTS["post", path])
    for path in (
        "/chat/completions",
        "/responses",
        "/embeddings",
        "/audio/transcriptions",
        "/audio/translations",
        "/audio/speech",
    )
}
"""Every endpoint that bills, by its path."""


class GroqDoor(StainlessDoor):
    """The Groq SDK's door."""

    provider = "groq"
    clients = ("Groq", "AsyncGroq")

    def endpoint(self, method: str, url: str) -> Endpoint | None:
        return ENDPOINTS.get(url.partition("?")[0]) if method.lower() == "post" else None


class GroqInstrumentor(SdkInstrumentor):
    """Meters the ``groq`` SDK.

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider`` and ``former_names`` (set attributes
    under their former names too).

    >>> GroqInstrumentor().instrument()
    >>> GroqInstrumentor().uninstrument()
    """

    sdk = "groq"
    versions = ">=1,<2"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return GroqDoor(telemetry, meter)
