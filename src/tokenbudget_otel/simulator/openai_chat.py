"""OpenAI's chat completions and legacy completions, whole and streamed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from tokenbudget_otel.simulator.errors import Wording, openai_error
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import FILTERS, Host
from tokenbudget_otel.simulator.openai_usage import chat_usage, report
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.sse import DONE, Frame, data_frame, dump
from tokenbudget_otel.simulator.text import answer_schema, count_words
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

STREAM_ERROR: Final = data_frame(
    {
        "error": {
            "message": "The server had an error while processing your request. Sorry about that!",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    }
)
FINGERPRINT: Final = "fp_simulator"


@dataclass(slots=True)
class Answer:
    """What one choice says."""

    text: str
    refusal: str | None
    tool_calls: list[tuple[str, str, str]]
    """Id, name and arguments."""
    finish: str

    def tokens(self) -> int:
        words = count_words(self.text) + count_words(self.refusal or "")
        return words + sum(count_words(arguments) + 1 for _, _, arguments in self.tool_calls)


def answer_format(schema: dict[str, Any] | None, exchange: Exchange) -> str | None:
    """The JSON that a format of the request asks for; None if it asks for none, or the text is given."""
    if not isinstance(schema, dict) or exchange.behaviour.text is not None:
        return None
    kind = schema.get("type")
    if kind == "json_schema":
        # Chat completions nest the schema once more than responses do.
        holder = schema.get("json_schema", schema)
        return json.dumps(answer_schema(holder.get("schema"), exchange.number))
    return '{"answer": "yes"}' if kind == "json_object" else None


def _answer(exchange: Exchange, choice: int, limit: Any) -> Answer:
    behaviour = exchange.behaviour
    if behaviour.refusal is not None:
        return Answer("", behaviour.refusal, [], behaviour.finish_reason or "stop")
    if behaviour.tool_calls:
        calls = [
            (exchange.id("call_", 1 + choice * 100 + place), call.name, call.json)
            for place, call in enumerate(behaviour.tool_calls)
        ]
        return Answer(behaviour.text or "", None, calls, behaviour.finish_reason or "tool_calls")
    formatted = answer_format(exchange.body.get("response_format"), exchange)
    text, short = (formatted, False) if formatted is not None else exchange.write(limit)
    return Answer(text, None, [], behaviour.finish_reason or ("length" if short else "stop"))


def _host_usage(exchange: Exchange, usage: Usage) -> dict[str, Any]:
    shape, host = chat_usage(usage), exchange.host
    return host.usage(shape, usage, exchange.behaviour) if host.usage else shape


def chat_completions(exchange: Exchange) -> Reply:
    """POST /chat/completions"""
    body, host = exchange.body, exchange.host
    if host.refuse_stream_options and body.get("stream_options") is not None:
        status, refuse = host.refuse_stream_options
        raise RefusedError(status, dump(refuse(body["stream_options"])))
    if not body.get("messages"):
        said = Wording("invalid_request_error", "Missing required parameter: 'messages'.", "missing_required_parameter")
        raise RefusedError(400, dump(openai_error(said, "messages")))
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    answers = [_answer(exchange, choice, limit) for choice in range(int(body.get("n") or 1))]
    prompt = measure_prompt(body.get("messages"), body.get("tools"))
    usage = exchange.measure(prompt, sum(answer.tokens() for answer in answers))
    common: dict[str, Any] = {
        "id": exchange.id("chatcmpl-"),
        "object": "chat.completion.chunk" if exchange.streaming else "chat.completion",
        "created": exchange.created,
        "model": exchange.model,
        "service_tier": exchange.tier,
        "system_fingerprint": FINGERPRINT,
    }
    if host.body:
        common |= host.body(exchange.behaviour)
    if exchange.streaming:
        frames = _chat_frames(exchange, host, common, answers, usage)
        return _stream(frames, exchange, usage)
    choices = [_choice(place, answer, host) for place, answer in enumerate(answers)]
    whole = report(common | {"choices": choices}, exchange.behaviour, _host_usage(exchange, usage))
    if host.groq:
        whole["x_groq"] = {"id": exchange.id("req_")}
    if host.filters:
        whole["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": FILTERS}]
    return Reply(dump(whole), usage=usage, model=exchange.model)


def _stream(frames: list[Frame], exchange: Exchange, usage: Usage) -> Reply:
    return Reply(
        content_type="text/event-stream; charset=utf-8",
        frames=frames,
        error_frame=lambda _place: STREAM_ERROR,
        usage=usage,
        model=exchange.model,
    )


def _choice(place: int, answer: Answer, host: Host) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": answer.refusal}
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in answer.tool_calls
        ]
    else:
        message["annotations"] = []
    choice = {"index": place, "message": message, "logprobs": None, "finish_reason": answer.finish}
    if host.filters:
        choice["content_filter_results"] = FILTERS
    return choice


def _chat_frames(
    exchange: Exchange, host: Host, common: dict[str, Any], answers: list[Answer], usage: Usage
) -> list[Frame]:
    asked = bool((exchange.body.get("stream_options") or {}).get("include_usage"))
    separate = asked or host.stream_usage == "extra"
    if host.stream_usage in ("last", "every"):
        separate = False
    reported = exchange.behaviour.usage != "absent"
    shape = _host_usage(exchange, usage) if exchange.behaviour.usage == "present" else None
    deltas = [delta for place, answer in enumerate(answers) for delta in _deltas(exchange, place, answer)]
    # OpenAI writes `usage: null` on all chunks of a stream whose usage was asked for.
    empty = {"usage": None} if separate and reported else {}
    frames: list[Frame] = [Frame(host.comment)] if host.comment else []
    if host.filters:
        filtered = [{"prompt_index": 0, "content_filter_results": FILTERS}]
        first = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
        frames.append(data_frame(common | first | {"prompt_filter_results": filtered} | empty))
    contents = max(1, sum(content for _, content in deltas))
    seen = 0
    groq = {"x_groq": {"id": exchange.id("req_")}} if host.groq else {}
    for place, (choice, content) in enumerate(deltas):
        seen += content
        chunk = common | {"choices": [choice]} | empty
        if host.filters:
            choice["content_filter_results"] = FILTERS if content else {}
        if groq and place == 0:
            chunk |= groq
        last = place == len(deltas) - 1
        if last and host.groq and shape is not None:
            chunk["x_groq"] = {"id": exchange.id("req_"), "usage": shape}
        if reported and (host.stream_usage == "every" or (last and host.stream_usage == "last")):
            chunk["usage"] = shape and (shape if last else _host_usage(exchange, usage.until(seen / contents)))
        if reported and last and host.stream_usage == "choice":
            chunk["choices"] = [choice | {"usage": shape}]
        frames.append(data_frame(chunk, content))
    if separate and reported:
        # OpenRouter's last chunk keeps an empty choice, OpenAI's has none.
        closing = [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
        frames.append(data_frame(common | {"choices": closing if host.stream_usage == "extra" else [], "usage": shape}))
    frames.append(DONE)
    return frames


def _deltas(exchange: Exchange, place: int, answer: Answer) -> list[tuple[dict[str, Any], bool]]:
    """The choices of one answer's chunks, and which of them carry content."""

    def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": place, "delta": delta, "logprobs": None, "finish_reason": finish}

    opening = {"role": "assistant", "content": None if answer.tool_calls and not answer.text else "", "refusal": None}
    deltas = [(choice(opening), False)]
    deltas += [(choice({"content": piece}), True) for piece in exchange.cut(answer.text)]
    deltas += [(choice({"refusal": piece}), True) for piece in exchange.cut(answer.refusal or "")]
    for index, (call_id, name, arguments) in enumerate(answer.tool_calls):
        function = {"name": name, "arguments": ""}
        head = {"index": index, "id": call_id, "type": "function", "function": function}
        deltas.append((choice({"tool_calls": [head]}), False))
        deltas += [
            (choice({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}), True)
            for piece in exchange.cut(arguments)
        ]
    return [*deltas, (choice({}, answer.finish), False)]


