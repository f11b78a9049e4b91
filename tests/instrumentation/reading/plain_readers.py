"""Readers of requests and answers as they are easily seen to be right, one look-up after the other: what the fast ones
of the package are compared with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import anthropic, openai_usage
from tokenbudget_otel.instrumentation.facts import ResponseFacts, positive, text
from tokenbudget_otel.instrumentation.sizing import CACHE_MARKS, IMAGE_TYPES, OTHER_TYPES, Extent
from tokenbudget_otel.usage import TokenUsage


def get(source: Any, *path: str) -> Any:
    for name in path:
        if source is None:
            return None
        source = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
    return source


def first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


# --- OpenAI ------------------------------------------------------------------------------------------------------


def chat_usage(usage: Any, provider: str) -> TokenUsage | None:
    if usage is None:
        return None
    prompt, completion = get(usage, "prompt_tokens_details"), get(usage, "completion_tokens_details")
    output = get(usage, "completion_tokens")
    reasoning = first(get(completion, "reasoning_tokens"), get(usage, "reasoning_tokens"))
    citations = get(usage, "citation_tokens")
    if provider in openai_usage.REASONING_OUTSIDE and isinstance(output, int):
        output += _outside(usage, reasoning, provider) + (citations if isinstance(citations, int) else 0)
    sources = get(usage, "num_sources_used") or None if provider == "x_ai" else None
    return (
        TokenUsage.reading(
            {
                "input_tokens": get(usage, "prompt_tokens"),
                "output_tokens": output,
                "cache_read_tokens": first(
                    get(prompt, "cached_tokens"),
                    get(usage, "prompt_cache_hit_tokens"),
                    get(usage, "num_cached_tokens"),
                    get(usage, "cached_tokens"),
                ),
                "cache_write_tokens": get(prompt, "cache_write_tokens"),
                "reasoning_tokens": reasoning,
                "citation_tokens": citations if provider in openai_usage.REASONING_OUTSIDE else None,
                "rejected_prediction_tokens": get(completion, "rejected_prediction_tokens"),
                "input_text_tokens": get(prompt, "text_tokens"),
                "input_audio_tokens": get(prompt, "audio_tokens"),
                "input_image_tokens": get(prompt, "image_tokens"),
                "output_text_tokens": get(completion, "text_tokens"),
                "output_audio_tokens": get(completion, "audio_tokens"),
                "web_searches": first(get(usage, "num_search_queries"), sources),
            }
        )
        or None
    )


def _outside(usage: Any, reasoning: Any, provider: str) -> int:
    prompt, completion, total = (get(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    told = isinstance(total, int) and isinstance(prompt, int)
    if not isinstance(reasoning, int):
        return max(0, total - prompt - completion) if told and provider in openai_usage.TOTAL_KNOWS_MORE else 0
    if provider == "perplexity":
        return reasoning
    return 0 if told and total < prompt + completion + reasoning else reasoning


def searched(body: Mapping[str, Any], provider: str) -> int:
    if provider not in ("openai", "azure.ai.openai"):
        return 0
    return 1 if re.search(r"-search-(?:preview|api)\b", text(body.get("model")) or "") else 0


def read_chat(data: Any, body: Mapping[str, Any], provider: str) -> ResponseFacts:
    choices = get(data, "choices")
    usage = get(data, "usage")
    counted = chat_usage(usage, provider)
    if counted is not None and (searches := searched(body, provider)):
        counted = counted.replace(web_searches=searches)
    facts = ResponseFacts(
        id=text(get(data, "id")),
        model=text(get(data, "model")),
        finish_reasons=tuple(
            reason
            for choice in (choices if isinstance(choices, list) else ())
            if (reason := text(get(choice, "finish_reason")))
        ),
        usage=counted,
        tier=text(get(data, "service_tier")),
        reported_nano_usd=openai_usage.reported_cost(usage, provider),
    )
    if (fingerprint := text(get(data, "system_fingerprint"))) is not None:
        facts.attributes[semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT] = fingerprint
    if provider == "openrouter" and (upstream := text(get(data, "provider"))) is not None:
        facts.attributes["tokenbudget.upstream_provider"] = upstream
    return facts


def response_usage(response: Any, provider: str) -> TokenUsage | None:
    usage = get(response, "usage")
    if usage is None:
        return None
    details = get(usage, "input_tokens_details")
    writes = get(details, "cache_write_tokens_details")
    counts: dict[str, Any] = {
        "input_tokens": get(usage, "input_tokens"),
        "output_tokens": get(usage, "output_tokens"),
        "cache_read_tokens": get(details, "cached_tokens"),
        "cache_write_tokens": get(details, "cache_write_tokens"),
        "cache_write_30m_tokens": get(writes, "ttl_30m_tokens"),
        "cache_write_12h_tokens": get(writes, "ttl_12h_tokens"),
        "reasoning_tokens": get(usage, "output_tokens_details", "reasoning_tokens"),
    }
    counts |= _tool_calls(get(response, "output"))
    billable = get(response, "tool_usage", "web_search", "num_requests")
    if isinstance(billable, int) and (billable or "web_searches" in counts):
        counts["web_searches"] = billable
    if provider == "x_ai":
        told = get(usage, "server_side_tool_usage_details")
        called = {unit: get(told, name) for name, unit in openai_usage.XAI_TOOLS.items()}
        counts |= {unit: count for unit, count in called.items() if isinstance(count, int) and count > 0}
    return TokenUsage.reading(counts) or None


def _tool_calls(output: Any) -> dict[str, int]:
    calls: dict[str, int] = {}
    containers: set[str] = set()
    for item in output if isinstance(output, list) else ():
        unit = openai_usage.SERVER_TOOLS.get(text(get(item, "type")) or "")
        if unit is None or (unit == "web_searches" and get(item, "action", "type") not in (None, "search")):
            continue
        if unit == "code_executions" and (container := text(get(item, "container_id"))) is not None:
            if container in containers:
                continue
            containers.add(container)
        calls[unit] = calls.get(unit, 0) + 1
    return calls


_SAMPLING = (
    (semconv.REQUEST_TEMPERATURE, "temperature", (int, float)),
    (semconv.REQUEST_TOP_P, "top_p", (int, float)),
    (semconv.REQUEST_FREQUENCY_PENALTY, "frequency_penalty", (int, float)),
    (semconv.REQUEST_PRESENCE_PENALTY, "presence_penalty", (int, float)),
    (semconv.REQUEST_SEED, "seed", int),
    (semconv.REQUEST_MAX_TOKENS, "max_tokens", int),
    (semconv.REQUEST_MAX_TOKENS, "max_completion_tokens", int),
    (semconv.REQUEST_MAX_TOKENS, "max_output_tokens", int),
    (semconv.REQUEST_REASONING_LEVEL, "reasoning_effort", str),
    (semconv.REQUEST_PREVIOUS_RESPONSE_ID, "previous_response_id", str),
    (semconv.EMBEDDINGS_DIMENSION_COUNT, "dimensions", int),
    (semconv.OPENAI_REQUEST_SERVICE_TIER, "service_tier", str),
)


def request_attributes(api_type: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for name, field, kind in _SAMPLING:
        value = body.get(field)
        if isinstance(value, kind) and not isinstance(value, bool):
            attributes[name] = value
    if body.get("stream") is True:
        attributes[semconv.REQUEST_STREAM] = True
    stop = body.get("stop")
    if isinstance(stop, str):
        attributes[semconv.REQUEST_STOP_SEQUENCES] = (stop,)
    elif isinstance(stop, list) and all(isinstance(one, str) for one in stop):
        attributes[semconv.REQUEST_STOP_SEQUENCES] = tuple(stop)
    if (choices := positive(body.get("n"))) is not None and choices != 1:
        attributes[semconv.REQUEST_CHOICE_COUNT] = choices
    if (effort := text(get(body.get("reasoning"), "effort"))) is not None:
        attributes[semconv.REQUEST_REASONING_LEVEL] = effort
    form = get(body.get("response_format"), "type") or get(body.get("text"), "format", "type")
    types = {"text": "text", "json_object": "json", "json_schema": "json"}
    if isinstance(form, str) and form in types:
        attributes[semconv.OUTPUT_TYPE] = types[form]
    if isinstance(encoding := body.get("encoding_format"), str):
        attributes[semconv.REQUEST_ENCODING_FORMATS] = (encoding,)
    conversation = body.get("conversation")
    if (conversation_id := text(conversation) or text(get(conversation, "id"))) is not None:
        attributes[semconv.CONVERSATION_ID] = conversation_id
    if api_type is not None:
        attributes[semconv.OPENAI_API_TYPE] = api_type
    return attributes


# --- Anthropic ---------------------------------------------------------------------------------------------------


def message_usage(usage: Any) -> TokenUsage | None:
    if usage is None:
        return None
    counts = _message_counts(usage)
    iterations = get(usage, "iterations")
    for iteration in iterations if isinstance(iterations, list) else ():
        if get(iteration, "type") == "compaction":
            for name, value in _message_counts(iteration).items():
                known = counts.get(name)
                if isinstance(value, int) and (known is None or isinstance(known, int)):
                    counts[name] = (known or 0) + value
    return TokenUsage.reading(counts)


def _message_counts(usage: Any) -> dict[str, Any]:
    fresh = get(usage, "input_tokens")
    read, written = get(usage, "cache_read_input_tokens"), get(usage, "cache_creation_input_tokens")
    known = [value for value in (fresh, read, written) if isinstance(value, int) and value >= 0]
    return {
        "input_tokens": sum(known) if isinstance(fresh, int) else None,
        "output_tokens": get(usage, "output_tokens"),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cache_write_5m_tokens": get(usage, "cache_creation", "ephemeral_5m_input_tokens"),
        "cache_write_1h_tokens": get(usage, "cache_creation", "ephemeral_1h_input_tokens"),
        "reasoning_tokens": get(usage, "output_tokens_details", "thinking_tokens"),
        "web_searches": get(usage, "server_tool_use", "web_search_requests"),
        "web_fetches": get(usage, "server_tool_use", "web_fetch_requests"),
        "code_executions": get(usage, "server_tool_use", "code_execution_requests"),
    }


def read_message(data: Any, body: Mapping[str, Any]) -> ResponseFacts:
    reason = text(get(data, "stop_reason"))
    usage = get(data, "usage")
    blocks = get(data, "content")
    shown = blocks if isinstance(blocks, list) and not anthropic.code_is_free(body) else ()
    runs = [block for block in shown if get(block, "type") == "server_tool_use"]
    facts = ResponseFacts(
        id=text(get(data, "id")),
        model=text(get(data, "model")),
        finish_reasons=(anthropic.FINISH_REASONS.get(reason, reason),) if reason else (),
        usage=anthropic.with_code(
            message_usage(usage), sum(text(get(block, "name")) in anthropic.CODE for block in runs)
        ),
        tier="fast" if get(usage, "speed") == "fast" else text(get(usage, "service_tier")),
    )
    if (tier := text(get(usage, "service_tier"))) is not None:
        facts.attributes[semconv.ANTHROPIC_RESPONSE_SERVICE_TIER] = tier
    return facts


_MESSAGE_REQUEST = (
    (semconv.REQUEST_MAX_TOKENS, ("max_tokens",), int),
    (semconv.REQUEST_TEMPERATURE, ("temperature",), (int, float)),
    (semconv.REQUEST_TOP_P, ("top_p",), (int, float)),
    (semconv.REQUEST_TOP_K, ("top_k",), (int, float)),
    (semconv.REQUEST_REASONING_LEVEL, ("output_config", "effort"), str),
    (semconv.ANTHROPIC_REQUEST_SERVICE_TIER, ("service_tier",), str),
)


def message_attributes(body: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for name, path, kind in _MESSAGE_REQUEST:
        value = get(body, *path)
        if isinstance(value, kind) and not isinstance(value, bool):
            attributes[name] = value
    if body.get("stream") is True:
        attributes[semconv.REQUEST_STREAM] = True
    stops = body.get("stop_sequences")
    if isinstance(stops, list) and stops and all(isinstance(stop, str) for stop in stops):
        attributes[semconv.REQUEST_STOP_SEQUENCES] = tuple(stops)
    form = get(body, "output_config", "format", "type") or get(body, "output_format", "type")
    if form == "json_schema":
        attributes[semconv.OUTPUT_TYPE] = "json"
    return attributes


# --- any of them -------------------------------------------------------------------------------------------------


def measure(*parts: Any) -> Extent:
    extent = Extent()
    stack: list[Any] = list(parts)
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            extent.characters += len(value)
            extent.bytes += len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, Mapping):
            extent.nodes += 1
            kind = value.get("type")
            if isinstance(kind, str) and kind in IMAGE_TYPES:
                extent.images += 1
                continue
            if isinstance(kind, str) and kind in OTHER_TYPES:
                extent.others += 1
                continue
            for name, item in value.items():
                if isinstance(name, str):
                    extent.bytes += len(name) + 4
                stack.append(item)
        elif isinstance(value, list | tuple):
            extent.bytes += len(value)
            stack.extend(value)
        elif value is not None and not isinstance(value, bool | int | float):
            if hasattr(value, "model_dump"):
                stack.append(vars(value) | (getattr(value, "__pydantic_extra__", None) or {}))
            elif type(value).__name__ not in ("Omit", "NotGiven"):
                extent.unseen = True
        elif value is not None:
            extent.bytes += 24
            extent.characters += 4
    return extent


def longest_cache_ttl(*parts: Any) -> str:
    found, stack = "none", list(parts)
    while stack:
        value = stack.pop()
        if isinstance(value, list | tuple):
            stack.extend(value)
        elif isinstance(value, Mapping):
            for mark in CACHE_MARKS:
                if isinstance(point := value.get(mark), Mapping):
                    if point.get("ttl") == "1h":
                        return "1h"
                    found = "5m"
            result = value.get("toolResult")
            stack += [value.get("content"), result.get("content") if isinstance(result, Mapping) else None]
    return found
