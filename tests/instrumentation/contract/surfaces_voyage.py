"""Voyage: embeddings and reranking, of which only the input is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from surface import Because, Surface

from tokenbudget_otel.simulator import Simulator

WHOLE = Because("nothing of Voyage's is streamed")


def client(simulator: Simulator, asynchronous: bool) -> Any:
    import voyageai

    kind = voyageai.AsyncClient if asynchronous else voyageai.Client
    return kind(api_key="any", base_url=simulator.voyage_url, timeout=20)


def surface(
    name: str,
    model: str,
    call: Callable[[Any], Any],
    *,
    behaviour: dict[str, int] | None = None,
    usage: dict[str, int] | None = None,
    **fields: Any,
) -> Surface:
    return Surface(
        provider="Voyage",
        sdk="voyageai",
        name=name,
        system="voyageai",
        model=model,
        client=client,
        behaviour=behaviour or {"input_tokens": 23},
        usage=usage or {"input_tokens": 23},
        call=call,
        stream=WHOLE,
        **{"operation": "embeddings", **fields},
    )


PAGE = [
    {
        "content": [
            {"type": "text", "text": "a bridge"},
            {"type": "image_base64", "image_base64": "data:image/png;base64,AA"},
        ]
    }
]

SURFACES = [
    surface("embed", "voyage-3.5", lambda client: client.embed(["a river"], model="voyage-3.5", input_type="document")),
    surface(
        "contextualized_embed",
        "voyage-context-3",
        lambda client: client.contextualized_embed([["a river", "a bridge"]], model="voyage-context-3"),
    ),
    surface(
        "multimodal_embed",
        "voyage-multimodal-3",
        lambda client: client.multimodal_embed(PAGE, model="voyage-multimodal-3"),
        behaviour={"input_tokens": 23, "input_image_tokens": 20},
        usage={"input_tokens": 23, "input_text_tokens": 3, "input_pixels": 11_200},
    ),
    surface(
        "rerank",
        "rerank-2.5",
        lambda client: client.rerank("where?", ["a river", "a bridge"], model="rerank-2.5"),
        operation="rerank",
    ),
]
