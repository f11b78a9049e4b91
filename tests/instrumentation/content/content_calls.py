"""Calls with content, and what is recorded of their requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import openai

from tokenbudget_otel.simulator import Simulator


def openai_client(sim: Simulator) -> openai.OpenAI:
    """Without certificates: loading them takes longer than a whole test."""
    http = openai.DefaultHttpxClient(verify=False)
    return openai.OpenAI(base_url=sim.openai_url, api_key="any", max_retries=0, http_client=http)


def anthropic_client(sim: Simulator) -> anthropic.Anthropic:
    """The same of Anthropic's."""
    http = anthropic.DefaultHttpxClient(verify=False)
    return anthropic.Anthropic(base_url=sim.anthropic_url, api_key="any", max_retries=0, http_client=http)


def chat(sim: Simulator, **more: Any) -> Any:
    client = openai_client(sim)
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What time is it?"}]
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": messages, **more})


def respond(sim: Simulator, **more: Any) -> Any:
    client = openai_client(sim)
    asked = {"model": "gpt-5", "instructions": "Be brief.", "input": "What time is it?"}
    return client.responses.create(**asked | more)  # type: ignore[call-overload]


def message(sim: Simulator, **more: Any) -> Any:
    client = anthropic_client(sim)
    messages: Any = [{"role": "user", "content": "What time is it?"}]
    asked = {"model": "claude-haiku-4-5", "max_tokens": 99, "system": "Be brief.", "messages": messages}
    return client.messages.create(**asked | more)  # type: ignore[call-overload]


def beta_message(sim: Simulator, **more: Any) -> Any:
    client = anthropic_client(sim)
    messages: Any = [{"role": "user", "content": "What time is it?"}]
    asked = {"model": "claude-haiku-4-5", "max_tokens": 99, "system": "Be brief.", "messages": messages}
    return client.beta.messages.create(**asked | more)  # type: ignore[call-overload]


WAYS: tuple[Callable[..., Any], ...] = (chat, respond, message, beta_message)

SYSTEM = [{"type": "text", "content": "Be brief."}]
ASKED = {"role": "user", "parts": [{"type": "text", "content": "What time is it?"}]}
INPUT: dict[str, dict[str, Any]] = {
    "chat": {"gen_ai.input.messages": [{"role": "system", "parts": SYSTEM}, ASKED]},
    "respond": {"gen_ai.system_instructions": SYSTEM, "gen_ai.input.messages": [ASKED]},
    "message": {"gen_ai.system_instructions": SYSTEM, "gen_ai.input.messages": [ASKED]},
    "beta_message": {"gen_ai.system_instructions": SYSTEM, "gen_ai.input.messages": [ASKED]},
}
"""What is recorded of the request. Instructions that are a message of the history stay one (conventions)."""


def read(answer: Any) -> None:
    """Read a stream out; of an answer that is whole there is nothing to read."""
    if hasattr(answer, "__next__") or hasattr(answer, "__enter__"):
        for _ in answer:
            pass
