"""The names that metrics have: those in use, those that are coming, or both."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import metrics_harness as harness
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics_harness import chat, measuring, message

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.call_metrics import MODALITIES, by_modality
from tokenbudget_otel.instrumentation.metric_options import (
    NAMES_ENVIRONMENT,
    TAGS_ENVIRONMENT,
    MetricOptions,
    metric_options,
)
from tokenbudget_otel.processor import TokenBudgetSpanProcessor
from tokenbudget_otel.simulator import Behaviour, Simulator
from tokenbudget_otel.usage import INPUT_MODALITIES

OWN = {semconv.METRIC_COST, semconv.METRIC_CALLS, semconv.METRIC_TOKEN_DETAILS}
CURRENT = {
    "gen_ai.client.operation.duration",
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.client.operation.time_per_output_chunk",
    "gen_ai.client.token.usage",
}
USAGE = "gen_ai.client.inference.usage."
COMING = {
    "gen_ai.client.inference.duration",
    "gen_ai.client.inference.time_to_first_chunk",
    "gen_ai.client.inference.time_per_output_chunk",
    "gen_ai.client.inference.operation.input_tokens",
    "gen_ai.client.inference.operation.output_tokens",
    USAGE + "input_tokens",
    USAGE + "output_tokens",
    USAGE + "cache_read.input_tokens",
    USAGE + "reasoning.output_tokens",
}
RICH = Behaviour(
    text="Little by little.", chunks=3, input_tokens=1200, cached_tokens=1000, output_tokens=80, reasoning_tokens=64
)


@pytest.mark.parametrize(
    ("names", "expected"),
    [(None, CURRENT), ("current", CURRENT), ("coming", COMING), ("both", CURRENT | COMING)],
)
def test_a_stream_has_the_metrics_of_the_names_that_were_asked_for(
    names: str | None, expected: set[str], sim: Simulator
) -> None:
    with measuring(metric_names=names) as read:
        sim.then(RICH)
        harness.chat_stream(sim)
        found = read()
    assert set(found.points) == expected | OWN


def test_counters_that_are_coming_add_up_to_the_wholes(sim: Simulator) -> None:
    with measuring(metric_names="coming") as read:
        sim.then(
            Behaviour(text="Aye.", input_tokens=300, input_audio_tokens=200, output_tokens=90, output_audio_tokens=70)
        )
        chat(sim, model="gpt-4o-audio-preview")
        found = read()
    inputs = found.by(USAGE + "input_tokens", semconv.TOKEN_MODALITY)
    outputs = found.by(USAGE + "output_tokens", semconv.TOKEN_MODALITY)
    assert inputs["audio"] == 200
    assert outputs["audio"] == 70
    assert (sum(inputs.values()), sum(outputs.values())) == (300, 90)
    assert inputs.keys() | outputs.keys() <= {*MODALITIES, "unknown"}
    each = found.one("gen_ai.client.inference.operation.input_tokens")
    assert (each.count, each.sum, each.bounds) == (1, 300, semconv.TOKEN_BOUNDARIES)
    assert semconv.TOKEN_MODALITY not in each.attributes


def test_what_no_provider_says_the_modality_of_is_unknown(sim: Simulator) -> None:
    with measuring(metric_names="coming") as read:
        sim.then(Behaviour(text="Aye.", input_tokens=900, cache_write_5m_tokens=700, output_tokens=9))
        message(sim)
        found = read()
    assert found.by(USAGE + "input_tokens", semconv.TOKEN_MODALITY) == {"unknown": 900}
    assert found.by(USAGE + "cache_write.input_tokens", semconv.TOKEN_MODALITY) == {"unknown": 700}


def test_embeddings_have_names_of_their_own(sim: Simulator) -> None:
    with measuring(metric_names="both") as read:
        harness.embeddings(sim)
        found = read()
    assert set(found.points) - OWN == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.client.embeddings.duration",
        "gen_ai.client.embeddings.operation.input_tokens",
    }


def test_a_look_for_a_response_is_no_inference_but_its_tokens_are_of_one(sim: Simulator) -> None:
    for names in ("coming", "both"):
        with measuring(metric_names=names) as read:
            client = harness.gpt(sim)
            sim.then(Behaviour(text="Aye.", polls=1, input_tokens=50, output_tokens=7))
            response = client.responses.create(model="gpt-5", input="x", background=True)
            while response.status in ("queued", "in_progress"):
                response = client.responses.retrieve(response.id)
            found = read()
        looks = [
            point
            for point in found[semconv.METRIC_DURATION]
            if point.attributes[semconv.OPERATION_NAME] == semconv.FETCH_RESPONSE
        ]
        assert len(looks) == 1
        assert sum(found.by(USAGE + "input_tokens", semconv.TOKEN_MODALITY).values()) == 50


@given(st.integers(0, 1_000), st.lists(st.integers(0, 1_000), min_size=4, max_size=4))
def test_modalities_never_add_up_to_more_or_less_than_the_whole(whole: int, parts: list[int]) -> None:
    usage = tb.TokenUsage(input_tokens=whole, **dict(zip(INPUT_MODALITIES, parts, strict=True)))
    found = by_modality(usage, "input_tokens", INPUT_MODALITIES)
    assert sum(count for _, count in found) == whole
    assert all(count > 0 for _, count in found)


def test_a_count_that_is_not_known_is_not_counted() -> None:
    assert by_modality(tb.TokenUsage(input_audio_tokens=5), "input_tokens", INPUT_MODALITIES) == []


def test_the_document_has_every_name() -> None:
    document = (Path(__file__).parents[3] / "docs" / "attributes.md").read_text()
    names = [getattr(semconv, name) for name in vars(semconv) if name.startswith("METRIC_")]
    missing = [
        name
        for name in names
        # Tables have what a row's names have in common once.
        if f"`{name}`" not in document and not re.search(rf"`[….]+{re.escape(_end(name))}`", document)
    ]
    assert not missing


def _end(name: str) -> str:
    for start in (USAGE, "gen_ai.client.inference.operation.", "gen_ai.client.inference.", "gen_ai.client.operation."):
        if name.startswith(start):
            return name.removeprefix(start)
    return name.rpartition(".")[2]


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["new", "", "CURRENT", 7])
def test_names_that_are_none_are_refused_with_those_that_are(wrong: Any) -> None:
    for attempt in (
        lambda: tb.instrument(metric_names=wrong),
        lambda: harness.OpenAIInstrumentor().door(metric_names=wrong),
        lambda: TokenBudgetSpanProcessor(metric_names=wrong),
    ):
        with pytest.raises(ValueError, match="metric_names must be one of 'current', 'coming', 'both', not"):
            attempt()


@pytest.mark.parametrize("wrong", ["tenant", ("ten ant",), (7,), ("",)])
def test_tags_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="tag"):
        tb.instrument(metric_tags=wrong)
    assert not harness.OpenAIInstrumentor().is_instrumented_by_opentelemetry


@pytest.mark.parametrize(
    ("names", "tags", "expected"),
    [
        ("both", "tenant, feature", MetricOptions(True, True, ("tenant", "feature"))),
        (" Coming ", "tenant,,tenant", MetricOptions(False, True, ("tenant",))),
        ("", "", MetricOptions()),
    ],
)
def test_the_environment_says_the_same(
    names: str, tags: str, expected: MetricOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAMES_ENVIRONMENT, names)
    monkeypatch.setenv(TAGS_ENVIRONMENT, tags)
    assert metric_options() == expected
    assert metric_options("current", ()) == MetricOptions(), "what the program says goes before it"


def test_what_the_environment_says_wrongly_is_told_once_and_left_out(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(NAMES_ENVIRONMENT, "newest")
    monkeypatch.setenv(TAGS_ENVIRONMENT, "tenant,fea ture")
    with caplog.at_level(logging.WARNING, "tokenbudget_otel"):
        for _ in range(3):
            with measuring() as read, tb.tags(tenant="acme"):
                chat(sim)
                found = read()
    assert set(found.points) == {semconv.METRIC_DURATION, semconv.METRIC_TOKEN_USAGE} | OWN - {
        semconv.METRIC_TOKEN_DETAILS
    }
    assert found.one(semconv.METRIC_DURATION).attributes[semconv.TAG_PREFIX + "tenant"] == "acme"
    said = [record.getMessage() for record in caplog.records]
    assert len([line for line in said if NAMES_ENVIRONMENT in line and "newest" in line]) == 1
    assert len([line for line in said if TAGS_ENVIRONMENT in line and "'fea ture'" in line]) == 1
