"""How usage and sizes read, without an SDK: what providers were never meant to send, and what bounds hold."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.google_content import CONTENTS, INTERACTION
from tokenbudget_otel.instrumentation.google_requests import content_size, image_size, interaction_size
from tokenbudget_otel.instrumentation.google_streams import ChunkReader, InteractionReader, read_content
from tokenbudget_otel.instrumentation.google_usage import (
    content_usage,
    embedding_usage,
    interaction_usage,
    with_thoughts,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ("candidates", "usageMetadata", "promptTokenCount", "candidatesTokenCount", "content", "parts", "index",
             "finishReason", "promptTokensDetails", "modality", "tokenCount", "groundingMetadata", "webSearchQueries",
             "predictions", "embeddings", "statistics", "usage", "grounding_tool_count", "steps", "text", "event_type")
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_nothing_that_is_sent_breaks_the_reading(data: Any) -> None:
    read_content(data, "gemini-2.5-flash")
    embedding_usage(data)
    interaction_usage(data, "")
    reader = ChunkReader("gemini-2.5-flash")
    reader.chunk(data)
    assert reader.facts.usage is None or not reader.facts.usage.problems()
    InteractionReader("", False).event(json.dumps(data).encode())


def test_the_four_counts_are_added_once() -> None:
    usage = content_usage(
        {
            "promptTokenCount": 100, "cachedContentTokenCount": 60, "toolUsePromptTokenCount": 30,
            "candidatesTokenCount": 20, "thoughtsTokenCount": 15, "totalTokenCount": 165,
            "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 30}],
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 90}, {"modality": "DOCUMENT", "tokenCount": 10}],
        }
    )  # fmt: skip
    assert usage == tb.TokenUsage(
        input_tokens=130, cache_read_tokens=60, tool_use_input_tokens=30, output_tokens=35, reasoning_tokens=15,
        input_text_tokens=120,
    )  # fmt: skip
    assert usage.total_tokens == 165


def test_nothing_written_is_not_unknown() -> None:
    """A prompt that was blocked: counts of nothing are left out, and only the total shows that there are none."""
    blocked = content_usage({"promptTokenCount": 7, "totalTokenCount": 7})
    assert blocked == tb.TokenUsage(input_tokens=7, output_tokens=0)
    assert content_usage({"promptTokenCount": 7}) == tb.TokenUsage(input_tokens=7)


def test_thoughts_that_an_sdk_leaves_out_are_the_rest_of_the_total() -> None:
    seen = {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 150}
    assert with_thoughts(seen)["thoughtsTokenCount"] == 30
    assert with_thoughts({**seen, "totalTokenCount": 120}) == {**seen, "totalTokenCount": 120}


def test_a_stream_is_complete_when_each_candidate_is() -> None:
    reader = ChunkReader("gemini-2.5-flash")
    for index, reason in ((0, None), (1, None), (0, "STOP")):
        candidate = {"index": index, "content": {"parts": [{"text": "a river"}]}}
        reader.chunk({"candidates": [candidate | ({"finishReason": reason} if reason else {})]})
    assert not reader.complete
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 8, "totalTokenCount": 13}
    reader.chunk({"candidates": [{"index": 1, "finishReason": "MAX_TOKENS"}], "usageMetadata": usage})
    assert (reader.complete, reader.usage_is_final) == (True, True)
    assert reader.facts.finish_reasons == ("stop", "length")


@pytest.mark.parametrize("kind", ["image/png", "audio/wav", "video/mp4", "application/pdf"])
def test_media_are_not_sized_by_their_letters(kind: str) -> None:
    blob = {"inlineData": {"mimeType": kind, "data": base64.b64encode(b"\0" * 300_000).decode()}}
    size = content_size({"contents": [{"role": "user", "parts": [{"text": "What is this?"}, blob]}]}, None)
    assert size.input_tokens < 5_000
    if kind.startswith(("image", "audio")):
        assert size.input_bound is not None
        assert size.input_bound < 30_000
    else:
        assert size.input_bound is None
    assert size.text_only is False


@pytest.mark.parametrize(
    "more",
    [
        {"cachedContent": "cachedContents/1"},
        {"tools": [{"googleSearch": {}}]},
        {"contents": [{"parts": [{"fileData": {"fileUri": "gs://a/b", "mimeType": "application/pdf"}}]}]},
    ],
)
def test_what_cannot_be_seen_has_no_bound(more: dict[str, Any]) -> None:
    body = {"contents": [{"parts": [{"text": "Go on."}]}], **more}
    assert content_size(body, None).input_bound is None


def test_limits_of_requests() -> None:
    body = {
        "contents": [{"parts": [{"text": "Go on."}]}],
        "generationConfig": {"maxOutputTokens": 50, "candidateCount": 3},
        "tools": [{"functionDeclarations": [{"name": "river"}]}],
    }
    size = content_size(body, None)
    assert (size.max_output_tokens, size.choices, size.text_only) == (50, 3, True)
    assert size.input_bound is not None
    images = image_size({"instances": [{"prompt": "a river"}], "parameters": {"sampleCount": 2}}, None)
    assert images.extra == tb.TokenUsage(output_images=2)
    assert (
        interaction_size({"model": "x", "input": "Go on.", "previous_interaction_id": "v1_1"}, None).input_bound is None
    )


def test_content_is_kept_as_messages() -> None:
    body = {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Go on."}, {"inlineData": {"mimeType": "image/png", "data": "AA"}}]}
        ],
    }
    system, messages = CONTENTS.request(body)
    assert system == [{"type": "text", "content": "Be brief."}]
    picture = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "", "omitted_bytes": 1}
    assert messages == [{"role": "user", "parts": [{"type": "text", "content": "Go on."}, picture]}]
    chunks = [
        {"candidates": [{"content": {"parts": [{"text": "Hm.", "thought": True}]}}]},
        {"candidates": [{"content": {"parts": [{"text": "A "}]}}]},
        {"candidates": [{"content": {"parts": [{"text": "river."}]}, "finishReason": "STOP"}]},
    ]
    parts = [{"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "A river."}]
    assert CONTENTS.events(chunks) == [{"role": "assistant", "parts": parts, "finish_reason": "stop"}]
    events = [
        {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
        {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "A "}},
        {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "river."}},
    ]
    said = [{"role": "assistant", "parts": [{"type": "text", "content": "A river."}], "finish_reason": None}]
    assert INTERACTION.events(events) == said
