"""What was said, in the shape of the GenAI conventions: messages with a role and parts. See ``capture.py``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry._logs import Logger, LogRecord
from opentelemetry.context import Context

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.capture import Capture
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, listed, text
from tokenbudget_otel.instrumentation.streams import EVERY_EVENT, StreamFormat, StreamReader

EVENT_NAME: Final = "gen_ai.client.inference.operation.details"

Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Content:
    """How the messages of one API are read.

    Attributes:
        request: system instructions and input messages, from the request's body.
        response: output messages, from the response.
        events: output messages, from the events of a stream.
    """

    request: Callable[[Any], tuple[Messages, Messages]]
    response: Callable[[Any], Messages]
    events: Callable[[list[Any]], Messages]


class CapturingReader:
    """A stream reader that also keeps every event."""

    def __init__(self, inner: StreamReader, content: Content) -> None:
        self._inner = inner
        self._content = content
        self._events: list[Any] = []

    def event(self, data: bytes) -> bool:
        if data.startswith(b"{"):
            self._events.append(json.loads(data))
        return self._inner.event(data)

    @property
    def complete(self) -> bool:
        """As the inner reader has it."""
        return self._inner.complete

    @property
    def usage_is_final(self) -> bool:
        """As the inner reader has it."""
        return self._inner.usage_is_final

    @property
    def facts(self) -> ResponseFacts:
        """The inner reader's, with the output."""
        facts = self._inner.facts
        facts.output = self._content.events(self._events)
        return facts


def capturing(form: StreamFormat, content: Content) -> StreamFormat:
    """A stream format that keeps what was said."""
    return StreamFormat(EVERY_EVENT, (b"data:",), form.text, lambda hide: CapturingReader(form.reader(hide), content))


def record_content(
    capture: Capture, content: Content, body: Any, output: Any, span: Any, logger: Logger, ctx: Context
) -> None:
    """Write the messages of a call to its span, to an event, or both."""
    instructions, messages = content.request(body)
    parts = {
        semconv.SYSTEM_INSTRUCTIONS: instructions,
        semconv.INPUT_MESSAGES: messages,
        semconv.OUTPUT_MESSAGES: output,
    }
    if capture.span and span.is_recording():
        span.set_attributes({name: json.dumps(value, ensure_ascii=False) for name, value in parts.items() if value})
    if capture.event:
        logger.emit(
            LogRecord(
                event_name=EVENT_NAME, context=ctx, attributes={name: value for name, value in parts.items() if value}
            )
        )


# --- the shapes ----------------------------------------------------------------------------------------------------


