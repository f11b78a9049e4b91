"""What was said in Cohere's chats, where content is captured: version 2's messages, and version 1's turns."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation import openai_content
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.content_parts import Messages, answer, said, tool_call, tool_result
from tokenbudget_otel.instrumentation.facts import get, listed, text

_ROLES: Final = {"USER": "user", "CHATBOT": "assistant", "SYSTEM": "system", "TOOL": "tool"}


def _message(content: Any, plan: Any, message: Any, reason: Any) -> Messages:
    return [answer(said(content) + said(plan) + openai_content.tool_calls(message), reason)]


def _output(data: Any) -> Messages:
    message = get(data, "message")
    return _message(get(message, "content"), get(message, "tool_plan"), message, get(data, "finish_reason"))


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
    return _message([*thought, *written], words["plan"], {"tool_calls": calls}, reason)


def _turns(body: Any) -> tuple[Messages, Messages]:
    messages: Messages = [
        {
            "role": _ROLES.get(str(get(turn, "role")).upper(), "user"),
            "parts": said(get(turn, "message")) + _called(turn),
        }
        for turn in listed(body.get("chat_history"))
    ]
    results = [
        tool_result(None, {"call": get(result, "call", "name"), "outputs": get(result, "outputs")})
        for result in listed(body.get("tool_results"))
    ]
    asked = [{"role": "user", "parts": said(body.get("message"))}] if body.get("message") or not results else []
    return said(body.get("preamble")), [*messages, *asked, *([{"role": "tool", "parts": results}] if results else [])]


def _called(turn: Any) -> Messages:
    calls = listed(get(turn, "tool_calls"))
    return [tool_call(None, get(call, "name"), get(call, "parameters")) for call in calls]


def _answer(data: Any) -> Messages:
    return [answer(said(get(data, "text")) + _called(data), get(data, "finish_reason"))]


def _lines(events: list[Any]) -> Messages:
    whole = [get(event, "response") for event in events if get(event, "event_type") == "stream-end"]
    if whole and whole[-1] is not None:
        return _answer(whole[-1])
    pieces = [text(get(event, "text")) or "" for event in events if get(event, "event_type") == "text-generation"]
    return _answer({"text": "".join(pieces)})


def _generated(data: Any) -> Messages:
    """What ``generate`` and ``summarize`` gave."""
    texts = [get(each, "text") for each in listed(get(data, "generations"))] or [get(data, "summary")]
    reasons = [get(each, "finish_reason") for each in listed(get(data, "generations"))] or [None]
    return [answer(said(words), reason) for words, reason in zip(texts, reasons, strict=True)]


def _generated_lines(events: list[Any]) -> Messages:
    whole = [get(event, "response") for event in events if get(event, "is_finished") is True]
    if whole and listed(get(whole[-1], "generations")):
        return _generated(whole[-1])
    pieces = [text(get(event, "text")) or "" for event in events if get(event, "is_finished") is not True]
    return [answer(said("".join(pieces)), None)]


def _prompt(body: Any) -> tuple[Messages, Messages]:
    return [], [{"role": "user", "parts": said(body.get("prompt") or body.get("text"))}]


CHAT: Final = Content(openai_content.CHAT.request, _output, _events)
CHAT_V1: Final = Content(_turns, _answer, _lines)
GENERATED: Final = Content(_prompt, _generated, _generated_lines)
