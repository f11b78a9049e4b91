"""Ollama, on a machine of one's own: real tokens that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from surface import Because, Surface

from tokenbudget_otel.simulator import Simulator

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]
MODEL = "llama3.2"
WHOLE = Because("this route is not streamed")


def client(simulator: Simulator, asynchronous: bool) -> Any:
    import ollama

    kind = ollama.AsyncClient if asynchronous else ollama.Client
    return kind(host=simulator.ollama_url, timeout=20, verify=False)


def calling(method: str, **arguments: Any) -> Callable[[Any], Any]:
    return lambda client: getattr(client, method)(MODEL, **arguments)


def surface(name: str, operation: str, *, streamed: bool, usage: dict[str, int], **arguments: Any) -> Surface:
    return Surface(
        provider="Ollama",
        sdk="ollama",
        name=name,
        system="ollama",
        model=MODEL,
        client=client,
        behaviour={"input_tokens": 31, "output_tokens": 17, "reasoning_tokens": 6} if streamed else {"input_tokens": 9},
        usage=usage,
        call=calling(name, **arguments),
        stream=calling(name, stream=True, **arguments) if streamed else WHOLE,
        operation=operation,
        cost_state="free",
    )


BOTH = {"input_tokens": 31, "output_tokens": 17}

SURFACES = [
    surface("chat", "chat", streamed=True, usage=BOTH, messages=MESSAGES, options={"num_predict": 64}),
    surface("generate", "text_completion", streamed=True, usage=BOTH, prompt="Tell me a story.", system="Be brief."),
    surface("embed", "embeddings", streamed=False, usage={"input_tokens": 9}, input=["a river", "a bridge"]),
]
