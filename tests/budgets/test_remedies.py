"""What budgets do instead of refusing: ask a cheaper model, shorten the answer, wait; and only say so in a dry run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Amount, Budget, BudgetExceeded, Call, Enforcer, Estimate, MemoryLedger, budget
from tokenbudget_otel.budgets import steps as steps_module
from tokenbudget_otel.budgets.remedies import Change
from tokenbudget_otel.budgets.steps import Pause, run, run_async
from tokenbudget_otel.usage import TokenUsage

from .budget_ledgers import Clock

USD = 1_000_000_000
PRICES = {"big": 100, "small": 10, "tiny": 1}
"""Nano-USD of an output token."""


@dataclass
class Asked:
    """A request for up to ``most`` tokens of output, that can be changed in every way, or in the ways named."""

    model: str = "big"
    most: int | None = 1_000
    model_changes: bool = True
    least_output: int = 1
    seen: list[Change] = field(default_factory=list)

    @property
    def most_output(self) -> int | None:
        return self.most

    def estimate(self, change: Change = Change()) -> Estimate:  # noqa: B008 - it cannot be changed
        self.seen.append(change)
        tokens = change.max_output_tokens or self.most or 1_000
        amount = Amount(PRICES[change.model or self.model] * tokens, tokens)
        return Estimate(amount, amount, input_tokens=(0, 0))


def admit(enforcer: Enforcer, asked: Asked):
    call = Call("openai", asked.model, {"tenant": "acme"})
    return run(enforcer.admission(call, asked.estimate(), revision=asked), enforcer.way)


def budgets(nano_usd: int, **more) -> Budget:
    return Budget(limit_usd=Decimal(nano_usd) / USD, **more)


CHEAPER = {"action": "degrade", "degrade": {"big": "small", "small": "tiny"}}


class TestDegrade:
    def test_asks_the_cheaper_model_where_there_is_no_room(self, clock):
        enforcer = Enforcer([budgets(100_000, **CHEAPER)], clock=clock)
        assert admit(enforcer, Asked()).change == Change()
        enforcer = Enforcer([budgets(99_999, **CHEAPER)], clock=clock)
        hold = admit(enforcer, Asked())
        assert hold.change == Change(model="small")
        assert hold.call.model == "small"
        assert enforcer.status()[0].reserved_usd == Decimal("0.00001")

    def test_goes_on_to_the_next(self, clock):
        enforcer = Enforcer([budgets(9_999, **CHEAPER)], clock=clock)
        assert admit(enforcer, Asked()).change.model == "tiny"
        with pytest.raises(BudgetExceeded) as refused:
            admit(Enforcer([budgets(999, **CHEAPER)], clock=clock), Asked())
        assert refused.value.model == "tiny"  # what there was no room for in the end

    def test_from_a_share_of_the_limit_on(self, clock):
        enforcer = Enforcer([budgets(250_000, **CHEAPER, degrade_at=0.5)], clock=clock)
        assert admit(enforcer, Asked()).change.model is None  # 100,000 of 125,000
        assert admit(enforcer, Asked()).change.model == "small"  # and 110,000 of all
        assert admit(enforcer, Asked(model="tiny")).change.model is None  # nothing cheaper: all of the limit is there
        assert admit(enforcer, Asked(model_changes=False)).change.model is None

    def test_not_where_the_model_cannot_be_changed(self, clock):
        enforcer = Enforcer([budgets(99_999, **CHEAPER)], clock=clock)
        with pytest.raises(BudgetExceeded):
            admit(enforcer, Asked(model_changes=False))
        with pytest.raises(BudgetExceeded):
            enforcer.admit(Call("openai", "big"), Asked().estimate())

    def test_every_budget_that_refuses_has_to_be_satisfied(self, clock):
        both = [budgets(99_999, **CHEAPER, name="degrades"), budgets(50_000, name="blocks")]
        assert admit(Enforcer(both, clock=clock), Asked()).change.model == "small"
        both = [budgets(99_999, **CHEAPER, name="degrades"), budgets(5_000, name="blocks")]
        with pytest.raises(BudgetExceeded) as refused:
            admit(Enforcer(both, clock=clock), Asked())
        assert refused.value.budget == "blocks"

    def test_the_budgets_of_the_cheaper_model_count(self, clock):
        both = [budgets(99_999, **CHEAPER), budgets(1, match={"model": "small"}, name="small is closed")]
        hold = admit(Enforcer(both, clock=clock), Asked(most=900))
        assert hold.change.model is None
        with pytest.raises(BudgetExceeded, match="small is closed"):
            admit(Enforcer(both, clock=clock), Asked())


class TestShrink:
    @settings(deadline=None, max_examples=60)
    @given(limit=st.integers(0, 200_000), least=st.integers(1, 400), most=st.integers(1, 1_500))
    def test_to_what_is_affordable_and_no_further(self, limit, least, most):
        enforcer = Enforcer([budgets(limit, action="shrink", min_output_tokens=least)], clock=Clock())
        affordable = limit // PRICES["big"]
        asked = Asked(most=most)
        if affordable >= most:
            assert admit(enforcer, asked).change == Change()
        elif affordable >= least and most > least:
            assert admit(enforcer, asked).change == Change(max_output_tokens=affordable)
            assert enforcer.status()[0].reserved_calls is None
            assert enforcer.status()[0].reserved_usd == Decimal(affordable * PRICES["big"]) / USD
        else:
            with pytest.raises(BudgetExceeded):
                admit(enforcer, asked)

    def test_to_what_fits_into_all(self, clock):
        enforcer = Enforcer(
            [budgets(50_000, action="shrink", name="a"), budgets(20_000, action="shrink", name="b")], clock=clock
        )
        assert admit(enforcer, Asked()).change.max_output_tokens == 200

    def test_tokens_too(self, clock):
        enforcer = Enforcer([Budget(limit_tokens=300, token_type="output", action="shrink")], clock=clock)
        assert admit(enforcer, Asked()).change.max_output_tokens == 300

    def test_not_beside_a_budget_that_blocks(self, clock):
        enforcer = Enforcer([budgets(50_000, action="shrink"), budgets(60_000, name="blocks")], clock=clock)
        with pytest.raises(BudgetExceeded):
            admit(enforcer, Asked())

    def test_after_degrading(self, clock):
        enforcer = Enforcer(
            [budgets(90_000, **CHEAPER, name="degrades"), budgets(5_000, action="shrink", name="shrinks")], clock=clock
        )
        assert admit(enforcer, Asked()).change == Change(model="small", max_output_tokens=500)

    def test_what_cannot_be_limited(self, clock):
        with pytest.raises(BudgetExceeded):
            admit(Enforcer([budgets(50_000, action="shrink")], clock=clock), Asked(most=None))

    def test_a_run(self, clock):
        with budget(max_cost_usd=Decimal(50_000) / USD, action="shrink") as scope:
            assert admit(Enforcer(clock=clock), Asked()).change.max_output_tokens == 500
            assert scope.remaining_usd == 0


class TestWait:
    """The clock moves when somebody waits, and nothing else does."""

    @pytest.fixture(autouse=True)
    def waiting(self, monkeypatch, clock):
        self.slept: list[float] = []

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            clock.on(seconds)

        async def sleep_async(seconds: float) -> None:
            sleep(seconds)

        monkeypatch.setattr(steps_module.time, "sleep", sleep)
        monkeypatch.setattr(steps_module, "_sleep", sleep_async)

    def enforcer(self, clock, **more) -> Enforcer:
        enforcer = Enforcer([budgets(100_000, action="wait", **more)], clock=clock)
        enforcer.settle(admit(enforcer, Asked()), Amount(100_000, 1_000))
        return enforcer

    def test_until_the_window_turns(self, clock):
        clock.now = 1_795_377_600.0 - 20  # twenty seconds before the hour
        enforcer = self.enforcer(clock, window="hour", max_wait=30)
        hold = admit(enforcer, Asked())
        assert hold.change.waited == pytest.approx(20)
        assert hold.claims[0].key.endswith("T20Z")
        assert sum(self.slept) == pytest.approx(20)

    def test_not_longer_than_said(self, clock):
        clock.now = 1_795_377_600.0 - 40
        enforcer = self.enforcer(clock, window="hour", max_wait=30)
        with pytest.raises(BudgetExceeded):
            admit(enforcer, Asked())
        assert self.slept == []  # it is known at once that it would be in vain

    def test_in_a_rolling_window_until_enough_has_ceased_to_count(self, clock):
        enforcer = self.enforcer(clock, window="rolling 10m", max_wait=700)
        assert 590 <= admit(enforcer, Asked()).change.waited <= 620

    def test_for_calls_in_flight(self, clock):
        enforcer = Enforcer([budgets(100_000, action="wait", max_wait=5)], clock=clock)
        first = admit(enforcer, Asked())
        steps = enforcer.admission(Call("openai", "big"), Asked().estimate())
        step = next(steps)
        while not isinstance(step, Pause):
            step = steps.send(enforcer.way.ask(step.operation, *step.arguments))
        assert step.seconds <= 0.1
        enforcer.settle(first, Amount(0))
        with pytest.raises(StopIteration) as end:
            step = steps.send(None)
            while True:
                step = steps.send(enforcer.way.ask(step.operation, *step.arguments))
        assert end.value.value is not None

    def test_for_calls_in_flight_not_for_ever(self, clock):
        enforcer = Enforcer([budgets(100_000, action="wait", max_wait=5)], clock=clock)
        admit(enforcer, Asked())
        with pytest.raises(BudgetExceeded):
            admit(enforcer, Asked())
        assert sum(self.slept) == pytest.approx(5)

    def test_not_for_what_never_fits(self, clock):
        enforcer = Enforcer([budgets(100_000, action="wait", window="day", max_wait=3600)], clock=clock)
        with pytest.raises(BudgetExceeded) as refused:
            admit(enforcer, Asked(most=1_001))
        assert (self.slept, refused.value.retry_after) == ([], None)

    async def test_on_an_event_loop(self, clock):
        clock.now = 1_795_377_600.0 - 20
        enforcer = self.enforcer(clock, window="hour", max_wait=30)
        steps = enforcer.admission(Call("openai", "big"), Asked().estimate())
        assert (await run_async(steps, enforcer.way)).change.waited == pytest.approx(20)


async def test_waiting_does_not_hold_up_the_event_loop():
    enforcer = Enforcer([budgets(100_000, action="wait", max_wait=5)])
    first = admit(enforcer, Asked())
    waiting = asyncio.ensure_future(enforcer.admit_async(Call("openai", "big"), Asked().estimate()))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    enforcer.release(first)
    assert (await waiting).change.waited > 0


class TestDryRun:
    def test_only_says_what_it_would_do(self, clock, caplog):
        heard = []
        enforcer = Enforcer(
            [
                budgets(99_999, **CHEAPER, dry_run=True, name="degrades", on_warn=heard.append),
                budgets(1, dry_run=True, name="blocks"),
                budgets(1, action="wait", dry_run=True, name="waits"),
                budgets(1, action="shrink", dry_run=True, name="shrinks"),
            ],
            clock=clock,
        )
        hold = admit(enforcer, Asked())
        assert hold.change == Change()
        assert {(each.budget, each.action, each.dry_run) for each in hold.warnings} == {
            ("degrades", "degrade", True),
            ("blocks", "block", True),
            ("waits", "wait", True),
            ("shrinks", "shrink", True),
        }
        assert [each.budget for each in heard] == ["degrades"]
        assert "Budget 'blocks' would have refused this call to openai big" in caplog.text

    def test_of_an_unknown_price(self, clock):
        enforcer = Enforcer([Budget(limit_usd=1, dry_run=True)], clock=clock)
        unknown = Amount(None, 10)
        hold = enforcer.admit(Call("openai", "new"), Estimate(unknown, unknown))
        assert hold.warnings[0].unpriced


class TestGrowth:
    """Calls under way that outgrow what they reserved."""

    def grow(self, enforcer, hold, tokens):
        amount = Amount(PRICES["big"] * tokens, tokens)
        run(enforcer.growth(hold, Estimate(amount, amount, input_tokens=(0, 0))), enforcer.way)

    def test_reserves_more_while_there_is_room(self, clock):
        enforcer = Enforcer([budgets(100_000, cut_streams=True)], clock=clock)
        hold = admit(enforcer, Asked(most=100))
        assert hold.cut
        self.grow(enforcer, hold, 90)
        assert enforcer.status()[0].reserved_usd == Decimal("0.00001")
        self.grow(enforcer, hold, 500)
        self.grow(enforcer, hold, 1_000)
        assert enforcer.status()[0].reserved_usd == Decimal("0.0001")
        with pytest.raises(BudgetExceeded) as refused:
            self.grow(enforcer, hold, 1_001)
        assert refused.value.partial
        assert "stopped this call to openai big in the middle of its answer: it needs" in str(refused.value)
        enforcer.settle(hold, Amount(100_000, 1_000))
        (row,) = enforcer.status()
        assert (row.spent_usd, row.reserved_usd) == (Decimal("0.0001"), 0)

    def test_budgets_that_do_not_cut_take_note(self, clock):
        enforcer = Enforcer([budgets(100_000, cut_streams=True), budgets(10_000, name="does not")], clock=clock)
        hold = admit(enforcer, Asked(most=100))
        self.grow(enforcer, hold, 500)
        assert [row.reserved_usd for row in enforcer.status()] == [Decimal("0.00005")] * 2

    def test_of_a_run(self, clock):
        enforcer = Enforcer(clock=clock)
        with budget(max_cost_usd=Decimal(100_000) / USD, cut_streams=True) as scope:
            hold = admit(enforcer, Asked(most=100))
            self.grow(enforcer, hold, 700)
            assert scope.remaining_usd == Decimal("0.00003")
            with pytest.raises(BudgetExceeded):
                self.grow(enforcer, hold, 1_001)
            enforcer.settle(hold, Amount(70_000, 700))
            assert (scope.spent_usd, scope.remaining_usd) == (Decimal("0.00007"), Decimal("0.00003"))

    def test_of_a_hold_that_ran_out(self, clock):
        enforcer = Enforcer([budgets(100_000, cut_streams=True)], clock=clock, ttl=10)
        hold = admit(enforcer, Asked(most=100))
        clock.on(11)
        enforcer.ledger.expire()
        self.grow(enforcer, hold, 500)
        enforcer.settle(hold, Amount(50_000, 500))
        assert enforcer.status()[0].spent_usd == Decimal("0.00005")


class TestLimitsOfSingleScopes:
    def test_hold_from_the_next_call_on(self, clock):
        enforcer = Enforcer([budgets(100_000, per="tenant", window="month")], clock=clock)
        admit(enforcer, Asked())
        with pytest.raises(BudgetExceeded):
            admit(enforcer, Asked())
        assert enforcer.set_limit("acme", Decimal(200_000) / USD, window="month") == ["usd/month per tenant"]
        admit(enforcer, Asked())
        (row,) = enforcer.status()
        assert (row.limit_usd, row.remaining_usd) == (Decimal("0.0002"), 0)
        with pytest.raises(BudgetExceeded) as refused:
            admit(enforcer, Asked())
        assert refused.value.limit_usd == Decimal("0.0002")
        enforcer.set_limit("acme")
        assert enforcer.status()[0].limit_usd == Decimal("0.0001")

    def test_in_every_process_that_shares_the_ledger(self, clock):
        ledger = MemoryLedger(clock=clock)
        here, there = (Enforcer([budgets(1, per="tenant")], ledger=ledger, clock=clock) for _ in range(2))
        here.set_limit({"tenant": "acme"}, 1)
        assert admit(there, Asked())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("acme", 1, {"window": "day"}), "no budget with window 'day' counts 'acme' apart"),
            ((None, 1, {}), "no budget counts all calls together apart; declared: 'usd/lifetime per tenant'"),
            (({"user": "u"}, 1, {}), r"no budget counts \{'user': 'u'\}"),
            (("acme", -1, {}), "limit_usd must be at least 0"),
            (("acme", 10**12, {}), "is beyond what MemoryLedger counts exactly"),
        ],
    )
    def test_that_cannot_be(self, arguments, message, clock):
        enforcer = Enforcer([budgets(1, per="tenant")], clock=clock)
        with pytest.raises(ValueError, match=message):
            enforcer.set_limit(arguments[0], arguments[1], **arguments[2])


class TestChangedWhileRunning:
    def test_a_budget_takes_the_place_of_another(self, clock):
        enforcer = Enforcer([budgets(100_000, name="mine")], clock=clock)
        admit(enforcer, Asked())
        enforcer.replace(budgets(300_000, name="mine"), budgets(1, name="other", match={"model": "small"}))
        assert [row.remaining_usd for row in enforcer.status()] == [Decimal("0.0002"), Decimal("0.000000001")]
        enforcer.replace(budgets(50_000, name="mine"))  # lower than what is there
        assert enforcer.status()[0].remaining_usd == 0
        with pytest.raises(BudgetExceeded):
            admit(enforcer, Asked(most=1))

    def test_limits_beyond_what_a_ledger_counts(self, clock):
        with pytest.raises(ValueError, match=r"budget 'x': a limit of \$1,000,000,000,000 is beyond"):
            Enforcer([Budget(limit_usd=10**12, name="x")], clock=clock)


class TestCountedApart:
    @pytest.mark.parametrize(
        ("token_type", "counted"),
        [("all", 150), ("input", 100), ("output", 50), ("reasoning", 30), ("cache_read", 60), ("cache_write", 0)],
    )
    def test_tokens_of_one_type(self, token_type, counted, clock):
        enforcer = Enforcer([Budget(limit_tokens=1_000, token_type=token_type, name="t"), budgets(USD)], clock=clock)
        amount = Amount(5, 800)
        hold = enforcer.admit(Call("openai", "big"), Estimate(amount, amount, input_tokens=(600, 600)))
        reserved = {"all": 800, "output": 200, "reasoning": 200}.get(token_type, 600)
        assert enforcer.status()[0].reserved_tokens == reserved
        usage = TokenUsage(input_tokens=100, output_tokens=50, reasoning_tokens=30, cache_read_tokens=60)
        enforcer.settle(hold, Amount(5, 150), usage)
        assert enforcer.status()[0].spent_tokens == counted
        enforcer.charge(Call("openai", "big"), Amount(5, 150), usage=usage)
        assert enforcer.status()[0].spent_tokens == 2 * counted
        assert enforcer.status()[1].spent_usd == Decimal("0.00000001")

    def test_a_price_that_is_assumed(self, clock):
        enforcer = Enforcer(
            [budgets(100, unpriced="assume", name="assumes"), budgets(100, unpriced="allow", name="allows")],
            clock=clock,
        )
        unknown = Amount(None, 10)
        estimate = Estimate(unknown, unknown, assumed=(Amount(60, 10), Amount(90, 10)))
        hold = enforcer.admit(Call("openai", "new"), estimate)
        assert [row.reserved_usd * USD for row in enforcer.status()] == [60, 0]
        with pytest.raises(BudgetExceeded):
            enforcer.admit(Call("openai", "new"), estimate)
        enforcer.settle(hold, Amount(None, 10), None, 42)
        assert [row.spent_usd * USD for row in enforcer.status()] == [42, 0]
        enforcer.charge(Call("openai", "new"), Amount(None, 10), None, None, 8)
        assert [row.spent_usd * USD for row in enforcer.status()] == [50, 0]

    def test_nothing_to_assume(self, clock):
        enforcer = Enforcer([budgets(100, unpriced="assume")], clock=clock)
        unknown = Amount(None, 10)
        with pytest.raises(BudgetExceeded, match="the price of this model is not known"):
            enforcer.admit(Call("nobody", "new"), Estimate(unknown, unknown))

    def test_a_price_that_turns_out_to_be_unknown(self, clock):
        """What was reserved counts as spent, also where tokens of one type are counted."""
        enforcer = Enforcer(
            [Budget(limit_usd=1, limit_tokens=1_000, token_type="output", name="t"), budgets(USD, name="all")],
            clock=clock,
        )
        amount = Amount(60, 800)
        hold = enforcer.admit(Call("openai", "big"), Estimate(amount, amount, input_tokens=(600, 600)))
        enforcer.settle(hold, Amount(None, 150), TokenUsage(input_tokens=100, output_tokens=50))
        assert [row.spent_usd * USD for row in enforcer.status()] == [60, 60]
        assert enforcer.status()[0].spent_tokens == 50
