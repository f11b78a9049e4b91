"""Anthropic's message batches: each request is answered as ``/messages`` would."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from tokenbudget_otel.simulator.books import Store
from tokenbudget_otel.simulator.errors import anthropic_body
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.routing import Handler, Table
from tokenbudget_otel.simulator.sse import dump
from tokenbudget_otel.simulator.usage import Usage

Billed = tuple[str, Usage]

_TIME = "2026-09-21T12:53:20Z"
"""What every time in a batch says: nobody counts by it."""


@dataclass(slots=True)
class _Batch:
    exchange: Exchange
    shape: dict[str, Any]
    answers: list[tuple[dict[str, Any], Billed | None]]
    """A line of the results for each request, and what it costs."""
    polls_left: int
    results: bytes = b""


def routes(messages: Handler) -> Table:
    """The routes, given the one that answers a request."""

    def create(exchange: Exchange) -> Reply:
        """POST /messages/batches"""
        requests = exchange.body.get("requests")
        if not isinstance(requests, list) or not requests:
            raise RefusedError(400, anthropic_body(400, "requests: Field required", exchange.request_id))
        shape: dict[str, Any] = {
            "id": exchange.id("msgbatch_"),
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": {"processing": len(requests)} | dict.fromkeys(_ENDS, 0),
            "created_at": _TIME,
            "expires_at": _TIME,
            "ended_at": None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": None,
        }
        answers = [_answer(messages, exchange, number, request) for number, request in enumerate(requests)]
        exchange.store.put(shape["id"], _Batch(exchange, shape, answers, exchange.behaviour.polls))
        return Reply(dump(shape))

    return {
        ("POST", "/messages/batches"): create,
        ("GET", "/messages/batches"): listing,
        ("GET", "/messages/batches/{batch_id}"): retrieve,
        ("POST", "/messages/batches/{batch_id}/cancel"): cancel,
        ("GET", "/messages/batches/{batch_id}/results"): results,
        ("DELETE", "/messages/batches/{batch_id}"): delete,
    }


def retrieve(exchange: Exchange) -> Reply:
    """GET /messages/batches/{batch_id}: billed once, by the retrieval that finds it ended first."""
    batch = _find(exchange)
    billed = _poll(exchange, batch)
    return Reply(dump(batch.shape), further=billed)


def listing(exchange: Exchange) -> Reply:
    """GET /messages/batches"""
    batches = [kept.shape for kept in exchange.store.values() if isinstance(kept, _Batch)][::-1]
    ends = {"first_id": batches[0]["id"], "last_id": batches[-1]["id"]} if batches else {}
    return Reply(dump({"data": batches, "has_more": False, "first_id": None, "last_id": None} | ends))


def cancel(exchange: Exchange) -> Reply:
    """POST /messages/batches/{batch_id}/cancel: half of its requests have been answered by then."""
    batch = _find(exchange)
    if batch.shape["processing_status"] == "in_progress":
        batch.shape |= {"processing_status": "canceling", "cancel_initiated_at": _TIME}
    return Reply(dump(batch.shape))


def results(exchange: Exchange) -> Reply:
    """GET /messages/batches/{batch_id}/results"""
    batch = _find(exchange)
    if batch.shape["processing_status"] != "ended":
        raise RefusedError(404, anthropic_body(404, "The batch has not ended.", exchange.request_id))
    return Reply(batch.results, "application/x-jsonl")


def delete(exchange: Exchange) -> Reply:
    """DELETE /messages/batches/{batch_id}"""
    name = _find(exchange).shape["id"]
    del exchange.store[name]
    return Reply(dump({"id": name, "type": "message_batch_deleted"}))


_ENDS = ("succeeded", "errored", "canceled", "expired")


def _answer(
    messages: Handler, batch: Exchange, number: int, request: dict[str, Any]
) -> tuple[dict[str, Any], Billed | None]:
    behaviour = batch.behaviour.healthy()
    exchange = Exchange(
        key=blake2b(f"{batch.key}{number}".encode(), digest_size=12).digest(),
        method="POST",
        path="/v1/messages",
        query="",
        params={},
        headers={},
        body={name: value for name, value in (request.get("params") or {}).items() if name != "stream"},
        behaviour=replace(behaviour, outcome="completed", service_tier=behaviour.service_tier or "batch"),
        host=batch.host,
        created=batch.created,
        store=Store(),
    )
    try:
        reply = messages(exchange)
    except RefusedError as refusal:
        result = {"type": "errored", "error": json.loads(refusal.body)}
        return {"custom_id": request.get("custom_id"), "result": result}, None
    result = {"type": "succeeded", "message": json.loads(reply.body)}
    billed = None if reply.usage is None else (reply.model or exchange.model, reply.usage)
    return {"custom_id": request.get("custom_id"), "result": result}, billed


def _poll(exchange: Exchange, batch: _Batch) -> tuple[Billed, ...]:
    """Let a batch go on; what is billed when that ends it."""
    status = batch.shape["processing_status"]
    if status == "ended":
        return ()
    batch.polls_left -= 1
    if status == "in_progress" and batch.polls_left > 0:
        return ()
    half = (len(batch.answers) + 1) // 2
    left = "canceled" if status == "canceling" else "expired"
    whole = status == "in_progress" and batch.exchange.behaviour.outcome == "completed"
    done = batch.answers if whole else batch.answers[:half]
    rest = [{"custom_id": line["custom_id"], "result": {"type": left}} for line, _ in batch.answers[len(done) :]]
    lines = [*(line for line, _ in done), *rest]
    counts = dict.fromkeys(("processing", *_ENDS), 0)
    for line in lines:
        counts[line["result"]["type"]] += 1
    root = f"http://{exchange.headers.get('host', '127.0.0.1')}{exchange.path.partition('/messages/')[0]}"
    batch.shape |= {
        "processing_status": "ended",
        "ended_at": _TIME,
        "request_counts": counts,
        "results_url": f"{root}/messages/batches/{batch.shape['id']}/results",
    }
    batch.results = b"".join(dump(line) + b"\n" for line in lines)
    return tuple(billed for _, billed in done if billed is not None)


def _find(exchange: Exchange) -> _Batch:
    found = exchange.store.get(exchange.params["batch_id"])
    if not isinstance(found, _Batch):
        message = f"Batch {exchange.params['batch_id']} not found."
        raise RefusedError(404, anthropic_body(404, message, exchange.request_id))
    return found
