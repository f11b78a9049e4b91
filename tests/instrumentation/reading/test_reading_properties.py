"""The readers say what readers say that look everything up, one after the other: of typed objects, of dictionaries, and
of damaged mixtures of them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import plain_readers as plain
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openai import BaseModel
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from shapes import ANYTHING, SCALARS, SHAPES, Dict, WithProperty, counting, having, plainly, values

from tokenbudget_otel.instrumentation import anthropic, facts, openai, openai_usage, sizing
from tokenbudget_otel.instrumentation import fields as fields_module
from tokenbudget_otel.instrumentation.facts import positive
from tokenbudget_otel.instrumentation.http_door import http_response

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

PROVIDERS = st.sampled_from(
    ("openai", "x_ai", "perplexity", "gcp.gemini", "openrouter", "deepseek", "azure.ai.openai", "groq")
)
MODELS = st.sampled_from(
    ("gpt-5", "gpt-4o-search-preview", "gpt-4o-mini-search-preview-1", "a-search-engine", "gpt-5-search-apis", 7, None)
)
WORDS = st.one_of(st.sampled_from(("one", "two", "")), SCALARS)

USAGE = counting(
    "prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens", "prompt_cache_hit_tokens",
    "num_cached_tokens", "cached_tokens", "citation_tokens", "num_search_queries", "num_sources_used", "cost",
    "cost_in_usd_ticks",
    prompt_tokens_details=counting(
        "cached_tokens", "cache_write_tokens", "text_tokens", "audio_tokens", "image_tokens"
    ),
    completion_tokens_details=counting("reasoning_tokens", "rejected_prediction_tokens", "text_tokens", "audio_tokens"),
)  # fmt: skip
ANSWERS = having(
    id=WORDS, model=WORDS, service_tier=WORDS, system_fingerprint=WORDS, provider=WORDS, usage=USAGE,
    choices=st.one_of(st.lists(having(finish_reason=WORDS), max_size=3), SCALARS),
)  # fmt: skip

OUTPUT = st.lists(
    having(
        type=st.sampled_from((*openai_usage.SERVER_TOOLS, "message", 7)),
        action=having(type=st.sampled_from(("search", "open_page", None))),
        container_id=WORDS,
    ),
    max_size=5,
)
RESPONSES = having(
    usage=counting(
        "input_tokens", "output_tokens",
        input_tokens_details=counting(
            "cached_tokens", "cache_write_tokens",
            cache_write_tokens_details=counting("ttl_30m_tokens", "ttl_12h_tokens"),
        ),
        output_tokens_details=counting("reasoning_tokens"),
        server_side_tool_usage_details=counting(*openai_usage.XAI_TOOLS),
    ),
    output=st.one_of(OUTPUT, OUTPUT, SCALARS),
    tool_usage=having(web_search=counting("num_requests")),
)  # fmt: skip

MESSAGE_COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
MESSAGE_PARTS = {
    "cache_creation": counting("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
    "output_tokens_details": counting("thinking_tokens"),
    "server_tool_use": counting("web_search_requests", "web_fetch_requests", "code_execution_requests"),
}
ITERATIONS = st.lists(
    counting(*MESSAGE_COUNTS, type=st.sampled_from(("compaction", "message", None)), **MESSAGE_PARTS), max_size=2
)
MESSAGES = having(
    id=WORDS,
    model=WORDS,
    stop_reason=st.one_of(st.sampled_from(("end_turn", "max_tokens", "pause_turn")), SCALARS),
    usage=counting(
        *MESSAGE_COUNTS,
        service_tier=WORDS,
        speed=st.sampled_from(("fast", "standard", None)),
        iterations=st.one_of(ITERATIONS, SCALARS),
        **MESSAGE_PARTS,
    ),
    content=st.lists(
        having(
            type=st.sampled_from(("server_tool_use", "text")),
            name=st.sampled_from(("code_execution", "bash_code_execution", "web_search", 7)),
        ),
        max_size=3,
    ),
)

NUMBERS = st.one_of(st.integers(1, 5), st.floats(0, 2), SCALARS)
TYPED = having(type=st.sampled_from(("text", "json_object", "json_schema", "other", 7)))
BODIES = plainly(
    **dict.fromkeys(
        (
            "temperature", "top_p", "top_k", "seed", "max_tokens", "max_completion_tokens", "max_output_tokens",
            "dimensions", "n", "frequency_penalty", "presence_penalty",
        ),
        NUMBERS,
    ),
    **dict.fromkeys(("reasoning_effort", "previous_response_id", "service_tier", "encoding_format", "model"), WORDS),
    reasoning=having(effort=WORDS),
    stream=st.sampled_from((True, False, None, 1)),
    stop=st.one_of(WORDS, st.lists(WORDS, max_size=2)),
    stop_sequences=st.one_of(WORDS, st.lists(WORDS, max_size=2)),
    response_format=TYPED,
    text=having(format=TYPED),
    output_format=TYPED,
    output_config=having(effort=WORDS, format=TYPED),
    conversation=st.one_of(WORDS, having(id=WORDS)),
    messages=ANYTHING,
)  # fmt: skip

SIZE_NAMES = ("type", "content", "role", "text", "cache_control", "cachePoint", "ttl", "toolResult", "zoë")
FIELD_NAMES = ("id", "usage", "model", "output", "prompt_tokens", "completion_tokens", "output_text", "text")

CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5", "service_tier": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0, "text_tokens": 56},
        "completion_tokens_details": {"reasoning_tokens": 9, "rejected_prediction_tokens": 1},
    },
}  # fmt: skip


RUN = {"usage": {"input_tokens": 5}, "content": [{"type": "server_tool_use", "name": "code_execution"}]}


# --- fields ------------------------------------------------------------------------------------------------------


@unhurried
@given(values(FIELD_NAMES), st.lists(st.sampled_from(FIELD_NAMES), max_size=3))
def test_what_is_found_at_a_path(source: Any, path: list[str]) -> None:
    try:
        expected = plain.get(source, *path)
    except TypeError as error:  # a property of the SDK's model, of which a part was made without what it needs
        with pytest.raises(type(error)):
            facts.get(source, *path)
    else:
        assert _same(facts.get(source, *path), expected)


@unhurried
@given(values(FIELD_NAMES))
def test_fields_are_what_is_found_by_their_names(source: Any) -> None:
    read = facts.fields(source)
    for name in (*FIELD_NAMES, "nothing"):
        if name not in fields_module.UNREAD:
            assert _same(read.get(name), plain.get(source, name))


def _same(found: Any, expected: Any) -> bool:
    """The same object, or made anew each time (by a property, by a mapping that makes what it gives)."""
    return found is expected or found == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_class_has_is_no_field(shape: Callable[[dict[str, Any]], Any]) -> None:
    """Methods of an object, and of models: what is looked up one by one is what ``getattr`` gives."""
    for name in ("id", "usage", "to_json", "copy", "model_dump", "output_text", "_private", "__dict__"):
        made = shape({"id": "one", "model": "m", "output": []})
        expected = plain.get(made, name)
        assert facts.get(made, name) == expected or callable(expected)


def test_a_property_is_read_where_a_class_has_one() -> None:
    made = WithProperty.construct(None, id="x")
    assert facts.fields(made).get("usage") == {"prompt_tokens": 3, "input_tokens": 4}
    assert openai._read_chat(made, {}, "openai").usage == plain.read_chat(made, {}, "openai").usage


def test_classes_are_remembered_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields_module, "MAX_CLASSES", 5)
    fields_module.ways.clear()
    fields_module.plain_models.clear()
    for number in range(20):
        made = type(f"Made{number}", (), {"id": number})()
        model = type(f"Model{number}", (BaseModel,), {}).construct(None, id=number)
        assert facts.get(made, "id") == facts.get(model, "id") == facts.fields(model).get("id") == number
        assert len(fields_module.ways) <= 5
        assert fields_module.plain_models <= fields_module.ways.keys()


def test_a_model_is_no_http_response_and_holds_none() -> None:
    """Whatever the server put into the JSON; what the SDK keeps beside it is found."""
    seen = {"is_stream_consumed": True, "headers": {}}
    answer = ChatCompletion.construct(None, **CHAT, response=seen)
    assert facts.fields(answer).get("id") == "chatcmpl-1"
    assert http_response(answer) is None
    response = httpx2.Response(200)
    assert http_response(response) is response
    assert http_response(SimpleNamespace(http_response=response)) is response
    assert http_response(SimpleNamespace(response=response)) is response
    assert http_response(None) is None


# --- answers -----------------------------------------------------------------------------------------------------


@unhurried
@given(USAGE, PROVIDERS)
@example({"prompt_tokens": 5, "num_search_queries": 2, "num_sources_used": 9}, "x_ai")
@example({"prompt_tokens": 5, "num_search_queries": 0, "num_sources_used": 0}, "x_ai")
@example({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": "x"}, "cached_tokens": 3}, "deepseek")
def test_usage_of_chat(usage: Any, provider: str) -> None:
    assert openai_usage.chat_usage(usage, provider) == plain.chat_usage(usage, provider)


@unhurried
@given(ANSWERS, MODELS, PROVIDERS)
@example(ChatCompletion.model_validate(CHAT), "gpt-4o-search-preview", "openai")
@example(ChatCompletion.construct(None, **CHAT), "gpt-5", "openai")
@example(CHAT, "gpt-5", "x_ai")
def test_answers_of_chat(answer: Any, model: Any, provider: str) -> None:
    body = {"model": model}
    assert openai._read_chat(answer, body, provider) == plain.read_chat(answer, body, provider)


@unhurried
@given(RESPONSES, PROVIDERS)
@example(Response.construct(None, usage={"input_tokens": 5, "input_tokens_details": {"cached_tokens": 3}}), "openai")
def test_usage_of_responses(response: Any, provider: str) -> None:
    assert openai_usage.response_usage(response, provider) == plain.response_usage(response, provider)


@unhurried
@given(MESSAGES, st.booleans())
@example(RUN, True)
@example(RUN, False)
@example({"usage": {"input_tokens": 5, "cache_read_input_tokens": -3, "cache_creation_input_tokens": 2}}, False)
def test_messages_of_anthropic(answer: Any, free: bool) -> None:
    body = {"tools": [{"type": "web_search_20260209"}]} if free else {}
    assert anthropic._read(answer, body, "anthropic") == plain.read_message(answer, body)


# --- requests ----------------------------------------------------------------------------------------------------


@unhurried
@given(BODIES, st.sampled_from((None, "responses")))
@example({"max_tokens": 5, "max_output_tokens": True, "max_completion_tokens": 7}, None)
@example({"reasoning_effort": "low", "reasoning": {"effort": ""}}, None)
@example({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, None)
@example({"max_output_tokens": 9, "max_tokens": 5}, None)
def test_attributes_of_requests_to_openai(body: dict[str, Any], api_type: str | None) -> None:
    assert openai._request_attributes(api_type, body) == plain.request_attributes(api_type, body)
    assert openai._request_attributes(api_type, Dict(body)) == plain.request_attributes(api_type, body)


@unhurried
@given(BODIES)
def test_attributes_of_requests_to_anthropic(body: dict[str, Any]) -> None:
    assert anthropic._attributes(body) == plain.message_attributes(body)


@unhurried
@given(st.lists(values(SIZE_NAMES), max_size=3))
def test_the_size_of_requests(parts: list[Any]) -> None:
    extent = plain.measure(*parts)
    assert sizing.measure(*parts) == extent
    for media in (openai.MEDIA, sizing.MediaTokens((1, 2), (3, 4))):
        told = (extent.likely(media), extent.bound(media), not (extent.images or extent.others), extent.unseen)
        assert sizing.input_tokens(media, *parts) == told


@unhurried
@given(BODIES, MODELS)
@example({"max_tokens": 5, "max_completion_tokens": True}, "gpt-5")
@example({"max_tokens": 5, "max_completion_tokens": -1}, "gpt-5")
@example({"max_tokens": 5, "max_completion_tokens": 7, "n": 3, "audio": {"voice": "alloy"}}, "gpt-5")
def test_what_a_chat_may_write(body: dict[str, Any], model: Any) -> None:
    body = {**body, "model": model}
    size = openai._chat_size(body, None)
    assert size.max_output_tokens == (positive(body.get("max_completion_tokens")) or positive(body.get("max_tokens")))
    assert size.choices == (positive(body.get("n")) or 1)
    assert (size.extra is not None) == bool(plain.searched(body, "openai"))
    assert (size.input_tokens, size.input_bound, size.text_only) == _chat_input(body)


def _chat_input(body: dict[str, Any]) -> tuple[int, int | None, bool]:
    extent = plain.measure(*map(body.get, ("messages", "tools", "functions", "response_format")))
    text_only = not (extent.images or extent.others or body.get("audio"))
    return extent.likely(openai.MEDIA), extent.bound(openai.MEDIA), text_only


@unhurried
@given(BODIES)
def test_the_tier_that_anthropic_is_asked_for(body: dict[str, Any]) -> None:
    door = object.__new__(anthropic.AnthropicDoor)
    for asked in (body, {**body, "speed": "fast"}, {**body, "speed": "standard"}):
        fast = asked.get("speed") == "fast"
        assert door.tier(asked) == ("fast" if fast else facts.text(asked.get("service_tier")))


@unhurried
@given(st.lists(values(SIZE_NAMES), max_size=3))
@example([{"content": {"toolResult": {"content": [{"cachePoint": {"ttl": "1h"}}]}}}])
def test_marks_of_caches(parts: list[Any]) -> None:
    assert sizing.longest_cache_ttl(*parts) == plain.longest_cache_ttl(*parts)


class Text(str):
    pass


@unhurried
@given(st.text(), st.text(alphabet="aé日\ud800"))
def test_text_is_measured_in_bytes(first: str, second: str) -> None:
    for part in (first, [first, second], {"content": second, second: [first]}, {"a": Text(second)}, Text(first)):
        assert sizing.measure(part) == plain.measure(part)
