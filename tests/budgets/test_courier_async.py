"""The way to a ledger from an event loop: never blocked, nothing reordered, nothing left behind by a cancellation."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tokenbudget_otel.budgets import Amount, Granted, LedgerUnavailable, MemoryLedger, Refused
from tokenbudget_otel.budgets.remote.courier import Courier

from .budget_ledgers import Clock
from .flaky_ledger import FlakyLedger
from .test_courier import TTL, spent, usd

pytestmark = pytest.mark.asyncio


@pytest.fixture
def store(clock: Clock) -> FlakyLedger:
    return FlakyLedger(clock)


@pytest.fixture
async def courier(store: FlakyLedger, clock: Clock) -> AsyncIterator[Courier]:
    courier = Courier(store, clock=clock)
    yield courier
    store.failure, store.delay = "", 0.0
    courier.close()


async def eventually(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.002)


class Ticks:
    """How long the loop ever took to come back to a task that only ticks."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Ticks:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _tick(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.perf_counter() - start)


async def test_the_loop_goes_on_while_the_ledger_takes_its_time(courier, store):
    store.delay = 0.1

    async def call(name: str) -> None:
        await courier.ask_async("reserve", name, (usd(1, None),), TTL)
        courier.opened(name, ())
        await courier.ask_async("extend", name, "1", (usd(1, None),))
        courier.tell("settle", name, Amount(2), (usd(2),))
        courier.closed(name)

    async with Ticks() as ticks:
        await asyncio.gather(*(call(str(number)) for number in range(4)))
        await asyncio.to_thread(courier.flush)
    assert spent(store) == 8
    assert ticks.longest < 0.09
    assert threading.current_thread().name not in store.threads


async def test_nor_is_it_blocked_while_the_store_is_away(courier, store, clock):
    store.failure, store.delay = "loses answers", 0.1
    async with Ticks() as ticks:
        for number in range(2):
            await courier.ask_async("reserve", str(number), (usd(1, fallback=10),), TTL)
            courier.tell("settle", str(number), Amount(1), (usd(1),))
            with pytest.raises(LedgerUnavailable):
                await courier.ask_async("balance", "k")
            clock.on(40)
    assert ticks.longest < 0.09
    store.failure = ""
    assert await asyncio.to_thread(courier.flush)
    assert spent(store) == 2
    assert store.memory.balance("k").reserved_nano_usd == 0


async def test_works_where_the_programs_own_executor_is_full(courier, store):
    store.delay = 0.001
    stop = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        blocked = asyncio.get_running_loop().run_in_executor(None, stop.wait)
        try:
            assert await asyncio.wait_for(courier.ask_async("reserve", "h", (usd(1),), TTL), 2) == Granted()
        finally:
            stop.set()
        await blocked


async def test_the_ledger_is_asked_in_the_callers_context(courier, store, monkeypatch):
    tenant = contextvars.ContextVar("tenant", default="nobody")
    tenant.set("acme")
    monkeypatch.setattr(store.memory, "balance", lambda key: tenant.get())
    assert await courier.ask_async("balance", "k") == "acme"


async def test_a_reserve_that_follows_a_settle_finds_it_settled(courier, store):
    store.delay = 0.02
    await courier.ask_async("reserve", "h", (usd(100, 100),), TTL)
    for number in range(5):
        courier.tell("settle", str(number), Amount(0), (usd(0),))
    courier.tell("settle", "h", Amount(40), (usd(100),))
    assert await courier.ask_async("reserve", "i", (usd(60, 100),), TTL) == Granted()
    assert isinstance(await courier.ask_async("reserve", "j", (usd(1, 100),), TTL), Refused)
    courier.tell("release", "i")
    assert await courier.ask_async("reserve", "k", (usd(50, 100),), TTL) == Granted()
    courier.tell("charge", "c", Amount(1), (usd(1),))
    courier.tell("release", "k")
    await courier.ask_async("reserve", "l", (usd(10, 100),), TTL)
    assert await courier.ask_async("extend", "l", "1", (usd(49, 100),)) == Granted()


async def test_also_when_it_could_not_be_booked_at_first(courier, store, clock):
    await courier.ask_async("reserve", "h", (usd(100, 100),), TTL)
    store.failure = "refuses"
    courier.tell("settle", "h", Amount(40), (usd(100),))
    await eventually(lambda: courier.down)
    store.failure = ""
    clock.on(2)
    while courier.down:  # the first who asks may be the courier's own thread, and nobody asks beside it
        await asyncio.sleep(0.001)
        courier.flush(0)
    assert await courier.ask_async("reserve", "i", (usd(60, 100),), TTL) == Granted()


