"""Cohere's embeddings, reranking, classification and tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from tokenbudget_otel.simulator.cohere_usage import meta
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import dump
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

_DOCUMENTS_PER_SEARCH = 100
"""A search unit is one query with so many documents."""
_WIDTH = 16


def embed(exchange: Exchange) -> Reply:
    """POST /v2/embed"""
    return _embed(exchange, "2", typed=True)


def embed_v1(exchange: Exchange) -> Reply:
    """POST /v1/embed"""
    return _embed(exchange, "1", typed=bool(exchange.body.get("embedding_types")))


def _embed(exchange: Exchange, version: str, *, typed: bool) -> Reply:
    body = exchange.body
    texts, images = body.get("texts") or [], body.get("images") or []
    usage = replace(exchange.measure(sum(measure_prompt(text) for text in texts), 0), output_tokens=0)
    vectors = [[((place + spot) % 31 - 15) / 16 for spot in range(_WIDTH)] for place in range(len(texts) + len(images))]
    kinds = body.get("embedding_types") or ["float"]
    whole: dict[str, Any] = {
        "id": exchange.key,
        "embeddings": dict.fromkeys(kinds, vectors) if typed else vectors,
        "texts": texts,
        "response_type": "embeddings_by_type" if typed else "embeddings_floats",
    }
    billed: dict[str, Any] = {"input_tokens": usage.input_tokens}
    if images:
        billed["images"] = len(images)
        if usage.input_image_tokens:
            billed["image_tokens"] = usage.input_image_tokens
    return _reply(exchange, whole, meta(billed, version), usage)


def rerank(exchange: Exchange) -> Reply:
    """POST /v2/rerank and /v1/rerank: billed by the search."""
    documents = exchange.body.get("documents") or []
    most = exchange.body.get("top_n") or len(documents)
    results = [
        {"index": place, "relevance_score": round(1 / (2 + place), 4)} for place in range(min(most, len(documents)))
    ]
    searches = max(1, math.ceil(len(documents) / _DOCUMENTS_PER_SEARCH))
    whole = {"id": exchange.key, "results": results}
    return _reply(exchange, whole, meta({"search_units": searches}, "2"), Usage())


def classify(exchange: Exchange) -> Reply:
    """POST /v1/classify: billed by the text."""
    inputs = exchange.body.get("inputs") or []
    found = [
        {
            "id": exchange.id("", 3 + place),
            "input": text,
            "prediction": "calm",
            "predictions": ["calm"],
            "confidence": 0.9,
            "confidences": [0.9],
            "labels": {"calm": {"confidence": 0.9}},
            "classification_type": "single-label",
        }
        for place, text in enumerate(inputs)
    ]
    whole = {"id": exchange.key, "classifications": found}
    return _reply(exchange, whole, meta({"classifications": len(inputs)}, "1"), Usage())


def tokenize(exchange: Exchange) -> Reply:
    """POST /v1/tokenize: free."""
    words = str(exchange.body.get("text", "")).split()
    whole = {"tokens": list(range(len(words))), "token_strings": words, "meta": {"api_version": {"version": "1"}}}
    return Reply(dump(whole))


def _reply(exchange: Exchange, whole: dict[str, Any], told: dict[str, Any], usage: Usage) -> Reply:
    if exchange.behaviour.usage != "absent":
        whole["meta"] = told if exchange.behaviour.usage == "present" else None
    return Reply(dump(whole), usage=usage, model=exchange.model)
