"""What the providers answer: canned, in the shape and size of real answers, with the counts that the checks expect."""

from __future__ import annotations

import base64
import json
from array import array
from typing import Any, Final

PIECES: Final = 200
"""Chunks of a stream that carry text, or frame it; the program sees about as many."""

CHAT_MODEL: Final = "gpt-4o"
CHAT_ANSWERED_BY: Final = "gpt-4o-2024-08-06"
EMBEDDING_MODEL: Final = "text-embedding-3-small"
CLAUDE: Final = "claude-sonnet-4-6"

INPUT_TOKENS: Final = 1_200
CACHED_TOKENS: Final = 1_024
OUTPUT_TOKENS: Final = 180
EMBEDDED_TOKENS: Final = 48

# nano-USD. gpt-4o: 2.50 / 10 USD a million, cached 1.25; text-embedding-3-small: 0.02; claude-sonnet-4-6: 3 / 15, cache
# reads 0.30.
_FRESH: Final = INPUT_TOKENS - CACHED_TOKENS
GPT_NANO_USD: Final = _FRESH * 2_500 + CACHED_TOKENS * 1_250 + OUTPUT_TOKENS * 10_000
EMBEDDING_NANO_USD: Final = EMBEDDED_TOKENS * 20
CLAUDE_NANO_USD: Final = _FRESH * 3_000 + CACHED_TOKENS * 300 + OUTPUT_TOKENS * 15_000

WORDS: Final = (" the", " answer", " is", " a", " little", " longer", " than", " one", " would", " think", ",", " but")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _words(count: int) -> list[str]:
    return [WORDS[number % len(WORDS)] for number in range(count)]


# --- OpenAI, chat completions ----------------------------------------------------------------------------------------

CHAT_USAGE: Final = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}

CHAT: Final = _json(
    {
        "id": "chatcmpl-CbX2hYp1Tq9aVJf0mZ5RkLw7nE3sD",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": CHAT_ANSWERED_BY,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Certainly." + "".join(_words(18)),
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": CHAT_USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_b7faba9ef5",
    }
)


def _chat_chunk(asked: bool, delta: dict[str, Any], **more: Any) -> bytes:
    chunk = {
        "id": "chatcmpl-CbX2hYp1Tq9aVJf0mZ5RkLw7nE3sD",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": CHAT_ANSWERED_BY,
        "service_tier": "default",
        "system_fingerprint": "fp_b7faba9ef5",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}],
        **({"usage": None} if asked else {}),
        "obfuscation": "Yq3kT8vLm",
        **more,
    }
    return b"data: " + _json(chunk) + b"\n\n"


def _chat_stream(asked: bool) -> list[bytes]:
    """With the usage in a chunk of its own and ``"usage":null`` in all others, where the program asked for it."""
    ended = {"choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]}
    return [
        _chat_chunk(asked, {"role": "assistant", "content": "", "refusal": None}),
        *(_chat_chunk(asked, {"content": word}) for word in _words(PIECES - 2)),
        _chat_chunk(asked, {}, **ended),
        *([_chat_chunk(asked, {}, choices=[], usage=CHAT_USAGE)] if asked else ()),
        b"data: [DONE]\n\n",
    ]


CHAT_STREAM: Final = _chat_stream(False)
CHAT_STREAM_WITH_USAGE: Final = _chat_stream(True)


# --- OpenAI, responses -----------------------------------------------------------------------------------------------

RESPONSE_ID: Final = "resp_0cb5a1f3e2d94c7b006923f0a81d2481a3b5c7d9e1f3a5b7c9"
ITEM_ID: Final = "msg_0cb5a1f3e2d94c7b006923f0a8e1b881a38a1e7c5d3b9f2a4c"

RESPONSES_USAGE: Final = {
    "input_tokens": INPUT_TOKENS,
    "input_tokens_details": {"cached_tokens": CACHED_TOKENS, "cache_write_tokens": 0},
    "output_tokens": OUTPUT_TOKENS,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}


def _response(status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": RESPONSE_ID,
        "object": "response",
        "created_at": 1_790_000_000,
        "status": status,
        "background": False,
        "billing": {"payer": "developer"},
        "error": None,
        "incomplete_details": None,
        "instructions": "You are a helpful assistant.",
        "max_output_tokens": 400,
        "max_tool_calls": None,
        "model": CHAT_ANSWERED_BY,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        "metadata": {},
    }


def _output(text: str, status: str = "completed") -> dict[str, Any]:
    content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}] if text else []
    return {"id": ITEM_ID, "type": "message", "status": status, "content": content, "role": "assistant"}


