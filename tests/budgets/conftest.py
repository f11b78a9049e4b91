"""Fixtures of the budgets: each ledger in turn, and a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tokenbudget_otel.budgets import Ledger

from .budget_ledgers import LEDGERS, OPENED, Clock, MakeLedger


@pytest.fixture(autouse=True)
def _closed_files() -> Iterator[None]:
    yield
    for ledger in tuple(OPENED):
        ledger.close()
    OPENED.clear()


@pytest.fixture(params=LEDGERS)
def make_ledger(request: pytest.FixtureRequest) -> MakeLedger:
    return LEDGERS[request.param]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(make_ledger: MakeLedger, clock: Clock) -> Ledger:
    return make_ledger(clock)
