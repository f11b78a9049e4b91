"""Server-sent events: how frames of a stream are written."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple


class Frame(NamedTuple):
    """One event of a stream, ready to be sent."""

    data: bytes
    content: bool = False
    """Whether it carries a chunk of the answer; faults and pauses count these."""


def dump(value: Any) -> bytes:
    """A value as compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def data_frame(value: Any, content: bool = False) -> Frame:
    """An event without a name, as OpenAI's chat completions send them.

    Example:
        >>> data_frame({"a": 1}).data
        b'data: {"a":1}\\n\\n'
    """
    return Frame(b"data: " + dump(value) + b"\n\n", content)


def event_frame(value: dict[str, Any], content: bool = False) -> Frame:
    """An event named by its own ``type``, as Anthropic and OpenAI's responses send them.

    Example:
        >>> event_frame({"type": "ping"}).data
        b'event: ping\\ndata: {"type":"ping"}\\n\\n'
    """
    return Frame(b"event: " + value["type"].encode() + b"\ndata: " + dump(value) + b"\n\n", content)


DONE: Final = Frame(b"data: [DONE]\n\n")
BROKEN: Final = Frame(b'data: {"id": "broken", "choices": [{"delta": {"content": "\n\n')
