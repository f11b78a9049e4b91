"""A stream that the program leaves early, through a framework: the call ends, once, with an estimate."""

from __future__ import annotations

from typing import Any

import pytest
from framework_harness import Stand, Way, all_ways, ended, inferences, program, rows

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour


@pytest.mark.parametrize("way", rows([way for way in all_ways() if way.early]))
def test_a_stream_that_is_left_is_counted_once(way: Way, stand: Stand, instrumented: Any, meter: Any) -> None:
    stand.sim.default = Behaviour(chunks=8, chunk_s=0.004, output_tokens=60)
    with program(instrumented), tb.tags(tenant="acme"), tb.budget(max_cost_usd=1) as run:
        stand.run(way.early)

    # What nobody refers to any more has ended; what is left in a cycle is found by the collector.
    (call,) = inferences(ended(instrumented)) or inferences(instrumented.spans())
    assert stand.sim.settle()
    assert len(stand.sim.billed) == 1
    assert call.attributes["tokenbudget.call.outcome"] in ("closed", "cancelled", "abandoned")
    assert call.attributes["tokenbudget.usage.estimated"] is True
    assert call.attributes["tokenbudget.tag.tenant"] == "acme"
    assert call.attributes.get("error.type") is None
    totals = tb.usage()
    assert (totals.calls, totals.estimated_calls) == (1, 1)
    assert 0 < (totals.usage.output_tokens or 0) < 60
    assert totals.nano_usd > 0
    assert (run.calls, run.spent_usd, run.active) == (1, totals.cost_usd, False)
