"""OTLP requests as bytes: how many items are in one, two halves of it, and what an answer rejects.

The requests of all signals are laid out alike (``resource_* = 1 { resource = 1, scope_* = 2 { scope = 1, items = 2,
schema_url = 3 }, schema_url = 3 }``), so a few lines over the wire format of protobuf do for all, and what they do not
know of stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

_RESOURCES: Final = 1
_SCOPES: Final = 2
_ITEMS: Final = 2


class _MalformedError(ValueError):
    """No protobuf."""


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise _MalformedError


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Each field: its number, where it begins, where its content begins, where it ends, and its value if a number."""
    while at < end:
        start = at
        key, at = _varint(data, at, end)
        kind, value, content = key & 7, 0, at
        if kind == 2:
            length, content = _varint(data, at, end)
            at = content + length
        elif kind == 0:
            value, at = _varint(data, at, end)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        else:
            raise _MalformedError
        if at > end:
            raise _MalformedError
        yield key >> 3, start, content, at, value


def items_in(body: bytes) -> int:
    """How many spans (metrics, log records) are in a request; 0 if it is not one.

    >>> items_in(bytes.fromhex("0a08 1206 1200 1200 1a00")), items_in(b"what")
    (2, 0)
    """
    count = 0
    try:
        for resource, _, from_resource, to_resource, _ in _fields(body, 0, len(body)):
            if resource != _RESOURCES:
                continue
            for scope, _, from_scope, to_scope, _ in _fields(body, from_resource, to_resource):
                if scope == _SCOPES:
                    count += sum(field[0] == _ITEMS for field in _fields(body, from_scope, to_scope))
    except _MalformedError:
        return 0
    return count


def halves(body: bytes) -> tuple[tuple[bytes, int], tuple[bytes, int]] | None:
    """Two requests with the first and the second half of its items, and how many each has. None if it has fewer than
    two. The same body is always halved alike.

    >>> halves(bytes.fromhex("0a08 1206 1200 1200 1a00"))
    ((b'\\n\\x06\\x12\\x04\\x12\\x00\\x1a\\x00', 1), (b'\\n\\x06\\x12\\x04\\x12\\x00\\x1a\\x00', 1))
    """
    count = items_in(body)
    if count < 2:
        return None
    middle = count // 2
    return (_slice(body, 0, middle), middle), (_slice(body, middle, count), count - middle)


def _slice(body: bytes, first: int, last: int) -> bytes:
    """The request with only the items from ``first`` up to ``last``."""
    index = 0
    request = []
    for resource, start, from_resource, to_resource, _ in _fields(body, 0, len(body)):
        if resource != _RESOURCES:
            request.append(body[start:to_resource])
            continue
        kept_resource, any_in_resource = [], False
        for scope, scope_start, from_scope, to_scope, _ in _fields(body, from_resource, to_resource):
            if scope != _SCOPES:
                kept_resource.append(body[scope_start:to_scope])
                continue
            kept_scope, any_in_scope = [], False
            for field, field_start, _, field_end, _ in _fields(body, from_scope, to_scope):
                if field == _ITEMS:
                    index += 1
                    if not first <= index - 1 < last:
                        continue
                    any_in_scope = True
                kept_scope.append(body[field_start:field_end])
            if any_in_scope:
                any_in_resource = True
                kept_resource.append(_packed(_SCOPES, kept_scope))
        if any_in_resource:
            request.append(_packed(_RESOURCES, kept_resource))
    return b"".join(request)


def _packed(number: int, parts: list[bytes]) -> bytes:
    content = b"".join(parts)
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes((number << 3 | 2,)) + bytes(length) + content


def rejected(answer: bytes) -> tuple[int, str]:
    """How many items a receiver that said yes has rejected all the same, and why. An answer may be protobuf or JSON.

    >>> rejected(bytes.fromhex("0a06 0803 1202 6e6f")), rejected(b"")
    ((3, 'no'), (0, ''))
    >>> rejected(b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}')
    (2, 'too old')
    """
    count, message = 0, b""
    if answer[:1] == b"{":
        return _rejected_in_json(answer)
    try:
        for number, _, start, end, _ in _fields(answer, 0, len(answer)):
            for inner, _, content, stop, value in _fields(answer, start, end) if number == 1 else ():
                if inner == 1:
                    count = value
                elif inner == 2:
                    message = answer[content:stop]
    except _MalformedError:
        return 0, ""
    return count, message.decode(errors="replace")


def _rejected_in_json(answer: bytes) -> tuple[int, str]:
    try:
        partial: Any = json.loads(answer).get("partialSuccess") or {}
        counts = [int(value) for name, value in partial.items() if name.startswith("rejected")]
        return sum(counts), str(partial.get("errorMessage") or "")
    except (ValueError, AttributeError, TypeError):
        return 0, ""
