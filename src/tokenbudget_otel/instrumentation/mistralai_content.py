"""What was said in Mistral's conversations, where content is captured: entries of a history."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.content_parts import Messages, answer, said, server_call, tool_call, tool_result
from tokenbudget_otel.instrumentation.facts import get, listed, text


def _request(body: Any) -> tuple[Messages, Messages]:
    given = body.get("inputs")
    asked = [{"role": "user", "parts": said(given)}] if isinstance(given, str) else list(map(_entry, listed(given)))
    return said(body.get("instructions")), asked


def _entry(entry: Any) -> dict[str, Any]:
    kind = text(get(entry, "type")) or "message.input"
    if kind == "function.result":
        return {"role": "tool", "parts": [tool_result(get(entry, "tool_call_id"), get(entry, "result"))]}
    role = "user" if kind == "message.input" else "assistant"
    return {"role": text(get(entry, "role")) or role, "parts": _parts(kind, entry)}


def _parts(kind: str, entry: Any) -> Messages:
    if kind == "function.call":
        return [tool_call(get(entry, "tool_call_id"), get(entry, "name"), get(entry, "arguments"))]
    if kind == "tool.execution":
        return [server_call(get(entry, "id"), get(entry, "name"), {"arguments": get(entry, "arguments")})]
    if kind.startswith("message."):
        return said(get(entry, "content"))
    return [{"type": kind}]


def _response(data: Any) -> Messages:
    parts = [
        part
        for entry in listed(get(data, "outputs"))
        for part in _parts(text(get(entry, "type")) or "message.output", entry)
    ]
    return [answer(parts, _reason(parts))] if parts else []


def _reason(parts: Messages) -> str:
    return "tool_call" if parts[-1]["type"] == "tool_call" else "stop"


def _events(events: list[Any]) -> Messages:
    entries: dict[Any, dict[str, Any]] = {}
    ended = False
    for event in events:
        kind = text(get(event, "type")) or ""
        ended = ended or kind == "conversation.response.done"
        place = (get(event, "output_index"), get(event, "id"))
        if kind == "message.output.delta":
            entry = entries.setdefault(place, {"type": "message.output", "content": []})
            content = get(event, "content")
            entry["content"] += [content] if isinstance(content, str | dict) else []
        elif kind == "function.call.delta":
            known = {"type": "function.call", "name": get(event, "name"), "tool_call_id": get(event, "tool_call_id")}
            entry = entries.setdefault(place, {**known, "arguments": ""})
            entry["arguments"] += text(get(event, "arguments")) or ""
    parts: Messages = []
    for entry in entries.values():
        for part in _parts(entry["type"], entry):
            if parts and part["type"] in ("text", "reasoning") and parts[-1]["type"] == part["type"]:
                parts[-1]["content"] += part["content"]
            else:
                parts.append(part)
    return [answer(parts, _reason(parts) if ended else None)] if parts else []


CONVERSATION: Final = Content(_request, _response, _events)
