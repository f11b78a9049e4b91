"""Gemini's Live API, of AI Studio and of Vertex AI: JSON messages over a websocket."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tokenbudget_otel.simulator.errors import GOOGLE, wording
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.google_usage import report, usage_metadata
from tokenbudget_otel.simulator.text import count_words
from tokenbudget_otel.simulator.usage import Usage, measure_prompt
from tokenbudget_otel.simulator.websockets import Conversation, is_silence

BYTES_PER_TOKEN: Final = 1_920
"""Of audio that the model speaks: 40 ms, 24,000 samples of two bytes a second."""
HEARD_BYTES_PER_TOKEN: Final = 1_280
"""Of audio that it hears: 40 ms, 16,000 samples of two bytes a second."""
TOKENS_PER_WORD: Final = 8
"""Audio tokens that a spoken word takes."""


class GoogleLive(Conversation):
    """One session of AI Studio. A chunk of audio that is all silence ends what the user says."""

    text = False
    vertex = False

    async def heard(self, message: Mapping[str, Any]) -> None:
        for name, handle in _MESSAGES.items():
            for written in (name, _camel(name)):
                if isinstance(message.get(written), Mapping):
                    await handle(self, message[written])
                    return
        await self.socket.close(1007, "Invalid JSON payload received.")

    async def setup(self, setup: Mapping[str, Any]) -> None:
        self.settings = setup
        self.model = str(setup.get("model") or "").rpartition("/")[2]
        config = setup.get("generationConfig") or {}
        self.spoken = "AUDIO" in (config.get("responseModalities") or ["AUDIO"])
        self.audio = 0
        self.answered = asyncio.Event()
        self.calls_tools = False
        await self.send({"setupComplete": {"sessionId": f"live_{self.state.seed}"} if self.vertex else {}})

    async def content(self, content: Mapping[str, Any]) -> None:
        self.context.append(content.get("turns"))
        if content.get("turnComplete") or content.get("turn_complete"):
            await self.interrupt()
            self.create()

    async def realtime(self, incoming: Mapping[str, Any]) -> None:
        if (text := incoming.get("text")) is not None:
            self.context.append(text)
            await self.interrupt()
            self.create()
            return
        chunks = [incoming.get("audio"), *(incoming.get("mediaChunks") or ())]
        sound = [str(chunk.get("data") or "") for chunk in chunks if isinstance(chunk, Mapping)]
        stopped = "activityEnd" in incoming or "audioStreamEnd" in incoming or any(is_silence(one) for one in sound)
        if not stopped:
            if sound and self.busy:
                await self.interrupt()
            self.audio += sum(len(base64.b64decode(one)) for one in sound)
        elif self.audio:
            self.context.append({"audio_tokens": self.audio // HEARD_BYTES_PER_TOKEN})
            self.audio = 0
            await self.interrupt()
            self.create()

    async def tool(self, answer: Mapping[str, Any]) -> None:
        self.context.append(answer)
        self.answered.set()

    # --- a turn ------------------------------------------------------------------------------------------------

    def create(self) -> None:
        exchange, epoch = self.enter({"model": self.model})
        self.answered.clear()
        self.say(lambda: self.respond(exchange, epoch))

    async def respond(self, exchange: Exchange, epoch: int) -> None:
        behaviour = exchange.behaviour
        if behaviour.latency_s:
            await asyncio.sleep(behaviour.latency_s)
        if behaviour.timeout:
            await asyncio.Event().wait()
        if behaviour.drop:
            self.hang_up()
            return
        if behaviour.status != 200:
            said = wording(GOOGLE, behaviour.status, behaviour.error_message)
            await self.socket.close(1008 if behaviour.status < 500 else 1011, said.message[:120])
            return
        if behaviour.tool_calls:
            calls = [
                {"id": exchange.id("call_", place), "name": call.name, "args": dict(call.arguments)}
                for place, call in enumerate(behaviour.tool_calls)
            ]
            await self.send({"toolCall": {"functionCalls": calls}})
            await self.answered.wait()
        text, usage = self.write(exchange)
        pieces = self.messages(text, usage)
        self.sent, ending = 0, "client_gone"
        try:
            ending = await self.pieces(behaviour, pieces) or "completed"
        finally:
            share = self.sent / len(pieces) if pieces else float(ending == "completed")
            self.bill(exchange, usage, 1.0 if ending == "completed" else min(share, 0.999_999), epoch)
        self.context.append(text)
        if ending in ("completed", "stopped"):
            used = usage if ending == "completed" else usage.until(min(share, 0.999_999))
            await self.send({"serverContent": {"generationComplete" if ending == "completed" else "interrupted": True}})
            last: dict[str, Any] = {"serverContent": {"turnComplete": True}}
            await self.send(report(last, behaviour, "usageMetadata", self.usage(used)))
            return
        if ending == "malformed_after":
            await self.socket.send_bytes(b'{"serverContent": {"modelTurn": {"parts": [{"text": "')
        elif ending == "error_event_after":
            await self.socket.close(1011, behaviour.error_message or wording(GOOGLE, 500).message)
        elif ending == "silent_end_after":
            await self.socket.close(1000)
        self.hang_up()

    def write(self, exchange: Exchange) -> tuple[str, Usage]:
        """The words of a turn, and what it uses."""
        behaviour = exchange.behaviour
        text, _ = exchange.write((self.settings.get("generationConfig") or {}).get("maxOutputTokens"))
        if self.spoken and behaviour.output_tokens is None and not behaviour.output_audio_tokens:
            spoken = TOKENS_PER_WORD * count_words(text)
            behaviour = replace(
                behaviour, output_tokens=spoken + behaviour.reasoning_tokens, output_audio_tokens=spoken
            )
        heard = sum(
            part["audio_tokens"] for part in self.context if isinstance(part, Mapping) and "audio_tokens" in part
        )
        if heard and behaviour.input_tokens is None and not behaviour.input_audio_tokens:
            behaviour = replace(behaviour, input_audio_tokens=heard)
        exchange.behaviour = behaviour
        prompt = measure_prompt(self.settings.get("systemInstruction"), self.context)
        return text, exchange.measure(prompt, count_words(text))

    def messages(self, text: str, usage: Usage) -> list[dict[str, Any]]:
        words = text.split(" ") if text else []
        parts: list[dict[str, Any]] = []
        left = usage.output_audio_tokens
        for number, word in enumerate(words):
            tokens = left // (len(words) - number)
            left -= tokens
            if self.spoken:
                sound = base64.b64encode(b"\1" * (BYTES_PER_TOKEN * tokens)).decode()
                parts.append({"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": sound}})
            else:
                parts.append({"text": word if not number else f" {word}"})
        return [{"serverContent": {"modelTurn": {"parts": [part]}}} for part in parts]

    def usage(self, usage: Usage) -> dict[str, Any]:
        """What this API reports: the response where others say candidates, and no thoughts in the total."""
        shape = usage_metadata(usage, vertex=self.vertex)
        if self.vertex:
            return shape
        shape["totalTokenCount"] -= usage.reasoning_tokens
        return {_LIVE_NAMES.get(name, name): value for name, value in shape.items()}


class VertexLive(GoogleLive):
    """One session of Vertex AI."""

    vertex = True


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


_LIVE_NAMES: Final = {
    "candidatesTokenCount": "responseTokenCount",
    "candidatesTokensDetails": "responseTokensDetails",
}

_MESSAGES: Final = {
    "setup": GoogleLive.setup,
    "client_content": GoogleLive.content,
    "realtime_input": GoogleLive.realtime,
    "tool_response": GoogleLive.tool,
}
