"""How Mistral's event streams are read: completion chunks, and the events of conversations and audio."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.mistralai_usage import (
    completion_usage,
    conversation_usage,
    transcription_usage,
)
from tokenbudget_otel.instrumentation.openai_streams import CHUNK_HINTS, CHUNK_VOID, DONE
from tokenbudget_otel.instrumentation.streams import StreamFormat
from tokenbudget_otel.usage import TokenUsage

_CHUNK_MARKS: Final = re.compile(
    rb'"usage":\s*\{|"finish_reason":\s*"|"error":\s*[{"]|"object":\s*"error"|data:\s*\[DONE\]'
)
_TEXT: Final = re.compile(rb'"(?:content|text|arguments)":\s*"((?:[^"\\]|\\.)*)"')
_EVENT_MARKS: Final = re.compile(rb'"type":\s*"conversation\.response\.')
_NAMED_MARKS: Final = re.compile(rb'"type":\s*"conversation\.response\.|"model":\s*"')
_AUDIO_MARKS: Final = re.compile(rb'"type":\s*"[\w.]+\.done"|"(?:object|type)":\s*"error"')


def error_of(event: Any) -> tuple[str, str]:
    """Type and message of an error that came inside a stream."""
    inner = get(event, "error") or event
    kind = text(get(inner, "type"))
    code = get(inner, "code")
    if kind is None or kind.startswith("conversation."):
        kind = str(code) if isinstance(code, str | int) else "stream_error"
    return kind, text(get(inner, "message")) or str(inner)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None  # cut in its middle, or broken where it was made: the SDK tells the program


class CompletionReader:
    """Chunks of a completion: the usage is on the last one."""

    def __init__(self, _hide_usage: bool = False) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()

    def event(self, data: bytes) -> bool:
        if data.startswith(DONE):
            self.complete = True
            return False
        chunk = _parsed(data)
        facts = self.facts
        if get(chunk, "error") or get(chunk, "object") == "error":
            facts.error = error_of(chunk)
            return False
        facts.id = facts.id or text(get(chunk, "id"))
        facts.model = text(get(chunk, "model")) or facts.model
        choices = get(chunk, "choices")
        for choice in choices if isinstance(choices, list) else ():
            if (reason := text(get(choice, "finish_reason"))) is not None:
                facts.finish_reasons += (reason,)
                self.complete = True
        if (usage := completion_usage(get(chunk, "usage"))) is not None:
            facts.usage = usage
            facts.tier = text(get(chunk, "usage", "service_tier")) or facts.tier
            self.usage_is_final = usage.output_tokens is not None
        return False


class ConversationReader:
    """Events of a conversation: it opens with its id and ends with the usage."""

    def __init__(self, _hide_usage: bool = False) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()

    def event(self, data: bytes) -> bool:
        event = _parsed(data)
        facts, kind = self.facts, get(event, "type")
        facts.model = text(get(event, "model")) or facts.model
        if (conversation := text(get(event, "conversation_id"))) is not None:
            facts.attributes[semconv.CONVERSATION_ID] = conversation
        if kind == "conversation.response.error":
            facts.error = error_of(event)
        elif kind == "conversation.response.done":
            self.complete = True
            if (usage := conversation_usage(get(event, "usage"))) is not None:
                facts.usage = usage
                self.usage_is_final = usage.output_tokens is not None
        return False


class AudioReader:
    """Speech and transcription.

    Args:
        known: what is billed, where the request tells it (speech).
    """

    def __init__(self, known: TokenUsage | None) -> None:
        self.complete = False
        self.usage_is_final = known is not None
        self.facts = ResponseFacts(usage=known)

    def event(self, data: bytes) -> bool:
        if data.startswith(DONE):
            return False
        event = _parsed(data)
        facts = self.facts
        if get(event, "error") or "error" in (get(event, "object"), get(event, "type")):
            facts.error = error_of(event)
        elif str(get(event, "type")).endswith(".done"):
            self.complete = True
            facts.model = text(get(event, "model"))
            if not self.usage_is_final and (usage := transcription_usage(get(event, "usage"))) is not None:
                facts.usage = usage
                self.usage_is_final = True
        return False


COMPLETION: Final = StreamFormat(_CHUNK_MARKS, (*CHUNK_HINTS, b'"object":"error', b'"object": "error'), _TEXT,
                                 CompletionReader, CHUNK_VOID)  # fmt: skip
CONVERSATION: Final = StreamFormat(_EVENT_MARKS, (b'"conversation.response.',), _TEXT, ConversationReader)
AGENT_CONVERSATION: Final = StreamFormat(
    _NAMED_MARKS, (b'"conversation.response.', b'"model"'), _TEXT, ConversationReader
)
"""A conversation whose request names no model: its events do."""


def audio(known: TokenUsage | None = None) -> StreamFormat:
    """Streams of audio or about it, given what the request tells of their usage."""
    return StreamFormat(_AUDIO_MARKS, (b'.done"', b'"error"'), _TEXT, lambda _hide: AudioReader(known))
