"""What was said to models on Bedrock, in the shape of the GenAI conventions; only read when content is captured."""

from __future__ import annotations

from typing import Any, Final

from tokenbudget_otel.instrumentation import anthropic_content, openai_content
from tokenbudget_otel.instrumentation.content import Content, parsed
from tokenbudget_otel.instrumentation.content_parts import Messages, answer, media, plain, said, tool_call
from tokenbudget_otel.instrumentation.facts import get, listed, text
from tokenbudget_otel.instrumentation.provider import find

PROMPTS: Final = ("prompt", "inputText", "message")
"""Where vendors whose models take a text have it."""

ANSWERS: Final = (
    "generation", "outputText", "results.0.outputText", "outputs.0.text", "text", "choices.0.text", "completion",
    "generations.0.text",
)  # fmt: skip
"""Where their answers have theirs, and the chunks of a stream."""


def blocks(given: Any) -> Messages:
    """Blocks of Converse as parts of a message: text as it is, tool calls and results, and the kind of all else."""
    parts: Messages = []
    for block in listed(given):
        tool, result = get(block, "toolUse"), get(block, "toolResult")
        thought = get(block, "reasoningContent", "reasoningText", "text")
        if isinstance(words := get(block, "text"), str):
            parts.append({"type": "text", "content": words})
        elif tool is not None:
            parts.append(tool_call(get(tool, "toolUseId"), get(tool, "name"), get(tool, "input")))
        elif result is not None:
            given = [_result(each) for each in listed(get(result, "content"))]
            parts.append({"type": "tool_call_response", "id": get(result, "toolUseId"), "response": given})
        elif isinstance(thought, str):
            parts.append({"type": "reasoning", "content": thought})
        elif isinstance(block, dict):
            parts += [_media(str(kind), inner) for kind, inner in block.items() if kind != "cachePoint"]
    return parts


def _media(kind: str, block: Any) -> dict[str, Any]:
    source = get(block, "source")
    if not isinstance(source, dict):
        return {"type": kind}
    place = {"url": get(source, "s3Location", "uri"), "format": get(block, "format")}
    return media(kind, {kind: source | {name: value for name, value in place.items() if value is not None}})


def _result(block: Any) -> Any:
    """A block of what a tool gave."""
    if (given := get(block, "json")) is not None:
        return {"json": plain(given)}
    return next(iter(blocks([block])), None)


def _converse_request(body: Any) -> tuple[Messages, Messages]:
    return blocks(get(body, "system")), [
        {"role": text(get(message, "role")) or "user", "parts": blocks(get(message, "content"))}
        for message in listed(get(body, "messages"))
    ]


def _converse_response(data: Any) -> Messages:
    message = get(data, "output", "message")
    if message is None:
        return []
    return [answer(blocks(get(message, "content")), get(data, "stopReason"))]


def _converse_events(items: list[Any]) -> Messages:
    found: dict[Any, dict[str, Any]] = {}
    reason = None
    for item in items:
        start, change = get(item, "contentBlockStart"), get(item, "contentBlockDelta")
        reason = get(item, "messageStop", "stopReason") or reason
        if (tool := get(start, "start", "toolUse")) is not None:
            found[get(start, "contentBlockIndex")] = {"tool": tool, "input": ""}
        if (delta := get(change, "delta")) is None:
            continue
        block = found.setdefault(get(change, "contentBlockIndex"), {})
        for name, piece in (
            ("text", get(delta, "text")),
            ("input", get(delta, "toolUse", "input")),
            ("thought", get(delta, "reasoningContent", "text")),
        ):
            if isinstance(piece, str):
                block[name] = block.get(name, "") + piece
    parts: Messages = []
    for block in found.values():
        if (tool := block.get("tool")) is not None:
            parts.append(tool_call(get(tool, "toolUseId"), get(tool, "name"), block["input"]))
        elif block.get("thought"):
            parts.append({"type": "reasoning", "content": block["thought"]})
        elif block.get("text"):
            parts.append({"type": "text", "content": block["text"]})
    return [answer(parts, reason)] if parts else []


def _text_request(body: Any) -> tuple[Messages, Messages]:
    words = next((words for name in PROMPTS if isinstance(words := get(body, name), str)), None)
    return [], [{"role": "user", "parts": said(words)}] if words else []


def _words(data: Any) -> str:
    return next((words for path in ANSWERS if isinstance(words := find(data, path), str)), "")


def _text_response(data: Any) -> Messages:
    words = _words(data)
    return [answer(said(words), None)] if words else []


def _text_events(events: list[Any]) -> Messages:
    words = "".join(map(_words, events))
    return [answer(said(words), None)] if words else []


def _unpacked(shape: Content) -> Content:
    """``shape``, whose events come as chunks of bytes."""

    def events(items: list[Any]) -> Messages:
        chunks = (get(item, "chunk", "bytes") for item in items)
        return shape.events([parsed(data) if isinstance(data, bytes) else None for data in chunks])

    return Content(shape.request, shape.response, events, shape.tools)


CONVERSE: Final = Content(_converse_request, _converse_response, _converse_events)
MESSAGE: Final = _unpacked(anthropic_content.MESSAGE)
CHAT: Final = _unpacked(openai_content.CHAT)
BLOCKS: Final = _unpacked(CONVERSE)
TEXT: Final = _unpacked(Content(_text_request, _text_response, _text_events))


def shape_of(body: Any) -> Content:
    """How what is said in a body of InvokeModel reads: Anthropic's, Nova's, OpenAI's, or a text."""
    if "anthropic_version" in body:
        return MESSAGE
    if "messages" not in body:
        return TEXT
    first = find(body, "messages.0.content.0")
    return BLOCKS if isinstance(first, dict) and "type" not in first else CHAT
