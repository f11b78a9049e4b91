"""What a refusal at the door looks like, and that nothing left the house."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import anthropic
import openai
import pytest
from door_sdks import ANTHROPIC, OPENAI, Sdk, budget_of, read_out, settled, worst_case_of
from opentelemetry.trace import StatusCode

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.budgets import UnpricedModel
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.money import to_nano, to_usd
from tokenbudget_otel.simulator import Behaviour, Simulator

STREAMED = pytest.mark.parametrize("stream", (False, True), ids=("whole", "streamed"))


async def refused(sdk: Sdk, client: Any, **body: Any) -> tb.BudgetExceeded:
    with pytest.raises(tb.BudgetExceeded) as caught:
        await settled(sdk.call(client, **body))
    return caught.value


@STREAMED
async def test_a_refused_call_sends_nothing_and_leaves_one_span(
    sdk: Sdk, asynchronous: bool, stream: bool, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    meter.enforcer.add(tb.Budget(limit_usd="0.000001", name="tiny"))
    client = sdk.client(sim, asynchronous, max_retries=2)  # a refusal is no provider's error: it is not retried
    with tb.tags(tenant="acme"):
        error = await refused(sdk, client, stream=stream)

    assert sim.requests == []
    totals = meter.totals.get("tenant")["acme"]
    assert (totals.calls, totals.refused_calls, totals.nano_usd) == (0, 1, 0)
    row = budget_of(meter)
    assert (row.spent_usd, row.reserved_usd) == (0, 0)

    span = instrumented.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == str(error)
    attributes = span.attributes
    assert attributes[semconv.CALL_OUTCOME] == "refused"
    assert attributes[semconv.BUDGET_NAME] == "tiny"
    assert attributes[semconv.ERROR_TYPE] == "tokenbudget_otel.BudgetExceeded"
    assert attributes[semconv.TAG_PREFIX + "tenant"] == "acme"
    assert attributes[semconv.REQUEST_MODEL] == sdk.model
    assert semconv.USAGE_COST not in attributes
    assert semconv.USAGE_INPUT_TOKENS not in attributes
    (point,) = instrumented.metrics()[semconv.METRIC_REFUSALS]
    assert point.value == 1
    assert point.attributes[semconv.BUDGET_NAME] == "tiny"


def test_a_refusal_explains_itself(sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    client = sdk.client(sim)
    worst = worst_case_of(sdk, sim)
    meter.enforcer.add(tb.Budget(limit_usd=to_usd(2 * worst), window="month", mode="worst_case", name="monthly"))
    sdk.call(client)
    spent = budget_of(meter).spent_usd
    held = sdk.call(client, stream=True)
    with pytest.raises(tb.BudgetExceeded) as caught:
        sdk.call(client)
    held.close()
    error = caught.value
    assert type(error) is tb.BudgetExceeded
    assert not isinstance(error, sdk.status_error)
    assert (error.budget, error.dimension) == ("monthly", "usd")
    assert error.limit_usd == to_usd(2 * worst)
    assert error.spent_usd == spent > 0
    assert error.reserved_usd == error.needed_usd == to_usd(worst)
    assert error.remaining_usd == error.limit_usd - error.spent_usd - error.reserved_usd
    assert error.resets_at is not None
    assert error.retry_after is not None
    assert (error.provider, error.model) == (sdk.name, sdk.model)
    message = str(error)
    for part in ("'monthly'", "needs $", "is left", "spent", "reserved", f"{error.resets_at:%Y-%m-%d}", sdk.model):
        assert part in message
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.shortfall) == (message, error.shortfall)
    assert again.limit_usd == error.limit_usd


LIMITS: dict[str, tuple[dict[str, Any], type[tb.BudgetExceeded]]] = {
    "usd": ({"limit_usd": 0}, tb.BudgetExceeded),
    "tokens": ({"limit_tokens": 10}, tb.TokenLimitReached),
    "calls": ({"limit_calls": 0}, tb.BudgetExceeded),
}


@pytest.mark.parametrize(("limits", "kind"), LIMITS.values(), ids=LIMITS)
def test_each_dimension_refuses_as_a_budget_exceeded(
    limits: dict[str, Any], kind: type[tb.BudgetExceeded], sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    meter.enforcer.add(tb.Budget(**limits))
    with pytest.raises(tb.BudgetExceeded) as caught:
        sdk.call(sdk.client(sim))
    assert type(caught.value) is kind
    assert caught.value.dimension == next(iter(limits)).removeprefix("limit_")
    assert sim.requests == []


def test_tokens_and_calls_are_counted_as_the_provider_does(
    sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    meter.enforcer.add(tb.Budget(limit_tokens=100_000, limit_calls=2))
    sim.default = Behaviour(input_tokens=1000, output_tokens=200)
    client = sdk.client(sim)
    sdk.call(client)
    sdk.call(client)
    row = budget_of(meter)
    assert (row.spent_tokens, row.spent_calls, row.reserved_tokens, row.reserved_calls) == (2400, 2, 0, 0)
    with pytest.raises(tb.BudgetExceeded) as caught:
        sdk.call(client)
    assert caught.value.dimension == "calls"


def test_a_budget_that_warns_lets_calls_through(
    sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    meter.enforcer.add(tb.Budget(limit_usd="0.000001", action="warn", on_warn=told.append, name="soft"))
    client = sdk.client(sim)
    with caplog.at_level(logging.WARNING, "tokenbudget_otel.budgets"):
        for _ in range(3):
            sdk.call(client)
    assert len(sim.requests) == 3
    assert [shortfall.budget for shortfall in told] == ["soft"], "once for a scope and window"
    assert sum("soft" in record.getMessage() for record in caplog.records) == 1
    row = budget_of(meter)
    assert row.spent_usd == to_usd(sum(map(sdk.true_cost, sim.billed)))
    assert row.remaining_usd == 0


# --- prices that are not known --------------------------------------------------------------------------------------


def test_an_unpriced_model_is_refused_with_the_remedy(
    sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=50))
    with pytest.raises(UnpricedModel) as caught:
        sdk.call(sdk.client(sim), model=sdk.unpriced)
    assert sim.requests == []
    message = str(caught.value)
    assert f"register_model({sdk.unpriced!r}" in message
    assert f"provider={sdk.name!r}" in message
    assert "unpriced='allow'" in message
    assert caught.value.needed_usd is None
    assert instrumented.span().attributes[semconv.ERROR_TYPE] == "tokenbudget_otel.UnpricedModel"


def test_an_unpriced_model_may_be_allowed(sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=50, limit_tokens=100_000, unpriced="allow"))
    sim.default = Behaviour(input_tokens=100, output_tokens=20)
    sdk.call(sdk.client(sim), model=sdk.unpriced)
    row = budget_of(meter)
    assert (row.spent_usd, row.spent_tokens, row.reserved_usd, row.reserved_tokens) == (0, 120, 0, 0)
    totals = meter.totals.get()
    assert (totals.calls, totals.unpriced_calls, totals.nano_usd) == (1, 1, 0)
    attributes = instrumented.span().attributes
    assert attributes[semconv.COST_STATE] == "unknown"
    assert semconv.USAGE_COST not in attributes, "unknown is not zero"


def test_a_token_budget_needs_no_price(sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    meter.enforcer.add(tb.Budget(limit_tokens=100_000))
    sdk.call(sdk.client(sim), model=sdk.unpriced)
    assert len(sim.requests) == 1


def test_a_model_whose_price_was_added_is_admitted(sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    model = f"registered-by-a-test-{sdk.name}"
    tb.register_model(model, input_per_1m=1, output_per_1m=10, provider=sdk.name)
    meter.enforcer.add(tb.Budget(limit_usd=50))
    sim.default = Behaviour(input_tokens=1_000, output_tokens=100)
    sdk.call(sdk.client(sim), model=model)
    assert budget_of(meter).spent_usd == Decimal("0.002")


# --- tenants -----------------------------------------------------------------------------------------------------


async def test_each_tenant_has_a_budget_of_its_own(
    sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    meter.enforcer.add(tb.Budget(limit_calls=2, per="tenant"))
    client = sdk.client(sim, asynchronous)
    for tenant in ("acme", "globex"):
        with tb.tags(tenant=tenant):
            for _ in range(2):
                await settled(sdk.call(client))
            error = await refused(sdk, client)
        assert error.scope == {"tenant": tenant}
        assert f"tenant={tenant}" in str(error)
    # Leaving the tag out is no way around it: those without have one budget together.
    for _ in range(2):
        await settled(sdk.call(client))
    await refused(sdk, client)
    assert len(sim.requests) == 6
    assert {row.scope["tenant"]: row.spent_calls for row in meter.enforcer.status()} == {
        "acme": 2, "globex": 2, "": 2,
    }  # fmt: skip


def test_a_budget_matches_models_and_providers(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    meter.enforcer.add(tb.Budget(limit_calls=0, match={"model": "GPT-4*"}))
    with pytest.raises(tb.BudgetExceeded):
        OPENAI.call(OPENAI.client(sim))
    ANTHROPIC.call(ANTHROPIC.client(sim))
    assert len(sim.requests) == 1


# --- the upper bound ------------------------------------------------------------------------------------------------


def test_worst_case_grows_with_max_tokens(sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any) -> None:
    """By exactly the price of the tokens more that may come."""
    more, less = (worst_case_of(sdk, sim, max_tokens=count) for count in (4000, 1000))
    per_token = tb.calculate_cost(sdk.model, tb.TokenUsage(output_tokens=3000), provider=sdk.name)
    assert per_token is not None
    assert abs((more - less) - per_token.nano_usd) <= 1


def test_worst_case_counts_every_choice(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    one, three = (worst_case_of(OPENAI, sim, max_tokens=1000, n=count) for count in (1, 3))
    per_choice = tb.calculate_cost(OPENAI.model, tb.TokenUsage(output_tokens=1000), provider="openai")
    assert per_choice is not None
    assert abs((three - one) - 2 * per_choice.nano_usd) <= 1


def test_worst_case_of_openai_by_its_newer_name(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    former = worst_case_of(OPENAI, sim, max_tokens=1000)
    newer = worst_case_of(OPENAI, sim, max_tokens=None, max_completion_tokens=1000)
    assert abs(former - newer) < former // 10


@pytest.mark.parametrize("content", ("short", "x" * 20_000, "日本語" * 3_000, "🙂" * 2_000), ids=len)
def test_worst_case_is_no_less_than_a_token_for_every_byte(
    content: str, sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    worst = worst_case_of(sdk, sim, max_tokens=10, messages=[{"role": "user", "content": content}])
    least = tb.calculate_cost(
        sdk.model, tb.TokenUsage(input_tokens=len(content.encode()), output_tokens=10), provider=sdk.name
    )
    assert least is not None
    assert worst >= least.nano_usd


async def test_streams_hold_what_they_may_come_to_until_they_end(
    sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    worst = worst_case_of(sdk, sim)
    sim.reset()
    meter.enforcer.add(tb.Budget(limit_usd=to_usd(worst), mode="worst_case"))
    client = sdk.client(sim, asynchronous)
    stream = await settled(sdk.call(client, stream=True))
    assert to_nano(budget_of(meter).reserved_usd) == worst
    error = await refused(sdk, client)
    assert error.reserved_usd == to_usd(worst)
    await read_out(stream)
    row = budget_of(meter)
    assert row.reserved_usd == 0
    assert row.spent_usd == to_usd(sdk.true_cost(sim.billed[0]))


# Parts of a request that are only put into words when it is sent: what a program hands on from an earlier answer.
LONG = "lengthy " * 4_000


def blocks_of_an_answer(sdk: Sdk) -> Any:
    if sdk is ANTHROPIC:
        return [{"role": "assistant", "content": [anthropic.types.TextBlock(type="text", text=LONG)]}]
    return [openai.types.chat.ChatCompletionMessage(role="assistant", content=LONG)]


HANDED_ON: dict[str, Callable[[Sdk], Any]] = {
    "a_generator": lambda sdk: (message for message in [{"role": "user", "content": LONG}]),
    "an_iterator": lambda sdk: iter([{"role": "user", "content": LONG}]),
    "objects_of_the_sdk": blocks_of_an_answer,
    "a_mapping": lambda sdk: [MappingProxyType({"role": "user", "content": LONG})],
}


@pytest.mark.parametrize("messages", HANDED_ON.values(), ids=HANDED_ON)
def test_worst_case_covers_what_is_handed_on(
    messages: Callable[[Sdk], Any], sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    """What cannot be seen beforehand is bounded by the context window, not by nothing."""
    client = sdk.client(sim)
    with tb.budget(max_cost_usd=1000, mode="worst_case") as run:
        try:
            stream = sdk.call(client, stream=True, max_tokens=10, messages=messages(sdk))
        except TypeError:
            pytest.skip("this SDK does not take it")
        assert run.remaining_usd is not None
        worst = to_nano(1000) - to_nano(run.remaining_usd)
        for _ in stream:
            pass
    assert LONG in sim.requests[0].body.decode(), "it was sent"
    assert worst >= sdk.true_cost(sim.billed[0])


CACHE = {"none": None, "5m": {"type": "ephemeral"}, "1h": {"type": "ephemeral", "ttl": "1h"}}


@pytest.mark.parametrize("place", ("system", "messages", "tools", "top"))
@pytest.mark.parametrize("ttl", CACHE)
def test_worst_case_covers_writing_all_of_it_to_the_cache(
    ttl: str, place: str, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    control = {"cache_control": CACHE[ttl]} if CACHE[ttl] else {}
    body: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be kind. " * 50, **(control if place == "system" else {})}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", **(control if place == "messages" else {})}]}
        ],
        "tools": [{"name": "t", "input_schema": {"type": "object"}, **(control if place == "tools" else {})}],
        "extra_body": control if place == "top" else {},
    }
    worst = worst_case_of(ANTHROPIC, sim, max_tokens=100, **body)
    # The most that may come of so many bytes: each of them a token, and all of them written.
    most = len(sim.requests[0].body)
    written = {"cache_write_tokens": most, f"cache_write_{ttl}_tokens": most} if control else {}
    cost = tb.calculate_cost(
        ANTHROPIC.model, tb.TokenUsage(input_tokens=most, output_tokens=100, **written), provider="anthropic"
    )
    assert cost is not None
    assert worst >= cost.nano_usd


def test_worst_case_covers_fast_mode(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    usual, fast = (
        worst_case_of(ANTHROPIC, sim, model="claude-opus-5", max_tokens=1_000, extra_body=extra)
        for extra in ({}, {"speed": "fast"})
    )
    assert fast > usual


def test_worst_case_covers_the_searches_that_are_allowed(sim: Simulator, meter: Meter, instrumented: Any) -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    few, many = (worst_case_of(ANTHROPIC, sim, max_tokens=10, tools=[{**tool, "max_uses": uses}]) for uses in (1, 101))
    assert many - few >= to_nano(1), "a hundred searches more, at ten dollars for a thousand"


def test_an_unpriced_model_may_be_counted_at_the_dearest_price(
    sdk: Sdk, sim: Simulator, meter: Meter, instrumented: Any
) -> None:
    """What it costs is not known, and stays so on the span: only the budget assumes the worst."""
    meter.enforcer.add(tb.Budget(limit_usd=5, unpriced="assume"))
    provider = "anthropic" if sdk is ANTHROPIC else "openai"
    dearest = meter.prices.dearest(provider)
    assert dearest is not None
    sim.default = Behaviour(text="Hi.", input_tokens=1_000, output_tokens=100)
    sdk.call(sdk.client(sim), model="no-such-model")
    usage = meter.totals.get().usage
    assert meter.totals.get().nano_usd == 0 and meter.totals.get().unpriced_calls == 1
    row = budget_of(meter)
    assert to_nano(row.spent_usd) == meter.prices.cost(provider, dearest, usage).nano_usd > 0
    assert row.reserved_usd == 0
    assert semconv.USAGE_COST not in instrumented.span().attributes
