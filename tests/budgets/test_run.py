"""``budget()`` around code of every kind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from decimal import Decimal

import pytest
from opentelemetry import context

from tokenbudget_otel import TokenUsage
from tokenbudget_otel.budgets import (
    Amount,
    Budget,
    BudgetExceeded,
    Call,
    Enforcer,
    Estimate,
    MemoryLedger,
    TokenLimitReached,
    UnpricedModel,
    active_budgets,
    budget,
)

USD = 1_000_000_000
CALL = Call("openai", "gpt-5")


@pytest.fixture
def ledger():
    return MemoryLedger()


@pytest.fixture
def enforcer(ledger):
    return Enforcer(ledger=ledger)


def admit(enforcer, usd="0.1", tokens=10):
    amount = Amount(int(Decimal(usd) * USD), tokens)
    return enforcer.admit(CALL, Estimate(amount, amount))


def spend(enforcer, usd="0.1", tokens=10):
    hold = admit(enforcer, usd, tokens)
    enforcer.settle(hold, Amount(int(Decimal(usd) * USD), tokens), TokenUsage(input_tokens=tokens))


def test_counts_and_refuses(enforcer):
    with budget(max_cost_usd=0.50, max_tokens=50_000, max_calls=9) as run:
        assert (run.remaining_usd, run.remaining_tokens, run.remaining_calls) == (Decimal("0.5"), 50_000, 9)
        spend(enforcer, "0.3", 1000)
        assert (run.spent_usd, run.spent_tokens, run.calls) == (Decimal("0.3"), 1000, 1)
        assert run.usage == TokenUsage(input_tokens=1000)
        hold = admit(enforcer)
        assert run.remaining_usd == Decimal("0.1")
        with pytest.raises(BudgetExceeded) as caught:
            admit(enforcer, "0.11")
        enforcer.release(hold)
        assert run.remaining_usd == Decimal("0.2")
    assert caught.value.window == "run"
    assert caught.value.budget == "budget(max_cost_usd=0.5, max_tokens=50000, max_calls=9)"
    assert caught.value.remaining_usd == Decimal("0.1")
    assert admit(enforcer, "99") is None


def test_tokens_and_unknown_prices(enforcer):
    unknown = Estimate(Amount(None, 10), Amount(None, 10))
    with budget(max_tokens=15, name="mine"):
        enforcer.settle(enforcer.admit(CALL, unknown), Amount(None, 10))
        with pytest.raises(TokenLimitReached, match="'mine'"):
            enforcer.admit(CALL, unknown)
    with budget(max_cost_usd=1), pytest.raises(UnpricedModel):
        enforcer.admit(CALL, unknown)
    with budget(max_cost_usd=1, unpriced="allow"):
        assert enforcer.admit(CALL, unknown)


def test_worst_case(enforcer):
    estimate = Estimate(Amount(1), Amount(USD))
    with budget(max_cost_usd=1, mode="worst_case"):
        enforcer.admit(CALL, estimate)
        with pytest.raises(BudgetExceeded):
            enforcer.admit(CALL, estimate)


def test_nested_levels_are_all_charged(enforcer):
    enforcer.add(Budget(limit_usd=5))
    with budget(max_cost_usd=1, name="outer") as outer:
        spend(enforcer, "0.5")
        with budget(max_cost_usd="0.3", name="inner") as inner:
            spend(enforcer, "0.2")
            with pytest.raises(BudgetExceeded, match="'inner'"):
                spend(enforcer, "0.2")
        assert (inner.spent_usd, outer.spent_usd) == (Decimal("0.2"), Decimal("0.7"))
        assert [row.budget for row in enforcer.status()] == ["usd/lifetime", "outer"]
        spend(enforcer, "0.2")  # inner is exhausted, outer is not
        with budget(max_cost_usd=99), pytest.raises(BudgetExceeded, match="'outer'"):
            spend(enforcer, "0.2")
    assert enforcer.status()[0].spent_usd == Decimal("0.9")


def test_a_refusal_by_a_declared_budget_costs_the_run_nothing(enforcer):
    enforcer.add(Budget(limit_usd=0))
    with budget(max_cost_usd=1) as run:
        with pytest.raises(BudgetExceeded):
            spend(enforcer)
        assert run.remaining_usd == 1


def test_entered_again_it_goes_on(enforcer):
    run = budget(max_cost_usd=1)
    with run:
        spend(enforcer)
        with run:
            assert len(active_budgets()) == 1
            spend(enforcer)
    with run:
        spend(enforcer)
    assert run.spent_usd == Decimal("0.3")
    assert not run.active


def test_late_settles_land_and_nothing_raises_on_leaving(enforcer):
    with budget(max_cost_usd=1) as run:
        hold = admit(enforcer)
    assert run.active
    enforcer.settle(hold, Amount(5 * USD, 10))
    assert (run.spent_usd, run.remaining_usd, run.active) == (5, 0, False)


def test_charges_of_what_nobody_reserved(enforcer):
    with budget(max_cost_usd=1) as run:
        enforcer.charge(CALL, Amount(2 * USD, 7), usage=TokenUsage(output_tokens=7))
        assert (run.spent_usd, run.spent_tokens, run.calls) == (2, 7, 1)
        assert run.usage.output_tokens == 7
        with pytest.raises(BudgetExceeded):
            spend(enforcer)


def test_leaves_nothing_in_the_ledger(enforcer, ledger):
    for _ in range(100):
        with budget(max_cost_usd=1):
            spend(enforcer)
    gc.collect()
    with budget(max_cost_usd=1) as run:
        hold = admit(enforcer)
    assert [each.key for each in ledger.balances()] == [run.key]
    del run
    gc.collect()
    assert enforcer.status()[0].reserved_usd == Decimal("0.1")  # the hold keeps it
    enforcer.settle(hold, Amount(1))
    del hold
    gc.collect()
    assert enforcer.status() == []
    assert ledger.balances() == ()
    assert len(enforcer._runs) == 0


def test_a_straggler_is_counted_by_the_run_it_came_from(enforcer):
    with budget(max_cost_usd="0.1"):
        spend(enforcer)
        inside = context.get_current()
    with pytest.raises(BudgetExceeded):
        enforcer.admit(Call("openai", "gpt-5", context=inside), Estimate(Amount(1), Amount(1)))


class TestDecorator:
    def test_plain_function_gets_a_fresh_budget_each_time(self, enforcer):
        @budget(max_cost_usd="0.1")
        def work():
            """Documented."""
            spend(enforcer)
            return active_budgets()[-1]

        first, second = work(), work()
        assert first is not second
        assert first.spent_usd == second.spent_usd == Decimal("0.1")
        assert (work.__name__, work.__doc__) == ("work", "Documented.")
        assert active_budgets() == ()

    async def test_coroutine_function(self, enforcer):
        @budget(max_cost_usd="0.1")
        async def work():
            await asyncio.sleep(0)
            spend(enforcer)
            with pytest.raises(BudgetExceeded):
                spend(enforcer)
            return True

        assert await asyncio.gather(work(), work()) == [True, True]

    def test_generator_function(self, enforcer):
        @budget(max_cost_usd="0.1")
        def work():
            spend(enforcer)
            yield len(active_budgets())
            with pytest.raises(BudgetExceeded):
                spend(enforcer)
            yield "refused"

        for item in work():
            assert active_budgets() == ()  # not in force where it is read
            assert item in (1, "refused")
        assert next(work()) == 1

    async def test_async_generator_function(self, enforcer):
        @budget(max_cost_usd="0.1")
        async def work():
            spend(enforcer)
            yield len(active_budgets())
            with pytest.raises(BudgetExceeded):
                spend(enforcer)
            yield "refused"

        assert [item async for item in work()] == [1, "refused"]
        assert active_budgets() == ()

    def test_error_passes_through(self, enforcer):
        @budget(max_cost_usd=1)
        def work():
            raise KeyError("mine")

        with pytest.raises(KeyError):
            work()
        assert active_budgets() == ()


async def test_tasks_share_it(enforcer):
    async with budget(max_cost_usd=1) as run:
        answers = await asyncio.gather(*(asyncio.to_thread(spend, enforcer) for _ in range(15)), return_exceptions=True)
    assert sum(isinstance(answer, BudgetExceeded) for answer in answers) == 5
    assert run.spent_usd == 1


def test_threads_that_carry_the_context_share_it(enforcer):
    with budget(max_cost_usd=1) as run:
        carried = [threading.Thread(target=contextvars.copy_context().run, args=(spend, enforcer)) for _ in range(4)]
        bare = threading.Thread(target=spend, args=(enforcer, "99"))
        for thread in (*carried, bare):
            thread.start()
        for thread in (*carried, bare):
            thread.join()
    assert run.spent_usd == Decimal("0.4")


def test_threads_count_exactly(enforcer):
    with budget(max_calls=100_000) as run:
        threads = [
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(lambda: [spend(enforcer, "0.000000001", 3) for _ in range(300)],),
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (run.calls, run.spent_tokens, run.spent_usd) == (2400, 7200, Decimal("0.0000024"))
    assert run.usage.input_tokens == 7200