RESPONSES: Final = _json(_response("completed", [_output("".join(_words(OUTPUT_TOKENS)))], RESPONSES_USAGE))


def _event(kind: str, number: int, **more: Any) -> bytes:
    data = {"type": kind, "sequence_number": number, **more}
    return b"event: " + kind.encode() + b"\ndata: " + _json(data) + b"\n\n"


def _responses_stream() -> list[bytes]:
    """The eight events around the text are of the 200."""
    words = _words(PIECES - 8)
    text, at = "".join(words), {"item_id": ITEM_ID, "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    last = len(words) + 4
    return [
        _event("response.created", 0, response=_response("in_progress", [], None)),
        _event("response.in_progress", 1, response=_response("in_progress", [], None)),
        _event("response.output_item.added", 2, output_index=0, item=_output("", "in_progress")),
        _event("response.content_part.added", 3, **at, part=part),
        *(
            _event("response.output_text.delta", 4 + number, **at, delta=word, logprobs=[], obfuscation="Qm4x8ZkP")
            for number, word in enumerate(words)
        ),
        _event("response.output_text.done", last, **at, text=text, logprobs=[]),
        _event("response.content_part.done", last + 1, **at, part={**part, "text": text}),
        _event("response.output_item.done", last + 2, output_index=0, item=_output(text)),
        _event("response.completed", last + 3, response=_response("completed", [_output(text)], RESPONSES_USAGE)),
    ]


RESPONSES_STREAM: Final = _responses_stream()


# --- OpenAI, embeddings ----------------------------------------------------------------------------------------------

_VECTOR: Final = base64.b64encode(array("f", [((n * 37) % 101 - 50) / 800 for n in range(256)]).tobytes()).decode()

EMBEDDINGS: Final = _json(
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": _VECTOR}],
        "model": EMBEDDING_MODEL,
        "usage": {"prompt_tokens": EMBEDDED_TOKENS, "total_tokens": EMBEDDED_TOKENS},
    }
)


# --- Anthropic, messages ---------------------------------------------------------------------------------------------

MESSAGES_USAGE: Final = {
    "input_tokens": INPUT_TOKENS - CACHED_TOKENS,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": CACHED_TOKENS,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": OUTPUT_TOKENS,
    "service_tier": "standard",
    "inference_geo": "not_available",
}


def _message(**more: Any) -> dict[str, Any]:
    return {
        "model": CLAUDE,
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": MESSAGES_USAGE,
        **more,
    }


MESSAGES: Final = _json(
    _message(content=[{"type": "text", "text": "Certainly." + "".join(_words(60))}], stop_reason="end_turn")
)


def _named(kind: str, **more: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _json({"type": kind, **more}) + b"\n\n"


def _messages_stream() -> list[bytes]:
    """The six events around the text are of the 200."""
    return [
        _named("message_start", message=_message(usage={**MESSAGES_USAGE, "output_tokens": 1})),
        _named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        _named("ping"),
        *(
            _named("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
            for word in _words(PIECES - 6)
        ),
        _named("content_block_stop", index=0),
        _named(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={
                "input_tokens": INPUT_TOKENS - CACHED_TOKENS,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": CACHED_TOKENS,
                "output_tokens": OUTPUT_TOKENS,
            },
        ),
        _named("message_stop"),
    ]


MESSAGES_STREAM: Final = _messages_stream()
