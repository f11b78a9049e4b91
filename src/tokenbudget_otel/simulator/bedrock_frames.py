"""``application/vnd.amazon.eventstream``: the envelope in which Bedrock sends the events of a stream."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from tokenbudget_otel.simulator.sse import Frame, dump

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_STRING: Final = 7
"""The only type of header that Bedrock sends."""
_PRELUDE: Final = 12
_CHECKSUM: Final = 4


def envelope(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message: its lengths, their checksum, headers, payload, and the checksum of it all.

    Example:
        >>> envelope({":event-type": "chunk"}, b"{}").hex()[:16]
        '0000002600000014'
    """
    packed = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(value)) + value.encode()
        for name, value in headers.items()
    )
    start = struct.pack("!II", _PRELUDE + len(packed) + len(payload) + _CHECKSUM, len(packed))
    whole = start + struct.pack("!I", zlib.crc32(start)) + packed + payload
    return whole + struct.pack("!I", zlib.crc32(whole))


def event(name: str, value: Any, content: bool = False) -> Frame:
    """An event by its name, as ConverseStream sends them."""
    return Frame(envelope(_event_headers(name), dump(value)), content)


def chunk(value: Any, content: bool = False) -> Frame:
    """A piece of a model's own stream, as InvokeModelWithResponseStream sends them."""
    return event("chunk", {"bytes": base64.b64encode(dump(value)).decode(), "p": "abcdefghijk"}, content)


def exception(name: str, message: str) -> Frame:
    """An error inside a stream."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return Frame(envelope(headers, dump({"message": message})))


def _event_headers(name: str) -> dict[str, str]:
    return {":event-type": name, ":content-type": "application/json", ":message-type": "event"}


BROKEN: Final = Frame(envelope(_event_headers("chunk"), b'{"bytes": ""}')[:-_CHECKSUM] + b"oops")
"""A message whose checksum is not that of what it holds: SDKs take broken JSON for a text, and go on."""


def framed(data: bytes) -> bool:
    """Whether ``data`` is one such message."""
    return len(data) >= _PRELUDE + _CHECKSUM and int.from_bytes(data[:4], "big") == len(data)


def reframed(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A message with its JSON changed, and all its lengths and checksums right again. Of a chunk the model's own JSON
    is changed, of other events the payload.

    Example:
        >>> before = event("metadata", {"usage": {}}).data
        >>> after = reframed(before, lambda _: b'{"usage":null}')
        >>> len(after) - len(before)
        2
    """
    start = _PRELUDE + int.from_bytes(data[4:8], "big")
    packed, payload = data[_PRELUDE:start], data[start:-_CHECKSUM]
    value = json.loads(payload)
    if isinstance(value.get("bytes"), str):
        changed = dump(value | {"bytes": base64.b64encode(change(base64.b64decode(value["bytes"]))).decode()})
    else:
        changed = change(payload)
    head = struct.pack("!II", _PRELUDE + len(packed) + len(changed) + _CHECKSUM, len(packed))
    whole = head + struct.pack("!I", zlib.crc32(head)) + packed + changed
    return whole + struct.pack("!I", zlib.crc32(whole))
