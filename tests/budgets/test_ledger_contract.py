"""What every ledger has to do: one suite over all of them (see budget_ledgers.py), by example and by state machine."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tokenbudget_otel.budgets import Amount, Balance, Claim, Gone, Granted, Ledger, LedgerConflict, Limits, Refused

from .budget_ledgers import LEDGERS, Clock
from .ledger_histories import PATIENT, outcome, seen
from .ledger_model import Model


def usd(key: str, nano_usd: int, limit: int | None = None, **more) -> Claim:
    return Claim(key, nano_usd=nano_usd, calls=1, limit_nano_usd=limit, **more)


def money(ledger: Ledger, key: str) -> tuple[int, int]:
    balance = ledger.balance(key)
    return balance.spent_nano_usd, balance.reserved_nano_usd


def everything(ledger: Ledger):
    return ledger.balances(), ledger.holds()


class TestReserve:
    def test_reserves_in_every_key(self, ledger):
        claims = (Claim("a", 5, 7, 1), Claim("b", 50, 70, 1))
        assert ledger.reserve("h", claims, 60) == Granted()
        assert ledger.balances() == (
            Balance("a", reserved_nano_usd=5, reserved_tokens=7, reserved_calls=1),
            Balance("b", reserved_nano_usd=50, reserved_tokens=70, reserved_calls=1),
        )

    def test_fills_a_limit_exactly_and_no_further(self, ledger):
        assert isinstance(ledger.reserve("1", [usd("k", 100, 100)], 60), Granted)
        refused = ledger.reserve("2", [usd("k", 1, 100)], 60)
        assert isinstance(refused, Refused)
        assert refused.shortages[0].balance.reserved_nano_usd == 100
        assert refused.shortages[0].dimensions == ("usd",)

    @pytest.mark.parametrize(
        ("claim", "dimension"),
        [
            (Claim("k", nano_usd=3, limit_nano_usd=2), "usd"),
            (Claim("k", tokens=3, limit_tokens=2), "tokens"),
            (Claim("k", calls=3, limit_calls=2), "calls"),
        ],
    )
    def test_limits_each_dimension(self, ledger, claim, dimension):
        refused = ledger.reserve("h", [claim], 60)
        assert isinstance(refused, Refused)
        assert refused.shortages[0].dimensions == (dimension,)

    def test_a_refusal_changes_nothing_anywhere(self, ledger):
        ledger.reserve("1", [usd("a", 5), usd("b", 90)], 60)
        before = everything(ledger)
        refused = ledger.reserve("2", [usd("a", 5, 100), usd("b", 11, 100), usd("new", 1, 0)], 60)
        assert isinstance(refused, Refused)
        assert [each.claim.key for each in refused.shortages] == ["b", "new"]
        assert everything(ledger) == before

    def test_a_refused_id_may_be_tried_again(self, ledger):
        ledger.reserve("1", [usd("k", 100, 100)], 60)
        assert isinstance(ledger.reserve("2", [usd("k", 1, 100)], 60), Refused)
        ledger.release("1")
        assert ledger.reserve("2", [usd("k", 1, 100)], 60) == Granted()

    def test_a_soft_claim_is_reported_and_reserved(self, ledger):
        granted = ledger.reserve("1", [usd("k", 5, 4, hard=False)], 60)
        assert isinstance(granted, Granted)
        assert granted.over[0].dimensions == ("usd",)
        assert money(ledger, "k") == (0, 5)

    def test_what_is_free_passes_a_spent_budget(self, ledger):
        ledger.charge("c", Amount(100), [usd("k", 0)])
        assert ledger.reserve("h", [usd("k", 0, 100)], 60) == Granted()
        assert isinstance(ledger.reserve("i", [usd("k", 1, 100)], 60), Refused)

    def test_limits_are_those_of_the_request(self, ledger):
        assert isinstance(ledger.reserve("1", [usd("k", 50, 10)], 60), Refused)
        assert isinstance(ledger.reserve("1", [usd("k", 50, 100)], 60), Granted)
        assert isinstance(ledger.reserve("2", [usd("k", 1, 20)], 60), Refused)

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_order_does_not_matter(self, ledger, order):
        claims = [usd("a", 5, 5), usd("b", 6, 6), usd("c", 7, 7)]
        assert ledger.reserve("h", [claims[i] for i in order], 60) == Granted()
        assert ledger.reserve("h", claims, 60) == Granted(replayed=True)
        assert [each.reserved_nano_usd for each in ledger.balances()] == [5, 6, 7]

    def test_a_key_claimed_twice_counts_once_under_both_limits(self, ledger):
        twice = [usd("k", 5, 100), usd("k", 5, 9)]
        assert ledger.reserve("1", twice, 60) == Granted()
        assert money(ledger, "k") == (0, 5)
        assert isinstance(ledger.reserve("2", twice, 60), Refused)

    def test_a_key_claimed_for_two_amounts_is_an_error(self, ledger):
        with pytest.raises(LedgerConflict, match="'k'"):
            ledger.reserve("1", [usd("k", 5), usd("k", 6)], 60)

    @pytest.mark.parametrize("claim", [Claim("k", nano_usd=0.5), Claim("k", tokens=1.0), Claim("k", calls=1e0)])
    def test_no_float_enters(self, ledger, claim):
        with pytest.raises(TypeError, match="whole numbers"):
            ledger.reserve("h", [claim], 60)
        assert everything(ledger) == ((), ())

    def test_nothing_negative_enters(self, ledger):
        with pytest.raises(ValueError, match="less than nothing"):
            ledger.reserve("h", [Claim("k", nano_usd=-1)], 60)
        with pytest.raises(ValueError, match="less than nothing"):
            ledger.charge("h", Amount(-1), [Claim("k")])
        with pytest.raises(ValueError, match="less than nothing"):
            ledger.settle("h", Amount(1, -1))
        assert everything(ledger) == ((), ())


class TestIdempotency:
    def test_each_operation_repeated(self, ledger):
        claims = [usd("k", 50, 100)]
        assert ledger.reserve("h", claims, 60) == Granted()
        assert ledger.reserve("h", claims, 60) == Granted(replayed=True)
        assert ledger.extend("h", "s", [usd("k", 20, 100)]) == Granted()
        assert ledger.extend("h", "s", [usd("k", 20, 100)]) == Granted(replayed=True)
        assert money(ledger, "k") == (0, 70)
        assert ledger.settle("h", Amount(60), claims) == "done"
        assert ledger.settle("h", Amount(60), claims) == "replayed"
        assert ledger.reserve("h", claims, 60) == Granted(replayed=True)
        assert money(ledger, "k") == (60, 0)
        assert ledger.charge("c", Amount(1), claims) == "done"
        assert ledger.charge("c", Amount(1), claims) == "replayed"
        assert ledger.adjust("a", Amount(-2, 0, 0), claims, "invoice") == "done"
        assert ledger.adjust("a", Amount(-2, 0, 0), claims, "invoice") == "replayed"
        assert money(ledger, "k") == (59, 0)

    def test_a_raised_limit_does_not_make_a_request_another(self, ledger):
        ledger.reserve("h", [usd("k", 50, 100)], 60)
        assert ledger.reserve("h", [usd("k", 50, 999)], 60) == Granted(replayed=True)

    def test_an_id_used_for_something_else(self, ledger):
        ledger.reserve("h", [usd("k", 50)], 60)
        with pytest.raises(LedgerConflict):
            ledger.reserve("h", [usd("k", 51)], 60)
        with pytest.raises(LedgerConflict):
            ledger.reserve("h", [usd("other", 50)], 60)
        with pytest.raises(LedgerConflict):
            ledger.charge("h", Amount(50), [usd("k", 50)])
        ledger.extend("h", "s", [usd("k", 1)])
        with pytest.raises(LedgerConflict):
            ledger.extend("h", "s", [usd("k", 2)])
        ledger.settle("h", Amount(5))
        with pytest.raises(LedgerConflict):
            ledger.settle("h", Amount(6))
        with pytest.raises(LedgerConflict):
            ledger.adjust("h", Amount(5), [usd("k", 50)])
        ledger.adjust("a", Amount(1), [usd("k", 1)])
        with pytest.raises(LedgerConflict):
            ledger.reserve("a", [usd("k", 1)], 60)
        with pytest.raises(LedgerConflict):
            ledger.settle("a", Amount(1))

    def test_settle_that_overtakes_its_reserve(self, ledger):
        claims = [usd("k", 50, 100)]
        assert ledger.settle("h", Amount(40), claims) == "late"
        assert ledger.reserve("h", claims, 60) == Granted(replayed=True)
        assert ledger.settle("h", Amount(40), claims) == "replayed"
        assert money(ledger, "k") == (40, 0)


class TestSettle:
    def test_records_the_truth_past_the_limit(self, ledger):
        ledger.reserve("h", [usd("a", 50, 100), usd("b", 50)], 60)
        ledger.settle("h", Amount(300, 20, 1))
        assert ledger.balances() == (Balance("a", 300, 20, 1), Balance("b", 300, 20, 1))
        assert isinstance(ledger.reserve("i", [usd("a", 1, 100)], 60), Refused)

    def test_an_unknown_cost_is_what_was_reserved(self, ledger):
        ledger.reserve("h", [usd("a", 50), usd("b", 80)], 60)
        ledger.settle("h", Amount(None, 9))
        assert money(ledger, "a") == (50, 0)
        assert money(ledger, "b") == (80, 0)
        assert ledger.balance("a").spent_tokens == 9

    def test_an_unknown_hold_is_charged(self, ledger):
        assert ledger.settle("h", Amount(30, 3), [usd("k", 50)]) == "late"
        assert ledger.settle("i", Amount(None, 3), [usd("k", 50)]) == "late"
        assert ledger.balance("k") == Balance("k", 80, 6, 2)

    def test_different_amounts_in_different_keys(self, ledger):
        ledger.reserve("h", [usd("expected", 10), usd("worst", 90)], 60)
        assert money(ledger, "expected") == (0, 10)
        assert money(ledger, "worst") == (0, 90)
        ledger.settle("h", Amount(20))
        assert money(ledger, "expected") == money(ledger, "worst") == (20, 0)


class TestRelease:
    def test_gives_back(self, ledger):
        ledger.reserve("h", [usd("k", 50)], 60)
        assert ledger.release("h") == "done"
        assert ledger.release("h") == "replayed"
        assert ledger.balance("k") == Balance("k")

    def test_of_nothing(self, ledger):
        assert ledger.release("h") == "ignored"
        ledger.charge("c", Amount(1), [usd("k", 0)])
        assert ledger.release("c") == "ignored"
        assert money(ledger, "k") == (1, 0)

    def test_does_not_undo_a_settlement(self, ledger):
        ledger.reserve("h", [usd("k", 50)], 60)
        ledger.settle("h", Amount(40))
        assert ledger.release("h") == "ignored"
        assert money(ledger, "k") == (40, 0)

    def test_of_what_was_spent_after_all(self, ledger):
        ledger.reserve("h", [usd("k", 50)], 60)
        ledger.release("h")
        assert ledger.settle("h", Amount(40)) == "late"
        assert money(ledger, "k") == (40, 0)


class TestExtend:
    def test_within_the_limit_only(self, ledger):
        ledger.reserve("h", [usd("a", 50, 100), usd("b", 1)], 60)
        assert ledger.extend("h", "1", [Claim("a", 30, limit_nano_usd=100)]) == Granted()
        before = everything(ledger)
        assert isinstance(ledger.extend("h", "2", [Claim("a", 30, limit_nano_usd=100), Claim("b", 5)]), Refused)
        assert everything(ledger) == before
        ledger.settle("h", Amount(75))
        assert money(ledger, "a") == (75, 0)

    def test_lives_longer(self, ledger, clock):
        ledger.reserve("h", [usd("k", 50)], 60)
        clock.on(50)
        ledger.extend("h", "alive", ttl=60)
        clock.on(50)
        assert ledger.expire() == ()
        clock.on(10)
        assert ledger.expire() == ("h",)

    def test_of_a_hold_that_is_not_open(self, ledger, clock):
        assert ledger.extend("h", "1", [Claim("k", 1)]) == Gone(None)
        for name in ("settled", "released", "expired"):
            ledger.reserve(name, [usd("k", 1)], 60)
        ledger.settle("settled", Amount(1))
        ledger.release("released")
        clock.on(60)
        assert ledger.expire() == ("expired",)
        assert [ledger.extend(name, "1").state for name in ("settled", "released", "expired")] == [
            "settled",
            "released",
            "expired",
        ]

    def test_not_into_another_key(self, ledger):
        ledger.reserve("h", [usd("k", 1)], 60)
        with pytest.raises(ValueError, match="'other'"):
            ledger.extend("h", "1", [Claim("other", 1)])


class TestExpiry:
    @pytest.mark.parametrize(
        ("on_expiry", "charged"), [(None, 50), (Amount(None, 0), 50), (Amount(10, 5), 10), (Amount(0, 0, 0), 0)]
    )
    def test_charges_what_the_request_said(self, ledger, clock, on_expiry, charged):
        ledger.reserve("h", [usd("k", 50)], 60, on_expiry)
        clock.on(59)
        assert ledger.expire() == ()
        clock.on(1)
        assert ledger.expire() == ("h",)
        assert ledger.expire() == ()
        assert money(ledger, "k") == (charged, 0)

    def test_happens_in_the_next_reserve(self, ledger, clock):
        ledger.reserve("lost", [usd("k", 100, 100)], 60, Amount(0, 0, 0))
        assert isinstance(ledger.reserve("h", [usd("k", 100, 100)], 60), Refused)
        clock.on(60)
        assert ledger.reserve("h", [usd("k", 100, 100)], 60) == Granted()

    @pytest.mark.parametrize("actual", [0, 20, 50, 300])
    def test_a_late_settle_corrects(self, ledger, clock, actual):
        ledger.reserve("h", [usd("k", 50)], 60)
        clock.on(60)
        ledger.expire()
        assert ledger.settle("h", Amount(actual, 7)) == "late"
        assert ledger.settle("h", Amount(actual, 7)) == "replayed"
        assert ledger.balance("k") == Balance("k", actual, 7, 1)

    def test_a_late_release_takes_back(self, ledger, clock):
        ledger.reserve("h", [usd("k", 50)], 60)
        clock.on(60)
        ledger.expire()
        assert ledger.release("h") == "late"
        assert ledger.release("h") == "replayed"
        assert ledger.balance("k") == Balance("k")

    def test_a_few_at_a_time(self, ledger, clock):
        for number in range(10):
            ledger.reserve(str(number), [usd("k", 1)], 60 + number)
        clock.on(100)
        assert ledger.expire(at_most=3) == ("0", "1", "2")
        assert ledger.expire() == tuple(map(str, range(3, 10)))
        assert money(ledger, "k") == (10, 0)

    def test_the_earliest_first_also_where_one_was_renewed(self, ledger, clock):
        ledger.reserve("a", [usd("k", 1)], 10)
        ledger.renew(["a"], 30)
        ledger.reserve("b", [usd("k", 1)], 20)
        clock.on(100)
        assert ledger.expire(at_most=1) == ("b",)

    def test_what_was_settled_in_time_does_not_run_out(self, ledger, clock):
        ledger.reserve("h", [usd("k", 50)], 60)
        ledger.settle("h", Amount(5))
        clock.on(60)
        assert ledger.expire() == ()
        assert money(ledger, "k") == (5, 0)

    def test_a_hold_past_its_time_that_nobody_swept_is_settled_once(self, ledger, clock):
        ledger.reserve("h", [usd("k", 50)], 60)
        clock.on(61)
        ledger.settle("h", Amount(5))
        assert ledger.expire() == ()
        assert money(ledger, "k") == (5, 0)


class TestLookingInside:
    def test_holds(self, ledger, clock):
        ledger.reserve("1", [usd("a", 5)], 60)
        clock.on(1)
        ledger.reserve("2", [usd("a", 5), usd("b", 5)], 60)
        assert [hold.id for hold in ledger.holds()] == ["1", "2"]
        (hold,) = ledger.holds("b")
        assert (hold.created, hold.expires) == (clock.now, clock.now + 60)
        assert [claim.key for claim in hold.claims] == ["a", "b"]
        assert [claim[1:4] for claim in hold.claims] == [(5, 0, 1), (5, 0, 1)]

    def test_owner(self, ledger):
        ledger.reserve("1", [usd("a", 5)], 60, None, "host:1 openai gpt-5")
        ledger.reserve("2", [usd("b", 5)], 60)
        assert [hold.owner for hold in ledger.holds()] == ["host:1 openai gpt-5", ""]

    def test_several_at_once(self, ledger):
        ledger.charge("1", Amount(1), [Claim("a"), Claim("b")])
        assert ledger.read(["b", "never", "a"]) == (Balance("b", 1, 0, 1), Balance("never"), Balance("a", 1, 0, 1))
        assert ledger.read([]) == ()

    def test_balances_by_prefix(self, ledger):
        ledger.charge("1", Amount(1), [Claim("a|1"), Claim("a|2"), Claim("b|1")])
        assert [each.key for each in ledger.balances("a|")] == ["a|1", "a|2"]
        assert ledger.balance("never") == Balance("never")

    def test_forget(self, ledger):
        ledger.charge("1", Amount(1), [Claim("idle")])
        ledger.reserve("2", [usd("busy", 5)], 60)
        ledger.forget(["idle", "busy", "never"])
        assert [each.key for each in ledger.balances()] == ["busy"]
        ledger.settle("2", Amount(1))
        assert ledger.balances() == ()


class TestRenew:
    def test_lives_longer_and_never_shorter(self, ledger, clock):
        ledger.reserve("a", [usd("k", 1)], 60)
        ledger.reserve("b", [usd("k", 1)], 600)
        ledger.reserve("settled", [usd("k", 1)], 600)
        ledger.settle("settled", Amount(1))
        clock.on(50)
        assert set(ledger.renew(["a", "b", "settled", "never"], 60)) == {"settled", "never"}
        assert [hold.expires - clock.now for hold in ledger.holds()] == [60, 550]
        clock.on(59)
        assert ledger.expire() == ()
        clock.on(1)
        assert ledger.expire() == ("a",)
        assert ledger.renew(["a"], 60) == ("a",)

    def test_of_nothing(self, ledger):
        assert ledger.renew([], 60) == ()


class TestApart:
    """Keys that record another amount than the call's: the tokens of one type only."""

    def test_a_settlement(self, ledger):
        claims = [Claim("all", 50, 500, 1), Claim("output", 50, 100, 1)]
        ledger.reserve("h", claims, 60)
        apart = {"output": Amount(40, 80)}
        assert ledger.settle("h", Amount(40, 400), claims, apart) == "done"
        assert ledger.settle("h", Amount(40, 400), claims, apart) == "replayed"
        assert ledger.balances() == (Balance("all", 40, 400, 1), Balance("output", 40, 80, 1))
        with pytest.raises(LedgerConflict):
            ledger.settle("h", Amount(40, 400), claims, {"output": Amount(40, 81)})

    def test_of_an_unknown_hold_and_of_an_unknown_price(self, ledger):
        claims = [Claim("all", 50, 500, 1), Claim("output", 70, 100, 1)]
        assert ledger.settle("h", Amount(None, 400), claims, {"output": Amount(None, 80)}) == "late"
        assert ledger.balances() == (Balance("all", 50, 400, 1), Balance("output", 70, 80, 1))

    def test_of_a_hold_that_ran_out(self, ledger, clock):
        claims = [Claim("all", 50, 500, 1), Claim("output", 50, 100, 1)]
        ledger.reserve("h", claims, 60)
        clock.on(60)
        ledger.expire()
        assert ledger.settle("h", Amount(40, 400), claims, {"output": Amount(40, 80)}) == "late"
        assert ledger.balances() == (Balance("all", 40, 400, 1), Balance("output", 40, 80, 1))

    def test_a_charge(self, ledger):
        claims = [Claim("all"), Claim("output")]
        assert ledger.charge("c", Amount(40, 400), claims, {"output": Amount(40, 80)}) == "done"
        assert ledger.charge("c", Amount(40, 400), claims, {"output": Amount(40, 80)}) == "replayed"
        with pytest.raises(LedgerConflict):
            ledger.charge("c", Amount(40, 400), claims)
        assert ledger.balances() == (Balance("all", 40, 400, 1), Balance("output", 40, 80, 1))

    def test_nothing_negative(self, ledger):
        with pytest.raises(ValueError, match="less than nothing"):
            ledger.charge("c", Amount(4), [Claim("k")], {"k": Amount(-1)})


