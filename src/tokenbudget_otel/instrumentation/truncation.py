"""Content cut to the size that an attribute may have, so that it still reads as what it is.

Of what is too long, the longest texts are cut first, each to the same length; where that does not do, what stands in
the middle is left out. What is missing is said in its place, in bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

Items = list[dict[str, Any]]
"""Messages, parts of instructions, or definitions of tools."""

SHORTEST: Final = 64
"""Bytes that are left of a text. Where texts would have to be shorter, whole messages are left out instead."""

_MARK: Final = "…[{} bytes left out]"
_MARK_BYTES: Final = len(_MARK.format(10**12).encode())
_FIXED: Final = frozenset(("type", "role", "finish_reason"))


def written(items: Any) -> str:
    """Content as the JSON that an attribute holds."""
    return json.dumps(items, ensure_ascii=False, separators=(",", ":"))


def size_of(value: Any) -> int:
    """Bytes of ``value`` as JSON."""
    return bytes_of(written(value))


def cut(text: str, most: int) -> str:
    """The beginning of ``text``, at most ``most`` bytes of it, and how much is missing.

    >>> cut("Grüße aus Köln", 8)
    'Grüße …[9 bytes left out]'
    >>> cut("short", 8)
    'short'
    """
    size = bytes_of(text)
    if size <= most:
        return text
    kept = text[:most].encode()[:most].decode(errors="ignore")  # a character that is cut in its middle is left out
    return kept + _MARK.format(size - bytes_of(kept))


def bytes_of(text: str) -> int:
    """Bytes of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def fitted(items: Items, limit: int | None) -> Items:
    """``items``, of which the JSON has no more than ``limit`` bytes; nothing where not even the marks have room.

    >>> long = [{"role": "user", "parts": [{"type": "text", "content": "word " * 100}]}]
    >>> fitted(long, 200)[0]["parts"][0]["content"][-23:]
    'd …[385 bytes left out]'
    >>> size_of(fitted(long, 200)) <= 200
    True
    """
    if limit is None or size_of(items) <= limit:
        return items
    low, high = SHORTEST, limit
    shortest = _shortened(items, low)
    if size_of(shortest) > limit:
        return _without_middle(shortest, limit)
    found = shortest
    while high - low > 16:  # no byte of the limit is worth another look at all of it
        middle = (low + high) // 2
        tried = _shortened(items, middle)
        if size_of(tried) <= limit:
            low, found = middle, tried
        else:
            high = middle
    return found


def _shortened(items: Items, most: int) -> Items:
    return [_shortened_item(item, most) for item in items]


def _shortened_item(item: dict[str, Any], most: int) -> dict[str, Any]:
    short: dict[str, Any] = {}
    for name, value in item.items():
        if name == "parts" and isinstance(value, list):
            short[name] = [_shortened_item(part, most) for part in value]
        elif name in _FIXED or not isinstance(value, str | dict | list):
            short[name] = value
        else:
            # What a tool was given or gave is cut as the JSON that it is.
            text = value if isinstance(value, str) else written(value)
            short[name] = cut(text, most) if bytes_of(text) > most + _MARK_BYTES else value
    return short


def _without_middle(items: Items, limit: int) -> Items:
    """The first and the last of ``items``, as many as there is room for, and a word of those between them."""
    if not items:
        return []
    if len(items) == 1 and isinstance(items[0].get("parts"), list):
        # One message of many parts.
        bare = {**items[0], "parts": []}
        parts = _without_middle(items[0]["parts"], limit - size_of([bare]))
        return [{**bare, "parts": parts}] if parts else []
    sizes = [size_of(item) + 1 for item in items]  # and a comma
    # Which of them is the first to be left out, and so what stands for them, is known in the end.
    room = limit - 2 - max(size_of(_omission(item, len(items), sum(sizes))) for item in items) - 1
    if room < 0:
        return []
    first, last = 0, len(items)
    for place in _turns(len(items)):
        if sizes[place] > room:
            break
        room -= sizes[place]
        if place == first:
            first += 1
        else:
            last -= 1
    missing = _omission(items[first], last - first, sum(sizes[first:last]))
    return [*items[:first], missing, *items[last:]]


def _turns(count: int) -> Iterable[int]:
    """The last place, the first, the last but one …: what was said last matters most."""
    first, last = 0, count - 1
    while first <= last:
        yield last
        if first < last:
            yield first
        first, last = first + 1, last - 1


def _omission(sample: dict[str, Any], count: int, size: int) -> dict[str, Any]:
    """What stands in the place of items that are left out, and is one of their kind: of that of the first."""
    kind = "messages" if "parts" in sample else "parts" if "content" in sample or "id" in sample else "definitions"
    said = {"type": "truncated", "content": f"[{count} {kind}, {size} bytes left out]"}
    if "parts" not in sample:
        return said if kind == "parts" else {"type": "truncated", "name": said["content"]}
    ended = {"finish_reason": sample["finish_reason"]} if "finish_reason" in sample else {}
    return {"role": sample.get("role"), "parts": [said], **ended}
