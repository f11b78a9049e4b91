"""The simulator's usage in OpenAI's shapes: cached tokens inside the prompt, reasoning inside the completion."""

from __future__ import annotations

from typing import Any

from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.usage import Usage


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Of chat completions.

    Example:
        >>> shape = chat_usage(Usage(input_tokens=160, cached_tokens=40, output_tokens=50, reasoning_tokens=30))
        >>> shape["prompt_tokens"], shape["prompt_tokens_details"]["cached_tokens"], shape["completion_tokens"]
        (160, 40, 50)
    """
    prompt = {"cached_tokens": usage.cached_tokens, "audio_tokens": usage.input_audio_tokens}
    if usage.cache_write_tokens:
        prompt["cache_write_tokens"] = usage.cache_write_tokens
    if usage.input_image_tokens:
        prompt["image_tokens"] = usage.input_image_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
            "accepted_prediction_tokens": usage.accepted_prediction_tokens,
            "rejected_prediction_tokens": usage.rejected_prediction_tokens,
        },
    }


def responses_usage(usage: Usage) -> dict[str, Any]:
    """Of the Responses API."""
    details: dict[str, Any] = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    if usage.cache_write_30m_tokens or usage.cache_write_12h_tokens:
        details["cache_write_tokens_details"] = {
            "ttl_30m_tokens": usage.cache_write_30m_tokens,
            "ttl_12h_tokens": usage.cache_write_12h_tokens,
        }
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": details,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def images_usage(usage: Usage) -> dict[str, Any]:
    """Of images: text and image tokens apart."""
    image, written = usage.input_image_tokens, usage.output_image_tokens
    return {
        "total_tokens": usage.total_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_tokens_details": {"text_tokens": usage.input_tokens - image, "image_tokens": image},
        "output_tokens_details": {"text_tokens": usage.output_tokens - written, "image_tokens": written},
    }


def audio_usage(usage: Usage) -> dict[str, Any]:
    """Of transcriptions: by seconds or by tokens, never both."""
    if usage.audio_seconds is not None:
        return {"type": "duration", "seconds": usage.audio_seconds}
    audio = usage.input_audio_tokens
    return {
        "type": "tokens",
        "total_tokens": usage.total_tokens,
        "input_tokens": usage.input_tokens,
        "input_token_details": {"text_tokens": usage.input_tokens - audio, "audio_tokens": audio},
        "output_tokens": usage.output_tokens,
    }


def report(target: dict[str, Any], behaviour: Behaviour, shape: dict[str, Any]) -> dict[str, Any]:
    """The target with its usage as the behaviour wants it: there, ``null`` or missing."""
    if behaviour.usage == "present":
        target["usage"] = shape
    elif behaviour.usage == "null":
        target["usage"] = None
    return target
