"""Bodies of Bedrock's InvokeModel: every vendor has a shape of its own, and they are told apart by what is in them.

Not by the model's id: that of a custom or imported model, or of an application inference profile, names no vendor.
Field meanings: "Inference request parameters and response fields for foundation models" of the Bedrock user guide.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import anthropic
from tokenbudget_otel.instrumentation.bedrock_converse import (
    FINISH_REASONS,
    MEDIA,
    converse_usage,
    shown,
    whole_input,
)
from tokenbudget_otel.instrumentation.changes import THINKING, Changes, Fields, Path
from tokenbudget_otel.instrumentation.endpoint import Body
from tokenbudget_otel.instrumentation.facts import ResponseFacts, get, is_count, positive, text
from tokenbudget_otel.instrumentation.openai_usage import chat_usage
from tokenbudget_otel.instrumentation.provider import find
from tokenbudget_otel.instrumentation.sizing import longest_cache_ttl, measure
from tokenbudget_otel.instrumentation.streams import TextCount
from tokenbudget_otel.meter import Size
from tokenbudget_otel.usage import TokenUsage

RERANK: Final = "rerank"
"""``gen_ai.operation.name`` of reranking, for which the conventions have no name yet."""

METRICS: Final = "amazon-bedrock-invocationMetrics"
"""What Bedrock adds to the last chunk of a stream, whatever the model."""

HEADERS: Final = {
    "fresh": "x-amzn-bedrock-input-token-count",
    "output_tokens": "x-amzn-bedrock-output-token-count",
    "cache_read_tokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cache_write_tokens": "x-amzn-bedrock-cache-write-input-token-count",
}
"""Headers in which Bedrock counts the tokens of InvokeModel for most models."""

METRIC_FIELDS: Final = {
    "fresh": "inputTokenCount",
    "output_tokens": "outputTokenCount",
    "cache_read_tokens": "cacheReadInputTokenCount",
    "cache_write_tokens": "cacheWriteInputTokenCount",
}

# --- requests ------------------------------------------------------------------------------------------------------

PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    semconv.REQUEST_MAX_TOKENS: (
        "max_tokens", "max_completion_tokens", "max_gen_len", "max_tokens_to_sample", "maxTokens",
        "textGenerationConfig.maxTokenCount", "inferenceConfig.maxTokens", "inferenceConfig.max_new_tokens",
    ),
    semconv.REQUEST_TEMPERATURE: ("temperature", "textGenerationConfig.temperature", "inferenceConfig.temperature"),
    semconv.REQUEST_TOP_P: (
        "top_p", "p", "topP", "textGenerationConfig.topP", "inferenceConfig.topP", "inferenceConfig.top_p",
    ),
    semconv.REQUEST_TOP_K: ("top_k", "k", "inferenceConfig.topK", "inferenceConfig.top_k"),
    semconv.REQUEST_SEED: ("seed", "imageGenerationConfig.seed"),
    semconv.REQUEST_CHOICE_COUNT: ("n", "num_generations", "imageGenerationConfig.numberOfImages"),
    semconv.EMBEDDINGS_DIMENSION_COUNT: ("dimensions", "output_dimension"),
}  # fmt: skip
"""Span attributes of a request, and where the vendors have them."""

LIMITS: Final[tuple[tuple[str, Path], ...]] = (
    ("anthropic.", ("max_tokens",)),
    ("amazon.nova", ("inferenceConfig", "maxTokens")),
    ("amazon.titan", ("textGenerationConfig", "maxTokenCount")),
    ("meta.", ("max_gen_len",)),
    ("mistral.", ("max_tokens",)),
    ("cohere.", ("max_tokens",)),
    ("ai21.", ("max_tokens",)),
    ("deepseek.", ("max_tokens",)),
    ("openai.", ("max_completion_tokens",)),
    ("qwen.", ("max_tokens",)),
)
"""Where a request without a limit on its output gets one, by what the model's id says of the vendor."""


def _unset_limit(_fields: Fields, _provider: str, model: str) -> Path | None:
    return next((path for vendor, path in LIMITS if vendor in model), None)


