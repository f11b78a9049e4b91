"""Whatever the store does meanwhile, in the end it has what a ledger has that never failed, and nothing twice."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tokenbudget_otel.budgets import Amount, Balance, Claim, Granted, LedgerUnavailable, MemoryLedger
from tokenbudget_otel.budgets.remote.courier import Courier
from tokenbudget_otel.budgets.remote.outbox import estimate

from .budget_ledgers import Clock
from .flaky_ledger import FlakyLedger

FOREVER = 1e9

keys = st.sets(st.sampled_from("abc"), min_size=1)
picks = st.integers(0, 20)
small = st.integers(0, 30)
fallbacks = st.sampled_from([None, (60, None, None), (None, 50, 4), (None, None, None)])


def without_limits(claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
    return tuple(claim._replace(limit_nano_usd=None, limit_tokens=None, limit_calls=None) for claim in claims)


def added(claims: tuple[Claim, ...], more: tuple[Claim, ...]) -> tuple[Claim, ...]:
    extra = {claim.key: claim for claim in more}
    return tuple(
        claim._replace(
            nano_usd=claim.nano_usd + extra[claim.key].nano_usd,
            tokens=claim.tokens + extra[claim.key].tokens,
            calls=claim.calls + extra[claim.key].calls,
        )
        if claim.key in extra
        else claim
        for claim in claims
    )


def counted(ledger: MemoryLedger) -> list[Balance]:
    return [balance for balance in ledger.balances() if any(balance[1:])]


class Outages(RuleBasedStateMachine):
    """One process after the other works with a store that comes and goes; ``reference`` never fails."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.store = FlakyLedger(self.clock)
        self.reference = MemoryLedger(clock=self.clock, remember=FOREVER)
        self.open: dict[str, tuple[Claim, ...]] = {}
        self.ended: list[tuple] = []
        self.number = 0
        self.begin()

    def begin(self) -> None:
        self.courier = Courier(self.store, clock=self.clock, longest=FOREVER, journal=self.folder)

    def pick(self, which: int) -> str:
        return sorted(self.open)[which % len(self.open)]

    def next_id(self) -> str:
        self.number += 1
        return str(self.number)

    @rule(failure=st.sampled_from(["refuses", "loses answers", ""]))
    def line(self, failure):
        self.store.failure = failure

    @rule(seconds=st.sampled_from([1, 3, 40]))
    def time_passes(self, seconds):
        self.clock.on(seconds)

    @rule()
    def flush(self):
        if self.courier.flush():
            assert self.courier.pending == 0

    @rule(keys=keys, nano_usd=small, tokens=small, fallback=fallbacks, hard=st.booleans())
    def reserve(self, keys, nano_usd, tokens, fallback, hard):
        claims = tuple(
            Claim(key, nano_usd, tokens, 1, limit_nano_usd=150, hard=hard, fallback=fallback) for key in sorted(keys)
        )
        name = self.next_id()
        try:
            answer = self.courier.ask("reserve", name, claims, FOREVER)
        except LedgerUnavailable:
            assert fallback is None
            assert hard
            return
        if isinstance(answer, Granted):
            self.reference.reserve(name, without_limits(claims), FOREVER)
            self.open[name] = claims

    @precondition(lambda self: self.open)
    @rule(which=picks, more=small)
    def extend(self, which, more):
        name = self.pick(which)
        claims = tuple(claim._replace(nano_usd=more, tokens=1, calls=0) for claim in self.open[name])
        step = self.next_id()
        try:
            answer = self.courier.ask("extend", name, step, claims, FOREVER)
        except LedgerUnavailable:
            return
        if isinstance(answer, Granted):
            self.reference.extend(name, step, without_limits(claims), FOREVER)
            self.open[name] = added(self.open[name], claims)

    @precondition(lambda self: self.open)
    @rule(which=picks, nano_usd=st.none() | small, tokens=small, differs=st.booleans())
    def settle(self, which, nano_usd, tokens, differs):
        name = self.pick(which)
        claims = self.open.pop(name)
        apart = {claims[0].key: Amount(nano_usd, tokens + 1)} if differs else None
        self.end("settle", name, Amount(nano_usd, tokens), claims, apart)

    @precondition(lambda self: self.open)
    @rule(which=picks)
    def release(self, which):
        name = self.pick(which)
        del self.open[name]
        self.end("release", name)

    @rule(keys=keys, nano_usd=small)
    def charge(self, keys, nano_usd):
        self.end("charge", self.next_id(), Amount(nano_usd, 1), tuple(Claim(key) for key in sorted(keys)))

    @rule(key=st.sampled_from("abc"), nano_usd=st.integers(-5, 5))
    def adjust(self, key, nano_usd):
        self.end("adjust", self.next_id(), Amount(nano_usd, 0, 0), (Claim(key),), "invoice")

    def end(self, *told) -> None:
        self.courier.tell(*told)
        getattr(self.reference, told[0])(*told[1:])
        if Amount not in map(type, told) or told[2].nano_usd is not None:
            # An unknown price has been replaced by what was reserved: the same is not the same any more.
            self.ended.append(told)

    @precondition(lambda self: self.ended)
    @rule(which=picks)
    def again(self, which):
        self.courier.tell(*self.ended[which % len(self.ended)])

    @rule()
    def process_dies(self):
        """What it admitted by itself is charged as estimated, by the next; what the store admitted it can still end."""
        dying = self.courier
        for name, admitted in dying._failover.admitted.items():
            if name in self.open:
                claims = self.open.pop(name)
                assert admitted.claims == claims
                self.reference.settle(name, *estimate(claims, None))
        self.stop_thread(dying)
        if dying._outbox._file is not None:
            os.close(dying._outbox._file)
            dying._outbox._file = None
        dying._closed = True
        self.begin()
        self.stop_thread(self.courier)
        self.courier._adopt_at = 0.0
        self.courier._adopt()
        for name in sorted(dying._failover._added.keys() & self.open.keys()):
            # What was added here to a hold of the store is forgotten; "as much as is reserved" says nothing any more.
            self.end("settle", name, Amount(1, 1), self.open.pop(name))

    @staticmethod
    def stop_thread(courier: Courier) -> None:
        if courier._thread is not None:
            courier._wake.put(None)
            courier._thread.join()
            courier._thread = None

    def teardown(self) -> None:
        self.store.failure = ""
        for name, claims in sorted(self.open.items()):
            self.end("settle", name, Amount(1, 1), claims)
        try:
            assert self.courier.flush()
            assert self.courier.lost == 0
            assert counted(self.store.memory) == counted(self.reference)
            assert not any(sum(balance[4:]) for balance in self.store.memory.balances())
            assert not self.store.memory.holds()
        finally:
            self.courier.close()
            left = list(self.folder.iterdir())
            shutil.rmtree(self.folder)
        assert not left


