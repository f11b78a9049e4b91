"""The units that providers bill, as sets of dimensions.

A unit is a part of another when it has all of the other's dimensions and more: cached tokens and
audio tokens are both input tokens, cached audio tokens are part of both. A rate card that prices
some of these bills each token once, at the rate of the most special unit it belongs to.

All but two units are counts of :class:`~tokenbudget_otel.usage.TokenUsage`. The two are
``audio_seconds`` (input and output together) and ``requests`` (one for each call).
"""

from __future__ import annotations

from typing import Final

Dimensions = frozenset[str]

# Dimensions exclude each other within one kind; the kind is written before the colon.
_TOKENS: Final = {
    "input_tokens": "in",
    "cache_read_tokens": "in type:read",
    "cache_write_tokens": "in type:write",
    "cache_write_5m_tokens": "in type:write ttl:5m",
    "cache_write_30m_tokens": "in type:write ttl:30m",
    "cache_write_1h_tokens": "in type:write ttl:1h",
    "cache_write_12h_tokens": "in type:write ttl:12h",
    "tool_use_input_tokens": "in type:tool",
    "input_text_tokens": "in mode:text",
    "input_audio_tokens": "in mode:audio",
    "input_image_tokens": "in mode:image",
    "input_video_tokens": "in mode:video",
    "cache_read_text_tokens": "in type:read mode:text",
    "cache_read_audio_tokens": "in type:read mode:audio",
    "cache_read_image_tokens": "in type:read mode:image",
    "cache_read_video_tokens": "in type:read mode:video",
    "output_tokens": "out",
    "reasoning_tokens": "out type:reasoning",
    "citation_tokens": "out type:citation",
    "rejected_prediction_tokens": "out type:rejected",
    "output_text_tokens": "out mode:text",
    "output_audio_tokens": "out mode:audio",
    "output_image_tokens": "out mode:image",
    "output_video_tokens": "out mode:video",
}

_OTHER: Final = {
    "input_characters": "characters",
    "audio_seconds": "seconds",
    "input_audio_seconds": "seconds way:in",
    "output_audio_seconds": "seconds way:out",
    "input_images": "images way:in",
    "output_images": "images way:out",
    "input_pixels": "pixels",
    "document_pages": "pages",
    "annotated_document_pages": "pages kind:annotated",
    "web_searches": "web",
    "web_fetches": "fetch",
    "file_searches": "file",
    "social_searches": "social",
    "storage_searches": "storage",
    "rerank_searches": "rerank",
    "code_executions": "code",
    "computer_calls": "computer",
    "requests": "requests",
}

DIMENSIONS: Final[dict[str, Dimensions]] = {
    name: frozenset(text.split()) for name, text in (*_TOKENS.items(), *_OTHER.items())
}
"""What each unit is made of."""

PER: Final[dict[str, int]] = {
    **dict.fromkeys(_TOKENS, 1_000_000),
    **dict.fromkeys(_OTHER, 1_000),
    "input_characters": 1_000_000,
    "audio_seconds": 3_600,
    "input_audio_seconds": 3_600,
    "output_audio_seconds": 3_600,
    "input_pixels": 1_000_000_000,
}
"""How many of a unit its price in the catalog pays for (a million tokens, an hour of audio, …)."""

ALIASES: Final = {"file_searches": "storage_searches"}
"""Two names of one thing that is billed once: a search in the provider's own store of files."""

PAID_BY_TOKENS: Final = frozenset(("web_fetches", "computer_calls"))
"""Tool calls that cost no fee; what they read and write is in the tokens."""

MEASURES: Final = {
    "input_tokens": ("input_characters", "input_audio_seconds", "input_images", "input_pixels", "document_pages"),
    "output_tokens": ("output_audio_seconds", "output_images"),
}
"""Other measures of what tokens measure: a provider bills one or the other, not both."""

INPUT_UNITS: Final = tuple(name for name, text in _TOKENS.items() if text.startswith("in"))
OUTPUT_UNITS: Final = tuple(name for name, text in _TOKENS.items() if text.startswith("out"))


GENERAL_FIRST: Final = tuple(sorted(DIMENSIONS, key=lambda name: (len(DIMENSIONS[name]), name)))
"""Every unit, no whole after one of its parts."""

SHOWN_APART: Final = {
    "input_tokens": ("cache_read_tokens", "cache_write_tokens", "tool_use_input_tokens"),
    "output_tokens": ("reasoning_tokens",),
}
"""Parts of what is paid that are shown apart also where they have no rate of their own."""


def part_of(part: str, whole: str) -> bool:
    """Whether every ``part`` is also a ``whole`` (and the two are not the same unit).

    >>> part_of("cache_read_audio_tokens", "input_audio_tokens")
    True
    >>> part_of("output_tokens", "input_tokens")
    False
    """
    return DIMENSIONS[whole] < DIMENSIONS[part]


def joint(left: str, right: str) -> str | None:
    """The unit of what is both ``left`` and ``right``, where there is one.

    >>> joint("cache_read_tokens", "input_audio_tokens")
    'cache_read_audio_tokens'
    >>> joint("cache_read_tokens", "cache_write_tokens") is None
    True
    """
    return _BY_DIMENSIONS.get(DIMENSIONS[left] | DIMENSIONS[right])


_BY_DIMENSIONS: Final = {dimensions: name for name, dimensions in DIMENSIONS.items()}
