"""How budgets stand, as OpenTelemetry gauges: limit, spent, reserved, remaining."""

from __future__ import annotations

import heapq
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from tokenbudget_otel import semconv
from tokenbudget_otel.budgets import Enforcer
from tokenbudget_otel.budgets.ledger import DIMENSIONS
from tokenbudget_otel.version import __version__
from tokenbudget_otel.weak_identity import ByIdentity

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.status import BudgetStatus

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

MAX_SCOPES: Final = 1_000
"""Most scopes of one budget that are observed: those that have used most of their limit."""

GAUGES: Final = {
    "limit": (semconv.METRIC_BUDGET_LIMIT, "What a budget allows in the window in force."),
    "spent": (semconv.METRIC_BUDGET_SPENT, "What is spent of a budget in the window in force."),
    "reserved": (semconv.METRIC_BUDGET_RESERVED, "What calls in flight reserve of a budget."),
    "remaining": (semconv.METRIC_BUDGET_REMAINING, "What is neither spent nor reserved of a budget."),
}
"""The gauges: name and description of each, by what it shows."""


class Observed:
    """An enforcer whose budgets are observed, until :meth:`close`."""

    def __init__(self, gauges: _Gauges, enforcer: Enforcer) -> None:
        self._gauges = gauges
        self._enforcer = weakref.ref(enforcer)

    def close(self) -> None:
        """Observe it no more. Closing again changes nothing."""
        if (enforcer := self._enforcer()) is not None:
            self._gauges.enforcers.discard(enforcer)


def observe(enforcer: Enforcer, meter_provider: MeterProvider | None = None) -> Observed:
    """Show how the declared budgets of an enforcer stand, whenever metrics are collected.

    The four gauges of a collection share one look at the ledger. A ledger that cannot be reached then shows nothing,
    and is logged once until it answers again. The enforcer is not kept alive by this, and observing it twice shows
    it once. ``budget()`` scopes are not shown: they come and go.

    Args:
        enforcer: whose budgets.
        meter_provider: where the gauges go; the global one by default.

    >>> from opentelemetry.sdk.metrics import MeterProvider
    >>> from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    >>> from tokenbudget_otel.budgets import Budget
    >>> enforcer, reader = Enforcer([Budget(limit_usd=50, window="month")]), InMemoryMetricReader()
    >>> observed = observe(enforcer, MeterProvider([reader]))
    >>> metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    >>> [(metric.name, metric.data.data_points[0].value) for metric in metrics][-1]
    ('tokenbudget.budget.remaining', 50.0)
    >>> observed.close()
    """
    gauges = _gauges_of(meter_provider)
    gauges.enforcers.add(enforcer)
    return Observed(gauges, enforcer)


class _Gauges:
    """The gauges of one meter provider. OpenTelemetry has no way to take an instrument back, and ignores the callbacks
    of one that is made again: so they are made once, and ask whatever enforcers there are by then."""

    def __init__(self, provider: MeterProvider) -> None:
        self.enforcers: weakref.WeakSet[Enforcer] = weakref.WeakSet()
        self._told: weakref.WeakSet[Enforcer] = weakref.WeakSet()
        self._rows: Sequence[tuple[str, BudgetStatus]] = ()
        self._asked: set[str] = set()
        meter = provider.get_meter("tokenbudget_otel.budgets", __version__)
        for what, (name, description) in GAUGES.items():
            meter.create_observable_gauge(name, [self._callback(what)], description=description)

    def _callback(self, what: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: self._observations(what)

    def _observations(self, what: str) -> Iterator[Observation]:
        # A gauge that asks a second time is asked by another collection: the others of that one share what it reads.
        if not self._asked or what in self._asked:
            self._rows = tuple(self._read())
            self._asked = set()
        self._asked.add(what)
        rows = self._rows
        if len(self._asked) == len(GAUGES):
            self._rows, self._asked = (), set()
        for window, row in rows:
            for unit in DIMENSIONS:
                if (value := getattr(row, f"{what}_{unit}")) is not None:
                    yield Observation(float(value), _attributes(row, unit, window))

    def _read(self) -> Iterator[tuple[str, BudgetStatus]]:
        for enforcer in tuple(self.enforcers):
            try:
                windows = {budget.name: budget.window for budget in enforcer.budgets}
                rows = [row for row in enforcer.status() if row.budget in windows and row.window != "run"]
            except Exception as error:
                if enforcer not in self._told:
                    self._told.add(enforcer)
                    logger.warning(
                        "Budgets are missing from the metrics while their ledger cannot be read (%s: %s). Logged once.",
                        type(error).__name__,
                        error,
                    )
                continue
            self._told.discard(enforcer)
            for name, scopes in groupby(rows, key=lambda row: row.budget):
                for row in heapq.nlargest(MAX_SCOPES, scopes, key=lambda row: row.used):
                    yield windows[name], row


def _attributes(row: BudgetStatus, unit: str, window: str) -> dict[str, str]:
    return {
        semconv.BUDGET_NAME: row.budget,
        semconv.BUDGET_SCOPE: semconv.scope_text(row.scope),
        semconv.BUDGET_UNIT: unit,
        semconv.BUDGET_WINDOW: window,
    }


_made: Final[ByIdentity[MeterProvider, _Gauges]] = ByIdentity()
_default: _Gauges | None = None
"""The gauges that were made where no provider was named. Those of a program that has not set the global one yet."""


def _gauges_of(meter_provider: MeterProvider | None) -> _Gauges:
    global _default
    the_global = get_meter_provider()
    provider = the_global if meter_provider is None else meter_provider
    gauges = _made.get(provider)
    if gauges is None and provider is the_global:
        gauges = _default
    if gauges is None:
        gauges = _Gauges(provider)
        _made.set(provider, gauges)
    if meter_provider is None:
        _default = gauges
    return gauges
