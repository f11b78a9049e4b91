"""Requests that budgets have changed so that they fit, through every SDK: what is sent, what is said of it, and that
nothing of the program's is touched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from changed_rows import ROWS, Row, model_argument

import tokenbudget_otel as tb
from both_modes import each, settled
from tokenbudget_otel import semconv
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.money import to_nano, to_usd
from tokenbudget_otel.simulator import RecordedRequest, Simulator


def rows(*, limited: bool = False, both: bool = True) -> Any:
    """Every row, sync and async."""
    pairs = [
        pytest.param(row, asynchronous, id=f"{row}-{'async' if asynchronous else 'sync'}")
        for row in ROWS
        for asynchronous in ((False, True) if both and row.both else (False,))
        if row.limit or not limited
    ]
    return pytest.mark.parametrize(("row", "asynchronous"), pairs)


class Calls:
    """The calls of one row, and what they need."""

    def __init__(self, row: Row, sim: Simulator, meter: Meter, asynchronous: bool) -> None:
        if not row.installed:
            pytest.skip(f"{row.sdk} is not installed here")
        self.row, self.sim, self.meter = row, sim, meter
        self.client = row.client(sim, asynchronous)
        self.held: list[int] = []
        settle = meter.enforcer.settle

        def noting(hold: Any, *more: Any) -> None:
            self.held.append(hold.claims[0].nano_usd)
            settle(hold, *more)

        meter.enforcer.settle = noting  # type: ignore[method-assign]

    @property
    def asked(self) -> str:
        """The model as budgets know it."""
        return self.row.model.partition("/")[2] if self.row.sdk == "litellm" else self.row.model

    async def make(self, **more: Any) -> None:
        """Call, and read what comes; nothing of the program's has changed then."""
        body = copy.deepcopy(self.row.body)
        before = copy.deepcopy(body)
        answer = await settled(self.row.call(self.client, **(model_argument(self.row) | body | more)))
        if hasattr(answer, "__aiter__") or self.row.streams:
            async for _ in each(answer):
                pass
        assert body == before

    async def sent(self, **budget: Any) -> RecordedRequest:
        """The request of a call under one budget."""
        self.meter.enforcer.clear()
        self.meter.enforcer.add(tb.Budget(**budget))
        before = len(self.sim.requests)
        await self.make()
        assert len(self.sim.requests) == before + 1
        return self.sim.requests[-1]

    async def needed(self, **more: Any) -> Decimal:
        """What a call reserves: a refusal says it."""
        self.meter.enforcer.clear()
        self.meter.enforcer.add(tb.Budget(limit_usd=0, mode="worst_case", name="none"))
        before = len(self.sim.requests)
        with pytest.raises(tb.BudgetExceeded) as caught:
            await self.make(**more)
        assert len(self.sim.requests) == before
        assert caught.value.needed_usd is not None
        return caught.value.needed_usd

    def spent(self) -> int:
        """What the one budget counts."""
        (row,) = self.meter.enforcer.status()
        assert row.spent_usd is not None
        assert row.reserved_usd == 0
        return to_nano(row.spent_usd)


@pytest.fixture
def calls(row: Row, sim: Simulator, meter: Meter, asynchronous: bool, instrumented: Any) -> Iterator[Calls]:
    yield Calls(row, sim, meter, asynchronous)


@rows()
async def test_a_cheaper_model_is_asked(calls: Calls, row: Row, sim: Simulator, instrumented: Any) -> None:
    name = "modelId" if row.sdk == "botocore" else "model"
    prefix = row.model.removesuffix(calls.asked)
    enough = await calls.needed(**{name: prefix + row.cheaper})
    assert enough < await calls.needed()
    instrumented.exporter.clear()

    request = await calls.sent(
        limit_usd=enough, mode="worst_case", action="degrade", degrade={calls.asked: row.cheaper}, name="cheap"
    )

    assert row.sent_model(request) == row.cheaper
    (span,) = [span for span in instrumented.spans() if semconv.CALL_ID in span.attributes]
    assert span.attributes[semconv.REQUEST_MODEL] == row.cheaper
    assert span.name.endswith(row.cheaper)
    assert span.attributes[semconv.BUDGET_ASKED_MODEL] == calls.asked
    (billed,) = sim.billed[-1:]
    usage = tb.TokenUsage(input_tokens=billed.usage.input_tokens, output_tokens=billed.usage.output_tokens)
    cost = tb.calculate_cost(row.cheaper, usage, provider=row.system)
    assert cost is not None and cost.nano_usd
    assert calls.spent() == cost.nano_usd
    assert span.attributes[semconv.USAGE_COST] == cost.nano_usd / 10**9
    assert set(calls.meter.totals.get("model")) >= {row.cheaper}
    assert calls.meter.totals.get("model")[row.cheaper].calls == 1


@rows(limited=True)
async def test_the_output_is_limited_to_what_is_affordable(calls: Calls, row: Row, instrumented: Any) -> None:
    whole = await calls.needed()
    budget: dict[str, Any] = {"mode": "worst_case", "action": "shrink", "name": "short"}
    instrumented.exporter.clear()
    shrunk = row.sent_limit(await calls.sent(**budget, limit_usd=whole / 2))
    (span,) = [span for span in instrumented.spans() if semconv.CALL_ID in span.attributes]
    assert span.attributes[semconv.REQUEST_MAX_TOKENS] == shrunk >= 64
    assert span.attributes[semconv.BUDGET_SHRUNK] is True
    assert calls.spent() <= to_nano(whole / 2)

    held = calls.held[-1]
    assert held <= to_nano(whole / 2)
    again = await calls.sent(**{**budget, "name": "exact"}, limit_usd=to_usd(held))
    assert row.sent_limit(again) == shrunk
    assert calls.spent() <= held
    less = await calls.sent(**{**budget, "name": "less"}, limit_usd=to_usd(held - 1))
    assert row.sent_limit(less) == shrunk - 1
    assert calls.spent() <= held - 1

    before = len(calls.sim.requests)
    calls.meter.enforcer.clear()
    calls.meter.enforcer.add(
        tb.Budget(**{**budget, "name": "floor"}, limit_usd=to_usd(held - 1), min_output_tokens=shrunk)
    )
    with pytest.raises(tb.BudgetExceeded):
        await calls.make()
    assert len(calls.sim.requests) == before


@rows(both=False)
async def test_what_fits_is_sent_as_it_is(calls: Calls, row: Row, instrumented: Any) -> None:
    plain = await calls.sent(limit_usd=1000, name="plain")
    for more in (
        {"action": "degrade", "degrade": {calls.asked: row.cheaper}, "limit_usd": 1000},
        {"action": "shrink", "limit_usd": 1000},
        {"action": "degrade", "degrade": {calls.asked: row.cheaper}, "limit_usd": 0, "dry_run": True},
        {"action": "shrink", "limit_usd": 0, "dry_run": True},
    ):
        instrumented.exporter.clear()
        request = await calls.sent(**more, mode="worst_case", name=f"other {more['action']} {more['limit_usd']}")
        assert (request.path, request.json) == (plain.path, plain.json)
        (span,) = [span for span in instrumented.spans() if semconv.CALL_ID in span.attributes]
        assert semconv.BUDGET_SHRUNK not in span.attributes
        assert semconv.BUDGET_ASKED_MODEL not in span.attributes
        warnings = [event for event in span.events if event.name == semconv.EVENT_BUDGET_WARNING]
        assert bool(warnings) is ("dry_run" in more)
        assert all(event.attributes[semconv.BUDGET_DRY_RUN] for event in warnings)
