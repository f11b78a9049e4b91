"""``tb.budget`` around real calls: nested, as a decorator of every kind of function, in threads and tasks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from door_sdks import Sdk, budget_of, each, settled

import tokenbudget_otel as tb
from tokenbudget_otel.budgets import active_budgets
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.money import to_usd
from tokenbudget_otel.simulator import Behaviour, Simulator

pytestmark = pytest.mark.usefixtures("instrumented")


@pytest.fixture(autouse=True)
def _behaviour(sim: Simulator) -> None:
    sim.default = Behaviour(input_tokens=100, output_tokens=20)


async def test_every_level_is_charged(sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=5, name="declared"))
    client = sdk.client(sim, asynchronous)
    with tb.budget(max_cost_usd=1, max_tokens=100_000) as outer:
        await settled(sdk.call(client))
        async with tb.budget(max_calls=5) as inner:
            await settled(sdk.call(client))
    one = sdk.true_cost(sim.billed[0])
    assert (outer.calls, inner.calls) == (2, 1)
    assert outer.spent_usd == to_usd(2 * one)
    assert outer.spent_tokens == 240
    assert (outer.remaining_usd, outer.remaining_tokens) == (1 - to_usd(2 * one), 100_000 - 240)
    assert inner.usage == tb.TokenUsage(**inner.usage.counts())
    assert (inner.usage.input_tokens, outer.usage.input_tokens, outer.usage.output_tokens) == (100, 200, 40)
    assert budget_of(meter, "declared").spent_usd == to_usd(2 * one)


async def test_a_call_has_to_fit_into_every_level_and_is_reserved_in_all_or_none(
    sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter
) -> None:
    client = sdk.client(sim, asynchronous)
    with tb.budget(max_calls=1, name="outer") as outer, tb.budget(max_calls=5, name="inner") as inner:
        await settled(sdk.call(client))
        with pytest.raises(tb.BudgetExceeded) as caught:
            await settled(sdk.call(client))
        assert caught.value.budget == "outer"
        assert (outer.remaining_calls, inner.remaining_calls) == (0, 4)
    assert len(sim.requests) == 1


async def test_after_it_nothing_is_counted(sdk: Sdk, asynchronous: bool, sim: Simulator) -> None:
    client = sdk.client(sim, asynchronous)
    with tb.budget(max_calls=1) as run:
        await settled(sdk.call(client))
    await settled(sdk.call(client))
    assert run.calls == 1
    assert len(sim.requests) == 2


async def test_a_stream_that_outlives_the_scope_is_charged_to_it(sdk: Sdk, asynchronous: bool, sim: Simulator) -> None:
    with tb.budget(max_cost_usd=1, max_calls=1) as run:
        stream = await settled(sdk.call(sdk.client(sim, asynchronous), stream=True))
    assert run.active
    assert run.calls == 0
    async for _ in each(stream):
        pass
    assert not run.active
    assert (run.calls, run.spent_usd) == (1, to_usd(sdk.true_cost(sim.billed[0])))


# --- decorated ------------------------------------------------------------------------------------------------------


def test_a_decorated_function_has_a_fresh_budget_for_each_call(sdk: Sdk, sim: Simulator) -> None:
    client = sdk.client(sim)

    @tb.budget(max_calls=2)
    def agent(calls: int) -> int:
        for _ in range(calls):
            sdk.call(client)
        return active_budgets()[-1].calls

    assert [agent(2), agent(1)] == [2, 1]
    with pytest.raises(tb.BudgetExceeded):
        agent(3)
    assert agent(2) == 2
    assert len(sim.requests) == 7


async def test_a_decorated_coroutine(sdk: Sdk, sim: Simulator) -> None:
    client = sdk.client(sim, True)

    @tb.budget(max_calls=2)
    async def agent(calls: int) -> int:
        for _ in range(calls):
            await sdk.call(client)
        return active_budgets()[-1].calls

    assert await asyncio.gather(agent(2), agent(1), agent(2)) == [2, 1, 2]
    with pytest.raises(tb.BudgetExceeded):
        await agent(3)


def test_a_decorated_generator_pays_for_its_body_only(sdk: Sdk, sim: Simulator) -> None:
    client = sdk.client(sim)

    @tb.budget(max_calls=2)
    def agent() -> Iterator[int]:
        while True:
            sdk.call(client)
            yield active_budgets()[-1].calls

    got = []
    with pytest.raises(tb.BudgetExceeded):
        for calls in agent():
            got.append(calls)
            assert active_budgets() == ()
            sdk.call(client)  # the reader's own: not the generator's to pay
    assert got == [1, 2]
    assert len(sim.requests) == 4


async def test_a_decorated_async_generator_pays_for_its_body_only(sdk: Sdk, sim: Simulator) -> None:
    client = sdk.client(sim, True)

    @tb.budget(max_calls=2)
    async def agent() -> AsyncIterator[int]:
        while True:
            await sdk.call(client)
            yield active_budgets()[-1].calls

    got = []
    with pytest.raises(tb.BudgetExceeded):
        async for calls in agent():
            got.append(calls)
            assert active_budgets() == ()
            await sdk.call(client)
    assert got == [1, 2]
    assert len(sim.requests) == 4


async def test_interleaved_generators_keep_their_budgets_apart(sdk: Sdk, sim: Simulator) -> None:
    client = sdk.client(sim)

    @tb.budget(max_calls=3)
    def agent() -> Iterator[int]:
        while True:
            sdk.call(client)
            yield active_budgets()[-1].calls

    first, second = agent(), agent()
    assert [next(first), next(second), next(first), next(second), next(second)] == [1, 1, 2, 2, 3]
    first.close()
    with pytest.raises(tb.BudgetExceeded):
        next(second)


async def test_a_decorated_generator_that_streams(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    """The common shape of a chat endpoint: a generator that yields the pieces of a stream, left early."""
    sim.default = Behaviour(text="word " * 40, chunks=10, chunk_s=0.01)
    client = sdk.client(sim, True)
    runs = []

    @tb.budget(max_cost_usd=1)
    async def pieces() -> AsyncIterator[Any]:
        runs.append(active_budgets()[-1])
        async with await sdk.call(client, stream=True) as stream:
            async for piece in stream:
                yield piece

    generator = pieces()
    await anext(generator)
    await anext(generator)
    await generator.aclose()
    (run,) = runs
    assert not run.active
    assert run.calls == 1
    assert run.spent_usd > 0


# --- threads and tasks ----------------------------------------------------------------------------------------------


async def test_one_budget_for_many_tasks(sdk: Sdk, sim: Simulator) -> None:
    client = sdk.client(sim, True)
    with tb.budget(max_calls=7) as run:
        done = await asyncio.gather(*(sdk.call(client) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(each, tb.BudgetExceeded) for each in done) == 13
    assert run.calls == len(sim.requests) == 7


async def test_work_moved_to_a_thread_stays_in_the_budget(sdk: Sdk, sim: Simulator) -> None:
    client = sdk.client(sim)
    with tb.tags(tenant="acme"), tb.budget(max_calls=2) as run:
        await asyncio.to_thread(sdk.call, client)  # carries the context
        thread = threading.Thread(target=contextvars.copy_context().run, args=(sdk.call, client))
        thread.start()
        thread.join()
        bare = threading.Thread(target=sdk.call, args=(client,))  # a plain thread does not
        bare.start()
        bare.join()
    assert run.calls == 2
    assert {tenant: total.calls for tenant, total in tb.usage(by="tenant").items()} == {"acme": 2, "": 1}


async def test_one_instance_entered_by_many_tasks_and_threads(sdk: Sdk, sim: Simulator) -> None:
    run = tb.budget(max_calls=10)
    client, sync_client = sdk.client(sim, True), sdk.client(sim)

    async def task() -> None:
        with run:
            await sdk.call(client)
        assert active_budgets() == ()

    def thread() -> None:
        with run:
            sdk.call(sync_client)
        assert active_budgets() == ()

    loop = asyncio.get_running_loop()
    await asyncio.gather(*(task() for _ in range(6)), *(loop.run_in_executor(None, thread) for _ in range(4)))
    assert run.calls == 10
    assert not run.active
    with pytest.raises(tb.BudgetExceeded):
        await task()
