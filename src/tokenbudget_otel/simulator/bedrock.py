"""AWS Bedrock's wire format: InvokeModel and Converse, whole and streamed, for the models of every vendor."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, Final

from tokenbudget_otel.simulator import anthropic, bedrock_bodies
from tokenbudget_otel.simulator.bedrock_frames import BROKEN, CONTENT_TYPE, chunk, event, exception
from tokenbudget_otel.simulator.errors import Wording, wording
from tokenbudget_otel.simulator.exchange import Exchange
from tokenbudget_otel.simulator.hosts import Host
from tokenbudget_otel.simulator.reply import RefusedError, Reply
from tokenbudget_otel.simulator.routing import Table
from tokenbudget_otel.simulator.sse import Frame, dump
from tokenbudget_otel.simulator.text import count_words, write
from tokenbudget_otel.simulator.usage import Usage, measure_prompt

HOST: Final = Host("bedrock", "aws")

ERRORS: Final = {
    400: Wording("ValidationException", "Malformed input request, please reformat your input and try again."),
    401: Wording("UnrecognizedClientException", "The security token included in the request is invalid."),
    403: Wording("AccessDeniedException", "You don't have access to the model with the specified model ID."),
    404: Wording("ResourceNotFoundException", "The provided model identifier is not found."),
    408: Wording("ModelTimeoutException", "Model has timed out in processing the request. Try your request again."),
    424: Wording("ModelErrorException", "The system encountered an unexpected error during processing."),
    429: Wording("ThrottlingException", "Too many requests, please wait before trying again."),
    500: Wording("InternalServerException", "The system encountered an unexpected error during processing."),
    503: Wording("ServiceUnavailableException", "Bedrock is unable to process your request."),
}

_METRICS: Final = "amazon-bedrock-invocationMetrics"


def error_type(status: int) -> str:
    """What the header ``x-amzn-errortype`` says of a status."""
    return wording(ERRORS, status).type


def error_body(status: int, message: str | None, _request_id: str) -> bytes:
    return dump({"message": wording(ERRORS, status, message).message})


def _refused(message: str) -> RefusedError:
    return RefusedError(400, dump({"message": message, "__type": "ValidationException"}))


def _stream_error(_place: int) -> Frame:
    return exception("modelStreamErrorException", "The model encountered an error while streaming its answer.")


# --- InvokeModel ---------------------------------------------------------------------------------------------------


def invoke(exchange: Exchange) -> Reply:
    """POST /model/{model}/invoke"""
    if "anthropic_version" in exchange.body:
        reply = anthropic.messages(_as_message(exchange, streaming=False))
        assert reply.usage is not None
        return _invoked(exchange, reply.body, reply.usage)
    family = bedrock_bodies.of(exchange.params["model"], exchange.body)
    said = bedrock_bodies.written(exchange, family)
    body = family.body(said)
    usage = said.usage
    if images := body.get("images"):
        usage = dataclasses.replace(usage, input_tokens=0, output_tokens=0, output_images=len(images))
    return _invoked(exchange, dump(body), usage, writes=family.writes, counts="images" not in body)


def _invoked(exchange: Exchange, body: bytes, usage: Usage, *, writes: bool = True, counts: bool = True) -> Reply:
    headers = {"x-amzn-bedrock-invocation-latency": "7"}
    if counts and exchange.behaviour.usage != "absent":
        headers["x-amzn-bedrock-input-token-count"] = str(usage.plain_input_tokens)
        if writes:
            headers["x-amzn-bedrock-output-token-count"] = str(usage.output_tokens)
        if usage.cached_tokens or usage.cache_write_tokens:
            headers["x-amzn-bedrock-cache-read-input-token-count"] = str(usage.cached_tokens)
            headers["x-amzn-bedrock-cache-write-input-token-count"] = str(usage.cache_write_tokens)
    if tier := _tier(exchange, exchange.headers.get("x-amzn-bedrock-service-tier")):
        headers["x-amzn-bedrock-service-tier"] = tier
    if latency := exchange.headers.get("x-amzn-bedrock-performanceconfig-latency"):
        headers["x-amzn-bedrock-performanceconfig-latency"] = latency
    return Reply(body, headers=headers, usage=usage, model=exchange.params["model"])


def invoke_streamed(exchange: Exchange) -> Reply:
    """POST /model/{model}/invoke-with-response-stream"""
    if "anthropic_version" in exchange.body:
        reply = anthropic.messages(_as_message(exchange, streaming=True))
        assert reply.usage is not None
        events = [(_payload(frame), frame.content) for frame in reply.frames or ()]
        return _streamed(exchange, [made for made in events if made[0]["type"] != "ping"], reply.usage)
    family = bedrock_bodies.of(exchange.params["model"], exchange.body)
    if family.events is None:
        raise _refused("The model is unsupported for streaming.")
    said = bedrock_bodies.written(exchange, family)
    return _streamed(exchange, list(family.events(said)), said.usage)


def _streamed(exchange: Exchange, events: list[tuple[dict[str, Any], bool]], usage: Usage) -> Reply:
    if exchange.behaviour.usage != "absent" and events:
        last, content = events[-1]
        events[-1] = (last | {_METRICS: _metrics(usage)}, content)
    return _reply(exchange, [chunk(value, content) for value, content in events], usage)


def _metrics(usage: Usage) -> dict[str, int]:
    counts = {"inputTokenCount": usage.plain_input_tokens, "outputTokenCount": usage.output_tokens}
    if usage.cached_tokens or usage.cache_write_tokens:
        counts |= {
            "cacheReadInputTokenCount": usage.cached_tokens,
            "cacheWriteInputTokenCount": usage.cache_write_tokens,
        }
    return counts | {"invocationLatency": 7, "firstByteLatency": 3}


def _reply(exchange: Exchange, frames: list[Frame], usage: Usage) -> Reply:
    return Reply(
        content_type=CONTENT_TYPE,
        frames=frames,
        error_frame=_stream_error,
        broken_frame=BROKEN,
        usage=usage,
        model=exchange.params["model"],
    )


_PLACE: Final = re.compile(r"^.*anthropic\.")
_VERSION: Final = re.compile(r"-v\d+(?::\d+)?$")


def _as_message(exchange: Exchange, *, streaming: bool) -> Exchange:
    """The exchange as Anthropic's own API would see it. The answer names the model as Anthropic does, without the
    place and the version of Bedrock's names."""
    reported = _VERSION.sub("", _PLACE.sub("", exchange.params["model"]))
    exchange.body = exchange.body | {"model": reported, "stream": streaming}
    return exchange