def completions(exchange: Exchange) -> Reply:
    """POST /completions"""
    body = exchange.body
    prompts = body.get("prompt")
    count = int(body.get("n") or 1) * (len(prompts) if isinstance(prompts, list) and prompts else 1)
    text, short = exchange.write(body.get("max_tokens"))
    finish = exchange.behaviour.finish_reason or ("length" if short else "stop")
    usage = exchange.measure(measure_prompt(prompts), count_words(text) * count)
    common = {
        "id": exchange.id("cmpl-"),
        "object": "text_completion",
        "created": exchange.created,
        "model": exchange.model,
        "system_fingerprint": FINGERPRINT,
    }

    def choice(place: int, piece: str, finish: str | None) -> dict[str, Any]:
        return {"text": piece, "index": place, "logprobs": None, "finish_reason": finish}

    if not exchange.streaming:
        choices = [choice(place, text, finish) for place in range(count)]
        whole = report(common | {"choices": choices}, exchange.behaviour, _host_usage(exchange, usage))
        return Reply(dump(whole), usage=usage, model=exchange.model)
    at_last = exchange.host.stream_usage == "last" and exchange.behaviour.usage != "absent"
    asked = bool((body.get("stream_options") or {}).get("include_usage")) and exchange.behaviour.usage != "absent"
    asked = asked and not at_last
    shape = _host_usage(exchange, usage) if exchange.behaviour.usage == "present" else None
    empty = {"usage": None} if asked else {}
    pieces = exchange.cut(text) or [""]
    frames = [
        data_frame(
            common | {"choices": [choice(place, piece, finish if index == len(pieces) - 1 else None)]} | empty, True
        )
        for place in range(count)
        for index, piece in enumerate(pieces)
    ]
    if at_last:
        last = choice(count - 1, pieces[-1], finish)
        frames[-1] = data_frame(common | {"choices": [last], "usage": shape}, True)
    if asked:
        frames.append(data_frame(common | {"choices": [], "usage": shape}))
    return _stream([*frames, DONE], exchange, usage)
