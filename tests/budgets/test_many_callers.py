"""Many threads and tasks on one budget of one dollar: never above the limit, and not one call fewer than fits."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time

import pytest

from tokenbudget_otel.budgets import Amount, Budget, BudgetExceeded, Call, Enforcer, Estimate, Ledger, budget

USD = 1_000_000_000
CALL = Call("openai", "gpt-5", {"tenant": "acme"})


def enforcer_of(limit: int = 1, ledger: Ledger | None = None) -> Enforcer:
    return Enforcer(
        [
            Budget(limit_usd=limit, mode="worst_case", window="month"),
            Budget(limit_usd=limit * 2, mode="worst_case", per="tenant"),
            Budget(limit_tokens=10**9, window="day"),
        ],
        ledger=ledger,
    )


def worst(nano_usd: int) -> Estimate:
    return Estimate(Amount(nano_usd // 3, 10), Amount(nano_usd, 40))


def in_threads(work, count: int = 64) -> None:
    start = threading.Barrier(count)

    def run(seed: int) -> None:
        start.wait()
        work(random.Random(seed))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Watch:
    """Reads the budget again and again while calls are made."""

    def __init__(self, enforcer: Enforcer) -> None:
        self.enforcer = enforcer
        self.most = 0
        self.done = threading.Event()

    def look(self) -> None:
        (balance,) = self.enforcer.ledger.balances("budget|usd/month|") or (None,)
        if balance is not None:
            self.most = max(self.most, balance.spent_nano_usd + balance.reserved_nano_usd)

    def __enter__(self) -> Watch:
        def watch() -> None:
            while not self.done.is_set():
                self.look()
                time.sleep(0.001)

        self.thread = threading.Thread(target=watch)
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.done.set()
        self.thread.join()
        self.look()


@pytest.mark.parametrize("amount", [1_000_000, 3_000_001, 70_000_000, 999_999_999])
def test_threads_with_equal_calls(amount):
    """Every call costs its estimate: exactly as many are admitted as fit into the dollar."""
    enforcer = enforcer_of()
    admitted = []

    def work(_):
        for _ in range(30):
            try:
                hold = enforcer.admit(CALL, worst(amount))
            except BudgetExceeded:
                continue
            admitted.append(1)
            enforcer.settle(hold, Amount(amount, 40))

    with Watch(enforcer) as watch:
        in_threads(work)
    assert len(admitted) == min(USD // amount, 64 * 30)
    assert watch.most == len(admitted) * amount <= USD


@pytest.mark.parametrize("amount", [30_000_001, 90_000_000])
def test_threads_on_every_ledger(make_ledger, amount):
    """Through the courier where there is one, with the clocks of every day."""
    enforcer = enforcer_of(ledger=make_ledger(time.time))
    admitted = []

    def work(_):
        for _ in range(5):
            try:
                hold = enforcer.admit(CALL, worst(amount))
            except BudgetExceeded as refusal:
                assert refusal.needed_usd > refusal.remaining_usd  # no phantom refusal, nor one because nobody answered
                continue
            admitted.append(1)
            enforcer.settle(hold, Amount(amount, 40))

    in_threads(work, 12)
    assert enforcer.flush()
    assert len(admitted) == USD // amount
    (month, tenant, _) = enforcer.status()
    assert month.spent_usd * USD == tenant.spent_usd * USD == len(admitted) * amount
    assert month.reserved_usd == 0
    enforcer.way.close()


@pytest.mark.parametrize("amount", [30_000_001, 90_000_000])
async def test_tasks_on_every_ledger(make_ledger, amount):
    enforcer = enforcer_of(ledger=make_ledger(time.time))
    admitted = 0

    async def work():
        nonlocal admitted
        for _ in range(2):
            try:
                hold = await enforcer.admit_async(CALL, worst(amount))
            except BudgetExceeded as refusal:
                assert refusal.needed_usd > refusal.remaining_usd
                continue
            admitted += 1
            await asyncio.sleep(0)
            enforcer.settle(hold, Amount(amount, 40))

    await asyncio.gather(*(work() for _ in range(30)))
    await asyncio.to_thread(enforcer.flush)
    assert admitted == USD // amount
    assert enforcer.status()[0].reserved_usd == 0
    assert enforcer.status()[0].spent_usd * USD == admitted * amount
    enforcer.way.close()


def test_threads_with_random_calls():
    """Calls cost what they like up to their bound: never above the limit, nothing left reserved, and at the end
    no more than one cheapest call of room, because callers insist until it is gone."""
    enforcer = enforcer_of()
    cheapest, spent = 1_000_000, []

    def work(rng):
        bound = rng.randint(cheapest, 40_000_000)
        while True:
            try:
                hold = enforcer.admit(CALL, worst(bound))
            except BudgetExceeded as error:
                if bound == cheapest and error.reserved_usd == 0:
                    return
                bound = max(cheapest, bound // 2)  # something smaller may still fit
                continue
            actual = rng.randint(0, bound)
            if rng.random() < 0.1:
                enforcer.release(hold)
            else:
                enforcer.settle(hold, Amount(actual, 40))
                spent.append(actual)
            bound = rng.randint(cheapest, 40_000_000)

    with Watch(enforcer) as watch:
        in_threads(work)
    (row, *_) = enforcer.status()
    assert watch.most <= USD
    assert row.spent_usd * USD == sum(spent)
    assert row.reserved_usd == 0
    assert USD - sum(spent) < cheapest


@pytest.mark.parametrize("amount", [1_000_000, 7_777_777])
async def test_tasks_with_equal_calls(amount):
    enforcer = enforcer_of()
    admitted = 0

    async def work():
        nonlocal admitted
        for _ in range(4):
            try:
                hold = enforcer.admit(CALL, worst(amount))
            except BudgetExceeded:
                continue
            admitted += 1
            await asyncio.sleep(0)
            enforcer.settle(hold, Amount(amount, 40))

    async with budget(max_cost_usd=1, mode="worst_case") as run:
        await asyncio.gather(*(work() for _ in range(500)))
    assert admitted == min(USD // amount, 2000)
    assert run.spent_usd * USD == admitted * amount


async def test_tasks_with_random_calls():
    enforcer = enforcer_of()
    rng = random.Random(5)
    most = 0

    async def work():
        nonlocal most
        for _ in range(10):
            bound = rng.randint(1, 30_000_000)
            try:
                hold = enforcer.admit(CALL, worst(bound))
            except BudgetExceeded as error:
                assert error.needed_usd > error.remaining_usd  # no phantom refusal
                await asyncio.sleep(0)
                continue
            (balance,) = enforcer.ledger.balances("budget|usd/month|")
            most = max(most, balance.spent_nano_usd + balance.reserved_nano_usd)
            await asyncio.sleep(rng.random() / 1000)
            enforcer.settle(hold, Amount(rng.randint(0, bound), 40))

    await asyncio.gather(*(work() for _ in range(500)))
    assert most <= USD
    assert enforcer.status()[0].reserved_usd == 0
    assert enforcer.status()[0].spent_usd <= 1


def test_expected_mode_stays_within_the_published_bound():
    """spent + reserved <= limit + what calls came to beyond their reservations."""
    enforcer = Enforcer([Budget(limit_usd=1)])
    beyond = []

    def work(rng):
        for _ in range(20):
            expected = rng.randint(1_000_000, 20_000_000)
            try:
                hold = enforcer.admit(CALL, Estimate(Amount(expected), Amount(expected * 5)))
            except BudgetExceeded:
                continue
            actual = rng.randint(0, expected * 5)
            enforcer.settle(hold, Amount(actual))
            beyond.append(max(0, actual - expected))

    in_threads(work)
    (row,) = enforcer.status()
    assert row.reserved_usd == 0
    assert row.spent_usd * USD <= USD + sum(beyond)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_in_the_middle_of_a_call_does_not_lock_up_the_child():
    enforcer = Enforcer([Budget(limit_usd=1)])
    with enforcer.ledger._lock:  # as another thread would hold it
        child = os.fork()
        if not child:
            os._exit(0 if enforcer.admit(CALL, worst(1)) else 1)
    for _ in range(500):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
