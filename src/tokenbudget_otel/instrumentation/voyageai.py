"""Voyage: embeddings (of texts, of chunks in their documents, of images and videos) and reranking.

Images and videos are counted in pixels, and have a part in the total of tokens. Models that the SDK runs itself
(``voyage-4-nano``) cost nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.facts import get
from tokenbudget_otel.instrumentation.failures import raised_in, status_of
from tokenbudget_otel.instrumentation.provider import Method, Provider, ProviderInstrumentor
from tokenbudget_otel.usage import TokenUsage

DIMENSION: Final = {semconv.EMBEDDINGS_DIMENSION_COUNT: "output_dimension"}
BEFORE_SENDING: Final = ("AuthenticationError", "InvalidRequestError")
"""Errors of the SDK's own, where they have no HTTP status: a key that is missing, an input that cannot be."""


def clients(method: str) -> tuple[str, str]:
    """A method of both clients."""
    return f"Client.{method}", f"AsyncClient.{method}"


def run_here(_url: str, body: Mapping[str, Any]) -> bool:
    """Whether the SDK runs the model itself."""
    registry = sys.modules.get("voyageai.local.model_registry")
    return body.get("model") in getattr(registry, "SUPPORTED_MODELS", ())


def unbilled(error: BaseException) -> bool:
    """What is raised without an answer, before anything is sent."""
    if type(error).__name__ in BEFORE_SENDING and status_of(error) is None:
        return True
    return raised_in(error, frozenset(("_prepare_request_raw", "from_user_inputs", "apply_chunking")))


def _url(client: Any) -> Any:
    """Where a client sends to; with the first versions all send to one place."""
    return get(client, "_params", "base_url") or getattr(sys.modules.get("voyageai"), "api_base", None)


def _parts(body: Any) -> list[Any]:
    """Multimodal inputs: text as it is, and what is not text by its kind."""
    shown: list[Any] = []
    for given in get(body, "inputs") or ():
        for part in given.get("content") or () if isinstance(given, Mapping) else given:
            if isinstance(part, str):
                shown.append(part)
            elif isinstance(part, Mapping):
                kind = str(part.get("type"))
                shown.append(part.get("text") if kind == "text" else {"type": kind.partition("_")[0]})
            else:
                shown.append({"type": "video" if type(part).__name__ == "Video" else "image"})
    return shown


def _multimodal(answer: Any) -> TokenUsage | None:
    total, texts = get(answer, "total_tokens"), get(answer, "text_tokens")
    pixels = [count for name in ("image_pixels", "video_pixels") if isinstance(count := get(answer, name), int)]
    counts = {"input_tokens": total, "input_text_tokens": texts, "input_pixels": sum(pixels) if pixels else None}
    return TokenUsage.reading(counts)


def _model(body: Any) -> str | None:
    """The model that is asked for, or the SDK's own choice."""
    model = get(body, "model")
    return model or getattr(sys.modules.get("voyageai"), "VOYAGE_EMBED_DEFAULT_MODEL", None)


def _method(name: str, *given: Any, operation: str = semconv.EMBEDDINGS, usage: Any = None) -> Method:
    return Method(
        *clients(name),
        operation=operation,
        model=_model,
        input=given,
        max_output_tokens=None,
        usage=usage or {"input_tokens": "total_tokens"},
        attributes=DIMENSION,
        no_output=True,
        changes={"model": "model"},
    )


VOYAGE: Final = Provider(
    name="voyageai",
    sdk="voyageai",
    versions=">=0.3,<1",
    url=_url,
    free_at=run_here,
    unbilled=unbilled,
    methods=(
        _method("embed", "texts"),
        _method("contextualized_embed", "inputs"),
        _method("multimodal_embed", _parts, usage=_multimodal),
        # The query is counted once for every document.
        _method("rerank", "documents", lambda body: [body["query"]] * len(body["documents"]), operation="rerank"),
    ),
)


class VoyageAIInstrumentor(ProviderInstrumentor):
    """Meters the calls of the voyageai SDK, 0.3 to 0.5.

    >>> VoyageAIInstrumentor().instrumentation_dependencies()
    ('voyageai >=0.3,<1',)
    """

    declared = VOYAGE
