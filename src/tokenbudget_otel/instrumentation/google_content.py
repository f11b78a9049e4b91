"""What was said, in Google's shapes: contents of parts. See ``content.py``."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation.content import Content, parsed
from tokenbudget_otel.instrumentation.content_parts import (
    Messages,
    answer,
    finish,
    media,
    reasoning,
    said,
    tool_call,
    tool_result,
)
from tokenbudget_otel.instrumentation.facts import get, text
from tokenbudget_otel.instrumentation.google_usage import finish_reason, listed

ROLES: Final = {"model": "assistant", "function": "tool"}
"""Google's roles, in the conventions' words."""


def parts(content: Any) -> Messages:
    """The parts of a content: text as it is, calls and their results, and the kind of everything else."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    made: Messages = []
    for part in listed(get(content, "parts")):
        words = get(part, "text")
        call, result = get(part, "functionCall"), get(part, "functionResponse")
        if call is not None:
            made.append(tool_call(get(call, "id"), get(call, "name"), get(call, "args")))
        elif result is not None:
            made.append(tool_result(get(result, "id"), get(result, "response")))
        elif isinstance(words, str):
            if words:
                made.append({"type": "reasoning" if get(part, "thought") else "text", "content": words})
        else:  # media are named, not copied
            made.append(_media(part))
    return made


def _media(part: Any) -> dict[str, Any]:
    inline, file = get(part, "inlineData"), get(part, "fileData")
    if inline is None and file is None:
        return {"type": next(iter(part), "part") if isinstance(part, dict) else "part"}
    known = {"mime_type": get(inline or file, "mimeType"), "data": get(inline, "data"), "url": get(file, "fileUri")}
    return media("document", {"source": known})


def _request(body: Any) -> tuple[Messages, Messages]:
    contents = body.get("contents")
    return parts(body.get("systemInstruction")), [
        {"role": ROLES.get(role := text(get(content, "role")) or "user", role), "parts": parts(content)}
        for content in listed(contents)
    ]


def _response(data: Any) -> Messages:
    return [
        answer(parts(get(candidate, "content")), finish_reason(candidate))
        for candidate in listed(get(data, "candidates"))
    ]


def _chunks(chunks: list[Any]) -> Messages:
    found: dict[int, dict[str, Any]] = {}
    for item in chunks:
        body = get(item, "body")  # the API client hands a chunk over as the text of its JSON
        chunk = parsed(body) if isinstance(body, str) else item
        for candidate in listed(get(chunk, "candidates")):
            index = get(candidate, "index")
            message = found.setdefault(
                index if isinstance(index, int) else 0, {"role": "assistant", "parts": [], "finish_reason": None}
            )
            for part in parts(get(candidate, "content")):
                last = message["parts"][-1] if message["parts"] else {}
                if part["type"] in ("text", "reasoning") and last.get("type") == part["type"]:
                    last["content"] += part["content"]
                else:
                    message["parts"].append(part)
            message["finish_reason"] = finish(finish_reason(candidate)) or message["finish_reason"]
    return list(found.values())


def _steps_made(steps: Any, status: Any) -> Messages:
    """Output messages: what was done in one turn is one message."""
    messages: Messages = []
    for message in _steps(steps):
        if messages and messages[-1]["role"] == message["role"]:
            messages[-1]["parts"] += message["parts"]
        else:
            messages.append(message)
    reason = _STATES.get(str(status))
    return [message | {"finish_reason": reason} for message in messages]


_STATES: Final = {"completed": "stop", "requires_action": "tool_call", "failed": "error"}


def _interaction_request(body: Any) -> tuple[Messages, Messages]:
    system, given = body.get("system_instruction"), body.get("input")
    if isinstance(given, str):
        return said(system), [{"role": "user", "parts": said(given)}]
    return said(system), _steps(given)


def _steps(steps: Any) -> Messages:
    messages: Messages = []
    for step in listed(steps):
        kind = str(get(step, "type"))
        if kind == "function_call":
            call = tool_call(get(step, "id"), get(step, "name"), get(step, "arguments"))
            messages.append({"role": "assistant", "parts": [call]})
        elif kind == "function_result":
            messages.append({"role": "tool", "parts": [tool_result(get(step, "call_id"), get(step, "result"))]})
        elif kind in ("model_output", "user_input"):
            role = "user" if kind == "user_input" else "assistant"
            messages.append({"role": role, "parts": said(get(step, "content"))})
        elif isinstance(get(step, "text"), str):  # a plain part of the user's message
            messages.append({"role": "user", "parts": said([step])})
        elif kind == "thought":
            summary = "".join(str(get(part, "text") or "") for part in listed(get(step, "summary")))
            messages.append({"role": "assistant", "parts": reasoning(summary)})
        else:
            messages.append({"role": "assistant", "parts": [{"type": kind}]})
    return messages


def _interaction_events(events: list[Any]) -> Messages:
    steps: dict[int, dict[str, Any]] = {}
    for event in events:
        index = get(event, "index")
        if get(event, "event_type") == "step.start" and isinstance(get(event, "step"), dict):
            steps[index] = dict(get(event, "step"))
        elif get(event, "event_type") == "step.delta" and index in steps:
            step, delta = steps[index], get(event, "delta")
            if isinstance(words := get(delta, "text"), str):
                step["content"] = [{"type": "text", "text": _joined(step.get("content")) + words}]
            elif isinstance(words := get(delta, "content", "text"), str):
                step["summary"] = [{"type": "text", "text": _joined(step.get("summary")) + words}]
            elif isinstance(words := get(delta, "arguments"), str):
                so_far = step.get("arguments")
                step["arguments"] = (so_far if isinstance(so_far, str) else "") + words
    ends = [get(event, "interaction", "status") for event in events if get(event, "interaction", "status")]
    return _steps_made(list(steps.values()), ends[-1] if ends else None)


def _joined(content: Any) -> str:
    return "".join(str(get(part, "text") or "") for part in listed(content))


CONTENTS: Final = Content(_request, _response, _chunks)


def _interaction(data: Any) -> Messages:
    return _steps_made(get(data, "steps"), get(data, "status"))


INTERACTION: Final = Content(_interaction_request, _interaction, _interaction_events)
FETCHED: Final = Content(lambda _body: ([], []), _interaction, _interaction_events, lambda _body: [])
"""A look at an interaction that was asked for before."""