def said(content: Any) -> Messages:
    """The parts of a message: text as it is, tool calls and results, and the kind of everything else."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    parts: Messages = []
    for part in content if isinstance(content, list | tuple) else ():
        if isinstance(part, str):
            parts.append({"type": "text", "content": part})
            continue
        kind = text(get(part, "type")) or "text"
        words = get(part, "text") or get(part, "refusal")
        if kind in ("tool_use", "server_tool_use"):
            parts.append(_tool_call(get(part, "id"), get(part, "name"), get(part, "input")))
        elif kind == "tool_result":
            parts.append(
                {"type": "tool_call_response", "id": get(part, "tool_use_id"), "response": plain(get(part, "content"))}
            )
        elif kind == "thinking":
            parts.append({"type": "reasoning", "content": _words(get(part, "thinking"))})
        elif isinstance(words, str):
            parts.append({"type": "text", "content": words})
        else:
            parts.append({"type": kind})  # media are named, not copied
    return parts


def _words(content: Any) -> str:
    """The text of a piece of content, which may come in parts (Mistral's)."""
    if isinstance(content, str):
        return content
    return "".join(words for part in listed(content) if isinstance(words := get(part, "text"), str))


def _tool_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": call_id, "name": name, "arguments": plain(arguments)}


def plain(value: Any) -> Any:
    """``value`` as JSON knows it; SDK objects become dictionaries."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    dump = getattr(value, "model_dump", None)
    return plain(dump()) if callable(dump) else str(value)


def _chat_request(body: Any) -> tuple[Messages, Messages]:
    system: Messages = []
    messages: Messages = []
    for message in listed(body.get("messages")):
        role = text(get(message, "role")) or "user"
        parts = said(get(message, "content"))
        if role in ("system", "developer"):
            system += parts
        elif role == "tool":
            answer = {"type": "tool_call_response", "id": get(message, "tool_call_id")}
            messages.append({"role": role, "parts": [{**answer, "response": plain(get(message, "content"))}]})
        else:
            messages.append({"role": role, "parts": parts + _tool_calls(message)})
    return system, messages


def _tool_calls(message: Any) -> Messages:
    return [
        _tool_call(get(call, "id"), get(call, "function", "name"), get(call, "function", "arguments"))
        for call in listed(get(message, "tool_calls"))
    ]


def _choices(data: Any) -> Messages:
    return [
        {
            "role": "assistant",
            "parts": said(get(choice, "message", "content") or get(choice, "message", "refusal") or get(choice, "text"))
            + _tool_calls(get(choice, "message")),
            "finish_reason": get(choice, "finish_reason"),
        }
        for choice in listed(get(data, "choices"))
    ]


def _chunks(events: list[Any]) -> Messages:
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        for choice in listed(get(event, "choices")):
            message = found.setdefault(
                get(choice, "index") or 0, {"content": "", "thought": "", "calls": {}, "reason": None}
            )
            delta = get(choice, "delta")
            message["content"] += _words(get(delta, "content") or get(delta, "refusal") or get(choice, "text"))
            for part in listed(get(delta, "content")):
                message["thought"] += _words(get(part, "thinking"))
            message["reason"] = get(choice, "finish_reason") or message["reason"]
            for call in listed(get(delta, "tool_calls")):
                whole = message["calls"].setdefault(
                    get(call, "index") or 0, {"id": None, "name": None, "arguments": ""}
                )
                whole["id"] = whole["id"] or get(call, "id")
                whole["name"] = whole["name"] or get(call, "function", "name")
                whole["arguments"] += get(call, "function", "arguments") or ""
    return [
        {
            "role": "assistant",
            "parts": ([{"type": "reasoning", "content": message["thought"]}] if message["thought"] else [])
            + said(message["content"])
            + [_tool_call(call["id"], call["name"], call["arguments"]) for call in message["calls"].values()],
            "finish_reason": message["reason"],
        }
        for message in found.values()
    ]


def _prompt_request(body: Any) -> tuple[Messages, Messages]:
    return [], [{"role": "user", "parts": said(body.get("prompt"))}]


def _response_request(body: Any) -> tuple[Messages, Messages]:
    given = body.get("input")
    if isinstance(given, str):
        return said(body.get("instructions")), [{"role": "user", "parts": said(given)}]
    return said(body.get("instructions")), _items(given)


def _items(items: Any) -> Messages:
    messages: Messages = []
    for item in listed(items):
        kind = get(item, "type") or "message"
        if kind == "message":
            messages.append({"role": get(item, "role") or "assistant", "parts": said(get(item, "content"))})
        elif kind == "function_call":
            call = _tool_call(get(item, "call_id"), get(item, "name"), get(item, "arguments"))
            messages.append({"role": "assistant", "parts": [call]})
        elif kind == "function_call_output":
            answer = {"type": "tool_call_response", "id": get(item, "call_id"), "response": plain(get(item, "output"))}
            messages.append({"role": "tool", "parts": [answer]})
        else:
            messages.append({"role": "assistant", "parts": [{"type": str(kind)}]})
    return messages


def _response_output(data: Any) -> Messages:
    return _items(get(data, "output"))


def _response_events(events: list[Any]) -> Messages:
    finals = [get(event, "response") for event in events if get(event, "response", "output")]
    if finals:
        return _response_output(finals[-1])
    words = "".join(get(event, "delta") or "" for event in events if get(event, "type") == "response.output_text.delta")
    return [{"role": "assistant", "parts": said(words)}] if words else []


def _message_request(body: Any) -> tuple[Messages, Messages]:
    return said(body.get("system")), [
        {"role": text(get(message, "role")) or "user", "parts": said(get(message, "content"))}
        for message in listed(body.get("messages"))
    ]


def _message_output(data: Any) -> Messages:
    return [{"role": "assistant", "parts": said(get(data, "content")), "finish_reason": get(data, "stop_reason")}]


def _message_events(events: list[Any]) -> Messages:
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
        if "partial_json" in block:
            block["input"] = block.pop("partial_json")
    return [{"role": "assistant", "parts": said(list(blocks.values())), "finish_reason": reason}] if blocks else []


CHAT: Final = Content(_chat_request, _choices, _chunks)
COMPLETION: Final = Content(_prompt_request, _choices, _chunks)
RESPONSE: Final = Content(_response_request, _response_output, _response_events)
MESSAGE: Final = Content(_message_request, _message_output, _message_events)