def _payload(frame: Frame) -> Any:
    return json.loads(frame.data.partition(b"data: ")[2])


# --- Converse ------------------------------------------------------------------------------------------------------


def converse(exchange: Exchange) -> Reply:
    """POST /model/{model}/converse"""
    blocks, stop, usage = _conversed(exchange)
    body: dict[str, Any] = {
        "metrics": {"latencyMs": 7},
        "output": {"message": {"content": blocks, "role": "assistant"}},
        "stopReason": stop,
    }
    return Reply(dump(body | _metadata(exchange, usage)), usage=usage, model=exchange.params["model"])


def converse_streamed(exchange: Exchange) -> Reply:
    """POST /model/{model}/converse-stream"""
    blocks, stop, usage = _conversed(exchange)
    frames = [event("messageStart", {"role": "assistant"})]
    for index, block in enumerate(blocks):
        frames += _block_frames(exchange, index, block)
    frames.append(event("messageStop", {"stopReason": stop}))
    frames.append(event("metadata", {"metrics": {"latencyMs": 7}} | _metadata(exchange, usage)))
    return _reply(exchange, frames, usage)


def _conversed(exchange: Exchange) -> tuple[list[dict[str, Any]], str, Usage]:
    behaviour, body = exchange.behaviour, exchange.body
    if not body.get("messages"):
        raise _refused("messages: Field required")
    blocks: list[dict[str, Any]] = []
    if behaviour.thinking is not None or behaviour.reasoning_tokens:
        thinking = behaviour.thinking or write(exchange.number + 7, behaviour.reasoning_tokens)
        blocks.append({"reasoningContent": {"reasoningText": {"text": thinking, "signature": exchange.id("sig")}}})
    if behaviour.tool_calls:
        text, stop = behaviour.text or "", "tool_use"
    else:
        text, short = exchange.write((body.get("inferenceConfig") or {}).get("maxTokens"))
        stop = "max_tokens" if short else "end_turn"
    if text:
        blocks.append({"text": text})
    for place, call in enumerate(behaviour.tool_calls):
        tool = {"toolUseId": exchange.id("tooluse_", 1 + place), "name": call.name, "input": dict(call.arguments)}
        blocks.append({"toolUse": tool})
    written = count_words(text) + sum(count_words(call.json) + 1 for call in behaviour.tool_calls)
    usage = exchange.measure(measure_prompt(body.get("system"), body["messages"], body.get("toolConfig")), written)
    return blocks, behaviour.finish_reason or stop, usage