CHANGES: Final = Changes(
    model=None,
    limits=tuple(tuple(path.split(".")) for path in PATHS[semconv.REQUEST_MAX_TOKENS]),
    unset=_unset_limit,
    thinking=(THINKING,),
)
"""What can be changed of a body. The model stands beside it."""

STOPS: Final = ("stop_sequences", "stop", "textGenerationConfig.stopSequences", "inferenceConfig.stopSequences")

IMAGE_FIELDS: Final = frozenset(("images", "image", "inputImage", "init_image", "conditionImage"))
"""Fields with images in base64."""

MAX_UNSEEN_IMAGES: Final = 10
"""Images allowed for in a request that does not say how many it wants."""

CHUNK_CHARACTERS: Final = 2_000
"""A document longer than some 500 tokens is reranked in pieces, each of which counts as a document."""

DOCUMENTS_PER_SEARCH: Final = 100
"""Documents of one query; more of them are billed as more queries (Bedrock's price list)."""


def operation_of(model: str, body: Body) -> str:
    """What an InvokeModel request is: the model's id says it for most, the body for the others.

    >>> operation_of("amazon.titan-embed-text-v2:0", {"inputText": "Hello"})
    'embeddings'
    >>> operation_of("meta.llama3-1-70b-instruct-v1:0", {"prompt": "Hello"})
    'text_completion'
    """
    name = model.lower()
    if "rerank" in name or ("documents" in body and "query" in body):
        return RERANK
    if "embed" in name or ("input_type" in body and ("texts" in body or "images" in body)):
        return semconv.EMBEDDINGS
    if "taskType" in body or "stability." in name or "image-generator" in name or "canvas" in name:
        return semconv.IMAGE_GENERATION
    return semconv.CHAT if "messages" in body or "message" in body else semconv.TEXT_COMPLETION


def parsed(body: Any) -> Body | None:
    """The JSON of a request, or ``None`` where it cannot be seen (a file that only the SDK is to read)."""
    try:
        data = json.loads(body) if isinstance(body, str | bytes | bytearray) else None
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def is_message(body: Body) -> bool:
    """Whether a body is one of Anthropic's messages: those say which version of the API they mean."""
    return "anthropic_version" in body and "messages" in body


