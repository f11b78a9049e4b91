"""Hosts that imitate OpenAI's chat completions, and where they differ: one row per host.

Reached under ``/host/{name}/v1``. What each does to usage is written down in the project's
``docs/simulator.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from tokenbudget_otel.simulator.behaviour import Behaviour
from tokenbudget_otel.simulator.errors import Wording, openai_error
from tokenbudget_otel.simulator.usage import Usage

StreamUsage = Literal["asked", "last", "every", "extra", "choice"]


def _refused(_options: Any) -> dict[str, Any]:
    message = "Unrecognized request argument supplied: stream_options"
    return openai_error(Wording("invalid_request_error", message))


def _forbidden(options: Any) -> dict[str, Any]:
    detail = {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
    return {"detail": [detail | {"input": options}]}


def _mistral_forbidden(options: Any) -> dict[str, Any]:
    return {
        "object": "error",
        "message": _forbidden(options),
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def _deepseek(shape: dict[str, Any], usage: Usage, _behaviour: Behaviour) -> dict[str, Any]:
    shape["prompt_cache_hit_tokens"] = usage.cached_tokens
    shape["prompt_cache_miss_tokens"] = usage.input_tokens - usage.cached_tokens
    return shape


def _groq(shape: dict[str, Any], usage: Usage, _behaviour: Behaviour) -> dict[str, Any]:
    spent = {"queue_time": 0.01, "prompt_time": 0.002, "completion_time": round(usage.output_tokens / 500, 6)}
    return shape | spent | {"total_time": round(0.002 + usage.output_tokens / 500, 6)}


def _openrouter(shape: dict[str, Any], usage: Usage, behaviour: Behaviour) -> dict[str, Any]:
    cost = behaviour.cost_usd
    if cost is None:
        cost = usage.total_tokens / 1_000_000
    upstream = {
        "upstream_inference_cost": behaviour.upstream_cost_usd,
        "upstream_inference_prompt_cost": round(usage.input_tokens / 1_000_000, 9),
        "upstream_inference_completions_cost": round(usage.output_tokens / 1_000_000, 9),
    }
    return shape | {"cost": cost, "is_byok": behaviour.upstream_cost_usd is not None, "cost_details": upstream}


def _xai(shape: dict[str, Any], usage: Usage, behaviour: Behaviour) -> dict[str, Any]:
    # Reasoning is billed as output but stands beside completion_tokens; only the total holds both.
    shape["completion_tokens"] = usage.output_tokens - usage.reasoning_tokens
    return shape | {"num_sources_used": usage.web_searches} | _ticks(behaviour)


def _ticks(behaviour: Behaviour) -> dict[str, Any]:
    return {} if behaviour.cost_usd is None else {"cost_in_usd_ticks": round(behaviour.cost_usd * 10**10)}


def _xai_response(shape: dict[str, Any], usage: Usage, behaviour: Behaviour) -> dict[str, Any]:
    # Here the reasoning is inside, and the tools that ran are named one by one.
    tools = {
        "web_search_calls": usage.web_searches,
        "x_search_calls": behaviour.x_searches,
        "code_interpreter_calls": usage.code_interpreter_calls,
        "file_search_calls": usage.file_searches,
        "mcp_calls": 0,
    }
    shape |= {"num_sources_used": 0, "num_server_side_tools_used": sum(tools.values())}
    return shape | {"server_side_tool_usage_details": tools} | _ticks(behaviour)


def _moonshot(shape: dict[str, Any], usage: Usage, _behaviour: Behaviour) -> dict[str, Any]:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: shape[name] for name in names} | {"cached_tokens": usage.cached_tokens}


def _gemini(_shape: dict[str, Any], usage: Usage, _behaviour: Behaviour) -> dict[str, Any]:
    # Thoughts are neither in completion_tokens nor named; only the total has them.
    written = usage.output_tokens - usage.reasoning_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": written,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _vllm(shape: dict[str, Any], _usage: Usage, _behaviour: Behaviour) -> dict[str, Any]:
    names = ("prompt_tokens", "total_tokens", "completion_tokens")
    return {name: shape[name] for name in names} | {"prompt_tokens_details": None}


def _perplexity_response(shape: dict[str, Any], usage: Usage, behaviour: Behaviour) -> dict[str, Any]:
    cost = usage.total_tokens / 1_000_000 if behaviour.cost_usd is None else behaviour.cost_usd
    return shape | {"cost": {"currency": "USD", "total_cost": cost}}


def _perplexity(_shape: dict[str, Any], usage: Usage, behaviour: Behaviour) -> dict[str, Any]:
    visible = usage.output_tokens - usage.reasoning_tokens - usage.citation_tokens
    cost = usage.total_tokens / 1_000_000 if behaviour.cost_usd is None else behaviour.cost_usd
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": visible,
        "total_tokens": usage.input_tokens + visible,
        "search_context_size": "low",
        "citation_tokens": usage.citation_tokens,
        "num_search_queries": usage.web_searches,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost": {"total_cost": cost},
    }


def _mistral(shape: dict[str, Any], _usage: Usage, _behaviour: Behaviour) -> dict[str, Any]:
    return {name: shape[name] for name in ("prompt_tokens", "total_tokens", "completion_tokens")} | {
        "num_cached_tokens": shape["prompt_tokens_details"]["cached_tokens"]
    }


def _perplexity_body(behaviour: Behaviour) -> dict[str, Any]:
    pages = [f"https://example.com/{number}" for number in range(max(1, behaviour.web_searches))]
    results = [{"title": "Example", "url": page, "date": None} for page in pages]
    return {"citations": pages, "search_results": results}


def _filtered() -> dict[str, Any]:
    names = ("hate", "self_harm", "sexual", "violence")
    return {name: {"filtered": False, "severity": "safe"} for name in names}


@dataclass(frozen=True, slots=True)
class Host:
    """One host: how it differs from OpenAI."""

    name: str
    provider: str
    """How its bills name it."""
    refuse_stream_options: tuple[int, Callable[[Any], dict[str, Any]]] | None = None
    """The status and the body with which it refuses the field."""
    usage: Callable[[dict[str, Any], Usage, Behaviour], dict[str, Any]] | None = None
    """What it makes of OpenAI's usage object."""
    response_usage: Callable[[dict[str, Any], Usage, Behaviour], dict[str, Any]] | None = None
    """The same of the Responses API."""
    stream_usage: StreamUsage = "asked"
    """Where a stream reports usage: a chunk of its own when asked (OpenAI), always (``extra``), on the
    chunk that finishes the answer (``last``), or on every chunk (``every``), or in the choice that finishes it, besides
    the chunk that may be asked for (``choice``)."""
    body: Callable[[Behaviour], dict[str, Any]] | None = None
    """Fields that it adds to each answer and each chunk."""
    groq: bool = False
    """It wraps usage in ``x_groq``."""
    filters: bool = False
    """It reports content filters, and a first chunk without choices (Azure)."""
    comment: bytes = b""
    """A comment line before the first event."""


