"""Every row of the table of dialects, with attributes as its emitters write them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenbudget_otel import dialects, semconv
from tokenbudget_otel.dialects import CONVENTIONS, DIALECTS, Reader, candidate, read
from tokenbudget_otel.instrumentation.call import add_usage
from tokenbudget_otel.meter import Meter, Reading, Request, Size
from tokenbudget_otel.usage import FIELDS, TOKEN_FIELDS, TokenUsage

OFFICIAL_OPENAI = "opentelemetry.instrumentation.genai.openai"
OFFICIAL_ANTHROPIC = "opentelemetry.instrumentation.genai.anthropic"
NATIVE = "com.anthropic.sdk.python"
OURS = "tokenbudget_otel.instrumentation.openai"

READ = [
    pytest.param(
        None,
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 3210,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.cache_read.input_tokens": 3000,
            "gen_ai.usage.cache_write.input_tokens": 200,
            "gen_ai.usage.reasoning.output_tokens": 30,
        },
        ("conventions", "anthropic", "chat", "claude-sonnet-4-5"),
        TokenUsage(
            input_tokens=3210,
            output_tokens=50,
            cache_read_tokens=3000,
            cache_write_tokens=200,
            reasoning_tokens=30,
        ),
        id="current names, input the whole by arithmetic",
    ),
    pytest.param(
        None,
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.cache_read.input_tokens": 3000,
            "gen_ai.usage.cache_write.input_tokens": 200,
        },
        ("conventions", "anthropic", "chat", "claude-sonnet-4-5"),
        TokenUsage(input_tokens=3210, output_tokens=50, cache_read_tokens=3000, cache_write_tokens=200),
        id="current names, input the rest by arithmetic",
    ),
    pytest.param(
        "opentelemetry.instrumentation.openai_v2",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "az.ai.openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.model": "gpt-4o-2024-08-06",
            "gen_ai.openai.response.service_tier": "default",
            "gen_ai.usage.prompt_tokens": 1200,
            "gen_ai.usage.completion_tokens": 80,
            "gen_ai.usage.reasoning_tokens": 64,
        },
        ("conventions", "azure.ai.openai", "chat", "gpt-4o"),
        TokenUsage(input_tokens=1200, output_tokens=80, reasoning_tokens=64),
        id="former names",
    ),
    pytest.param(
        "a.former.emitter",
        {
            "gen_ai.system": "anthropic",
            "gen_ai.request.model": "claude-3-5-sonnet-20241022",
            "gen_ai.usage.input_tokens": 7,
            "gen_ai.usage.output_tokens": 9,
            "gen_ai.usage.cache_read_input_tokens": 100,
            "gen_ai.usage.cache_creation.input_tokens": 50,
        },
        ("conventions", "anthropic", "chat", "claude-3-5-sonnet-20241022"),
        TokenUsage(input_tokens=157, output_tokens=9, cache_read_tokens=100, cache_write_tokens=50),
        id="former names without an operation",
    ),
    pytest.param(
        OFFICIAL_OPENAI,
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-audio-preview",
            "gen_ai.response.model": "gpt-4o-audio-preview-2024-12-17",
            "gen_ai.response.id": "chatcmpl-1",
            "openai.request.service_tier": "flex",
            "openai.response.service_tier": "default",
            "gen_ai.usage.input_tokens": 160,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.cache_read.input_tokens": 64,
            "gen_ai.usage.text.input_tokens": 100,
            "gen_ai.usage.audio.input_tokens": 60,
            "gen_ai.usage.audio.output_tokens": 20,
            "gen_ai.usage.audio.cache_read.input_tokens": 32,
        },
        ("official", "openai", "chat", "gpt-4o-audio-preview"),
        TokenUsage(
            input_tokens=160,
            output_tokens=50,
            cache_read_tokens=64,
            input_text_tokens=100,
            input_audio_tokens=60,
            output_audio_tokens=20,
            cache_read_audio_tokens=32,
        ),
        id="official openai with modalities",
    ),
    pytest.param(
        OFFICIAL_OPENAI,
        {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "text-embedding-3-small",
            "gen_ai.usage.input_tokens": 8,
        },
        ("official", "openai", "embeddings", "text-embedding-3-small"),
        TokenUsage(input_tokens=8),
        id="official embeddings",
    ),
    pytest.param(
        OFFICIAL_ANTHROPIC,
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 160,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.usage.cache_write.input_tokens": 20,
        },
        ("official", "anthropic", "chat", "claude-sonnet-4-5"),
        TokenUsage(input_tokens=160, output_tokens=50, cache_read_tokens=40, cache_write_tokens=20),
        id="official anthropic",
    ),
    pytest.param(
        NATIVE,
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.response.id": "msg_1",
            "gen_ai.response.model": "claude-sonnet-4-5-20250929",
            "anthropic.request.service_tier": "auto",
            "anthropic.response.service_tier": "priority",
            "gen_ai.usage.input_tokens": 3210,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.cache_read.input_tokens": 3000,
            "gen_ai.usage.cache_write.input_tokens": 200,
            "anthropic.usage.cache_creation.ephemeral_5m_input_tokens": 150,
            "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 50,
        },
        ("anthropic-sdk", "anthropic", "chat", "claude-sonnet-4-5"),
        TokenUsage(
            input_tokens=3210,
            output_tokens=50,
            cache_read_tokens=3000,
            cache_write_tokens=200,
            cache_write_5m_tokens=150,
            cache_write_1h_tokens=50,
        ),
        id="anthropic SDK",
    ),
    pytest.param(
        NATIVE + ".bedrock",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
            "anthropic.usage.compaction.input_tokens": 1000,
            "anthropic.usage.compaction.output_tokens": 100,
        },
        ("anthropic-sdk", "aws.bedrock", "chat", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        TokenUsage(input_tokens=1010, output_tokens=105),
        id="anthropic SDK on Bedrock, with what compaction used",
    ),
]


@pytest.mark.parametrize(("scope", "attributes", "told", "usage"), READ)
def test_reads_what_an_emitter_writes(
    scope: str | None, attributes: dict[str, Any], told: tuple[str, ...], usage: TokenUsage
) -> None:
    assert candidate(attributes, scope)
    inference = read(attributes, scope, "1.3b0")
    assert inference is not None
    assert (inference.dialect, inference.provider, inference.operation, inference.model) == told
    assert inference.usage == usage
    assert inference.rejected == ()
    assert not inference.estimated
    assert not inference.charged


NOT_BILLABLE = [
    pytest.param(OFFICIAL_OPENAI, {"gen_ai.operation.name": "fetch_response"}, id="fetch_response"),
    pytest.param(None, {"gen_ai.operation.name": "invoke_agent"}, id="agent"),
    pytest.param(None, {"gen_ai.operation.name": "create_agent"}, id="created agent"),
    pytest.param(None, {"gen_ai.operation.name": "invoke_workflow"}, id="workflow"),
    pytest.param(None, {"gen_ai.operation.name": "execute_tool"}, id="tool"),
    pytest.param(None, {"gen_ai.operation.name": "retrieval"}, id="retrieval"),
    pytest.param(None, {"gen_ai.operation.name": ["chat"]}, id="operation that is no name"),
    pytest.param(NATIVE, {"gen_ai.operation.name": "invoke_agent"}, id="anthropic tool runner"),
    pytest.param(NATIVE, {"anthropic.message.count_tokens.input_tokens": 12}, id="anthropic count_tokens"),
    pytest.param(NATIVE, {"http.request.method": "GET"}, id="anthropic models.list"),
]


@pytest.mark.parametrize(("scope", "attributes"), NOT_BILLABLE)
def test_takes_nothing_else_for_a_call(scope: str | None, attributes: dict[str, Any]) -> None:
    full = {
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 10,
        **attributes,
    }
    assert read(full, scope) is None


def test_other_spans_are_no_candidates() -> None:
    web = {"http.request.method": "GET", "server.address": "example.com"}
    assert not candidate(web, "opentelemetry.instrumentation.httpx", "0.66b2")
    assert read(web, "opentelemetry.instrumentation.httpx") is None
    assert read({"gen_ai.provider.name": "openai"}) is None  # no operation, no model, no tokens


def test_our_own_spans_come_back_as_they_went() -> None:
    known = dict.fromkeys(usage_attributes_fields(), 1)
    known |= {"input_tokens": 100, "output_tokens": 100, "cache_read_tokens": 9, "cache_write_tokens": 9}
    usage = TokenUsage(**{**known, "input_audio_seconds": 1.5, "output_audio_seconds": 0.25})
    inference = read(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "tokenbudget.call.id": "abc",
            "gen_ai.usage.cost": 0.000000007,
            "tokenbudget.cost.state": "priced",
            "tokenbudget.cost.source": "genai-prices",
            "tokenbudget.tag.tenant": "acme",
            **usage_attributes(usage),
        },
        OURS,
    )
    assert inference is not None
    assert inference.dialect == "tokenbudget"
    assert inference.usage == usage
    assert inference.call_id == "abc"
    assert inference.charged
    assert inference.charged_nano_usd == 7
    assert inference.reported_nano_usd is None, "not the provider said so"
    assert inference.tags == {"tenant": "acme"}


def usage_attributes(usage: TokenUsage) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    add_usage(attributes, usage, former_names=False)
    return attributes


def usage_attributes_fields() -> list[str]:
    """The counts that our own spans carry."""
    probe = {name: TokenUsage(**{name: 1}) for name in FIELDS}
    return [name for name, usage in probe.items() if usage_attributes(usage)]


def test_every_token_count_has_a_name() -> None:
    read_by_us = {name for _, name in dialects.OWN.counts}
    assert read_by_us >= set(TOKEN_FIELDS)


COSTS = [
    ({"gen_ai.usage.cost.amount": 0.0035, "gen_ai.usage.cost.source": "provider"}, 3_500_000),
    ({"gen_ai.usage.cost.amount": 0, "gen_ai.usage.cost.source": "provider"}, 0),
    ({"gen_ai.usage.cost.amount": 0.0035, "gen_ai.usage.cost.source": "local"}, None),
    ({"gen_ai.usage.cost.amount": 0.0035, "gen_ai.usage.cost.source": "provider", "gen_ai.usage.cost.currency": "EUR"},
     None),
    ({"gen_ai.usage.cost": 0.5}, None),  # somebody's own price table
    ({"gen_ai.usage.cost.amount": -1.0, "gen_ai.usage.cost.source": "provider"}, None),
    ({"gen_ai.usage.cost.amount": math.nan, "gen_ai.usage.cost.source": "provider"}, None),
    ({"gen_ai.usage.cost.amount": 1e300, "gen_ai.usage.cost.source": "provider"}, None),
    ({"gen_ai.usage.cost.amount": "0.1", "gen_ai.usage.cost.source": "provider"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("attributes", "nano_usd"), COSTS)
def test_takes_only_a_cost_that_the_provider_reports(attributes: dict[str, Any], nano_usd: int | None) -> None:
    inference = read({"gen_ai.operation.name": "chat", **attributes})
    assert inference is not None
    assert inference.reported_nano_usd == nano_usd


HOSTILE = [
    (-5, "negative"),
    (math.nan, "not_finite"),
    (math.inf, "not_finite"),
    ("12", "not_a_number"),
    (True, "not_a_number"),
    ((1, 2), "not_a_number"),
    (1.5, "not_whole"),
    (10**12, "absurd"),
    (10**400, "absurd"),
]


@pytest.mark.parametrize(("value", "reason"), HOSTILE)
def test_hostile_counts_are_left_out_and_named(value: Any, reason: str) -> None:
    inference = read(
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": value, "gen_ai.usage.output_tokens": 9}
    )
    assert inference is not None
    assert inference.usage == TokenUsage(output_tokens=9)
    assert inference.rejected == ((reason, "gen_ai.usage.input_tokens"),)
    assert inference.estimated, "it is not the whole of what the provider counted"


def test_a_former_name_stands_in_for_a_bad_value() -> None:
    inference = read(
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": "x", "gen_ai.usage.prompt_tokens": 3}
    )
    assert inference is not None
    assert inference.usage == TokenUsage(input_tokens=3)
    assert not inference.estimated


def test_contradictions_are_resolved_and_named() -> None:
    inference = read(
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.cache_read.input_tokens": 90},
        OFFICIAL_OPENAI,
    )
    assert inference is not None
    assert inference.usage == TokenUsage(input_tokens=10)
    assert inference.rejected == (("contradictory", "cache_read_tokens (90) exceeds input_tokens (10)"),)


def test_whole_floats_are_counts() -> None:
    # Some serialisations know only doubles.
    inference = read({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 12.0})
    assert inference is not None
    assert inference.usage == TokenUsage(input_tokens=12)


def test_a_dialect_is_a_row() -> None:
    """What a house of its own may need: other names, a rule by version, JSON in one attribute."""
    old = replace(
        CONVENTIONS,
        name="house-1",
        scopes=("house.llm",),
        before=(2,),
        folded=("usage",),
        operation=("kind",),
        operations={"LLM": semconv.CHAT},
        request_model=("model",),
        counts=(("usage.in", "input_tokens"), ("usage.of.cached", "cache_read_tokens")),
        input="rest",
    )
    new = replace(old, name="house-2", before=None, input="whole")
    reader = Reader((old, new, *DIALECTS))
    span = {"kind": "LLM", "model": "m", "usage": '{"in": 10, "of": {"cached": 4}}'}
    first, second = (reader.read(span, "house.llm.client", version) for version in ("1.9.3", "2.0.0"))
    assert first is not None and second is not None
    assert (first.dialect, first.usage) == ("house-1", TokenUsage(input_tokens=14, cache_read_tokens=4))
    assert (second.dialect, second.usage) == ("house-2", TokenUsage(input_tokens=10, cache_read_tokens=4))
    assert reader.read(span, "house.llmx") is None


RULES = [
    # input, output, what is written, what it comes to
    ("whole", "whole", (100, 50, 30, 20), (100, 50)),
    ("rest", "rest", (100, 50, 30, 20), (130, 70)),
    ("unknown", "unknown", (100, 50, 30, 20), (100, 50)),
    ("unknown", "unknown", (10, 5, 30, 20), (40, 25)),
    ("rest", "rest", (None, None, 30, 20), (30, 20)),
]


@pytest.mark.parametrize(("input_rule", "output_rule", "written", "totals"), RULES)
def test_totals_become_wholes(input_rule: Any, output_rule: Any, written: Any, totals: tuple[int, int]) -> None:
    row = replace(CONVENTIONS, name="x", scopes=("x",), input=input_rule, output=output_rule)
    names = (semconv.USAGE_INPUT_TOKENS, semconv.USAGE_OUTPUT_TOKENS, semconv.USAGE_CACHE_READ, semconv.USAGE_REASONING)
    span = {name: value for name, value in zip(names, written, strict=True) if value is not None}
    inference = Reader((row,)).read({"gen_ai.operation.name": "chat", **span}, "x")
    assert inference is not None and inference.usage is not None
    assert (inference.usage.input_tokens, inference.usage.output_tokens) == totals
    assert inference.rejected == ()


@pytest.mark.parametrize(("rule", "estimated"), [("rest", True), ("whole", False)])
def test_a_total_that_lacks_a_part_which_cannot_be_is_an_estimate(rule: Any, estimated: bool) -> None:
    row = replace(CONVENTIONS, name="x", scopes=("x",), input=rule)
    inference = Reader((row,)).read(
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 9, "gen_ai.usage.cache_read.input_tokens": -1},
        "x",
    )
    assert inference is not None
    assert (inference.usage, inference.estimated) == (TokenUsage(input_tokens=9), estimated)


def test_spans_that_a_program_makes_with_logfire_are_no_candidates() -> None:
    assert not candidate({"logfire.msg": "hello"}, "logfire", "5.4.0")


def test_a_rule_may_be_that_of_a_provider_and_be_lifted_by_an_attribute() -> None:
    row = replace(
        CONVENTIONS, name="x", scopes=("x",), input="whole", input_of={"aws.bedrock": "rest"}, whole_where=("whole",)
    )
    span = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 9,
    }

    def read_of(**more: Any) -> int | None:
        inference = Reader((row,)).read(span | more, "x")
        assert inference is not None and inference.usage is not None
        return inference.usage.input_tokens

    assert read_of() == 100
    assert read_of(**{"gen_ai.provider.name": "bedrock"}) == 109
    assert read_of(**{"gen_ai.provider.name": "bedrock", "whole": 0}) == 100


BROKEN = [
    "",
    "{",
    "[1]",
    "12",
    "null",
    "{'a': __import__('os')}",
    "[" * 5_000,
    '{"a":' * 5_000,
    "x" * 250_001,
    7,
    b"{}",
]


@pytest.mark.parametrize("value", BROKEN, ids=lambda value: repr(value)[:20])
def test_broken_json_is_named_and_the_rest_is_read(value: Any) -> None:
    inference = read(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": 9,
            "gen_ai.usage.raw": value,
        },
        "logfire.openai",
    )
    assert inference is not None
    assert inference.usage == TokenUsage(input_tokens=9)
    assert inference.rejected == (("broken", "gen_ai.usage.raw"),)


def test_nothing_is_concluded_from_what_broken_json_does_not_have() -> None:
    """The parameters of this request were cut off at the limit for attributes, so whether it named a model is not
    known. It is taken for a call and not for the fetching of one."""
    span = {
        "openinference.span.kind": "LLM",
        "llm.invocation_parameters": '{"tools": [',
        "llm.model_name": "gpt-4o",
        "llm.token_count.prompt": 9,
    }
    inference = read(span, "openinference.instrumentation.openai")
    assert inference is not None and inference.usage == TokenUsage(input_tokens=9)
    assert read(span | {"llm.invocation_parameters": "{}"}, "openinference.instrumentation.openai") is None


COUNTED = [(row, attribute) for row in DIALECTS for attribute, name in row.counts if name == "input_tokens"]


@pytest.mark.parametrize(("value", "reason"), HOSTILE, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize(("row", "attribute"), COUNTED, ids=lambda value: getattr(value, "name", value))
def test_hostile_counts_are_named_in_every_dialect(
    row: dialects.Dialect, attribute: str, value: Any, reason: str
) -> None:
    span: dict[str, Any] = {**call_of(row)}
    holder = next((folded for folded in row.folded if attribute.startswith(folded + ".")), None)
    if holder is not None:
        # JSON has no tuples, and no integer is too large for it.
        span[holder] = json.dumps(
            {attribute.removeprefix(holder + "."): list(value) if type(value) is tuple else value}
        )
        if type(value) is tuple or value == 10**400:
            return
    else:
        span[attribute] = value
    inference = read(span, *scope_of(row))
    assert inference is not None
    assert inference.dialect == row.name
    assert (reason, attribute) in inference.rejected
    assert inference.usage is None or not inference.usage.input_tokens


def scope_of(row: dialects.Dialect) -> tuple[str | None, str]:
    return (row.scopes[0] if row.scopes else None), "1.0"


def call_of(row: dialects.Dialect) -> dict[str, Any]:
    """The least that makes a span a call of a dialect."""
    span: dict[str, Any] = dict.fromkeys(() if row.scopes else row.marks[:1], "x")
    operation = next(iter(row.operations))
    span |= dict.fromkeys((others[0] for others in row.needs.values()), "m")
    return span | {row.operation[0]: operation, **dict.fromkeys((*row.request_model[:1], *row.response_id[:1]), "m")}


@pytest.mark.parametrize("row", DIALECTS, ids=lambda row: f"{row.name} {' '.join(row.scopes[:1])}")
def test_every_row_can_be_reached(row: dialects.Dialect) -> None:
    inference = read(call_of(row), *scope_of(row))
    assert inference is not None and inference.dialect == row.name
    assert candidate(call_of(row), *scope_of(row))
    if row.scopes:
        # None of a row's scopes is taken by one before it.
        before = DIALECTS[: DIALECTS.index(row)]
        assert not [scope for scope in row.scopes if any(other.written_by(scope, None) for other in before)]


def names_of(row: dialects.Dialect) -> list[str]:
    """Everything that a row looks at."""
    return sorted(
        {attribute for attribute, _ in (*row.counts, *row.added)}
        | {*row.marks, *row.folded, *row.unless, *row.needs, *row.total, *row.whole_where, *row.streamed, *row.tier}
        | {*row.operation, *row.provider, *row.request_model, *row.response_model, *row.response_id}
        | {name for cost in row.costs for name in (cost.amount, cost.currency, cost.source) if name}
        | {semconv.CALL_ID, semconv.USAGE_COST, semconv.COST_STATE, semconv.ERROR_TYPE, dialects.COVERED_BY}
        | {semconv.USAGE_ESTIMATED, semconv.SERVER_ADDRESS, "tokenbudget.tag.x"}
    )


VALUES = st.one_of(
    st.integers(-(10**20), 10**20),
    st.integers(0, 5_000),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        [
            "chat",
            "embeddings",
            "invoke_agent",
            "gpt-4o",
            "provider",
            "USD",
            "priority",
            "x" * 10_000,
            "{",
            "{}",
            "LLM",
            "m",
        ]
    ),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=2),
    st.binary(max_size=3),
)
JSON_VALUES = st.one_of(
    st.integers(0, 5_000), st.integers(), st.floats(), st.text(max_size=3), st.booleans(), st.none(), st.just([1])
)
_meter = Meter()


@st.composite
def spans(draw: st.DrawFn) -> tuple[dict[str, Any], str | None]:
    """A span of any dialect, with anything in its attributes."""
    row = draw(st.sampled_from(DIALECTS))
    names = names_of(row)
    attributes = draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=12))
    for folded in row.folded:
        inside = [name.removeprefix(folded + ".") for name in names if name.startswith(folded + ".")]
        if inside and draw(st.booleans()):
            attributes[folded] = nested(draw(st.dictionaries(st.sampled_from(inside), JSON_VALUES, max_size=8)))
    if draw(st.booleans()):
        attributes |= call_of(row)
    return attributes, draw(st.sampled_from([*row.scopes, None, "", "x"]))


def nested(leaves: dict[str, Any]) -> str:
    root: dict[str, Any] = {}
    for path, value in leaves.items():
        *above, name = path.split(".")
        node = root
        for step in above:
            below = node.get(step)
            node[step] = node = below if isinstance(below, dict) else {}
        node[name] = value
    return json.dumps(root)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first text of a run is slow to make
@given(spans(), st.sampled_from([None, "", "1.3b0", "x", "9" * 5_000]))
def test_nothing_hostile_raises_or_costs_less_than_nothing(
    span: tuple[dict[str, Any], str | None], version: str | None
) -> None:
    attributes, scope = span
    inference = read(attributes, scope, version)
    if inference is None:
        return
    assert candidate(attributes, scope, version)
    assert inference.operation in semconv.INFERENCE_OPERATIONS
    assert inference.reported_nano_usd is None or 0 <= inference.reported_nano_usd <= dialects.MAX_COST_NANO_USD
    assert all(len(name) <= dialects.MAX_NAME_LENGTH + 10 for name in (inference.provider, inference.model))
    if inference.usage is None:
        return
    usage = inference.usage
    assert usage.problems() == ()
    assert all(0 <= value <= 10 * dialects.MAX_COUNT for value in usage.counts().values())
    request = Request(
        inference.provider, inference.model, inference.operation, lambda: Size(0, 0), tier=inference.tier, tags={}
    )
    reading = Reading(usage, inference.response_model, inference.tier, inference.reported_nano_usd)
    cost = _meter.record(request, reading).cost
    assert cost.nano_usd is None or cost.nano_usd >= 0
