"""Together's API: chat and completions, embeddings, reranking, images and audio."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from tokenbudget_otel.simulator import openai_audio, openai_chat, openai_embeddings, openai_models
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import Host
from tokenbudget_otel.simulator.openai_chat import STREAM_ERROR
from tokenbudget_otel.simulator.openai_images import IMAGE
from tokenbudget_otel.simulator.openai_usage import chat_usage, report
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.routing import Table
from tokenbudget_otel.simulator.sse import DONE, Frame, data_frame, dump
from tokenbudget_otel.simulator.text import count_words
from tokenbudget_otel.simulator.usage import Usage, measure_prompt


def _plain(shape: dict[str, Any], usage: Usage, _behaviour: Any) -> dict[str, Any]:
    plain = {name: shape[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return plain | ({"cached_tokens": usage.cached_tokens} if usage.cached_tokens else {})


HOST: Final = Host("together", "together", usage=_plain, stream_usage="last")


def completions(exchange: Exchange) -> Reply:
    """POST /completions: as chat does, a stream ends with its usage."""
    text, short = exchange.write(exchange.body.get("max_tokens"))
    prompt = exchange.body.get("prompt")
    usage = exchange.measure(measure_prompt(prompt), count_words(text))
    finish = exchange.behaviour.finish_reason or ("length" if short else "stop")
    shape = _plain(chat_usage(usage), usage, exchange.behaviour)
    common = {"id": exchange.id(""), "created": exchange.created, "model": exchange.model}
    if not exchange.streaming:
        choice = {"text": text, "index": 0, "seed": 1, "finish_reason": finish, "logprobs": None}
        whole = common | {"object": "text.completion", "prompt": [], "choices": [choice]}
        return Reply(dump(report(whole, exchange.behaviour, shape)), usage=usage, model=exchange.model)
    common |= {"object": "completion.chunk"}
    frames = [
        data_frame(common | {"choices": [_piece(piece, None)], "token": _token(piece), "usage": None}, content=True)
        for piece in exchange.cut(text)
    ]
    last = common | {"choices": [_piece("", finish)], "token": _token(""), "finish_reason": finish}
    return _stream(exchange, [*frames, data_frame(report(last, exchange.behaviour, shape)), DONE], usage)


def _piece(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "delta": None, "finish_reason": finish}


def _token(text: str) -> dict[str, Any]:
    # The same text a second time, as Together sends it.
    return {"id": 1, "text": text, "logprob": 0.0, "special": False}


def rerank(exchange: Exchange) -> Reply:
    """POST /rerank: billed by the token."""
    body = exchange.body
    documents = body.get("documents") or []
    usage = exchange.measure(measure_prompt(body.get("query"), documents), 0)
    results = [
        {"index": place, "relevance_score": round(1 / (2 + place), 4), "document": {"text": str(text)}}
        for place, text in enumerate(documents[: body.get("top_n") or len(documents)])
    ]
    whole = {"object": "rerank", "id": exchange.id(""), "model": exchange.model, "results": results}
    shape = {"prompt_tokens": usage.input_tokens, "completion_tokens": 0, "total_tokens": usage.input_tokens}
    return Reply(dump(report(whole, exchange.behaviour, shape)), usage=usage, model=exchange.model)


def images(exchange: Exchange) -> Reply:
    """POST /images/generations: billed by the image or its pixels, without a word about it."""
    count = int(exchange.body.get("n") or 1)
    encoded = exchange.body.get("response_format") == "base64"
    picture = (
        {"type": "b64_json", "b64_json": IMAGE} if encoded else {"type": "url", "url": "https://example.com/1.png"}
    )
    data = [{"index": place} | picture for place in range(count)]
    whole = {"id": exchange.id(""), "object": "list", "model": exchange.model, "data": data}
    return Reply(dump(whole), usage=Usage(output_images=count), model=exchange.model)


def transcriptions(exchange: Exchange) -> Reply:
    """POST /audio/transcriptions: only ``verbose_json`` tells the length."""
    return _without_usage(openai_audio.transcriptions(exchange))


def translations(exchange: Exchange) -> Reply:
    """POST /audio/translations"""
    return _without_usage(openai_audio.translations(exchange))


def _without_usage(reply: Reply) -> Reply:
    if reply.content_type == "application/json":
        whole = json.loads(reply.body)
        whole.pop("usage", None)
        reply.body = dump(whole)
    return reply


def speech(exchange: Exchange) -> Reply:
    """POST /audio/speech: sound, or events with sound in base64."""
    if not exchange.streaming:
        return openai_audio.speech(exchange)
    spoken = str(exchange.body.get("input", ""))
    pieces = [word.encode().ljust(64, b"\0") for word in exchange.cut(spoken) or [""]]
    frames = [
        data_frame(
            {"object": "audio.tts.chunk", "model": exchange.model, "b64": base64.b64encode(piece).decode()},
            content=True,
        )
        for piece in pieces
    ]
    return _stream(exchange, [*frames, DONE], Usage(input_characters=len(spoken)))


def _stream(exchange: Exchange, frames: list[Frame], usage: Usage) -> Reply:
    return Reply(
        content_type="text/event-stream; charset=utf-8",
        frames=frames,
        error_frame=lambda _place: STREAM_ERROR,
        usage=usage,
        model=exchange.model,
    )


ROUTES: Final[Table] = {
    ("POST", "/chat/completions"): openai_chat.chat_completions,
    ("POST", "/completions"): completions,
    ("POST", "/embeddings"): openai_embeddings.embeddings,
    ("POST", "/rerank"): rerank,
    ("POST", "/images/generations"): images,
    ("POST", "/audio/transcriptions"): transcriptions,
    ("POST", "/audio/translations"): translations,
    ("POST", "/audio/speech"): speech,
    ("GET", "/models"): openai_models.models,
}
