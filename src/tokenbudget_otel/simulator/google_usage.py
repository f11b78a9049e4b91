"""The simulator's usage in Google's shapes: thoughts beside the candidates, tool results beside the prompt."""

from __future__ import annotations

import re
from typing import Any, Final

from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.usage import Usage

BILLED_BY_REQUEST: Final = re.compile(r"gemini-[12]\b")
"""Models whose grounding is billed once a request; later ones are billed for every query."""


def searches(model: str, queries: int) -> int:
    """How many searches are billed.

    Example:
        >>> searches("gemini-2.5-flash", 3), searches("gemini-3-pro-preview", 3)
        (1, 3)
    """
    return min(queries, 1) if BILLED_BY_REQUEST.match(model) else queries


def usage_metadata(usage: Usage, *, vertex: bool, tier: str | None = None) -> dict[str, Any]:
    """``usageMetadata`` of an answer. Counts of nothing are left out, as in every message of protobuf.

    Example:
        >>> shape = usage_metadata(Usage(input_tokens=100, output_tokens=50, reasoning_tokens=30), vertex=False)
        >>> shape["candidatesTokenCount"], shape["thoughtsTokenCount"], shape["totalTokenCount"]
        (20, 30, 150)
    """
    prompt = usage.input_tokens - usage.tool_use_input_tokens
    written = usage.output_tokens - usage.reasoning_tokens
    shape: dict[str, Any] = {"promptTokenCount": prompt} | {
        name: count
        for name, count in (
            ("candidatesTokenCount", written),
            ("cachedContentTokenCount", usage.cached_tokens),
            ("toolUsePromptTokenCount", usage.tool_use_input_tokens),
            ("thoughtsTokenCount", usage.reasoning_tokens),
        )
        if count
    }
    shape["totalTokenCount"] = usage.input_tokens + usage.output_tokens
    shape["promptTokensDetails"] = _details(prompt, AUDIO=usage.input_audio_tokens, IMAGE=usage.input_image_tokens)
    if usage.cached_tokens:
        shape["cacheTokensDetails"] = _details(usage.cached_tokens)
    if usage.tool_use_input_tokens:
        shape["toolUsePromptTokensDetails"] = _details(usage.tool_use_input_tokens)
    if written and (vertex or usage.output_audio_tokens or usage.output_image_tokens):
        shape["candidatesTokensDetails"] = _details(
            written, AUDIO=usage.output_audio_tokens, IMAGE=usage.output_image_tokens
        )
    if vertex:
        shape["trafficType"] = {"priority": "ON_DEMAND_PRIORITY", "flex": "ON_DEMAND_FLEX"}.get(
            str(tier), "ON_DEMAND" if tier is None else tier
        )
    return shape


def interaction_usage(usage: Usage) -> dict[str, Any]:
    """``usage`` of an interaction."""
    prompt = usage.input_tokens - usage.tool_use_input_tokens
    written = usage.output_tokens - usage.reasoning_tokens
    shape: dict[str, Any] = {
        "total_input_tokens": prompt,
        "total_cached_tokens": usage.cached_tokens,
        "total_output_tokens": written,
        "total_tool_use_tokens": usage.tool_use_input_tokens,
        "total_thought_tokens": usage.reasoning_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens_by_modality": _by_modality(
            prompt, audio=usage.input_audio_tokens, image=usage.input_image_tokens
        ),
    }
    if usage.cached_tokens:
        shape["cached_tokens_by_modality"] = _by_modality(usage.cached_tokens)
    if usage.output_audio_tokens or usage.output_image_tokens:
        shape["output_tokens_by_modality"] = _by_modality(
            written, audio=usage.output_audio_tokens, image=usage.output_image_tokens
        )
    if usage.web_searches:
        shape["grounding_tool_count"] = [{"type": "google_search", "count": usage.web_searches}]
    return shape


def report(target: dict[str, Any], behaviour: Behaviour, name: str, shape: dict[str, Any]) -> dict[str, Any]:
    """The target with its usage as the behaviour wants it: there, ``null`` or missing."""
    if behaviour.usage == "present":
        target[name] = shape
    elif behaviour.usage == "null":
        target[name] = None
    return target


def _parts(whole: int, others: dict[str, int], text: str) -> list[tuple[str, int]]:
    counts = [(text, whole - sum(others.values())), *others.items()]
    return [(name, count) for name, count in counts if count]


def _details(whole: int, **others: int) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in _parts(whole, others, "TEXT")]


def _by_modality(whole: int, **others: int) -> list[dict[str, Any]]:
    return [{"modality": name, "tokens": count} for name, count in _parts(whole, others, "text")]
