"""What was said in Cohere's chats, where content is captured: version 2's messages, and version 1's turns."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation import content
from tokenbudget_otel.instrumentation.content import Content, Messages, said
from tokenbudget_otel.instrumentation.facts import get, text

_ROLES: Final = {"USER": "user", "CHATBOT": "assistant", "SYSTEM": "system", "TOOL": "tool"}


def _message(content_: Any, plan: Any, calls: Any, reason: Any) -> Messages:
    parts = said(content_) + said(plan)
    for call in calls if isinstance(calls, list) else ():
        function = get(call, "function")
        known = {"name": get(function, "name"), "arguments": get(function, "arguments")}
        parts.append({"type": "tool_call", "id": get(call, "id")} | known)
    return [{"role": "assistant", "parts": parts, "finish_reason": reason}]


def _output(data: Any) -> Messages:
    message = get(data, "message")
    return _message(
        get(message, "content"), get(message, "tool_plan"), get(message, "tool_calls"), get(data, "finish_reason")
    )


def _events(events: list[Any]) -> Messages:
    words: dict[str, str] = {"thinking": "", "text": "", "plan": ""}
    calls: list[dict[str, Any]] = []
    reason = None
    for event in events:
        kind, message = get(event, "type"), get(event, "delta", "message")
        if kind == "content-delta":
            for name in ("thinking", "text"):
                words[name] += text(get(message, "content", name)) or ""
        elif kind == "tool-plan-delta":
            words["plan"] += text(get(message, "tool_plan")) or ""
        elif kind == "tool-call-start":
            call = get(message, "tool_calls")
            calls.append({"id": get(call, "id"), "function": {"name": get(call, "function", "name"), "arguments": ""}})
        elif kind == "tool-call-delta" and calls:
            calls[-1]["function"]["arguments"] += text(get(message, "tool_calls", "function", "arguments")) or ""
        elif kind == "message-end":
            reason = get(event, "delta", "finish_reason")
    thought = [{"type": "thinking", "thinking": words["thinking"]}] if words["thinking"] else []
    written = [{"type": "text", "text": words["text"]}] if words["text"] else []
    return _message([*thought, *written], words["plan"], calls, reason)


def _turns(body: Any) -> tuple[Messages, Messages]:
    history = body.get("chat_history")
    messages: Messages = [
        {"role": _ROLES.get(str(get(turn, "role")).upper(), "user"), "parts": said(get(turn, "message"))}
        for turn in (history if isinstance(history, list) else ())
    ]
    return said(body.get("preamble")), [*messages, {"role": "user", "parts": said(body.get("message"))}]


def _answer(data: Any) -> Messages:
    return [{"role": "assistant", "parts": said(get(data, "text")), "finish_reason": get(data, "finish_reason")}]


def _lines(events: list[Any]) -> Messages:
    whole = [get(event, "response") for event in events if get(event, "event_type") == "stream-end"]
    if whole and whole[-1] is not None:
        return _answer(whole[-1])
    pieces = [text(get(event, "text")) or "" for event in events if get(event, "event_type") == "text-generation"]
    return _answer({"text": "".join(pieces)})


CHAT: Final = Content(content.CHAT.request, _output, _events)
CHAT_V1: Final = Content(_turns, _answer, _lines)
