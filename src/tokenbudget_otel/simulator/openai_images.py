"""OpenAI's images: generations and edits, whole and streamed."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any, Final

from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.openai_chat import STREAM_ERROR
from tokenbudget_otel.simulator.openai_usage import images_usage, report
from tokenbudget_otel.simulator.reply import Reply
from tokenbudget_otel.simulator.sse import dump, event_frame
from tokenbudget_otel.simulator.usage import Usage, measure, measure_prompt

IMAGE: Final = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\10\6\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0"
    b"\5\0\1\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82"
).decode()
"""One pixel."""

_WRITTEN: Final = {"low": 272, "medium": 1056, "high": 4160}
"""Tokens of one square image by its quality."""
_READ: Final = 323
"""Tokens of one image that is edited."""


def generations(exchange: Exchange) -> Reply:
    """POST /images/generations"""
    return _images(exchange, "image_generation", 0)


def edits(exchange: Exchange) -> Reply:
    """POST /images/edits"""
    images = exchange.body.get("image", [])
    # An upload is a tuple itself.
    return _images(exchange, "image_edit", len(images) if isinstance(images, list) else 1)


def _images(exchange: Exchange, event: str, read: int) -> Reply:
    body, model = exchange.body, exchange.model
    count = int(body.get("n") or 1)
    quality = body.get("quality") if body.get("quality") in _WRITTEN else "medium"
    usage = _usage(exchange, count * _WRITTEN[str(quality)], read * _READ)
    if model.startswith("dall-e"):
        # Billed by the image: no usage is reported.
        pictures = [{"url": f"https://example.com/{exchange.id('img-', place)}.png"} for place in range(count)]
        if body.get("response_format") == "b64_json":
            pictures = [{"b64_json": IMAGE}] * count
        data = {"created": exchange.created, "data": pictures}
        return Reply(dump(data), usage=Usage(output_images=count), model=model)
    look = {
        "background": _known(body.get("background"), ("transparent", "opaque"), "opaque"),
        "output_format": _known(body.get("output_format"), ("png", "webp", "jpeg"), "png"),
        "quality": quality,
        "size": _known(body.get("size"), ("1024x1024", "1024x1536", "1536x1024"), "1024x1024"),
    }
    shape = images_usage(usage)
    if not exchange.streaming:
        whole = {"created": exchange.created, "data": [{"b64_json": IMAGE}] * count} | look
        return Reply(dump(report(whole, exchange.behaviour, shape)), usage=usage, model=model)
    common: dict[str, Any] = {"created_at": exchange.created, "b64_json": IMAGE} | look
    frames = [
        event_frame({"type": f"{event}.partial_image", "partial_image_index": place} | common, content=True)
        for place in range(int(body.get("partial_images") or 0))
    ]
    frames.append(event_frame(report({"type": f"{event}.completed"} | common, exchange.behaviour, shape)))
    return Reply(
        content_type="text/event-stream; charset=utf-8",
        frames=frames,
        error_frame=lambda _place: STREAM_ERROR,
        usage=usage,
        model=model,
    )


def _usage(exchange: Exchange, written: int, read: int) -> Usage:
    behaviour = exchange.behaviour
    if behaviour.output_tokens is None and not behaviour.output_image_tokens:
        behaviour = replace(behaviour, output_image_tokens=written)
    elif not behaviour.output_image_tokens:
        behaviour = replace(behaviour, output_image_tokens=behaviour.output_tokens or 0)
    if behaviour.input_tokens is None and not behaviour.input_image_tokens:
        behaviour = replace(behaviour, input_image_tokens=read)
    usage = measure(behaviour, measure_prompt(exchange.body.get("prompt")), 0)
    return replace(usage, output_images=int(exchange.body.get("n") or 1))


def _known(value: Any, known: tuple[str, ...], default: str) -> str:
    return str(value) if value in known else default
