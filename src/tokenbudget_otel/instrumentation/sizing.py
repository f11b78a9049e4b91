"""How large a JSON request is, before it is sent: a likely number of input tokens, and a bound.

The bound rests on two facts. Byte-level tokenizers (those of all providers here) make at most one token
of a byte of UTF-8, and the framing that a provider adds is small and counted generously. Parts that
are not text have bounds of their own; where something cannot be seen at all (a stored conversation, a
file id), there is no bound but the model's context window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

BYTES_PER_TOKEN: Final = 4
"""English text has about four bytes to a token: the usual rule of thumb of the providers' documentation."""

FRAMING_PER_NODE: Final = 12
"""Tokens of framing allowed for every object in a request (a message, a part, a tool, a schema)."""

FRAMING: Final = 1_024
"""Tokens of framing allowed for a request as a whole; tool use alone adds up to about 700 (Anthropic)."""


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """What one part that is not text may come to, likely and at most. ``None``: cannot be told."""

    image: tuple[int, int]
    other: tuple[int, int | None]


@dataclass(slots=True)
class Extent:
    """What a walk through a request found."""

    characters: int = 0
    bytes: int = 0
    nodes: int = 0
    images: int = 0
    others: int = 0
    unseen: bool = False

    def likely(self, media: MediaTokens) -> int:
        """The likely number of input tokens."""
        text = -(-self.characters // BYTES_PER_TOKEN) + 3 * self.nodes
        if not (self.images or self.others):
            return text
        return text + self.images * media.image[0] + self.others * media.other[0]

    def bound(self, media: MediaTokens) -> int | None:
        """A number of input tokens that is not exceeded, or ``None`` where that cannot be told."""
        if self.unseen or (self.others and media.other[1] is None):
            return None
        text = self.bytes + FRAMING_PER_NODE * self.nodes + FRAMING
        if not (self.images or self.others):
            return text
        return text + self.images * media.image[1] + self.others * (media.other[1] or 0)


IMAGE_TYPES: Final = frozenset(("image_url", "input_image", "image"))
CACHE_MARKS: Final = ("cache_control", "cachePoint")
"""The fields by which requests mark cache breakpoints: Anthropic's, and Bedrock's for its own models and Converse."""

OTHER_TYPES: Final = frozenset(("input_audio", "file", "input_file", "document", "audio", "video"))


_PLAIN: Final = frozenset((str, dict, list, tuple, int, float, bool))

_WALKED_AS: Final[tuple[tuple[Any, type], ...]] = (
    (str, str), (Mapping, dict), (list, list), (tuple, tuple), (int, int), (float, float),
)  # fmt: skip
"""What instances of other types are walked as: subclasses, and mappings that are no dictionaries."""


def measure(*parts: Any) -> Extent:
    """Walk through JSON-like values and add up their text. SDK objects, such as the content of an earlier answer,
    are walked as the JSON that they become. Iterators are left alone, they are the program's: with one of them
    there is no bound."""
    return Extent(*_walked(parts))


def input_tokens(media: MediaTokens, *parts: Any) -> tuple[int, int | None, bool, bool]:
    """:meth:`Extent.likely` and :meth:`Extent.bound` of what :func:`measure` finds, whether there is only text in it,
    and whether there is something that cannot be seen.

    >>> input_tokens(MediaTokens((1_000, 5_000), (1_000, None)), ["What is the weather like in Paris?"])
    (9, 1059, True, False)
    """
    found = characters, size, nodes, images, others, unseen = _walked(parts)
    if images or others or unseen:
        extent = Extent(*found)
        return extent.likely(media), extent.bound(media), not (images or others), unseen
    # What nearly all requests are, without the object and its methods.
    return -(-characters // BYTES_PER_TOKEN) + 3 * nodes, size + FRAMING_PER_NODE * nodes + FRAMING, True, False


def _walked(parts: tuple[Any, ...]) -> tuple[int, int, int, int, int, bool]:
    """The fields of an :class:`Extent`."""
    characters = size = nodes = images = others = 0
    unseen = False
    stack: list[Any] = [*parts]
    while stack:
        value = stack.pop()
        if value is None:
            continue
        kind: type | None = type(value)
        if kind not in _PLAIN:
            kind, value = _as_plain(value)
        if kind is str:
            length = len(value)
            characters += length
            size += length if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif kind is dict:
            nodes += 1
            named = value.get("type")
            if named is not None and isinstance(named, str):
                if named in IMAGE_TYPES:
                    images += 1
                    continue
                if named in OTHER_TYPES:
                    others += 1
                    continue
            for name, item in value.items():
                if type(name) is str or isinstance(name, str):
                    size += len(name) + 4
                if type(item) is str:
                    length = len(item)
                    characters += length
                    size += length if item.isascii() else len(item.encode("utf-8", "surrogatepass"))
                else:
                    stack.append(item)
        elif kind is list or kind is tuple:
            size += len(value)
            stack += value
        elif kind is object:
            unseen = True
        elif kind is not None:
            size += 24  # a number or a literal
            characters += 4
    return characters, size, nodes, images, others, unseen


def _as_plain(value: Any) -> tuple[type | None, Any]:
    """What a value that is not of a plain type is walked as: the type, and what of it. ``object`` for what cannot be
    seen, ``None`` for what is not sent."""
    for kind, of in _WALKED_AS:
        if isinstance(value, kind):
            return of, value
    if hasattr(value, "model_dump"):
        return dict, vars(value) | (getattr(value, "__pydantic_extra__", None) or {})
    # What an SDK has for a field that is not sent.
    return (None if type(value).__name__ in ("Omit", "NotGiven") else object), value


def longest_cache_ttl(*parts: Any) -> str:
    """The longest time to live of the prompt-cache writes that a request asks for, ``"none"`` where it asks for none.

    ``parts`` are where breakpoints may be: messages, tools, instructions.

    >>> longest_cache_ttl([{"content": [{"text": "…", "cache_control": {"type": "ephemeral"}}]}])
    '5m'
    """
    found, stack = "none", [*parts]
    while stack:
        value = stack.pop()
        kind = type(value)
        if value is None or kind is str:
            continue
        if kind is list or isinstance(value, list | tuple):
            stack += value
        elif kind is dict or isinstance(value, Mapping):
            for mark in CACHE_MARKS:
                if (point := value.get(mark)) is not None and isinstance(point, Mapping):
                    if point.get("ttl") == "1h":
                        return "1h"
                    found = "5m"
            stack.append(value.get("content"))
            if (result := value.get("toolResult")) is not None and isinstance(result, Mapping):
                stack.append(result.get("content"))
    return found
