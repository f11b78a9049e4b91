"""Whatever a program makes up (tags, models, hosts, keys), no table grows with it for ever."""

from __future__ import annotations

import gc
import logging
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import tokenbudget_otel as tb
from tokenbudget_otel import totals as totals_module
from tokenbudget_otel.budgets import Amount, Budget, Call, Enforcer, Estimate
from tokenbudget_otel.budgets.ledger import Claim
from tokenbudget_otel.budgets.ledgers.memory import MemoryLedger
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.instrumentation.litellm import LiteLLMCall
from tokenbudget_otel.instrumentation.openai import MAX_REFUSING, OpenAIDoor
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.pricing import book as book_module
from tokenbudget_otel.processor import TokenBudgetSpanProcessor
from tokenbudget_otel.totals import OTHER, TotalsTable
from tokenbudget_otel.usage import TokenUsage

USED = TokenUsage(input_tokens=10, output_tokens=1)


@pytest.fixture
def small_totals(monkeypatch: pytest.MonkeyPatch) -> TotalsTable:
    monkeypatch.setattr(totals_module, "MAX_ROWS", 10)
    monkeypatch.setattr(totals_module, "MAX_MORE_ROWS", 3)
    return TotalsTable()


def test_totals_of_endless_tags_are_counted_together(small_totals: TotalsTable) -> None:
    for number in range(100):
        small_totals.add("openai", "gpt-5", "chat", {"user": f"u{number}"}, USED, 7)
    assert len(small_totals.rows()) == 11
    assert small_totals.get(by="user")[OTHER].calls == 90
    assert (small_totals.get().calls, small_totals.get().nano_usd) == (100, 700)


@pytest.mark.parametrize("refused", (False, True))
def test_totals_of_endless_models_too(small_totals: TotalsTable, refused: bool) -> None:
    for number in range(100):
        key = ("openai", f"made-up-{number}", "chat", {"user": f"u{number}"})
        if refused:
            small_totals.refuse(*key)
        else:
            small_totals.add(*key, USED, 7)
    assert len(small_totals.rows()) == 14
    rest = small_totals.get(by="model")[OTHER]
    whole = small_totals.get()
    if refused:
        assert (rest.refused_calls, whole.refused_calls) == (87, 100)
    else:
        assert (rest.calls, whole.calls, whole.nano_usd) == (87, 100, 700)


def test_a_row_that_is_there_goes_on_being_counted(small_totals: TotalsTable) -> None:
    for number in range(100):
        small_totals.add("openai", f"made-up-{number}", "chat", {}, USED, 7)
        small_totals.add("openai", "made-up-0", "chat", {}, USED, 7)
    assert small_totals.get(by="model")["made-up-0"].calls == 101


def test_what_is_told_once_is_told_of_so_many_things(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "_told", set())
    monkeypatch.setattr(guard, "_logged", set())
    monkeypatch.setattr(guard, "MAX_TOLD", 5)
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            guard.tell_once(f"host {number}", "who is %s?", number)
            guard.tell_once(f"host {number}", "who is %s?", number)
            guard.log_once(f"do thing {number}", ValueError("no"))
    assert len(caplog.records) == 10
    assert len(guard._told) == len(guard._logged) == 5


def test_servers_that_refuse_stream_options_are_forgotten_at_some_time() -> None:
    door = OpenAIDoor(SimpleNamespace(), Meter())  # type: ignore[arg-type]
    error: Any = ValueError("Unknown parameter: stream_options")
    error.status_code = 400
    for number in range(3 * MAX_REFUSING):
        opened: Any = SimpleNamespace(base_url=f"http://host-{number}/v1/")
        assert door.refused_change(opened, error)
        assert opened.base_url in door._refusing
        assert len(door._refusing) <= MAX_REFUSING


def test_bases_of_litellm_that_refuse_them_too() -> None:
    parent = SimpleNamespace(refusing=set())
    call: Any = SimpleNamespace(_litellm=parent)
    error: Any = ValueError("Unknown parameter: stream_options")
    error.status_code = 400
    for number in range(3 * MAX_REFUSING):
        opened = SimpleNamespace(peer=SimpleNamespace(provider="openai"), body={"api_base": f"http://host-{number}"})
        assert LiteLLMCall.refused_change(call, opened, error)  # type: ignore[arg-type]
        assert ("openai", f"http://host-{number}") in parent.refusing
        assert len(parent.refusing) <= MAX_REFUSING


