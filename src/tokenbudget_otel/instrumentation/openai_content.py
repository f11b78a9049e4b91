"""What was said, in OpenAI's shapes: chat completions, legacy completions, and responses."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.content_parts import (
    Messages,
    answer,
    finish,
    media,
    plain,
    reasoning,
    said,
    server_call,
    tool_call,
    tool_result,
    words_of,
)
from tokenbudget_otel.instrumentation.facts import get, listed, text

THOUGHTS: Final = ("reasoning_content", "reasoning")
"""Where hosts of OpenAI's API have what a model thought."""

# --- chat completions ----------------------------------------------------------------------------------------------


def chat_messages(messages: Any) -> Messages:
    """Messages of a request. What a system is told is one of them, as the conventions want it: it stands in the
    history, and not apart."""
    found: Messages = []
    for message in listed(messages):
        role = text(get(message, "role")) or "user"
        if role == "tool":
            parts = [tool_result(get(message, "tool_call_id"), get(message, "content"))]
        else:
            parts = _thoughts(message) + said(get(message, "content") or get(message, "refusal")) + tool_calls(message)
        named = {"name": name} if (name := text(get(message, "name"))) is not None else {}
        found.append({"role": role, "parts": parts, **named})
    return found


def tool_calls(message: Any) -> Messages:
    """The tools that a message calls."""
    calls = listed(get(message, "tool_calls"))
    return [_called(get(call, "id"), get(call, "function") or get(call, "custom")) for call in calls] + (
        [_called(None, function)] if (function := get(message, "function_call")) is not None else []
    )


def _called(call_id: Any, function: Any) -> dict[str, Any]:
    arguments = get(function, "arguments")
    return tool_call(call_id, get(function, "name"), get(function, "input") if arguments is None else arguments)


def _thoughts(message: Any) -> Messages:
    return reasoning(next((words for name in THOUGHTS if (words := text(get(message, name)))), None))


def _chat_request(body: Any) -> tuple[Messages, Messages]:
    return [], chat_messages(body.get("messages"))


def _choices(data: Any) -> Messages:
    return [_choice(choice) for choice in listed(get(data, "choices"))]


def _choice(choice: Any) -> dict[str, Any]:
    message = get(choice, "message")
    parts = _thoughts(message)
    parts += said(get(message, "content") or get(message, "refusal") or text(get(choice, "text")))
    if (audio := get(message, "audio")) is not None:
        parts += said(text(get(audio, "transcript")))
        parts.append(media("audio", {"audio": audio}))
    return answer(parts + tool_calls(message), get(choice, "finish_reason"))


def _chunks(events: list[Any]) -> Messages:
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        for choice in listed(get(event, "choices")):
            message = found.setdefault(
                get(choice, "index") or 0, {"content": "", "thought": "", "calls": {}, "reason": None}
            )
            delta = get(choice, "delta")
            message["content"] += words_of(get(delta, "content") or get(delta, "refusal") or get(choice, "text"))
            message["content"] += text(get(delta, "audio", "transcript")) or ""
            message["thought"] += next((words for name in THOUGHTS if (words := text(get(delta, name)))), "")
            for part in listed(get(delta, "content")):
                message["thought"] += words_of(get(part, "thinking"))
            message["reason"] = get(choice, "finish_reason") or message["reason"]
            for call in listed(get(delta, "tool_calls")):
                whole = message["calls"].setdefault(
                    get(call, "index") or 0, {"id": None, "name": None, "arguments": ""}
                )
                function = get(call, "function") or get(call, "custom")
                whole["id"] = whole["id"] or get(call, "id")
                whole["name"] = whole["name"] or get(function, "name")
                more = get(function, "arguments") or get(function, "input")
                # Written as JSON, piece by piece; some hosts give it whole, and as an object.
                whole["arguments"] = whole["arguments"] + more if isinstance(more, str) else more or whole["arguments"]
    return [
        answer(
            reasoning(message["thought"])
            + said(message["content"])
            + [tool_call(call["id"], call["name"], call["arguments"]) for call in message["calls"].values()],
            message["reason"],
        )
        for message in found.values()
    ]


def _prompt_request(body: Any) -> tuple[Messages, Messages]:
    return [], [{"role": "user", "parts": said(body.get("prompt")) + said(body.get("suffix"))}]


# --- responses -----------------------------------------------------------------------------------------------------

