"""OpenAI's audio: transcriptions, translations and speech."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from typing import Any

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.multipart import Upload
from tokenbudget_otel.simulator.openai_chat import STREAM_ERROR
from tokenbudget_otel.simulator.openai_usage import audio_usage, report
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import Frame, data_frame, dump
from tokenbudget_otel.simulator.text import count_words
from tokenbudget_otel.simulator.usage import Usage, measure, measure_prompt

_BYTES_PER_SECOND = 32_000
"""Of the audio that is uploaded: 16 bits, 16 kHz, one channel."""
_TOKENS_PER_SECOND = 10
_TOKENS_PER_WORD = 6
"""Audio tokens that a spoken word takes."""


def transcriptions(exchange: Exchange) -> Reply:
    """POST /audio/transcriptions"""
    text, _ = exchange.write()
    usage = _heard(exchange, text)
    asked = exchange.body.get("response_format")
    if exchange.streaming:
        frames = [
            data_frame({"type": "transcript.text.delta", "delta": piece}, content=True) for piece in exchange.cut(text)
        ]
        done = {"type": "transcript.text.done", "text": text}
        return _stream(exchange, usage, [*frames, data_frame(report(done, exchange.behaviour, audio_usage(usage)))])
    if asked in ("text", "srt", "vtt"):
        return _plain(exchange, usage, text, asked)
    whole: dict[str, Any] = {"text": text}
    if asked == "verbose_json":
        whole = _verbose(exchange, "transcribe", text)
    return Reply(dump(report(whole, exchange.behaviour, audio_usage(usage))), usage=usage, model=exchange.model)


def translations(exchange: Exchange) -> Reply:
    """POST /audio/translations: billed by the second, and without a word about it."""
    text, _ = exchange.write()
    usage = Usage(audio_seconds=_seconds(exchange))
    asked = exchange.body.get("response_format")
    if asked in ("text", "srt", "vtt"):
        return _plain(exchange, usage, text, asked)
    whole = _verbose(exchange, "translate", text) if asked == "verbose_json" else {"text": text}
    return Reply(dump(whole), usage=usage, model=exchange.model)


def speech(exchange: Exchange) -> Reply:
    """POST /audio/speech"""
    body, behaviour = exchange.body, exchange.behaviour
    spoken = str(body.get("input", ""))
    usage = Usage(input_characters=len(spoken))
    if not exchange.model.startswith("tts-"):
        if behaviour.output_tokens is None and not behaviour.output_audio_tokens:
            behaviour = replace(behaviour, output_audio_tokens=_TOKENS_PER_WORD * max(1, count_words(spoken)))
        elif not behaviour.output_audio_tokens:
            behaviour = replace(behaviour, output_audio_tokens=behaviour.output_tokens or 0)
        usage = measure(behaviour, measure_prompt(spoken, body.get("instructions")), 0)
        usage = replace(usage, input_characters=len(spoken))
    pieces = [word.encode().ljust(64, b"\0") for word in exchange.cut(spoken) or [""]]
    if body.get("stream_format") != "sse":
        kind = {"wav": "audio/wav", "opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "pcm": "audio/pcm"}
        content_type = kind.get(str(body.get("response_format")), "audio/mpeg")
        frames = [Frame(piece, content=True) for piece in pieces]
        return Reply(content_type=content_type, frames=frames, usage=usage, model=exchange.model)
    frames = [
        data_frame({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}, content=True)
        for piece in pieces
    ]
    shape = {name: getattr(usage, name) for name in ("input_tokens", "output_tokens", "total_tokens")}
    return _stream(
        exchange, usage, [*frames, data_frame(report({"type": "speech.audio.done"}, exchange.behaviour, shape))]
    )


def _stream(exchange: Exchange, usage: Usage, frames: list[Frame]) -> Reply:
    return Reply(
        content_type="text/event-stream; charset=utf-8",
        frames=frames,
        error_frame=lambda _place: STREAM_ERROR,
        usage=usage,
        model=exchange.model,
    )


def _seconds(exchange: Exchange) -> float:
    if exchange.behaviour.audio_seconds is not None:
        return exchange.behaviour.audio_seconds
    return float(max(1, math.ceil(_size(exchange) / _BYTES_PER_SECOND)))


def _size(exchange: Exchange) -> int:
    upload = exchange.body.get("file")
    return len(upload.content) if isinstance(upload, Upload) else 0


def _heard(exchange: Exchange, text: str) -> Usage:
    """By time for Whisper and where the behaviour gives the seconds, by tokens for the others."""
    behaviour = exchange.behaviour
    if behaviour.audio_seconds is not None or exchange.model.startswith("whisper"):
        return Usage(audio_seconds=_seconds(exchange))
    if behaviour.input_tokens is None and not behaviour.input_audio_tokens:
        behaviour = replace(behaviour, input_audio_tokens=math.ceil(_seconds(exchange) * _TOKENS_PER_SECOND))
    prompt = exchange.body.get("prompt")
    return measure(behaviour, measure_prompt(prompt) if prompt else 0, count_words(text))


def _plain(exchange: Exchange, usage: Usage, text: str, kind: str) -> Reply:
    times = {
        "srt": f"1\n00:00:00,000 --> 00:00:05,000\n{text}\n",
        "vtt": f"WEBVTT\n\n00:00.000 --> 00:05.000\n{text}\n",
    }
    body = times.get(kind, text + "\n").encode()
    return Reply(body, content_type="text/plain; charset=utf-8", usage=usage, model=exchange.model)


def _verbose(exchange: Exchange, task: str, text: str) -> dict[str, Any]:
    seconds = _seconds(exchange)
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": seconds,
        "text": text,
        "tokens": [50364],
        "temperature": 0.0,
        "avg_logprob": -0.2,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.01,
    }
    return {"task": task, "language": "english", "duration": seconds, "text": text, "segments": [segment]}
