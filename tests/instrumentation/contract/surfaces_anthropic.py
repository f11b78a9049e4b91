"""Anthropic."""

from __future__ import annotations

from typing import Any

import pydantic
from surface import Because, Surface

from tokenbudget_otel.simulator import Simulator

MODEL = "claude-sonnet-4-6"
BODY = {"model": MODEL, "max_tokens": 500, "messages": [{"role": "user", "content": "Tell me a story."}]}


class Answer(pydantic.BaseModel):
    """What structured outputs are asked for."""

    answer: str


COUNTED = {
    "input_tokens": 1_200,
    "cached_tokens": 700,
    "cache_write_5m_tokens": 100,
    "cache_write_1h_tokens": 60,
    "output_tokens": 150,
    "reasoning_tokens": 60,
    "web_searches": 2,
    "web_fetches": 1,
}
USAGE = {
    "input_tokens": 1_200,
    "cache_read_tokens": 700,
    "cache_write_tokens": 160,
    "cache_write_5m_tokens": 100,
    "cache_write_1h_tokens": 60,
    "output_tokens": 150,
    "reasoning_tokens": 60,
    "web_searches": 2,
    "web_fetches": 1,
}
PARSED = {"text": '{"answer": "the river"}', "input_tokens": 120, "cached_tokens": 40, "output_tokens": 15}
PARSED_USAGE = {
    "input_tokens": 120,
    "cache_read_tokens": 40,
    "cache_write_tokens": 0,
    "cache_write_5m_tokens": 0,
    "cache_write_1h_tokens": 0,
    "output_tokens": 15,
}


def client(simulator: Simulator, asynchronous: bool) -> Any:
    import anthropic

    kind: Any = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
    http = anthropic.DefaultAsyncHttpxClient if asynchronous else anthropic.DefaultHttpxClient
    # Without certificates: loading them takes longer than a whole test.
    return kind(
        base_url=simulator.anthropic_url, api_key="any", max_retries=0, timeout=20, http_client=http(verify=False)
    )


def _surface(name: str, **given: Any) -> Surface:
    return Surface(
        provider="Anthropic", sdk="anthropic", name=name, system="anthropic", model=MODEL, client=client, **given
    )


SURFACES = [
    _surface(
        "messages.create",
        behaviour=COUNTED,
        usage=USAGE,
        call=lambda client: client.messages.create(**BODY),
        stream=lambda client: client.messages.create(**BODY, stream=True),
        raw=lambda client: client.messages.with_raw_response.create(**BODY),
    ),
    _surface(
        "messages.parse and stream",
        behaviour=PARSED,
        usage=PARSED_USAGE,
        call=lambda client: client.messages.parse(**BODY, output_format=Answer),
        stream=lambda client: client.messages.stream(**BODY),
        raw=Because("a helper has the raw response of `create`"),
        fuzz=Because("the helpers check what they parse: damage is an error of theirs"),
    ),
    _surface(
        "beta.messages.create",
        behaviour=COUNTED,
        usage=USAGE,
        call=lambda client: client.beta.messages.create(**BODY, betas=["context-1m-2025-08-07"]),
        stream=lambda client: client.beta.messages.create(**BODY, stream=True),
        raw=lambda client: client.beta.messages.with_raw_response.create(**BODY),
    ),
    _surface(
        "beta.messages.parse and stream",
        behaviour=PARSED,
        usage=PARSED_USAGE,
        call=lambda client: client.beta.messages.parse(**BODY, output_format=Answer),
        stream=lambda client: client.beta.messages.stream(**BODY),
        raw=Because("a helper has the raw response of `create`"),
        fuzz=Because("the helpers check what they parse: damage is an error of theirs"),
    ),
]