class TestOlderKeys:
    """Rolling windows: what was spent in earlier parts counts, and is booked nowhere else."""

    def test_count_against_the_limit(self, ledger):
        ledger.charge("1", Amount(40, 4), [Claim("w|1")])
        ledger.reserve("2", [usd("w|2", 30)], 60)
        claim = usd("w|3", 20, 100, older=("w|1", "w|2", "w|0"))
        assert ledger.reserve("3", [claim], 60) == Granted()
        refused = ledger.reserve("4", [claim], 60)
        assert isinstance(refused, Refused)
        assert refused.shortages[0].balance == Balance("w|3", 40, 4, 1, 50, 0, 2)
        assert refused.shortages[0].claim.limit_nano_usd == 100
        assert ledger.reserve("5", [claim._replace(older=("w|2",))], 60) == Granted()
        assert [each.key for each in ledger.balances()] == ["w|1", "w|2", "w|3"]

    def test_are_checked_when_more_is_asked_for(self, ledger):
        ledger.charge("1", Amount(40), [Claim("w|1")])
        claim = usd("w|2", 20, 100, older=("w|1",))
        ledger.reserve("h", [claim], 60)
        assert isinstance(ledger.extend("h", "1", [claim._replace(nano_usd=41, calls=0)]), Refused)
        assert ledger.extend("h", "1", [claim._replace(nano_usd=40, calls=0)]) == Granted()


