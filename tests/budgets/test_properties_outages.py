"""P7, from the enforcer down to every ledger: whatever the store does meanwhile, in the end it holds what was spent."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tokenbudget_otel.budgets import (
    Amount,
    Budget,
    BudgetExceeded,
    BudgetUnreachable,
    Call,
    Enforcer,
    Estimate,
    allow_local,
)

from .budget_ledgers import LEDGERS, Clock
from .flaky_ledger import FlakyLedger
from .ledger_histories import PATIENT

NANO = Decimal("0.000000001")
LIMIT = 1000
TOKENS = 300

tenants = st.sampled_from(["acme", "globex"])
numbers = st.integers(0, 150)


def call_of(tenant: str) -> Call:
    return Call("openai", "gpt-5", {"tenant": tenant})


class Recovery(RuleBasedStateMachine):
    """Calls are admitted, settled, released and charged, while the line to the store comes and goes. ``truth`` is what
    they came to: in nano-USD together, in tokens for each tenant."""

    make = None  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.open = []
        self.truth = Counter()

    @initialize(
        everybody=st.sampled_from(["deny", "allow", allow_local(usd=200 * NANO)]),
        tenant=st.sampled_from(["deny", "allow", allow_local(tokens=100)]),
        shared=st.booleans(),
    )
    def begin(self, everybody, tenant, shared):
        self.store = FlakyLedger(self.clock, shared=shared)
        self.store.memory = type(self).make(self.clock)
        self.enforcer = Enforcer(
            [
                Budget(name="all", limit_usd=LIMIT * NANO, mode="worst_case", on_store_error=everybody),
                Budget(name="each", limit_tokens=TOKENS, per="tenant", on_store_error=tenant),
            ],
            ledger=self.store,
            clock=self.clock,
        )

    @rule(failure=st.sampled_from(["refuses", "loses answers", ""]))
    def line(self, failure):
        self.store.failure = failure

    @rule(seconds=st.sampled_from([1, 3, 8]))
    def time_passes(self, seconds):
        self.clock.on(seconds)

    @rule(tenant=tenants, nano_usd=numbers, tokens=numbers)
    def admit(self, tenant, nano_usd, tokens):
        try:
            hold = self.enforcer.admit(
                call_of(tenant), Estimate(Amount(nano_usd // 2, tokens), Amount(nano_usd, tokens))
            )
        except BudgetUnreachable:
            assert self.store.failure or self.enforcer.way.down
        except BudgetExceeded as refusal:
            if not self.enforcer.way.down and refusal.needed_usd is not None:
                assert refusal.needed_usd > refusal.remaining_usd
        else:
            self.open.append((tenant, nano_usd, hold))

    @rule(which=numbers, nano_usd=st.none() | numbers, tokens=numbers)
    def settle(self, which, nano_usd, tokens):
        if not self.open:  # no precondition: what is open may depend on what a thread has delivered by now
            return
        tenant, reserved, hold = self.open.pop(which % len(self.open))
        self.enforcer.settle(hold, Amount(nano_usd, tokens))
        self.truth.update({"all": reserved if nano_usd is None else nano_usd, tenant: tokens})

    @rule(which=numbers)
    def release(self, which):
        if not self.open:
            return
        *_, hold = self.open.pop(which % len(self.open))
        self.enforcer.release(hold)

    @rule(tenant=tenants, nano_usd=numbers, tokens=numbers)
    def charge(self, tenant, nano_usd, tokens):
        self.enforcer.charge(call_of(tenant), Amount(nano_usd, tokens))
        self.truth.update({"all": nano_usd, tenant: tokens})

    @rule()
    def flush(self):
        self.enforcer.flush()

    def teardown(self) -> None:
        if not hasattr(self, "enforcer"):
            return
        try:
            self.store.failure = ""
            while self.open:
                self.settle(0, 1, 1)
            assert self.enforcer.flush()
            assert self.enforcer.way.pending == self.enforcer.way.lost == 0
            rows = self.enforcer.status()
            assert sum(row.spent_usd / NANO for row in rows if row.budget == "all") == self.truth["all"]
            each = {row.scope["tenant"]: row.spent_tokens for row in rows if row.budget == "each"}
            assert Counter(each) == Counter({name: count for name, count in self.truth.items() if name != "all"})
            assert not any(row.reserved_usd or row.reserved_tokens for row in rows)
            assert self.store.memory.holds() == ()
        finally:
            self.enforcer.way.close()


def recovery_of(name: str) -> type[Recovery]:
    return type("Recovery", (Recovery,), {"make": staticmethod(LEDGERS[name])})


# Each ledger as many histories as the others take time for.
EFFORT = {"memory": 80, "sqlite": 40, "redis": 30, "redis asyncio": 15}


@pytest.mark.parametrize("name", LEDGERS)
def test_after_any_outage_totals_are_the_truth(name):
    run_state_machine_as_test(
        recovery_of(name), settings=settings(PATIENT, max_examples=EFFORT[name], stateful_step_count=25)
    )


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", LEDGERS)
def test_after_any_outages_totals_are_the_truth(name):
    # Of at most eight seconds each: a ledger remembers for five minutes what it was told before.
    run_state_machine_as_test(recovery_of(name), settings=settings(PATIENT, max_examples=120, stateful_step_count=36))
