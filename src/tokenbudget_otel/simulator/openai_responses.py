"""OpenAI's Responses API: whole, streamed, and in the background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from tokenbudget_otel.simulator.errors import OPENAI, openai_error, wording
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.openai_chat import answer_format
from tokenbudget_otel.simulator.openai_images import IMAGE
from tokenbudget_otel.simulator.openai_usage import report, responses_usage
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.sse import Frame, dump, event_frame
from tokenbudget_otel.simulator.text import count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

Item = dict[str, Any]
Event = tuple[dict[str, Any], bool]
"""An event without its number, and whether it carries a chunk of content."""

_BROKEN: Final = Frame(b'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "del\n\n')

# What is reported back as it was asked for, and else with this value.
_ECHOED: Final[dict[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


@dataclass(slots=True)
class _Kept:
    """A response that can be retrieved."""

    exchange: Exchange
    shape: dict[str, Any]
    """As it is when it is done."""
    usage: Usage
    status: str
    polls_left: int = 0
    billed: bool = True


def create(exchange: Exchange) -> Reply:
    """POST /responses"""
    items, status, usage = _work(exchange)
    shape = _shape(exchange, items, status, usage)
    bill = None if status == "failed" else usage
    background = exchange.body.get("background") is True
    kept = _Kept(exchange, shape, usage, status)
    if exchange.body.get("store") is not False or background:
        exchange.store.put(shape["id"], kept)
    if exchange.streaming:
        return _stream(kept, bill, after=-1)
    if not background:
        return Reply(dump(shape), usage=bill, model=exchange.model)
    kept.status, kept.polls_left, kept.billed = "queued", exchange.behaviour.polls, bill is None
    return Reply(dump(_unfinished(shape, "queued")))


def retrieve(exchange: Exchange) -> Reply:
    """GET /responses/{response_id}: a background response is billed by the retrieval that finds it done first."""
    kept = _find(exchange)
    query = parse_qs(exchange.query)
    streaming = query.get("stream") == ["true"]
    if kept.status in ("queued", "in_progress"):
        kept.polls_left -= 1
        kept.status = "in_progress"
        if kept.polls_left <= 0 or streaming:
            kept.status = kept.shape["status"]
    done = kept.status == kept.shape["status"]
    bill = kept.usage if done and not kept.billed else None
    kept.billed = kept.billed or done
    if streaming:
        return _stream(kept, bill, after=int(query.get("starting_after", ["-1"])[0]))
    return Reply(
        dump(kept.shape if done else _unfinished(kept.shape, kept.status)), usage=bill, model=kept.shape["model"]
    )


def cancel(exchange: Exchange) -> Reply:
    """POST /responses/{response_id}/cancel"""
    kept = _find(exchange)
    if kept.shape["background"] is not True:
        message = "Cannot cancel a synchronous response."
        raise RefusedError(400, dump(openai_error(wording(OPENAI, 400, message))))
    if kept.status in ("queued", "in_progress"):
        kept.status, kept.billed = "cancelled", True
        kept.shape = _unfinished(kept.shape, "cancelled")
    return Reply(dump(kept.shape))


def delete(exchange: Exchange) -> Reply:
    """DELETE /responses/{response_id}"""
    name = _find(exchange).shape["id"]
    del exchange.store[name]
    return Reply(dump({"id": name, "object": "response", "deleted": True}))


def input_tokens(exchange: Exchange) -> Reply:
    """POST /responses/input_tokens"""
    given = exchange.behaviour.input_tokens
    count = _count(exchange) if given is None else given
    return Reply(dump({"object": "response.input_tokens", "input_tokens": count}))


def missing(kind: str, name: str) -> RefusedError:
    """What is said of a thing that is not there."""
    message = f"{kind.capitalize()} with id '{name}' not found."
    return RefusedError(404, dump(openai_error(wording(OPENAI, 404, message)._replace(code=None))))


def _find(exchange: Exchange) -> _Kept:
    found = exchange.store.get(exchange.params["response_id"])
    if not isinstance(found, _Kept):
        raise missing("response", exchange.params["response_id"])
    return found


def _count(exchange: Exchange) -> int:
    body = exchange.body
    return measure_prompt(body.get("instructions"), body.get("input"), body.get("tools"))


def _work(exchange: Exchange) -> tuple[list[Item], str, Usage]:
    """What the model puts out, how it ends, and what it used."""
    behaviour, body = exchange.behaviour, exchange.body
    items: list[Item] = []
    if behaviour.reasoning_tokens or behaviour.thinking is not None:
        items.append(_reasoning(exchange))
    items += [
        make(exchange, place)
        for count, make in (
            (behaviour.web_searches, _web_search),
            (behaviour.pages_opened, _open_page),
            (behaviour.images_generated, _image),
            (behaviour.file_searches, _file_search),
            (behaviour.code_interpreter_calls, _code_interpreter),
        )
        for place in range(count)
    ]
    status: str = behaviour.outcome
    written = 0
    if behaviour.refusal is not None:
        items.append(_message(exchange, {"type": "refusal", "refusal": behaviour.refusal}))
        written = count_words(behaviour.refusal)
    elif behaviour.tool_calls:
        if behaviour.text:
            items.append(_message(exchange, _output_text(behaviour.text)))
            written = count_words(behaviour.text)
        for place, call in enumerate(behaviour.tool_calls):
            items.append(
                {
                    "id": exchange.id("fc_", 20 + place),
                    "type": "function_call",
                    "status": "completed",
                    "call_id": exchange.id("call_", 40 + place),
                    "name": call.name,
                    "arguments": call.json,
                }
            )
            written += count_words(call.json) + 1
    else:
        formatted = answer_format((body.get("text") or {}).get("format"), exchange)
        text, short = (formatted, False) if formatted is not None else exchange.write(body.get("max_output_tokens"))
        status = "incomplete" if short and status == "completed" else status
        items.append(_message(exchange, _output_text(text), "incomplete" if status == "incomplete" else "completed"))
        written = count_words(text)
    return ([] if status == "failed" else items), status, exchange.measure(_count(exchange), written)


def _output_text(text: str) -> Item:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _message(exchange: Exchange, part: Item, status: str = "completed") -> Item:
    return {"id": exchange.id("msg_"), "type": "message", "status": status, "content": [part], "role": "assistant"}


def _reasoning(exchange: Exchange) -> Item:
    thinking = exchange.behaviour.thinking
    summary: list[Item] = []
    if thinking is not None or (exchange.body.get("reasoning") or {}).get("summary"):
        text = write(exchange.number + 7, 12) if thinking is None else thinking
        summary = [{"type": "summary_text", "text": text}]
    return {"id": exchange.id("rs_"), "type": "reasoning", "summary": summary}


def _web_search(exchange: Exchange, place: int) -> Item:
    query = write(exchange.number + place, 3)
    action = {"type": "search", "query": query, "queries": [query]}
    return {"id": exchange.id("ws_", 200 + place), "type": "web_search_call", "status": "completed", "action": action}


def _open_page(exchange: Exchange, place: int) -> Item:
    action = {"type": "open_page", "url": f"https://example.com/{place}"}
    return {"id": exchange.id("ws_", 250 + place), "type": "web_search_call", "status": "completed", "action": action}


def _image(exchange: Exchange, place: int) -> Item:
    return {
        "id": exchange.id("ig_", 500 + place),
        "type": "image_generation_call",
        "status": "completed",
        "result": IMAGE,
        "quality": "low",
        "size": "1024x1024",
    }


def _file_search(exchange: Exchange, place: int) -> Item:
    return {
        "id": exchange.id("fs_", 300 + place),
        "type": "file_search_call",
        "status": "completed",
        "queries": [write(exchange.number + place, 3)],
        "results": None,
    }


def _code_interpreter(exchange: Exchange, place: int) -> Item:
    return {
        "id": exchange.id("ci_", 400 + place),
        "type": "code_interpreter_call",
        "status": "completed",
        "code": "print(1 + 1)",
        "container_id": exchange.id("cntr_"),
        "outputs": None,
    }


def _shape(exchange: Exchange, items: list[Item], status: str, usage: Usage) -> dict[str, Any]:
    body = exchange.body
    tools = [
        {"strict": True, "parameters": None, **tool} if tool.get("type") == "function" else tool
        for tool in body.get("tools") or []
    ]
    shape: dict[str, Any] = {
        "id": exchange.id("resp_"),
        "object": "response",
        "created_at": exchange.created,
        "status": status,
        "background": body.get("background") is True,
        "completed_at": exchange.created if status == "completed" else None,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": exchange.model,
        "output": items,
        "reasoning": {"effort": None, "summary": None} | (body.get("reasoning") or {}),
        "service_tier": exchange.tier,
        "text": {"format": {"type": "text"}, "verbosity": "medium"} | (body.get("text") or {}),
        "tools": tools,
    }
    shape |= {name: body[name] if body.get(name) is not None else value for name, value in _ECHOED.items()}
    if status == "failed":
        message = exchange.behaviour.error_message or "The model failed to generate a response."
        shape["error"] = {"code": "server_error", "message": message}
        return shape | {"usage": None}
    if exchange.host.body:
        shape |= exchange.host.body(exchange.behaviour)
    if exchange.behaviour.pages_opened or exchange.behaviour.images_generated:
        shape["tool_usage"] = _tool_usage(exchange)
    counted, told = responses_usage(usage), exchange.host.response_usage
    return report(shape, exchange.behaviour, told(counted, usage, exchange.behaviour) if told else counted)


def _tool_usage(exchange: Exchange) -> dict[str, Any]:
    """What hosted tools used, apart from the model's usage: billable searches, and the tokens of an image model."""
    count = exchange.behaviour.images_generated
    image = {
        "input_tokens": 20 * count,
        "input_tokens_details": {"text_tokens": 20 * count, "image_tokens": 0},
        "output_tokens": 300 * count,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": 300 * count},
        "total_tokens": 320 * count,
    }
    return {"image_gen": image, "web_search": {"num_requests": exchange.behaviour.web_searches}}


