"""OpenAI's embeddings, as floats or in base64."""

from __future__ import annotations

import base64
import struct
from typing import Any

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.openai_usage import report
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import dump
from tokenbudget_otel.simulator.usage import measure_prompt

_PATTERN = 32
"""After so many numbers a vector repeats itself: nobody reads it, and it is cheap to make."""


def embeddings(exchange: Exchange) -> Reply:
    """POST /embeddings"""
    body = exchange.body
    inputs = body.get("input")
    if not isinstance(inputs, list) or (inputs and isinstance(inputs[0], int)):
        inputs = [inputs]
    width = int(body.get("dimensions") or 1536)
    # A list of numbers is a text in tokens.
    tokens = sum(len(text) if isinstance(text, list) else measure_prompt(text) for text in inputs)
    usage = exchange.measure(tokens, 0)
    encode = _base64 if body.get("encoding_format") == "base64" else floats
    data = [
        {"object": "embedding", "index": place, "embedding": encode(exchange.number + place, width)}
        for place in range(len(inputs))
    ]
    shape = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    whole = report({"object": "list", "data": data, "model": exchange.model}, exchange.behaviour, shape)
    return Reply(dump(whole), usage=usage, model=exchange.model)


def floats(seed: int, width: int) -> list[float]:
    # Sixteenths are the same in 32 bits as in decimals.
    pattern = [((seed * 7 + place * 5) % 31 - 15) / 16 for place in range(_PATTERN)]
    return (pattern * (width // _PATTERN + 1))[:width]


def _base64(seed: int, width: int) -> Any:
    return base64.b64encode(struct.pack(f"<{width}f", *floats(seed, width))).decode()
