"""What messages consist of, in the shape of the GenAI conventions: text, reasoning, tool calls and their results. Media
are named, with their size or where they are, and never copied."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel.instrumentation.facts import get, listed, text

Messages = list[dict[str, Any]]

MOST_DEPTH: Final = 64
"""How deep what a tool was given or gave is copied. Cyclic data has no end."""

FINISH_REASONS: Final = {
    "tool_calls": "tool_call", "function_call": "tool_call", "tool_use": "tool_call", "TOOL_CALL": "tool_call",
    "end_turn": "stop", "stop_sequence": "stop", "eos": "stop", "COMPLETE": "stop", "STOP_SEQUENCE": "stop",
    "STOP": "stop", "COMPLETE_TURN": "stop",
    "max_tokens": "length", "model_length": "length", "max_output_tokens": "length", "MAX_TOKENS": "length",
    "refusal": "content_filter", "guardrail_intervened": "content_filter", "content_filtered": "content_filter",
    "SAFETY": "content_filter",
    "ERROR": "error", "ERROR_TOXIC": "content_filter", "ERROR_LIMIT": "error",
}  # fmt: skip
"""Why an answer ended, in the conventions' words; a reason that is not here stays as it is."""

_TEXTS: Final = frozenset(("text", "input_text", "output_text", "refusal", "reasoning_text", "summary_text"))


def finish(reason: Any) -> str | None:
    """``finish_reason`` of an output message.

    >>> finish("tool_use"), finish("stop"), finish(None)
    ('tool_call', 'stop', None)
    """
    return FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else None


def answer(parts: Messages, reason: Any) -> dict[str, Any]:
    """An output message."""
    return {"role": "assistant", "parts": parts, "finish_reason": finish(reason)}


def sound(words: str) -> str:
    """``words`` as text that can be sent: halves of a surrogate pair cannot.

    >>> sound("a\\ud800b")
    'a???b'
    """
    if words.isascii():
        return words
    try:
        words.encode()
    except UnicodeEncodeError:
        return words.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\ufffd", "?")
    return words


def plain(value: Any, depth: int = MOST_DEPTH) -> Any:
    """``value`` as JSON knows it: a copy, in which SDK objects are dictionaries. Iterators stay untouched.

    >>> plain({"a": (1, b"xyz", float("nan")), "b": 2 ** 64})
    {'a': [1, '[3 bytes]', 'nan'], 'b': '18446744073709551616'}
    """
    if isinstance(value, str):
        return sound(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)  # what OTLP has room for
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if depth <= 0:
        return "[nested too deep]"
    if isinstance(value, Mapping):
        return {sound(str(name)): plain(item, depth - 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth - 1) for item in value]
    dump = getattr(value, "model_dump", None)
    return plain(dump(), depth - 1) if callable(dump) else sound(str(value))


def words_of(content: Any) -> str:
    """The text of a piece of content, which may come in parts (Mistral's)."""
    if isinstance(content, str):
        return content
    return "".join(words for part in listed(content) if isinstance(words := get(part, "text"), str))


def reasoning(words: Any) -> Messages:
    """Reasoning, where there is any that can be read."""
    said_ = words_of(words)
    return [{"type": "reasoning", "content": said_}] if said_ else []


def tool_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """A call of a tool of the program's. Arguments that are written as JSON are read."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            pass  # cut in its middle, or no JSON
    return {"type": "tool_call", "id": text(call_id), "name": text(name) or "", "arguments": plain(arguments)}


def tool_result(call_id: Any, result: Any) -> dict[str, Any]:
    """What a tool of the program's gave."""
    blocks = isinstance(result, list | tuple) and all(isinstance(get(block, "type"), str) for block in result)
    return {
        "type": "tool_call_response",
        "id": text(call_id),
        "response": said(result) if blocks else plain(result),
    }


