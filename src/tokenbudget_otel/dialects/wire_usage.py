"""Usage as providers send it, where an emitter puts the whole of it into an attribute."""

from __future__ import annotations

from typing import Final

DETAILS: Final = (
    # OpenAI, Chat Completions
    ("prompt_tokens_details.cached_tokens", "cache_read_tokens"),
    ("prompt_tokens_details.cache_write_tokens", "cache_write_tokens"),
    ("prompt_tokens_details.audio_tokens", "input_audio_tokens"),
    ("prompt_tokens_details.image_tokens", "input_image_tokens"),
    ("completion_tokens_details.reasoning_tokens", "reasoning_tokens"),
    ("completion_tokens_details.rejected_prediction_tokens", "rejected_prediction_tokens"),
    ("completion_tokens_details.audio_tokens", "output_audio_tokens"),
    ("completion_tokens_details.image_tokens", "output_image_tokens"),
    # OpenAI, Responses and images
    ("input_tokens_details.cached_tokens", "cache_read_tokens"),
    ("input_tokens_details.cache_write_tokens", "cache_write_tokens"),
    ("input_tokens_details.image_tokens", "input_image_tokens"),
    ("input_tokens_details.text_tokens", "input_text_tokens"),
    ("output_tokens_details.reasoning_tokens", "reasoning_tokens"),
    ("output_tokens_details.image_tokens", "output_image_tokens"),
    ("output_tokens_details.text_tokens", "output_text_tokens"),
    # Anthropic
    ("cache_read_input_tokens", "cache_read_tokens"),
    ("cache_creation_input_tokens", "cache_write_tokens"),
    ("cache_creation.ephemeral_5m_input_tokens", "cache_write_5m_tokens"),
    ("cache_creation.ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
    ("output_tokens_details.thinking_tokens", "reasoning_tokens"),
    ("server_tool_use.web_search_requests", "web_searches"),
    ("server_tool_use.web_fetch_requests", "web_fetches"),
)
"""Where the parts of the totals are, and what else is billed. Totals are not here: what they include differs."""


def details(attribute: str, *, without: frozenset[str] = frozenset()) -> tuple[tuple[str, str], ...]:
    """Rows of :attr:`Dialect.counts` for the usage that lies in ``attribute``.

    >>> details("gen_ai.usage.raw")[0]
    ('gen_ai.usage.raw.prompt_tokens_details.cached_tokens', 'cache_read_tokens')
    """
    return tuple((f"{attribute}.{path}", name) for path, name in DETAILS if path not in without)
