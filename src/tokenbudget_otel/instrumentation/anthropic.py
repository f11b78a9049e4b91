"""Anthropic, also on Bedrock, Vertex and Foundry through its own SDK: the instrumentor and its endpoints.

    >>> from tokenbudget_otel.instrumentation.anthropic import AnthropicInstrumentor
    >>> AnthropicInstrumentor().instrument()
    >>> AnthropicInstrumentor().uninstrument()

The SDK makes spans of its own since 1.14. While this instrumentor is active its spans for messages are not
made: one call, one span.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.anthropic_batches import AnthropicBatches, model_of
from tokenbudget_otel.instrumentation.anthropic_content import MESSAGE
from tokenbudget_otel.instrumentation.changes import THINKING, Changes
from tokenbudget_otel.instrumentation.door import Door
from tokenbudget_otel.instrumentation.endpoint import Body, Endpoint, Opened, Peer
from tokenbudget_otel.instrumentation.facts import ResponseFacts, fields, get, text
from tokenbudget_otel.instrumentation.fields import NOTHING, Fields, plain_models
from tokenbudget_otel.instrumentation.instrumentor import SdkInstrumentor
from tokenbudget_otel.instrumentation.sizing import MediaTokens, input_tokens, longest_cache_ttl
from tokenbudget_otel.instrumentation.stainless import StainlessDoor, changed_options
from tokenbudget_otel.instrumentation.streams import StreamFormat
from tokenbudget_otel.instrumentation.telemetry import Telemetry
from tokenbudget_otel.meter import Meter, Size
from tokenbudget_otel.usage import TokenUsage

PROVIDER: Final = "anthropic"

CLASSES: Final = {
    "BaseBedrockClient": "aws.bedrock",
    "AnthropicBedrockMantle": "aws.bedrock",
    "AsyncAnthropicBedrockMantle": "aws.bedrock",
    "BaseVertexClient": "gcp.vertex_ai",
    "BaseGoogleCloudClient": "gcp.vertex_ai",
    "BaseFoundryClient": "azure.ai.inference",
}
"""Client classes that stand for the platform that the model runs on."""

MEDIA: Final = MediaTokens(image=(1_600, 5_000), other=(3_000, None))
"""An image is about width x height / 750 tokens, some 1,600 for one scaled to 1.15 megapixels (Anthropic,
"Vision"); documents cannot be told beforehand."""

UNCAPPED_SEARCHES: Final = 10
"""Searches allowed for in a request that sets no ``max_uses``. The API has no limit of its own, so this is the one
place where a ``worst_case`` reservation is not a bound; docs/budgets.md says so."""

FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_call",
    "refusal": "content_filter",
}
"""Stop reasons in the words of the conventions; others (``pause_turn``) are passed on."""

MARKS: Final = re.compile(rb'"type":\s*"(?:message_start|message_delta|message_stop|error|server_tool_use)"')
TEXT: Final = re.compile(rb'"(?:text|thinking|partial_json)":\s*"((?:[^"\\]|\\.)*)"')


CODE: Final = frozenset(("code_execution", "bash_code_execution"))
"""Tools of the server that run code in a container, which is billed by the hour and not told in the usage."""

FREE_CODE: Final = re.compile(r"web_(?:search|fetch)_(\d{8})")
FREE_CODE_SINCE: Final = "20260209"
"""With web tools from this version on, the code that they run, and any other, is free ("Code execution tool")."""


_COUNTS: Final = (
    ("cache_creation", (
        ("ephemeral_5m_input_tokens", "cache_write_5m_tokens"),
        ("ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
    )),
    ("output_tokens_details", (("thinking_tokens", "reasoning_tokens"),)),
    ("server_tool_use", (
        ("web_search_requests", "web_searches"),
        ("web_fetch_requests", "web_fetches"),
        ("code_execution_requests", "code_executions"),
    )),
)  # fmt: skip
"""Parts of the usage of a message, and the counts that are in them."""


def message_usage(usage: Any) -> TokenUsage | None:
    """Usage of a message. ``input_tokens`` of the API leaves out what was read from and written to the cache,
    so the whole input is their sum; what compaction used is reported apart and added."""
    return None if usage is None else _used(fields(usage))


def _used(told: Fields) -> TokenUsage:
    counts = _counts(told)
    iterations = told.get("iterations")
    for iteration in iterations if isinstance(iterations, list) else ():
        if get(iteration, "type") == "compaction":
            for name, value in _counts(fields(iteration)).items():
                known = counts.get(name)
                if isinstance(value, int) and (known is None or isinstance(known, int)):
                    counts[name] = (known or 0) + value
    return TokenUsage.reading(counts)


def _counts(told: Fields) -> dict[str, Any]:
    fresh, read = told.get("input_tokens"), told.get("cache_read_input_tokens")
    written = told.get("cache_creation_input_tokens")
    whole = None
    if isinstance(fresh, int):
        whole = 0
        for part in (fresh, read, written):
            if isinstance(part, int) and part >= 0:
                whole += part
    counts: dict[str, Any] = {
        "input_tokens": whole,
        "output_tokens": told.get("output_tokens"),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
    }
    for name, named in _COUNTS:
        if (source := told.get(name)) is not None:
            within = fields(source)
            for name, count in named:
                if (value := within.get(name)) is not None:
                    counts[count] = value
    return counts


def _tier(usage: Any) -> str | None:
    """Fast mode has prices of its own, whatever the service tier."""
    told = fields(usage)
    return "fast" if told.get("speed") == "fast" else text(told.get("service_tier"))


def runs_code(block: Any) -> bool:
    """Whether a block of content is a run of code on the server."""
    told = fields(block)
    return told.get("type") == "server_tool_use" and text(told.get("name")) in CODE


def code_is_free(body: Body) -> bool:
    """Whether a request has tools with which the running of code costs nothing."""
    tools = body.get("tools")
    if not tools:
        return False
    kinds = [FREE_CODE.match(str(get(tool, "type"))) for tool in tools]
    return any(kind is not None and kind[1] >= FREE_CODE_SINCE for kind in kinds)


def with_code(usage: TokenUsage | None, runs: int) -> TokenUsage | None:
    """``usage`` with the runs of code that the content shows, where it does not count them itself."""
    if usage is None or not runs or usage.code_executions is not None:
        return usage
    return usage.replace(code_executions=runs)


class MessageReader:
    """Message streams. ``message_start`` has the input and a placeholder for the output; ``message_delta`` has
    cumulative counts, but neither the split of cache writes nor the tier, so both are kept and merged.

    Args:
        code: whether runs of code on the server are counted.
    """

    def __init__(self, _hide_usage: bool = False, *, code: bool = True) -> None:
        self.complete = False
        self.usage_is_final = False
        self.facts = ResponseFacts()
        self._usage: dict[str, Any] = {}
        self._code = code
        self._runs = 0

    def event(self, data: bytes) -> bool:
        try:
            event = json.loads(data)
        except ValueError:
            return False  # cut in its middle, or broken where it was made: the SDK tells the program
        if not isinstance(event, dict):
            return False
        kind = event.get("type")
        facts = self.facts
        if kind == "message_start":
            message = event.get("message")
            facts.id = text(get(message, "id"))
            facts.model = text(get(message, "model"))
            self._take(get(message, "usage"))
            # The output is not known yet: what stands here is a placeholder, not a count.
            facts.usage = facts.usage and facts.usage.replace(output_tokens=None)
        elif kind == "message_delta":
            if (usage := event.get("usage")) is not None:
                self._take(usage)
                self.usage_is_final = get(usage, "output_tokens") is not None
            if (reason := text(get(event, "delta", "stop_reason"))) is not None:
                facts.finish_reasons = (FINISH_REASONS.get(reason, reason),)
        elif kind == "content_block_start":
            self._runs += self._code and runs_code(event.get("content_block"))
        elif kind == "message_stop":
            self.complete = True
        elif kind == "error":
            error = event.get("error")
            facts.error = (text(get(error, "type")) or "stream_error", text(get(error, "message")) or str(error))
        return False

    def _take(self, usage: Any) -> None:
        if isinstance(usage, dict):
            # A field that a later event leaves out, or nulls, keeps its value.
            self._usage |= {name: value for name, value in usage.items() if value is not None}
            self.facts.usage = with_code(message_usage(self._usage), self._runs)
            self.facts.tier = _tier(self._usage)
            if (tier := text(self._usage.get("service_tier"))) is not None:
                self.facts.attributes[semconv.ANTHROPIC_RESPONSE_SERVICE_TIER] = tier


def _size(body: Body, _options: Any) -> Size:
    asked, tools = body.get, body.get("tools")
    system, messages, marked = asked("system"), asked("messages"), asked("cache_control")
    likely, bound, _, hidden = input_tokens(
        MEDIA, system, messages, tools, asked("output_config"), asked("output_format")
    )
    uses = [get(tool, "max_uses") for tool in tools if str(get(tool, "type")).startswith("web_")] if tools else ()
    # What server-side tools find is read by the model too, and cannot be seen beforehand.
    unseen = bool(uses) or bool(asked("mcp_servers")) or bool(asked("container"))
    searches = sum(use if isinstance(use, int) else UNCAPPED_SEARCHES for use in uses) if uses else 0
    most = asked("max_tokens")
    return Size(
        likely,
        None if unseen else bound,
        most if isinstance(most, int) and most > 0 else None,
        extra=TokenUsage(web_searches=searches) if searches else None,
        cache_write_ttl=None
        if hidden
        else longest_cache_ttl(None if marked is None else {"cache_control": marked}, system, messages, tools),
        text_only=True,  # images are billed as any other input
    )


_NUMBERS: Final = (
    (semconv.REQUEST_MAX_TOKENS, "max_tokens", int),
    (semconv.REQUEST_TEMPERATURE, "temperature", (int, float)),
    (semconv.REQUEST_TOP_P, "top_p", (int, float)),
    (semconv.REQUEST_TOP_K, "top_k", (int, float)),
)


def _attributes(body: Body) -> Mapping[str, Any]:
    attributes: dict[str, Any] = {}
    for name, field, kind in _NUMBERS:
        value = body.get(field)
        if value is not None and isinstance(value, kind) and not isinstance(value, bool):
            attributes[name] = value
    if isinstance(tier := body.get("service_tier"), str):
        attributes[semconv.ANTHROPIC_REQUEST_SERVICE_TIER] = tier
    if body.get("stream") is True:
        attributes[semconv.REQUEST_STREAM] = True
    stops = body.get("stop_sequences")
    if isinstance(stops, list) and stops and all(isinstance(stop, str) for stop in stops):
        attributes[semconv.REQUEST_STOP_SEQUENCES] = tuple(stops)
    form = None
    if (output := body.get("output_config")) is not None:
        form = get(output, "format", "type")
        if isinstance(effort := get(output, "effort"), str):
            attributes[semconv.REQUEST_REASONING_LEVEL] = effort
    if (form or get(body.get("output_format"), "type")) == "json_schema":
        attributes[semconv.OUTPUT_TYPE] = "json"
    return attributes


def _read(data: Any, body: Body, _provider: str) -> ResponseFacts:
    # The texts as `text` has them, without the calls.
    said = fields(data).get
    reason, usage, blocks = said("stop_reason"), said("usage"), said("content")
    told = NOTHING if usage is None else fields(usage)
    used = None if usage is None else _used(told)
    if used is not None and isinstance(blocks, list) and (runs := _runs(blocks)):
        used = with_code(used, 0 if code_is_free(body) else runs)
    answer, model, tier, attributes = said("id"), said("model"), told.get("service_tier"), {}
    if isinstance(tier, str) and tier:
        attributes[semconv.ANTHROPIC_RESPONSE_SERVICE_TIER] = tier
    else:
        tier = None
    return ResponseFacts(
        answer if isinstance(answer, str) and answer else None,
        model if isinstance(model, str) and model else None,
        (FINISH_REASONS.get(reason, reason),) if isinstance(reason, str) and reason else (),
        used,
        False,
        "fast" if told.get("speed") == "fast" else tier,
        attributes=attributes,
    )


def _runs(blocks: list[Any]) -> int:
    runs = 0
    for block in blocks:
        kind = block.__dict__.get("type") if type(block) in plain_models else None
        if kind is None or kind == "server_tool_use":  # mostly it is a text
            runs += runs_code(block)
    return runs


HINTS: Final = (b'"message', b'"error"', b'"server_tool_use"')


_EVENTS: Final = {
    free: StreamFormat(MARKS, HINTS, TEXT, functools.partial(MessageReader, code=not free)) for free in (False, True)
}


def _events(body: Body, _provider: str) -> StreamFormat:
    return _EVENTS[code_is_free(body)]


MESSAGES: Final = Endpoint(
    semconv.CHAT, _size, _attributes, _read, _events, content=MESSAGE,
    changes=Changes(limits=(("max_tokens",),), thinking=(THINKING,)),
)  # fmt: skip
"""``messages`` and ``beta.messages``, the only endpoint that bills when it is called."""


class AnthropicDoor(StainlessDoor):
    """The Anthropic SDK's door."""

    provider = PROVIDER
    clients = ("Anthropic", "AsyncAnthropic")
    classes = CLASSES

    def __init__(self, telemetry: Telemetry, meter: Meter) -> None:
        super().__init__(telemetry, meter)
        self._batches = AnthropicBatches(meter, _read)

    def endpoint(self, method: str, url: str) -> Endpoint | None:
        method, path = method.lower(), url.partition("?")[0]
        if method == "post" and path.endswith("/v1/messages"):
            return MESSAGES
        return self._batches.endpoint(method, path)

    def admit(self, peer: Peer, endpoint: Endpoint, body: Body, options: Any = None, **more: Any) -> Opened:
        if endpoint.commits:
            more["model"] = model_of(body)
        return super().admit(peer, endpoint, body, options, **more)

    def finish(self, opened: Opened, outcome: str, facts: ResponseFacts, error: BaseException | None = None) -> None:
        if opened.endpoint is MESSAGES:
            super().finish(opened, outcome, facts, error)
        else:
            self._batches.finish(opened, outcome, facts, error)

    def tier(self, body: Body) -> str | None:
        return "fast" if body.get("speed") == "fast" else text(body.get("service_tier"))

    def prepare(self, opened: Opened, client: Any, *, stream: bool) -> None:
        # The SDK makes a span of its own for a request that has a name for it. Ours takes its place, or that of
        # another instrumentation which we add to.
        call = opened.call
        if call.has_span and get(opened.options, "span_name"):
            opened.options = changed_options(opened.options, span_name=None)
            conversation = get(getattr(client, "_open_telemetry", None), "conversation_id")
            if isinstance(conversation, str):
                call.note(semconv.CONVERSATION_ID, conversation)


class AnthropicInstrumentor(SdkInstrumentor):
    """Meters the ``anthropic`` SDK, including its clients for Bedrock, Vertex and Foundry.

    Options of :meth:`instrument`: ``tracer_provider``, ``meter_provider`` and ``former_names`` (set attributes
    under their former names too).

    >>> AnthropicInstrumentor().instrument()
    >>> AnthropicInstrumentor().uninstrument()
    """

    sdk = "anthropic"
    versions = ">=1,<3"

    def _make_door(self, telemetry: Telemetry, meter: Meter, options: Mapping[str, Any]) -> Door:
        return AnthropicDoor(telemetry, meter)