async def test_a_refusal_waits_a_second_at_most(courier, store, monkeypatch):
    monkeypatch.setattr("tokenbudget_otel.budgets.remote.courier.Courier._catch_up.__defaults__", (0.05,))
    await courier.ask_async("reserve", "h", (usd(100, 100),), TTL)
    stuck = threading.Event()
    monkeypatch.setattr(store.memory, "charge", lambda *_: stuck.wait(5))
    courier.tell("charge", "c", Amount(1), (usd(1),))
    start = time.monotonic()
    assert isinstance(await courier.ask_async("reserve", "i", (usd(60, 100),), TTL), Refused)
    assert 0.05 <= time.monotonic() - start < 1
    stuck.set()


async def test_what_was_told_is_done_in_its_order_by_one_thread(courier, store):
    answers = []
    for number in range(50):
        courier.tell("charge", str(number), Amount(1), (usd(1),), then=lambda answer, n=number: answers.append(n))
    assert courier.pending
    assert await asyncio.to_thread(courier.flush, 5)
    assert answers == list(range(50))
    assert [entry for operation, entry in store.asked if operation == "charge"] == [str(n) for n in range(50)]


async def test_an_error_in_one_does_not_stop_the_others(courier, store, caplog):
    courier.tell("charge", "c", Amount(1), (usd(1),), then=lambda _: 1 / 0)
    courier.tell("charge", "c", Amount(2), (usd(2),))  # another amount under the same id
    courier.tell("charge", "d", Amount(4), (usd(4),))
    assert await asyncio.to_thread(courier.flush, 5)
    assert spent(store) == 5
    assert caplog.text.count("could not be booked") == 2


async def test_what_is_done_may_tell_more(courier, store):
    courier.tell("charge", "c", Amount(1), (usd(1),), then=lambda _: courier.tell("charge", "d", Amount(2), (usd(2),)))
    await eventually(lambda: spent(store) == 3)


async def test_a_ledger_in_this_process_is_asked_at_once():
    courier = Courier(MemoryLedger())
    before = threading.active_count()
    await courier.ask_async("reserve", "h", (usd(5),), TTL)
    courier.tell("settle", "h", Amount(3), (usd(5),))
    assert courier.ledger.balance("k").spent_nano_usd == 3
    assert threading.active_count() == before
    courier.close()


