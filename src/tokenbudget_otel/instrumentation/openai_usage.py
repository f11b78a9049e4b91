"""What OpenAI's APIs, and those that are compatible with them, report as usage.

Field meanings: the SDK's own types (``openai.types``) and each provider's API reference;
`docs/token-accounting.md` has them side by side.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tokenbudget_otel.instrumentation.facts import get, text
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.usage import TokenUsage

REASONING_OUTSIDE: Final = frozenset(("x_ai", "perplexity"))
"""Providers whose chat completions count reasoning beside ``completion_tokens`` instead of inside it."""

SERVER_TOOLS: Final = {
    "web_search_call": "web_searches",
    "file_search_call": "file_searches",
    "code_interpreter_call": "code_executions",
    "computer_call": "computer_calls",
}
"""Output items of the Responses API that are billed by the call, and the unit they count as."""


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
                # DeepSeek and Mistral have names of their own for what everybody else calls cached tokens.
                "cache_read_tokens": _first(
                    get(prompt, "cached_tokens"), get(usage, "prompt_cache_hit_tokens"), get(usage, "num_cached_tokens")
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
                "web_searches": get(usage, "num_search_queries"),
            }
        )
        or None
    )


def _outside(usage: Any, reasoning: Any, provider: str) -> int:
    """Reasoning tokens that ``completion_tokens`` leaves out. With xAI, a total that is too small for them says
    that it includes them after all; Perplexity leaves them out of the total as well."""
    if not isinstance(reasoning, int):
        return 0
    if provider == "perplexity":
        return reasoning
    prompt, completion, total = (get(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    if isinstance(total, int) and isinstance(prompt, int) and total < prompt + completion + reasoning:
        return 0
    return reasoning


def response_usage(response: Any) -> TokenUsage | None:
    """Usage of the Responses API: the tokens in ``usage``, the server's tool calls among the output items."""
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
    output = get(response, "output")
    for item in output if isinstance(output, list) else ():
        if (unit := SERVER_TOOLS.get(text(get(item, "type")) or "")) is not None:
            counts[unit] = counts.get(unit, 0) + 1
    return TokenUsage.reading(counts) or None


def image_usage(data: Any) -> TokenUsage | None:
    """Usage of image generation: tokens for models that bill them, otherwise the number of images."""
    usage = get(data, "usage")
    images = get(data, "data")
    count = len(images) if isinstance(images, list) else None
    if usage is None:
        return TokenUsage.reading({"output_images": count}) if count else None
    incoming, outgoing = get(usage, "input_tokens_details"), get(usage, "output_tokens_details")
    output = get(usage, "output_tokens")
    return (
        TokenUsage.reading(
            {
                "input_tokens": get(usage, "input_tokens"),
                "output_tokens": output,
                "input_text_tokens": get(incoming, "text_tokens"),
                "input_image_tokens": get(incoming, "image_tokens"),
                "cache_read_tokens": get(incoming, "cached_tokens"),
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
    """The cost that OpenRouter reports with the usage (``usage.cost``, US dollars), in nano-USD.

    With a key of the user's own for the upstream provider (BYOK), OpenRouter's ``cost`` is only its fee and
    the upstream's bill stands beside it.
    """
    if provider != "openrouter":
        return None
    cost = _dollars(get(usage, "cost"))
    if cost is None:
        return None
    if get(usage, "is_byok") is True:
        cost += _dollars(get(usage, "cost_details", "upstream_inference_cost")) or Decimal(0)
    return to_nano(cost)


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
