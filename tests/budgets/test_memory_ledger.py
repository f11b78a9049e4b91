"""What only the ledger in memory does: keys without end give way."""

from __future__ import annotations

from tokenbudget_otel.budgets import Amount, Claim, MemoryLedger


def test_the_key_unused_for_longest_gives_way(clock):
    ledger = MemoryLedger(clock=clock, max_keys=2)
    ledger.reserve("open", [Claim("a", 1)], 60)
    for key in "bcd":
        ledger.charge(key, Amount(1), [Claim(key)])
    assert [each.key for each in ledger.balances()] == ["a", "d"]  # what is held is never dropped
    assert ledger.dropped == 2
