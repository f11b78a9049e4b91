"""``application/vnd.amazon.eventstream``, the envelope in which Bedrock streams messages, as server-sent events.

An error inside a stream becomes the ``error`` event by which Anthropic's own API reports one, as in its SDK.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, Final

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_PRELUDE: Final = 12  # total length, length of the headers, checksum
_CHECKSUM: Final = 4
_STRING: Final = 7
"""The type of the only headers that Bedrock sends."""


def unpacker(decode: Callable[[bytes], bytes] | None = None) -> Callable[[bytes], bytes]:
    """What turns the bytes of such a stream, in any pieces, into those of server-sent events."""
    buffer = bytearray()

    def unpack(data: bytes) -> bytes:
        buffer.extend(data if decode is None else decode(data))
        events = []
        while len(buffer) >= _PRELUDE:
            total = int.from_bytes(buffer[:4], "big")
            if total < _PRELUDE + _CHECKSUM:
                raise ValueError(f"a frame of {total} bytes cannot be")
            if len(buffer) < total:
                break
            start = _PRELUDE + int.from_bytes(buffer[4:8], "big")
            headers, body = bytes(buffer[_PRELUDE:start]), bytes(buffer[start : total - _CHECKSUM])
            del buffer[:total]
            if b":exception-type" in headers or b":error-code" in headers:
                events.append(b"data: " + json.dumps(_error(_strings(headers), body)).encode() + b"\n\n")
                continue
            payload = json.loads(body)
            if isinstance(payload, dict) and isinstance(inner := payload.get("bytes"), str):
                events.append(b"data: " + base64.b64decode(inner) + b"\n\n")
        return b"".join(events)

    return unpack


def _error(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    kind = headers.get(":exception-type") or headers.get(":error-code") or "stream_error"
    message = said.get("message") if isinstance(said, dict) else headers.get(":error-message")
    return {"type": "error", "error": {"type": kind, "message": str(message or kind)}}


def _strings(headers: bytes) -> dict[str, str]:
    """Headers that are strings, up to the first that is something else."""
    found: dict[str, str] = {}
    place = 0
    while place < len(headers):
        value = place + 1 + headers[place]
        name = headers[place + 1 : value].decode("utf-8", "replace")
        if headers[value : value + 1] != bytes((_STRING,)):
            break
        place = value + 3 + int.from_bytes(headers[value + 1 : value + 3], "big")
        found[name] = headers[value + 3 : place].decode("utf-8", "replace")
    return found