class TestCancelled:
    async def test_an_admission_that_comes_too_late_is_released(self, courier, store):
        store.delay = 0.05
        task = asyncio.create_task(courier.ask_async("reserve", "h", (usd(60),), TTL))
        await eventually(lambda: store.count("reserve") == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: store.count("release") == 1 and not courier.pending)
        assert not store.memory.holds()
        assert spent(store) == 0

    async def test_one_that_had_not_begun_never_begins(self, courier, store):
        store.delay = 0.05
        tasks = [asyncio.create_task(courier.ask_async("reserve", str(number), (usd(1),), TTL)) for number in range(12)]
        await eventually(lambda: store.count("reserve") == 4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await eventually(lambda: store.count("release") == 4 and not courier.pending)
        assert store.count("reserve") == 4
        assert not store.memory.holds()

    async def test_one_of_which_nothing_is_known_is_released_when_the_store_is_back(self, courier, store):
        reserve, store.delay = store.memory.reserve, 0.05

        def last(*arguments):
            reserve(*arguments)
            store.failure = "refuses"
            raise LedgerUnavailable("timed out")

        store.memory.reserve = last
        task = asyncio.create_task(courier.ask_async("reserve", "h", (usd(60),), TTL))
        await eventually(lambda: store.count("reserve") == 1)
        task.cancel()
        await eventually(lambda: len(courier._outbox) == 1)
        assert store.memory.holds()
        store.failure = ""
        assert await asyncio.to_thread(courier.flush, 5)
        assert not store.memory.holds()

    async def test_one_that_was_admitted_here_gives_its_allowance_back(self, courier, store, monkeypatch):
        store.failure = "refuses"
        with pytest.raises(LedgerUnavailable):
            await courier.ask_async("balance", "k")
        note, noting = courier._outbox.note, threading.Event()

        def slowly(*arguments):
            noting.set()
            time.sleep(0.05)
            note(*arguments)

        monkeypatch.setattr(courier._outbox, "note", slowly)
        task = asyncio.create_task(courier.ask_async("reserve", "h", (usd(50, fallback=50),), TTL))
        await eventually(noting.is_set)
        task.cancel()
        await eventually(lambda: len(courier._outbox) == 1)
        assert await courier.ask_async("reserve", "i", (usd(50, fallback=50),), TTL) == Granted()

    async def test_a_refusal_leaves_nothing_to_release(self, courier, store):
        store.delay = 0.05
        task = asyncio.create_task(courier.ask_async("reserve", "h", (usd(600),), TTL))
        await eventually(lambda: store.count("reserve") == 1)
        task.cancel()
        await asyncio.sleep(0.1)
        assert store.count("release") == 0

    async def test_many_at_random_moments(self, courier, store):
        store.delay = 0.002

        async def call(number: int) -> None:
            await courier.ask_async("reserve", str(number), (usd(1, None),), TTL)
            try:
                await asyncio.sleep(0.003)
            finally:
                courier.tell("settle", str(number), Amount(1), (usd(1),))

        tasks = [asyncio.create_task(call(number)) for number in range(60)]
        for task in tasks[::2]:
            await asyncio.sleep(0.001)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await eventually(lambda: not store.memory.holds() and not courier.pending)
        assert spent(store) >= 30


class AsyncFlaky(FlakyLedger):
    """As a client of a server has it: operations to be awaited on the loop."""

    def asynchronous(self):
        ledger = self

        class Operations:
            def __getattr__(self, operation: str):
                async def ask(*arguments):
                    ledger.asked.append((operation, arguments[0]))
                    await asyncio.sleep(ledger.delay)
                    if ledger.failure == "refuses":
                        raise LedgerUnavailable("the line is dead")
                    return getattr(ledger.memory, operation)(*arguments)

                return ask

        return Operations()


class TestLedgerWithAWayOfItsOwn:
    @pytest.fixture
    def store(self, clock: Clock) -> FlakyLedger:
        return AsyncFlaky(clock)

    async def test_it_is_taken(self, courier, store):
        before = threading.active_count()
        assert await courier.ask_async("reserve", "h", (usd(60),), TTL) == Granted()
        assert (await courier.ask_async("balance", "k")).reserved_nano_usd == 60
        assert threading.active_count() == before

    async def test_fails_over_alike(self, courier, store):
        store.failure = "refuses"
        assert await courier.ask_async("reserve", "h", (usd(60, fallback=60),), TTL) == Granted()
        with pytest.raises(LedgerUnavailable):
            await courier.ask_async("reserve", "i", (usd(60),), TTL)

    async def test_a_cancelled_admission_is_released_when_it_is_known(self, courier, store):
        store.delay = 0.03
        task = asyncio.create_task(courier.ask_async("reserve", "h", (usd(60),), TTL))
        await eventually(lambda: store.count("reserve") == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.count("release") == 0
        await eventually(lambda: store.count("release") == 1 and not courier.pending)
        assert not store.memory.holds()


async def test_in_and_out_of_outages_everything_is_booked_once(courier, store, clock):
    """The store comes and goes while calls are made; afterwards it has what a ledger has that never failed."""
    reference = MemoryLedger()
    store.delay = 0.0005

    async def calls(worker: int) -> None:
        for number in range(25):
            name, claims = f"{worker}-{number}", (usd(5, None, key=f"k{worker % 3}", fallback=10_000),)
            await courier.ask_async("reserve", name, claims, TTL)
            courier.tell("settle", name, Amount(number), claims)
            reference.charge(name, Amount(number), claims)

    async def outages() -> None:
        while True:
            for store.failure in ("refuses", "", "loses answers", ""):
                await asyncio.sleep(0.003)
                clock.on(3)

    flapping = asyncio.create_task(outages())
    await asyncio.gather(*(calls(worker) for worker in range(8)))
    flapping.cancel()
    store.failure = ""
    assert await asyncio.to_thread(courier.flush, 10)
    assert store.memory.balances() == reference.balances()


class TestTrio:
    async def test_asks_tells_and_releases_what_was_cancelled(self, store, clock):
        pytest.importorskip("trio")
        await asyncio.to_thread(self.on_trio, store, clock)

    def on_trio(self, store: FlakyLedger, clock: Clock) -> None:
        import trio

        async def main() -> None:
            courier = Courier(store, clock=clock)
            store.delay = 0.05
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await trio.sleep(0.001)
                    ticks += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)
                assert await courier.ask_async("reserve", "h", (usd(60),), TTL) == Granted()
                assert ticks > 10
                courier.tell("settle", "h", Amount(10), (usd(60),))
                assert courier.pending
                with trio.fail_after(5):
                    while courier.pending:  # or there may be no room for the next, and then nothing to release
                        await trio.sleep(0.001)
                with trio.move_on_after(0.02) as scope:
                    await courier.ask_async("reserve", "i", (usd(60),), TTL)
                assert scope.cancelled_caught
                await trio.sleep(0.1)  # by then it has been begun, unless it was cancelled before
                with trio.fail_after(5):
                    while store.count("reserve") == 2 and (not store.count("release") or store.memory.holds()):
                        await trio.sleep(0.01)
                assert not store.memory.holds()
                nursery.cancel_scope.cancel()
            courier.close()

        trio.run(main)
        assert spent(store) == 10
