"""Google's embeddings and images: what AI Studio and Vertex AI answer to ``embedContent`` and ``predict``."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from tokenbudget_otel.simulator.errors import google_error
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.google_usage import report, usage_metadata
from tokenbudget_otel.simulator.openai_embeddings import floats
from tokenbudget_otel.simulator.openai_images import IMAGE
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.sse import dump
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

_USUAL_IMAGES: Final = 4
"""Images that are made where a request does not say how many."""


def model_of(exchange: Exchange) -> str:
    """The model that is reported: the behaviour's, or the one in the path."""
    return exchange.behaviour.model or exchange.params.get("where", "").rpartition("/")[2] or exchange.model


def on_vertex(exchange: Exchange) -> bool:
    """Vertex AI names a model with its publisher or project, AI Studio as ``models/…``."""
    return exchange.params.get("where", "").startswith(("projects/", "publishers/", "endpoints/"))


def embed(exchange: Exchange) -> Reply:
    """POST …:embedContent"""
    return _embeddings(exchange, [exchange.body.get("content")], single=True)


def batch_embed(exchange: Exchange) -> Reply:
    """POST …:batchEmbedContents"""
    requests = exchange.body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise RefusedError(400, dump(google_error(400, "* BatchEmbedContentsRequest.requests: at least one is needed")))
    return _embeddings(exchange, [request.get("content") for request in requests], single=False)


def _embeddings(exchange: Exchange, contents: list[Any], *, single: bool) -> Reply:
    usage = exchange.measure(sum(measure_prompt(content) for content in contents), 0)
    usage = dataclasses.replace(usage, output_tokens=0)
    made = [{"values": floats(exchange.number + place, _width(exchange))} for place in range(len(contents))]
    whole: dict[str, Any] = {"embedding": made[0]} if single else {"embeddings": made}
    # Models before gemini-embedding-2 do not say what they have read.
    if model_of(exchange).startswith("gemini-embedding-2"):
        shape = usage_metadata(usage, vertex=False)
        kept = ("promptTokenCount", "totalTokenCount", "promptTokensDetails")
        report(whole, exchange.behaviour, "usageMetadata", {name: shape[name] for name in kept})
    return Reply(dump(whole), usage=usage, model=model_of(exchange))


def _width(exchange: Exchange) -> int:
    body = exchange.body
    requests = body.get("requests") or [{}]
    asked = body.get("outputDimensionality") or requests[0].get("outputDimensionality")
    return int(asked or (body.get("parameters") or {}).get("outputDimensionality") or 768)


def predict(exchange: Exchange) -> Reply:
    """POST …:predict: embeddings of text where the instances have ``content``, else images."""
    instances = exchange.body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise RefusedError(400, dump(google_error(400, "Empty instances.")))
    return _text_predictions(exchange, instances) if "content" in instances[0] else _images(exchange)


def _text_predictions(exchange: Exchange, instances: list[Any]) -> Reply:
    texts = [str(instance.get("content") or "") for instance in instances]
    usage = exchange.measure(sum(measure_prompt(text) for text in texts), 0)
    characters = sum(len("".join(text.split())) for text in texts)
    usage = dataclasses.replace(usage, output_tokens=0, input_characters=characters)
    shares = [usage.input_tokens // len(texts)] * len(texts)
    shares[0] += usage.input_tokens - sum(shares)
    predictions = []
    for place, share in enumerate(shares):
        made: dict[str, Any] = {"values": floats(exchange.number + place, _width(exchange))}
        report(made, exchange.behaviour, "statistics", {"truncated": False, "token_count": share})
        predictions.append({"embeddings": made})
    whole: dict[str, Any] = {"predictions": predictions}
    report(whole, exchange.behaviour, "metadata", {"billableCharacterCount": characters})
    return Reply(dump(whole), usage=usage, model=model_of(exchange))


def _images(exchange: Exchange) -> Reply:
    behaviour = exchange.behaviour
    count = int((exchange.body.get("parameters") or {}).get("sampleCount") or _USUAL_IMAGES)
    made = [{"mimeType": "image/png", "bytesBase64Encoded": IMAGE}] * count
    if behaviour.refusal is not None:  # an image that was filtered is neither sent nor billed
        made = [{"raiFilteredReason": behaviour.refusal}, *made[1:]]
        count -= 1
    return Reply(dump({"predictions": made}), usage=Usage(output_images=count), model=model_of(exchange))