def _metadata(exchange: Exchange, usage: Usage) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if exchange.behaviour.usage == "present":
        said["usage"] = _usage(usage)
    if tier := _tier(exchange, (exchange.body.get("serviceTier") or {}).get("type")):
        said["serviceTier"] = {"type": tier}
    if latency := (exchange.body.get("performanceConfig") or {}).get("latency"):
        said["performanceConfig"] = {"latency": latency}
    return said


def _usage(usage: Usage) -> dict[str, Any]:
    """Bedrock's shape: input tokens are those that were neither read from the cache nor written to it."""
    shape: dict[str, Any] = {
        "inputTokens": usage.plain_input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
    }
    if usage.cached_tokens or usage.cache_write_tokens:
        shape |= {"cacheReadInputTokens": usage.cached_tokens, "cacheWriteInputTokens": usage.cache_write_tokens}
    written = (("1h", usage.cache_write_1h_tokens), ("5m", usage.cache_write_5m_tokens))
    if details := [{"ttl": ttl, "inputTokens": count} for ttl, count in written if count]:
        shape["cacheDetails"] = details
    return shape


def _tier(exchange: Exchange, asked: str | None) -> str | None:
    return exchange.behaviour.service_tier or asked


def _block_frames(exchange: Exchange, index: int, block: dict[str, Any]) -> list[Frame]:
    frames: list[Frame] = []
    if tool := block.get("toolUse"):
        start = {"toolUse": {"toolUseId": tool["toolUseId"], "name": tool["name"]}}
        frames.append(event("contentBlockStart", {"start": start, "contentBlockIndex": index}))
        deltas: list[dict[str, Any]] = [
            {"toolUse": {"input": piece}} for piece in exchange.cut(json.dumps(tool["input"]))
        ]
    elif reasoning := block.get("reasoningContent"):
        said = reasoning["reasoningText"]
        deltas = [{"reasoningContent": {"text": piece}} for piece in exchange.cut(said["text"])]
        deltas.append({"reasoningContent": {"signature": said["signature"]}})
    else:
        deltas = [{"text": piece} for piece in exchange.cut(block["text"])]
    frames += [
        event(
            "contentBlockDelta",
            {"delta": delta, "contentBlockIndex": index},
            content="signature" not in delta.get("reasoningContent", ()),
        )
        for delta in deltas
    ]
    return [*frames, event("contentBlockStop", {"contentBlockIndex": index})]


ROUTES: Final[Table] = {
    # Ids of models are ARNs as well, with slashes and colons in them.
    ("POST", "/{model:path}/invoke"): invoke,
    ("POST", "/{model:path}/invoke-with-response-stream"): invoke_streamed,
    ("POST", "/{model:path}/converse"): converse,
    ("POST", "/{model:path}/converse-stream"): converse_streamed,
}
"""Under ``/model``."""
