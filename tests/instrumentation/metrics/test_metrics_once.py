"""The standard metrics of a call are recorded once, whoever else makes spans; what only we know always is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any

import anthropic
import metrics_harness as harness
import pytest
from metrics_harness import GPT, OURS, chat, measuring
from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import INVALID_SPAN

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import emitters
from tokenbudget_otel.instrumentation.emitters import ALL, EMITTERS, NONE, recorded_by, recorded_elsewhere
from tokenbudget_otel.simulator import Behaviour, Simulator

official = (
    pytest.importorskip("opentelemetry.instrumentation.genai.openai").OpenAIInstrumentor,
    pytest.importorskip("opentelemetry.instrumentation.genai.anthropic").AnthropicInstrumentor,
)

DURATION, TOKENS = semconv.METRIC_DURATION, semconv.METRIC_TOKEN_USAGE
FIRST, CHUNKS = semconv.METRIC_TIME_TO_FIRST_CHUNK, semconv.METRIC_TIME_PER_OUTPUT_CHUNK
STANDARD = {DURATION, TOKENS, FIRST, CHUNKS}
OWN = {semconv.METRIC_COST, semconv.METRIC_CALLS, semconv.METRIC_TOKEN_DETAILS}

ANSWER = Behaviour(text="Little by little.", chunks=3, input_tokens=1200, cached_tokens=1000, output_tokens=80)


@pytest.mark.parametrize("kinds", [(*official, *OURS), (*OURS, *official)], ids=["theirs first", "ours first"])
@pytest.mark.parametrize("call", [chat, harness.chat_stream, harness.message, harness.message_stream])
def test_beside_the_official_packages_every_standard_metric_is_recorded_once(
    kinds: Any, call: Any, sim: Simulator
) -> None:
    with measuring(*official) as read:
        sim.then(ANSWER)
        call(sim)
        alone = read()
    with measuring(*kinds) as read:
        sim.then(ANSWER)
        call(sim)
        found = read()
    assert set(found.points) - OWN == set(alone.points)
    for name in alone.points:
        assert [point.count for point in found[name]] == [point.count for point in alone[name]]
    assert found.by(TOKENS, semconv.TOKEN_TYPE) == {"input": 1200, "output": 80}
    assert found.one(semconv.METRIC_CALLS).sum == 1
    assert found.by(semconv.METRIC_TOKEN_DETAILS, semconv.TOKEN_DETAIL)["cache_read"] == 1000


def test_beside_spans_of_the_anthropic_sdk_itself(sim: Simulator) -> None:
    """Whose span it is does not matter: the SDK records no metrics."""
    with measuring() as read:
        tracers = {"tracer_provider": TracerProvider()}
        sim.then(ANSWER)
        client = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="any", open_telemetry=tracers)
        client.messages.create(model=harness.CLAUDE, max_tokens=99, messages=harness.SAID)
        found = read()
    assert found.one(DURATION).count == 1
    assert found.by(TOKENS, semconv.TOKEN_TYPE) == {"input": 1200, "output": 80}


# --- spans of others, adopted ------------------------------------------------------------------------------------

ADOPTED = {
    "opentelemetry.util.genai.handler": set(),
    "openlit.otel.tracing": set(),
    "opentelemetry.instrumentation.openai.v1": {FIRST, CHUNKS},
    "pydantic-ai": {DURATION, CHUNKS},
    "openinference.instrumentation.openai": STANDARD,
    "opentelemetry.instrumentation.llamaindex": STANDARD,
    "langfuse-sdk": STANDARD,
    "logfire.openai": STANDARD,
    "house.llm": STANDARD,
}
"""What we record beside a span of each scope."""


@pytest.mark.parametrize("scope", ADOPTED)
def test_what_the_maker_of_an_adopted_span_does_not_record_we_do(scope: str, sim: Simulator) -> None:
    attributes = {semconv.OPERATION_NAME: "chat", semconv.PROVIDER_NAME: "openai", semconv.REQUEST_MODEL: GPT}
    tracer = TracerProvider().get_tracer(scope)
    with measuring() as read:
        sim.then(ANSWER)
        with tracer.start_as_current_span("chat gpt-4o", attributes=attributes):
            harness.chat_stream(sim)
        found = read()
    assert set(found.points) == ADOPTED[scope] | OWN


def test_names_that_are_coming_are_recorded_beside_who_records_the_current_ones(sim: Simulator) -> None:
    with measuring(*official, *OURS, metric_names="coming") as read:
        sim.then(ANSWER)
        chat(sim)
        found = read()
    assert found.one("gen_ai.client.inference.duration").count == 1
    assert found.one(DURATION).count == 1, "the official package's"


# --- spans suppressed --------------------------------------------------------------------------------------------


@contextmanager
def key(name: str, around: str | None = None) -> Any:
    """A key in the context, with a span of the scope ``around`` current."""
    ctx = context.set_value(name, True)
    if around is not None:
        ctx = trace.set_span_in_context(TracerProvider().get_tracer(around).start_span("llm"), ctx)
    token = context.attach(ctx)
    try:
        yield
    finally:
        context.detach(token)


SUPPRESSED: dict[str, tuple[Callable[[], AbstractContextManager[Any]], set[str]]] = {
    "OpenTelemetry's own key asks for silence": (suppress_instrumentation, set()),
    "the official invocation around records": (lambda: key("opentelemetry.genai.client.inference.context"), set()),
    "the LangChain instrumentation around records duration and tokens": (
        lambda: key("suppress_language_model_instrumentation", "opentelemetry.instrumentation.langchain"),
        {FIRST, CHUNKS},
    ),
    "the LlamaIndex instrumentation around records none": (
        lambda: key("suppress_language_model_instrumentation", "opentelemetry.instrumentation.llamaindex"),
        STANDARD,
    ),
    "whoever is around is not sampled": (
        lambda: key("suppress_language_model_instrumentation"),
        {FIRST, CHUNKS},
    ),
}


@pytest.mark.parametrize("why", SUPPRESSED)
def test_where_spans_are_suppressed_whoever_suppressed_them_records(why: str, sim: Simulator) -> None:
    suppress, expected = SUPPRESSED[why]
    with measuring() as read:
        sim.then(ANSWER)
        with suppress():
            harness.chat_stream(sim)
        found = read()
    assert set(found.points) == expected | OWN


@pytest.mark.parametrize(
    ("maker", "recorded"),
    [
        ("opentelemetry.instrumentation.openai.v1.responses_wrappers", {emitters.DURATION, emitters.TOKENS}),
        ("opentelemetry.util.genai.stream", ALL),
        ("openlit.instrumentation.openai.openai", ALL),
        ("logfire._internal.integrations.llm_providers.llm_provider", NONE),
        ("langfuse.openai", NONE),
    ],
)
def test_who_stands_around_a_call_records_also_where_no_span_is_sampled(maker: str, recorded: set[str]) -> None:
    assert recorded_elsewhere(INVALID_SPAN, context.get_current(), maker) == recorded


def test_under_openlits_flag_it_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openlit.__helpers", ModuleType("openlit.__helpers"))
    assert recorded_elsewhere(INVALID_SPAN, context.get_current()) == ALL


def test_metrics_do_not_depend_on_sampling(sim: Simulator) -> None:
    with measuring(tracers=TracerProvider(sampler=ALWAYS_OFF)) as read:
        sim.then(ANSWER)
        harness.chat_stream(sim)
        found = read()
    assert set(found.points) == STANDARD | OWN


# --- the table ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", EMITTERS)
def test_a_row_stands_for_scopes_below_it_and_for_no_other(scope: str) -> None:
    assert recorded_by(scope) == recorded_by(f"{scope}.v1.more") == EMITTERS[scope]
    assert recorded_by(f"{scope}x") == NONE


@pytest.mark.parametrize("scope", [None, "", ".", "opentelemetry", "opentelemetry.instrumentation"])
def test_scopes_of_nobody_record_nothing(scope: str | None) -> None:
    assert recorded_by(scope) == NONE
