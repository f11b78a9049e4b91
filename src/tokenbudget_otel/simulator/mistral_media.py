"""Mistral's embeddings, documents, audio and classifiers."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from typing import Any

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.mistral_chat import stream
from tokenbudget_otel.simulator.mistral_usage import chat_usage
from tokenbudget_otel.simulator.multipart import Upload
from tokenbudget_otel.simulator.openai_usage import report
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import dump, event_frame
from tokenbudget_otel.simulator.text import count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

_BYTES_PER_SECOND = 32_000
_PAGES = 2
"""Pages of a document, unless the request names those that it wants."""


def embeddings(exchange: Exchange) -> Reply:
    """POST /embeddings"""
    inputs = exchange.body.get("input")
    inputs = inputs if isinstance(inputs, list) else [inputs]
    usage = replace(exchange.measure(sum(measure_prompt(text) for text in inputs), 0), output_tokens=0)
    width = int(exchange.body.get("output_dimension") or 16)
    data = [
        {"object": "embedding", "index": place, "embedding": [((place + spot) % 31 - 15) / 16 for spot in range(width)]}
        for place in range(len(inputs))
    ]
    whole = {"id": exchange.key, "object": "list", "data": data, "model": exchange.model}
    return _json(exchange, whole, usage)


def ocr(exchange: Exchange) -> Reply:
    """POST /ocr: billed by the page."""
    asked = exchange.body.get("pages")
    numbers = asked if isinstance(asked, list) else list(range(_PAGES))
    size = {"dpi": 200, "height": 2200, "width": 1700}
    pages: list[dict[str, Any]] = [
        {"index": number, "markdown": write(exchange.number + number, 12), "images": [], "dimensions": size}
        for number in numbers
    ]
    whole: dict[str, Any] = {"pages": pages, "model": exchange.model, "document_annotation": None}
    if exchange.behaviour.usage != "absent":
        shape = {"pages_processed": len(pages), "doc_size_bytes": 4096}
        whole["usage_info"] = shape if exchange.behaviour.usage == "present" else None
    return Reply(dump(whole), usage=Usage(), model=exchange.model)


def transcriptions(exchange: Exchange) -> Reply:
    """POST /audio/transcriptions: billed by the second; the tokens are told beside it."""
    text, _ = exchange.write()
    seconds = exchange.behaviour.audio_seconds
    if seconds is None:
        upload = exchange.body.get("file")
        seconds = max(1, math.ceil(len(upload.content) / _BYTES_PER_SECOND)) if isinstance(upload, Upload) else 60
    usage = replace(exchange.measure(4, count_words(text)), audio_seconds=float(seconds))
    shape = chat_usage(exchange, usage)
    told: dict[str, Any] = {"model": exchange.model, "text": text, "language": None, "segments": []}
    if not exchange.streaming:
        return _json(exchange, told, usage)
    frames = [
        event_frame({"type": "transcription.text.delta", "text": piece}, content=True) for piece in exchange.cut(text)
    ]
    done = report({"type": "transcription.done"} | told, exchange.behaviour, shape)
    return stream(usage, [*frames, event_frame(done)], exchange.model)


def speech(exchange: Exchange) -> Reply:
    """POST /audio/speech"""
    spoken = str(exchange.body.get("input", ""))
    usage = exchange.measure(measure_prompt(spoken), 6 * count_words(spoken))
    pieces = [word.encode().ljust(64, b"\0") for word in exchange.cut(spoken) or [""]]
    if not exchange.streaming:
        whole = {"audio_data": base64.b64encode(b"".join(pieces)).decode()}
        return Reply(dump(whole), usage=usage, model=exchange.model)
    frames = [
        event_frame({"type": "speech.audio.delta", "audio_data": base64.b64encode(piece).decode()}, content=True)
        for piece in pieces
    ]
    done = report({"type": "speech.audio.done"}, exchange.behaviour, chat_usage(exchange, usage))
    return stream(usage, [*frames, event_frame(done)], exchange.model)


def moderations(exchange: Exchange) -> Reply:
    """POST /moderations and /chat/moderations"""
    scores = {"sexual": 0.01, "violence_and_threats": 0.02}
    result = {"categories": dict.fromkeys(scores, False), "category_scores": scores}
    return _judged(exchange, result)


def classifications(exchange: Exchange) -> Reply:
    """POST /classifications and /chat/classifications"""
    return _judged(exchange, {"mood": {"scores": {"calm": 0.9, "wild": 0.1}}})


def _judged(exchange: Exchange, result: dict[str, Any]) -> Reply:
    given = exchange.body.get("input")
    inputs = given if isinstance(given, list) else [given]
    usage = replace(exchange.measure(measure_prompt(inputs), 0), output_tokens=0)
    whole = {"id": exchange.id("mod-"), "model": exchange.model, "results": [result for _ in inputs]}
    return _json(exchange, whole, usage)


def _json(exchange: Exchange, whole: dict[str, Any], usage: Usage) -> Reply:
    told = report(whole, exchange.behaviour, chat_usage(exchange, usage))
    return Reply(dump(told), usage=usage, model=exchange.model)
