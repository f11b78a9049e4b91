"""Cohere's chat: version 2 with server-sent events, version 1 with a line of JSON for each event."""

from __future__ import annotations

from typing import Any

from tokenbudget_otel.simulator.cohere_errors import cohere_body
from tokenbudget_otel.simulator.cohere_usage import chat_usage, meta
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.openai_chat import answer_format
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.sse import DONE, Frame, dump, event_frame
from tokenbudget_otel.simulator.text import count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt


def chat(exchange: Exchange) -> Reply:
    """POST /v2/chat"""
    body, behaviour = exchange.body, exchange.behaviour
    if not body.get("messages"):
        raise RefusedError(400, cohere_body(400, "invalid request: messages must not be empty.", exchange.request_id))
    text, finish = _answer(exchange)
    thinking = _thinking(exchange)
    calls = [
        {
            "id": f"{call.name}_{exchange.id('', 1 + place)}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.json},
        }
        for place, call in enumerate(behaviour.tool_calls)
    ]
    usage = _measure(exchange, measure_prompt(body.get("messages"), body.get("tools"), body.get("documents")), text)
    if exchange.streaming:
        return Reply(
            content_type="text/event-stream",
            frames=_frames(exchange, thinking, text, calls, finish, usage),
            error_frame=lambda _place: _failed(usage),
            usage=usage,
            model=exchange.model,
        )
    message: dict[str, Any] = {"role": "assistant"}
    content = [{"type": "thinking", "thinking": thinking}] if thinking else []
    if calls:
        message |= {"tool_plan": text, "tool_calls": calls}
    else:
        content.append({"type": "text", "text": text})
    if content:
        message["content"] = content
    whole = {"id": exchange.key, "message": message, "finish_reason": finish}
    return Reply(dump(_told(exchange, whole, usage)), usage=usage, model=exchange.model)


def _answer(exchange: Exchange) -> tuple[str, str]:
    behaviour = exchange.behaviour
    if behaviour.tool_calls:
        return behaviour.text or "I will use a tool.", behaviour.finish_reason or "TOOL_CALL"
    formatted = answer_format(exchange.body.get("response_format"), exchange)
    text, short = (formatted, False) if formatted is not None else exchange.write(exchange.body.get("max_tokens"))
    return text, behaviour.finish_reason or ("MAX_TOKENS" if short else "COMPLETE")


def _thinking(exchange: Exchange) -> str | None:
    behaviour = exchange.behaviour
    if behaviour.thinking is None and behaviour.reasoning_tokens:
        return write(exchange.number + 7, behaviour.reasoning_tokens)
    return behaviour.thinking


def _measure(exchange: Exchange, prompt: int, text: str) -> Usage:
    return exchange.measure(
        prompt, count_words(text) + sum(count_words(c.json) + 1 for c in exchange.behaviour.tool_calls)
    )


def _told(exchange: Exchange, whole: dict[str, Any], usage: Usage) -> dict[str, Any]:
    if exchange.behaviour.usage != "absent":
        whole["usage"] = chat_usage(usage) if exchange.behaviour.usage == "present" else None
    return whole


def _failed(usage: Usage) -> Frame:
    delta = {"finish_reason": "ERROR", "error": "the model failed to answer", "usage": chat_usage(usage)}
    return event_frame({"type": "message-end", "delta": delta})


def _frames(
    exchange: Exchange, thinking: str | None, text: str, calls: list[dict[str, Any]], finish: str, usage: Usage
) -> list[Frame]:
    def event(kind: str, message: dict[str, Any], index: int = 0, content: bool = False) -> Frame:
        return event_frame({"type": kind, "index": index, "delta": {"message": message}}, content)

    opening = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    frames = [event_frame({"type": "message-start", "id": exchange.key, "delta": {"message": opening}})]
    blocks = [("thinking", thinking)] if thinking else []
    if calls:
        frames += [event("tool-plan-delta", {"tool_plan": piece}, 0, True) for piece in exchange.cut(text)]
    else:
        blocks.append(("text", text))
    for index, (kind, words) in enumerate(blocks):
        frames.append(event("content-start", {"content": {"type": kind, kind: ""}}, index))
        frames += [
            event("content-delta", {"content": {kind: piece}}, index, True) for piece in exchange.cut(words or "")
        ]
        frames.append(event_frame({"type": "content-end", "index": index}))
    for index, call in enumerate(calls):
        empty = call | {"function": call["function"] | {"arguments": ""}}
        frames.append(event("tool-call-start", {"tool_calls": empty}, index))
        frames += [
            event("tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}, index, True)
            for piece in exchange.cut(call["function"]["arguments"])
        ]
        frames.append(event_frame({"type": "tool-call-end", "index": index}))
    ending = _told(exchange, {"finish_reason": finish}, usage)
    return [*frames, event_frame({"type": "message-end", "delta": ending}), DONE]


def chat_v1(exchange: Exchange) -> Reply:
    """POST /v1/chat"""
    body = exchange.body
    text, finish = _answer(exchange)
    usage = _measure(
        exchange, measure_prompt(body.get("message"), body.get("chat_history"), body.get("preamble")), text
    )
    whole: dict[str, Any] = {
        "response_id": exchange.key,
        "text": text,
        "generation_id": exchange.id("", 2),
        "chat_history": [{"role": "USER", "message": body.get("message")}, {"role": "CHATBOT", "message": text}],
        "finish_reason": finish,
    }
    if exchange.behaviour.usage != "absent":
        shape = chat_usage(usage)
        told = meta(shape["billed_units"], "1", shape["tokens"]) | {"cached_tokens": shape["cached_tokens"]}
        whole["meta"] = told if exchange.behaviour.usage == "present" else None
    if not exchange.streaming:
        return Reply(dump(whole), usage=usage, model=exchange.model)
    start = {"is_finished": False, "event_type": "stream-start", "generation_id": whole["generation_id"]}
    pieces = [{"is_finished": False, "event_type": "text-generation", "text": piece} for piece in exchange.cut(text)]
    end = {"is_finished": True, "event_type": "stream-end", "response": whole, "finish_reason": finish}
    failed = end | {"finish_reason": "ERROR"}
    return Reply(
        content_type="application/stream+json",
        frames=[_line(start), *(_line(piece, content=True) for piece in pieces), _line(end)],
        error_frame=lambda _place: _line(failed),
        usage=usage,
        model=exchange.model,
    )


def _line(value: dict[str, Any], content: bool = False) -> Frame:
    return Frame(dump(value) + b"\n", content)