def test_in_the_end_everything_is_booked_exactly_once():
    run_state_machine_as_test(Outages, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


@pytest.mark.parametrize("seed", range(12))
def test_nor_after_hundreds_of_operations_is_anything_amiss(seed):
    """The same machine, on walks so long that much has happened before the end."""
    chance = random.Random(seed)
    keys = [{"a"}, {"a", "b"}, {"c"}]
    fallbacks = [None, (60, None, None), (None, 50, 4), (None, None, None)]
    machine = Outages()
    for _ in range(200):
        amounts = chance.randrange(30), chance.randrange(30)
        which = chance.randrange(20)
        match chance.randrange(20):
            case 0 | 1:
                machine.line(chance.choice(["refuses", "loses answers"]))
            case 2 | 3:
                machine.line("")
            case 4 | 5:
                machine.time_passes(chance.choice([1, 3, 40]))
            case 6:
                machine.flush()
            case 7 | 8 | 9 | 10:
                machine.reserve(chance.choice(keys), *amounts, chance.choice(fallbacks), chance.random() < 0.8)
            case 11 | 12 if machine.open:
                machine.extend(which, amounts[0])
            case 13 | 14 | 15 if machine.open:
                machine.settle(which, chance.choice([None, amounts[0]]), amounts[1], chance.random() < 0.3)
            case 16 if machine.open:
                machine.release(which)
            case 17:
                machine.charge(chance.choice(keys), amounts[0])
            case 18 if machine.ended:
                machine.again(which)
            case 19 if chance.random() < 0.4:
                machine.process_dies()
    machine.teardown()


@given(
    st.lists(st.tuples(st.sampled_from(["refuses", "loses answers", "", "", "end"]), st.integers(1, 40)), max_size=40),
    st.integers(0, 200),
    st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_a_process_spends_no_more_than_limit_and_allowance(steps, limit, allowance):
    clock = Clock()
    store = FlakyLedger(clock)
    courier = Courier(store, clock=clock)
    held: list[tuple[str, Claim]] = []
    for number, (what, amount) in enumerate(steps):
        clock.on(amount / 4)
        if what == "end":
            for name, claim in held:
                courier.tell("settle", name, Amount(claim.nano_usd), (claim,))
            held.clear()
            continue
        store.failure = what
        claim = Claim("k", amount, 0, 1, limit_nano_usd=limit, fallback=(allowance, None, None))
        if isinstance(courier.ask("reserve", str(number), (claim,), FOREVER), Granted):
            held.append((str(number), claim))
    store.failure = ""
    for name, claim in held:
        courier.tell("settle", name, Amount(claim.nano_usd), (claim,))
    assert courier.flush()
    courier.close()
    assert store.memory.balance("k").spent_nano_usd <= limit + allowance
    assert store.memory.balance("k").reserved_nano_usd == 0
