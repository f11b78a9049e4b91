"""OpenAI's batches: each line of the uploaded file is answered as its endpoint would.

A batch whose input file was not uploaded here is one request of which only the usage is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import blake2b
from operator import add
from typing import Any, Final

from tokenbudget_otel.simulator import (
    openai_chat,
    openai_embeddings,
    openai_files,
    openai_images,
    openai_models,
    openai_responses,
)
from tokenbudget_otel.simulator.books import Store
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.openai_responses import missing
from tokenbudget_otel.simulator.openai_usage import responses_usage
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.sse import dump
from tokenbudget_otel.simulator.usage import Usage

Billed = tuple[str, Usage]

_ENDPOINTS: Final[dict[str, Callable[[Exchange], Reply]]] = {
    "/chat/completions": openai_chat.chat_completions,
    "/completions": openai_chat.completions,
    "/embeddings": openai_embeddings.embeddings,
    "/images/generations": openai_images.generations,
    "/moderations": openai_models.moderations,
    "/responses": openai_responses.create,
}

_DONE: Final = ("completed", "expired", "cancelled", "failed")


@dataclass(slots=True)
class _Line:
    """One answer: as the output file or the error file has it, and what it costs."""

    custom_id: str
    shape: dict[str, Any]
    billed: Billed | None

    @property
    def failed(self) -> bool:
        return self.shape["error"] is not None or self.shape["response"]["status_code"] != 200


@dataclass(slots=True)
class _Batch:
    exchange: Exchange
    shape: dict[str, Any]
    lines: list[_Line] | None
    """The answers as they will be; None: only the usage is known."""
    usage: Usage
    polls_left: int


def create(exchange: Exchange) -> Reply:
    """POST /batches"""
    body = exchange.body
    source = exchange.store.get(str(body.get("input_file_id")))
    lines = _answers(exchange, source.content) if isinstance(source, openai_files.File) else None
    shape: dict[str, Any] = {
        "id": exchange.id("batch_"),
        "object": "batch",
        "endpoint": body.get("endpoint", "/v1/responses"),
        "errors": None,
        "input_file_id": body.get("input_file_id", "file-none"),
        "completion_window": body.get("completion_window", "24h"),
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": exchange.created,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": body.get("metadata"),
    }
    if _tells_usage(exchange):
        models = [line.billed[0] for line in lines or () if line.billed]
        shape["model"] = models[0] if models else exchange.model
        shape["usage"] = responses_usage(Usage())
    exchange.store.put(
        shape["id"], _Batch(exchange, shape, lines, exchange.measure(1000, 500), exchange.behaviour.polls)
    )
    return Reply(dump(shape))


def retrieve(exchange: Exchange) -> Reply:
    """GET /batches/{batch_id}: billed once, by the retrieval that finds it done first."""
    batch = _find(exchange)
    billed = _poll(batch)
    return Reply(dump(batch.shape), further=billed)


def listing(exchange: Exchange) -> Reply:
    """GET /batches: as they stand; to be listed is no progress."""
    batches = [kept.shape for kept in exchange.store.values() if isinstance(kept, _Batch)][::-1]
    page = {"object": "list", "data": batches, "has_more": False}
    page |= {"first_id": batches[0]["id"], "last_id": batches[-1]["id"]} if batches else {}
    return Reply(dump(page))


def cancel(exchange: Exchange) -> Reply:
    """POST /batches/{batch_id}/cancel: what half of its lines came to is billed when it is cancelled."""
    batch = _find(exchange)
    if batch.shape["status"] not in _DONE:
        batch.shape["status"] = "cancelled" if batch.lines is None else "cancelling"
    return Reply(dump(batch.shape))


def _poll(batch: _Batch) -> tuple[Billed, ...]:
    """Let a batch go on; what is billed when that ends it."""
    shape, lines = batch.shape, batch.lines
    if shape["status"] in _DONE:
        return ()
    if shape["status"] == "cancelling":
        return _end(batch, "cancelled", (lines or [])[: (len(lines or []) + 1) // 2])
    batch.polls_left -= 1
    if batch.polls_left > 0:
        shape["status"] = "in_progress"
        if lines is not None and "usage" in shape:  # it grows while the batch is worked on
            shape["usage"] = responses_usage(_sum(lines[: len(lines) // 2]))
        return ()
    if lines is None:
        return _end_of_unknown(batch)
    outcome = batch.exchange.behaviour.outcome
    if outcome == "failed":
        shape["errors"] = {"object": "list", "data": [{"code": "invalid_file", "message": "The file is not valid."}]}
        return _end(batch, "failed", [])
    if outcome == "incomplete":
        return _end(batch, "expired", lines[: (len(lines) + 1) // 2])
    return _end(batch, "completed", lines)


def _end(batch: _Batch, status: str, done: list[_Line]) -> tuple[Billed, ...]:
    exchange, lines = batch.exchange, batch.lines or []
    written = [line for line in done if not line.failed]
    failed = [line.shape for line in done if line.failed]
    if status == "expired":
        late = {"code": "batch_expired", "message": "This request could not be executed before the window expired."}
        failed += [line.shape | {"response": None, "error": late} for line in lines[len(done) :]]
    batch.shape |= {
        "status": status,
        f"{status}_at": exchange.created,
        "request_counts": {"total": len(lines), "completed": len(written), "failed": len(failed)},
    }
    for name, place, shapes in (("output", 1, [line.shape for line in written]), ("error", 2, failed)):
        if shapes:
            content = b"".join(_dump_line(exchange, shape) for shape in shapes)
            batch.shape[f"{name}_file_id"] = openai_files.keep(
                exchange, content, f"{batch.shape['id']}_{name}.jsonl", "batch_output", place
            )
    if "usage" in batch.shape:
        batch.shape["usage"] = responses_usage(_sum(written))
    return tuple(line.billed for line in written if line.billed is not None)


def _end_of_unknown(batch: _Batch) -> tuple[Billed, ...]:
    exchange = batch.exchange
    batch.shape |= {
        "status": "completed",
        "completed_at": exchange.created,
        "output_file_id": exchange.id("file-"),
        "request_counts": {"total": 1, "completed": 1, "failed": 0},
    }
    if "usage" in batch.shape:
        batch.shape["usage"] = responses_usage(batch.usage)
    return ((exchange.model, batch.usage),)


def _tells_usage(exchange: Exchange) -> bool:
    """Batches of OpenAI itself tell their usage, those of September 2025 and later; the hosts' do not."""
    return exchange.host.name == "openai" and exchange.behaviour.usage == "present"


