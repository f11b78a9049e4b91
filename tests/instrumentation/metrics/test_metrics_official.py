"""Side by side with the official packages: the same call makes the same metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import metrics_harness as harness
import pytest
from metrics_harness import Readings, measuring, tried

from tokenbudget_otel import semconv
from tokenbudget_otel.simulator import Behaviour, Simulator

official = (
    pytest.importorskip("opentelemetry.instrumentation.genai.openai").OpenAIInstrumentor,
    pytest.importorskip("opentelemetry.instrumentation.genai.anthropic").AnthropicInstrumentor,
)

ANSWER = Behaviour(text="Little by little.", chunks=4, input_tokens=1200, cached_tokens=1000, output_tokens=80)

OURS_ALONE = {semconv.METRIC_COST, semconv.METRIC_CALLS, semconv.METRIC_TOKEN_DETAILS}
"""What no official package emits."""

MISSING = {
    # A new value with every deployment of OpenAI's, and the tier is on the span: neither is worth its series. The
    # official package has them on whole answers only, and not on streams.
    harness.chat: {semconv.OPENAI_RESPONSE_SERVICE_TIER, semconv.OPENAI_RESPONSE_SYSTEM_FINGERPRINT},
}
"""Attributes that only the official packages have."""

ADDED = {
    # The official package learns the model from the first event and does not tell these two.
    (harness.message_stream, semconv.METRIC_TIME_TO_FIRST_CHUNK): {semconv.RESPONSE_MODEL},
    (harness.message_stream, semconv.METRIC_TIME_PER_OUTPUT_CHUNK): {semconv.RESPONSE_MODEL},
}
"""Attributes that only ours have."""

CALLS = [
    harness.chat, harness.chat_stream, harness.embeddings, harness.responses, harness.responses_stream,
    harness.message, harness.message_stream,
]  # fmt: skip


def measured(kinds: Any, sim: Simulator, call: Callable[[Simulator], Any], behaviour: Behaviour) -> Readings:
    with measuring(*kinds) as read:
        sim.then(behaviour)
        tried(call, sim)
        return read()  # type: ignore[no-any-return]


def shape(readings: Readings, name: str) -> tuple[Any, ...]:
    """Unit, buckets, and how often what was recorded."""
    return (
        readings.units[name],
        {point.bounds for point in readings[name]},
        sum(point.count for point in readings[name]),
    )


@pytest.mark.parametrize("call", CALLS)
def test_a_call_makes_the_metrics_that_it_makes_with_the_official_packages(call: Any, sim: Simulator) -> None:
    theirs = measured(official, sim, call, ANSWER)
    ours = measured((), sim, call, ANSWER)
    assert set(ours.points) - OURS_ALONE == set(theirs.points)
    for name in theirs.points:
        assert shape(ours, name) == shape(theirs, name)
        for mine, other in zip(ordered(ours, name), ordered(theirs, name), strict=True):
            missing, added = MISSING.get(call, set()), ADDED.get((call, name), set())
            assert other.attributes.keys() - mine.attributes.keys() == missing
            assert mine.attributes.keys() - other.attributes.keys() == added
            assert mine.attributes == {key: other.attributes.get(key, mine.attributes[key]) for key in mine.attributes}
    assert ours.by(semconv.METRIC_TOKEN_USAGE, semconv.TOKEN_TYPE) == theirs.by(
        semconv.METRIC_TOKEN_USAGE, semconv.TOKEN_TYPE
    )


@pytest.mark.parametrize("call", CALLS)
def test_a_refused_request_makes_the_metrics_that_it_makes_with_the_official_packages(
    call: Any, sim: Simulator
) -> None:
    theirs = measured(official, sim, call, Behaviour(status=429))
    ours = measured((), sim, call, Behaviour(status=429))
    assert set(ours.points) == set(theirs.points) == {semconv.METRIC_DURATION}
    mine, other = ours.one(semconv.METRIC_DURATION), theirs.one(semconv.METRIC_DURATION)
    assert mine.attributes == other.attributes
    assert mine.attributes[semconv.ERROR_TYPE].endswith("RateLimitError")
    assert shape(ours, semconv.METRIC_DURATION) == shape(theirs, semconv.METRIC_DURATION)


@pytest.mark.parametrize("call", [harness.chat_stream, harness.message_stream])
@pytest.mark.parametrize("wire", [{}, {"split": 7}, {"crlf": True}, {"gzip": True}], ids=str)
def test_as_many_chunks_are_timed_however_they_come(call: Any, wire: dict[str, Any], sim: Simulator) -> None:
    answer = Behaviour(text="Little by little it gets late.", chunks=6, **wire)
    theirs = measured(official, sim, call, answer)
    ours = measured((), sim, call, answer)
    for name in (semconv.METRIC_TIME_TO_FIRST_CHUNK, semconv.METRIC_TIME_PER_OUTPUT_CHUNK):
        assert ours.one(name).count == theirs.one(name).count


def test_chunks_take_as_long_as_the_official_package_finds(sim: Simulator) -> None:
    answer = Behaviour(text="Little by little it gets late.", chunks=4, first_chunk_s=0.05, chunk_s=0.06)
    for call in (harness.chat_stream, harness.message_stream):
        for kinds in (official, ()):
            found = measured(kinds, sim, call, answer)
            first, gaps = (
                found.one(name) for name in (semconv.METRIC_TIME_TO_FIRST_CHUNK, semconv.METRIC_TIME_PER_OUTPUT_CHUNK)
            )
            assert first.sum >= 0.05
            # However late the chunks are read, together they take until the last one.
            assert 0.05 + 3 * 0.06 <= first.sum + gaps.sum <= found.one(semconv.METRIC_DURATION).sum


def ordered(readings: Readings, name: str) -> list[Any]:
    return sorted(readings[name], key=lambda point: str(point.attributes.get(semconv.TOKEN_TYPE)))
