"""Google's wire format: ``generateContent`` of AI Studio and Vertex AI, whole and streamed, and counting tokens."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from tokenbudget_otel.simulator.errors import google_error
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.google_interactions import ROUTES as INTERACTIONS
from tokenbudget_otel.simulator.google_media import batch_embed, embed, model_of, on_vertex, predict
from tokenbudget_otel.simulator.google_usage import report, searches, usage_metadata
from tokenbudget_otel.simulator.openai_images import IMAGE
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.routing import Table
from tokenbudget_otel.simulator.sse import Frame, data_frame, dump
from tokenbudget_otel.simulator.text import answer_schema, count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

Part = dict[str, Any]

_BROKEN: Final = Frame(b'data: {"candidates": [{"content": {"parts": [{"text": "\n\n')


def count_tokens(exchange: Exchange) -> Reply:
    """POST …:countTokens"""
    given = exchange.behaviour.input_tokens
    return Reply(dump({"totalTokens": _count(exchange) if given is None else given}))


def generate(exchange: Exchange) -> Reply:
    """POST …:generateContent"""
    parts, reason, usage = _work(exchange)
    model = model_of(exchange)
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "finishReason": reason, "index": 0}
    if exchange.behaviour.web_searches:
        candidate["groundingMetadata"] = _grounding(exchange)
    whole: dict[str, Any] = {"candidates": [candidate]}
    report(whole, exchange.behaviour, "usageMetadata", _shape(exchange, usage))
    whole |= {"modelVersion": model, "responseId": exchange.id("r")}
    return Reply(dump(whole), headers=_headers(exchange), usage=usage, model=model)


def stream(exchange: Exchange) -> Reply:
    """POST …:streamGenerateContent: events where they are asked for (``alt=sse``), else one JSON array in pieces."""
    parts, reason, usage = _work(exchange)
    model = model_of(exchange)
    events = list(_events(exchange, parts, reason, usage, model))
    if "alt=sse" in exchange.query:
        frames = [data_frame(event, content) for event, content in events]
        kind = "text/event-stream"
    else:
        frames = [
            Frame((b"," if place else b"[") + dump(event) + b"\r\n", content)
            for place, (event, content) in enumerate(events)
        ]
        frames.append(Frame(b"]"))
        kind = "application/json"
    return Reply(
        content_type=kind,
        headers=_headers(exchange),
        frames=frames,
        error_frame=lambda _place: data_frame(google_error(503)),
        broken_frame=_BROKEN,
        usage=usage,
        model=model,
    )


def _count(exchange: Exchange) -> int:
    body = exchange.body
    return measure_prompt(body.get("systemInstruction"), body.get("contents"), body.get("tools"))


def _headers(exchange: Exchange) -> dict[str, str]:
    """AI Studio says in a header which tier has served a request; Vertex AI says it in the usage."""
    if on_vertex(exchange):
        return {}
    return {"x-gemini-service-tier": exchange.behaviour.service_tier or exchange.body.get("serviceTier") or "standard"}


def _shape(exchange: Exchange, usage: Usage) -> dict[str, Any]:
    tier = exchange.behaviour.service_tier or exchange.body.get("serviceTier")
    return usage_metadata(usage, vertex=on_vertex(exchange), tier=tier)


def _work(exchange: Exchange) -> tuple[list[Part], str, Usage]:
    """What the model writes, why it stops, and what it used."""
    behaviour, body = exchange.behaviour, exchange.body
    if not body.get("contents"):
        raise RefusedError(400, dump(google_error(400, "* GenerateContentRequest.contents: contents is not specified")))
    config = body.get("generationConfig") or {}
    parts: list[Part] = []
    if behaviour.thinking is not None or (
        behaviour.reasoning_tokens and (config.get("thinkingConfig") or {}).get("includeThoughts")
    ):
        thinking = behaviour.thinking
        text = write(exchange.number + 7, behaviour.reasoning_tokens) if thinking is None else thinking
        parts.append({"text": text, "thought": True})
    reason = "STOP"
    if behaviour.refusal is not None:
        text, reason = behaviour.refusal, "SAFETY"
    elif behaviour.tool_calls:
        text = behaviour.text or ""
    elif (schema := config.get("responseSchema") or config.get("responseJsonSchema")) and behaviour.text is None:
        text = json.dumps(answer_schema(_lower(schema), exchange.number))
    else:
        text, short = exchange.write(config.get("maxOutputTokens"))
        reason = "MAX_TOKENS" if short else reason
    if text:
        parts.append({"text": text})
    parts += [{"functionCall": {"name": call.name, "args": dict(call.arguments)}} for call in behaviour.tool_calls]
    if behaviour.output_image_tokens:
        parts.append({"inlineData": {"mimeType": "image/png", "data": IMAGE}})
    written = count_words(text) + sum(count_words(call.json) + 1 for call in behaviour.tool_calls)
    usage = exchange.measure(_count(exchange), written)
    usage = dataclasses.replace(usage, web_searches=searches(model_of(exchange), behaviour.web_searches))
    return parts, behaviour.finish_reason or reason, usage


def _lower(schema: Any) -> Any:
    """A schema of Google's, whose types are in capitals, as JSON Schema has it."""
    if isinstance(schema, dict):
        return {
            name: value.lower() if name == "type" and isinstance(value, str) else _lower(value)
            for name, value in schema.items()
        }
    return [_lower(item) for item in schema] if isinstance(schema, list) else schema


