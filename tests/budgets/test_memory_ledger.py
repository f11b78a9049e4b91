"""What only the ledger in memory does: keys without end give way."""

from __future__ import annotations

from tokenbudget_otel.budgets import Amount, Claim, MemoryLedger


def test_nothing_is_taken_back_from_a_key_that_began_anew(clock):
    ledger = MemoryLedger(clock=clock)
    ledger.reserve("h", [Claim("k", 50)], 1)
    clock.on(2)
    ledger.expire()
    ledger.forget(["k"])
    ledger.charge("c", Amount(10), [Claim("k")])
    assert ledger.settle("h", Amount(20)) == "late"
    assert ledger.balance("k").spent_nano_usd == 30


def test_the_key_unused_for_longest_gives_way(clock):
    ledger = MemoryLedger(clock=clock, max_keys=2)
    ledger.reserve("open", [Claim("a", 1)], 60)
    for key in "bcd":
        ledger.charge(key, Amount(1), [Claim(key)])
    assert [each.key for each in ledger.balances()] == ["a", "d"]  # what is held is never dropped
    assert ledger.dropped == 2
