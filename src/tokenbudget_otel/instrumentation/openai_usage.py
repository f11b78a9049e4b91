"""What OpenAI's APIs, and those that are compatible with them, report as usage.

Field meanings: the SDK's own types (``openai.types``) and each provider's API reference;
`docs/token-accounting.md` has them side by side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tokenbudget_otel.instrumentation.facts import get, text
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.usage import TokenUsage

REASONING_OUTSIDE: Final = frozenset(("x_ai", "perplexity", "gcp.gemini", "gcp.vertex_ai"))
"""Providers whose chat completions count reasoning beside ``completion_tokens`` instead of inside it."""

TOTAL_KNOWS_MORE: Final = frozenset(("gcp.gemini", "gcp.vertex_ai"))
"""Those of them that may not name the reasoning at all: only ``total_tokens`` has it."""

SERVER_TOOLS: Final = {
    "web_search_call": "web_searches",
    "file_search_call": "file_searches",
    "code_interpreter_call": "code_executions",
    "computer_call": "computer_calls",
}
"""Output items of the Responses API that are billed by the call, and the unit they count as."""


XAI_TOOLS: Final = {
    "web_search_calls": "web_searches",
    "x_search_calls": "social_searches",
    "code_interpreter_calls": "code_executions",
    "file_search_calls": "file_searches",
}
"""xAI's own count of calls of its tools (``usage.server_side_tool_usage_details``), and the unit they count as."""

_SEARCH_MODEL: Final = re.compile(r"-search-(?:preview|api)\b")


def chat_usage(usage: Any, provider: str) -> TokenUsage | None:
    """Usage of chat completions, legacy completions and embeddings."""
    if usage is None:
        return None
    prompt, completion = get(usage, "prompt_tokens_details"), get(usage, "completion_tokens_details")
    output = get(usage, "completion_tokens")
    reasoning = _first(get(completion, "reasoning_tokens"), get(usage, "reasoning_tokens"))
    citations = get(usage, "citation_tokens")
    if provider in REASONING_OUTSIDE and isinstance(output, int):
        output += _outside(usage, reasoning, provider) + (citations if isinstance(citations, int) else 0)
    return (
        TokenUsage.reading(
            {
                "input_tokens": get(usage, "prompt_tokens"),
                "output_tokens": output,
                # DeepSeek, Mistral and Moonshot have names or places of their own for cached tokens.
                "cache_read_tokens": _first(
                    get(prompt, "cached_tokens"),
                    get(usage, "prompt_cache_hit_tokens"),
                    get(usage, "num_cached_tokens"),
                    get(usage, "cached_tokens"),
                ),
                "cache_write_tokens": get(prompt, "cache_write_tokens"),
                "reasoning_tokens": reasoning,
                "citation_tokens": citations if provider in REASONING_OUTSIDE else None,
                "rejected_prediction_tokens": get(completion, "rejected_prediction_tokens"),
                "input_text_tokens": get(prompt, "text_tokens"),
                "input_audio_tokens": get(prompt, "audio_tokens"),
                "input_image_tokens": get(prompt, "image_tokens"),
                "output_text_tokens": get(completion, "text_tokens"),
                "output_audio_tokens": get(completion, "audio_tokens"),
                "web_searches": _first(get(usage, "num_search_queries"), _sources(usage, provider)),
            }
        )
        or None
    )


def _sources(usage: Any, provider: str) -> Any:
    """xAI's live search is billed by the source that was used, and a source is what counts as a search here."""
    return get(usage, "num_sources_used") or None if provider == "x_ai" else None


