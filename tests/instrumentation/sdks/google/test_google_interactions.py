"""Google's Interactions API: continued, in the background, and fetched."""

from __future__ import annotations

from typing import Any

import pytest
from google_harness import NEWER, PROMPT, both, make, of_mode

import tokenbudget_otel as tb
from both_modes import each, settled
from tokenbudget_otel.simulator import Behaviour, ToolCall


@both
async def test_a_background_interaction_is_charged_once(mode: str, sim: Any, instrumented: Any, meter: Any) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=100, window="hour", name="background"))
    sim.then(Behaviour(polls=2, input_tokens=40, output_tokens=20, reasoning_tokens=5))
    interactions = of_mode(make(sim), mode).interactions
    started = await settled(interactions.create(model=NEWER, input=PROMPT, background=True))
    assert started.status == "in_progress"
    assert meter.totals.get().calls == 0
    statuses = [(await settled(interactions.get(started.id))).status for _ in range(3)]
    assert statuses == ["in_progress", "completed", "completed"]
    totals = meter.totals.get()
    assert (totals.calls, totals.usage.input_tokens, totals.usage.output_tokens) == (1, 40, 20)
    assert [bill.usage.input_tokens for bill in sim.billed] == [40]
    outcomes = [span.attributes["tokenbudget.call.outcome"] for span in instrumented.spans()]
    assert outcomes[0] == "background"
    assert [row.reserved_usd for row in meter.enforcer.status()] == [0]


@both
async def test_what_was_charged_is_not_charged_again_when_it_is_fetched(
    mode: str, sim: Any, instrumented: Any, meter: Any
) -> None:
    interactions = of_mode(make(sim), mode).interactions
    made = await settled(interactions.create(model=NEWER, input=PROMPT))
    await settled(interactions.get(made.id))
    assert meter.totals.get().calls == 1


def test_fetching_is_free(sim: Any, instrumented: Any, meter: Any) -> None:
    interactions = make(sim).interactions
    with tb.budget(max_calls=0), pytest.raises(Exception, match="not found"):
        interactions.get("v1_unknown")
    assert meter.totals.get().calls == 0


@both
async def test_a_stream_of_calls_and_thoughts(mode: str, sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(thinking="Rivers run.", tool_calls=[ToolCall("river", {"name": "Main"})], input_tokens=30))
    interactions = of_mode(make(sim), mode).interactions
    tool = {"type": "function", "name": "river", "parameters": {"type": "object", "properties": {}}}
    stream = await settled(interactions.create(model=NEWER, input=PROMPT, tools=[tool], stream=True))
    assert [item async for item in each(stream)]
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.response.finish_reasons"] == ("tool_call",)
    assert attributes["gen_ai.usage.input_tokens"] == 30
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 2
    assert "tokenbudget.usage.estimated" not in attributes


@pytest.mark.parametrize("fault", ["cut_after", "error_event_after"])
def test_an_interaction_that_breaks_is_estimated(fault: str, sim: Any, instrumented: Any, meter: Any) -> None:
    sim.then(Behaviour(text="word " * 40, chunks=10, chunk_s=0.001, **{fault: 4}))
    stream = make(sim).interactions.create(model=NEWER, input=PROMPT, stream=True, automatic_continuation=False)
    try:
        for _ in stream:
            pass
    except Exception:
        assert fault == "cut_after"
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.call.outcome"] in ("cut", "failed")
    assert attributes["tokenbudget.usage.estimated"] is True
    assert attributes["gen_ai.usage.output_tokens"] >= 16