OPENAI: Final = Host("openai", "openai")
ANTHROPIC: Final = Host("anthropic", "anthropic")
GOOGLE: Final = Host("google", "google")
AZURE: Final = Host("azure", "azure", filters=True)

HOSTS: Final = {
    host.name: host
    for host in (
        OPENAI,
        AZURE,
        Host("strict", "strict", refuse_stream_options=(400, _refused)),
        Host("strict422", "strict422", refuse_stream_options=(422, _forbidden)),
        Host("deepseek", "deepseek", usage=_deepseek, stream_usage="last"),
        Host("groq", "groq", usage=_groq, groq=True),
        Host(
            "openrouter",
            "openrouter",
            usage=_openrouter,
            response_usage=_openrouter,
            stream_usage="extra",
            body=lambda _behaviour: {"provider": "Simulated"},
            comment=b": OPENROUTER PROCESSING\n\n",
        ),
        Host("xai", "xai", usage=_xai, response_usage=_xai_response, stream_usage="last"),
        Host(
            "perplexity",
            "perplexity",
            usage=_perplexity,
            response_usage=_perplexity_response,
            stream_usage="every",
            body=_perplexity_body,
        ),
        Host("moonshot", "moonshot", usage=_moonshot, stream_usage="choice"),
        Host("gemini", "gemini", usage=_gemini),
        Host("vllm", "vllm", usage=_vllm),
        Host("together", "together", stream_usage="last"),
        Host("fireworks", "fireworks"),
        Host("cerebras", "cerebras"),
        Host("nvidia", "nvidia", usage=_vllm),
        Host("huggingface", "huggingface"),
        Host(
            "mistral",
            "mistral",
            usage=_mistral,
            stream_usage="last",
            refuse_stream_options=(422, _mistral_forbidden),
        ),
    )
}
"""The hosts there are, by the name in their path."""

FILTERS: Final = _filtered()
