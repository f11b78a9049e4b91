"""The simulator's usage in Cohere's shapes: what is billed, and beside it what was used."""

from __future__ import annotations

from typing import Any

from tokenbudget_otel.simulator.usage import Usage

UNBILLED = 7
"""Tokens of framing that the model reads and nobody is billed for."""


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Of chat.

    Example:
        >>> shape = chat_usage(Usage(input_tokens=100, output_tokens=5, cached_tokens=40))
        >>> shape["billed_units"], shape["tokens"], shape["cached_tokens"]
        ({'input_tokens': 100, 'output_tokens': 5}, {'input_tokens': 107, 'output_tokens': 5}, 40)
    """
    return {
        "billed_units": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
        "tokens": {"input_tokens": usage.input_tokens + UNBILLED, "output_tokens": usage.output_tokens},
        "cached_tokens": usage.cached_tokens,
    }


def meta(billed: dict[str, Any], version: str, tokens: dict[str, Any] | None = None) -> dict[str, Any]:
    """The ``meta`` object of version 1's answers, and of embeddings and reranking."""
    whole: dict[str, Any] = {"api_version": {"version": version}, "billed_units": billed}
    return whole if tokens is None else whole | {"tokens": tokens}
