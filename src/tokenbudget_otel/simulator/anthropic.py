"""Anthropic's wire format: messages (whole and streamed, beta too) and the counting of their tokens."""

from __future__ import annotations

import json
from typing import Any, Final

from tokenbudget_otel.simulator import anthropic_batches
from tokenbudget_otel.simulator.errors import anthropic_body
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.routing import Table
from tokenbudget_otel.simulator.sse import Frame, dump, event_frame
from tokenbudget_otel.simulator.text import answer_schema, count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

_OVERLOADED: Final = event_frame(
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": None}
)
_BROKEN: Final = Frame(b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": {\n\n')
_PING: Final = event_frame({"type": "ping"})


def _count(exchange: Exchange) -> int:
    body = exchange.body
    return measure_prompt(body.get("system"), body.get("messages"), body.get("tools"))


def count_tokens(exchange: Exchange) -> Reply:
    """POST /messages/count_tokens"""
    given = exchange.behaviour.input_tokens
    count = _count(exchange) if given is None else given
    return Reply(dump({"input_tokens": count}))


def messages(exchange: Exchange) -> Reply:
    """POST /messages"""
    body = exchange.body
    for name in ("model", "messages", "max_tokens"):
        if not body.get(name):
            raise RefusedError(400, anthropic_body(400, f"{name}: Field required", exchange.request_id))
    blocks, stop = _answer(exchange)
    usage = exchange.measure(_count(exchange), sum(map(_block_tokens, blocks)))
    message: dict[str, Any] = {
        "id": exchange.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": exchange.model,
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": None, "explanation": None} if stop == "refusal" else None,
        "usage": _usage(exchange, usage),
    }
    if exchange.behaviour.usage == "absent":
        del message["usage"]
    elif exchange.behaviour.usage == "null":
        message["usage"] = None
    if not exchange.streaming:
        return Reply(dump(message), usage=usage, model=exchange.model)
    return Reply(
        content_type="text/event-stream; charset=utf-8",
        frames=_frames(exchange, message, usage),
        error_frame=lambda _place: _OVERLOADED,
        broken_frame=_BROKEN,
        usage=usage,
        model=exchange.model,
    )


def _answer(exchange: Exchange) -> tuple[list[dict[str, Any]], str]:
    """The blocks of content and the reason for stopping."""
    behaviour, body = exchange.behaviour, exchange.body
    blocks: list[dict[str, Any]] = []
    if behaviour.thinking is not None or behaviour.reasoning_tokens:
        thinking = behaviour.thinking
        if thinking is None:
            thinking = write(exchange.number + 7, behaviour.reasoning_tokens)
        blocks.append({"type": "thinking", "thinking": thinking, "signature": exchange.id("sig") + "=="})
    for search in range(behaviour.web_searches):
        blocks += _search(exchange, search)
    for run in range(behaviour.code_interpreter_calls):
        blocks += _run(exchange, run)
    if behaviour.refusal is not None:
        blocks.append({"type": "text", "text": behaviour.refusal})
        return blocks, behaviour.finish_reason or "refusal"
    format_asked = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    if behaviour.tool_calls:
        text, stop = behaviour.text or "", "tool_use"
    elif format_asked.get("type") == "json_schema" and behaviour.text is None:
        text, stop = json.dumps(answer_schema(format_asked.get("schema"), exchange.number)), "end_turn"
    else:
        text, short = exchange.write(body.get("max_tokens"))
        stop = "max_tokens" if short else "end_turn"
    if text:
        blocks.append({"type": "text", "text": text})
    for place, call in enumerate(behaviour.tool_calls):
        tool_id = exchange.id("toolu_", 1 + place)
        blocks.append({"type": "tool_use", "id": tool_id, "name": call.name, "input": dict(call.arguments)})
    return blocks, behaviour.finish_reason or stop


def _search(exchange: Exchange, place: int) -> list[dict[str, Any]]:
    tool_id = exchange.id("srvtoolu_", 50 + place)
    result = {
        "type": "web_search_result",
        "title": "Example",
        "url": f"https://example.com/{place}",
        "encrypted_content": exchange.id("enc", 80 + place),
        "page_age": None,
    }
    query = write(exchange.number + place, 3)
    return [
        {"type": "server_tool_use", "id": tool_id, "name": "web_search", "input": {"query": query}},
        {"type": "web_search_tool_result", "tool_use_id": tool_id, "content": [result]},
    ]


def _run(exchange: Exchange, place: int) -> list[dict[str, Any]]:
    tool_id = exchange.id("srvtoolu_", 150 + place)
    result = {"type": "bash_code_execution_result", "stdout": "2\n", "stderr": "", "return_code": 0, "content": []}
    return [
        {"type": "server_tool_use", "id": tool_id, "name": "bash_code_execution", "input": {"command": "echo 2"}},
        {"type": "bash_code_execution_tool_result", "tool_use_id": tool_id, "content": result},
    ]


def _block_tokens(block: dict[str, Any]) -> int:
    """What a block adds to the measured output; thinking is counted by the behaviour."""
    if block["type"] == "tool_use":
        return count_words(json.dumps(block["input"])) + 1
    return count_words(block.get("text", ""))


def _usage(exchange: Exchange, usage: Usage) -> dict[str, Any]:
    """Anthropic's shape: input tokens are those that were neither read from the cache nor written to it."""
    shape = {
        "input_tokens": usage.plain_input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "service_tier": _tier(exchange),
        "inference_geo": exchange.behaviour.inference_geo or exchange.body.get("inference_geo"),
    }
    speed = exchange.behaviour.speed or exchange.body.get("speed")
    if speed:
        shape["speed"] = speed
    return shape | _details(usage)


def _details(usage: Usage) -> dict[str, Any]:
    """The parts that ``message_start`` cannot know yet and ``message_delta`` reports."""
    details: dict[str, Any] = {}
    if usage.reasoning_tokens:
        details["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if usage.web_searches or usage.web_fetches:
        details["server_tool_use"] = {
            "web_search_requests": usage.web_searches,
            "web_fetch_requests": usage.web_fetches,
        }
    return details


def _tier(exchange: Exchange) -> str:
    """The request asks for a policy ("auto", "standard_only"); the answer names a tier."""
    return exchange.behaviour.service_tier or "standard"


def _delta_usage(usage: Usage) -> dict[str, Any]:
    # Cumulative, and without the split of cache writes, the tier, the place and the speed.
    shape = {
        "input_tokens": usage.plain_input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    return shape | _details(usage)


def _frames(exchange: Exchange, message: dict[str, Any], usage: Usage) -> list[Frame]:
    blocks, present = message["content"], exchange.behaviour.usage
    start = message | {"content": [], "stop_reason": None, "stop_details": None}
    if present == "present":
        opening = _usage(exchange, usage)
        opening.pop("output_tokens_details", None)
        opening.pop("server_tool_use", None)
        # What the searches find is read later, and only message_delta counts it.
        opening["input_tokens"] = usage.plain_input_tokens // (1 + usage.web_searches)
        # Anthropic opens with a placeholder for what it has not written yet.
        start["usage"] = opening | {"output_tokens": 1}
    frames = [event_frame({"type": "message_start", "message": start})]
    for index, block in enumerate(blocks):
        frames += _block_frames(exchange, index, block)
        if index == 0:
            frames.insert(2, _PING)
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None, "stop_details": message["stop_details"]}
    closing: dict[str, Any] = {"type": "message_delta", "delta": ending}
    if present != "absent":
        closing["usage"] = _delta_usage(usage) if present == "present" else None
    return [*frames, event_frame(closing), event_frame({"type": "message_stop"})]


def _block_frames(exchange: Exchange, index: int, block: dict[str, Any]) -> list[Frame]:
    empty, deltas = _DELTAS.get(block["type"], _whole)(exchange, block)
    frames = [event_frame({"type": "content_block_start", "index": index, "content_block": empty})]
    frames += [
        event_frame({"type": "content_block_delta", "index": index, "delta": delta}, delta["type"] != "signature_delta")
        for delta in deltas
    ]
    return [*frames, event_frame({"type": "content_block_stop", "index": index})]


def _text(exchange: Exchange, block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return block | {"text": ""}, [{"type": "text_delta", "text": piece} for piece in exchange.cut(block["text"])]


def _thinking(exchange: Exchange, block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in exchange.cut(block["thinking"])]
    signature = {"type": "signature_delta", "signature": block["signature"]}
    return block | {"thinking": "", "signature": ""}, [*deltas, signature]


def _tool(exchange: Exchange, block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    pieces = ["", *exchange.cut(json.dumps(block["input"]))]
    return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def _whole(_exchange: Exchange, block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return block, []


_DELTAS: Final = {"text": _text, "thinking": _thinking, "tool_use": _tool, "server_tool_use": _tool}

ROUTES: Final[Table] = {
    ("POST", "/messages"): messages,
    ("POST", "/messages/count_tokens"): count_tokens,
    **anthropic_batches.routes(messages),
}
