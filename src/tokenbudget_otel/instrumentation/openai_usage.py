"""What OpenAI's APIs, and those that are compatible with them, report as usage.

Field meanings: the SDK's own types (``openai.types``) and each provider's API reference;
`docs/token-accounting.md` has them side by side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tokenbudget_otel.instrumentation.facts import fields, get, text
from tokenbudget_otel.instrumentation.fields import NOTHING, Fields, plain_models
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

SEARCH: Final = "-search-"
"""What is in the names of OpenAI's models that search; most names are told without the pattern."""

_SEARCH_MODEL: Final = re.compile(r"-search-(?:preview|api)\b")


_CACHED_ELSEWHERE: Final = ("prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens")
"""DeepSeek, Mistral and Moonshot have names or places of their own for cached tokens."""

_INCOMING: Final = (
    ("cache_write_tokens", "cache_write_tokens"),
    ("text_tokens", "input_text_tokens"),
    ("audio_tokens", "input_audio_tokens"),
    ("image_tokens", "input_image_tokens"),
)
_OUTGOING: Final = (
    ("rejected_prediction_tokens", "rejected_prediction_tokens"),
    ("text_tokens", "output_text_tokens"),
    ("audio_tokens", "output_audio_tokens"),
)
"""What details of the input and the output are called by chat completions, and the counts that they are."""


def chat_usage(usage: Any, provider: str, searches: int = 0) -> TokenUsage | None:
    """Usage of chat completions, legacy completions and embeddings; with ``searches`` that it does not tell
    (:func:`searched`), where it tells anything."""
    if usage is None:
        return None
    told = fields(usage)
    details, written = told.get("prompt_tokens_details"), told.get("completion_tokens_details")
    incoming = NOTHING if details is None else fields(details)
    outgoing = NOTHING if written is None else fields(written)
    output = told.get("completion_tokens")
    reasoning = outgoing.get("reasoning_tokens")
    if reasoning is None:
        reasoning = told.get("reasoning_tokens")
    cached = incoming.get("cached_tokens")
    if cached is None:
        cached = _first(map(told.get, _CACHED_ELSEWHERE))
    counts: dict[str, Any] = {"input_tokens": told.get("prompt_tokens")}
    if provider in REASONING_OUTSIDE:
        citations = told.get("citation_tokens")
        if isinstance(output, int):
            output += _outside(told, reasoning, provider) + (citations if isinstance(citations, int) else 0)
        counts["citation_tokens"] = citations
    counts["output_tokens"] = output
    counts["cache_read_tokens"] = cached
    counts["reasoning_tokens"] = reasoning
    if incoming is not NOTHING:
        for name, count in _INCOMING:
            if (tokens := incoming.get(name)) is not None:
                counts[count] = tokens
    if outgoing is not NOTHING:
        for name, count in _OUTGOING:
            if (tokens := outgoing.get(name)) is not None:
                counts[count] = tokens
    found = told.get("num_search_queries")
    if found is None and provider == "x_ai":
        # xAI's live search is billed by the source that was used, and a source is what counts as a search here.
        found = told.get("num_sources_used") or None
    if found is not None:
        counts["web_searches"] = found
    read = TokenUsage.reading(counts)
    if not read.__dict__:  # as its truth is
        return None
    return read.replace(web_searches=searches) if searches else read


def _outside(usage: Fields, reasoning: Any, provider: str) -> int:
    """Reasoning tokens that ``completion_tokens`` leaves out. A total that is too small for them says that it
    includes them after all; Perplexity leaves them out of the total as well."""
    prompt, completion, total = map(usage.get, ("prompt_tokens", "completion_tokens", "total_tokens"))
    told = isinstance(total, int) and isinstance(prompt, int)
    if not isinstance(reasoning, int):
        return max(0, total - prompt - completion) if told and provider in TOTAL_KNOWS_MORE else 0
    if provider == "perplexity":
        return reasoning
    return 0 if told and total < prompt + completion + reasoning else reasoning


def response_usage(response: Any, provider: str = "openai") -> TokenUsage | None:
    """Usage of the Responses API: the tokens in ``usage``, the server's tool calls in what says so best."""
    said = fields(response)
    usage = said.get("usage")
    if usage is None:
        return None
    told = fields(usage)
    counts: dict[str, Any] = {"input_tokens": told.get("input_tokens"), "output_tokens": told.get("output_tokens")}
    if (details := told.get("input_tokens_details")) is not None:
        incoming = fields(details)
        counts["cache_read_tokens"] = incoming.get("cached_tokens")
        if (written := incoming.get("cache_write_tokens")) is not None:
            counts["cache_write_tokens"] = written
        if (writes := incoming.get("cache_write_tokens_details")) is not None:
            counts["cache_write_30m_tokens"] = get(writes, "ttl_30m_tokens")
            counts["cache_write_12h_tokens"] = get(writes, "ttl_12h_tokens")
    if (details := told.get("output_tokens_details")) is not None:
        counts["reasoning_tokens"] = fields(details).get("reasoning_tokens")
    if isinstance(output := said.get("output"), list):
        _count_tool_calls(output, counts)
    if (tools := said.get("tool_usage")) is not None:
        billable = get(tools, "web_search", "num_requests")
        if isinstance(billable, int) and (billable or "web_searches" in counts):
            counts["web_searches"] = billable
    if provider == "x_ai":
        counts |= _counted_by_xai(told.get("server_side_tool_usage_details"))
    return TokenUsage.reading(counts) or None


def _count_tool_calls(output: list[Any], counts: dict[str, Any]) -> None:
    """Add the server's tool calls among the output items, by unit. A web search is billed, opening a page that it found
    is not; a container of the code interpreter is billed once, however often it runs something."""
    containers: set[str] = set()
    for item in output:
        kind = item.__dict__.get("type") if type(item) in plain_models else None
        if kind is None:
            kind = get(item, "type")
        unit = SERVER_TOOLS.get(kind) if isinstance(kind, str) else None
        if unit is None or (unit == "web_searches" and get(item, "action", "type") not in (None, "search")):
            continue
        if unit == "code_executions" and (container := text(get(item, "container_id"))) is not None:
            if container in containers:
                continue
            containers.add(container)
        counts[unit] = counts.get(unit, 0) + 1


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
    if told is None:
        return None
    usage = _image_tokens(told)
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
    model = body.get("model")
    return 1 if isinstance(model, str) and SEARCH in model and _SEARCH_MODEL.search(model) else 0


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
                "cache_read_tokens": _first((get(incoming, "cached_tokens"), get(usage, "cached_tokens"))),
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
    details = _first((get(usage, "input_token_details"), get(usage, "input_tokens_details")))
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


def _first(values: Iterable[Any]) -> Any:
    for value in values:
        if value is not None:
            return value
    return None
