"""The span processor that is put on a tracer provider by us: once, for as long as it is wanted."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import tokenbudget_otel as tb
from tokenbudget_otel import attached, semconv
from tokenbudget_otel.attached import attach, detach, is_attached
from tokenbudget_otel.auto import TokenBudgetInstrumentor
from tokenbudget_otel.budgets.config import KEYS
from tokenbudget_otel.budgets.config import OPTIONS as CHECKED
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.instrumentation import instrumentor as engine
from tokenbudget_otel.instrumentation.instrumentor import SdkOptions
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.processor import TokenBudgetSpanProcessor
from tokenbudget_otel.settings import option
from tokenbudget_otel.tags import current_tags, tag_process

CALL = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_failed() -> Iterator[None]:
    guard._logged.clear()
    engine._refused.clear()
    yield
    detach()
    assert not guard._logged


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No global tracer provider is set."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", type(trace._TRACER_PROVIDER_SET_ONCE)())


def called(provider: TracerProvider, **more: Any) -> Any:
    span = provider.get_tracer("somebody").start_span("chat", attributes=CALL | more)
    span.end()
    return span


def processors(provider: TracerProvider) -> int:
    return len(provider._active_span_processor._span_processors)


def test_it_is_put_on_once_and_can_be_switched_off_and_on(meter: Meter) -> None:
    provider = TracerProvider()
    attach(provider)
    attach(provider)
    assert processors(provider) == 1
    assert called(provider).attributes[semconv.USAGE_COST] == 0.0035
    detach()
    assert semconv.USAGE_COST not in called(provider).attributes
    attach(provider)
    assert processors(provider) == 1
    called(provider)
    assert meter.totals.get().calls == 2


def test_that_of_the_program_is_left_alone(meter: Meter) -> None:
    provider = TracerProvider()
    provider.add_span_processor(TokenBudgetSpanProcessor(tags="none"))
    attach(provider)
    assert (processors(provider), is_attached(provider)) == (1, False)


def test_two_of_them_charge_a_call_once(meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=1, window="day", name="day"))
    reader, provider = InMemoryMetricReader(), TracerProvider()
    metrics = MeterProvider([reader])
    attach(provider, meter_provider=metrics)
    provider.add_span_processor(TokenBudgetSpanProcessor(meter_provider=metrics))
    called(provider)
    assert processors(provider) == 2
    assert (meter.totals.get().calls, meter.totals.get().nano_usd) == (1, 3_500_000)
    (status,) = meter.enforcer.status()
    assert status.spent_usd * 10_000 == 35
    data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    (cost,) = [metric for metric in data if metric.name == semconv.METRIC_COST]
    assert [point.value for point in cost.data.data_points] == [0.0035]


def test_a_provider_that_is_set_later_gets_it_and_nothing_is_left_behind(meter: Meter, unset: None) -> None:
    before = trace.set_tracer_provider
    attach()
    attach()
    kept = trace.set_tracer_provider
    assert kept is not before
    provider = TracerProvider()
    kept(provider)
    assert is_attached(provider)
    assert trace.set_tracer_provider is before
    kept(TracerProvider())  # refused by OpenTelemetry, which logs it
    assert processors(provider) == 1


def test_what_is_given_up_waits_no_more(meter: Meter, unset: None) -> None:
    before = trace.set_tracer_provider
    attach()
    detach()
    assert trace.set_tracer_provider is before
    trace.set_tracer_provider(provider := TracerProvider())
    assert processors(provider) == 0


def test_somebody_elses_wrapper_on_top_stays(meter: Meter, unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    attach()
    ours = trace.set_tracer_provider
    monkeypatch.setattr(trace, "set_tracer_provider", theirs := lambda provider: ours(provider))
    trace.set_tracer_provider(provider := TracerProvider())
    assert is_attached(provider)
    assert trace.set_tracer_provider is theirs
    assert attached._awaiting is None


def test_tb_instrument_puts_it_on_where_it_is_asked_to(meter: Meter) -> None:
    with_it, without = TracerProvider(), TracerProvider()
    try:
        tb.instrument(with_it, processor=True, former_names=True)
        tb.instrument(without)
        assert (processors(with_it), processors(without)) == (1, 0)
        assert "gen_ai.system" in called(with_it).attributes
    finally:
        tb.uninstrument()
    called(with_it)
    assert meter.totals.get().calls == 1


OPTIONS = {
    "budgets": [{"name": "house", "limit_usd": 5, "window": "day"}],
    "limits": [{"budget": "house", "usd": 7}],
    "tags": {"team": "search"},
    "span_tags": "genai",
}


def test_the_instrumentor_takes_what_a_file_may_say(meter: Meter) -> None:
    provider = TracerProvider()
    instrumentor = TokenBudgetInstrumentor()
    try:
        instrumentor.instrument(tracer_provider=provider, **OPTIONS)
        instrumentor.instrument(tracer_provider=provider)
        assert [budget.name for budget in meter.enforcer.budgets] == ["house"]
        assert called(provider).attributes["tokenbudget.tag.team"] == "search"
        plain = provider.get_tracer("app").start_span("work")
        assert "tokenbudget.tag.team" not in plain.attributes
        (status,) = meter.enforcer.status()
        assert (status.limit_usd, status.spent_usd * 10_000) == (7, 35)
        assert processors(provider) == 1
    finally:
        instrumentor.uninstrument()
        tag_process({})
    assert not is_attached(provider)
    assert option("span_tags", "all") == "all"


MISTAKES = {
    "another budget of the name": (
        {"budgets": [{"name": "house", "limit_usd": 6}], "tags": {"team": "search"}},
        "options of tokenbudget: there are two different budgets named 'house'",
    ),
    "no such key": ({"tag": {"team": "search"}}, "options of tokenbudget: unknown key 'tag': did you mean 'tags'?"),
    "not a path": (
        {"config": 5, "tags": {"team": "search"}},
        "options of tokenbudget: config must be the path of a file",
    ),
    "no such file": ({"config": "/no/such.toml"}, "the configuration /no/such.toml cannot be read"),
    "not a table": ({"budgets": {"limit_usd": 5}}, "options of tokenbudget: budgets must be tables"),
    "a key that is no text": ({"budgets": [{5: "usd"}]}, "[[budgets]] table 1: unknown key 5: use one of"),
}


@pytest.mark.parametrize(("options", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_logged_and_the_processor_put_on_all_the_same(
    meter: Meter, caplog: pytest.LogCaptureFixture, options: dict[str, Any], says: str
) -> None:
    meter.enforcer.add(house := tb.Budget(name="house", limit_usd=5))
    provider = TracerProvider()
    instrumentor = TokenBudgetInstrumentor()
    try:
        instrumentor.instrument(tracer_provider=provider, **options)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert says in caplog.text
        assert is_attached(provider)
        assert list(meter.enforcer.budgets) == [house]
        assert current_tags() == {}
    finally:
        instrumentor.uninstrument()


def test_whatever_tb_instrument_takes_can_stand_in_a_file() -> None:
    """Where an argument is new, it is a row in ``OPTIONS``, and in the documents."""
    said_otherwise = {"tracer_provider", "meter_provider", "logger_provider", "config"}
    assert set(inspect.signature(tb.instrument).parameters) - said_otherwise <= set(KEYS)
    assert SdkOptions.__annotations__.keys() <= CHECKED.keys()
