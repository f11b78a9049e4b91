"""What the simulated model writes: words by the seed, JSON by the schema, and chunks of both."""

from __future__ import annotations

import itertools
import re
from typing import Any, Final

_SENTENCE: Final = (
    "a small river runs under the old stone bridge and carries leaves past quiet gardens while "
    "people count every boat that turns toward the harbour before evening light fades over roofs"
)
WORDS: Final = _SENTENCE.split()

MOST_WORDS: Final = 4096
"""A text is not made longer than this, however many tokens the behaviour bills."""


def write(seed: int, words: int) -> str:
    """So many words, the same for the same seed.

    Example:
        >>> write(2, 4)
        'River runs under the'
    """
    if words <= 0:
        return ""
    count = len(WORDS)
    text = " ".join([WORDS[(seed + index) % count] for index in range(min(words, MOST_WORDS))])
    return text[0].upper() + text[1:]


def count_words(text: str) -> int:
    """Tokens of a text that the model writes: its words.

    Example:
        >>> count_words("Hello, dear  world.")
        3
    """
    return len(text.split())


_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+")


def cut(text: str, chunks: int | None, tokens_per_chunk: int) -> list[str]:
    """A text in pieces which joined give the text again.

    Args:
        text: the text.
        chunks: how many pieces; None: by size. Never more pieces than characters.
        tokens_per_chunk: words in a piece.

    Example:
        >>> cut("One two three four five.", None, 2)
        ['One two', ' three four', ' five.']
        >>> cut("One two three", 2, 4)
        ['One', ' two three']
        >>> cut("Hello", 3, 4)
        ['H', 'el', 'lo']
    """
    if not text:
        return []
    words: Any = _WORD.findall(text)
    if chunks is None:
        return ["".join(words[start : start + tokens_per_chunk]) for start in range(0, len(words), tokens_per_chunk)]
    if len(words) < chunks:
        words = text
        chunks = min(chunks, len(text))
    marks = [len(words) * index // chunks for index in range(chunks + 1)]
    return ["".join(words[start:end]) for start, end in itertools.pairwise(marks)]


def answer_schema(schema: Any, seed: int = 0, root: Any = None) -> Any:
    """A value that the JSON schema accepts.

    Example:
        >>> answer_schema({"type": "object", "properties": {"n": {"type": "integer"}, "ok": {"type": "boolean"}}})
        {'n': 1, 'ok': True}
    """
    if not isinstance(schema, dict):
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return answer_schema(target, seed, root)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("enum", "examples"):
        if schema.get(name):
            return schema[name][seed % len(schema[name])]
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            return answer_schema(schema[name][0], seed, root)
    if schema.get("allOf"):
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            value = answer_schema(part, seed, root)
            merged |= value if isinstance(value, dict) else {}
        return merged
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: answer_schema(part, seed + place, root) for place, (name, part) in enumerate(properties.items())}
    if kind == "array":
        count = max(1, schema.get("minItems", 1))
        return [answer_schema(schema.get("items", {}), seed + place, root) for place in range(count)]
    if kind in ("integer", "number"):
        return max(1, schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1)
    return {"boolean": True, "null": None}.get(kind, _FORMATS.get(schema.get("format", ""), WORDS[seed % len(WORDS)]))


_FORMATS: Final = {
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "date-time": "2026-01-31T12:00:00Z",
    "email": "someone@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}
