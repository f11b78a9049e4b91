"""The way to a ledger that is kept elsewhere: asking and telling it, and what happens while it is away."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from tokenbudget_otel.budgets import Amount, Claim, Granted, LedgerConflict, LedgerUnavailable, Limits, Refused
from tokenbudget_otel.budgets.remote.breaker import Breaker
from tokenbudget_otel.budgets.remote.courier import Courier

from .budget_ledgers import Clock
from .flaky_ledger import FlakyLedger

TTL = 60.0


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def usd(nano_usd: int, limit: int | None = 100, key: str = "k", fallback: int | None = None, **more) -> Claim:
    allowance = None if fallback is None else (fallback, None, None)
    return Claim(key, nano_usd, 0, 1, limit_nano_usd=limit, fallback=allowance, **more)


@pytest.fixture
def store(clock: Clock) -> FlakyLedger:
    return FlakyLedger(clock)


@pytest.fixture
def courier(store: FlakyLedger, clock: Clock) -> Iterator[Courier]:
    courier = Courier(store, clock=clock)
    yield courier
    store.failure, store.delay = "", 0.0
    courier.close()


def spent(ledger: FlakyLedger, key: str = "k") -> int:
    return ledger.memory.balance(key).spent_nano_usd


class TestWhileAllIsWell:
    def test_asks_the_ledger(self, courier, store):
        assert courier.ask("reserve", "h", (usd(60),), TTL) == Granted()
        assert isinstance(courier.ask("reserve", "i", (usd(60),), TTL), Refused)
        assert courier.ask("extend", "h", "1", (usd(40),), TTL) == Granted()
        assert courier.ask("balance", "k").reserved_nano_usd == 100
        assert courier.pending == 0
        assert not courier.down

    def test_tells_the_ledger_at_once_where_no_event_loop_runs(self, courier, store):
        courier.ask("reserve", "h", (usd(60),), TTL)
        answers = []
        courier.tell("settle", "h", Amount(50), (usd(60),), then=answers.append)
        assert answers == ["done"]
        assert spent(store) == 50
        assert store.threads == {threading.current_thread().name}

    def test_mistakes_of_the_caller_are_the_callers(self, courier):
        courier.ask("reserve", "h", (usd(60),), TTL)
        with pytest.raises(LedgerConflict):
            courier.ask("reserve", "h", (usd(61),), TTL)

    def test_starts_no_thread(self, courier):
        before = threading.active_count()
        courier.ask("reserve", "h", (usd(60),), TTL)
        courier.opened("h", (usd(60),))
        courier.tell("settle", "h", Amount(50), (usd(60),))
        courier.closed("h")
        assert threading.active_count() == before


class TestWhileTheStoreIsAway:
    @pytest.fixture(autouse=True)
    def away(self, store: FlakyLedger) -> None:
        store.failure = "refuses"

    def test_what_a_budget_without_fallback_could_refuse_is_not_admitted(self, courier):
        with pytest.raises(LedgerUnavailable, match="the line is dead"):
            courier.ask("reserve", "h", (usd(1), usd(1, key="l", fallback=50)), TTL)
        with pytest.raises(LedgerUnavailable, match=r"the line is dead \(asked again in \d\.\d s\)"):
            courier.ask("balance", "k")

    def test_a_claim_that_cannot_refuse_needs_no_fallback(self, courier):
        assert courier.ask("reserve", "h", (usd(500, hard=False), usd(1, key="l", fallback=50)), TTL) == Granted()

    def test_an_allowance_is_kept_to(self, courier):
        assert courier.ask("reserve", "1", (usd(30, fallback=50),), TTL) == Granted()
        refused = courier.ask("reserve", "2", (usd(30, fallback=50),), TTL)
        assert isinstance(refused, Refused)
        assert refused.shortages[0].claim.limit_nano_usd == 50
        courier.tell("release", "1")
        assert courier.ask("reserve", "3", (usd(50, fallback=50),), TTL) == Granted()
        courier.tell("settle", "3", Amount(20), (usd(50, fallback=50),))
        assert courier.ask("extend", "3", "1", (usd(50, fallback=50),)).state == "settled"
        assert courier.ask("reserve", "4", (usd(30, fallback=50),), TTL) == Granted()

    def test_without_an_allowance_everything_passes(self, courier):
        for number in range(20):
            claim = usd(1000)._replace(fallback=(None, None, None))
            assert courier.ask("reserve", str(number), (claim,), TTL) == Granted()

    def test_nothing_waits_once_that_is_known(self, courier, store):
        store.delay = 0.05
        courier.ask("reserve", "1", (usd(1, fallback=50),), TTL)
        asked = len(store.asked)
        start = time.monotonic()
        for number in range(2, 40):
            courier.ask("reserve", str(number), (usd(1, fallback=50),), TTL)
            courier.tell("settle", str(number), Amount(1), (usd(1),))
            with pytest.raises(LedgerUnavailable):
                courier.ask("reserve", f"x{number}", (usd(1),), TTL)
        assert time.monotonic() - start < 0.05
        assert len(store.asked) == asked

    def test_what_was_spent_is_booked_later(self, courier, store, clock):
        claims = (usd(30, fallback=50), usd(30, key="l", fallback=50))
        courier.ask("reserve", "h", claims, TTL)
        answers = []
        courier.tell("settle", "h", Amount(25, 7), claims, {"l": Amount(5)}, then=answers.append)
        courier.tell("charge", "c", Amount(3), (usd(3),), then=answers.append)
        courier.tell("adjust", "a", Amount(-1, 0, 0), (usd(0),), "invoice", then=answers.append)
        assert answers == ["done"] * 3
        assert courier.pending == 3
        assert not courier.flush()
        store.failure = ""
        assert courier.flush()
        assert courier.pending == 0
        assert spent(store) == 27
        assert spent(store, "l") == 5
        assert not courier.down

    def test_it_is_booked_without_anybody_asking(self, store):
        courier = Courier(store, cool_off=0.02)
        courier.tell("charge", "c", Amount(3), (usd(3),))
        store.failure = ""
        eventually(lambda: courier.pending == 0)
        assert spent(store) == 3
        courier.close()

    def test_a_reservation_whose_answer_was_lost_is_given_back(self, courier, store):
        store.failure = "loses answers"
        with pytest.raises(LedgerUnavailable):
            courier.ask("reserve", "h", (usd(30),), TTL)
        assert store.memory.balance("k").reserved_nano_usd == 30
        store.failure = ""
        assert courier.flush()
        assert store.memory.balance("k").reserved_nano_usd == 0
        assert spent(store) == 0

    @pytest.mark.parametrize("ending", ["settle", "release"])
    def test_or_settled_by_the_call_that_was_admitted_here(self, courier, store, clock, ending):
        store.failure = "loses answers"
        claims = (usd(30, fallback=50),)
        assert courier.ask("reserve", "h", claims, TTL) == Granted()
        store.failure = ""
        clock.on(2)
        courier.tell(ending, "h", *([Amount(20), claims] if ending == "settle" else []))
        assert courier.flush()
        assert store.memory.balance("k").reserved_nano_usd == 0
        assert spent(store) == (20 if ending == "settle" else 0)

    def test_an_answer_lost_books_nothing_twice(self, courier, store):
        store.failure = "loses answers"
        courier.tell("charge", "c", Amount(3), (usd(3),))
        store.failure = ""
        assert courier.flush()
        assert spent(store) == 3

    def test_a_hold_of_the_store_can_grow_by_what_is_allowed_here(self, courier, store):
        store.failure = ""
        courier.ask("reserve", "h", (usd(30, fallback=10),), TTL)
        store.failure = "refuses"
        more = usd(8, fallback=10)
        assert courier.ask("extend", "h", "1", (more,)) == Granted()
        assert courier.ask("extend", "h", "1", (more,)) == Granted(replayed=True)
        assert isinstance(courier.ask("extend", "h", "2", (more,)), Refused)
        assert courier.ask("extend", "h", "3", ()) == Granted()
        with pytest.raises(LedgerUnavailable):
            courier.ask("extend", "h", "4", (usd(1),))
        courier.tell("settle", "h", Amount(37), (usd(38),))
        store.failure = ""
        assert courier.flush()
        assert spent(store) == 37
        assert store.memory.balance("k").reserved_nano_usd == 0
        # What the store had reserved does not count here: 8 of 10 are used.
        store.failure = "refuses"
        assert courier.ask("reserve", "i", (usd(2, fallback=10),), TTL) == Granted()
        assert isinstance(courier.ask("reserve", "j", (usd(1, fallback=10),), TTL), Refused)

    def test_a_price_that_stays_unknown_is_booked_as_it_was_reserved(self, courier, store):
        courier.ask("reserve", "h", (usd(30, fallback=50),), TTL)
        courier.ask("extend", "h", "1", (usd(5, fallback=50),))
        courier.tell("settle", "h", Amount(None, 7), (usd(30),))
        store.failure = ""
        assert courier.flush()
        assert spent(store) == 35

    def test_the_allowance_lasts_for_the_window_however_often_the_store_goes(self, courier, store, clock):
        admitted = 0
        for number in range(20):
            store.failure = "refuses"
            claims = (usd(10, limit=1000, fallback=50),)
            if courier.ask("reserve", str(number), claims, TTL) == Granted():
                admitted += 1
                courier.tell("settle", str(number), Amount(10), claims)
            store.failure = ""
            assert courier.flush()
        assert admitted == 5
        assert spent(store) == 50
        store.failure = "refuses"
        assert courier.ask("reserve", "next window", (usd(10, key="k2", fallback=50),), TTL) == Granted()

    def test_earlier_parts_of_a_rolling_window_count(self, courier):
        courier.ask("reserve", "1", (usd(40, key="part1", fallback=50),), TTL)
        claim = usd(20, key="part2", fallback=50, older=("part1",))
        assert isinstance(courier.ask("reserve", "2", (claim,), TTL), Refused)

    def test_what_the_ledger_will_never_take_does_not_stand_in_the_way(self, courier, store, caplog):
        store.memory.charge("c", Amount(1), (usd(1),))
        courier.tell("charge", "c", Amount(2), (usd(2),))
        courier.tell("charge", "d", Amount(4), (usd(4),))
        store.failure = ""
        assert courier.flush()
        assert spent(store) == 5
        assert "could not be booked" in caplog.text

    def test_it_is_said_once_that_the_store_is_away_and_once_that_it_is_back(self, courier, store, caplog):
        for number in range(5):
            courier.tell("charge", str(number), Amount(1), (usd(1),))
        store.failure = ""
        courier.flush()
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
        assert "the line is dead" in caplog.messages[0]

    def test_descriptions_keep_their_order(self, courier, store, clock):
        courier.tell("declare", "b", "old")
        courier.tell("declare", "c", "kept")
        store.failure = ""
        clock.on(2)
        courier.tell("declare", "b", "new")
        assert courier.flush()
        assert store.memory.declared() == {"b": "new", "c": "kept"}

    def test_limits_are_set_when_the_store_is_back(self, courier, store, clock):
        courier.tell("set_limits", "p", Limits(5))
        courier.tell("set_limits", "q", Limits(6))
        store.failure = ""
        clock.on(2)
        courier.tell("set_limits", "p", None)
        assert courier.flush()
        assert store.memory.limits() == {"q": Limits(6)}


class TestBreaker:
    def test_trials_come_after_twice_the_time_each_up_to_half_a_minute(self, clock):
        breaker = Breaker(1.0, clock)
        assert breaker.failed("once")
        assert not breaker.failed("again")
        for expected in (1, 2, 4, 8, 16, 30, 30):
            assert 0.75 * expected <= breaker.wait() <= 1.25 * expected
            assert not breaker.allows()
            clock.on(1.25 * expected)
            assert breaker.allows()
            assert not breaker.allows()
            assert not breaker.failed("still")
        assert breaker.succeeded()
        assert not breaker.succeeded()
        breaker.failed("anew")
        assert breaker.wait() <= 1.25

    def test_many_who_fail_at_once_count_as_one(self, clock):
        breaker = Breaker(1.0, clock)
        for _ in range(50):
            breaker.failed("together")
        assert breaker.wait() <= 1.25

    def test_a_trial_that_nobody_reports_on_is_followed_by_another(self, clock):
        breaker = Breaker(1.0, clock)
        breaker.failed("once")
        clock.on(2)
        assert breaker.allows()
        clock.on(2)
        assert breaker.allows()

    def test_a_clock_set_back_does_not_keep_it_open(self, clock):
        breaker = Breaker(1.0, clock)
        breaker.failed("once")
        clock.on(-3600)
        assert breaker.allows()

    def test_one_caller_makes_the_trial(self, courier, store, clock):
        store.failure = "refuses"
        with pytest.raises(LedgerUnavailable):
            courier.ask("balance", "k")
        clock.on(2)
        with pytest.raises(LedgerUnavailable):
            courier.ask("balance", "k")
        assert store.count("balance") == 2
        with pytest.raises(LedgerUnavailable):
            courier.ask("balance", "k")
        assert store.count("balance") == 2
        store.failure = ""
        clock.on(3)
        assert courier.ask("balance", "k").spent_calls == 0
        assert not courier.down


class TestHeartbeat:
    def test_open_holds_live_until_they_are_closed(self):
        store = FlakyLedger(time.time, shared=True)
        courier = Courier(store, ttl=0.15)
        for hold in ("kept", "lost"):
            courier.ask("reserve", hold, (usd(10),), 0.15)
        courier.opened("kept", (usd(10),))
        time.sleep(0.35)
        assert [hold.id for hold in store.memory.holds()] == ["kept"]
        courier.closed("kept")
        eventually(lambda: not store.memory.holds())
        courier.close()

    def test_one_thread_for_all_and_none_after_closing(self):
        before = set(threading.enumerate())
        store = FlakyLedger(time.time, shared=True)
        courier = Courier(store)
        assert set(threading.enumerate()) == before
        for number in range(10):
            courier.opened(str(number), ())
        assert len(set(threading.enumerate()) - before) == 1
        courier.close()
        assert set(threading.enumerate()) == before

    def test_a_courier_that_nobody_has_any_more_takes_its_thread_along(self):
        before = set(threading.enumerate())
        courier = Courier(FlakyLedger(time.time, shared=True))
        courier.opened("h", ())
        gone = weakref.ref(courier)
        del courier
        gc.collect()
        assert gone() is None
        eventually(lambda: set(threading.enumerate()) == before)

    def test_batches_what_is_left_open_and_what_is_gone(self, clock):
        store = FlakyLedger(clock, shared=True)
        courier = Courier(store, clock=clock, longest=600)
        for number in range(1200):
            courier.ask("reserve", str(number), (usd(1, None),), TTL)
            courier.opened(str(number), ())
        store.memory.release("7")
        clock.on(21)
        courier._beat()
        assert store.count("renew") == 3
        courier._beat()
        assert store.count("renew") == 3, "it was not time yet"
        assert len(courier._open) == 1199
        clock.on(601)
        courier._beat()
        assert not courier._open, "left to run out"
        courier.close()

    def test_tries_again_soon_when_the_store_was_away(self, clock):
        store = FlakyLedger(clock, shared=True)
        courier = Courier(store, clock=clock)
        courier.ask("reserve", "h", (usd(1),), TTL)
        courier.opened("h", ())
        store.failure = "refuses"
        clock.on(21)
        courier._beat()
        store.failure = ""
        clock.on(2)
        courier._beat()
        assert not courier.down
        clock.on(50)
        store.memory.expire()
        assert [hold.id for hold in store.memory.holds()] == ["h"]
        courier.close()

    def test_holds_of_the_parent_are_not_the_childs(self, clock):
        store = FlakyLedger(clock, shared=True)
        courier = Courier(store, clock=clock)
        courier.ask("reserve", "h", (usd(1),), TTL)
        courier.opened("h", ())
        store.failure = "refuses"
        courier.tell("charge", "c", Amount(1), (usd(1),))
        child = os.fork()
        if child == 0:
            alone = courier._thread is None and not courier._open and not courier.pending
            store.failure = ""
            clock.on(2)
            works = courier.ask("reserve", "i", (usd(1),), TTL) == Granted()
            courier.opened("i", ())
            os._exit(0 if alone and works and courier._thread is not None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert courier.pending == 1
        store.failure = ""
        courier.close()
        assert spent(store) == 1


class TestEnd:
    def test_closing_delivers(self, courier, store):
        store.failure = "refuses"
        courier.tell("charge", "c", Amount(1), (usd(1),))
        store.failure = ""
        courier.close()
        assert spent(store) == 1
        courier.tell("charge", "d", Amount(1), (usd(1),))
        assert spent(store) == 2

    def test_closing_does_not_wait_for_a_store_that_is_away(self, courier, store):
        store.failure = "refuses"
        courier.tell("charge", "c", Amount(1), (usd(1),))
        start = time.monotonic()
        courier.close()
        assert time.monotonic() - start < 0.5
        assert courier.pending == 1
