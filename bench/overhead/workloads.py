"""What is called: four endpoints, whole and streamed, sync and async. Each call is told when it began, and says how
long its first chunk took."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import answers
from clocks import clock
from transport import client_of

Once = Callable[[float], float | None]
OnceAsync = Callable[[float], Awaitable[float | None]]

ASK_CHAT: dict[str, Any] = {
    "model": answers.CHAT_MODEL,
    "messages": [
        {"role": "system", "content": "You are a helpful assistant of the acme corporation. Be brief, and be right."},
        {"role": "user", "content": "How much does it cost to send a letter of 20 grams from Berlin to Lisbon?"},
    ],
    "max_tokens": 400,
    "temperature": 0.5,
}
ASK_RESPONSES: dict[str, Any] = {
    "model": answers.CHAT_MODEL,
    "instructions": "You are a helpful assistant.",
    "input": "How much does it cost to send a letter of 20 grams from Berlin to Lisbon?",
    "max_output_tokens": 400,
    "temperature": 0.5,
}
ASK_EMBEDDINGS: dict[str, Any] = {
    "model": answers.EMBEDDING_MODEL,
    "input": "How much does it cost to send a letter of 20 grams from Berlin to Lisbon?",
    "dimensions": 256,
}
ASK_MESSAGES: dict[str, Any] = {
    "model": answers.CLAUDE,
    "system": "You are a helpful assistant of the acme corporation. Be brief, and be right.",
    "messages": [{"role": "user", "content": "How much does it cost to send a letter from Berlin to Lisbon?"}],
    "max_tokens": 400,
}


@dataclass(frozen=True)
class Workload:
    """One kind of call.

    Attributes:
        method: where the client has it.
        nano_usd, tokens: what one call comes to: the cost, and input, cached and output tokens.
        chunks: what the program sees of a stream; 0 for a call that is not streamed.
    """

    name: str
    sdk: str
    method: str
    asked: dict[str, Any]
    nano_usd: int
    tokens: tuple[int, int, int]
    operation: str = "chat"
    chunks: int = 0
    span: dict[str, Any] = field(default_factory=dict)

    @property
    def streamed(self) -> bool:
        return self.chunks > 0

    @property
    def model(self) -> str:
        return str(self.asked["model"])

    def sync(self, client: Any) -> Once:
        """One call with a sync client."""
        create, asked = _method(client, self.method), self.asked
        if not self.streamed:

            def whole(_: float) -> None:
                create(**asked)

            return whole

        def streamed(began: float) -> float:
            chunks = iter(create(**asked))
            next(chunks)
            first = clock() - began
            for _ in chunks:
                pass
            return first

        return streamed

    def asynchronous(self, client: Any) -> OnceAsync:
        """One call with an async client."""
        create, asked = _method(client, self.method), self.asked
        if not self.streamed:

            async def whole(_: float) -> None:
                await create(**asked)

            return whole

        async def streamed(began: float) -> float:
            chunks = aiter(await create(**asked))
            await anext(chunks)
            first = clock() - began
            async for _ in chunks:
                pass
            return first

        return streamed


def _method(client: Any, name: str) -> Callable[..., Any]:
    """Looked up once: a program that holds `client.chat.completions` does no more for a call."""
    for part in name.split("."):
        client = getattr(client, part)
    return client


GPT_TOKENS = (answers.INPUT_TOKENS, answers.CACHED_TOKENS, answers.OUTPUT_TOKENS)

ALL: dict[str, Workload] = {
    each.name: each
    for each in (
        Workload("chat", "openai", "chat.completions.create", ASK_CHAT, answers.GPT_NANO_USD, GPT_TOKENS),
        Workload("responses", "openai", "responses.create", ASK_RESPONSES, answers.GPT_NANO_USD, GPT_TOKENS),
        Workload(
            "embeddings", "openai", "embeddings.create", ASK_EMBEDDINGS, answers.EMBEDDING_NANO_USD,
            (answers.EMBEDDED_TOKENS, 0, 0), operation="embeddings",
        ),
        Workload("messages", "anthropic", "messages.create", ASK_MESSAGES, answers.CLAUDE_NANO_USD, GPT_TOKENS),
        Workload(
            "chat-stream", "openai", "chat.completions.create", {**ASK_CHAT, "stream": True}, answers.GPT_NANO_USD,
            GPT_TOKENS, chunks=len(answers.CHAT_STREAM) - 1,
        ),
        Workload(
            "chat-stream-usage", "openai", "chat.completions.create",
            {**ASK_CHAT, "stream": True, "stream_options": {"include_usage": True}}, answers.GPT_NANO_USD,
            GPT_TOKENS, chunks=len(answers.CHAT_STREAM_WITH_USAGE) - 1,
        ),
        Workload(
            "responses-stream", "openai", "responses.create", {**ASK_RESPONSES, "stream": True}, answers.GPT_NANO_USD,
            GPT_TOKENS, chunks=len(answers.RESPONSES_STREAM),
        ),
        Workload(
            "messages-stream", "anthropic", "messages.create", {**ASK_MESSAGES, "stream": True},
            answers.CLAUDE_NANO_USD, GPT_TOKENS, chunks=len(answers.MESSAGES_STREAM) - 1,  # the SDK keeps the ping
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Clients:
    """The clients of one side, made while it is on. ``spans`` says whether the anthropic SDK makes spans of its own."""

    spans: bool = False
    _made: dict[tuple[str, bool], Any] = field(default_factory=dict)

    def of(self, sdk: str, *, is_async: bool) -> Any:
        key = (sdk, is_async)
        if key not in self._made:
            self._made[key] = self._make(sdk, is_async)
        return self._made[key]

    def _make(self, sdk: str, is_async: bool) -> Any:
        module = importlib.import_module(sdk)
        kind = {"openai": "OpenAI", "anthropic": "Anthropic"}[sdk]
        make = getattr(module, f"Async{kind}" if is_async else kind)
        more: dict[str, Any] = {}
        if not self.spans and "open_telemetry" in inspect.signature(make.__init__).parameters:
            more["open_telemetry"] = False
        return make(api_key="none", max_retries=0, http_client=client_of(module, is_async=is_async), **more)
