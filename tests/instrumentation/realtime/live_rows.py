"""Every way to speak live, as rows: how a session is opened, and what asks for a turn."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import tokenbudget_otel as tb
from both_modes import settled
from tokenbudget_otel.budgets.steps import run
from tokenbudget_otel.instrumentation.live import Session
from tokenbudget_otel.simulator import Simulator

SPEECH, SILENCE = b"\1" * 48_000, b"\0" * 4_800
"""A second of sound (at OpenAI's rate), and what ends it."""


class Talk:
    """One live session, driven alike whatever the SDK."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def ask(self, text: str = "Tell me a story about a river.") -> None:
        """Say something in writing, and ask for the answer."""
        raise NotImplementedError

    async def hear(self, audio: bytes) -> None:
        """Send audio."""
        raise NotImplementedError

    async def turn(self) -> list[Any]:
        """Read a turn to its end: what came, as plain data."""
        return [message async for message in self.messages()]

    def messages(self) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def some(self, pieces: int) -> None:
        """Read so many pieces of an answer."""
        async for message in self.messages():
            pieces -= self.is_piece(message)
            if not pieces:
                return

    @staticmethod
    def is_piece(message: Any) -> bool:
        raise NotImplementedError

    async def close(self) -> None:
        await settled(self.connection.close())


class OpenAITalk(Talk):
    async def ask(self, text: str = "Tell me a story about a river.") -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await settled(self.connection.conversation.item.create(item=item))
        await settled(self.connection.response.create())

    async def hear(self, audio: bytes) -> None:
        await settled(self.connection.input_audio_buffer.append(audio=base64.b64encode(audio).decode()))

    async def messages(self) -> AsyncIterator[Any]:
        while True:
            event = await settled(self.connection.recv())
            yield event.to_dict(warnings=False)
            if event.type in ("response.done", "error"):
                return

    @staticmethod
    def is_piece(message: Any) -> bool:
        return message["type"] in ("response.output_text.delta", "response.text.delta")


class ResponsesTalk(Talk):
    """A program that sends ``response.create`` where others send ``POST /responses``."""

    async def ask(self, text: str = "Tell me a story about a river.", **more: Any) -> None:
        await settled(self.connection.response.create(**{"model": "gpt-5-mini", "input": text, **more}))

    async def messages(self) -> AsyncIterator[Any]:
        while True:
            event = await settled(self.connection.recv())
            yield event.to_dict(warnings=False)
            if event.type in ("response.completed", "response.incomplete", "response.failed", "error"):
                return

    @staticmethod
    def is_piece(message: Any) -> bool:
        return str(message["type"]) == "response.output_text.delta"


class GoogleTalk(Talk):
    async def ask(self, text: str = "Tell me a story about a river.") -> None:
        await self.connection.send_client_content(turns={"role": "user", "parts": [{"text": text}]})

    async def hear(self, audio: bytes) -> None:
        from google.genai import types

        await self.connection.send_realtime_input(audio=types.Blob(data=audio, mime_type="audio/pcm;rate=16000"))

    async def messages(self) -> AsyncIterator[Any]:
        async for message in self.connection.receive():
            yield message.model_dump(exclude_none=True)

    @staticmethod
    def is_piece(message: Any) -> bool:
        return "model_turn" in message.get("server_content", ())


@dataclass(frozen=True)
class Live:
    """A row.

    Attributes:
        name: of the test.
        sdk: what has to be installed.
        client: makes a client of the simulator.
        talk: how its sessions are driven.
        connect: gives the context manager of a session; the second argument is whether the answers are spoken.
        speaks: whether the model speaks and listens; else it writes and reads.
        classes: where ``connect`` lives.
        counted, usage: what the simulator is told to count, and what we have to make of it.
        provider, model, operation: as on the span.
        path: of the simulator's books.
    """

    name: str
    sdk: str
    client: Callable[[Simulator], Any]
    talk: type[Talk]
    connect: Callable[[Any, bool], Any]
    classes: Callable[[], type]
    counted: dict[str, int]
    usage: dict[str, int]
    provider: str
    model: str
    operation: str
    path: str
    written: Callable[[Talk], Awaitable[None]] = field(default=lambda _talk: settled(None))
    speaks: bool = True

    @asynccontextmanager
    async def session(self, client: Any, *, spoken: bool = False) -> AsyncIterator[Talk]:
        """A session whose answers are written, unless they are to be spoken."""
        manager = self.connect(client, spoken)
        if hasattr(manager, "__aenter__"):
            async with manager as connection:
                yield await self._begun(connection, spoken)
        else:
            with manager as connection:
                yield await self._begun(connection, spoken)

    async def _begun(self, connection: Any, spoken: bool) -> Talk:
        talk = self.talk(connection)
        if not spoken:
            await self.written(talk)
        return talk


# --- OpenAI ----------------------------------------------------------------------------------------------------------

REALTIME = "gpt-realtime"


def openai_client(name: str) -> Callable[[Simulator], Any]:
    def make(sim: Simulator) -> Any:
        import openai

        options: dict[str, Any] = {"api_key": "any", "max_retries": 0, "websocket_base_url": f"{sim.live_url}/v1"}
        http = openai.DefaultAsyncHttpxClient if name.startswith("Async") else openai.DefaultHttpxClient
        options["http_client"] = http(verify=False)
        if "Azure" in name:
            # The SDK speaks TLS with Azure, unless it is told where to go.
            options |= {"azure_endpoint": sim.azure_url, "api_version": "2025-08-28"}
            options["websocket_base_url"] = f"{sim.live_url}/openai"
        else:
            options["base_url"] = sim.openai_url
        return getattr(openai, name)(**options)

    return make


def realtime(client: Any, _spoken: bool) -> Any:
    return client.realtime.connect(model=REALTIME)


def beta(client: Any, _spoken: bool) -> Any:
    return client.beta.realtime.connect(model=REALTIME)


def realtime_class(name: str, module: str = "openai.resources.realtime.realtime") -> Callable[[], type]:
    def find() -> type:
        import importlib

        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]

    return find


async def in_writing(talk: Talk) -> None:
    await settled(talk.connection.session.update(session={"type": "realtime", "output_modalities": ["text"]}))


async def beta_in_writing(talk: Talk) -> None:
    await settled(talk.connection.session.update(session={"modalities": ["text"]}))


COUNTED = {
    "input_tokens": 1_200,
    "input_audio_tokens": 700,
    "input_image_tokens": 100,
    "cached_tokens": 900,
    "output_tokens": 150,
    "output_audio_tokens": 90,
}
USAGE = {
    "input_tokens": 1_200,
    "input_text_tokens": 400,
    "input_audio_tokens": 700,
    "input_image_tokens": 100,
    "cache_read_tokens": 900,
    "cache_read_text_tokens": 400,
    "cache_read_audio_tokens": 500,
    "cache_read_image_tokens": 0,
    "output_tokens": 150,
    "output_text_tokens": 60,
    "output_audio_tokens": 90,
}


def openai_row(name: str, client: str, path: str = "/v1/realtime", provider: str = "openai", **more: Any) -> Live:
    mode = "Async" if client.startswith("Async") else ""
    row: dict[str, Any] = {
        "sdk": "openai",
        "client": openai_client(client),
        "talk": OpenAITalk,
        "connect": realtime,
        "classes": realtime_class(f"{mode}Realtime"),
        "counted": COUNTED,
        "usage": USAGE,
        "provider": provider,
        "model": REALTIME,
        "operation": "chat",
        "path": path,
        "written": in_writing,
    }
    return Live(name, **(row | more))


def beta_row(name: str, client: str) -> Live:
    mode = "Async" if client.startswith("Async") else ""
    module = "openai.resources.beta.realtime.realtime"
    return openai_row(
        name, client, connect=beta, written=beta_in_writing, classes=realtime_class(f"{mode}Realtime", module)
    )


RESPONSE_COUNTED = {"input_tokens": 1_200, "cached_tokens": 900, "output_tokens": 150, "reasoning_tokens": 40}
RESPONSE_USAGE = {
    "input_tokens": 1_200,
    "cache_read_tokens": 900,
    "cache_write_tokens": 0,
    "output_tokens": 150,
    "reasoning_tokens": 40,
}


def responses(client: Any, _spoken: bool) -> Any:
    return client.responses.connect()


def responses_row(name: str, client: str, path: str = "/v1/responses", provider: str = "openai") -> Live:
    owner = realtime_class(f"{'Async' * client.startswith('Async')}Responses", "openai.resources.responses.responses")

    def find() -> type:
        if not hasattr(owner(), "connect"):
            raise ImportError
        return owner()

    return openai_row(
        name, client, path, provider, talk=ResponsesTalk, connect=responses, classes=find, speaks=False,
        counted=RESPONSE_COUNTED, usage=RESPONSE_USAGE, model="gpt-5-mini", written=lambda _talk: settled(None),
    )  # fmt: skip


# --- Google ----------------------------------------------------------------------------------------------------------

GEMINI = "gemini-live-2.5-flash-preview"


def studio(sim: Simulator) -> Any:
    from google import genai

    client = genai.Client(api_key="any", vertexai=False, http_options=google_options(sim.google_url))
    # The SDK speaks TLS with AI Studio, wherever it is.
    client._api_client._websocket_base_url = lambda *_: sim.live_url
    client._api_client._websocket_ssl_ctx = {}
    return client


def vertex(sim: Simulator) -> Any:
    """By way of a gateway, which the SDK takes as it is."""
    from google import genai

    url = f"{sim.live_url}/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
    client = genai.Client(vertexai=True, http_options=google_options(url))
    client._api_client._websocket_ssl_ctx = {}
    return client


def google_options(url: str) -> dict[str, Any]:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    arguments: dict[str, Any] = {"verify": context}
    return {"base_url": url, "client_args": arguments, "async_client_args": arguments | {"ssl": context}}


def google_live(client: Any, spoken: bool) -> Any:
    modality = "AUDIO" if spoken else "TEXT"
    config = {"response_modalities": [modality], "system_instruction": "Be brief."}
    return client.aio.live.connect(model=GEMINI, config=config)


def live_class() -> type:
    from google.genai import live

    return live.AsyncLive


GOOGLE_COUNTED = {
    "input_tokens": 1_200,
    "cached_tokens": 700,
    "input_audio_tokens": 300,
    "input_image_tokens": 20,
    "tool_use_input_tokens": 100,
    "output_tokens": 150,
    "output_audio_tokens": 60,
    "reasoning_tokens": 40,
}
GOOGLE_USAGE = {
    "input_tokens": 1_200,
    "input_text_tokens": 880,
    "input_audio_tokens": 300,
    "input_image_tokens": 20,
    "cache_read_tokens": 700,
    "cache_read_text_tokens": 700,
    "cache_read_audio_tokens": 0,
    "cache_read_image_tokens": 0,
    "tool_use_input_tokens": 100,
    "output_tokens": 150,
    "output_text_tokens": 50,
    "output_audio_tokens": 60,
    "reasoning_tokens": 40,
}


def google_row(name: str, client: Callable[[Simulator], Any], provider: str, path: str) -> Live:
    return Live(
        name, "google.genai", client, GoogleTalk, google_live, live_class, GOOGLE_COUNTED, GOOGLE_USAGE, provider,
        GEMINI, "generate_content", path,
    )  # fmt: skip


ROWS = (
    openai_row("openai", "OpenAI"),
    openai_row("openai-async", "AsyncOpenAI"),
    openai_row("azure", "AzureOpenAI", "/openai/realtime", "azure.ai.openai"),
    openai_row("azure-async", "AsyncAzureOpenAI", "/openai/realtime", "azure.ai.openai"),
    beta_row("openai-beta", "OpenAI"),
    beta_row("openai-beta-async", "AsyncOpenAI"),
    responses_row("responses", "OpenAI"),
    responses_row("responses-async", "AsyncOpenAI"),
    responses_row("responses-azure", "AzureOpenAI", "/openai/responses", "azure.ai.openai"),
    responses_row("responses-azure-async", "AsyncAzureOpenAI", "/openai/responses", "azure.ai.openai"),
    google_row("gemini", studio, "gcp.gemini", "/ws/google.ai.generativelanguage"),
    google_row("vertex", vertex, "gcp.vertex_ai", "/ws/google.cloud.aiplatform"),
)


CORE = tuple(row for row in ROWS if row.name in ("openai", "openai-async", "gemini", "responses"))


def every_row(test: Any) -> Any:
    """Run a test for every row there is."""
    test.every_row = True
    return test


def spoken(test: Any) -> Any:
    """Run a test only for rows where the model listens."""
    test.spoken = True
    return test


def in_our_terms(row: Live) -> tb.TokenUsage:
    return tb.TokenUsage(**row.usage)


def say(session: Session, message: Any) -> Any:
    """What a session makes of a message that the program sends."""
    return run(session.sending(message), session.door.meter.enforcer.way)
