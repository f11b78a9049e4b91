"""Every call that a framework makes is counted once, to the token, with its tags, and under the program's span."""

from __future__ import annotations

from typing import Any

import pytest
from framework_harness import (
    Stand,
    Way,
    all_ways,
    cost_of,
    ended,
    inferences,
    is_below,
    of_bill,
    of_span,
    program,
    rows,
)

import tokenbudget_otel as tb


@pytest.mark.parametrize("way", rows(all_ways()))
def test_each_call_is_counted_once(way: Way, stand: Stand, instrumented: Any, meter: Any) -> None:
    stand.sim.then(*way.answers)
    with program(instrumented) as root, tb.tags(tenant="acme"), tb.budget(max_cost_usd=1) as run:
        stand.run(way.run)

    bills = [bill.usage for bill in stand.sim.billed]
    costs = sum(cost_of(way, usage) for usage in bills)
    assert len(bills) == way.calls

    spans = ended(instrumented)
    calls = inferences(spans)
    assert sorted(of_span(span) for span in calls) == sorted(of_bill(usage) for usage in bills)
    for span in calls:
        assert span.attributes["tokenbudget.call.outcome"] == "completed"
        assert span.attributes["gen_ai.provider.name"] == way.system
        assert span.attributes["gen_ai.request.model"] == way.model
        assert span.attributes["gen_ai.operation.name"] == way.operation
        assert span.attributes["tokenbudget.tag.tenant"] == "acme"
        assert is_below(span, root, spans)
    assert round(sum(span.attributes["gen_ai.usage.cost"] for span in calls) * 1e9) == costs

    assert set(tb.usage(by="tenant")) == {"acme"}
    totals = tb.usage()
    assert (totals.calls, totals.estimated_calls, totals.unpriced_calls) == (way.calls, 0, 0)
    assert totals.nano_usd == costs
    assert (
        totals.usage.input_tokens,
        totals.usage.output_tokens or 0,
        totals.usage.cache_read_tokens or 0,
        totals.usage.reasoning_tokens or 0,
    ) == tuple(map(sum, zip(*map(of_bill, bills), strict=True)))

    assert (run.calls, run.spent_usd, run.active) == (way.calls, totals.cost_usd, False)
