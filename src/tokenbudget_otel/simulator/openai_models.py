"""OpenAI's list of models (Anthropic asks on the same path) and its moderations."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import dump

OPENAI_MODELS: Final = ("gpt-5", "gpt-5-mini", "gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "whisper-1")
ANTHROPIC_MODELS: Final = ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")

_LINES: Final = ("haiku", "sonnet", "opus")

_CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def _of_openai(exchange: Exchange, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": exchange.created, "owned_by": "simulator"}


def _of_anthropic(_exchange: Exchange, name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-01-01T00:00:00Z",
        "deprecated_at": None,
        "retires_at": None,
        "lifecycle": "active",
        "line": name.split("-")[1] if name.count("-") > 1 and name.split("-")[1] in _LINES else None,
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "capabilities": None,
    }


def models(exchange: Exchange) -> Reply:
    """GET /models"""
    if "anthropic-version" in exchange.headers:
        data = [_of_anthropic(exchange, name) for name in ANTHROPIC_MODELS]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"], "has_more": False}
        return Reply(dump({"data": data} | ends))
    return Reply(dump({"object": "list", "data": [_of_openai(exchange, name) for name in OPENAI_MODELS]}))


def model(exchange: Exchange) -> Reply:
    """GET /models/{model}: there is every model that is asked for."""
    describe = _of_anthropic if "anthropic-version" in exchange.headers else _of_openai
    return Reply(dump(describe(exchange, exchange.params["model"])))


def moderations(exchange: Exchange) -> Reply:
    """POST /moderations: free of charge, and nothing is ever flagged."""
    texts = exchange.body.get("input")
    # Several texts are judged one by one, the parts of one message (objects) together.
    count = len(texts) if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else 1
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    return Reply(dump({"id": exchange.id("modr-"), "model": exchange.model, "results": [result] * count}))
