"""Tags on metrics, and that nobody makes endless series of them."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from typing import Any

import metrics_harness as harness
import pytest
from metrics_harness import GPT, chat, measuring, tried

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import call_metrics
from tokenbudget_otel.instrumentation.bounded import OTHER, Bounded
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

TENANT = semconv.TAG_PREFIX + "tenant"


def test_no_tag_is_on_metrics_by_itself(sim: Simulator) -> None:
    with measuring() as read, tb.tags(tenant="acme"):
        chat(sim)
        found = read()
    assert not [
        name
        for points in found.points.values()
        for point in points
        for name in point.attributes
        if name.startswith(semconv.TAG_PREFIX)
    ]


@pytest.mark.parametrize("names", ["current", "coming"])
def test_the_tags_that_are_asked_for_are_on_every_metric(names: str, sim: Simulator) -> None:
    with measuring(metric_tags=("tenant", "team"), metric_names=names) as read:
        with tb.tags(tenant="acme", user="eve"):
            sim.then(Behaviour(text="Little.", chunks=3, input_tokens=100, cached_tokens=50))
            harness.chat_stream(sim)
            sim.then(Behaviour(status=429))
            tried(chat, sim)
        found = read()
    for points in found.points.values():
        for point in points:
            tags = {name: value for name, value in point.attributes.items() if name.startswith(semconv.TAG_PREFIX)}
            assert tags == {TENANT: "acme"}


def test_wrapped_clients_take_the_options_too(sim: Simulator, telemetry: Any) -> None:
    client = tb.wrap(harness.gpt(sim), meter_provider=telemetry.meter_provider, metric_tags=["tenant"])
    with tb.tags(tenant="acme"):
        client.chat.completions.create(model=GPT, messages=harness.SAID)
    (point,) = telemetry.metrics()[semconv.METRIC_CALLS]
    assert point.attributes[TENANT] == "acme"


def test_values_beyond_the_bound_are_counted_together_and_that_is_told_once(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(call_metrics, "MAX_TAG_VALUES", 3)
    with measuring(metric_tags=("tenant",)) as read, caplog.at_level(logging.WARNING, "tokenbudget_otel"):
        for tenant in ("a", "b", "c", "d", "e", "a"):
            with tb.tags(tenant=tenant):
                chat(sim)
        found = read()
    assert found.by(semconv.METRIC_CALLS, TENANT) == {"a": 2, "b": 1, "c": 1, OTHER: 2}
    (line,) = [record.getMessage() for record in caplog.records if TENANT in record.getMessage()]
    assert "more than 3 values" in line
    assert tb.usage(by="tenant").keys() == {"a", "b", "c", "d", "e"}, "totals are not bounded by it"


def test_models_that_callers_make_up_do_not_make_endless_series(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_metrics, "_asked", Bounded(semconv.REQUEST_MODEL, 2))
    monkeypatch.setattr(call_metrics, "_answered", Bounded(semconv.RESPONSE_MODEL, 1))
    with measuring() as read:
        for model in (GPT, "made-up-1", "made-up-2", "made-up-3", GPT):
            chat(sim, model=model)
        found = read()
    assert found.by(semconv.METRIC_CALLS, semconv.REQUEST_MODEL) == {GPT: 2, "made-up-1": 1, OTHER: 2}
    assert found.by(semconv.METRIC_CALLS, semconv.RESPONSE_MODEL) == {GPT: 2, OTHER: 3}


def test_scopes_of_refusals_are_bounded(sim: Simulator, meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_metrics, "_scopes", Bounded(semconv.BUDGET_SCOPE, 2))
    meter.enforcer.add(tb.Budget(limit_calls=0, per="tenant"))
    with measuring() as read:
        for number in range(5):
            with tb.tags(tenant=f"t{number}"), pytest.raises(tb.BudgetExceeded):
                chat(sim)
        found = read()
    assert found.by(semconv.METRIC_REFUSALS, semconv.BUDGET_SCOPE) == {"tenant=t0": 1, "tenant=t1": 1, OTHER: 3}


def test_one_bound_holds_for_all_instrumentors_of_a_process() -> None:
    assert call_metrics._values_of("tenant") is call_metrics._values_of("tenant")


def test_no_thread_gets_a_value_past_the_bound() -> None:
    bounded = Bounded("x", 50)
    start = threading.Barrier(8)
    seen: list[set[str]] = [set() for _ in range(8)]

    def work(mine: set[str], number: int) -> None:
        start.wait()
        mine.update(bounded(f"{value}-{number % 2}") for value in range(200))

    threads = [threading.Thread(target=work, args=(mine, number)) for number, mine in enumerate(seen)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set().union(*seen) - {OTHER}) == 50


def _in_child(bounded: Bounded, answer: Any) -> None:
    answer.put([bounded("known"), bounded("new"), bounded("newer")])


def test_a_child_forked_while_a_thread_is_at_it_goes_on() -> None:
    bounded = Bounded("x", 2)
    bounded("known")
    forking = multiprocessing.get_context("fork")
    answer = forking.Queue()
    with bounded._lock:  # as another thread might hold it at the fork
        child = forking.Process(target=_in_child, args=(bounded, answer))
        child.start()
    assert answer.get(timeout=20) == ["known", "new", OTHER]
    child.join(20)
