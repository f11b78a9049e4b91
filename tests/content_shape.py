"""What content looks like in the conventions' schemas of messages, instructions and tool definitions."""

from __future__ import annotations

import json
from typing import Any

PARTS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "text": {"content": str},
    "reasoning": {"content": str},
    "tool_call": {"name": str},
    "tool_call_response": {},
    "server_tool_call": {"name": str, "server_tool_call": dict},
    "server_tool_call_response": {"server_tool_call_response": dict},
    "blob": {"modality": str, "content": str},
    "file": {"modality": str, "file_id": str},
    "uri": {"modality": str, "uri": str},
}
"""Fields that a part has to have; parts of other types may have any."""

REQUIRED = {"tool_call": ("id", "name", "arguments"), "tool_call_response": ("id", "response")}


def check_part(part: Any) -> None:
    assert isinstance(part["type"], str)
    for name, kind in PARTS.get(part["type"], {}).items():
        assert isinstance(part[name], kind), part
    for name in REQUIRED.get(part["type"], ()):
        assert name in part, part


def check(name: str, items: Any) -> None:
    """``items`` are what the attribute ``name`` holds."""
    assert isinstance(items, list)
    assert items
    for item in items:
        if name.endswith(".messages"):
            assert isinstance(item["role"], str)
            assert "finish_reason" in item or name == "gen_ai.input.messages"
            for part in item["parts"]:
                check_part(part)
        elif name == "gen_ai.system_instructions":
            check_part(item)
        else:
            assert isinstance(item["type"], str)
            assert isinstance(item["name"], str)


NAMES = ("gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions")


def of_span(span: Any) -> dict[str, Any]:
    """The content on a span, checked."""
    found = {name: json.loads(span.attributes[name]) for name in NAMES if name in span.attributes}
    for name, items in found.items():
        check(name, items)
    return found


def of_event(record: Any) -> dict[str, Any]:
    """The content in an event, checked: structured, and no JSON."""
    found = {name: listed(record.attributes[name]) for name in NAMES if name in record.attributes}
    for name, items in found.items():
        check(name, items)
    return found


def listed(value: Any) -> Any:
    """With lists where OpenTelemetry keeps tuples."""
    if isinstance(value, list | tuple):
        return [listed(item) for item in value]
    return {name: listed(item) for name, item in value.items()} if isinstance(value, dict) else value


def texts(items: Any) -> str:
    """Every text of messages, one after the other."""
    return "".join(
        part["content"]
        for item in items
        for part in item.get("parts", [item])
        if part.get("type") in ("text", "reasoning")
    )