def _unfinished(shape: dict[str, Any], status: str) -> dict[str, Any]:
    """The response as it is before it is done."""
    empty: dict[str, Any] = {"status": status, "output": [], "usage": None, "completed_at": None, "error": None}
    # Until it is served, the tier is the one that was asked for.
    return {
        name: value
        for name, value in (shape | empty | {"incomplete_details": None, "service_tier": "auto"}).items()
        if name != "tool_usage"
    }


def _stream(kept: _Kept, bill: Usage | None, after: int) -> Reply:
    events = enumerate(_events(kept))
    frames = [
        event_frame(event | {"sequence_number": number}, content)
        for number, (event, content) in events
        if number > after
    ]
    return Reply(
        content_type="text/event-stream; charset=utf-8",
        frames=frames,
        error_frame=_error_frame,
        broken_frame=_BROKEN,
        usage=bill,
        model=kept.shape["model"],
    )


def _error_frame(place: int) -> Frame:
    said = wording(OPENAI, 500)
    error = {"type": "error", "code": said.type, "message": said.message, "param": None, "sequence_number": place}
    return event_frame(error)


def _events(kept: _Kept) -> Iterator[Event]:
    exchange, shape = kept.exchange, kept.shape
    started = _unfinished(shape, "in_progress")
    if shape["background"]:
        queued = _unfinished(shape, "queued")
        yield {"type": "response.created", "response": queued}, False
        yield {"type": "response.queued", "response": queued}, False
    else:
        yield {"type": "response.created", "response": started}, False
    yield {"type": "response.in_progress", "response": started}, False
    for place, item in enumerate(shape["output"]):
        where = {"output_index": place, "item_id": item["id"]}
        begun, between = _ITEM_EVENTS[item["type"]](exchange, item, where)
        yield {"type": "response.output_item.added", "output_index": place, "item": begun}, False
        yield from between
        yield {"type": "response.output_item.done", "output_index": place, "item": item}, False
    yield {"type": f"response.{shape['status']}", "response": shape}, False