def size(body: Body, params: Any) -> Size:
    """The size of a request."""
    if not body:
        # It cannot be read; all that is known is how long it is, if that.
        raw = get(params, "body")
        length = len(raw) if isinstance(raw, str | bytes | bytearray) else 0
        return Size(-(-length // 4), None)
    if is_message(body):
        return anthropic.MESSAGES.size(body, params)
    operation = operation_of(str(get(params, "modelId")), body)
    if operation == RERANK:
        return Size(0, 0, extra=TokenUsage(rerank_searches=searches(body)[0]), expected_output_tokens=0)
    count = _first(body, PATHS[semconv.REQUEST_CHOICE_COUNT])
    choices = positive(count) or 1
    if operation == semconv.IMAGE_GENERATION:
        return Size(0, 0, extra=TokenUsage(output_images=choices), expected_output_tokens=0)
    fields, images = {}, 0
    for name, value in body.items():
        if name in IMAGE_FIELDS and isinstance(value, str | list):
            images += len(value) if isinstance(value, list) else 1
        else:
            fields[name] = value
    extent = measure(shown(fields))
    extent.images += images
    most = _first(body, PATHS[semconv.REQUEST_MAX_TOKENS])
    vectors = operation == semconv.EMBEDDINGS
    return Size(
        extent.likely(MEDIA),
        extent.bound(MEDIA),
        max_output_tokens=positive(most),
        choices=choices,
        expected_output_tokens=0 if vectors else None,
        cache_write_ttl="none"
        if vectors
        else longest_cache_ttl(*(body.get(part) for part in ("system", "messages", "tools"))),
        text_only=not (extent.images or extent.others),
    )


def attributes(body: Body) -> Mapping[str, Any]:
    """Span attributes of a request."""
    if is_message(body):
        return anthropic.MESSAGES.attributes(body)
    found: dict[str, Any] = {}
    for name, paths in PATHS.items():
        value = _first(body, paths)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    stops = _first(body, STOPS)
    if isinstance(stops, list) and stops and all(isinstance(stop, str) for stop in stops):
        found[semconv.REQUEST_STOP_SEQUENCES] = tuple(stops)
    return found


def stream_attributes(body: Body) -> Mapping[str, Any]:
    """The same of a request for a stream."""
    return {**attributes(body), semconv.REQUEST_STREAM: True}


def _first(source: Any, paths: tuple[str, ...]) -> Any:
    return next((value for path in paths if (value := find(source, path)) is not None), None)


def searches(body: Body) -> tuple[int, bool]:
    """How many queries a reranking is billed as, and whether that is certain: how long documents are cut is not."""
    documents = body.get("documents")
    pieces = [
        max(1, math.ceil(len(document if isinstance(document, str) else json.dumps(document)) / CHUNK_CHARACTERS))
        for document in (documents if isinstance(documents, list) else ())
    ]
    return max(1, math.ceil(sum(pieces) / DOCUMENTS_PER_SEARCH)), all(piece == 1 for piece in pieces)


# --- answers -------------------------------------------------------------------------------------------------------

REASONS: Final = FINISH_REASONS | {
    # Titan
    "finish": "stop", "stop_criteria_met": "stop", "content_filtered": "content_filter",
    # Cohere
    "complete": "stop", "error_toxic": "content_filter",
    # those that imitate OpenAI
    "tool_calls": "tool_call", "function_call": "tool_call",
}  # fmt: skip

REASON_PATHS: Final = (
    "stop_reason", "stopReason", "messageStop.stopReason", "finish_reason", "completionReason",
    "results.0.completionReason", "outputs.0.stop_reason", "choices.0.finish_reason", "choices.0.stop_reason",
    "generations.0.finish_reason",
)  # fmt: skip

ID_PATHS: Final = ("id", "response_id", "generation_id")

TEXT_PATHS: Final = (
    "contentBlockDelta.delta.text", "contentBlockDelta.delta.toolUse.input",
    "contentBlockDelta.delta.reasoningContent.text",
    "delta.text", "delta.thinking", "delta.partial_json", "completion",
    "outputText", "generation", "outputs.0.text", "text",
    "choices.0.delta.content", "choices.0.delta.reasoning_content", "choices.0.message.content", "choices.0.text",
)  # fmt: skip
"""Where chunks of a stream have text."""

ANSWER_PATHS: Final = (
    *TEXT_PATHS, "output.message.content.0.text", "content.0.text", "results.0.outputText", "generations.0.text",
)  # fmt: skip
"""Where whole answers have it."""


def body_usage(data: Any) -> TokenUsage | None:
    """Usage of a body, or of one chunk of a stream, in whichever shape it is."""
    usage = get(data, "usage")
    if get(usage, "inputTokens") is not None or get(usage, "outputTokens") is not None:
        return converse_usage(usage)
    if get(usage, "prompt_tokens") is not None or get(usage, "completion_tokens") is not None:
        return chat_usage(usage, "aws.bedrock")
    if get(usage, "input_tokens") is not None or get(usage, "output_tokens") is not None:
        return anthropic.message_usage(usage)
    if (nested := find(data, "metadata.usage")) is not None:  # the last event of Nova's streams
        return converse_usage(nested)
    counts = {
        "input_tokens": _first(data, ("inputTextTokenCount", "prompt_token_count")),
        "output_tokens": _first(data, ("totalOutputTextTokenCount", "generation_token_count")),
    }
    results = get(data, "results")
    if isinstance(results, list) and results:
        written = [get(result, "tokenCount") for result in results]
        if all(is_count(count) for count in written):
            counts["output_tokens"] = sum(written)
    found = {name: value for name, value in counts.items() if value is not None}
    return (TokenUsage.reading(found) or None) if found else None


def counted(source: Mapping[str, Any], names: Mapping[str, str]) -> TokenUsage | None:
    """Bedrock's own count, in headers or at the end of a stream. The input leaves out what was read from and written
    to the cache there too.

    >>> counted({"inputTokenCount": 10, "outputTokenCount": 5, "cacheReadInputTokenCount": 90}, METRIC_FIELDS)
    TokenUsage(input_tokens=100, output_tokens=5, cache_read_tokens=90)
    """
    counts: dict[str, Any] = {}
    for name, key in names.items():
        value = source.get(key)
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if is_count(value):
            counts[name] = value
    fresh = counts.pop("fresh", None)
    if fresh is not None:
        counts["input_tokens"] = whole_input(fresh, counts.get("cache_read_tokens"), counts.get("cache_write_tokens"))
    return TokenUsage.reading(counts) if counts else None


def completed(said: TokenUsage | None, by_bedrock: TokenUsage | None) -> TokenUsage | None:
    """What the model's body says, which is more where it says it, and for the rest what Bedrock counted."""
    if said is None or by_bedrock is None:
        return said or by_bedrock
    lacking: dict[str, Any] = {}
    if said.input_tokens is None:  # and with it what the parts are parts of
        for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens"):
            if (value := getattr(by_bedrock, name)) is not None:
                lacking[name] = value
    if said.output_tokens is None and by_bedrock.output_tokens is not None:
        lacking["output_tokens"] = by_bedrock.output_tokens
    return said.replace(**lacking) if lacking else said


def read(data: Any, body: Body, provider: str) -> ResponseFacts:
    """What the body of an answer says."""
    if is_message(body):
        return anthropic.MESSAGES.read(data, body, provider)
    facts = ResponseFacts(id=text(_first(data, ID_PATHS)), model=text(get(data, "model")), finish_reasons=reasons(data))
    images = get(data, "images")
    if isinstance(images, list):
        facts.usage = TokenUsage(output_images=sum(1 for image in images if image))
    elif isinstance(get(data, "results"), list) and "documents" in body:
        count, certain = searches(body)
        facts.usage, facts.estimated = TokenUsage(rerank_searches=count), not certain
    else:
        facts.usage = body_usage(data)
    return facts


def reasons(data: Any) -> tuple[str, ...]:
    """Why the model stopped, in the words of the conventions."""
    said = text(_first(data, REASON_PATHS))
    return (REASONS.get(said.lower(), said),) if said else ()


class InvokedReader:
    """Streams of InvokeModel: chunks of the model's own JSON, the last of which has Bedrock's count as well."""

    def __init__(self, _body: Body, _provider: str) -> None:
        self.complete = False
        self.facts = ResponseFacts()
        self._message: anthropic.MessageReader | None = None
        self._own: TokenUsage | None = None
        self._own_is_final = False
        self._counted: TokenUsage | None = None
        self._text = TextCount()

    @property
    def usage_is_final(self) -> bool:
        return self._own_is_final or (self._counted is not None and self._counted.output_tokens is not None)

    def item(self, item: Any) -> bool:
        data = get(item, "chunk", "bytes")
        if not isinstance(data, bytes):
            return False
        try:
            event = json.loads(data)
        except ValueError:
            return False  # the program sees for itself
        if not isinstance(event, dict):
            return False
        for path in TEXT_PATHS:
            self._text.add(find(event, path))
        if isinstance(metrics := event.get(METRICS), dict):
            self.complete = True
            self._counted = counted(metrics, METRIC_FIELDS)
        if self._message is not None or event.get("type") == "message_start":
            self._follow_message(data)
        else:
            self._follow(event)
        self.facts.usage = completed(self._own, self._counted)
        return False

    def _follow_message(self, data: bytes) -> None:
        if self._message is None:
            self._message = anthropic.MessageReader()
            self._message.facts.attributes |= self.facts.attributes
            self.facts = self._message.facts
        self._message.event(data)
        self._own, self._own_is_final = self.facts.usage, self._message.usage_is_final
        self.complete = self.complete or self._message.complete

    def _follow(self, event: dict[str, Any]) -> None:
        facts = self.facts
        facts.id = facts.id or text(_first(event, ID_PATHS))
        facts.model = facts.model or text(event.get("model"))
        said = body_usage(event)
        if said is not None:
            self._own = said if self._own is None else self._own.replace(**said.counts())
        if why := reasons(event):
            facts.finish_reasons = why
            self.complete = True
        # Counts grow with the stream: only when the model has stopped is the last one final.
        self._own_is_final = (
            bool(facts.finish_reasons) and self._own is not None and self._own.output_tokens is not None
        )

    def text_tokens(self) -> int:
        return self._text.tokens