def test_made_up_providers_do_not_fill_the_price_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "_MOST_CACHED", 20)
    book = PriceBook()
    for number in range(100):
        assert book.dearest("openai") is not None
        assert book.dearest(f"made-up-{number}") is None
        assert book.cost(f"made-up-{number}", f"model-{number}", USED).nano_usd is None
        view = book._view
        assert max(map(len, (view.dearest, view.found, view.tariffs, view.reachable))) <= 20


class TestLedger:
    def test_ends_of_windows_go_with_the_keys_that_gave_way(self) -> None:
        ledger = MemoryLedger(clock=lambda: 0.0, max_keys=100)
        for number in range(5_000):
            claim = Claim(f"user|{number}", calls=1, limit_calls=9, ends=1_000.0)
            ledger.charge(f"call {number}", Amount(1, 1), (claim,))
        assert len(ledger.balances()) == 100
        assert ledger.dropped == 4_900
        assert len(ledger._window_ends) <= 64 + 2 * 100
        kept = {key for _, key in ledger._window_ends}
        assert {balance.key for balance in ledger.balances()} <= kept, "every key is dropped after its window"

    @pytest.mark.parametrize("ends", (None, 1_000.0))
    def test_marks_give_way_to_newer_ones(self, ends: float | None) -> None:
        ledger = MemoryLedger(clock=lambda: 0.0, max_keys=100, max_ended=10)
        for number in range(1_000):
            assert ledger.first(f"alert|{number}", ends)
            assert not ledger.first(f"alert|{number}", ends)
            assert len(ledger._marks) <= 100
        assert not ledger.first("alert|950", ends), "the newest are remembered"

    def test_marks_of_windows_that_are_over_go_first(self) -> None:
        now = [0.0]
        ledger = MemoryLedger(clock=lambda: now[0], max_keys=1_000, max_ended=10)
        ledger.first("for ever", None)
        for number in range(500):
            now[0] = float(number)
            ledger.first(f"alert|{number}", number + 2.0)
        assert len(ledger._marks) <= 20
        assert not ledger.first("for ever", None)

    def test_scopes_are_forgotten_where_no_call_is_admitted_either(self) -> None:
        """Spans of others are charged, and never admitted."""
        enforcer = Enforcer()
        for number in range(300):
            with tb.budget(max_calls=3):
                enforcer.charge(Call("openai", "gpt-5", {}), Amount(1, 1), id=str(number))
        gc.collect()
        enforcer.charge(Call("openai", "gpt-5", {}), Amount(1, 1))
        with tb.budget(max_calls=3):
            enforcer.charge_soon(Call("openai", "gpt-5", {}), Amount(1, 1))
        assert len(enforcer.ledger.balances()) <= 1
        assert len(enforcer._ended_runs) <= 1, "that of the last one"

    def test_and_where_they_are(self) -> None:
        enforcer = Enforcer([Budget(limit_calls=1_000, name="all")])
        call, amount = Call("openai", "gpt-5", {}), Amount(1, 1)
        for _ in range(300):
            with tb.budget(max_calls=3):
                enforcer.settle(enforcer.admit(call, Estimate(amount, amount)), amount)
        gc.collect()
        enforcer.settle(enforcer.admit(call, Estimate(amount, amount)), amount)
        assert {balance.key.partition("|")[0] for balance in enforcer.ledger.balances()} != {"run"}
        assert len(enforcer.ledger.balances()) <= 2


def test_a_call_that_never_ends_does_not_keep_the_spans_above_it() -> None:
    provider = TracerProvider()
    provider.add_span_processor(processor := TokenBudgetSpanProcessor(Meter()))
    tracer = provider.get_tracer("somebody")
    root: Any = tracer.start_span("root")
    inner = tracer.start_span(
        "chat", trace.set_span_in_context(root), attributes={"gen_ai.operation.name": "chat", "gen_ai.system": "openai"}
    )
    seen = weakref.ref(root)
    inner_id = inner.get_span_context().span_id
    del root, inner
    gc.collect()
    assert seen() is None
    assert inner_id in processor._open


def test_tags_and_budgets_around_the_start_of_such_a_call_still_count() -> None:
    meter = Meter()
    provider = TracerProvider()
    provider.add_span_processor(TokenBudgetSpanProcessor(meter))
    with tb.tags(tenant="acme"), tb.budget(max_calls=3) as run:
        span = provider.get_tracer("somebody").start_span(
            "chat",
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.usage.input_tokens": 100,
            },
        )
    span.end()
    assert meter.totals.get(by="tenant")["acme"].calls == 1
    assert run.calls == 1
