"""Google's Interactions API: whole, streamed, and in the background."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tokenbudget_otel.simulator.errors import google_error
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.google_usage import interaction_usage, report, searches
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.routing import Table
from tokenbudget_otel.simulator.sse import DONE, Frame, dump
from tokenbudget_otel.simulator.text import count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

Step = dict[str, Any]

_UNDER_WAY: Final = ("queued", "in_progress")
_BROKEN: Final = Frame(b'event: step.delta\ndata: {"event_type": "step.delta", "index": 0, "del\n\n')
_CREATED: Final = "2026-09-21T14:13:20Z"


@dataclass(slots=True)
class _Kept:
    """An interaction that can be fetched."""

    exchange: Exchange
    shape: dict[str, Any]
    """As it is when it is done."""
    usage: Usage
    status: str
    polls_left: int = 0
    billed: bool = True


def create(exchange: Exchange) -> Reply:
    """POST /interactions"""
    body = exchange.body
    if not (body.get("model") or body.get("agent")):
        raise RefusedError(400, dump(google_error(400, "Either model or agent must be set.")))
    steps, status, usage = _work(exchange)
    shape: dict[str, Any] = {
        "id": exchange.id("v1_"),
        "object": "interaction",
        "status": status,
        "created": _CREATED,
        "updated": _CREATED,
        "role": "model",
        "steps": steps,
        **{name: body[name] for name in ("agent", "previous_interaction_id") if body.get(name)},
    }
    if body.get("model"):
        shape["model"] = _model(exchange)
    if tier := exchange.behaviour.service_tier or body.get("service_tier"):
        shape["service_tier"] = tier
    report(shape, exchange.behaviour, "usage", interaction_usage(usage))
    kept = _Kept(exchange, shape, usage, status)
    background = body.get("background") is True
    if body.get("store") is not False or background:
        exchange.store.put(shape["id"], kept)
    bill = None if status == "failed" else usage
    if exchange.streaming:
        return _stream(kept, bill)
    if not background:
        return Reply(dump(shape), usage=bill, model=_model(exchange))
    kept.status, kept.polls_left, kept.billed = "in_progress", exchange.behaviour.polls, bill is None
    return Reply(dump(_unfinished(shape, "in_progress")))


def fetch(exchange: Exchange) -> Reply:
    """GET /interactions/{interaction_id}: the fetch that finds a background interaction done first bills it."""
    kept = _find(exchange)
    if kept.status in _UNDER_WAY:
        kept.polls_left -= 1
        if kept.polls_left <= 0:
            kept.status = kept.shape["status"]
    done = kept.status == kept.shape["status"]
    bill = kept.usage if done and not kept.billed else None
    kept.billed = kept.billed or done
    shape = kept.shape if done else _unfinished(kept.shape, kept.status)
    return Reply(dump(shape), usage=bill, model=_model(kept.exchange))


def cancel(exchange: Exchange) -> Reply:
    """POST /interactions/{interaction_id}/cancel"""
    kept = _find(exchange)
    if kept.status in _UNDER_WAY:
        kept.status, kept.billed = "cancelled", True
        kept.shape = _unfinished(kept.shape, "cancelled")
    return Reply(dump(kept.shape))


def _model(exchange: Exchange) -> str:
    body = exchange.body
    return exchange.behaviour.model or str(body.get("model") or body.get("agent") or "").removeprefix("models/")


def _find(exchange: Exchange) -> _Kept:
    found = exchange.store.get(exchange.params["interaction_id"])
    if not isinstance(found, _Kept):
        raise RefusedError(404, dump(google_error(404, "Interaction not found.")))
    return found


def _work(exchange: Exchange) -> tuple[list[Step], str, Usage]:
    """The steps of the answer, its status, and what it used."""
    behaviour, body = exchange.behaviour, exchange.body
    steps: list[Step] = []
    if behaviour.thinking is not None or behaviour.reasoning_tokens:
        step: Step = {"type": "thought", "signature": exchange.id("sig")}
        if behaviour.thinking is not None:
            step["summary"] = [{"type": "text", "text": behaviour.thinking}]
        steps.append(step)
    for place in range(behaviour.web_searches):
        call = {"type": "google_search_call", "id": exchange.id("gs_", 1 + place)}
        steps.append(call | {"arguments": {"queries": [write(exchange.number + place, 3)]}})
    status: str = behaviour.outcome
    written = 0
    if behaviour.tool_calls:
        status = "requires_action"
        for place, wanted in enumerate(behaviour.tool_calls):
            call = {"type": "function_call", "id": exchange.id("fc_", 20 + place), "name": wanted.name}
            steps.append(call | {"arguments": dict(wanted.arguments)})
            written += count_words(wanted.json) + 1
    else:
        text, short = exchange.write((body.get("generation_config") or {}).get("max_output_tokens"))
        status = "incomplete" if short and status == "completed" else status
        steps.append({"type": "model_output", "content": [{"type": "text", "text": text}]})
        written = count_words(text)
    prompt = measure_prompt(body.get("system_instruction"), body.get("input"), body.get("tools"))
    usage = exchange.measure(prompt, written)
    usage = dataclasses.replace(usage, web_searches=searches(_model(exchange), behaviour.web_searches))
    return ([] if status == "failed" else steps), status, usage


def _unfinished(shape: dict[str, Any], status: str) -> dict[str, Any]:
    """The interaction as it is before it is done."""
    return {name: value for name, value in shape.items() if name not in ("steps", "usage")} | {"status": status}


def _stream(kept: _Kept, bill: Usage | None) -> Reply:
    return Reply(
        content_type="text/event-stream",
        frames=[*(_frame(event, content) for event, content in _events(kept)), DONE],
        error_frame=lambda _place: _frame(
            {"event_type": "error", "error": {"code": "unavailable", "message": "The model is overloaded."}}
        ),
        broken_frame=_BROKEN,
        usage=bill,
        model=_model(kept.exchange),
    )


def _frame(event: dict[str, Any], content: bool = False) -> Frame:
    return Frame(b"event: " + event["event_type"].encode() + b"\ndata: " + dump(event) + b"\n\n", content)


def _events(kept: _Kept) -> Iterator[tuple[dict[str, Any], bool]]:
    exchange, shape = kept.exchange, kept.shape
    yield {"event_type": "interaction.created", "interaction": _unfinished(shape, "in_progress")}, False
    for index, step in enumerate(shape["steps"]):
        begun, deltas = _deltas(exchange, step)
        yield {"event_type": "step.start", "index": index, "step": begun}, False
        for delta in deltas:
            yield {"event_type": "step.delta", "index": index, "delta": delta}, True
        yield {"event_type": "step.stop", "index": index}, False
    closing = {name: value for name, value in shape.items() if name != "steps"}
    yield {"event_type": "interaction.completed", "interaction": closing}, False


def _deltas(exchange: Exchange, step: Step) -> tuple[Step, list[Step]]:
    """A step as it begins, and what comes of it then."""
    if step["type"] == "model_output":
        text = step["content"][0]["text"]
        return {"type": "model_output"}, [{"type": "text", "text": piece} for piece in exchange.cut(text)]
    if step["type"] == "function_call":
        pieces = exchange.cut(json.dumps(step["arguments"]))
        return step | {"arguments": {}}, [{"type": "arguments_delta", "arguments": piece} for piece in pieces]
    if step["type"] == "thought" and "summary" in step:
        pieces = exchange.cut(step["summary"][0]["text"])
        return {"type": "thought"}, [
            {"type": "thought_summary", "content": {"type": "text", "text": piece}} for piece in pieces
        ]
    return step, []


_BASES: Final = ("", "/projects/{project}/locations/{location}")

ROUTES: Final[Table] = {
    (method, f"{base}{path}"): handler
    for base in _BASES
    for (method, path), handler in {
        ("POST", "/interactions"): create,
        ("GET", "/interactions/{interaction_id}"): fetch,
        ("POST", "/interactions/{interaction_id}/cancel"): cancel,
    }.items()
}
