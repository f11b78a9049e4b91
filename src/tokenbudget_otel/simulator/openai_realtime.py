"""OpenAI's live connections and Azure's: the Realtime API, in the names of today and in those of the beta, and the
Responses API over a websocket."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tokenbudget_otel.simulator.errors import OPENAI, wording
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.openai_responses import create
from tokenbudget_otel.simulator.openai_usage import audio_usage, report, responses_usage
from tokenbudget_otel.simulator.sse import Frame
from tokenbudget_otel.simulator.text import count_words
from tokenbudget_otel.simulator.usage import Usage, measure, measure_prompt
from tokenbudget_otel.simulator.websockets import Conversation, is_silence

BYTES_PER_TOKEN: Final = 2_400
"""Of audio that the model speaks: 50 ms, 24,000 samples of two bytes a second."""
HEARD_BYTES_PER_TOKEN: Final = 4_800
"""Of audio that it hears: 100 ms."""
TOKENS_PER_WORD: Final = 6
"""Audio tokens that a spoken word takes."""

BETA: Final = {
    "response.output_text": "response.text",
    "response.output_audio_transcript": "response.audio_transcript",
    "response.output_audio": "response.audio",
}


class Realtime(Conversation):
    """One session. With voice activity detection, a chunk of audio that is all silence ends what the user says."""

    async def opened(self) -> None:
        self.beta = "openai-beta" in self.socket.headers
        self.audio = 0
        self.number = 0
        self.model = self.query.get("deployment") or self.query.get("model") or "gpt-realtime"
        self.session: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": f"sess_{self.state.seed:012x}",
            "model": self.model,
            "instructions": "You are a helpful assistant.",
            "tools": [],
        }
        detection = {"type": "server_vad", "create_response": True, "interrupt_response": True}
        if self.beta:
            self.session |= {"modalities": ["text", "audio"], "input_audio_format": "pcm16"}
            self.session |= {"output_audio_format": "pcm16", "turn_detection": detection}
            self.session |= {"input_audio_transcription": None, "max_response_output_tokens": "inf"}
        else:
            pcm = {"type": "audio/pcm", "rate": 24_000}
            incoming = {"format": pcm, "transcription": None, "turn_detection": detection, "noise_reduction": None}
            self.session["output_modalities"] = ["audio"]
            self.session["audio"] = {"input": incoming, "output": {"format": pcm, "voice": "marin", "speed": 1.0}}
            self.session["max_output_tokens"] = "inf"
        if self.query.get("intent") == "transcription":
            self.session["type"] = "transcription"
        await self.event("session.created", session=self.session)

    async def event(self, kind: str, **fields: Any) -> None:
        self.number += 1
        await self.send({"type": self.name(kind), "event_id": f"event_{self.number:08x}", **fields})

    def name(self, kind: str) -> str:
        """The type of an event, as this version of the API calls it."""
        start, _, end = kind.rpartition(".")
        return f"{BETA.get(start, start)}.{end}" if self.beta else kind

    async def heard(self, message: Mapping[str, Any]) -> None:
        handle = _MESSAGES.get(str(message.get("type")))
        if handle is None:
            await self.refuse(message, "invalid_value", f"Invalid value: {message.get('type')!r}.")
        else:
            await handle(self, message)

    async def refuse(
        self, message: Mapping[str, Any], code: str, text: str, kind: str = "invalid_request_error"
    ) -> None:
        error = {"type": kind, "code": code, "message": text, "param": None, "event_id": message.get("event_id")}
        await self.event("error", error=error)

    @property
    def listens(self) -> dict[str, Any]:
        """How the session listens."""
        listens: dict[str, Any] = self.session if self.beta else self.session["audio"]["input"]
        return listens

    # --- messages ----------------------------------------------------------------------------------------------

    async def update(self, message: Mapping[str, Any]) -> None:
        _merge(self.session, message.get("session") or {})
        await self.event("session.updated", session=self.session)

    async def item(self, message: Mapping[str, Any]) -> None:
        item = {"id": f"item_{len(self.context):08x}", "object": "realtime.item", **(message.get("item") or {})}
        self.context.append(item)
        await self.event("conversation.item.created" if self.beta else "conversation.item.added", item=item)
        if not self.beta:
            await self.event("conversation.item.done", item=item)

    async def append(self, message: Mapping[str, Any]) -> None:
        audio = str(message.get("audio") or "")
        detection = self.listens.get("turn_detection")
        if detection is None or not is_silence(audio):
            if self.busy and detection is not None and detection.get("interrupt_response", True):
                await self.event("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_spoken")
                await self.interrupt()
            self.audio += len(base64.b64decode(audio))
            return
        if not self.audio:
            return
        await self.event("input_audio_buffer.speech_stopped", audio_end_ms=self.audio // 48, item_id="item_spoken")
        await self.commit(message)
        if detection.get("create_response", True):
            self.create({})

    async def commit(self, message: Mapping[str, Any]) -> None:
        if not self.audio:
            await self.refuse(message, "input_audio_buffer_commit_empty", "The buffer holds no audio.")
            return
        name = f"item_{len(self.context):08x}"
        await self.event("input_audio_buffer.committed", item_id=name, previous_item_id=None)
        seconds, self.audio = self.audio / 48_000, 0
        tokens = math.ceil(seconds * 48_000 / HEARD_BYTES_PER_TOKEN)
        self.context.append({"id": name, "type": "message", "role": "user", "audio_tokens": tokens})
        listens = self.listens
        transcription = listens.get("input_audio_transcription" if self.beta else "transcription")
        if transcription:
            await self.transcribe(name, str(transcription.get("model") or "whisper-1"), seconds)

    async def transcribe(self, name: str, model: str, seconds: float) -> None:
        exchange, epoch = self.aside({"model": model, "item": name})
        text, _ = exchange.write(4)
        usage = Usage(audio_seconds=seconds)
        if not model.startswith("whisper"):
            heard = math.ceil(seconds * 10)
            usage = Usage(input_tokens=heard, input_audio_tokens=heard, output_tokens=count_words(text))
        self.bill(exchange, usage, 1, epoch)
        kind = "conversation.item.input_audio_transcription.completed"
        await self.event(kind, item_id=name, content_index=0, transcript=text, usage=audio_usage(usage))

    async def cancel(self, message: Mapping[str, Any]) -> None:
        if not self.busy:
            text = "Cancellation failed: no active response found."
            await self.refuse(message, "response_cancel_not_active", text)
        else:
            await self.interrupt()

    async def asked(self, message: Mapping[str, Any]) -> None:
        if self.busy:
            text = "Conversation already has an active response in progress."
            await self.refuse(message, "conversation_already_has_active_response", text)
            return
        self.create(message)

    # --- a response --------------------------------------------------------------------------------------------

    def create(self, message: Mapping[str, Any]) -> None:
        exchange, epoch = self.enter({"model": self.model})
        self.say(lambda: self.respond(exchange, epoch, message))

    async def respond(self, exchange: Exchange, epoch: int, message: Mapping[str, Any]) -> None:
        behaviour, asked = exchange.behaviour, message.get("response") or {}
        if behaviour.latency_s:
            await asyncio.sleep(behaviour.latency_s)
        if behaviour.timeout:
            await asyncio.Event().wait()
        if behaviour.drop:
            self.hang_up()
            return
        if behaviour.status != 200:
            said = wording(OPENAI, behaviour.status, behaviour.error_message)
            await self.refuse(message, said.code or said.type, said.message, said.type)
            return
        written, spoken, usage = self.write(exchange, asked)
        response: dict[str, Any] = {
            "object": "realtime.response",
            "id": exchange.id("resp_"),
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": "conv_1",
            "max_output_tokens": asked.get("max_output_tokens") or "inf",
            "modalities" if self.beta else "output_modalities": ["audio" if spoken else "text"],
            "metadata": asked.get("metadata"),
            "usage": None,
        }
        await self.event("response.created", response=response)
        place = {"response_id": response["id"], "item_id": exchange.id("item_"), "output_index": 0}
        pieces = self.deltas(written, spoken, usage, place | {"content_index": 0})
        for call in behaviour.tool_calls:
            at = place | {"output_index": 1, "call_id": exchange.id("call_"), "name": call.name}
            pieces.append({"type": "response.function_call_arguments.delta", **at, "delta": call.json})
        self.sent, ending = 0, "client_gone"
        try:
            ending = await self.pieces(behaviour, pieces) or "completed"
        finally:
            share = self.sent / len(pieces) if pieces else float(ending == "completed")
            whole = ending == "completed" and behaviour.outcome == "completed"
            # What the client did not ask to end is billed to the end.
            self.bill(exchange, usage, 1.0 if whole else min(share, 0.999_999), epoch)
        if ending in ("cut_after", "silent_end_after", "malformed_after"):
            await _break_off(self, ending)
            return
        self.context.append(
            {"role": "assistant", "text": written, "audio_tokens": usage.until(share).output_audio_tokens}
        )
        await self.done(exchange, response, usage if whole else usage.until(share), ending)

    def write(self, exchange: Exchange, asked: Mapping[str, Any]) -> tuple[str, bool, Usage]:
        """The words of a response, whether they are spoken, and what it uses."""
        names = ("output_modalities", "modalities")
        modalities = next((one[name] for one in (asked, self.session) for name in names if one.get(name)), ["audio"])
        spoken, behaviour = "audio" in modalities, exchange.behaviour
        limit = asked.get("max_output_tokens") or asked.get("max_response_output_tokens")
        text, _ = ("", False) if behaviour.tool_calls and not behaviour.text else exchange.write(limit)
        words = count_words(text) + sum(count_words(call.json) + 1 for call in behaviour.tool_calls)
        if spoken and behaviour.output_tokens is None and not behaviour.output_audio_tokens:
            behaviour = replace(behaviour, output_audio_tokens=TOKENS_PER_WORD * count_words(text))
        heard = sum(item.get("audio_tokens") or 0 for item in self.context)
        if heard and behaviour.input_tokens is None and not behaviour.input_audio_tokens:
            behaviour = replace(behaviour, input_audio_tokens=heard)
        prompt = measure_prompt(self.session["instructions"], asked.get("instructions"), self.context)
        return text, spoken, measure(behaviour, prompt, words)

    def deltas(self, text: str, spoken: bool, usage: Usage, place: dict[str, Any]) -> list[dict[str, Any]]:
        # What is cut in pieces is billed in pieces: one piece of words, and their sound.
        words = text.split(" ") if text else []
        pieces = [word if not number else f" {word}" for number, word in enumerate(words)]
        if not spoken:
            return [{"type": self.name("response.output_text.delta"), **place, "delta": piece} for piece in pieces]
        made: list[dict[str, Any]] = []
        left = usage.output_audio_tokens
        for number, piece in enumerate(pieces):
            tokens = left // (len(pieces) - number)
            left -= tokens
            sound = base64.b64encode(b"\1" * (BYTES_PER_TOKEN * tokens)).decode()
            made.append({"type": self.name("response.output_audio_transcript.delta"), **place, "delta": piece})
            made.append({"type": self.name("response.output_audio.delta"), **place, "delta": sound})
        return made

    async def done(self, exchange: Exchange, response: dict[str, Any], usage: Usage, ending: str) -> None:
        behaviour = exchange.behaviour
        status, details = behaviour.outcome, None
        if ending == "stopped":
            status, details = "cancelled", {"type": "cancelled", "reason": "client_cancelled"}  # type: ignore[assignment]
        elif ending == "error_event_after" or status == "failed":
            said = wording(OPENAI, 500)
            status = "failed"
            error = {"type": said.type, "code": said.type, "message": behaviour.error_message or said.message}
            details = {"type": "failed", "error": error}  # type: ignore[dict-item]
        elif status == "incomplete":
            details = {"type": "incomplete", "reason": behaviour.finish_reason or "max_output_tokens"}
        elif details is None:
            details = {"type": "completed"}
        final = response | {"status": status, "status_details": details}
        final["output"] = [{"id": exchange.id("item_"), "type": "message", "role": "assistant", "content": []}]
        final.pop("usage")
        await self.event("response.done", response=report(final, behaviour, realtime_usage(usage)))


def realtime_usage(usage: Usage) -> dict[str, Any]:
    """Of a response: input and cached input by modality, of which the cache holds text first.

    Example:
        >>> shape = realtime_usage(Usage(input_tokens=100, input_audio_tokens=60, cached_tokens=50, output_tokens=9))
        >>> shape["input_token_details"]["cached_tokens_details"]
        {'text_tokens': 40, 'audio_tokens': 10, 'image_tokens': 0}
    """
    audio, image = usage.input_audio_tokens, usage.input_image_tokens
    plain, cached = usage.input_tokens - audio - image, usage.cached_tokens
    text = min(cached, plain)
    spoken = min(cached - text, audio)
    parts = {"text_tokens": text, "audio_tokens": spoken, "image_tokens": cached - text - spoken}
    details = {"text_tokens": plain, "audio_tokens": audio, "image_tokens": image, "cached_tokens": cached}
    written = usage.output_audio_tokens
    return {
        "total_tokens": usage.total_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": details | {"cached_tokens_details": parts},
        "output_token_details": {"text_tokens": usage.output_tokens - written, "audio_tokens": written},
    }


def _merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            target[name] = value


_MESSAGES: Final = {
    "session.update": Realtime.update,
    "conversation.item.create": Realtime.item,
    "input_audio_buffer.append": Realtime.append,
    "input_audio_buffer.commit": Realtime.commit,
    "response.create": Realtime.asked,
    "response.cancel": Realtime.cancel,
}


# --- responses -----------------------------------------------------------------------------------------------------


class Responses(Conversation):
    """One connection of the Responses API: responses one after the other, each in the events of a streamed
    ``POST /responses``, with the ``stream_id`` that was asked for. What steers the response under way ends it, and
    another one that goes on from there follows by itself."""

    async def opened(self) -> None:
        self.active: dict[str, Any] = {}
        """The response under way."""
        self.asked: dict[str, Any] = {}
        """What it was asked with."""
        self.following: tuple[Exchange, int] | None = None
        """The response that follows it by itself."""

    async def send(self, message: Any) -> None:
        for one in message if isinstance(message, list) else (message,):
            await super().send(one)

    async def heard(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "response.create":
            body = {name: value for name, value in message.items() if name != "type"}
            exchange, epoch = self.enter({**body, "stream": True})
            before = self.speaking if self.busy else None
            self.speaking = asyncio.create_task(self._speak(lambda: self.respond(exchange, epoch, before)))
        elif kind == "response.steer":
            await self.steer(message)
        else:
            await self.refuse({"type": "invalid_request_error", "code": "invalid_value", "param": "type"}, 400, {})

    async def refuse(self, error: dict[str, Any], status: int, lane: dict[str, Any]) -> None:
        error = {"message": "Invalid value in the request.", "param": None, **error}
        await self.send({"type": "error", "status": status, "error": error, **lane})

    async def steer(self, message: Mapping[str, Any]) -> None:
        parent = message.get("previous_response_id")
        steer = {"previous_response_id": parent}
        event: dict[str, Any] = {"sequence_number": 0, **_lane(self.asked)}
        if self.active.get("id") != parent:
            steer["input"] = message.get("input")
            error = {"type": "invalid_request_error", "code": "response_not_active", "message": "It is not active."}
            await self.send({"type": "response.steer.failed", "steer": steer, "error": error, **event})
            return
        self.following = self.enter({**self.asked, **steer, "input": message.get("input")})
        steer["id"] = self.following[0].id("steer_")
        await self.send({"type": "response.steer.accepted", "steer": steer, **event})
        self.stop.set()

    async def respond(self, exchange: Exchange, epoch: int, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        self.following = (exchange, epoch)
        while self.following is not None:
            (exchange, epoch), self.following = self.following, None
            self.stop.clear()
            await self.answer(exchange, epoch)

    async def answer(self, exchange: Exchange, epoch: int) -> None:
        behaviour, lane = exchange.behaviour, _lane(exchange.body)
        if behaviour.latency_s:
            await asyncio.sleep(behaviour.latency_s)
        if behaviour.timeout:
            await asyncio.Event().wait()
        if behaviour.drop:
            self.hang_up()
            return
        if behaviour.status != 200:
            said = wording(OPENAI, behaviour.status, behaviour.error_message)
            await self.refuse(said._asdict(), behaviour.status, lane)
            return
        reply = create(exchange)
        head, pieces, tail = _parts(reply.frames or [], lane)
        self.active, self.asked = tail[-1]["response"], exchange.body
        ending, usage, self.sent = "client_gone", reply.usage, 0
        try:
            await self.send(head)
            ending = await self.pieces(behaviour, pieces) or "completed"
        finally:
            done, share = ending == "completed", self.sent / max(1, len(pieces))
            if usage is not None:
                self.bill(exchange, usage, 1.0 if done else min(share, 0.999_999), epoch)
            final, self.active = self.active, {}
        if done:
            await self.send(tail)
        elif ending == "stopped" and usage is not None:
            final |= {"status": "incomplete", "incomplete_details": {"reason": "steered"}}
            final["usage"] = responses_usage(usage.until(min(share, 0.999_999)))
            await self.send({**tail[-1], "type": "response.incomplete"})
        elif ending == "error_event_after":
            number = tail[0]["sequence_number"]
            error = wording(OPENAI, 500)._asdict() | {"param": None}
            await self.send({"type": "error", "error": error, "sequence_number": number, **lane})
        else:
            await _break_off(self, ending)


def _lane(body: Mapping[str, Any]) -> dict[str, Any]:
    """What every event of a response has that was asked for in a lane of its own."""
    return {"stream_id": body["stream_id"]} if body.get("stream_id") else {}


def _parts(frames: list[Frame], lane: dict[str, Any]) -> tuple[list[Any], list[list[Any]], list[Any]]:
    """The events of a stream: those before the first chunk of the answer, the chunks with what follows each, and those
    after the last chunk."""
    events = [json.loads(frame.data.partition(b"data: ")[2]) | lane for frame in frames]
    places = [place for place, frame in enumerate(frames) if frame.content]
    if not places:
        return events[:-1], [], events[-1:]
    # The last chunk is followed by what ends the answer.
    ends = [*places[1:], places[-1] + 1]
    chunks = [events[start:end] for start, end in zip(places, ends, strict=True)]
    return events[: places[0]], chunks, events[ends[-1] :]


async def _break_off(conversation: Conversation, ending: str) -> None:
    """End a connection in the middle of an answer."""
    if ending == "malformed_after":
        await conversation.socket.send_text('{"type":"response.output_text.delta","delta":"\\')
    if ending == "silent_end_after":
        await conversation.socket.close(1000)
    conversation.hang_up()
