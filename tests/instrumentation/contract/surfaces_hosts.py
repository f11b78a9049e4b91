"""Hosts that speak OpenAI's API, called with OpenAI's SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from surface import Surface
from surfaces_openai import MESSAGES, options, raw_of

from tokenbudget_otel.simulator import Simulator


def client_at(host: str, system: str) -> Callable[[Simulator, bool], Any]:
    """Makes clients of one host of the simulator, which is named as the provider that it imitates."""

    def make(simulator: Simulator, asynchronous: bool) -> Any:
        import openai

        from tokenbudget_otel import map_host

        base_url = simulator.host_url(host)
        if system != "openai_compatible":
            map_host(base_url, system)
        kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
        return kind(base_url=base_url, **options(asynchronous))

    return make


COUNTED = {"input_tokens": 1_000, "cached_tokens": 400, "output_tokens": 150, "reasoning_tokens": 40}
PLAIN = {"input_tokens": 1_000, "output_tokens": 150}
CACHED = PLAIN | {"cache_read_tokens": 400}
USAGE = CACHED | {
    "reasoning_tokens": 40, "input_audio_tokens": 0, "output_audio_tokens": 0, "rejected_prediction_tokens": 0,
}  # fmt: skip
SEARCHED = {
    "input_tokens": 50, "output_tokens": 400, "reasoning_tokens": 250, "citation_tokens": 60, "web_searches": 3,
}  # fmt: skip
RESPONSE = CACHED | {"cache_write_tokens": 0, "reasoning_tokens": 40}


def chat(
    provider: str,
    host: str,
    system: str,
    model: str,
    behaviour: Mapping[str, Any],
    usage: Mapping[str, Any],
    **more: Any,
) -> Surface:
    """Chat completions of one host."""
    body = {"model": model, "messages": MESSAGES}
    return Surface(
        provider=f"{provider} (openai)", sdk="openai", name="chat.completions.create", system=system, model=model,
        client=client_at(host, system), behaviour=behaviour, usage=usage,
        call=lambda client: client.chat.completions.create(**body),
        stream=lambda client: client.chat.completions.create(**body, stream=True),
        raw=raw_of("chat.completions", **body), **more,
    )  # fmt: skip


def responses(
    provider: str,
    host: str,
    system: str,
    model: str,
    behaviour: Mapping[str, Any],
    usage: Mapping[str, Any],
    **more: Any,
) -> Surface:
    """The Responses API of one host."""
    body = {"model": model, "input": "Tell me a story."}
    return Surface(
        provider=f"{provider} (openai)", sdk="openai", name="responses.create", system=system, model=model,
        client=client_at(host, system), behaviour=behaviour, usage=usage,
        call=lambda client: client.responses.create(**body),
        stream=lambda client: client.responses.create(**body, stream=True),
        raw=raw_of("responses", **body), **more,
    )  # fmt: skip


FIM = {"model": "deepseek-chat", "prompt": "def fib(a):", "suffix": "    return fib(a-1)", "max_tokens": 64}
PREFIX = [*MESSAGES, {"role": "assistant", "content": "Once", "prefix": True}]

SURFACES = [
    chat("DeepSeek", "deepseek", "deepseek", "deepseek-chat", COUNTED, USAGE),
    Surface(
        provider="DeepSeek (openai)", sdk="openai", name="chat.completions.create (prefix, beta)", system="deepseek",
        model="deepseek-chat", client=client_at("deepseek", "deepseek"), behaviour=COUNTED, usage=USAGE,
        call=lambda client: client.chat.completions.create(model="deepseek-chat", messages=PREFIX),
        stream=lambda client: client.chat.completions.create(model="deepseek-chat", messages=PREFIX, stream=True),
        raw=raw_of("chat.completions", model="deepseek-chat", messages=PREFIX),
    ),
    Surface(
        provider="DeepSeek (openai)", sdk="openai", name="completions.create (FIM, beta)", system="deepseek",
        model="deepseek-chat", client=client_at("deepseek", "deepseek"), behaviour=COUNTED, usage=USAGE,
        operation="text_completion",
        call=lambda client: client.completions.create(**FIM),
        stream=lambda client: client.completions.create(**FIM, stream=True),
        raw=raw_of("completions", **FIM),
    ),
    # What it reports as the cost is what the catalog says too: that the report wins has a test of its own.
    chat("OpenRouter", "openrouter", "openrouter", "openai/gpt-4o", COUNTED | {"cost_usd": 0.0035}, USAGE),
    responses("OpenRouter", "openrouter", "openrouter", "openai/gpt-4o", COUNTED | {"cost_usd": 0.0035}, RESPONSE),
    chat("xAI", "xai", "x_ai", "grok-4", COUNTED, USAGE),
    responses("xAI", "xai", "x_ai", "grok-4", COUNTED, RESPONSE),
    chat(
        "Perplexity", "perplexity", "perplexity", "sonar-deep-research",
        SEARCHED | {"cost_usd": 0.01669}, SEARCHED,
    ),
    chat("Together", "together", "together", "openai/gpt-oss-120b", COUNTED, USAGE),
    chat("Fireworks", "fireworks", "fireworks", "accounts/fireworks/models/gpt-oss-120b", COUNTED, USAGE),
    chat("Moonshot", "moonshot", "moonshot_ai", "kimi-k2.6", COUNTED, CACHED),
    chat("Groq", "groq", "groq", "llama-3.3-70b-versatile", COUNTED, USAGE),
    chat("Mistral", "mistral", "mistral_ai", "mistral-large-latest", COUNTED, CACHED),
    chat("Cerebras", "cerebras", "cerebras", "gpt-oss-120b", COUNTED, USAGE),
    chat("Gemini", "gemini", "gcp.gemini", "gemini-2.5-flash", COUNTED, PLAIN),
    chat("NVIDIA", "nvidia", "nvidia", "meta/llama-3.3-70b-instruct", COUNTED, PLAIN, cost_state="unknown"),
    chat("Hugging Face", "huggingface", "huggingface", "openai/gpt-oss-120b", COUNTED, USAGE, cost_state="unknown"),
    # Whatever a server of one's own calls its model, it is not OpenAI's.
    chat("vLLM", "vllm", "openai_compatible", "gpt-4o", COUNTED, PLAIN, cost_state="unknown"),
]  # fmt: skip
