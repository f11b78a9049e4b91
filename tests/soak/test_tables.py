"""The walk that looks for tables that grow finds them."""

from __future__ import annotations

import pytest
import tables

from tokenbudget_otel import totals
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.meter import Meter, Reading, key_mark, meter


def test_the_walk_finds_a_table_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a module, in an object of a class of ours somewhere below it, in a closure, and in a cache."""
    meter()
    before = tables.tables()
    monkeypatch.setattr(guard, "_told", {f"about {number}" for number in range(7_000)})
    held = meter().enforcer.ledger
    monkeypatch.setattr(held, "_marks", {f"mark {number}": None for number in range(6_000)})
    row = totals._Row()
    row.counts = dict.fromkeys(map(str, range(5_000)), 1)
    monkeypatch.setattr(Meter, "_hidden", (lambda: row), raising=False)
    key_mark("a key that nobody else has")
    grown = {name: count for name, count in tables.tables().items() if count > before[name]}
    # Tables of objects of one class are added up: others of it may be about, from other tests.
    for table, size in (("guard._told", 7_000), ("._marks", 6_000), ("counts", 5_000)):
        assert any(name.endswith(table) and count >= size for name, count in grown.items()), (table, grown)
    assert any("key_mark" in name for name in grown)


def test_objects_of_ours_are_counted_whoever_holds_them() -> None:
    before = tables.instances()
    mine = [Reading(None) for _ in range(3_000)]
    after = tables.instances()
    assert after["tokenbudget_otel.meter.Reading"] - before["tokenbudget_otel.meter.Reading"] == len(mine)
