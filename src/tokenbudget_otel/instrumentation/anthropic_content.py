"""What was said, in Anthropic's shape: messages of blocks."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.content_parts import Messages, answer, said
from tokenbudget_otel.instrumentation.facts import get, listed, text


def _request(body: Any) -> tuple[Messages, Messages]:
    return said(body.get("system")), [
        {"role": text(get(message, "role")) or "user", "parts": said(get(message, "content"))}
        for message in listed(body.get("messages"))
    ]


def _output(data: Any) -> Messages:
    return [answer(said(get(data, "content")), get(data, "stop_reason"))]


def _events(events: list[Any]) -> Messages:
    blocks: dict[int, dict[str, Any]] = {}
    reason = None
    for event in events:
        index = get(event, "index") or 0
        if get(event, "type") == "content_block_start":
            blocks[index] = dict(get(event, "content_block") or {})
        elif get(event, "type") == "content_block_delta" and index in blocks:
            for field in ("text", "thinking", "partial_json"):
                if isinstance(piece := get(event, "delta", field), str):
                    whole = blocks[index].get(field)
                    blocks[index][field] = (whole if isinstance(whole, str) else "") + piece
        elif get(event, "type") == "message_delta":
            reason = get(event, "delta", "stop_reason") or reason
    for block in blocks.values():
        if written := block.pop("partial_json", None):
            block["input"] = written
    return [answer(said(list(blocks.values())), reason)] if blocks else []


MESSAGE: Final = Content(_request, _output, _events)
