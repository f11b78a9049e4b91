"""However odd a request or an answer is, reading its content neither fails nor changes it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import content_shape
from tokenbudget_otel.instrumentation import (
    anthropic_content,
    bedrock_content,
    cohere_content,
    google_content,
    mistralai_content,
    ollama,
    openai_content,
)
from tokenbudget_otel.instrumentation.content import Content
from tokenbudget_otel.instrumentation.content_parts import FINISH_REASONS, finish, plain

SHAPES: dict[str, Content] = {
    "chat": openai_content.CHAT,
    "completion": openai_content.COMPLETION,
    "response": openai_content.RESPONSE,
    "fetched response": openai_content.FETCHED,
    "message": anthropic_content.MESSAGE,
    "contents": google_content.CONTENTS,
    "interaction": google_content.INTERACTION,
    "fetched interaction": google_content.FETCHED,
    "converse": bedrock_content.CONVERSE,
    "invoked messages": bedrock_content.MESSAGE,
    "invoked text": bedrock_content.TEXT,
    "cohere": cohere_content.CHAT,
    "cohere, version 1": cohere_content.CHAT_V1,
    "cohere, generate": cohere_content.GENERATED,
    "conversation": mistralai_content.CONVERSATION,
    "ollama": ollama.CONTENT,
}

FIELDS = st.sampled_from(
    ("messages", "message", "role", "content", "parts", "text", "type", "tool_calls", "function", "name", "arguments",
     "input", "inputs", "output", "outputs", "choices", "delta", "index", "event", "response", "item", "output_index",
     "contents", "candidates", "functionCall", "functionResponse", "inlineData", "source", "toolUse", "toolResult",
     "reasoningContent", "contentBlockDelta", "contentBlockStart", "contentBlockIndex", "system", "tools", "image_url",
     "chat_history", "generations", "steps", "step", "event_type", "thinking", "images", "prompt", "chunk", "body",
     "finish_reason", "usage", "tool_results", "summary", "bytes", "content_block", "status", "interaction"),
)  # fmt: skip
KINDS = st.sampled_from(
    ("text", "message", "function_call", "reasoning", "tool_use", "tool_result", "image", "image_url", "thinking",
     "content_block_start", "content_block_delta", "message_delta", "response.output_item.done", "model_output",
     "response.output_text.delta", "user", "assistant", "tool", "function", "content-delta", "tool-call-start",
     "tool-call-delta", "message.output.delta", "function.call.delta", "step.start", "step.delta", "stream-end"),
)  # fmt: skip
LEAVES = KINDS | st.none() | st.booleans() | st.integers(0, 3) | st.just("{")
ODD = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5), max_leaves=12
)


@pytest.mark.parametrize("name", SHAPES)
@given(data=ODD, events=st.lists(ODD, max_size=5))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_read_reads_as_content(name: str, data: Any, events: list[Any]) -> None:
    shape = SHAPES[name]
    body = data if isinstance(data, dict) else {"messages": data, "input": data, "contents": data, "tools": data}
    before = copy.deepcopy((body, data, events))
    system, asked = shape.request(body)
    found = {
        "gen_ai.system_instructions": system,
        "gen_ai.input.messages": asked,
        "gen_ai.output.messages": shape.response(data),
        "gen_ai.tool.definitions": shape.tools(body),
    }
    streamed = shape.events(events)
    for attribute, items in [*found.items(), ("gen_ai.output.messages", streamed)]:
        if items:
            content_shape.check(attribute, plain(items))
            json.dumps(plain(items))
    assert (body, data, events) == before


def test_reasons_are_those_of_the_conventions() -> None:
    assert set(FINISH_REASONS.values()) <= {"stop", "length", "content_filter", "tool_call", "error"}
    for reason in ("stop", "length", "content_filter", "tool_call", "error"):
        assert finish(reason) == reason
