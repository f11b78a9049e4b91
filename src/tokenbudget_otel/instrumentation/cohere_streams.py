"""How Cohere's streams are read: server-sent events (version 2), or a line of JSON for each event (version 1)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from tokenbudget_otel.instrumentation.cohere_usage import billed_usage, finish_reasons
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, text
from tokenbudget_otel.instrumentation.streams import StreamFormat

_MARKS: Final = re.compile(rb'"type":\s*"message-(?:start|end)"')
_TEXT: Final = re.compile(rb'"(?:text|thinking|tool_plan|arguments)":\s*"((?:[^"\\]|\\.)+)"')
_LINE_MARKS: Final = re.compile(rb'"event_type":\s*"stream-(?:start|end)"')
_LINE_TEXT: Final = re.compile(rb'"event_type":\s*"text-generation"[^{}]*?"text":\s*"((?:[^"\\]|\\.)*)"')


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None  # the last, which is "[DONE]", or broken where it was made: the SDK passes it over


class MessageReader:
    """Events of a message: the last one has the usage."""

    def __init__(self, _hide_usage: bool = False) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()

    def event(self, data: bytes) -> bool:
        event = _parsed(data)
        kind = get(event, "type")
        if kind == "message-start":
            self.facts.id = text(get(event, "id"))
        elif kind == "message-end":
            self.complete = True
            delta = get(event, "delta")
            self._end(get(delta, "finish_reason"), get(delta, "usage"), get(delta, "error"))
        return False

    def _end(self, reason: Any, usage: Any, error: Any) -> None:
        facts = self.facts
        facts.finish_reasons = finish_reasons(reason)
        if (known := billed_usage(usage)) is not None:
            facts.usage = known
            self.usage_is_final = known.output_tokens is not None
        if text(error) is not None or (isinstance(reason, str) and reason.startswith(("ERROR", "TIMEOUT"))):
            facts.error = (str(reason or "stream_error").lower(), text(error) or "The stream ended with an error.")


class LineReader(MessageReader):
    """Events of version 1: the last one holds the whole answer."""

    def event(self, data: bytes) -> bool:
        event = _parsed(data)
        if get(event, "event_type") == "stream-end":
            self.complete = True
            response = get(event, "response")
            self.facts.id = text(get(response, "response_id"))
            meta = get(response, "meta")
            self._end(get(event, "finish_reason"), _on_bedrock(event) if meta is None else meta, None)
        return False


def _on_bedrock(event: Any) -> dict[str, Any]:
    """Bedrock counts a stream itself, and adds that to its last event."""
    metrics = get(event, "amazon-bedrock-invocationMetrics")
    tokens = {"input_tokens": get(metrics, "inputTokenCount"), "output_tokens": get(metrics, "outputTokenCount")}
    return {"tokens": tokens}


EVENTS: Final = StreamFormat(_MARKS, (b"message-",), _TEXT, MessageReader)
LINES: Final = StreamFormat(_LINE_MARKS, (b"stream-",), _LINE_TEXT, LineReader)


def as_events(decode: Callable[[bytes], bytes] | None) -> Callable[[bytes], bytes]:
    """What makes server-sent events of lines of JSON, in any pieces."""
    opened = False

    def made(data: bytes) -> bytes:
        nonlocal opened
        plain = data if decode is None else decode(data)
        start, opened = (b"" if opened else b"data: "), True
        return start + plain.replace(b"\n", b"\n\ndata: ")

    return made