def _answers(exchange: Exchange, content: bytes) -> list[_Line]:
    return [_answer(exchange, number, line) for number, line in enumerate(content.splitlines()) if line.strip()]


def _answer(batch: Exchange, number: int, data: bytes) -> _Line:
    request = json.loads(data)
    digest = blake2b(f"{batch.key}{number}".encode(), digest_size=12).digest()
    exchange = Exchange(
        key=digest,
        method="POST",
        path=request["url"],
        query="",
        params={},
        headers={},
        body=request["body"],
        behaviour=replace(batch.behaviour.healthy(), outcome="completed"),
        host=batch.host,
        created=batch.created,
        store=Store(),
    )
    answer = _ENDPOINTS.get(request["url"].removeprefix("/v1"))
    try:
        reply = answer(exchange) if answer is not None else Reply(b'{"error":{"message":"Invalid URL"}}', status=400)
    except RefusedError as refusal:
        reply = Reply(refusal.body, status=refusal.status)
    billed = None if reply.usage is None else (reply.model or exchange.model, reply.usage)
    shape = {
        "id": exchange.id("batch_req_"),
        "custom_id": request["custom_id"],
        "response": {
            "status_code": reply.status,
            "request_id": exchange.request_id,
            "body": json.loads(reply.body),
        },
        "error": None,
    }
    return _Line(request["custom_id"], shape, billed)


def _dump_line(exchange: Exchange, shape: dict[str, Any]) -> bytes:
    """OpenAI names its line first; Azure has no name for it."""
    if exchange.host.filters:
        shape = {name: shape[name] for name in ("custom_id", "response", "error")}
    return json.dumps(shape).encode() + b"\n"


def _sum(lines: list[_Line]) -> Usage:
    """What several lines used together."""
    return reduce(_plus, (line.billed[1] for line in lines if line.billed is not None and not line.failed), Usage())


def _plus(one: Usage, other: Usage) -> Usage:
    fields = {name: (getattr(one, name), getattr(other, name)) for name in Usage.__dataclass_fields__}
    return Usage(**{name: add(*(value or 0 for value in pair)) for name, pair in fields.items() if any(pair)})


def _find(exchange: Exchange) -> _Batch:
    found = exchange.store.get(exchange.params["batch_id"])
    if not isinstance(found, _Batch):
        raise missing("batch", exchange.params["batch_id"])
    return found
