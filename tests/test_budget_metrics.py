"""Budgets as gauges: what a collection reads, and that it stays out of the program's way."""

from __future__ import annotations

import gc
import logging
import weakref
from decimal import Decimal

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tokenbudget_otel import budget_metrics
from tokenbudget_otel.budget_metrics import observe
from tokenbudget_otel.budgets import (
    Amount,
    Balance,
    Budget,
    Call,
    Enforcer,
    Estimate,
    LedgerUnavailable,
    MemoryLedger,
    budget,
)

USD = 10**9


def call(model: str = "gpt-5", **tags: str) -> Call:
    return Call("openai", model, tags)


def spend(enforcer: Enforcer, usd: str, tokens: int = 10, **tags: str) -> None:
    enforcer.charge(call(**tags), Amount(int(Decimal(usd) * USD), tokens))


class Collected:
    """A meter provider, and what a collection of it finds."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def __call__(self) -> dict[tuple[str, ...], float]:
        """Values by the last word of the metric, and budget, scope and unit."""
        return {key[:4]: value for key, value in self.points().items()}

    def points(self) -> dict[tuple[str, ...], float]:
        data = self.reader.get_metrics_data()
        found: dict[tuple[str, ...], float] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        names = ("name", "scope", "unit", "window")
                        assert set(point.attributes) == {f"tokenbudget.budget.{name}" for name in names}
                        values = (str(point.attributes[f"tokenbudget.budget.{name}"]) for name in names)
                        key = (metric.name.removeprefix("tokenbudget.budget."), *values)
                        assert key not in found
                        found[key] = point.value
        return found


class Failing(MemoryLedger):
    """A ledger that can be switched off, and counts how often it is asked for balances."""

    down = False
    asked = 0

    def balances(self, prefix: str = "") -> tuple[Balance, ...]:
        if self.down:
            raise LedgerUnavailable("the ledger is on holiday")
        self.asked += 1
        return super().balances(prefix)


@pytest.fixture
def collected() -> Collected:
    return Collected()


def test_four_gauges_of_every_budget_scope_and_unit(collected: Collected) -> None:
    enforcer = Enforcer(
        [
            Budget(limit_usd=50, window="month", per="tenant", name="tenants"),
            Budget(limit_usd=500, limit_tokens=1_000, name="all"),
            Budget(limit_calls=3, window="day", action="warn", name="calls"),
        ]
    )
    observed = observe(enforcer, collected.provider)
    spend(enforcer, "49.9", tenant="acme")
    spend(enforcer, "0.25", tenant="x,y")
    with budget(max_calls=5):  # a run of something is no series
        enforcer.admit(call(tenant="acme"), Estimate(Amount(USD // 100, 30), Amount(USD, 90)))
        points = collected()
    assert points == {
        ("limit", "tenants", "tenant=acme", "usd"): 50.0,
        ("spent", "tenants", "tenant=acme", "usd"): 49.9,
        ("reserved", "tenants", "tenant=acme", "usd"): 0.01,
        ("remaining", "tenants", "tenant=acme", "usd"): 0.09,
        ("limit", "tenants", "tenant=x%2Cy", "usd"): 50.0,
        ("spent", "tenants", "tenant=x%2Cy", "usd"): 0.25,
        ("reserved", "tenants", "tenant=x%2Cy", "usd"): 0.0,
        ("remaining", "tenants", "tenant=x%2Cy", "usd"): 49.75,
        ("limit", "all", "", "usd"): 500.0,
        ("spent", "all", "", "usd"): 50.15,
        ("reserved", "all", "", "usd"): 0.01,
        ("remaining", "all", "", "usd"): 449.84,
        ("limit", "all", "", "tokens"): 1000.0,
        ("spent", "all", "", "tokens"): 20.0,
        ("reserved", "all", "", "tokens"): 30.0,
        ("remaining", "all", "", "tokens"): 950.0,
        ("limit", "calls", "", "calls"): 3.0,
        ("spent", "calls", "", "calls"): 2.0,
        ("reserved", "calls", "", "calls"): 1.0,
        ("remaining", "calls", "", "calls"): 0.0,
    }
    assert {key[4] for key in collected.points()} == {"month", "lifetime", "day"}
    observed.close()
    assert collected() == {}


def test_one_collection_reads_once_and_the_next_again(collected: Collected) -> None:
    ledger = Failing()
    enforcer = Enforcer([Budget(limit_usd=1, name="one")], ledger=ledger)
    observe(enforcer, collected.provider)
    collected()
    assert ledger.asked == 1
    spend(enforcer, "0.5")
    assert collected()["spent", "one", "", "usd"] == 0.5
    assert ledger.asked == 2


def test_two_readers_each_see_what_is_so(collected: Collected) -> None:
    readers = InMemoryMetricReader(), InMemoryMetricReader()
    enforcer = Enforcer([Budget(limit_usd=1, name="one")])
    observe(enforcer, MeterProvider(readers))
    collected.reader = readers[0]
    collected()
    spend(enforcer, "0.5")
    collected.reader = readers[1]
    assert collected()["spent", "one", "", "usd"] == 0.5


def test_a_ledger_that_is_down_shows_nothing_and_is_logged_once(
    collected: Collected, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Failing()
    enforcer = Enforcer([Budget(limit_usd=1, name="one")], ledger=ledger)
    well = Enforcer([Budget(limit_usd=2, name="two")])
    for each in (enforcer, well):
        observe(each, collected.provider)
    ledger.down = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert {key[1] for key in collected()} == {"two"}
    (record,) = caplog.records
    assert "LedgerUnavailable: the ledger is on holiday" in record.getMessage()
    ledger.down = False
    assert {key[1] for key in collected()} == {"one", "two"}
    ledger.down = True
    collected()
    assert len(caplog.records) == 2


def test_most_used_scopes_are_shown(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_metrics, "MAX_SCOPES", 3)
    enforcer = Enforcer([Budget(limit_calls=100, per="user", name="users"), Budget(limit_calls=9, name="all")])
    observe(enforcer, collected.provider)
    for number in range(8):
        for _ in range((number * 5) % 8 + 1):
            spend(enforcer, "0", user=f"u{number}")
    shown = {key[2]: value for key, value in collected().items() if key[0] == "spent"}
    assert shown == {"user=u3": 8.0, "user=u6": 7.0, "user=u1": 6.0, "": 36.0}


def test_observing_again_shows_it_once(collected: Collected, caplog: pytest.LogCaptureFixture) -> None:
    enforcer = Enforcer([Budget(limit_calls=1, name="one")])
    first = observe(enforcer, collected.provider)
    observe(enforcer, collected.provider)
    assert len(collected()) == 4  # points() sees to it that no series comes twice
    first.close()
    first.close()
    assert collected() == {}
    observe(enforcer, collected.provider)
    assert len(collected()) == 4
    assert not caplog.records  # OpenTelemetry warns of instruments that are made twice


def test_nothing_is_kept_alive() -> None:
    collected = Collected()
    enforcer = Enforcer([Budget(limit_calls=1, name="one")])
    observed = observe(enforcer, collected.provider)
    assert len(collected()) == 4
    gone = weakref.ref(enforcer)
    del enforcer
    gc.collect()
    assert gone() is None
    assert collected() == {}
    observed.close()
    collected.provider.shutdown()
    provider = weakref.ref(collected.provider)
    del collected
    gc.collect()
    assert provider() is None


def test_a_global_provider_that_is_set_later(monkeypatch: pytest.MonkeyPatch, collected: Collected) -> None:
    """A program may instrument before it sets OpenTelemetry up, and name the provider afterwards as well."""
    from opentelemetry.metrics import _internal

    proxy = _internal._ProxyMeterProvider()
    monkeypatch.setattr(budget_metrics, "_default", None)
    monkeypatch.setattr(budget_metrics, "get_meter_provider", lambda: proxy)
    before, after = (Enforcer([Budget(limit_calls=1, name=name)]) for name in ("before", "after"))
    observe(before)
    proxy.on_set_meter_provider(collected.provider)
    monkeypatch.setattr(budget_metrics, "get_meter_provider", lambda: collected.provider)
    observe(after, collected.provider)
    observe(after)
    assert {key[1] for key in collected()} == {"before", "after"}
