"""A provider of the program's own, declared as docs/providers.md shows."""

from __future__ import annotations

from typing import Any

from surface import Surface

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Simulator

MINIATURE = tb.Provider(
    name="miniature",
    sdk="miniature",
    url="base_url",
    provider_at=lambda _url, _body: "miniature",
    free_at=lambda _url, _body: True,
    methods=tb.Method(
        "Client.ask",
        "Client.stream",
        "AsyncClient.ask",
        "AsyncClient.stream",
        input="question",
        usage={"input_tokens": "usage.prompt_tokens", "output_tokens": "usage.completion_tokens"},
        text="choices.0.delta.content",
        ends="usage",
        finish_reason="choices.0.finish_reason",
    ),
)
tb.register_provider(MINIATURE)


def client(simulator: Simulator, asynchronous: bool) -> Any:
    import miniature

    return (miniature.AsyncClient if asynchronous else miniature.Client)(simulator.openai_url)


SURFACES = [
    Surface(
        provider="One of your own",
        sdk="miniature",
        name="ask and stream",
        system="miniature",
        model="miniature-1",
        client=client,
        behaviour={"input_tokens": 31, "output_tokens": 17},
        usage={"input_tokens": 31, "output_tokens": 17},
        call=lambda client: client.ask("Tell me a story about a river."),
        stream=lambda client: client.stream("Tell me a story about a river."),
        cost_state="free",
    )
]
