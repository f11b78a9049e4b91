"""A simulator of LLM providers: real HTTP on loopback, spoken to by the real SDKs.

It answers on the paths of the OpenAI, Azure OpenAI and Anthropic APIs (and of hosts that imitate
OpenAI's), in their wire formats, with usage that the caller can set and faults that the caller can
provoke; and it keeps the books: ``sim.billed`` says what each answered request would have cost in
tokens, so that what a client counted can be held against what the provider counted.

Needs the extra: ``pip install "tokenbudget-otel[simulator]"``.

Example:
    >>> from tokenbudget_otel.simulator import Behaviour, Simulator
    >>> with Simulator(seed=7) as sim:  # doctest: +SKIP
    ...     client = openai.OpenAI(base_url=sim.openai_url, api_key="any")
    ...     sim.then(Behaviour(text="Hello.", cached_tokens=100))
    ...     client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "Hi"}])
    ...     sim.billed[0].usage.cached_tokens
    100
"""

from __future__ import annotations

try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "tokenbudget_otel.simulator needs starlette and uvicorn; "
        'install them with: pip install "tokenbudget-otel[simulator]"'
    ) from error

from tokenbudget_otel.simulator.behaviour import Behaviour, ToolCall
from tokenbudget_otel.simulator.books import Billed, RecordedRequest
from tokenbudget_otel.simulator.hosts import HOSTS
from tokenbudget_otel.simulator.server import Simulator, serve
from tokenbudget_otel.simulator.usage import Usage

__all__ = ["HOSTS", "Behaviour", "Billed", "RecordedRequest", "Simulator", "ToolCall", "Usage", "serve"]