def _outside(usage: Any, reasoning: Any, provider: str) -> int:
    """Reasoning tokens that ``completion_tokens`` leaves out. A total that is too small for them says that it
    includes them after all; Perplexity leaves them out of the total as well."""
    prompt, completion, total = (get(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    told = isinstance(total, int) and isinstance(prompt, int)
    if not isinstance(reasoning, int):
        return max(0, total - prompt - completion) if told and provider in TOTAL_KNOWS_MORE else 0
    if provider == "perplexity":
        return reasoning
    return 0 if told and total < prompt + completion + reasoning else reasoning


def response_usage(response: Any, provider: str = "openai") -> TokenUsage | None:
    """Usage of the Responses API: the tokens in ``usage``, the server's tool calls in what says so best."""
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
        counts |= _counted_by_xai(get(usage, "server_side_tool_usage_details"))
    return TokenUsage.reading(counts) or None


def _tool_calls(output: Any) -> dict[str, int]:
    """The server's tool calls among the output items, by unit. A web search is billed, opening a page that it found
    is not; a container of the code interpreter is billed once, however often it runs something."""
    calls: dict[str, int] = {}
    containers: set[str] = set()
    for item in output if isinstance(output, list) else ():
        unit = SERVER_TOOLS.get(text(get(item, "type")) or "")
        if unit is None or (unit == "web_searches" and get(item, "action", "type") not in (None, "search")):
            continue
        if unit == "code_executions" and (container := text(get(item, "container_id"))) is not None:
            if container in containers:
                continue
            containers.add(container)
        calls[unit] = calls.get(unit, 0) + 1
    return calls


def _counted_by_xai(details: Any) -> dict[str, int]:
    """What xAI's server-side tools were called, where it says so itself."""
    counts = {unit: get(details, name) for name, unit in XAI_TOOLS.items()}
    return {unit: count for unit, count in counts.items() if isinstance(count, int) and count > 0}


@dataclass(frozen=True, slots=True)
class MadeImages:
    """What the image generation tool of a response used, of a model of its own: not a part of the response's usage.

    Attributes:
        model: the image model, where the response says it.
        usage: its tokens.
    """

    model: str | None
    usage: TokenUsage


def made_images(response: Any) -> MadeImages | None:
    """What a response's image generation tool used, where it says so (``tool_usage.image_gen``)."""
    told = get(response, "tool_usage", "image_gen")
    usage = _image_tokens(told) if told is not None else None
    return MadeImages(image_model(response), usage) if usage is not None and usage.total_tokens else None


def image_model(source: Any) -> str | None:
    """The model of the image generation tool in a request's or a response's ``tools``."""
    tools = get(source, "tools")
    for tool in tools if isinstance(tools, list) else ():
        if get(tool, "type") == "image_generation":
            return text(get(tool, "model"))
    return None


def searched(body: Mapping[str, Any], provider: str) -> int:
    """Searches that a chat completion makes without a word about it: OpenAI's search models make one a call."""
    if provider not in ("openai", "azure.ai.openai"):
        return 0
    return 1 if _SEARCH_MODEL.search(text(body.get("model")) or "") else 0


def image_usage(data: Any) -> TokenUsage | None:
    """Usage of image generation: tokens for models that bill them, otherwise the number of images."""
    usage = get(data, "usage")
    images = get(data, "data")
    count = len(images) if isinstance(images, list) else None
    if usage is None:
        return TokenUsage.reading({"output_images": count}) if count else None
    return _image_tokens(usage)


def _image_tokens(usage: Any) -> TokenUsage | None:
    incoming, outgoing = get(usage, "input_tokens_details"), get(usage, "output_tokens_details")
    output = get(usage, "output_tokens")
    return (
        TokenUsage.reading(
            {
                "input_tokens": get(usage, "input_tokens"),
                "output_tokens": output,
                "input_text_tokens": get(incoming, "text_tokens"),
                "input_image_tokens": get(incoming, "image_tokens"),
                "cache_read_tokens": _first(get(incoming, "cached_tokens"), get(usage, "cached_tokens")),
                "output_text_tokens": get(outgoing, "text_tokens"),
                # Without a split, what an image model writes is an image.
                "output_image_tokens": get(outgoing, "image_tokens") if outgoing is not None else output,
            }
        )
        or None
    )


def audio_usage(data: Any) -> TokenUsage | None:
    """Usage of transcriptions and speech: tokens or seconds, whichever the model is billed by."""
    usage = get(data, "usage")
    if usage is None:
        # verbose_json of models billed by the minute gives the duration of the audio.
        seconds = get(data, "duration")
        return TokenUsage.reading({"input_audio_seconds": _number(seconds)}) if seconds is not None else None
    if get(usage, "type") == "duration":
        return TokenUsage.reading({"input_audio_seconds": _number(get(usage, "seconds"))})
    details = _first(get(usage, "input_token_details"), get(usage, "input_tokens_details"))
    return (
        TokenUsage.reading(
            {
                "input_tokens": get(usage, "input_tokens"),
                "output_tokens": get(usage, "output_tokens"),
                "input_audio_tokens": get(details, "audio_tokens"),
                "input_text_tokens": get(details, "text_tokens"),
            }
        )
        or None
    )


def reported_cost(usage: Any, provider: str) -> int | None:
    """The cost that the provider itself reports with the usage, in nano-USD; ``None`` where it does not.

    >>> reported_cost({"cost": 0.00014}, "openrouter"), reported_cost({"cost_in_usd_ticks": 37756000}, "x_ai")
    (140000, 3775600)
    >>> reported_cost({"cost": 0.00014}, "somebody") is None
    True
    """
    read = REPORTED.get(provider)
    amount = read(usage) if read is not None else None
    return None if amount is None else to_nano(amount)


def _openrouter_cost(usage: Any) -> Decimal | None:
    """With a key of the user's own for the upstream provider (BYOK), ``cost`` is only OpenRouter's fee and the
    upstream's bill stands beside it; otherwise the upstream's bill is a part of ``cost``."""
    cost = _dollars(get(usage, "cost"))
    if cost is None or get(usage, "is_byok") is not True:
        return cost
    upstream = _dollars(get(usage, "cost_details", "upstream_inference_cost"))
    return None if upstream is None else cost + upstream


def _xai_cost(usage: Any) -> Decimal | None:
    ticks = get(usage, "cost_in_usd_ticks")
    if not isinstance(ticks, int) or isinstance(ticks, bool):
        return None
    return _dollars(Decimal(ticks) / TICKS_PER_USD)


def _perplexity_cost(usage: Any) -> Decimal | None:
    cost = get(usage, "cost")
    return _dollars(get(cost, "total_cost")) if get(cost, "currency") in (None, "USD") else None


TICKS_PER_USD: Final = 10**10
"""Ticks of a dollar, in which xAI reports what a request cost."""

REPORTED: Final[Mapping[str, Callable[[Any], Decimal | None]]] = {
    "openrouter": _openrouter_cost,
    "x_ai": _xai_cost,
    "perplexity": _perplexity_cost,
}
"""Providers that report what a request cost, and how it reads; US dollars."""


def _dollars(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    # The upper bound also spares us integers with a million digits.
    return amount if amount.is_finite() and 0 <= amount <= 10**9 else None


def _number(value: Any) -> Any:
    """A duration; some responses send it as a string."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