def _message_events(exchange: Exchange, item: Item, where: Item) -> tuple[Item, list[Event]]:
    part = item["content"][0]
    # A refusal's events are built as a text's are, under other names.
    kind, key = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
    at = where | {"content_index": 0}
    extra: Item = {"logprobs": []} if kind == "output_text" else {}
    begun = item | {"status": "in_progress", "content": []}
    between: list[Event] = [({"type": "response.content_part.added", "part": part | {key: ""}} | at, False)]
    between += [
        ({"type": f"response.{kind}.delta", "delta": piece} | at | extra, True) for piece in exchange.cut(part[key])
    ]
    between.append(({"type": f"response.{kind}.done", key: part[key]} | at | extra, False))
    between.append(({"type": "response.content_part.done", "part": part} | at, False))
    return begun, between


def _function_events(exchange: Exchange, item: Item, where: Item) -> tuple[Item, list[Event]]:
    name = "response.function_call_arguments"
    between: list[Event] = [
        ({"type": f"{name}.delta", "delta": piece} | where, True) for piece in exchange.cut(item["arguments"])
    ]
    between.append(({"type": f"{name}.done", "arguments": item["arguments"], "name": item["name"]} | where, False))
    return item | {"status": "in_progress", "arguments": ""}, between


def _reasoning_events(exchange: Exchange, item: Item, where: Item) -> tuple[Item, list[Event]]:
    between: list[Event] = []
    for place, part in enumerate(item["summary"]):
        at = where | {"summary_index": place}
        between.append(({"type": "response.reasoning_summary_part.added", "part": part | {"text": ""}} | at, False))
        between += [
            ({"type": "response.reasoning_summary_text.delta", "delta": piece} | at, True)
            for piece in exchange.cut(part["text"])
        ]
        between.append(({"type": "response.reasoning_summary_text.done", "text": part["text"]} | at, False))
        between.append(({"type": "response.reasoning_summary_part.done", "part": part} | at, False))
    return item | {"summary": []}, between


