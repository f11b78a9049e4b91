"""How OpenAI's event streams are read: chat and completions chunks, Responses events, audio and image events."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.facts import ResponseFacts, fields, get, listed, text
from tokenbudget_otel.instrumentation.openai_usage import (
    audio_usage,
    chat_usage,
    image_usage,
    made_images,
    reported_cost,
    response_usage,
)

DONE: Final = b"[DONE]"

CHUNK_MARKS: Final = re.compile(
    rb'"usage":\s*\{|"finish_reason":\s*"|"error":\s*[{"]|"x_groq":|data:\s*\[DONE\]'
)  # fmt: skip
CHUNK_TEXT: Final = re.compile(
    rb'"(?:content|text|refusal|reasoning|reasoning_content|arguments)":\s*"((?:[^"\\]|\\.)*)"'
)

CHUNK_HINTS: Final = (b'"usage"', b'_reason":"', b'_reason": "', b'"error"', b"x_groq", b"[DONE]")

CHUNK_VOID: Final = (b'"usage":null', b'"usage": null')

RESPONSE_MARKS: Final = re.compile(
    rb'"type":\s*"(?:error|response\.(?:created|queued|completed|failed|incomplete|cancelled))"'
)
RESPONSE_TEXT: Final = re.compile(rb'"delta":\s*"((?:[^"\\]|\\.)*)"')

RESPONSE_HINTS: Final = (b'"response"', b'"error"')

MEDIA_MARKS: Final = re.compile(rb'"type":\s*"(?:error|[\w.]+\.(?:done|completed))"|"error":\s*\{')

MEDIA_HINTS: Final = (b'.done"', b'.completed"', b'"error"')


def stream_error(error: Any) -> tuple[str, str]:
    """Type and message of an error that came inside a stream."""
    kind = text(get(error, "code")) or text(get(error, "type")) or "stream_error"
    return kind, text(get(error, "message")) or str(error)


def note_upstream(data: Any, provider: str, facts: ResponseFacts) -> None:
    """Who answered behind a gateway that says so."""
    if provider == "openrouter" and (upstream := text(get(data, "provider"))) is not None:
        facts.attributes["tokenbudget.upstream_provider"] = upstream


class ChunkReader:
    """Chat completions and legacy completions: chunks of choices, the usage on the last one.

    Args:
        provider: who sends them; the meaning of some counts depends on it.
        hide_usage: whether the chunk that only our ``include_usage`` brought is withheld.
        searches: web searches that the request makes and the usage does not tell.
    """

    def __init__(self, provider: str, hide_usage: bool, searches: int = 0) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()
        self._provider = provider
        self._hide_usage = hide_usage
        self._searches = searches

    def event(self, data: bytes) -> bool:
        if data.startswith(DONE):
            self.complete = True
            return False
        chunk = json.loads(data)
        if not isinstance(chunk, dict):
            return False
        facts = self.facts
        if error := chunk.get("error"):
            facts.error = stream_error(error)
            return False
        facts.id = facts.id or text(chunk.get("id"))
        facts.model = text(chunk.get("model")) or facts.model
        facts.tier = text(chunk.get("service_tier")) or facts.tier
        if (fingerprint := text(chunk.get("system_fingerprint"))) is not None:
            facts.attributes[semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT] = fingerprint
        note_upstream(chunk, self._provider, facts)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if (reason := text(get(choice, "finish_reason"))) is not None:
                facts.finish_reasons += (reason,)
                self.complete = True
        usage = chunk.get("usage") or get(chunk.get("x_groq"), "usage") or _usage_of_choice(choices)
        if usage is not None and (read := chat_usage(usage, self._provider)):
            facts.usage = read.replace(web_searches=self._searches) if self._searches else read
            facts.reported_nano_usd = reported_cost(usage, self._provider)
            # Some hosts send a running count on every chunk: it is final with the answer, or on a chunk of its own.
            self.complete = self.complete or choices == []
            self.usage_is_final = self.complete
            return self._hide_usage and choices == []
        return False


def _usage_of_choice(choices: Any) -> Any:
    """Moonshot's place for the usage of a stream that did not ask for it."""
    return get(choices[0], "usage") if isinstance(choices, list) and choices else None


class ResponseEventReader:
    """The Responses API: typed events, the whole response with its usage in the last one.

    Args:
        provider: who sends them; the meaning of some counts depends on it.
    """

    def __init__(self, provider: str, _hide_usage: bool = False) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()
        self._provider = provider

    def event(self, data: bytes) -> bool:
        event = json.loads(data)
        kind = get(event, "type")
        if kind == "error":
            self.facts.error = stream_error(get(event, "error") or event)
            return False
        response = get(event, "response")
        if response is None:
            return False
        self.facts = read_response(response, self.facts, self._provider)
        if kind in ("response.created", "response.queued"):
            return False
        self.complete = True
        self.usage_is_final = self.facts.usage is not None
        return False


class MediaEventReader:
    """Speech, transcription and image streams: the last event has the usage."""

    def __init__(self, operation: str) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()
        self._read = image_usage if operation == "image_generation" else audio_usage

    def event(self, data: bytes) -> bool:
        if data.startswith(DONE):
            return False
        event = json.loads(data)
        if (error := get(event, "error")) is not None or get(event, "type") == "error":
            self.facts.error = stream_error(error or event)
            return False
        if str(get(event, "type")).endswith((".done", ".completed")):
            self.complete = True
            if (usage := self._read(event)) is not None:
                self.facts.usage = usage
                self.usage_is_final = True
        return False


def read_response(response: Any, facts: ResponseFacts | None = None, provider: str = "openai") -> ResponseFacts:
    """A response of the Responses API."""
    facts = facts or ResponseFacts()
    said = fields(response)
    facts.id = text(said.get("id")) or facts.id
    facts.model = text(said.get("model")) or facts.model
    facts.tier = text(said.get("service_tier")) or facts.tier
    facts.status = status = text(said.get("status")) or facts.status
    facts.background = said.get("background") is True or facts.background
    facts.usage = response_usage(response, provider) or facts.usage
    facts.reported_nano_usd = reported_cost(said.get("usage"), provider)
    note_upstream(response, provider, facts)
    if said.get("tool_usage") is not None:
        facts.more = made_images(response) or facts.more
    for item in listed(said.get("output")):
        if fields(item).get("type") == "compaction":
            facts.attributes[semconv.CONVERSATION_COMPACTED] = True
    if status == "failed":
        facts.error = stream_error(said.get("error") or "the response failed")
    if status in ("completed", "incomplete"):
        facts.finish_reasons = (text(get(said.get("incomplete_details"), "reason")) or "stop",)
    return facts
