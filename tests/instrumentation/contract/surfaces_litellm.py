"""LiteLLM's functions, by way of several providers' SDKs and LiteLLM's own HTTP clients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from surface import Because, Surface

from tokenbudget_otel.simulator import Simulator

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]
FUNCTIONS = Because("functions have no client")
WHOLE = Because("this function is not streamed")
DROPPED = Because("LiteLLM drops streams that break; the finaliser of httpx may then hang, without us as well")
RETRIES = Because("LiteLLM has the SDK below try embeddings again, whatever it is told")


def client(simulator: Simulator, asynchronous: bool) -> Any:
    """The module's functions, sync or async, with the simulator's addresses."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # nothing is fetched when it is imported
    import litellm

    litellm.suppress_debug_info = True
    urls = {
        "openai": simulator.openai_url,
        "anthropic": simulator.anthropic_url,
        "mistral": f"{simulator.mistral_url}/v1",
    }

    def call(name: str, model: str, **arguments: Any) -> Any:
        address = urls[model.partition("/")[0]]
        arguments |= {"model": model, "api_base": address, "api_key": "any", "max_retries": 0, "timeout": 20}
        if asynchronous:
            return awaited(getattr(litellm, f"a{name}")(**arguments))
        answer = getattr(litellm, name)(**arguments)
        return (seen(chunk) for chunk in answer) if arguments.get("stream") else seen(answer)

    return SimpleNamespace(call=call)


def seen(answer: Any) -> Any:
    """What the program sees, without what LiteLLM makes anew for every answer."""
    return type(answer).__name__, {name: part for name, part in dict(answer).items() if name not in ("id", "created")}


async def awaited(call: Any) -> Any:
    answer = await call
    return (seen(chunk) async for chunk in answer) if hasattr(answer, "__anext__") else seen(answer)


def surface(
    name: str, model: str, behaviour: Mapping[str, Any], usage: Mapping[str, Any], *, system: str = "openai",
    streamed: bool = True, fields: Mapping[str, Any] | None = None, **arguments: Any,
) -> Surface:  # fmt: skip
    # LiteLLM's streams of text completions cannot be asked for their usage without the program's seeing it.
    asked = {"stream_options": {"include_usage": True}} if name == "text_completion" else {}
    return Surface(
        provider="LiteLLM",
        sdk="litellm",
        name=f"{name} ({system})",
        system=system,
        model=model.partition("/")[2],
        client=client,
        behaviour=behaviour,
        usage=usage,
        call=lambda client: client.call(name, model, **arguments),
        stream=(lambda client: client.call(name, model, stream=True, **asked, **arguments)) if streamed else WHOLE,
        wrap=FUNCTIONS,
        without_usage="counted",  # by LiteLLM's own tokenizer
        fuzz=DROPPED if streamed else None,
        **(fields or {}),
    )


CHAT = {"input_tokens": 60, "cached_tokens": 20, "output_tokens": 40, "reasoning_tokens": 15}
COUNTED = {"input_tokens": 60, "cache_read_tokens": 20, "output_tokens": 40, "reasoning_tokens": 15}

SURFACES = [
    surface("completion", "openai/gpt-4o", CHAT, COUNTED, messages=MESSAGES),
    surface(
        "completion",
        "anthropic/claude-sonnet-4-5",
        {"input_tokens": 60, "cached_tokens": 20, "cache_write_5m_tokens": 10, "output_tokens": 40},
        {"input_tokens": 60, "cache_read_tokens": 20, "cache_write_tokens": 10, "cache_write_5m_tokens": 10,
         "output_tokens": 40},
        system="anthropic",
        messages=MESSAGES,
    ),
    surface(
        "text_completion",
        "openai/gpt-3.5-turbo-instruct",
        {"input_tokens": 12, "output_tokens": 9},
        {"input_tokens": 12, "output_tokens": 9},
        fields={"operation": "text_completion"},
        prompt="Tell me a story.",
    ),
    surface(
        "embedding", "openai/text-embedding-3-small", {"input_tokens": 8}, {"input_tokens": 8}, streamed=False,
        fields={"operation": "embeddings", "errors": RETRIES}, input=["a river", "a bridge"],
    ),
]  # fmt: skip