def _web_search_events(_exchange: Exchange, item: Item, where: Item) -> tuple[Item, list[Event]]:
    steps = ("in_progress", "searching", "completed")
    return item | {"status": "in_progress"}, _steps("web_search_call", steps, where)


def _file_search_events(_exchange: Exchange, item: Item, where: Item) -> tuple[Item, list[Event]]:
    steps = ("in_progress", "searching", "completed")
    return item | {"status": "in_progress"}, _steps("file_search_call", steps, where)


def _image_events(_exchange: Exchange, item: Item, where: Item) -> tuple[Item, list[Event]]:
    steps = ("in_progress", "generating", "completed")
    return item | {"status": "in_progress", "result": None}, _steps("image_generation_call", steps, where)


def _code_events(_exchange: Exchange, item: Item, where: Item) -> tuple[Item, list[Event]]:
    code: list[Event] = [
        ({"type": "response.code_interpreter_call_code.delta", "delta": item["code"]} | where, False),
        ({"type": "response.code_interpreter_call_code.done", "code": item["code"]} | where, False),
    ]
    name = "code_interpreter_call"
    between = [*_steps(name, ("in_progress",), where), *code, *_steps(name, ("interpreting", "completed"), where)]
    return item | {"status": "in_progress", "code": ""}, between


def _steps(call: str, steps: tuple[str, ...], where: Item) -> list[Event]:
    return [({"type": f"response.{call}.{step}"} | where, False) for step in steps]


_ITEM_EVENTS: Final = {
    "message": _message_events,
    "function_call": _function_events,
    "reasoning": _reasoning_events,
    "web_search_call": _web_search_events,
    "file_search_call": _file_search_events,
    "code_interpreter_call": _code_events,
    "image_generation_call": _image_events,
}
