"""What was said, in Google's shapes: contents of parts. See ``content.py``."""

from __future__ import annotations

import json
from typing import Any, Final

from tokenbudget_otel.instrumentation.content import Content, Messages, plain
from tokenbudget_otel.instrumentation.facts import get, text
from tokenbudget_otel.instrumentation.google_usage import finish_reason, listed


def parts(content: Any) -> Messages:
    """The parts of a content: text as it is, calls and their results, and the kind of everything else."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    made: Messages = []
    for part in listed(get(content, "parts")):
        words = get(part, "text")
        call, answer = get(part, "functionCall"), get(part, "functionResponse")
        if call is not None:
            made.append(
                {
                    "type": "tool_call",
                    "id": get(call, "id"),
                    "name": get(call, "name"),
                    "arguments": plain(get(call, "args")),
                }
            )
        elif answer is not None:
            result = plain(get(answer, "response"))
            made.append({"type": "tool_call_response", "id": get(answer, "id"), "response": result})
        elif isinstance(words, str):
            if words:
                made.append({"type": "reasoning" if get(part, "thought") else "text", "content": words})
        else:  # media are named, not copied
            media = get(part, "inlineData") or get(part, "fileData")
            kind = str(get(media, "mimeType") or "file").partition("/")[0]
            made.append({"type": kind if media is not None else next(iter(part), "part")})
    return made


def _request(body: Any) -> tuple[Messages, Messages]:
    contents = body.get("contents")
    return parts(body.get("systemInstruction")), [
        {"role": text(get(content, "role")) or "user", "parts": parts(content)} for content in listed(contents)
    ]


def _response(data: Any) -> Messages:
    return [
        {"role": "assistant", "parts": parts(get(candidate, "content")), "finish_reason": finish_reason(candidate)}
        for candidate in listed(get(data, "candidates"))
    ]


def _chunks(chunks: list[Any]) -> Messages:
    found: dict[int, dict[str, Any]] = {}
    for item in chunks:
        body = get(item, "body")  # the API client hands a chunk over as the text of its JSON
        chunk = json.loads(body) if isinstance(body, str) else item
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
            message["finish_reason"] = finish_reason(candidate) or message["finish_reason"]
    return list(found.values())


def _interaction_request(body: Any) -> tuple[Messages, Messages]:
    system, given = body.get("system_instruction"), body.get("input")
    if isinstance(given, str):
        return _said(system), [{"role": "user", "parts": _said(given)}]
    return _said(system), _steps(given)


def _said(content: Any) -> Messages:
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    return [
        {"type": "text", "content": get(part, "text")}
        if isinstance(get(part, "text"), str)
        else {"type": str(get(part, "type"))}
        for part in listed(content)
    ]


def _steps(steps: Any) -> Messages:
    messages: Messages = []
    for step in listed(steps):
        kind = str(get(step, "type"))
        if kind == "function_call":
            call = {"type": "tool_call", "id": get(step, "id"), "name": get(step, "name")}
            messages.append({"role": "assistant", "parts": [call | {"arguments": plain(get(step, "arguments"))}]})
        elif kind == "function_result":
            answer = {"type": "tool_call_response", "id": get(step, "call_id"), "response": plain(get(step, "result"))}
            messages.append({"role": "tool", "parts": [answer]})
        elif kind in ("model_output", "user_input"):
            role = "user" if kind == "user_input" else "assistant"
            messages.append({"role": role, "parts": _said(get(step, "content"))})
        elif isinstance(get(step, "text"), str):  # a plain part of the user's message
            messages.append({"role": "user", "parts": _said([step])})
        elif kind == "thought":
            summary = "".join(str(get(part, "text") or "") for part in listed(get(step, "summary")))
            messages.append({"role": "assistant", "parts": [{"type": "reasoning", "content": summary}]})
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
    return _steps(list(steps.values()))


def _joined(content: Any) -> str:
    return "".join(str(get(part, "text") or "") for part in listed(content))


CONTENTS: Final = Content(_request, _response, _chunks)
INTERACTION: Final = Content(_interaction_request, lambda data: _steps(get(data, "steps")), _interaction_events)
