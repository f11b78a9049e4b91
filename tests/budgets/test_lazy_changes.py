"""What can be changed of a request is found out where a budget wants to know, once, and nothing is kept for it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest

from tokenbudget_otel.budgets import Budget, BudgetExceeded, Enforcer
from tokenbudget_otel.meter import Meter, Request, Size

MODEL = "gpt-4o"


class Asked:
    """Says what can be changed, and counts how often it is asked. Refers to the request, as whoever sends it does."""

    def __init__(self, *names: str, least: int = 1) -> None:
        self.times = 0
        self.names, self.least = frozenset(names), least
        self.request: Request | None = None

    def __call__(self) -> tuple[frozenset[str], int]:
        self.times += 1
        return self.names, self.least


def request(changing: Callable[[], tuple[frozenset[str], int]], most_output: int = 1000) -> Request:
    made = Request("openai", MODEL, "chat", lambda: Size(10, 20, max_output_tokens=most_output), changing=changing)
    if isinstance(changing, Asked):
        changing.request = made
    return made


def test_an_admitted_call_is_not_asked() -> None:
    for budgets in ([], [Budget(limit_tokens=10**6)], [Budget(limit_tokens=10**6, action="wait")]):
        asked = Asked("max_output_tokens")
        made = request(asked)
        Meter(enforcer=Enforcer(budgets)).admit(made)
        assert (asked.times, made.changing) == (0, None)


def test_a_refused_call_is_not_asked_where_no_budget_changes_calls() -> None:
    asked = Asked("max_output_tokens")
    made = request(asked)
    with pytest.raises(BudgetExceeded):
        Meter(enforcer=Enforcer([Budget(limit_tokens=1)])).admit(made)
    assert (asked.times, made.changing) == (0, None)


def test_a_budget_that_shrinks_calls_asks_once() -> None:
    asked = Asked("max_output_tokens", least=5)
    made = request(asked)
    ticket = Meter(enforcer=Enforcer([Budget(limit_tokens=100, action="shrink")])).admit(made)
    assert ticket.hold is not None
    assert ticket.hold.change.max_output_tokens == 90
    assert (asked.times, made.changing, made.changes, made.least_output) == (1, None, {"max_output_tokens"}, 5)


def test_a_budget_that_asks_cheaper_models_asks_once() -> None:
    asked = Asked("model")
    made = request(asked)
    budget = Budget(limit_usd=0.001, action="degrade", degrade={MODEL: "gpt-4o-mini"})
    Meter(enforcer=Enforcer([budget])).admit(made)
    assert (asked.times, made.changing, made.model, made.asked_model) == (1, None, "gpt-4o-mini", MODEL)


def test_what_cannot_be_changed_is_refused() -> None:
    asked = Asked()
    made = request(asked)
    with pytest.raises(BudgetExceeded):
        Meter(enforcer=Enforcer([Budget(limit_tokens=100, action="shrink")])).admit(made)
    assert (asked.times, made.changing) == (1, None)


def test_who_takes_something_away_is_believed() -> None:
    asked = Asked("model", "max_output_tokens")
    made = request(asked)
    made.changes = made.changes_now() - {"max_output_tokens"}
    with pytest.raises(BudgetExceeded):
        Meter(enforcer=Enforcer([Budget(limit_tokens=100, action="shrink")])).admit(made)
    assert (asked.times, made.changes) == (1, {"model"})


@pytest.mark.parametrize("limit", [10**6, 1])
def test_nothing_goes_round_in_a_circle(limit: int) -> None:
    meter = Meter(enforcer=Enforcer([Budget(limit_tokens=limit)]))
    asked = Asked("model")
    gone = weakref.ref(asked)
    gc.disable()
    try:
        made = request(asked)
        try:
            meter.admit(made)
        except BudgetExceeded:
            pass
        del made, asked
        assert gone() is None
    finally:
        gc.enable()