class TestLimitsSetFromOutside:
    def test_replace_those_of_the_request(self, ledger):
        claim = Claim("k", 50, 5, 1, limit_nano_usd=10, limit_tokens=10, policy="p")
        assert isinstance(ledger.reserve("1", [claim], 60), Refused)
        ledger.set_limits("p", Limits(nano_usd=60))
        assert ledger.limits() == {"p": Limits(nano_usd=60)}
        assert ledger.reserve("1", [claim], 60) == Granted()
        refused = ledger.reserve("2", [claim], 60)
        assert isinstance(refused, Refused)
        assert refused.shortages[0].claim[4:7] == (60, 10, None)
        ledger.set_limits("p", Limits(200, 10))
        assert ledger.reserve("2", [claim], 60) == Granted()
        ledger.set_limits("p", None)
        assert isinstance(ledger.reserve("3", [claim], 60), Refused)
        assert ledger.limits() == {}

    def test_of_another_policy_do_not_matter(self, ledger):
        ledger.set_limits("other", Limits(0, 0, 0))
        ledger.set_limits("", Limits(0, 0, 0))
        assert ledger.reserve("1", [usd("k", 5, 10, policy="p")], 60) == Granted()

    def test_a_share_of_the_limit(self, ledger):
        claim = usd("k", 40, 100, policy="p")
        most = claim._replace(per_mille=800)
        assert ledger.reserve("1", [claim, most], 60) == Granted()
        assert ledger.reserve("2", [claim, most], 60) == Granted()
        refused = ledger.reserve("3", [claim._replace(nano_usd=5), most._replace(nano_usd=5)], 60)
        assert isinstance(refused, Refused)
        # Which of the two it was is told by the share, which the limit in force includes already.
        assert [(each.claim.limit_nano_usd, each.claim.per_mille) for each in refused.shortages] == [(80, 800)]
        ledger.set_limits("p", Limits(nano_usd=110))
        assert ledger.reserve("3", [claim._replace(nano_usd=5), most._replace(nano_usd=5)], 60) == Granted()

    def test_bind_an_extension(self, ledger):
        claim = usd("k", 40, 100, policy="p")
        ledger.reserve("h", [claim], 60)
        ledger.set_limits("p", Limits(nano_usd=50))
        assert isinstance(ledger.extend("h", "1", [claim._replace(nano_usd=11, calls=0)]), Refused)
        assert ledger.extend("h", "1", [claim._replace(nano_usd=10, calls=0)]) == Granted()