_SERVER_TOOLS: Final = frozenset(
    ("code_interpreter_call", "file_search_call", "image_generation_call", "mcp_call", "tool_search_call",
     "web_search_call", "mcp_list_tools")
)  # fmt: skip
_RESULTS: Final = frozenset(("function_call_output", "custom_tool_call_output", "computer_call_output"))
_INCOMPLETE: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
_STATES: Final = {"completed": "stop", "failed": "error", "cancelled": "error"}


def _response_request(body: Any) -> tuple[Messages, Messages]:
    given = body.get("input")
    messages = [{"role": "user", "parts": said(given)}] if isinstance(given, str) else items(given)
    return said(body.get("instructions")), messages


def items(given: Any) -> Messages:
    """Messages of the items of a response, or of its input. What the assistant did in one turn is one message."""
    messages: Messages = []
    for item in listed(given):
        role, parts = _item(item)
        if messages and role == "assistant" == messages[-1]["role"]:
            messages[-1]["parts"] += parts
        else:
            messages.append({"role": role, "parts": parts})
    return messages


def _item(item: Any) -> tuple[str, Messages]:
    kind = text(get(item, "type")) or "message"
    called = text(get(item, "call_id")) or text(get(item, "id"))
    if kind == "message":
        return text(get(item, "role")) or "assistant", said(get(item, "content"))
    if kind in ("function_call", "custom_tool_call"):
        arguments = get(item, "arguments" if kind == "function_call" else "input")
        return "assistant", [tool_call(called, get(item, "name"), arguments)]
    if kind == "computer_call":
        return "assistant", [tool_call(called, "computer", {"action": get(item, "action")})]
    if kind in _RESULTS:
        return "tool", [tool_result(called, get(item, "output"))]
    if kind == "reasoning":
        thought = [words_of(get(item, field)) for field in ("summary", "content")]
        return "assistant", [{"type": "reasoning", "content": words} for words in thought if words]
    if kind in _SERVER_TOOLS:
        return "assistant", [server_call(called, kind.removesuffix("_call"), _server_item(item))]
    return "assistant", [{"type": kind}]


def _server_item(item: Any) -> dict[str, Any]:
    whole = plain(item)
    known = whole if isinstance(whole, dict) else {}
    # A picture that was made is its result, as base64: named, not copied.
    return {name: value for name, value in known.items() if name not in ("id", "type", "call_id")} | (
        {"result": media("image", {"image": {"data": known["result"]}})}
        if known.get("type") == "image_generation_call" and isinstance(known.get("result"), str)
        else {}
    )


def _response_output(data: Any) -> Messages:
    messages = items(get(data, "output"))
    reason = _response_reason(data)
    for message in messages:
        called = bool(message["parts"]) and message["parts"][-1]["type"] == "tool_call"
        message["finish_reason"] = "tool_call" if called and reason == "stop" else reason
    return messages


def _response_reason(data: Any) -> str | None:
    status = text(get(data, "status"))
    if status == "incomplete":
        reason = text(get(data, "incomplete_details", "reason"))
        return _INCOMPLETE.get(reason or "", reason)
    return _STATES.get(status or "")


def _response_events(events: list[Any]) -> Messages:
    finals = [get(event, "response") for event in events if get(event, "response", "output")]
    if finals:
        return _response_output(finals[-1])
    # The stream ended early, or too much of it came: what items there were, and the text of those that had begun.
    found: dict[Any, Any] = {}
    for event in events:
        place = get(event, "output_index")
        if get(event, "type") == "response.output_text.delta" and not isinstance(found.get(place), dict):
            found[place] = (found.get(place) or "") + (text(get(event, "delta")) or "")
        elif get(event, "type") == "response.output_item.done" and isinstance(get(event, "item"), dict):
            found[place] = get(event, "item")
    known = [item if isinstance(item, dict) else {"type": "message", "content": item} for item in found.values()]
    return [{**message, "finish_reason": finish(None)} for message in items(known)]


CHAT: Final = Content(_chat_request, _choices, _chunks)
COMPLETION: Final = Content(_prompt_request, _choices, _chunks)
RESPONSE: Final = Content(_response_request, _response_output, _response_events)
FETCHED: Final = Content(lambda _body: ([], []), _response_output, _response_events, lambda _body: [])
"""A look at a response that was asked for before."""
