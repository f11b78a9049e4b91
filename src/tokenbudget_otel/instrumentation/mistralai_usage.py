"""What Mistral's API reports as usage.

Field meanings: the SDK's own types (``mistralai.client.models``) and Mistral's API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.endpoint import Body
from tokenbudget_otel.instrumentation.facts import ResponseFacts, fields, get, is_count, text
from tokenbudget_otel.instrumentation.openai_usage import chat_usage
from tokenbudget_otel.usage import TokenUsage

CONNECTORS: Final = {
    "web_search": "web_searches",
    "web_search_premium": "web_searches",
    "code_interpreter": "code_executions",
    "document_library": "file_searches",
    "image_generation": "output_images",
}
"""Built-in connectors that are billed by the call, and the unit they count as."""

_ANNOTATIONS: Final = ("document_annotation_format", "bbox_annotation_format")


def completion_usage(usage: Any) -> TokenUsage | None:
    """Usage of completions and embeddings. Audio in the input is billed by the second, beside the tokens."""
    known = chat_usage(usage, "mistral_ai")
    told = get(usage, "prompt_audio_seconds")
    if not isinstance(told, int | float):  # the SDK has an object of its own for a field that was not sent
        return known
    seconds = TokenUsage.reading({"input_audio_seconds": told})
    return (known or TokenUsage()).replace(**seconds.counts()) or None


def conversation_usage(usage: Any) -> TokenUsage | None:
    """Usage of conversations. What connectors put before the model stands beside ``prompt_tokens`` and is billed as
    input, so the whole input is their sum; a total that is too small for that says that it stands inside."""
    if usage is None:
        return None
    prompt, completion, total = (get(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    found = get(usage, "connector_tokens")
    counts: dict[str, Any] = {"input_tokens": prompt, "output_tokens": completion, "tool_use_input_tokens": found}
    if is_count(prompt) and is_count(found):
        inside = is_count(total) and is_count(completion) and total < prompt + found + completion
        counts["input_tokens"] = prompt if inside else prompt + found
    calls = get(usage, "connectors")
    for name, number in calls.items() if isinstance(calls, Mapping) else ():
        if (unit := CONNECTORS.get(name)) is not None and is_count(number):
            counts[unit] = counts.get(unit, 0) + number
    return TokenUsage.reading(counts) or None


def transcription_usage(usage: Any) -> TokenUsage | None:
    """Usage of transcriptions: billed by the second of audio. The tokens told beside it are not billed, and only
    what an answer without seconds has."""
    seconds = TokenUsage.reading({"input_audio_seconds": get(usage, "prompt_audio_seconds")})
    return seconds or completion_usage(usage)


def read_transcription(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """A transcription."""
    return ResponseFacts(model=text(get(data, "model")), usage=transcription_usage(get(data, "usage")))


def read_document(data: Any, body: Body, _provider: str) -> ResponseFacts:
    """A document that was read: billed by the page, and more by the page that was annotated."""
    usage = pages_of(get(data, "usage_info", "pages_processed"), body)
    return ResponseFacts(model=text(get(data, "model")), usage=usage or None)


def pages_of(pages: Any, body: Body) -> TokenUsage:
    """So many pages, as a request bills them."""
    annotated = any(body.get(name) is not None for name in _ANNOTATIONS)
    return TokenUsage.reading({"document_pages": pages, "annotated_document_pages": pages if annotated else None})


def read_judgement(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """A moderation or classification, or anything else with an id, a model and usage."""
    said = fields(data)
    usage = said.get("usage")
    return ResponseFacts(
        id=text(said.get("id")),
        model=text(said.get("model")),
        usage=completion_usage(usage),
        tier=text(get(usage, "service_tier")),
    )


def read_completion(data: Any, body: Body, provider: str) -> ResponseFacts:
    """A completion: of chat, fill-in-the-middle or an agent."""
    facts = read_judgement(data, body, provider)
    choices = get(data, "choices")
    for choice in choices if isinstance(choices, list) else ():
        if (reason := text(get(choice, "finish_reason"))) is not None:
            facts.finish_reasons += (reason,)
    return facts


def read_conversation(data: Any, _body: Body, _provider: str) -> ResponseFacts:
    """An answer in a conversation. It names its models on the entries that they wrote: the last is the one asked."""
    facts = ResponseFacts(usage=conversation_usage(get(data, "usage")))
    if (conversation := text(get(data, "conversation_id"))) is not None:
        facts.attributes[semconv.CONVERSATION_ID] = conversation
    outputs = get(data, "outputs")
    for output in outputs if isinstance(outputs, list) else ():
        facts.model = text(get(output, "model")) or facts.model
    return facts
