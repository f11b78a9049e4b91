"""OpenAI's batches, as far as their status and usage go: no files are read or written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.openai_responses import missing
from tokenbudget_otel.simulator.openai_usage import responses_usage
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import dump
from tokenbudget_otel.simulator.usage import Usage


@dataclass(slots=True)
class _Batch:
    shape: dict[str, Any]
    usage: Usage
    polls_left: int


def create(exchange: Exchange) -> Reply:
    """POST /batches"""
    body = exchange.body
    usage = exchange.measure(1000, 500)
    shape: dict[str, Any] = {
        "id": exchange.id("batch_"),
        "object": "batch",
        "endpoint": body.get("endpoint", "/v1/responses"),
        "model": exchange.model,
        "errors": None,
        "input_file_id": body.get("input_file_id", "file-none"),
        "completion_window": body.get("completion_window", "24h"),
        "status": "validating",
        "created_at": exchange.created,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": body.get("metadata"),
    }
    exchange.store.put(shape["id"], _Batch(shape, usage, exchange.behaviour.polls))
    return Reply(dump(shape))


def retrieve(exchange: Exchange) -> Reply:
    """GET /batches/{batch_id}: billed once, by the retrieval that finds it completed first."""
    batch = _find(exchange)
    if batch.shape["status"] in ("completed", "cancelled"):
        return Reply(dump(batch.shape))
    batch.polls_left -= 1
    if batch.polls_left > 0:
        batch.shape["status"] = "in_progress"
        return Reply(dump(batch.shape))
    batch.shape |= {
        "status": "completed",
        "completed_at": exchange.created,
        "output_file_id": exchange.id("file-"),
        "request_counts": {"total": 1, "completed": 1, "failed": 0},
        "usage": responses_usage(batch.usage),
    }
    return Reply(dump(batch.shape), usage=batch.usage, model=batch.shape["model"])


def cancel(exchange: Exchange) -> Reply:
    """POST /batches/{batch_id}/cancel"""
    batch = _find(exchange)
    if batch.shape["status"] != "completed":
        batch.shape["status"] = "cancelled"
    return Reply(dump(batch.shape))


def _find(exchange: Exchange) -> _Batch:
    found = exchange.store.get(exchange.params["batch_id"])
    if not isinstance(found, _Batch):
        raise missing("batch", exchange.params["batch_id"])
    return found
