"""Fixtures of the tests of metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tokenbudget_otel.instrumentation import bounded, call_metrics, guard
from tokenbudget_otel.instrumentation.metric_options import NAMES_ENVIRONMENT, TAGS_ENVIRONMENT
from tokenbudget_otel.meter import Meter


@pytest.fixture(autouse=True)
def _fresh(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A meter of the test's own, nothing in the environment, no value of an attribute seen, nothing told."""
    for name in (NAMES_ENVIRONMENT, TAGS_ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)
    for name in ("_asked", "_answered", "_scopes"):
        known = getattr(call_metrics, name)
        monkeypatch.setattr(call_metrics, name, bounded.Bounded(known.attribute, known.limit))
    monkeypatch.setattr(call_metrics, "_tags", {})
    monkeypatch.setattr(guard, "_told", set())
    guard._logged.clear()
    yield
    assert not guard._logged, f"telemetry failed: {guard._logged}"
