"""Bedrock's Converse and ConverseStream, one shape for every vendor's models: sizes, attributes, usage, streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.endpoint import Body
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, is_count, positive, text
from tokenbudget_otel.instrumentation.sizing import MediaTokens, longest_cache_ttl, measure
from tokenbudget_otel.instrumentation.streams import TextCount
from tokenbudget_otel.meter import Size
from tokenbudget_otel.usage import TokenUsage

MEDIA: Final = MediaTokens(image=(1_600, 50_000), other=(3_000, None))
"""Images: what Claude likely bills, and a bound for all vendors. Documents, audio, video cannot be told beforehand."""

MEDIA_BLOCKS: Final = {"image": "image", "document": "document", "video": "video", "audio": "audio"}
"""Blocks of content that are not text, and what :func:`measure` knows them as."""

FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_call",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
"""Stop reasons in the words of the conventions; others (``malformed_tool_use``) are passed on."""

CACHE_TTLS: Final = {"5m": "cache_write_5m_tokens", "1h": "cache_write_1h_tokens"}
DEFAULT_TIERS: Final = frozenset((None, "default"))


def converse_usage(usage: Any) -> TokenUsage | None:
    """Usage of Converse, and of Nova's own bodies. ``inputTokens`` leaves out what was read from and written to the
    cache, so the whole input is their sum.

    >>> converse_usage({"inputTokens": 10, "cacheReadInputTokens": 90, "outputTokens": 5})
    TokenUsage(input_tokens=100, output_tokens=5, cache_read_tokens=90)
    """
    if usage is None:
        return None
    read = _either(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _either(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    counts: dict[str, Any] = {
        "input_tokens": whole_input(get(usage, "inputTokens"), read, written),
        "output_tokens": get(usage, "outputTokens"),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
    }
    details = get(usage, "cacheDetails")
    for detail in details if isinstance(details, list) else ():
        name = CACHE_TTLS.get(str(get(detail, "ttl")))
        count = get(detail, "inputTokens")
        if name is not None and is_count(count):
            counts[name] = counts.get(name, 0) + count
    return TokenUsage.reading(counts) or None


def whole_input(fresh: Any, *cached: Any) -> int | None:
    """All of the input, where ``fresh`` leaves out what was read from and written to the cache."""
    return fresh + sum(count for count in cached if is_count(count)) if is_count(fresh) else None


def _either(source: Any, *names: str) -> Any:
    return next((value for name in names if (value := get(source, name)) is not None), None)


def tier_of(service: Any, latency: Any) -> str | None:
    """The tier that prices know a call by: the service tier, or else the latency that it was optimised for."""
    if text(service) not in DEFAULT_TIERS:
        return text(service)
    return text(latency) or text(service)


def shown(value: Any) -> Any:
    """Blocks of content as :func:`measure` reads them: what is not text becomes a part with a ``type``."""
    if value is None or type(value) is str:
        return value
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    if type(value) is not dict and not isinstance(value, Mapping):
        return {"type": "file"} if isinstance(value, bytes | bytearray | memoryview) else value
    made: dict[Any, Any] = {}
    for name, item in value.items():
        if name in MEDIA_BLOCKS and isinstance(item, Mapping):
            # A document may be text, and then that is what is read.
            words = [get(item, "source", "text"), get(item, "source", "content"), get(item, "context")]
            known = name == "document" and (words[0] is not None or words[1] is not None)
            made[name] = shown([word for word in words if word]) if known else {"type": MEDIA_BLOCKS[name]}
        else:
            made[name] = shown(item)
    return made


def size(body: Body, _options: Any) -> Size:
    """The size of a request."""
    messages, system, tools = body.get("messages"), body.get("system"), get(body, "toolConfig", "tools")
    further = (body.get(name) for name in ("outputConfig", "additionalModelRequestFields", "promptVariables"))
    extent = measure(shown(system), shown(messages), tools, *further)
    listed = tools if isinstance(tools, list | tuple) else ()
    # A prompt that Bedrock keeps is read there, and so is what a tool of the server's own finds.
    unseen = ":prompt/" in str(body.get("modelId")) or any(get(tool, "systemTool") is not None for tool in listed)
    most = get(body, "inferenceConfig", "maxTokens")
    return Size(
        extent.likely(MEDIA),
        None if unseen else extent.bound(MEDIA),
        max_output_tokens=positive(most),
        cache_write_ttl=None if unseen else longest_cache_ttl(system, messages, tools),
        text_only=not extent.others,
    )


_REQUEST: Final = (
    (semconv.REQUEST_MAX_TOKENS, ("inferenceConfig", "maxTokens"), int),
    (semconv.REQUEST_TEMPERATURE, ("inferenceConfig", "temperature"), (int, float)),
    (semconv.REQUEST_TOP_P, ("inferenceConfig", "topP"), (int, float)),
    (semconv.REQUEST_TOP_K, ("additionalModelRequestFields", "top_k"), (int, float)),
    (semconv.REQUEST_TOP_K, ("additionalModelRequestFields", "inferenceConfig", "topK"), (int, float)),
    (semconv.REQUEST_REASONING_LEVEL, ("outputConfig", "effort"), str),
    ("aws.bedrock.guardrail.id", ("guardrailConfig", "guardrailIdentifier"), str),
)


def attributes(body: Body) -> Mapping[str, Any]:
    """Span attributes of a request."""
    found: dict[str, Any] = {}
    for name, path, kind in _REQUEST:
        value = get(body, *path)
        if isinstance(value, kind) and not isinstance(value, bool):
            found[name] = value
    stops = get(body, "inferenceConfig", "stopSequences")
    if isinstance(stops, list | tuple) and stops and all(isinstance(stop, str) for stop in stops):
        found[semconv.REQUEST_STOP_SEQUENCES] = tuple(stops)
    if get(body, "outputConfig", "textFormat", "type") == "json_schema":
        found[semconv.OUTPUT_TYPE] = "json"
    return found


def stream_attributes(body: Body) -> Mapping[str, Any]:
    """The same of a request for a stream."""
    return {**attributes(body), semconv.REQUEST_STREAM: True}


def read(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """What an answer of Converse says."""
    facts = ResponseFacts(
        usage=converse_usage(get(data, "usage")), finish_reasons=finish_reasons(get(data, "stopReason"))
    )
    read_metadata(facts, data)
    return facts


def read_metadata(facts: ResponseFacts, data: Any) -> None:
    """What an answer, or the last event of a stream, says of how it was served."""
    facts.tier = tier_of(get(data, "serviceTier", "type"), get(data, "performanceConfig", "latency"))
    facts.model = text(get(data, "trace", "promptRouter", "invokedModelId"))


def finish_reasons(reason: Any) -> tuple[str, ...]:
    """Why the model stopped, in the words of the conventions."""
    said = text(reason)
    return (FINISH_REASONS.get(said, said),) if said else ()


class ConverseReader:
    """Streams of Converse: the reason to stop comes before the last event, which has the usage."""

    def __init__(self, _body: Body, _provider: str) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()
        self._text = TextCount()

    def item(self, item: Any) -> bool:
        facts = self.facts
        if (delta := get(item, "contentBlockDelta", "delta")) is not None:
            self._text.add(get(delta, "text"))
            self._text.add(get(delta, "toolUse", "input"))
            self._text.add(get(delta, "reasoningContent", "text"))
        elif (stop := get(item, "messageStop")) is not None:
            facts.finish_reasons = finish_reasons(get(stop, "stopReason"))
            self.complete = True
        elif (metadata := get(item, "metadata")) is not None:
            facts.usage = converse_usage(get(metadata, "usage"))
            read_metadata(facts, metadata)
            self.complete = True
            self.usage_is_final = facts.usage is not None and facts.usage.output_tokens is not None
        return False

    def text_tokens(self) -> int:
        return self._text.tokens
