"""Mistral's completions: chat, fill-in-the-middle and agents, whole and streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.mistral_errors import MISTRAL, mistral_body, mistral_error
from tokenbudget_otel.simulator.mistral_usage import chat_usage
from tokenbudget_otel.simulator.openai_chat import answer_format
from tokenbudget_otel.simulator.openai_usage import report
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.sse import DONE, Frame, data_frame, dump
from tokenbudget_otel.simulator.text import count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

AGENTS_MODEL = "mistral-medium-latest"
"""The model that the simulated agents use."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one choice says."""

    text: str
    thinking: str | None
    tool_calls: list[dict[str, Any]]
    finish: str

    @property
    def tokens(self) -> int:
        """What it measures; thinking is counted by the behaviour."""
        return count_words(self.text) + sum(count_words(call["function"]["arguments"]) + 1 for call in self.tool_calls)

    @property
    def content(self) -> Any:
        """As a message has it: text, or chunks if the model thought."""
        return self.text if self.thinking is None else [thought(self.thinking), {"type": "text", "text": self.text}]


def thought(text: str) -> dict[str, Any]:
    """A chunk of thinking."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def answer(exchange: Exchange, limit: Any) -> Answer:
    """What the model writes."""
    behaviour = exchange.behaviour
    thinking = behaviour.thinking
    if thinking is None and behaviour.reasoning_tokens:
        thinking = write(exchange.number + 7, behaviour.reasoning_tokens)
    calls = [
        {
            "id": exchange.id("", 1 + place)[:9],
            "type": "function",
            "function": {"name": call.name, "arguments": call.json},
            "index": place,
        }
        for place, call in enumerate(behaviour.tool_calls)
    ]
    if calls:
        return Answer(behaviour.text or "", thinking, calls, behaviour.finish_reason or "tool_calls")
    formatted = answer_format(exchange.body.get("response_format"), exchange)
    text, short = (formatted, False) if formatted is not None else exchange.write(limit)
    return Answer(text, thinking, [], behaviour.finish_reason or ("length" if short else "stop"))


def chat_completions(exchange: Exchange) -> Reply:
    """POST /chat/completions"""
    return _completions(exchange, "messages", exchange.model)


def fim_completions(exchange: Exchange) -> Reply:
    """POST /fim/completions"""
    return _completions(exchange, "prompt", exchange.model)


def agents_completions(exchange: Exchange) -> Reply:
    """POST /agents/completions: the agent knows its model."""
    return _completions(exchange, "messages", exchange.behaviour.model or AGENTS_MODEL)


def _completions(exchange: Exchange, prompt: str, model: str) -> Reply:
    body = exchange.body
    if not body.get(prompt):
        raise RefusedError(422, mistral_body(422, f"{prompt}: Field required", exchange.request_id))
    answers = [answer(exchange, body.get("max_tokens")) for _ in range(int(body.get("n") or 1))]
    measured = measure_prompt(body.get(prompt), body.get("suffix"), body.get("tools"))
    usage = exchange.measure(measured, sum(one.tokens for one in answers))
    common = {
        "id": exchange.key,
        "object": "chat.completion.chunk" if exchange.streaming else "chat.completion",
        "created": exchange.created,
        "model": model,
    }
    if exchange.streaming:
        return stream(usage, _frames(exchange, common, answers, usage), model)
    choices = [
        {
            "index": place,
            "message": {"role": "assistant", "tool_calls": one.tool_calls or None, "content": one.content},
            "finish_reason": one.finish,
        }
        for place, one in enumerate(answers)
    ]
    whole = report(common | {"choices": choices}, exchange.behaviour, chat_usage(exchange, usage))
    return Reply(dump(whole), usage=usage, model=model)


def stream(usage: Usage, frames: list[Frame], model: str) -> Reply:
    """A streamed reply, with an error in Mistral's words."""
    return Reply(
        content_type="text/event-stream; charset=utf-8",
        frames=frames,
        error_frame=lambda _place: data_frame(mistral_error(MISTRAL[500], 500)),
        usage=usage,
        model=model,
    )


def _frames(exchange: Exchange, common: dict[str, Any], answers: list[Answer], usage: Usage) -> list[Frame]:
    deltas: list[tuple[dict[str, Any], bool]] = []
    for place, one in enumerate(answers):
        deltas.append((_choice(place, {"role": "assistant", "content": ""}), False))
        deltas += [(_choice(place, {"content": [thought(piece)]}), True) for piece in exchange.cut(one.thinking or "")]
        deltas += [(_choice(place, {"content": piece}), True) for piece in exchange.cut(one.text)]
        ending: dict[str, Any] = {"content": ""}
        if one.tool_calls:
            ending |= {"tool_calls": one.tool_calls}  # whole calls, not pieces
        deltas.append((_choice(place, ending, one.finish), False))
    frames = [data_frame(common | {"choices": [choice]}, content) for choice, content in deltas[:-1]]
    last = report(common | {"choices": [deltas[-1][0]]}, exchange.behaviour, chat_usage(exchange, usage))
    return [*frames, data_frame(last), DONE]


def _choice(place: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": place, "delta": delta, "finish_reason": finish}
