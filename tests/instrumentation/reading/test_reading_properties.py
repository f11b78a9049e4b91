"""The readers say what readers say that look everything up, one after the other: of typed objects, of dictionaries, and
of damaged mixtures of them."""

from __future__ import annotations

from typing import Any

import plain_readers as plain
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from shapes import SHAPES, Dict, WithProperty, objects, values

from tokenbudget_otel.instrumentation import anthropic, facts, openai, openai_usage, sizing
from tokenbudget_otel.instrumentation import fields as fields_module

USAGE_NAMES = (
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
    "cached_tokens", "cache_write_tokens", "text_tokens", "audio_tokens", "image_tokens", "reasoning_tokens",
    "rejected_prediction_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "citation_tokens",
    "num_search_queries", "num_sources_used", "cost", "input_tokens", "output_tokens", "input_tokens_details",
    "output_tokens_details", "cache_write_tokens_details", "ttl_30m_tokens", "ttl_12h_tokens",
)  # fmt: skip
ANSWER_NAMES = (
    "id", "model", "choices", "finish_reason", "usage", "service_tier", "system_fingerprint", "provider", "type",
    "output", "action", "container_id", "tool_usage", "web_search", "num_requests", "server_side_tool_usage_details",
    "web_search_calls",
)  # fmt: skip
MESSAGE_NAMES = (
    "id", "model", "stop_reason", "usage", "content", "type", "name", "speed", "service_tier", "input_tokens",
    "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "iterations",
    "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "output_tokens_details", "thinking_tokens",
    "server_tool_use", "web_search_requests", "web_fetch_requests", "code_execution_requests",
)  # fmt: skip
BODY_NAMES = (
    "temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "max_output_tokens", "reasoning_effort",
    "reasoning", "effort", "previous_response_id", "dimensions", "service_tier", "stream", "stop", "n",
    "response_format", "text", "format", "type", "encoding_format", "conversation", "id", "output_config",
    "output_format", "stop_sequences", "top_k", "model", "frequency_penalty", "presence_penalty",
)  # fmt: skip
SIZE_NAMES = ("type", "content", "role", "text", "cache_control", "cachePoint", "ttl", "toolResult", "zoë")

PROVIDERS = ("openai", "x_ai", "perplexity", "gcp.gemini", "openrouter", "deepseek", "azure.ai.openai")

MODELS = st.sampled_from(("gpt-5", "gpt-4o-search-preview", "gpt-4o-mini-search-preview-1", "a-search-engine", 7, None))

CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5", "service_tier": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0, "text_tokens": 56},
        "completion_tokens_details": {"reasoning_tokens": 9, "rejected_prediction_tokens": 1},
    },
}  # fmt: skip


def named(names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return objects(st.sampled_from(names), values(names))


def bodies(names: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), values(names), max_size=10)


@given(values(USAGE_NAMES + ANSWER_NAMES), st.lists(st.sampled_from(USAGE_NAMES + ANSWER_NAMES), max_size=3))
def test_what_is_found_at_a_path(source: Any, path: list[str]) -> None:
    assert _same(facts.get(source, *path), plain.get(source, *path))


@given(values(USAGE_NAMES + ANSWER_NAMES))
def test_fields_are_what_is_found_by_their_names(source: Any) -> None:
    read = facts.fields(source)
    for name in (*USAGE_NAMES, *ANSWER_NAMES, "nothing"):
        assert _same(read.get(name), plain.get(source, name))


def _same(found: Any, expected: Any) -> bool:
    """The same object, or made anew each time (by a property, by a mapping that makes what it gives)."""
    return found is expected or found == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_class_has_is_no_field(shape: Any) -> None:
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
    for number in range(20):
        made = type(f"Made{number}", (), {"id": number})()
        assert facts.get(made, "id") == number
        assert len(fields_module.ways) <= 5


@given(named(USAGE_NAMES), st.sampled_from(PROVIDERS))
def test_usage_of_chat(usage: Any, provider: str) -> None:
    assert openai_usage.chat_usage(usage, provider) == plain.chat_usage(usage, provider)


@given(named(ANSWER_NAMES + USAGE_NAMES), MODELS, st.sampled_from(PROVIDERS))
@example(ChatCompletion.model_validate(CHAT), "gpt-4o-search-preview", "openai")
@example(ChatCompletion.construct(None, **CHAT), "gpt-5", "openai")
@example(CHAT, "gpt-5", "x_ai")
def test_answers_of_chat(answer: Any, model: Any, provider: str) -> None:
    body = {"model": model}
    assert openai._read_chat(answer, body, provider) == plain.read_chat(answer, body, provider)


@given(named(ANSWER_NAMES + USAGE_NAMES), st.sampled_from(PROVIDERS))
def test_usage_of_responses(response: Any, provider: str) -> None:
    assert openai_usage.response_usage(response, provider) == plain.response_usage(response, provider)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from((*openai_usage.SERVER_TOOLS, "message"))},
            optional={
                "action": st.fixed_dictionaries({"type": st.sampled_from(("search", "open_page", None))}),
                "container_id": st.sampled_from(("one", "two", "", 3)),
            },
        ),
        max_size=6,
    ),
    st.sampled_from((None, {}, {"web_search": {"num_requests": 0}}, {"web_search": {"num_requests": 4}})),
    st.booleans(),
)
def test_tools_that_responses_called(output: list[Any], told: Any, typed: bool) -> None:
    response: Any = {"usage": {"input_tokens": 5, "output_tokens": 7}, "output": output, "tool_usage": told}
    if typed:
        response = Response.construct(None, **response)
    assert openai_usage.response_usage(response) == plain.response_usage(response, "openai")


@given(bodies(BODY_NAMES), st.sampled_from((None, "responses")))
@example({"max_tokens": 5, "max_output_tokens": True, "max_completion_tokens": 7}, None)
@example({"reasoning_effort": "low", "reasoning": {"effort": ""}}, None)
@example({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, None)
@example({"max_output_tokens": 9, "max_tokens": 5}, None)
def test_attributes_of_requests_to_openai(body: dict[str, Any], api_type: str | None) -> None:
    assert openai._request_attributes(api_type, body) == plain.request_attributes(api_type, body)
    assert openai._request_attributes(api_type, Dict(body)) == plain.request_attributes(api_type, body)


@given(named(MESSAGE_NAMES))
def test_messages_of_anthropic(answer: Any) -> None:
    body = {"tools": [{"type": "web_search_20260209"}]} if facts.get(answer, "id") == "stop" else {}
    assert anthropic._read(answer, body, "anthropic") == plain.read_message(answer, body)


@given(bodies(BODY_NAMES))
def test_attributes_of_requests_to_anthropic(body: dict[str, Any]) -> None:
    assert anthropic._attributes(body) == plain.message_attributes(body)


@given(st.lists(values(SIZE_NAMES), max_size=4))
def test_the_size_of_requests(parts: list[Any]) -> None:
    assert sizing.measure(*parts) == plain.measure(*parts)


@given(st.lists(values(SIZE_NAMES), max_size=4))
def test_marks_of_caches(parts: list[Any]) -> None:
    assert sizing.longest_cache_ttl(*parts) == plain.longest_cache_ttl(*parts)


@given(st.text(), st.text(alphabet="aé日\ud800"))
def test_text_is_measured_in_bytes(first: str, second: str) -> None:
    for part in (first, [first, second], {"content": second, second: [first]}, {"a": Text(second)}, Text(first)):
        assert sizing.measure(part) == plain.measure(part)


class Text(str):
    pass
