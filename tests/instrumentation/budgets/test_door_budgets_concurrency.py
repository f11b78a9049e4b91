"""Many callers on one budget: never above the limit, and not one call fewer than fits."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from door_sdks import Sdk, budget_of, worst_case_of
from opentelemetry.context import get_current

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.money import NANO_PER_USD
from tokenbudget_otel.simulator import Behaviour, Simulator

LIMIT = NANO_PER_USD  # one dollar
THREADS = 64
TASKS = 500

pytestmark = pytest.mark.usefixtures("instrumented")


def declare(meter: Meter, **options: object) -> None:
    meter.enforcer.add(tb.Budget(**({"limit_usd": 1, "mode": "worst_case", "name": "dollar"} | options)))


def assert_books_agree(sdk: Sdk, sim: Simulator, meter: Meter, calls: int) -> None:
    """The budget, the totals and the provider tell one story, and nothing stays reserved."""
    spent = sum(map(sdk.true_cost, sim.billed))
    row = budget_of(meter, "dollar")
    assert row.reserved_usd == 0
    assert row.reserved_tokens in (None, 0)
    assert row.spent_usd * NANO_PER_USD == spent
    assert meter.totals.get().nano_usd == spent
    assert meter.totals.get().calls == calls == len(sim.billed)
    assert not meter.enforcer.ledger.holds()


# --- all at once: what is reserved decides -------------------------------------------------------------------------


def test_threads_at_once_get_exactly_as_many_calls_as_fit(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    sim.default = Behaviour(output_tokens=50)
    worst = worst_case_of(sdk, sim)
    sim.reset()
    meter.totals.clear()
    declare(meter)
    client = sdk.client(sim)
    decided = threading.Barrier(THREADS, timeout=30)

    def caller(_: int) -> bool:
        try:
            stream = sdk.call(client, stream=True)
        except tb.BudgetExceeded:
            decided.wait()
            return False
        decided.wait()  # whoever was admitted holds on until everybody has been told
        for _ in stream:
            pass
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        admitted = sum(pool.map(caller, range(THREADS)))

    fit = LIMIT // worst
    assert 5 < fit < THREADS, "the case is only worth something if some fit and some do not"
    assert admitted == fit
    assert len(sim.requests) == fit
    assert meter.totals.get().refused_calls == THREADS - fit
    assert_books_agree(sdk, sim, meter, fit)


async def test_tasks_at_once_get_exactly_as_many_calls_as_fit(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    worst = worst_case_of(sdk, sim)
    sim.reset()
    meter.totals.clear()
    declare(meter)
    client = sdk.client(sim, asynchronous=True)
    decided, everybody = 0, asyncio.Event()

    async def caller() -> bool:
        nonlocal decided
        stream = None
        try:
            stream = await sdk.call(client, stream=True)
        except tb.BudgetExceeded:
            pass
        decided += 1
        if decided == TASKS:
            everybody.set()
        await everybody.wait()
        if stream is None:
            return False
        async for _ in stream:
            pass
        return True

    admitted = sum(await asyncio.gather(*(caller() for _ in range(TASKS))))
    assert admitted == LIMIT // worst
    assert len(sim.requests) == admitted
    assert meter.totals.get().refused_calls == TASKS - admitted
    assert_books_agree(sdk, sim, meter, admitted)


# --- until refused: what was really spent decides -----------------------------------------------------------------
#
# A call that is refused while others are in flight may fit once they have settled for less than they reserved.
# So a caller goes on until it is refused with nothing reserved: then, and only then, has the dollar been spent.


def calls_that_fit(worst: int, true: int) -> int:
    """A further call fits as long as what is spent leaves room for its worst case."""
    return (LIMIT - worst) // true + 1


def test_threads_until_refused_spend_all_that_fits_and_never_more(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    behaviour = Behaviour(input_tokens=100, output_tokens=700)
    sim.default = behaviour
    worst = worst_case_of(sdk, sim)
    sim.reset()
    meter.totals.clear()
    sim.default = behaviour
    declare(meter)
    client = sdk.client(sim)
    changed = threading.Condition()
    trying = 0
    above: list[object] = []

    def caller(_: int) -> int:
        nonlocal trying
        made = 0
        while True:
            with changed:
                trying += 1
            refusal = None
            try:
                sdk.call(client)
                made += 1
            except tb.BudgetExceeded as error:
                refusal = error
            row = budget_of(meter, "dollar")
            if row.spent_usd + row.reserved_usd > 1:
                above.append(row)
            with changed:
                trying -= 1
                if refusal is None:
                    changed.notify(2)
                elif refusal.reserved_usd == 0:
                    changed.notify_all()
                    return made
                elif trying:  # somebody is left who will wake us; the last one tries again itself
                    changed.wait(timeout=30)

    with ThreadPoolExecutor(THREADS) as pool:
        made = sum(pool.map(caller, range(THREADS)))

    assert not above
    true = sdk.true_cost(sim.billed[0])
    assert made == calls_that_fit(worst, true)
    assert sum(map(sdk.true_cost, sim.billed)) <= LIMIT
    assert_books_agree(sdk, sim, meter, made)


async def test_tasks_until_refused_spend_all_that_fits_and_never_more(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    behaviour = Behaviour(input_tokens=100, output_tokens=700)
    worst = worst_case_of(sdk, sim)
    sim.reset()
    meter.totals.clear()
    sim.default = behaviour
    declare(meter)
    client = sdk.client(sim, asynchronous=True)
    changed = asyncio.Condition()
    trying = 0

    async def caller() -> int:
        nonlocal trying
        made = 0
        while True:
            trying += 1
            refusal = None
            try:
                await sdk.call(client)
                made += 1
            except tb.BudgetExceeded as error:
                refusal = error
            async with changed:
                trying -= 1
                if refusal is None:
                    changed.notify(2)
                elif refusal.reserved_usd == 0:
                    changed.notify_all()
                    return made
                elif trying:
                    await changed.wait()

    async with asyncio.timeout(60):
        made = sum(await asyncio.gather(*(caller() for _ in range(TASKS))))
    assert made == calls_that_fit(worst, sdk.true_cost(sim.billed[0]))
    assert sum(map(sdk.true_cost, sim.billed)) <= LIMIT
    assert_books_agree(sdk, sim, meter, made)


def test_expected_mode_overshoots_by_no_more_than_calls_came_to_beyond_their_reservation(
    sdk: Sdk, sim: Simulator, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published bound: spent <= limit + the sum of max(0, actual - reserved)."""
    sim.default = Behaviour(input_tokens=100, output_tokens=2900)  # nearly three times what is expected at first
    declare(meter, mode="expected", limit_usd="0.2")
    client = sdk.client(sim)
    beyond: list[int] = []
    settle = meter.enforcer.settle

    def noting(hold, actual, *more):  # type: ignore[no-untyped-def]
        beyond.append(max(0, actual.nano_usd - hold.claims[0].nano_usd))
        settle(hold, actual, *more)

    monkeypatch.setattr(meter.enforcer, "settle", noting)

    def caller(_: int) -> None:
        while True:
            try:
                sdk.call(client)
            except tb.BudgetExceeded:
                return

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(caller, range(16)))
    spent = sum(map(sdk.true_cost, sim.billed))
    assert spent <= LIMIT // 5 + sum(beyond)
    assert spent > LIMIT // 5 - 50_000_000, "it was used up, to about one call"
    assert_books_agree(sdk, sim, meter, len(sim.billed))


def test_threads_count_only_with_the_context_that_they_carry(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    """A budget() scope and tags follow the OpenTelemetry context, and do not leak into threads without it."""
    from opentelemetry import context

    client = sdk.client(sim)
    with tb.tags(tenant="acme"), tb.budget(max_calls=100) as run:
        carried = get_current()

        def inside() -> None:
            token = context.attach(carried)
            try:
                sdk.call(client)
            finally:
                context.detach(token)

        threads = [threading.Thread(target=inside) for _ in range(4)]
        threads += [threading.Thread(target=sdk.call, args=(client,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run.calls == 4
    assert {tenant: totals.calls for tenant, totals in meter.totals.get("tenant").items()} == {"acme": 4, "": 3}
