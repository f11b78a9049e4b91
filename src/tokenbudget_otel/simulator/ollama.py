"""Ollama's wire format: chat and generate, whole and as JSON lines, and both of its embedding routes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from tokenbudget_otel.simulator.errors import OPENAI, wording
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import Host
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.routing import Table
from tokenbudget_otel.simulator.sse import Frame, dump
from tokenbudget_otel.simulator.text import answer_schema, count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

HOST: Final = Host("ollama", "ollama")
_WIDTH: Final = 16
_NS: Final = 1_000_000


def ollama_body(status: int, message: str | None, _request_id: str) -> bytes:
    """An error of Ollama's: words and nothing else."""
    return dump({"error": wording(OPENAI, status, message).message})


def _line(value: dict[str, Any], content: bool = False) -> Frame:
    return Frame(dump(value) + b"\n", content)


_BROKEN: Final = Frame(b'{"model": "broken", "message": {"content": "\n')


def chat(exchange: Exchange) -> Reply:
    """POST /api/chat"""
    body = exchange.body
    _require_model(exchange)
    calls = [
        {"function": {"name": call.name, "arguments": dict(call.arguments)}} for call in exchange.behaviour.tool_calls
    ]
    text, reason = _answer(exchange, bool(calls))
    thinking = _thinking(exchange)

    def piece(words: str, thought: str | None = None, **more: Any) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": words}
        return {"message": message | ({"thinking": thought} if thought else {}) | more}

    usage = exchange.measure(measure_prompt(body.get("messages"), body.get("tools")), _written(exchange, text))
    pieces = [piece("", thought) for thought in exchange.cut(thinking)] + [piece(words) for words in exchange.cut(text)]
    if calls:
        pieces.append(piece("", tool_calls=calls))
    whole = piece(text, thinking, **({"tool_calls": calls} if calls else {}))
    return _reply(exchange, whole, pieces, piece(""), reason, usage)


def generate(exchange: Exchange) -> Reply:
    """POST /api/generate"""
    body = exchange.body
    _require_model(exchange)
    text, reason = _answer(exchange, False)
    thinking = _thinking(exchange)
    usage = exchange.measure(
        measure_prompt(body.get("system"), body.get("prompt"), body.get("suffix")), _written(exchange, text)
    )
    pieces = [{"response": "", "thinking": thought} for thought in exchange.cut(thinking)]
    pieces += [{"response": words} for words in exchange.cut(text)]
    whole = {"response": text} | ({"thinking": thinking} if thinking else {})
    return _reply(exchange, whole, pieces, {"response": ""}, reason, usage, context=[1, 2, 3])


def embed(exchange: Exchange) -> Reply:
    """POST /api/embed"""
    _require_model(exchange)
    given = exchange.body.get("input")
    inputs = given if isinstance(given, list) else [given]
    usage = exchange.measure(sum(measure_prompt(text) for text in inputs), 0)
    found = {
        "model": exchange.model,
        "embeddings": [_vector(exchange.number + place) for place in range(len(inputs))],
        "total_duration": 14 * _NS,
        "load_duration": _NS,
    }
    return Reply(dump(found | _counts(exchange, {"prompt_eval_count": usage.input_tokens})), usage=usage)


def embeddings(exchange: Exchange) -> Reply:
    """POST /api/embeddings: the older route, which counts nothing."""
    _require_model(exchange)
    usage = exchange.measure(measure_prompt(exchange.body.get("prompt")), 0)
    return Reply(dump({"embedding": _vector(exchange.number)}), usage=usage)


def _require_model(exchange: Exchange) -> None:
    if not exchange.body.get("model"):
        raise RefusedError(400, ollama_body(400, "model is required", exchange.request_id))


def _answer(exchange: Exchange, calls: bool) -> tuple[str, str]:
    behaviour, body = exchange.behaviour, exchange.body
    if behaviour.refusal is not None:
        return behaviour.refusal, "stop"
    if calls:
        return behaviour.text or "", behaviour.finish_reason or "stop"
    if isinstance(body.get("format"), dict) and behaviour.text is None:
        return dump(answer_schema(body["format"], exchange.number)).decode(), "stop"
    text, short = exchange.write((body.get("options") or {}).get("num_predict"))
    return text, behaviour.finish_reason or ("length" if short else "stop")


def _thinking(exchange: Exchange) -> str:
    behaviour = exchange.behaviour
    if behaviour.thinking is not None:
        return behaviour.thinking
    return write(exchange.number + 7, behaviour.reasoning_tokens) if behaviour.reasoning_tokens else ""


def _written(exchange: Exchange, text: str) -> int:
    return count_words(text) + sum(count_words(call.json) + 1 for call in exchange.behaviour.tool_calls)


def _counts(exchange: Exchange, counts: dict[str, Any]) -> dict[str, Any]:
    shown = exchange.behaviour.usage
    return {} if shown == "absent" else counts if shown == "present" else dict.fromkeys(counts)


def _reply(
    exchange: Exchange,
    whole: dict[str, Any],
    pieces: list[dict[str, Any]],
    last: dict[str, Any],
    reason: str,
    usage: Usage,
    **ending: Any,
) -> Reply:
    made = datetime.fromtimestamp(exchange.created, UTC).isoformat().replace("+00:00", "Z")
    head = {"model": exchange.model, "created_at": made}
    counts = {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
    times = {"total_duration": 400 * _NS, "load_duration": 20 * _NS, "prompt_eval_duration": 30 * _NS}
    end = {
        "done": True,
        "done_reason": reason,
        **ending,
        **times,
        **_counts(exchange, counts),
        "eval_duration": 350 * _NS,
    }
    if exchange.body.get("stream", True) is False:
        return Reply(dump(head | whole | end), usage=usage, model=exchange.model)
    return Reply(
        content_type="application/x-ndjson",
        frames=[*(_line(head | piece | {"done": False}, True) for piece in pieces), _line(head | last | end)],
        error_frame=lambda _count: _line({"error": "an error was encountered while running the model"}),
        broken_frame=_BROKEN,
        usage=usage,
        model=exchange.model,
    )


def _vector(seed: int) -> list[float]:
    return [((seed * 7 + place * 5) % 31 - 15) / 16 for place in range(_WIDTH)]


ROUTES: Final[Table] = {
    ("POST", "/chat"): chat,
    ("POST", "/generate"): generate,
    ("POST", "/embed"): embed,
    ("POST", "/embeddings"): embeddings,
}
