"""Admission in one go is admission step by step: the same verdicts, claims, warnings and words, and the same ledger."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Amount, Budget, BudgetExceeded, Call, Enforcer, Estimate, MemoryLedger, budget
from tokenbudget_otel.budgets import plans as plans_of
from tokenbudget_otel.budgets.steps import run
from tokenbudget_otel.meter import Meter, Reading, Request, Size
from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.usage import TokenUsage

from .budget_ledgers import Clock

USD = 10**9


def within(runs: list[budget], act: Callable[[], Any]) -> Any:
    with contextlib.ExitStack() as stack:
        for each in runs:
            stack.enter_context(each)
        return act()


def one_go(enforcer: Enforcer, call: Call, estimate: Estimate) -> Any:
    return enforcer.admit(call, estimate)


def by_steps(enforcer: Enforcer, call: Call, estimate: Estimate) -> Any:
    return run(enforcer.admission(call, estimate), enforcer.way)


def told(admit: Callable[..., Any], enforcer: Enforcer, call: Call, estimate: Estimate) -> tuple[Any, Any]:
    """What somebody who asks is told, without the name of the hold; and the hold."""
    try:
        hold = admit(enforcer, call, estimate)
    except BudgetExceeded as error:
        before = str(error)  # as it is written before the shortfall has been made
        return (type(error), error.shortfall, str(error), vars(error), before), None
    if hold is None:
        return None, None
    # The keys of runs are each its own.
    claims = [claim[hold._runs > index :] for index, claim in enumerate(hold.claims)]
    facts = (claims, hold.warnings, hold.cut, hold.change, hold.unpriced, hold.estimate, hold.call, hold._sources)
    return facts, hold


LIMITS = st.sampled_from(
    (
        {"limit_usd": 1},
        {"limit_usd": "0.5"},
        {"limit_tokens": 900},
        {"limit_tokens": 90, "token_type": "output"},
        {"limit_tokens": 900, "token_type": "input"},
        {"limit_calls": 4},
        {"limit_usd": 3, "limit_calls": 5},
    )
)
OTHERS = st.fixed_dictionaries(
    {
        "window": st.sampled_from(("lifetime", "hour", "day", "month", "rolling 1h")),
        "action": st.sampled_from(("block", "block", "warn")),
        "mode": st.sampled_from(("expected", "worst_case")),
        "dry_run": st.booleans(),
    },
    optional={
        "per": st.sampled_from(("tenant", ("tenant", "user"), "model", "provider")),
        "match": st.sampled_from(({"tenant": "a*"}, {"model": "gpt-5"}, {"user": "u1"}, {"api_key": "…x"})),
    },
)
BUDGETS = st.lists(st.builds(lambda one, other: one | other, LIMITS, OTHERS), max_size=4)

CALLS = st.builds(
    Call,
    st.sampled_from(("openai", "anthropic")),
    st.sampled_from(("gpt-5", "GPT-5", "o3")),
    st.dictionaries(st.sampled_from(("tenant", "user", "other")), st.sampled_from(("acme", "b|c", "u1")), max_size=3),
    context=st.none(),
    operation=st.none(),
    api_key=st.sampled_from(("", "…x")),
)

MONEY = st.sampled_from((0, 1, USD // 10, USD, None))
ESTIMATES = st.builds(
    lambda usd, tokens, more, read: Estimate(
        Amount(usd, tokens), Amount(None if usd is None else usd * 2, tokens + more), input_tokens=(read, read + more)
    ),
    MONEY,
    st.integers(50, 900),
    st.integers(0, 200),
    st.integers(0, 50),
)

RUNS = st.lists(
    st.fixed_dictionaries(
        {"max_calls": st.integers(0, 5), "max_tokens": st.integers(100, 3000)},
        optional={"mode": st.just("worst_case"), "max_cost_usd": st.just("1.5"), "cut_streams": st.just(True)},
    ),
    max_size=2,
)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), CALLS, ESTIMATES),
        st.tuples(st.just("settle"), st.integers(0, 9), st.builds(Amount, MONEY, st.integers(0, 900), st.just(1))),
        st.tuples(st.just("release"), st.integers(0, 9), st.none()),
        st.tuples(st.just("time"), st.sampled_from((1.0, 61.0, 1800.0, 3600.0, 86_400.0, -5.0)), st.none()),
        st.tuples(st.just("limit"), st.sampled_from(("acme", "b|c")), st.sampled_from((None, 1, 9))),
    ),
    max_size=25,
)


@given(BUDGETS, RUNS, STEPS)
def test_the_same_history_has_the_same_verdicts(
    declared: list[dict[str, Any]], around: list[dict[str, Any]], steps: list[Any]
) -> None:
    clock = Clock()
    budgets = [Budget(**each, name=f"b{index}") for index, each in enumerate(declared)]
    enforcers = [Enforcer(budgets, clock=clock) for _ in range(2)]
    runs = [[budget(**each, name=f"r{index}") for index, each in enumerate(around)] for _ in enforcers]
    holds: list[list[Any]] = [[], []]
    for what, one, other in steps:
        if what == "call":
            answers = [
                within(mine, functools.partial(told, way, each, one, other))
                for way, each, mine in zip((one_go, by_steps), enforcers, runs, strict=True)
            ]
            (first, _), (second, _) = answers
            if isinstance(first, tuple) and isinstance(first[0], list):
                # Rules are each enforcer's own: the budgets are the same.
                first, second = ((*facts[:-1], [each.name for each in facts[-1]]) for facts in (first, second))
            elif isinstance(first, tuple):
                first, second = (
                    {**facts[3], "shortfall": str(facts[1])} | {"kind": facts[0], "said": facts[2]}
                    for facts in (first, second)
                )
            assert first == second
            for mine, (_, hold) in zip(holds, answers, strict=True):
                if hold is not None:
                    mine.append(hold)
        elif what in ("settle", "release"):
            for each, mine in zip(enforcers, holds, strict=True):
                if mine:
                    hold = mine[one % len(mine)]
                    each.settle(hold, other, TokenUsage(output_tokens=other.tokens)) if other else each.release(hold)
        elif what == "time":
            clock.on(one)
        else:
            for each in enforcers:
                for rule in each._rules:
                    if rule.per == ("tenant",):
                        each.set_limit(one, limit_calls=other, budget=rule.name)
        ledgers = [each.ledger for each in enforcers]
        assert ledgers[0].balances("budget|") == ledgers[1].balances("budget|")
        stand = [[(each._spent, each._reserved, each.usage, ledger.balance(each.key)[1:]) for each in mine]
                 for mine, ledger in zip(runs, ledgers, strict=True)]  # fmt: skip
        assert stand[0] == stand[1]
    assert [row for row in enforcers[0].status() if row.window != "run"] == [
        row for row in enforcers[1].status() if row.window != "run"
    ]
    open_holds = [
        [
            (
                [claim for claim in hold.claims if claim.key.startswith("budget|")],
                hold.created,
                hold.expires,
                hold.owner,
            )
            for hold in each.ledger.holds()
        ]
        for each in enforcers
    ]
    assert open_holds[0] == open_holds[1]


CALL = Call("openai", "gpt-5", {"tenant": "acme"})
SMALL = Estimate(Amount(10, 10), Amount(20, 20))


def at_once(enforcer: Enforcer, call: Call = CALL, estimate: Estimate = SMALL) -> bool:
    """Whether a call that is admitted is so in one go."""
    plan = enforcer.plan_at_once(call)
    return plan is not None and enforcer.admit_at_once(plan, call, estimate, os.urandom(4).hex()) is not None


def test_the_usual_call_is_admitted_in_one_go() -> None:
    enforcer = Enforcer([Budget(limit_usd=1, window="day"), Budget(limit_tokens=99, per="tenant", action="wait")])
    assert at_once(enforcer)


@pytest.mark.parametrize(
    "enforcer",
    [
        Enforcer([Budget(limit_usd=1)], ledger=type("Mine", (MemoryLedger,), {})()),
        Enforcer([Budget(limit_usd=1, action="degrade", degrade={"gpt-5": "gpt-5-mini"}, degrade_at=0.5)]),
    ],
)
def test_what_takes_more_goes_step_by_step(enforcer: Enforcer) -> None:
    assert not at_once(enforcer)
    assert enforcer.admit(CALL, SMALL) is not None


def test_an_unknown_price_goes_step_by_step() -> None:
    enforcer = Enforcer([Budget(limit_tokens=1000)])
    assert not at_once(enforcer, estimate=Estimate(Amount(None, 10), Amount(None, 10)))


def test_runs_are_asked_in_one_go_as_well() -> None:
    enforcer = Enforcer([Budget(limit_tokens=1000, name="declared")])
    with budget(max_calls=3, name="outer") as outer, budget(max_tokens=15, name="inner", cut_streams=True) as inner:
        hold = enforcer.admit(CALL, SMALL)
        assert [claim.key for claim in hold.claims] == [inner.key, outer.key, "budget|declared|lifetime"]
        assert hold.cut and hold.has_runs
        assert (outer.remaining_calls, inner.remaining_tokens) == (2, 5)
        with pytest.raises(BudgetExceeded) as refused:
            enforcer.admit(CALL, SMALL)
        assert (refused.value.budget, refused.value.window, refused.value.scope) == ("inner", "run", {})
        assert refused.value.retry_after is None
        enforcer.settle(hold, Amount(5, 7), TokenUsage(input_tokens=7))
        assert (outer.calls, inner.spent_tokens, inner.usage.input_tokens) == (1, 7, 7)
    assert {row.budget for row in enforcer.status()} == {"declared"}


def test_runs_alone_are_enough() -> None:
    meter = Meter(PriceBook(), Enforcer())
    with budget(max_calls=1) as run_:
        ticket = meter.admit_now(request())
        assert ticket is not None and ticket.hold is not None
        with pytest.raises(BudgetExceeded):
            meter.admit_now(request())
        meter.release(ticket)
        assert (run_.calls, run_.remaining_calls) == (0, 1)
        with budget(max_cost_usd="0.0000001", action="shrink"):
            assert meter.admit_now(request()) is None, "a shorter answer may do"


@pytest.mark.parametrize("action", [{"limit_usd": 0, "action": "shrink"}, {"action": "wait", "max_wait": 0.01}])
def test_a_budget_with_a_remedy_refuses_step_by_step(action: dict[str, Any]) -> None:
    enforcer = Enforcer([Budget(**{"limit_calls": 0, "window": "day", **action})])
    assert not at_once(enforcer)
    with pytest.raises(BudgetExceeded):
        enforcer.admit(CALL, SMALL)


def test_budgets_declared_and_withdrawn_count_from_the_next_call_on() -> None:
    enforcer = Enforcer([Budget(limit_calls=100, name="a")])
    assert [claim.key for claim in enforcer.admit(CALL, SMALL).claims] == ["budget|a|lifetime"]
    enforcer.add(Budget(limit_calls=100, name="b"))
    assert len(enforcer.admit(CALL, SMALL).claims) == 2
    enforcer.remove("a")
    assert [claim.key for claim in enforcer.admit(CALL, SMALL).claims] == ["budget|b|lifetime"]
    enforcer.replace(Budget(limit_calls=0, name="b"))
    with pytest.raises(BudgetExceeded):
        enforcer.admit(CALL, SMALL)
    enforcer.clear()
    assert enforcer.admit(CALL, SMALL) is None


def test_so_many_plans_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans_of, "MOST", 10)
    enforcer = Enforcer([Budget(limit_calls=10**6, per="tenant"), Budget(limit_calls=10**6)])
    for number in range(95):
        call = Call("openai", "gpt-5", {"tenant": f"t{number}", "user": f"u{number}"})
        assert enforcer.admit(call, SMALL).claims[0].key.endswith(f"tenant=t{number}")
    assert len(enforcer._plans._made) <= 10


def test_only_tags_that_a_budget_reads_make_another_plan() -> None:
    enforcer = Enforcer([Budget(limit_calls=10**6, per="tenant")])
    for number in range(50):
        enforcer.admit(Call("openai", "gpt-5", {"tenant": "acme", "user": f"u{number}"}, api_key=f"…{number}"), SMALL)
    assert len(enforcer._plans._made) == 1


# --- the meter ------------------------------------------------------------------------------------------------------


def request(model: str = "gpt-4o", **more: Any) -> Request:
    return Request("openai", model, "chat", lambda: Size(100, 200, 50), tags={"tenant": "acme"}, **more)


def test_the_meter_admits_on_the_spot_what_it_can() -> None:
    meter = Meter(PriceBook(), Enforcer([Budget(limit_usd=1)]))
    ticket = meter.admit_now(request())
    assert ticket is not None and ticket.hold is not None and ticket.hold.id.startswith(ticket.request.id)
    meter.settle(ticket, Reading(TokenUsage(input_tokens=100, output_tokens=10)))
    assert meter.enforcer.status()[0].spent_usd == meter.totals.get().cost_usd > 0


def test_the_meter_says_so_where_no_budget_applies_and_where_it_cannot_tell() -> None:
    meter = Meter(PriceBook(), Enforcer([Budget(limit_usd=1, match={"tenant": "globex"})]))
    ticket = meter.admit_now(request())
    assert ticket is not None and ticket.hold is None
    meter = Meter(PriceBook(), Enforcer([Budget(limit_tokens=10_000)]))
    assert meter.admit_now(request("no-such-model")) is None
    assert meter.admit(request("no-such-model")).hold is not None
    assert meter.totals.get().refused_calls == 0


def test_a_refusal_on_the_spot_is_counted_once() -> None:
    meter = Meter(PriceBook(), Enforcer([Budget(limit_calls=0)]))
    with pytest.raises(BudgetExceeded):
        meter.admit_now(request())
    assert meter.totals.get().refused_calls == 1
    with pytest.raises(BudgetExceeded):
        meter.admit(request())
    assert meter.totals.get().refused_calls == 2


def test_what_is_declared_elsewhere_is_looked_at_before_each_call() -> None:
    meter = Meter(PriceBook(), Enforcer())
    meter.enforcer.refresh = lambda: meter.enforcer.add(Budget(limit_calls=0, name="from a file"))
    with pytest.raises(BudgetExceeded):
        meter.admit_now(request())


# --- ids ------------------------------------------------------------------------------------------------------------


def test_ids_of_calls_are_random_uuids() -> None:
    import uuid

    ids = [request().id for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    for each in ids[:100]:
        made = uuid.UUID(each)
        assert (made.version, made.variant, made.hex) == (4, uuid.RFC_4122, each)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_ids_differ_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenbudget_otel.budgets import ids

    monkeypatch.setattr(ids, "time_ns", lambda: 0)  # also where clocks stand still
    forked = multiprocessing.get_context("fork")
    with forked.Pool(3) as pool:
        others = [each.get() for each in [pool.apply_async(some_ids) for _ in range(3)]]
    mine = some_ids()
    assert all(set(mine).isdisjoint(each) for each in others)


def some_ids() -> list[str]:
    return [request().id for _ in range(100)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_says_that_it_holds_what_it_reserves() -> None:
    enforcer = Enforcer([Budget(limit_calls=10)])
    enforcer.admit(CALL, SMALL)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            enforcer.admit(CALL, SMALL)
            os.write(write, "\n".join(f"{os.getpid()} {hold.owner}" for hold in enforcer.ledger.holds()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    lines = os.read(read, 10_000).decode().splitlines()
    assert len(lines) == 2 and f":{child} " in lines[1] and f":{os.getpid()} " in lines[0]
