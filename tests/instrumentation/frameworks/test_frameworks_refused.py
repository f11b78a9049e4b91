"""A budget's refusal comes out of every framework: as itself, or findable in what the framework makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from framework_harness import Stand, Way, all_ways, rows

import tokenbudget_otel as tb


def refused(way: Way, stand: Stand, calls: int) -> tb.BudgetExceeded:
    """The refusal that a program gets that may make so many calls."""
    with pytest.raises(Exception) as caught, tb.budget(max_calls=calls, name="cap"):
        stand.run(way.run)
    error = caught.value
    if way.wrapped is None:
        assert type(error) is tb.BudgetExceeded
        return error
    assert type(error).__name__ == way.wrapped
    refusal = tb.BudgetExceeded.behind(error)
    assert type(refusal) is tb.BudgetExceeded
    return refusal


@pytest.mark.parametrize("way", rows(all_ways()))
def test_a_refusal_comes_out(way: Way, stand: Stand, instrumented: Any, meter: Any) -> None:
    refusal = refused(way, stand, 0)
    assert (refusal.budget, refusal.dimension, refusal.limit_calls, refusal.needed_calls) == ("cap", "calls", 0, 1)
    assert (refusal.provider, refusal.model) == (way.system, way.model)
    assert not stand.sim.requests
    assert tb.usage().calls == 0
    assert tb.usage().refused_calls in way.refusals


@pytest.mark.parametrize("way", rows([way for way in all_ways() if way.calls > 1 and way.answers]))
def test_a_refusal_in_the_middle_of_a_run_comes_out(way: Way, stand: Stand, instrumented: Any, meter: Any) -> None:
    stand.sim.then(*way.answers)
    refusal = refused(way, stand, 1)
    assert (refusal.limit_calls, refusal.spent_calls) == (1, 1)
    assert len(stand.sim.requests) == len(stand.sim.billed) == tb.usage().calls == 1


PATIENT = ("LangChain-chat_invoke", "openai-agents-responses_retry_as_advised", "Pydantic_AI-chat_run")


@pytest.mark.parametrize("way", rows([way for way in all_ways() if str(way) in (*PATIENT, "LlamaIndex-chat_complete")]))
def test_a_time_to_retry_after_is_no_reason_to_retry(way: Way, stand: Stand, instrumented: Any, meter: Any) -> None:
    meter.enforcer.add(tb.Budget(limit_calls=1, window="year", name="cap"))
    tb.track(provider="openai", model="gpt-4o", usage=tb.TokenUsage(input_tokens=1, output_tokens=1))
    with pytest.raises(tb.BudgetExceeded) as caught:
        stand.run(way.run)
    assert caught.value.retry_after is not None
    assert not stand.sim.requests
    assert tb.usage().refused_calls == 1
