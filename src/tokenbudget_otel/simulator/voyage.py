"""Voyage's wire format: embeddings (of texts, of chunks in their documents, of images) and reranking."""

from __future__ import annotations

import base64
import struct
from typing import Any, Final

from tokenbudget_otel.simulator.errors import OPENAI, wording
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import Host
from tokenbudget_otel.simulator.openai_usage import report
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.routing import Table
from tokenbudget_otel.simulator.sse import dump
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

HOST: Final = Host("voyageai", "voyageai")
PIXELS_PER_TOKEN: Final = 560
_WIDTH: Final = 16


def voyage_body(status: int, message: str | None, _request_id: str) -> bytes:
    """An error of Voyage's."""
    return dump({"detail": wording(OPENAI, status, message).message})


def embeddings(exchange: Exchange) -> Reply:
    """POST /v1/embeddings"""
    inputs = _listed(exchange.body.get("input"))
    usage = exchange.measure(sum(measure_prompt(text) for text in inputs), 0)
    return _reply(exchange, _vectors(exchange, len(inputs)), {"total_tokens": usage.input_tokens}, usage)


def contextualized(exchange: Exchange) -> Reply:
    """POST /v1/contextualizedembeddings: an embedding for each chunk of each document."""
    documents = [_listed(document) for document in _listed(exchange.body.get("inputs"))]
    usage = exchange.measure(sum(measure_prompt(document) for document in documents), 0)
    data = [
        {"object": "list", "index": place, "data": _vectors(exchange, len(document))}
        for place, document in enumerate(documents)
    ]
    return _reply(exchange, data, {"total_tokens": usage.input_tokens}, usage)


def multimodal(exchange: Exchange) -> Reply:
    """POST /v1/multimodalembeddings: text counts in tokens, an image in pixels, and both in the total."""
    inputs = _listed(exchange.body.get("inputs"))
    texts = [part.get("text") for item in inputs for part in item["content"] if part.get("type") == "text"]
    usage = exchange.measure(measure_prompt(texts) if texts else 0, 0)
    counts = {
        "text_tokens": usage.input_tokens - usage.input_image_tokens,
        "image_pixels": usage.input_image_tokens * PIXELS_PER_TOKEN,
        "video_pixels": 0,
        "total_tokens": usage.input_tokens,
    }
    return _reply(exchange, _vectors(exchange, len(inputs)), counts, usage)


def rerank(exchange: Exchange) -> Reply:
    """POST /v1/rerank: the query is counted with every document."""
    body = exchange.body
    documents = _listed(body.get("documents"))
    query = measure_prompt(body.get("query"))
    usage = exchange.measure(sum(query + measure_prompt(document) for document in documents), 0)
    most = min(body.get("top_k") or len(documents), len(documents))
    data = [{"index": place, "relevance_score": round(1 / (2 + place), 4)} for place in range(most)]
    return _reply(exchange, data, {"total_tokens": usage.input_tokens}, usage)


def _reply(exchange: Exchange, data: list[Any], counts: dict[str, Any], usage: Usage) -> Reply:
    whole = {"object": "list", "data": data, "model": exchange.model}
    return Reply(dump(report(whole, exchange.behaviour, counts)), usage=usage, model=exchange.model)


def _vectors(exchange: Exchange, count: int) -> list[dict[str, Any]]:
    packed = exchange.body.get("encoding_format") == "base64"
    made: list[dict[str, Any]] = []
    for place in range(count):
        vector = [((exchange.number + place + spot * 5) % 31 - 15) / 16 for spot in range(_WIDTH)]
        shown: Any = base64.b64encode(struct.pack(f"<{_WIDTH}f", *vector)).decode() if packed else vector
        made.append({"object": "embedding", "embedding": shown, "index": place})
    return made


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


ROUTES: Final[Table] = {
    ("POST", "/embeddings"): embeddings,
    ("POST", "/contextualizedembeddings"): contextualized,
    ("POST", "/multimodalembeddings"): multimodal,
    ("POST", "/rerank"): rerank,
}
