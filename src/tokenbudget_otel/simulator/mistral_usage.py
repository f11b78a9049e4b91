"""The simulator's usage in Mistral's shapes."""

from __future__ import annotations

from typing import Any

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.usage import Usage


def chat_usage(exchange: Exchange, usage: Usage) -> dict[str, Any]:
    """Of completions and embeddings: cached tokens are inside the prompt, reasoning is inside the completion."""
    shape: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens": usage.output_tokens,
        "num_cached_tokens": usage.cached_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.audio_seconds is not None:
        shape["prompt_audio_seconds"] = int(usage.audio_seconds)
    if exchange.behaviour.service_tier:
        shape["service_tier"] = exchange.behaviour.service_tier
    return shape


def conversation_usage(usage: Usage, connector_tokens: int) -> dict[str, Any]:
    """Of conversations: what connectors found stands beside the prompt, and is in the total.

    Example:
        >>> shape = conversation_usage(Usage(input_tokens=100, output_tokens=5, web_searches=1), 60)
        >>> shape["prompt_tokens"], shape["connector_tokens"], shape["total_tokens"], shape["connectors"]
        (40, 60, 105, {'web_search': 1})
    """
    calls = {
        "web_search": usage.web_searches,
        "code_interpreter": usage.code_interpreter_calls,
        "document_library": usage.file_searches,
    }
    used = {name: count for name, count in calls.items() if count}
    return {
        "prompt_tokens": usage.input_tokens - connector_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "connector_tokens": connector_tokens if used else None,
        "connectors": used or None,
    }