def _grounding(exchange: Exchange) -> dict[str, Any]:
    count = exchange.behaviour.web_searches
    return {
        "webSearchQueries": [f"{write(exchange.number + place, 3)} {place}" for place in range(count)],
        "groundingChunks": [
            {"web": {"uri": f"https://example.com/{place}", "title": "example.com"}} for place in range(count)
        ],
        "searchEntryPoint": {"renderedContent": "<div>Example</div>"},
    }


def _events(exchange: Exchange, parts: list[Part], reason: str, usage: Usage, model: str) -> Any:
    """The chunks, each with the usage so far: thoughts are counted when they are over, text as it is written."""
    pieces: list[Part] = []
    for part in parts:
        if "text" in part:
            pieces += [part | {"text": piece} for piece in exchange.cut(part["text"])]
        else:
            pieces.append(part)
    visible = usage.output_tokens - usage.reasoning_tokens
    texts = max(1, sum(1 for piece in pieces if not piece.get("thought")))
    said = 0
    for piece in pieces:
        said += not piece.get("thought")
        running = dataclasses.replace(
            usage,
            output_tokens=(usage.reasoning_tokens if said else 0) + visible * said // texts,
            reasoning_tokens=usage.reasoning_tokens if said else 0,
            output_audio_tokens=0,
            output_image_tokens=0,
        )
        yield _chunk(exchange, [piece], running, model, {}), True
    ending: dict[str, Any] = {"finishReason": reason}
    if exchange.behaviour.web_searches:
        ending["groundingMetadata"] = _grounding(exchange)
    yield _chunk(exchange, [{"text": ""}], usage, model, ending), False


def _chunk(exchange: Exchange, parts: list[Part], usage: Usage, model: str, ending: dict[str, Any]) -> dict[str, Any]:
    chunk: dict[str, Any] = {"candidates": [{"content": {"parts": parts, "role": "model"}, **ending, "index": 0}]}
    report(chunk, exchange.behaviour, "usageMetadata", _shape(exchange, usage))
    return chunk | {"modelVersion": model, "responseId": exchange.id("r")}


ROUTES: Final[Table] = {
    ("POST", "/{where:path}:generateContent"): generate,
    ("POST", "/{where:path}:streamGenerateContent"): stream,
    ("POST", "/{where:path}:embedContent"): embed,
    ("POST", "/{where:path}:batchEmbedContents"): batch_embed,
    ("POST", "/{where:path}:predict"): predict,
    ("POST", "/{where:path}:countTokens"): count_tokens,
    **INTERACTIONS,
}
"""Under ``/v1beta`` (AI Studio) and ``/v1beta1`` (Vertex AI); ``where`` is the name of a model."""