def said(content: Any) -> Messages:
    """The parts of a message: text as it is, tool calls and results, and the kind of everything else."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    parts: Messages = []
    for part in listed(content):
        if isinstance(part, str):
            parts.append({"type": "text", "content": part})
        elif not isinstance(part, int | float):  # tokens, for completions
            parts += _part(part)
    return parts


def _part(part: Any) -> Messages:
    kind = text(get(part, "type")) or "text"
    words = get(part, "text")
    if kind == "refusal":
        words = get(part, "refusal")
    if kind == "tool_use":
        return [tool_call(get(part, "id"), get(part, "name"), get(part, "input"))]
    if kind in ("server_tool_use", "mcp_tool_use"):
        return [server_call(get(part, "id"), get(part, "name"), {"arguments": get(part, "input")})]
    if kind == "tool_result":
        return [tool_result(get(part, "tool_use_id"), get(part, "content"))]
    if kind.endswith("_tool_result"):
        given = {"type": kind.removesuffix("_tool_result"), "content": plain(get(part, "content"))}
        called = text(get(part, "tool_use_id"))
        return [{"type": "server_tool_call_response", "id": called, "server_tool_call_response": given}]
    if kind == "thinking":
        return reasoning(get(part, "thinking"))
    if kind == "document" and isinstance(given := get(part, "source", "content"), str | list):
        return said(given)
    if kind == "document" and get(part, "source", "type") == "text":
        words = get(part, "source", "data")
    if isinstance(words, str):
        return [{"type": "text", "content": words}] if words or kind in _TEXTS else []
    # What is called a text and has none, in a damaged body, is nothing that was said.
    return [] if kind in _TEXTS else [media(kind, part)]


def server_call(call_id: Any, name: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """A call of a tool that the provider runs itself."""
    named = text(name) or ""
    return {"type": "server_tool_call", "id": text(call_id), "name": named,
            "server_tool_call": {"type": named, **plain(call)}}  # fmt: skip


def media(kind: str, part: Any) -> dict[str, Any]:
    """An image, sound, video or document: where it is, or how large; without its content.

    >>> media("image_url", {"image_url": {"url": "data:image/png;base64,QUJD"}})
    {'type': 'blob', 'modality': 'image', 'mime_type': 'image/png', 'content': '', 'omitted_bytes': 3}
    >>> media("input_file", {"file_id": "file-1"})
    {'type': 'file', 'modality': 'document', 'file_id': 'file-1'}
    """
    within = (get(part, kind), get(part, "image_url"), get(part, "source"))
    source = next((each for each in within if each is not None), part)
    url = source if isinstance(source, str) else get(source, "url")
    data = get(source, "data") or get(source, "file_data") or get(source, "bytes")
    mime = text(get(source, "media_type")) or text(get(source, "mime_type"))
    modality = modality_of(kind, mime)
    if mime is None and (form := text(get(source, "format"))) is not None:
        mime = f"{modality}/{form}"
    if isinstance(url, str) and url.startswith("data:"):
        url, data = None, url
    if isinstance(data, str) and data.startswith("data:"):
        header, _, data = data.partition(",")
        mime = header.removeprefix("data:").partition(";")[0] or mime
    kept = {"modality": modality} | ({} if mime is None else {"mime_type": mime})
    if isinstance(data, str | bytes | bytearray):
        return {"type": "blob", **kept, "content": "", "omitted_bytes": _size(data)}
    if isinstance(file_id := get(source, "file_id") or get(part, "file_id"), str):
        return {"type": "file", **kept, "file_id": file_id}
    if isinstance(url, str):
        return {"type": "uri", **kept, "uri": url}
    return {"type": kind}


def modality_of(kind: str, mime: str | None) -> str:
    """``image``, ``audio``, ``video`` or ``document``."""
    told = f"{kind} {mime or ''}"
    return next((name for name in ("image", "audio", "video") if name in told), "document")


def _size(data: str | bytes | bytearray) -> int:
    return len(data) * 3 // 4 - data[-2:].count("=") if isinstance(data, str) else len(data)


def tool_definitions(body: Any) -> Messages:
    """The tools that a request offers, in whichever of the providers' shapes. Iterators are the SDK's to read."""
    found: Messages = []
    for tool in listed(get(body, "tools") or get(body, "toolConfig", "tools")):
        declared = get(tool, "functionDeclarations") or get(tool, "function_declarations")
        for each in listed(declared) if declared else (tool,):
            found += _definition(each)
    return found


_SCHEMAS: Final = ("parameters", "input_schema", "parametersJsonSchema", "parameter_definitions")


def _definition(tool: Any) -> Messages:
    spec = get(tool, "function") or get(tool, "toolSpec") or tool
    kind, name = text(get(tool, "type")), text(get(spec, "name"))
    schema = next((value for field in _SCHEMAS if (value := get(spec, field)) is not None), None)
    if schema is None:
        schema = get(spec, "inputSchema", "json")
    if kind in (None, "custom", "function") and name is not None:
        known = {"description": text(get(spec, "description")), "parameters": plain(schema)}
        return [{"type": "function", "name": name} | {field: value for field, value in known.items() if value}]
    if kind is None and isinstance(tool, Mapping):
        kind = next(iter(tool), None)  # Google's and Bedrock's own tools are named by their only field
    return [{"type": kind, "name": name or kind}] if kind is not None else []
