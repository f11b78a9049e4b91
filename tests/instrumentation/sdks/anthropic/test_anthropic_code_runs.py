"""Code that runs on Anthropic's servers is billed by the hour of its container, which no answer tells."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic_doors import BODY, each, settled

from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

CODE = {"type": "code_execution_20250825", "name": "code_execution"}
SEARCH = {"type": "web_search_20260209", "name": "web_search"}
OLD_SEARCH = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("tools", "runs"), [([CODE], 2), ([CODE, OLD_SEARCH], 2), ([SEARCH], None), ([CODE, SEARCH], None)]
)
async def test_runs_are_counted_and_said_to_have_no_price(
    tools: Any, runs: int | None, streamed: bool, client: Any, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    sim.then(Behaviour(input_tokens=100, output_tokens=50, code_interpreter_calls=2, web_searches=1))
    made = await settled(client.beta.messages.create(**BODY, tools=tools, stream=streamed))
    if streamed:
        assert [event async for event in each(made)]
    used = meter.totals.get().usage
    assert (used.code_executions, used.web_searches, used.input_tokens, used.output_tokens) == (runs, 1, 100, 50)
    told = instrumented.span().attributes
    assert told["tokenbudget.cost.state"] == ("priced" if runs is None else "partial")
    assert told.get("tokenbudget.cost.unpriced") == (None if runs is None else ("code_executions",))
