"""What Google's APIs report as usage: ``generateContent``, embeddings, images, interactions.

``promptTokenCount`` includes what came from a cache. ``thoughtsTokenCount`` stands beside ``candidatesTokenCount`` and
``toolUsePromptTokenCount`` beside ``promptTokenCount``; ``totalTokenCount`` is the sum of the four. Counts of nothing
are left out of an answer, as in every message of protobuf. Field meanings: ``google.genai.types``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel.instrumentation.facts import get, text
from tokenbudget_otel.usage import TokenUsage

FINISH_REASONS: Final = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION", "MODEL_ARMOR",
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
            "MALFORMED_RESPONSE", "IMAGE_OTHER", "NO_IMAGE", "OTHER",
        ),
        "error",
    ),
}  # fmt: skip
"""Finish reasons in the words of the conventions; others (``CONTINUATION``) are passed on in small letters."""

MODALITIES: Final = ("text", "audio", "image", "video")
"""Modalities that are counted apart. Pages of documents (``DOCUMENT``) are billed as any other input."""

TIER_HEADER: Final = "x-gemini-service-tier"
"""Where AI Studio says which service tier has served a request; Vertex AI says it in ``trafficType``."""

_BY_REQUEST: Final = re.compile(r"(?:^|/)gemini-[12](?:\.|-|$)")
"""Models whose grounding with Google Search is billed once a request; Gemini 3 and later for every query."""


def count(value: Any) -> int | None:
    """``value`` if it is a count, and nothing otherwise.

    >>> count(7), count(True), count(-1), count("7")
    (7, None, None, None)
    """
    return value if type(value) is int and value >= 0 else None


def content_usage(usage: Any, searches: int | None = None) -> TokenUsage | None:
    """Usage of ``generateContent``, from its ``usageMetadata`` as JSON."""
    if not isinstance(usage, Mapping):
        return TokenUsage(web_searches=searches) if searches else None
    prompt, tools = count(usage.get("promptTokenCount")), count(usage.get("toolUsePromptTokenCount"))
    written, thoughts = count(usage.get("candidatesTokenCount")), count(usage.get("thoughtsTokenCount"))
    counts: dict[str, Any] = {
        "input_tokens": None if prompt is None else prompt + (tools or 0),
        "output_tokens": _written(written, thoughts, prompt, tools, count(usage.get("totalTokenCount"))),
        "cache_read_tokens": usage.get("cachedContentTokenCount"),
        "tool_use_input_tokens": tools,
        "reasoning_tokens": thoughts,
        "web_searches": searches,
    }
    _add_modalities(counts, "input_{}_tokens", usage.get("promptTokensDetails"), "tokenCount")
    _add_modalities(counts, "input_{}_tokens", usage.get("toolUsePromptTokensDetails"), "tokenCount")
    _add_modalities(counts, "cache_read_{}_tokens", usage.get("cacheTokensDetails"), "tokenCount")
    _add_modalities(counts, "output_{}_tokens", usage.get("candidatesTokensDetails"), "tokenCount")
    _add_uncached(counts)
    return TokenUsage.reading(counts) or None


def _add_uncached(counts: dict[str, Any]) -> None:
    """Where all that came from a cache is told by modality, nothing of the others did."""
    known = [counts.get(f"cache_read_{modality}_tokens") for modality in MODALITIES]
    if any(known) and sum(one or 0 for one in known) == counts["cache_read_tokens"]:
        for modality in MODALITIES:
            if counts.get(f"input_{modality}_tokens") is not None:
                counts.setdefault(f"cache_read_{modality}_tokens", 0)


def _written(
    written: int | None, thoughts: int | None, prompt: int | None, tools: int | None, total: int | None
) -> int | None:
    if written is not None or thoughts is not None:
        return (written or 0) + (thoughts or 0)
    # Neither is there when nothing was written: the total shows whether that is so.
    return 0 if prompt is not None and total == prompt + (tools or 0) else None


def with_thoughts(usage: Any) -> Any:
    """Usage as JSON, with the thoughts that an SDK from before there were any leaves out: the rest of the total."""
    if not isinstance(usage, Mapping) or "thoughtsTokenCount" in usage:
        return usage
    total, prompt = count(usage.get("totalTokenCount")), count(usage.get("promptTokenCount"))
    if total is None or prompt is None:
        return usage
    names = ("candidatesTokenCount", "toolUsePromptTokenCount")
    rest = total - prompt - sum(count(usage.get(name)) or 0 for name in names)
    return {**usage, "thoughtsTokenCount": rest} if rest > 0 else usage


def _add_modalities(counts: dict[str, Any], name: str, details: Any, field: str) -> None:
    for detail in details if isinstance(details, list) else ():
        modality = str(get(detail, "modality")).lower()
        if modality in MODALITIES and (tokens := count(get(detail, field))) is not None:
            key = name.format(modality)
            counts[key] = (counts.get(key) or 0) + tokens


def tier(usage: Any) -> str | None:
    """The service tier that Vertex AI says it used (``ON_DEMAND_PRIORITY``, ``PROVISIONED_THROUGHPUT`` …)."""
    said = text(get(usage, "trafficType"))
    return None if said is None or said.endswith("UNSPECIFIED") else said


def served_tier(headers: Any) -> str | None:
    """The service tier that AI Studio names in a header.

    >>> served_tier({"X-Gemini-Service-Tier": "flex"})
    'flex'
    """
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if str(name).lower() == TIER_HEADER:
            return text(value)
    return None


def queries(candidates: Any) -> set[str]:
    """What the model asked Google Search; empty queries are not billed, and the same one once."""
    found: set[str] = set()
    for candidate in candidates if isinstance(candidates, list) else ():
        asked = get(candidate, "groundingMetadata", "webSearchQueries")
        found.update(query for query in (asked if isinstance(asked, list) else ()) if text(query))
    return found


def billed_searches(model: str, asked: int) -> int | None:
    """How many searches are billed for so many queries; ``None`` where there was none.

    >>> billed_searches("gemini-2.5-flash", 3), billed_searches("gemini-3-pro-preview", 3)
    (1, 3)
    """
    if not asked:
        return None
    return 1 if _BY_REQUEST.search(model) else asked


def finish_reason(candidate: Any) -> str | None:
    """Why a candidate ended, in the words of the conventions."""
    reason = text(get(candidate, "finishReason"))
    if reason is None or reason.endswith("UNSPECIFIED"):
        return None
    parts = get(candidate, "content", "parts")
    if reason == "STOP" and any(get(part, "functionCall") for part in (parts if isinstance(parts, list) else ())):
        return "tool_call"
    return FINISH_REASONS.get(reason, reason.lower())


# --- embeddings and images ---------------------------------------------------------------------------------------


def embedding_usage(data: Any) -> TokenUsage | None:
    """Usage of embeddings: ``usageMetadata`` where there is one (gemini-embedding-2), the statistics of Vertex AI's
    ``predict`` otherwise. AI Studio says nothing of its other models."""
    usage = get(data, "usageMetadata")
    counts: dict[str, Any] = {"input_tokens": get(usage, "promptTokenCount")}
    for details in ("promptTokensDetails", "promptTokenDetails"):  # the second is what the REST reference has
        _add_modalities(counts, "input_{}_tokens", get(usage, details), "tokenCount")
    predictions = get(data, "predictions")
    read = [
        get(prediction, "embeddings", "statistics", "token_count")
        for prediction in (predictions if isinstance(predictions, list) else ())
    ]
    tokens = [_whole(one) for one in read]
    if tokens and None not in tokens:
        counts["input_tokens"] = sum(one for one in tokens if one is not None)
    counts["input_characters"] = get(data, "metadata", "billableCharacterCount")
    return TokenUsage.reading(counts) or None


def _whole(value: Any) -> int | None:
    """Vertex AI writes counts as numbers with a point as well."""
    return int(value) if type(value) is float and value >= 0 and value.is_integer() else count(value)


def image_usage(data: Any) -> TokenUsage | None:
    """Usage of image models: the images that were made. One that was filtered is not billed."""
    predictions = get(data, "predictions")
    if not isinstance(predictions, list):
        return None
    return TokenUsage(
        output_images=sum(
            1 for one in predictions if get(one, "bytesBase64Encoded") or get(one, "gcsUri") or get(one, "storageUri")
        )
    )


# --- interactions ------------------------------------------------------------------------------------------------


def interaction_usage(usage: Any, model: str) -> TokenUsage | None:
    """Usage of an interaction. As with ``generateContent``, thoughts and the results of tools stand beside the rest."""
    if usage is None:
        return None
    prompt, tools = count(get(usage, "total_input_tokens")), count(get(usage, "total_tool_use_tokens"))
    written, thoughts = count(get(usage, "total_output_tokens")), count(get(usage, "total_thought_tokens"))
    total = count(get(usage, "total_tokens"))
    asked = 0
    for grounding in listed(get(usage, "grounding_tool_count")):
        if get(grounding, "type") == "google_search":
            asked += count(get(grounding, "count")) or 0
    counts: dict[str, Any] = {
        "input_tokens": None if prompt is None else prompt + (tools or 0),
        "output_tokens": _written(written, thoughts, prompt, tools, total),
        "cache_read_tokens": get(usage, "total_cached_tokens"),
        "tool_use_input_tokens": tools,
        "reasoning_tokens": thoughts,
        "web_searches": billed_searches(model, asked),
    }
    for name, field in (
        ("input_{}_tokens", "input_tokens_by_modality"),
        ("input_{}_tokens", "tool_use_tokens_by_modality"),
        ("cache_read_{}_tokens", "cached_tokens_by_modality"),
        ("output_{}_tokens", "output_tokens_by_modality"),
    ):
        _add_modalities(counts, name, get(usage, field), "tokens")
    _add_uncached(counts)
    return TokenUsage.reading(counts) or None


def listed(value: Any) -> list[Any]:
    """``value`` if it is a list of JSON, and nothing otherwise."""
    return value if isinstance(value, list) else []
