"""What was said, in the shape of the GenAI conventions: how the messages of an API are read, off bodies and streams.
See ``capture.py`` for whether that is done, and ``recording.py`` for what becomes of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tokenbudget_otel.instrumentation.content_parts import Messages, tool_definitions
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get
from tokenbudget_otel.instrumentation.streams import EVERY_EVENT, StreamFormat, StreamReader

ITEM_BYTES: Final = 256
"""What an item of a stream is taken for that does not say how large it is."""


@dataclass(frozen=True, slots=True)
class Content:
    """How the messages of one API are read. None of it changes what it reads, or uses up an iterator.

    Attributes:
        request: system instructions (where they stand apart from the messages) and input messages, from the request's
            body.
        response: output messages, from the response.
        events: output messages, from the events of a stream.
        tools: definitions of tools, from the request's body.
    """

    request: Callable[[Any], tuple[Messages, Messages]]
    response: Callable[[Any], Messages]
    events: Callable[[list[Any]], Messages]
    tools: Callable[[Any], Messages] = tool_definitions


class Kept:
    """The events of a stream, as far as there is room for them.

    Args:
        limit: bytes that are kept. What comes after is counted, and left out.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._events: list[Any] = []
        self._missing = 0
        self._missing_bytes = 0

    def add(self, event: Any, size: int) -> None:
        """Keep an event."""
        if self._missing or size > self._room:
            self._missing += 1
            self._missing_bytes += size
            return
        self._room -= size
        self._events.append(event)

    def output(self, content: Content, facts: ResponseFacts) -> Messages:
        """The output messages, and in the last of them how much is missing."""
        messages = content.events([parsed(event) if isinstance(event, bytes) else event for event in self._events])
        if self._missing:
            missing = f"[{self._missing} events of the stream, {self._missing_bytes} bytes left out]"
            if not messages:
                messages = [{"role": "assistant", "parts": [], "finish_reason": None}]
            messages[-1]["parts"].append({"type": "truncated", "content": missing})
            reason = facts.finish_reasons[-1] if facts.finish_reasons else None
            messages[-1]["finish_reason"] = messages[-1].get("finish_reason") or reason
        return messages


def parsed(data: str | bytes) -> Any:
    """JSON, read; nothing where it is cut in its middle, or broken where it was made."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def item_size(item: Any) -> int:
    """Bytes of an item that an SDK hands over, as far as it says so."""
    for data in (get(item, "body"), get(item, "chunk", "bytes")):
        if isinstance(data, str | bytes):
            return len(data)
    return ITEM_BYTES


class CapturingReader:
    """A stream reader that also keeps events, as bytes: they are read when the stream has ended."""

    def __init__(self, inner: StreamReader, content: Content, kept_bytes: int) -> None:
        self._inner = inner
        self._content = content
        self._kept = Kept(kept_bytes)

    def event(self, data: bytes) -> bool:
        if data.startswith(b"{"):
            self._kept.add(data, len(data))
        return self._inner.event(data)

    @property
    def complete(self) -> bool:
        """As the inner reader has it."""
        return self._inner.complete

    @property
    def usage_is_final(self) -> bool:
        """As the inner reader has it."""
        return self._inner.usage_is_final

    @property
    def facts(self) -> ResponseFacts:
        """The inner reader's; its output is put together when it is asked for."""
        facts = self._inner.facts
        facts.output = functools.partial(self._kept.output, self._content)
        return facts


def capturing(form: StreamFormat, content: Content, kept_bytes: int) -> StreamFormat:
    """A stream format that keeps what was said, as far as there is room for it."""
    return StreamFormat(
        EVERY_EVENT, (b"data:",), form.text, lambda hide: CapturingReader(form.reader(hide), content, kept_bytes)
    )
