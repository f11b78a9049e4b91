"""OpenAI's files: uploaded, looked at, downloaded. Nothing is billed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.multipart import Upload
from tokenbudget_otel.simulator.openai_responses import missing
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import dump


@dataclass(slots=True)
class File:
    """A file that can be downloaded."""

    shape: dict[str, Any]
    content: bytes


def keep(exchange: Exchange, content: bytes, name: str, purpose: str, number: int = 0) -> str:
    """Keep a file; its id."""
    shape: dict[str, Any] = {
        "id": exchange.id("file-", number),
        "object": "file",
        "bytes": len(content),
        "created_at": exchange.created,
        "filename": name,
        "purpose": purpose,
        "status": "processed",
    }
    exchange.store.put(shape["id"], File(shape, content))
    return str(shape["id"])


def create(exchange: Exchange) -> Reply:
    """POST /files"""
    upload = exchange.body.get("file")
    name, content = upload if isinstance(upload, Upload) else ("upload", str(upload or "").encode())
    kept = keep(exchange, content, name, str(exchange.body.get("purpose") or "user_data"))
    return Reply(dump(find(exchange, kept).shape))


def retrieve(exchange: Exchange) -> Reply:
    """GET /files/{file_id}"""
    return Reply(dump(find(exchange, exchange.params["file_id"]).shape))


def content(exchange: Exchange) -> Reply:
    """GET /files/{file_id}/content"""
    return Reply(find(exchange, exchange.params["file_id"]).content, "application/octet-stream")


def delete(exchange: Exchange) -> Reply:
    """DELETE /files/{file_id}"""
    name = find(exchange, exchange.params["file_id"]).shape["id"]
    del exchange.store[name]
    return Reply(dump({"id": name, "object": "file", "deleted": True}))


def find(exchange: Exchange, name: str) -> File:
    """A file that was kept.

    Raises:
        RefusedError: there is none of the id.
    """
    found = exchange.store.get(name)
    if not isinstance(found, File):
        raise missing("file", name)
    return found
