"""``application/vnd.amazon.eventstream``, the envelope in which Bedrock streams messages, as server-sent events."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Final

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_PRELUDE: Final = 12  # total length, length of the headers, checksum
_CHECKSUM: Final = 4


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
            payload = json.loads(bytes(buffer[start : total - _CHECKSUM]))
            del buffer[:total]
            if isinstance(payload, dict) and isinstance(inner := payload.get("bytes"), str):
                events.append(b"data: " + base64.b64decode(inner) + b"\n\n")
        return b"".join(events)

    return unpack
