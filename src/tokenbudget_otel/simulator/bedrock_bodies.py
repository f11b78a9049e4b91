"""What models answer on Bedrock's InvokeModel, each family in its own shape: whole, and in pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.openai_usage import report
from tokenbudget_otel.simulator.text import count_words
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

Json = dict[str, Any]


class Written(NamedTuple):
    """What the model wrote, before a family puts it into its shape."""

    exchange: Exchange
    text: str
    short: bool
    usage: Usage

    @property
    def told(self) -> bool:
        """Whether the body says what was used."""
        return self.exchange.behaviour.usage == "present"

    def reason(self, stop: str, length: str) -> str:
        """Why the model stopped, in the words of a family."""
        return self.exchange.behaviour.finish_reason or (length if self.short else stop)

    def pieces(self) -> list[str]:
        return self.exchange.cut(self.text)


class Family(NamedTuple):
    """One shape of bodies."""

    body: Callable[[Written], Json]
    events: Callable[[Written], Iterator[tuple[Json, bool]]] | None = None
    """The events of a stream, and whether each carries a piece of the answer."""
    limit: tuple[str, ...] = ("max_tokens",)
    """Where a request has its limit of tokens."""
    writes: bool = True


def of(model: str, body: Json) -> Family:
    """The family that answers a request; the one that imitates OpenAI where nothing else is known."""
    for pattern, fields, family in _FAMILIES:
        if re.search(pattern, model) and all(field in body for field in fields):
            return family
    return _OPENAI


def written(exchange: Exchange, family: Family) -> Written:
    """What the model writes to a request."""
    limit: Any = exchange.body
    for step in family.limit:
        limit = limit.get(step) if isinstance(limit, dict) else None
    text, short = exchange.write(limit) if family.writes else ("", False)
    usage = exchange.measure(measure_prompt(exchange.body), count_words(text))
    return Written(exchange, text, short, usage)


# --- Nova ----------------------------------------------------------------------------------------------------------


def _nova_usage(usage: Usage) -> Json:
    return {
        "inputTokens": usage.plain_input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "cacheReadInputTokenCount": usage.cached_tokens,
        "cacheWriteInputTokenCount": usage.cache_write_tokens,
    }


def _nova(said: Written) -> Json:
    body: Json = {
        "output": {"message": {"content": [{"text": said.text}], "role": "assistant"}},
        "stopReason": said.reason("end_turn", "max_tokens"),
    }
    return body | ({"usage": _nova_usage(said.usage)} if said.told else {})


def _nova_events(said: Written) -> Iterator[tuple[Json, bool]]:
    yield {"messageStart": {"role": "assistant"}}, False
    for piece in said.pieces():
        yield {"contentBlockDelta": {"delta": {"text": piece}, "contentBlockIndex": 0}}, True
    yield {"contentBlockStop": {"contentBlockIndex": 0}}, False
    yield {"messageStop": {"stopReason": said.reason("end_turn", "max_tokens")}}, False
    yield {"metadata": {"usage": _nova_usage(said.usage)} if said.told else {}}, False


# --- Titan ---------------------------------------------------------------------------------------------------------


def _titan(said: Written) -> Json:
    result: Json = {"outputText": said.text, "completionReason": said.reason("FINISH", "LENGTH")}
    if not said.told:
        return {"results": [result]}
    return {
        "inputTextTokenCount": said.usage.input_tokens,
        "results": [{"tokenCount": said.usage.output_tokens, **result}],
    }


def _titan_events(said: Written) -> Iterator[tuple[Json, bool]]:
    pieces = said.pieces()
    for place, piece in enumerate(pieces):
        last = place == len(pieces) - 1
        counted = said.told and last
        yield (
            {
                "outputText": piece,
                "index": 0,
                "totalOutputTextTokenCount": said.usage.output_tokens if counted else None,
                "completionReason": said.reason("FINISH", "LENGTH") if last else None,
                "inputTextTokenCount": said.usage.input_tokens if counted else None,
            },
            True,
        )


def _titan_vector(said: Written) -> Json:
    body: Json = {"embedding": [0.25, -0.5, 0.125]}
    return body | ({"inputTextTokenCount": said.usage.input_tokens} if said.told else {})


def _pictures(said: Written) -> Json:
    count = (said.exchange.body.get("imageGenerationConfig") or {}).get("numberOfImages") or 1
    return {"images": ["iVBORw0KGgo="] * count, "error": None}


# --- Llama ---------------------------------------------------------------------------------------------------------


def _llama(said: Written) -> Json:
    body: Json = {"generation": said.text, "stop_reason": said.reason("stop", "length")}
    if said.told:
        body |= {"prompt_token_count": said.usage.input_tokens, "generation_token_count": said.usage.output_tokens}
    return body


def _llama_events(said: Written) -> Iterator[tuple[Json, bool]]:
    pieces = said.pieces()
    for place, piece in enumerate(pieces):
        last = place == len(pieces) - 1
        event: Json = {"generation": piece, "stop_reason": said.reason("stop", "length") if last else None}
        if said.told:
            event["prompt_token_count"] = said.usage.input_tokens if place == 0 else None
            event["generation_token_count"] = said.usage.output_tokens if last else place + 1
        yield event, True


# --- Mistral and DeepSeek, which do not say what they used ---------------------------------------------------------


def _mistral(said: Written) -> Json:
    return {"outputs": [{"text": said.text, "stop_reason": said.reason("stop", "length")}]}


def _mistral_events(said: Written) -> Iterator[tuple[Json, bool]]:
    pieces = said.pieces()
    for place, piece in enumerate(pieces):
        last = place == len(pieces) - 1
        yield {"outputs": [{"text": piece, "stop_reason": said.reason("stop", "length") if last else None}]}, True


def _deepseek(said: Written) -> Json:
    return {"choices": [{"text": said.text, "stop_reason": said.reason("stop", "length")}]}


def _deepseek_events(said: Written) -> Iterator[tuple[Json, bool]]:
    for piece in said.pieces():
        yield {"choices": [{"text": piece, "stop_reason": None}]}, True
    yield {"choices": [{"text": "", "stop_reason": said.reason("stop", "length")}]}, False


# --- Cohere --------------------------------------------------------------------------------------------------------


def _command(said: Written) -> Json:
    return {
        "response_id": said.exchange.id(""),
        "text": said.text,
        "generation_id": said.exchange.id("", 1),
        "chat_history": [],
        "finish_reason": said.reason("COMPLETE", "MAX_TOKENS"),
    }


def _command_events(said: Written) -> Iterator[tuple[Json, bool]]:
    yield {"is_finished": False, "event_type": "stream-start"}, False
    for piece in said.pieces():
        yield {"is_finished": False, "event_type": "text-generation", "text": piece}, True
    ended = {"is_finished": True, "event_type": "stream-end", "finish_reason": said.reason("COMPLETE", "MAX_TOKENS")}
    yield ended | {"response": _command(said)}, False


def _generations(said: Written) -> Json:
    text = {"id": said.exchange.id("", 1), "text": said.text, "finish_reason": said.reason("COMPLETE", "MAX_TOKENS")}
    return {"id": said.exchange.id(""), "generations": [text], "prompt": said.exchange.body.get("prompt")}


def _generations_events(said: Written) -> Iterator[tuple[Json, bool]]:
    for piece in said.pieces():
        yield {"text": piece, "is_finished": False}, True
    yield {"is_finished": True, "finish_reason": said.reason("COMPLETE", "MAX_TOKENS")}, False


def _cohere_vectors(said: Written) -> Json:
    texts = said.exchange.body.get("texts") or []
    return {
        "id": said.exchange.id(""),
        "texts": texts,
        "embeddings": [[0.25, -0.5, 0.125] for _ in texts],
        "response_type": "embeddings_floats",
    }


def _ranks(said: Written) -> Json:
    documents = said.exchange.body.get("documents") or []
    return {"results": [{"index": place, "relevance_score": 0.5} for place in range(len(documents))]}


# --- those that imitate OpenAI: AI21, DeepSeek V3, gpt-oss, Qwen, newer Mistral models -------------------------------


def _choice(said: Written, name: str, message: Json, reason: str | None) -> Json:
    return {
        "id": said.exchange.id("chatcmpl-"),
        "object": "chat.completion" if name == "message" else "chat.completion.chunk",
        "created": said.exchange.created,
        "model": said.exchange.behaviour.model or said.exchange.params["model"],
        "choices": [{"index": 0, name: message, "finish_reason": reason}],
    }


def _openai_usage(usage: Usage) -> Json:
    shape: Json = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens:
        shape["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        shape["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return shape


def _openai(said: Written) -> Json:
    message = {"role": "assistant", "content": said.text}
    body = _choice(said, "message", message, said.reason("stop", "length"))
    return report(body, said.exchange.behaviour, _openai_usage(said.usage))


def _openai_events(said: Written) -> Iterator[tuple[Json, bool]]:
    for piece in said.pieces():
        yield _choice(said, "delta", {"content": piece}, None), True
    ending = _choice(said, "delta", {}, said.reason("stop", "length"))
    yield ending | ({"usage": _openai_usage(said.usage)} if said.told else {}), False


_OPENAI: Final = Family(_openai, _openai_events)
_FAMILIES: Final[tuple[tuple[str, tuple[str, ...], Family], ...]] = (
    # the model's id, fields that the request must have, and the shape of the answer
    (r"amazon\.nova-(?:canvas|reel)|image-generator|stability\.", (), Family(_pictures, writes=False)),
    (r"rerank", (), Family(_ranks, writes=False)),
    (r"cohere\.embed", (), Family(_cohere_vectors, writes=False)),
    (r"embed", (), Family(_titan_vector, writes=False)),
    (r"cohere\.command", ("prompt",), Family(_generations, _generations_events)),
    (r"cohere\.command", (), Family(_command, _command_events)),
    (r"titan-text|tg1", (), Family(_titan, _titan_events, ("textGenerationConfig", "maxTokenCount"))),
    (r"meta\.llama", (), Family(_llama, _llama_events, ("max_gen_len",))),
    (r"mistral\.", ("prompt",), Family(_mistral, _mistral_events)),
    (r"deepseek\.", ("prompt",), Family(_deepseek, _deepseek_events)),
    (r"amazon\.nova|^arn:", ("messages",), Family(_nova, _nova_events, ("inferenceConfig", "maxTokens"))),
)