class TestForAllProcesses:
    def test_a_mark_is_made_once(self, ledger, clock):
        assert ledger.first("alert|k|0.8", clock.now + 60)
        assert not ledger.first("alert|k|0.8", clock.now + 60)
        assert ledger.first("alert|k|0.9")
        clock.on(59)
        assert not ledger.first("alert|k|0.8", clock.now + 60)
        assert not ledger.first("alert|k|0.9")

    def test_descriptions(self, ledger):
        assert ledger.declared() == {}
        ledger.declare("a", '{"limit_usd": 1}')
        ledger.declare("b", "{}")
        ledger.declare("a", '{"limit_usd": 2}')
        assert ledger.declared() == {"a": '{"limit_usd": 2}', "b": "{}"}

    def test_the_largest_number(self, ledger):
        claim = Claim("k", ledger.largest // 2, limit_nano_usd=ledger.largest)
        assert ledger.reserve("h", [claim], 60) == Granted()
        ledger.settle("h", Amount(ledger.largest // 2 - 1, 1))
        assert ledger.balance("k").spent_nano_usd == ledger.largest // 2 - 1

    def test_nothing_larger_enters(self, ledger):
        more = ledger.largest + 1
        with pytest.raises(ValueError, match="beyond"):
            ledger.reserve("h", [Claim("k", more)], 60)
        with pytest.raises(ValueError, match="beyond"):
            ledger.charge("c", Amount(more), [Claim("k")])
        with pytest.raises(ValueError, match="beyond"):
            ledger.settle("h", Amount(0, more), [Claim("k")])
        for delta in (more, -more):
            with pytest.raises(ValueError, match="beyond"):
                ledger.adjust("a", Amount(delta), [Claim("k")])
        assert everything(ledger) == ((), ())


# -- the state machine ----------------------------------------------------------------------------------------

PLAIN = {
    "month": Claim("month", limit_nano_usd=1000, limit_tokens=500, limit_calls=12),
    "tenant": Claim("tenant", limit_nano_usd=400),
    "run": Claim("run", limit_tokens=300, limit_calls=5),
}
"""Keys whose limits are always the same, and hard."""

TEMPLATES = {
    **{key: (claim,) for key, claim in PLAIN.items()},
    "soft": (Claim("soft", limit_nano_usd=200, limit_calls=3, hard=False),),
    "team": (
        Claim("team", limit_nano_usd=500, limit_tokens=200, policy="team"),
        Claim("team", limit_nano_usd=500, limit_tokens=200, policy="team", per_mille=799),
    ),
    "part 1": (Claim("part 1", limit_nano_usd=300, ends=2e9),),
    "part 2": (Claim("part 2", limit_nano_usd=300, older=("part 1", "part 0"), ends=2e9),),
    "scratch": (Claim("scratch", limit_nano_usd=900),),
}
"""What is claimed of which key: one with limits set from outside, two parts of a rolling window, one to forget."""

IDS = st.sampled_from([f"h{number}" for number in range(8)])
NUMBERS = st.builds(Amount, st.integers(0, 300), st.integers(0, 150), st.integers(0, 2))
CAME_TO = NUMBERS | st.builds(Amount, st.none() | st.integers(0, 900), st.integers(0, 300), st.integers(0, 2))
SHARES = st.dictionaries(st.sampled_from(sorted(TEMPLATES)), NUMBERS, min_size=1, max_size=4)
FEW = st.builds(Amount, st.integers(0, 60), st.integers(0, 30), st.integers(0, 1))
FEW_EACH = st.dictionaries(st.sampled_from(sorted(TEMPLATES)), FEW, min_size=3)
APART = st.none() | st.dictionaries(st.sampled_from(sorted(TEMPLATES)), CAME_TO, max_size=2)
LIMITS = st.none() | st.builds(Limits, *[st.none() | st.integers(0, 900)] * 3)
TTL = 4
"""Seconds. With the steps of time below, no history outlasts the five minutes that ended holds are remembered."""


def claims_of(shares: dict[str, Amount], order: list[str] | None = None) -> tuple[Claim, ...]:
    """What is asked of each key, in the order given; some of it twice, if the order says so."""
    return tuple(
        template._replace(nano_usd=shares[key].nano_usd, tokens=shares[key].tokens, calls=shares[key].calls)
        for key in (order or shares)
        for template in TEMPLATES[key]
    )


class LedgerMachine(RuleBasedStateMachine):
    """A ledger beside the model of one (ledger_model.py): whatever is asked of both, both answer the same, and stand
    the same afterwards; refused or not (P3), for the first time or again (P4)."""

    make = None  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledger = type(self).make(self.clock)
        self.model = Model(self.clock)
        self.done = []
        self.unseen = False
        self.probes = 0

    def both(self, operation: str, *arguments):
        expected = outcome(self.model, operation, *arguments)
        assert outcome(self.ledger, operation, *arguments) == expected, operation
        self.done.append((operation, arguments))
        return expected

    @initialize(several=st.lists(st.tuples(FEW_EACH, st.none() | CAME_TO), max_size=3))
    def something_is_open(self, several):
        for number, (shares, on_expiry) in enumerate(several):
            self.both("reserve", f"h{number}", claims_of(shares), TTL, on_expiry)

    @rule(
        hold=IDS,
        shares=SHARES,
        doubled=st.booleans(),
        backwards=st.booleans(),
        on_expiry=st.none() | st.just(Amount(0, 0, 0)) | CAME_TO,
        owner=st.sampled_from(["", "host:1"]),
    )
    def reserve(self, hold, shares, doubled, backwards, on_expiry, owner):
        order = sorted(shares, reverse=backwards)
        self.both("reserve", hold, claims_of(shares, order * 2 if doubled else order), TTL, on_expiry, owner)

    @precondition(lambda self: self.done)
    @rule(which=st.integers(0, 20))
    def again(self, which):
        operation, arguments = self.done[-1 - which % len(self.done)]
        self.both(operation, *arguments)

    @precondition(lambda self: self.model.open())
    @rule(
        which=st.integers(0, 7),
        step=st.sampled_from("ab"),
        more=FEW,
        everywhere=st.booleans(),
        ttl=st.sampled_from([None, 1, TTL]),
        twice=st.booleans(),
    )
    def extend(self, which, step, more, everywhere, ttl, twice):
        hold, entry = self.model.open()[which % len(self.model.open())]
        keys = sorted(entry.held)[: None if everywhere else 1]
        self.both("extend", hold, step, claims_of(dict.fromkeys(keys, more)), ttl)
        if twice:
            self.both("extend", hold, step, claims_of(dict.fromkeys(keys, more)), ttl)
            self.both("reserve", hold, tuple(Claim(key, *numbers) for key, numbers in entry.asked.items()), TTL)

    @rule(hold=IDS, shares=st.just({}) | SHARES, ttl=st.sampled_from([None, TTL]))
    def extend_anything(self, hold, shares, ttl):
        self.both("extend", hold, "c", claims_of(shares), ttl)

    @rule(holds=st.lists(IDS, max_size=3, unique=True), ttl=st.sampled_from([1, TTL, 2 * TTL]))
    def renew(self, holds, ttl):
        self.both("renew", tuple(holds), ttl)

    @precondition(lambda self: self.model.open())
    @rule(first=st.integers(0, 3), ttl=st.sampled_from([1, TTL, 2 * TTL]), late=st.booleans())
    def renew_what_is_open(self, first, ttl, late):
        holds = [name for name, _ in self.model.open()][first:]
        self.clock.on(TTL * late)
        self.both("renew", (*holds, "never"), ttl)

    @rule(hold=IDS, actual=CAME_TO, shares=SHARES, apart=APART)
    def settle(self, hold, actual, shares, apart):
        self.both("settle", hold, actual, claims_of(shares), apart)

    @precondition(lambda self: self.ran_out())
    @rule(which=st.integers(0, 7), actual=CAME_TO, apart=APART, billed=st.booleans())
    def end_late(self, which, actual, apart, billed):
        hold = self.ran_out()[which % len(self.ran_out())]
        if billed:
            self.both("settle", hold, actual, (), apart)
        else:
            self.both("release", hold)

    def ran_out(self):
        return [hold for hold, entry in self.model.entries.items() if entry.state == "expired"]

    @rule(hold=IDS, apart=APART)
    def settle_with_something_else_apart(self, hold, apart):
        entry = self.model.entries.get(hold)
        if entry is not None and entry.state == "settled":
            self.both("settle", hold, entry.ended_with[0], (), apart)

    @rule(hold=IDS)
    def release(self, hold):
        self.both("release", hold)

    @rule(hold=IDS, actual=CAME_TO, shares=SHARES, apart=APART)
    def charge(self, hold, actual, shares, apart):
        self.both("charge", hold, actual, claims_of(shares), apart)

    @rule(hold=IDS, shares=SHARES, delta=st.builds(Amount, st.integers(-50, 50), st.integers(-20, 20), st.just(0)))
    def adjust(self, hold, shares, delta):
        self.both("adjust", hold, delta, claims_of(shares), "test")

    @rule(at_most=st.integers(1, 3))
    def expire_some(self, at_most):
        due = self.model.expire()
        ended = self.ledger.expire(at_most)
        assert len(ended) == min(at_most, len(due))
        assert set(ended) <= set(due)

    @rule()
    def expire(self):
        self.both("expire")

    @rule(policy=st.sampled_from(["team", "other"]), limits=LIMITS)
    def set_limits(self, policy, limits):
        self.both("set_limits", policy, limits)

    @rule(name=st.sampled_from("ab"), document=st.sampled_from(["{}", '{"limit_usd": 1}']))
    def declare(self, name, document):
        self.both("declare", name, document)

    @rule(mark=st.sampled_from("xyz"), ends=st.sampled_from([None, 2e9]))
    def first(self, mark, ends):
        self.both("first", mark, ends)

    @rule(others=st.lists(st.sampled_from(["never", "part 0"])))
    def forget(self, others):
        self.both("forget", ("scratch", *others))

    @rule(seconds=st.sampled_from([1, 2, 4]), unseen=st.booleans())
    def time_passes(self, seconds, unseen):
        self.clock.on(seconds)
        self.unseen = unseen  # to look would end what has run out

    @rule(key=st.sampled_from(sorted(PLAIN)))
    def what_is_left_is_granted(self, key):
        """P8: nobody is refused because of what somebody else might have."""
        (balance,) = self.ledger.read((key,))
        if any(balance[4:7]):
            return
        room = [max(0, limit - was) if limit else 1 for limit, was in zip(PLAIN[key][4:7], balance[1:4], strict=True)]
        claim = PLAIN[key]._replace(nano_usd=room[0], tokens=room[1], calls=room[2])
        self.probes += 1
        name = f"probe {self.probes}"
        assert self.both("reserve", name, (claim,), TTL) == Granted()
        for dimension in range(3):
            if room[dimension] and PLAIN[key][4 + dimension]:
                one = tuple(int(each == dimension) for each in range(3))
                assert isinstance(self.both("reserve", name + str(one), (Claim(key, *one, *claim[4:]),), TTL), Refused)
        self.both("release", name)

    # what always holds

    @invariant()
    def stand_the_same(self):
        """P1, P7: reserved is what open holds reserve, spent is what was booked; in integers (P18)."""
        if self.unseen:
            self.unseen = False
            return
        there = seen(self.ledger)
        assert there == seen(self.model)
        for balance in there[0]:
            assert all(type(number) is int for number in balance[1:])
            if balance.key not in PLAIN:
                continue
            # P2: a limit is passed by what calls came to beyond their reservation and by what nobody reserved, only.
            slack = self.model.slack.get(balance.key, (0, 0, 0))
            for limit, spent, reserved, more in zip(
                PLAIN[balance.key][4:7], balance[1:4], balance[4:7], slack, strict=True
            ):
                assert limit is None or spent + reserved <= limit + more


def machine_of(name: str) -> type[LedgerMachine]:
    return type("Machine", (LedgerMachine,), {"make": staticmethod(LEDGERS[name])})


# Each ledger as many histories as the others take time for.
EFFORT = {"memory": (150, 40), "sqlite": (60, 30), "redis": (40, 30), "redis asyncio": (15, 30)}


@pytest.mark.parametrize("name", LEDGERS)
def test_any_history(name):
    """P1 to P5, P7 to P9, P12, P18: every history that hypothesis thinks of ends as the model says."""
    examples, steps = EFFORT[name]
    run_state_machine_as_test(
        machine_of(name), settings=settings(PATIENT, max_examples=examples, stateful_step_count=steps)
    )


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", LEDGERS)
def test_any_long_history(name):
    run_state_machine_as_test(machine_of(name), settings=settings(PATIENT, max_examples=300, stateful_step_count=60))
