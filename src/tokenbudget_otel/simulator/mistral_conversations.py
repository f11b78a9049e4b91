"""Mistral's conversations: started, appended to and restarted, whole and streamed."""

from __future__ import annotations

from typing import Any

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.mistral_chat import AGENTS_MODEL, answer, thought
from tokenbudget_otel.simulator.mistral_usage import conversation_usage
from tokenbudget_otel.simulator.openai_usage import report
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import Frame, dump, event_frame
from tokenbudget_otel.simulator.usage import measure_prompt

_FOUND = 50
"""Tokens that one call of a connector brings in."""
_TIME = "2026-09-21T00:00:00Z"


def start(exchange: Exchange) -> Reply:
    """POST /conversations"""
    return _conversation(exchange, exchange.id("conv_"))


def append(exchange: Exchange) -> Reply:
    """POST /conversations/{conversation_id}"""
    return _conversation(exchange, exchange.params["conversation_id"])


def restart(exchange: Exchange) -> Reply:
    """POST /conversations/{conversation_id}/restart"""
    return _conversation(exchange, exchange.id("conv_"))


def _conversation(exchange: Exchange, conversation_id: str) -> Reply:
    body = exchange.body
    model = exchange.behaviour.model or body.get("model") or AGENTS_MODEL
    one = answer(exchange, (body.get("completion_args") or {}).get("max_tokens"))
    usage = exchange.measure(measure_prompt(body.get("inputs"), body.get("instructions")), one.tokens)
    calls = usage.web_searches + usage.code_interpreter_calls + usage.file_searches
    found = min(usage.input_tokens, usage.tool_use_input_tokens or _FOUND * calls)
    shape = conversation_usage(usage, found)
    common = {"model": model, "agent_id": body.get("agent_id"), "role": "assistant"}
    if exchange.streaming:
        frames = _frames(exchange, common, conversation_id, one.thinking, one.text, shape)
        return Reply(
            content_type="text/event-stream; charset=utf-8",
            frames=frames,
            error_frame=lambda _place: _ERROR,
            usage=usage,
            model=str(model),
        )
    times = {"created_at": _TIME, "completed_at": _TIME}
    outputs = [_search(exchange, place) | times for place in range(usage.web_searches)]
    outputs.append(
        {"object": "entry", "type": "message.output", "id": exchange.id("msg_"), "content": one.content}
        | times
        | common
    )
    for call in one.tool_calls:
        function = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        outputs.append({"object": "entry", "type": "function.call", "tool_call_id": call["id"]} | function)
    whole = {"object": "conversation.response", "conversation_id": conversation_id, "outputs": outputs}
    return Reply(dump(report(whole, exchange.behaviour, shape)), usage=usage, model=str(model))


def _search(exchange: Exchange, place: int) -> dict[str, Any]:
    return {
        "object": "entry",
        "type": "tool.execution",
        "id": exchange.id("tool_exec_", 50 + place),
        "name": "web_search",
        "arguments": "{}",
        "info": {},
    }


def _frames(
    exchange: Exchange,
    common: dict[str, Any],
    conversation_id: str,
    thinking: str | None,
    text: str,
    shape: dict[str, Any],
) -> list[Frame]:
    def delta(content: Any, content_index: int) -> Frame:
        place = {"output_index": 0, "content_index": content_index, "created_at": _TIME}
        event = {"type": "message.output.delta", "id": exchange.id("msg_"), "content": content}
        return event_frame(event | place | common, content=True)

    started = {"type": "conversation.response.started", "created_at": _TIME, "conversation_id": conversation_id}
    done = {"type": "conversation.response.done", "created_at": _TIME}
    return [
        event_frame(started),
        *(delta(thought(piece), 0) for piece in exchange.cut(thinking or "")),
        *(delta(piece, int(thinking is not None)) for piece in exchange.cut(text)),
        event_frame(report(done, exchange.behaviour, shape)),
    ]


_ERROR = event_frame(
    {"type": "conversation.response.error", "created_at": _TIME, "message": "Service unavailable.", "code": 3700}
)
