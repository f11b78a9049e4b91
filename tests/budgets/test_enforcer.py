"""From a call to the budgets that apply to it, to a verdict that explains itself."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from tokenbudget_otel.budgets import (
    Amount,
    Budget,
    BudgetExceeded,
    Call,
    Enforcer,
    Estimate,
    MemoryLedger,
    Shortfall,
    TokenLimitReached,
    UnpricedModel,
)

USD = 1_000_000_000


def call(model="gpt-5", provider="openai", **tags) -> Call:
    return Call(provider, model, tags)


def estimate(usd: float | None, tokens: int = 100, worst: float | None = None) -> Estimate:
    """So many dollars and tokens, and in the worst case twice that or ``worst``."""
    if usd is None:
        return Estimate(Amount(None, tokens), Amount(None, tokens * 2))
    most = usd * 2 if worst is None else worst
    return Estimate(Amount(int(usd * USD), tokens), Amount(int(most * USD), tokens * 2), Amount(USD // 100, 10))


def refused(enforcer, *arguments, kind=BudgetExceeded) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as caught:
        enforcer.admit(*arguments)
    assert type(caught.value) is kind
    return caught.value


@pytest.fixture
def enforce(clock):
    return lambda *budgets, **more: Enforcer(budgets, clock=clock, **more)


class TestAdmit:
    def test_without_budgets(self, enforce):
        enforcer = enforce()
        assert enforcer.admit(call(), estimate(5)) is None
        assert not enforcer.applies(call())
        enforcer.settle(None, Amount(5))
        enforcer.release(None)
        enforcer.charge(call(), Amount(5))
        assert enforcer.status() == []

    def test_settles_the_truth(self, enforce):
        enforcer = enforce(Budget(limit_usd=1))
        hold = enforcer.admit(call(), estimate(0.6))
        assert enforcer.status()[0].reserved_usd == Decimal("0.6")
        enforcer.settle(hold, Amount(3 * USD, 10))
        (row,) = enforcer.status()
        assert (row.spent_usd, row.reserved_usd, row.remaining_usd) == (3, 0, 0)
        assert row.used == 3.0
        refused(enforcer, call(), estimate(0.001))

    def test_releases(self, enforce):
        enforcer = enforce(Budget(limit_usd=1))
        enforcer.release(enforcer.admit(call(), estimate(1)))
        assert enforcer.admit(call(), estimate(1))

    def test_modes_apply_to_one_call_at_once(self, enforce):
        enforcer = enforce(Budget(limit_usd=9, name="e"), Budget(limit_usd=9, name="w", mode="worst_case"))
        enforcer.admit(call(), estimate(1, worst=4))
        assert [row.reserved_usd for row in enforcer.status()] == [1, 4]
        enforcer.admit(call(), estimate(1, worst=5))
        assert refused(enforcer, call(), estimate(1, worst=1)).budget == "w"

    def test_all_or_none(self, enforce):
        enforcer = enforce(Budget(limit_usd=9, name="wide"), Budget(limit_usd=1, name="narrow"))
        refused(enforcer, call(), estimate(2))
        assert [row.reserved_usd for row in enforcer.status()] == [0, 0]

    def test_matches(self, enforce):
        enforcer = enforce(Budget(limit_calls=0, match={"model": "GPT-4o*", "tenant": "acme"}))
        assert not enforcer.applies(call("gpt-4o-mini"))
        assert not enforcer.applies(call("gpt-5", tenant="acme"))
        assert not enforcer.applies(call("gpt-4o", tenant="Acme"))
        assert enforcer.applies(call("gpt-4o-mini", tenant="acme"))
        assert enforcer.admit(call("gpt-5", tenant="acme"), estimate(1)) is None
        refused(enforcer, call("gpt-4o-mini", tenant="acme"), estimate(1))

    def test_a_pattern_needs_a_value(self, enforce):
        enforcer = enforce(Budget(limit_calls=0, match={"tenant": "*"}))
        assert not enforcer.applies(call())
        assert enforcer.applies(call(tenant="x"))

    def test_counts_each_value_apart(self, enforce):
        enforcer = enforce(Budget(limit_usd=1, per=("tenant", "model")))
        enforcer.admit(call(tenant="a"), estimate(1))
        enforcer.admit(call(tenant="b"), estimate(1))
        enforcer.admit(call("o3", tenant="b"), estimate(1))
        error = refused(enforcer, call(tenant="b"), estimate(1))
        assert error.scope == {"tenant": "b", "model": "gpt-5"}

    def test_calls_without_the_tag_share_one_limit(self, enforce):
        enforcer = enforce(Budget(limit_usd=1, per="tenant"))
        enforcer.admit(call(), estimate(1))
        error = refused(enforcer, call(), estimate(1))
        assert error.scope == {"tenant": ""}
        assert "(no tenant)" in str(error)

    @pytest.mark.parametrize(("one", "other"), [("a|b", "a"), ("a%7Cb", "a|b"), ("a|tenant=b", "a"), ("a=b", "a")])
    def test_values_cannot_be_mixed_up(self, enforce, one, other):
        enforcer = enforce(Budget(limit_usd=1, per=("tenant", "user")))
        enforcer.admit(call(tenant=one, user="u"), estimate(1))
        assert enforcer.admit(call(tenant=other, user="u"), estimate(1))
        assert {"tenant": one, "user": "u"} in [row.scope for row in enforcer.status()]

    def test_a_new_window_is_a_new_start(self, enforce, clock):
        enforcer = enforce(Budget(limit_usd=1, window="day"))
        hold = enforcer.admit(call(), estimate(1))
        refused(enforcer, call(), estimate(1))
        clock.on(5 * 3600)  # midnight
        assert enforcer.status()[0].spent_usd == 0
        enforcer.admit(call(), estimate(0.4))
        enforcer.settle(hold, Amount(5 * USD))  # belongs to yesterday
        assert enforcer.status()[0].spent_usd == 0
        assert enforcer.status()[0].reserved_usd == Decimal("0.4")

    def test_a_changed_limit_goes_on_counting(self, enforce):
        enforcer = enforce(Budget(limit_usd=1, window="month"))
        enforcer.settle(enforcer.admit(call(), estimate(1)), Amount(USD))
        enforcer.remove("usd/month")
        enforcer.add(Budget(limit_usd=3, window="month"))
        assert enforcer.status()[0].remaining_usd == 2
        enforcer.clear()
        assert enforcer.status() == []

    def test_charge_may_overrun(self, enforce):
        enforcer = enforce(Budget(limit_usd=1, per="tenant"))
        for _ in range(2):
            enforcer.charge(call(tenant="a"), Amount(2 * USD, 5), id="batch-1")
        enforcer.charge(call(tenant="a"), Amount(None, 5))
        (row,) = enforcer.status()
        assert (row.spent_usd, row.scope) == (2, {"tenant": "a"})
        refused(enforcer, call(tenant="a"), estimate(0.1))

    def test_an_unknown_final_cost_is_what_was_reserved(self, enforce):
        enforcer = enforce(Budget(limit_usd=1))
        enforcer.settle(enforcer.admit(call(), estimate(0.6)), Amount(None, 7))
        assert enforcer.status()[0].spent_usd == Decimal("0.6")

    @pytest.mark.parametrize(("on_expiry", "spent"), [("charge", "0.6"), ("charge_input", "0.01"), ("release", "0")])
    def test_a_hold_that_nobody_ends(self, enforce, clock, on_expiry, spent):
        enforcer = enforce(Budget(limit_usd=1), ttl=60, on_expiry=on_expiry)
        hold = enforcer.admit(call(), estimate(0.6))
        clock.on(60)
        assert enforcer.status()[0].spent_usd == Decimal(spent)
        enforcer.settle(hold, Amount(USD // 4))
        assert enforcer.status()[0].spent_usd == Decimal("0.25")

    def test_another_ledger(self, clock):
        ledger = MemoryLedger(clock=clock)
        one, other = (Enforcer([Budget(limit_usd=1)], ledger=ledger, clock=clock) for _ in range(2))
        one.admit(call(), estimate(1))
        refused(other, call(), estimate(1))


class TestErrors:
    def test_says_everything(self, enforce, clock):
        enforcer = enforce(Budget(limit_usd=50, window="month", per="tenant"))
        enforcer.settle(enforcer.admit(call(tenant="acme"), estimate(49)), Amount(int(49.9 * USD), 10))
        enforcer.admit(call(tenant="acme"), estimate(0.09))
        error = refused(enforcer, call(tenant="acme", feature="chat"), estimate(0.03))
        assert str(error) == (
            "Budget 'usd/month per tenant' (tenant=acme) refused this call to openai gpt-5 before it was sent: "
            "it needs $0.0300, and $0.0100 of the limit of $50.0000 is left ($49.9000 spent, $0.0900 reserved by "
            "calls in flight). Window 2026-11 ends at 2026-12-01 00:00 UTC, in 8 days 5 hours."
        )
        assert (error.budget, error.scope, error.dimension) == ("usd/month per tenant", {"tenant": "acme"}, "usd")
        assert error.limit_usd == 50
        assert error.spent_usd == Decimal("49.9")
        assert error.reserved_usd == Decimal("0.09")
        assert error.needed_usd == Decimal("0.03")
        assert error.remaining_usd == Decimal("0.01")
        assert error.limit_tokens is error.spent_tokens is error.limit_calls is None
        assert error.resets_at == datetime(2026, 12, 1, tzinfo=UTC)
        assert error.retry_after == error.resets_at.timestamp() - clock.now
        assert (error.provider, error.model, error.tags) == ("openai", "gpt-5", {"tenant": "acme", "feature": "chat"})

    def test_shows_digits_that_tell_amounts_apart(self, enforce):
        enforcer = enforce(Budget(limit_usd="0.010000001"))
        enforcer.charge(call(), Amount(5_000_001))
        error = refused(enforcer, call(), Estimate(Amount(5_000_001), Amount(5_000_001)))
        assert "it needs $0.005000001, and $0.005000000 of the limit" in str(error)

    def test_tokens(self, enforce):
        enforcer = enforce(Budget(limit_tokens=1000, limit_usd=5, window="hour", timezone="Asia/Kolkata"))
        enforcer.admit(call(), estimate(0.1, 999))
        error = refused(enforcer, call(), estimate(0.1, 500), kind=TokenLimitReached)
        assert "it needs 500 tokens, and 1 of the limit of 1,000 tokens are left (0 spent, 999 reserved" in str(error)
        assert (error.limit_tokens, error.needed_tokens, error.remaining_tokens) == (1000, 500, 1)
        assert error.limit_usd == 5
        assert error.resets_at.tzinfo == ZoneInfo("Asia/Kolkata")

    def test_calls(self, enforce):
        enforcer = enforce(Budget(limit_calls=1))
        enforcer.admit(call(), estimate(0.1))
        error = refused(enforcer, call(), estimate(0.1))
        assert "it needs 1 call, and 0 of the limit of 1 call are left" in str(error)
        assert "does not reset" in str(error)
        assert error.resets_at is error.retry_after is None

    def test_a_call_that_never_fits_is_not_told_to_wait(self, enforce):
        error = refused(enforce(Budget(limit_usd=1, window="day")), call(), estimate(2))
        assert error.resets_at is not None
        assert error.retry_after is None
        assert "Waiting would not help" in str(error)

    def test_names_the_budget_that_refuses_for_longest(self, enforce):
        enforcer = enforce(*(Budget(limit_usd=1, window=window) for window in ("day", "month", "hour")))
        enforcer.admit(call(), estimate(1))
        assert refused(enforcer, call(), estimate(1)).window == "2026-11"

    @pytest.mark.parametrize("kind", [BudgetExceeded, TokenLimitReached, UnpricedModel])
    def test_pickles(self, kind):
        shortfall = Shortfall(
            budget="b",
            dimension="usd",
            limit_usd=Decimal(1),
            resets_at=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")),
        )
        error = kind(shortfall)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert str(again) == str(error)
        assert again.__dict__ == error.__dict__

    @pytest.mark.parametrize(
        "look",
        [
            str, repr, lambda error: error.args, lambda error: error.limit_usd, lambda error: error.shortfall,
            lambda error: error.retry_after, lambda error: error.tags, lambda error: pickle.dumps(error),
            lambda error: hasattr(error, "status_code"), lambda error: error.__reduce__(),
            lambda error: BudgetExceeded.behind(error).window,
        ],
    )  # fmt: skip
    def test_is_explained_when_somebody_looks(self, enforce, look):
        """Whatever is looked at first: then it is what it would be had it been made at once."""
        enforcer = enforce(Budget(limit_usd=1, per="tenant", window="day", name="mine"))
        error = refused(enforcer, call(tenant="acme"), estimate(2))
        assert (error.budget, error.scope) == ("mine", {"tenant": "acme"})
        assert "shortfall" not in vars(error)
        look(error)
        made = BudgetExceeded(error.shortfall)
        assert vars(error) == vars(made)
        assert (str(error), repr(error), error.args) == (str(made), repr(made), made.args)
        assert (error.limit_usd, error.needed_usd, error.spent_usd) == (1, 2, 0)
        assert not hasattr(error, "status_code")

    def test_what_is_added_to_a_refusal_stays(self, enforce):
        error = refused(enforce(Budget(limit_calls=0)), call(), estimate(1))
        error.add_note("while planning")
        error.args = ("in other words",)
        assert (str(error), error.__notes__, error.limit_calls) == ("in other words", ["while planning"], 0)
        assert [type(copy.copy(error)), copy.copy(error).shortfall] == [BudgetExceeded, error.shortfall]

    def test_says_the_same_without_the_amounts_that_it_was_made_of(self, enforce):
        enforcer = enforce(Budget(limit_usd="0.0000005"))
        shortfall = refused(enforcer, call(), estimate(0.0000007)).shortfall
        assert str(dataclasses.replace(shortfall)) == str(shortfall)

    def test_nothing_invites_a_retry(self):
        error = BudgetExceeded(Shortfall(budget="b", dimension="usd"))
        for name in ("status_code", "response", "request", "code", "http_status", "should_retry", "headers"):
            assert not hasattr(error, name)
        assert BudgetExceeded.__bases__ == (Exception,)


class TestUnpriced:
    def test_is_refused_under_a_limit_in_dollars(self, enforce):
        enforcer = enforce(Budget(limit_usd=1, name="all"))
        error = refused(enforcer, call("gpt-99"), estimate(None), kind=UnpricedModel)
        assert "the price of this model is not known" in str(error)
        assert "register_model('gpt-99', input_per_1m=…, output_per_1m=…, provider='openai')" in str(error)
        assert "unpriced='allow'" in str(error)
        assert error.needed_usd is None
        assert error.remaining_usd == 1
        assert enforcer.status()[0].reserved_usd == 0

    def test_is_no_matter_for_other_limits(self, enforce):
        enforcer = enforce(Budget(limit_tokens=1000, limit_calls=5))
        enforcer.settle(enforcer.admit(call(), estimate(None)), Amount(None, 100))
        (row,) = enforcer.status()
        assert (row.spent_usd, row.spent_tokens, row.spent_calls) == (None, 100, 1)

    def test_allowed(self, enforce):
        enforcer = enforce(Budget(limit_usd=1, limit_tokens=1000, unpriced="allow"))
        enforcer.settle(enforcer.admit(call(), estimate(None)), Amount(None, 100))
        assert (enforcer.status()[0].spent_usd, enforcer.status()[0].spent_tokens) == (0, 100)
        enforcer.settle(enforcer.admit(call(), estimate(None)), Amount(USD, 100))  # the provider said so
        assert enforcer.status()[0].spent_usd == 1

    def test_warned_of(self, enforce, caplog):
        enforcer = enforce(Budget(limit_usd=1, action="warn"))
        hold = enforcer.admit(call("gpt-99"), estimate(None))
        assert hold.warnings[0].unpriced
        assert "which was sent all the same: it counts US dollars and the price of this model" in caplog.text


class TestWarn:
    def test_lets_through_counts_and_tells_once(self, enforce, caplog, clock):
        told = []
        enforcer = enforce(Budget(limit_usd=1, window="day", per="tenant", action="warn", on_warn=told.append))
        assert enforcer.admit(call(tenant="a"), estimate(1)).warnings == ()
        for _ in range(3):
            hold = enforcer.admit(call(tenant="a"), estimate(1))
            assert hold.warnings[0].scope == {"tenant": "a"}
        assert [each.needed_usd for each in told] == [1]
        enforcer.admit(call(tenant="b"), estimate(2))
        assert len(told) == 2
        clock.on(86_400)
        enforcer.admit(call(tenant="a"), estimate(2))
        assert len(told) == 3
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
        assert "has no room for this call to openai gpt-5, which was sent all the same" in caplog.text
        assert enforcer.status()[0].reserved_usd == 2

    def test_a_callback_that_fails_goes_no_further(self, enforce, caplog):
        def fail(shortfall):
            raise RuntimeError("mine")

        enforcer = enforce(Budget(limit_usd=0, action="warn", on_warn=fail))
        assert enforcer.admit(call(), estimate(1)).warnings
        assert "on_warn of budget 'usd/lifetime (warn)' failed" in caplog.text

    def test_a_callback_may_use_the_enforcer(self, enforce):
        rows = []
        enforcer = enforce(Budget(limit_usd=0, action="warn", on_warn=lambda _: rows.extend(enforcer.status())))
        enforcer.admit(call(), estimate(1))
        assert rows[0].reserved_usd == 1

    def test_beside_a_budget_that_blocks(self, enforce):
        enforcer = enforce(Budget(limit_usd=1, action="warn"), Budget(limit_usd=2))
        enforcer.admit(call(), estimate(1))
        assert len(enforcer.admit(call(), estimate(1)).warnings) == 1
        assert refused(enforcer, call(), estimate(1)).budget == "usd/lifetime"


class TestBounded:
    def test_old_windows_are_dropped(self, enforce, clock):
        ledger = MemoryLedger(clock=clock)
        enforcer = enforce(Budget(limit_usd=1, window="hour", per="user"), ledger=ledger)
        for hour in range(5):
            for user in range(200):
                enforcer.settle(enforcer.admit(call(user=f"{hour}-{user}"), estimate(0.1)), Amount(1))
            clock.on(3600)
        assert len(ledger.balances()) <= 600
        clock.on(7200)
        for _ in range(20):
            ledger.expire()
            ledger.balances()
        assert ledger.balances() == ()
        assert not ledger._window_ends

    def test_a_window_with_an_open_hold_is_kept(self, enforce, clock):
        ledger = MemoryLedger(clock=clock)
        enforcer = enforce(Budget(limit_usd=1, window="hour"), ledger=ledger, ttl=10**6)
        hold = enforcer.admit(call(), estimate(1))
        clock.on(86_400)
        assert len(ledger.balances()) == 1
        enforcer.settle(hold, Amount(5))
        clock.on(86_400)
        assert ledger.balances() == ()

    def test_keys_without_end_give_way_to_newer_ones(self, enforce, clock):
        ledger = MemoryLedger(clock=clock, max_keys=100)
        enforcer = enforce(Budget(limit_usd=1, per="user"), ledger=ledger)
        held = enforcer.admit(call(user="in flight"), estimate(0.1))
        for user in range(1000):
            enforcer.settle(enforcer.admit(call(user=str(user)), estimate(0.1)), Amount(1))
            enforcer.settle(enforcer.admit(call(user="often"), estimate(0.0001)), Amount(1))
        assert len(ledger.balances()) == 100
        assert ledger.dropped == 1002 - 100
        scopes = [row.scope["user"] for row in enforcer.status()]
        assert {"in flight", "often", "999"} <= set(scopes)
        enforcer.settle(held, Amount(7))

    def test_a_tiny_bound_never_drops_what_is_held(self, enforce, clock):
        enforcer = enforce(
            *(Budget(limit_usd=1, name=name) for name in "abc"), ledger=MemoryLedger(clock=clock, max_keys=1)
        )
        for _ in range(5):
            enforcer.settle(enforcer.admit(call(), estimate(0.1)), Amount(1))

    def test_ended_holds_are_forgotten(self, enforce, clock):
        ledger = MemoryLedger(clock=clock, max_ended=50)
        enforcer = enforce(Budget(limit_usd=10**6), ledger=ledger, ttl=60)
        for _ in range(1000):
            enforcer.settle(enforcer.admit(call(), estimate(0.1)), Amount(1))
        assert len(ledger._ended) == 50
        assert len(ledger._deadlines) < 100
        for _ in range(300):
            enforcer.admit(call(), estimate(0.1))
        clock.on(400)
        for _ in range(60):
            enforcer.status()
        assert (len(ledger._ended), len(ledger._open), len(ledger._expired)) == (0, 0, 50)

    def test_warnings_given(self, enforce, monkeypatch):
        monkeypatch.setattr("tokenbudget_otel.budgets.enforcer._MAX_TOLD", 10)
        enforcer = enforce(Budget(limit_usd=0, per="user", action="warn"))
        for user in range(50):
            enforcer.admit(call(user=str(user)), estimate(1))
        assert len(enforcer._told) == 10
