"""What a Behaviour accepts, and what it says of what it does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx2
import pytest

from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall
from tokenbudget_otel.simulator.text import answer_schema, cut


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"colour": "red"}, "unknown key 'colour'; a behaviour has: model, text,"),
        ({"cached_tokens": -1}, "cached_tokens must be at least 0, not -1"),
        ({"cached_tokens": "7"}, "cached_tokens must be int, not '7'"),
        ({"cached_tokens": True}, "cached_tokens must be int, not True"),
        ({"latency_s": float("nan")}, "latency_s must be at least 0, not nan"),
        ({"gzip": 1}, "gzip must be bool, not 1"),
        ({"usage": "maybe"}, "usage must be one of present, absent, null, not 'maybe'"),
        ({"outcome": "lost"}, "outcome must be one of completed, failed, incomplete"),
        ({"status": 302}, "status must be 200 or an error status"),
        ({"chunks": 0}, "chunks must be at least 1"),
        ({"split": 0}, "split must be at least 1"),
        ({"tool_calls": ["now"]}, "a tool call is ToolCall"),
        ({"tool_calls": [{"nam": "now"}]}, "a tool call is ToolCall"),
        ({"output_tokens": 5, "reasoning_tokens": 4, "citation_tokens": 3}, "its parts .* add up to 7"),
        ({"cut_after": 1, "malformed_after": 2}, "one way only, not in 2: cut_after, malformed_after"),
        ({"status": 500, "timeout": True}, "one way only"),
    ],
)
def test_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        Behaviour.from_mapping(values)


def test_each_field_has_its_rule_and_survives_json() -> None:
    assert Behaviour.from_mapping(dataclasses.asdict(Behaviour())) == Behaviour()
    call = Behaviour(tool_calls=[{"name": "now"}])  # type: ignore[arg-type]
    assert call.tool_calls == (ToolCall("now"),)
    assert Behaviour.from_mapping(dataclasses.asdict(call)) == call


def test_fail_times_means_a_fault() -> None:
    assert Behaviour(fail_times=2).status == 500
    assert Behaviour(fail_times=2, drop=True).status == 200
    assert Behaviour(fail_times=2, cut_after=1, cached_tokens=3).healthy() == Behaviour(cached_tokens=3)


@pytest.mark.parametrize("header", ["no json", "[]", '{"colour": "red"}', '{"split": 0}', '{"tool_calls": 3}'])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_bad_header_is_a_clear_400(header: str, path: str, sim: Simulator) -> None:
    answer = httpx2.post(sim.url + path, headers={"x-simulate": header}, json={})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("x-simulate: ")


@pytest.mark.parametrize("text", ["One two  three\nfour.", " leading", "trailing ", "\n\n", "x", "日本 語"])
@pytest.mark.parametrize("chunks", [None, 1, 2, 5, 50])
def test_cut_loses_nothing(text: str, chunks: int | None) -> None:
    pieces = cut(text, chunks, 1)
    assert "".join(pieces) == text
    assert all(pieces)
    assert chunks is None or len(pieces) == min(chunks, len(text))


def test_schemas_are_answered() -> None:
    schema = {
        "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number", "exclusiveMinimum": 3}}}},
        "properties": {
            "kind": {"enum": ["a"]},
            "only": {"const": 5},
            "point": {"$ref": "#/$defs/Point"},
            "points": {"type": "array", "items": {"$ref": "#/$defs/Point"}, "minItems": 2},
            "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "both": {"allOf": [{"$ref": "#/$defs/Point"}]},
            "day": {"type": "string", "format": "date"},
            "none": {"type": ["null", "string"]},
        },
    }
    assert answer_schema(schema) == {
        "kind": "a",
        "only": 5,
        "point": {"x": 4},
        "points": [{"x": 4}, {"x": 4}],
        "maybe": 1,
        "both": {"x": 4},
        "day": "2026-01-31",
        "none": None,
    }
