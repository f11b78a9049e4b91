"""From a budget and a call to claims on a ledger, and from what the ledger says back to people's questions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Amount, Balance, Budget, Call, Estimate, Limits, MemoryLedger, Refused, window_at
from tokenbudget_otel.budgets.rules import Rule, escape, fact, scope_of
from tokenbudget_otel.budgets.store_error import allow_local

NOW = 1_795_374_000.0  # 2026-11-22 19:00 UTC
USD = 1_000_000_000
ESTIMATE = Estimate(
    Amount(2 * USD, 500),
    Amount(9 * USD, 4096),
    input_tokens=(400, 1096),
)


def call(model="gpt-5", **tags) -> Call:
    return Call("openai", model, tags, operation="chat", api_key="…4f2a")


def claims(budget: Budget, *, now=NOW, of=None, estimate=ESTIMATE, **more):
    return Rule(budget).claims(of or call(tenant="acme"), estimate, now, **more)


class TestClaims:
    def test_all_of_it(self):
        (claim,) = claims(Budget(limit_usd=5, limit_calls=7, window="month", per="tenant", name="a|b"))
        assert claim.key == "budget|a%7Cb|2026-11|tenant=acme"
        assert claim[1:4] == (2 * USD, 500, 1)
        assert claim[4:7] == (5 * USD, None, 7)
        assert claim.hard
        assert claim.ends == window_at("month", NOW).end
        assert claim.older == ()
        assert claim.policy == "a%7Cb|tenant=acme"
        assert claim.per_mille == 1000
        assert claim.fallback is None

    def test_facts_of_the_call(self):
        names = ("model", "provider", "operation", "api_key", "tenant", "feature")
        (claim,) = claims(Budget(limit_calls=1, per=names))
        assert scope_of(claim.key) == {
            "model": "gpt-5",
            "provider": "openai",
            "operation": "chat",
            "api_key": "…4f2a",
            "tenant": "acme",
            "feature": "",
        }
        assert fact(Call("openai", "gpt-5"), "operation") == ""

    @pytest.mark.parametrize(
        ("match", "applies"),
        [
            ({"api_key": "…4f2a"}, True),
            ({"api_key": "…4F2A"}, False),
            ({"operation": "Chat"}, True),
            ({"operation": "embed*"}, False),
            ({"model": "gpt-5*", "tenant": "a?me"}, True),
        ],
    )
    def test_matches(self, match, applies):
        assert Rule(Budget(limit_calls=1, match=match)).applies(call(tenant="acme")) is applies

    @pytest.mark.parametrize(
        ("token_type", "expected", "worst_case"),
        [
            ("all", 500, 4096),
            ("input", 400, 1096),
            ("cache_read", 400, 1096),
            ("cache_write", 400, 1096),
            ("output", 100, 3000),
            ("reasoning", 100, 3000),
        ],
    )
    def test_tokens_of_one_type(self, token_type, expected, worst_case):
        for mode, tokens in (("expected", expected), ("worst_case", worst_case)):
            (claim,) = claims(Budget(limit_tokens=9, token_type=token_type, mode=mode))
            assert claim.tokens == tokens

    def test_an_assumed_price(self):
        dearest = (Amount(3, 500), Amount(8, 4096))
        unknown = Estimate(Amount(None, 500), Amount(None, 4096), assumed=dearest)
        deny, assume = (
            Rule(Budget(limit_usd=1, unpriced=unpriced, mode="worst_case")) for unpriced in ("deny", "assume")
        )
        assert deny.amount(unknown).nano_usd is None
        assert assume.amount(unknown) == dearest[1]
        assert assume.needs(unknown) == (8, 4096, 1)
        # where nothing is known of the provider either, there is nothing to assume
        assert assume.amount(Estimate(Amount(None, 1), Amount(None, 1))).nano_usd is None
        assert assume.denies_unpriced

    @pytest.mark.parametrize(
        ("more", "hard", "fallback"),
        [
            ({}, True, None),
            ({"action": "shrink"}, True, None),
            ({"action": "warn"}, False, (None, None, None)),
            ({"dry_run": True}, False, (None, None, None)),
            ({"dry_run": True, "on_store_error": "deny"}, False, (None, None, None)),
            ({"on_store_error": "allow"}, True, (None, None, None)),
            ({"on_store_error": allow_local(usd="0.5", calls=3)}, True, (USD // 2, None, 3)),
        ],
    )
    def test_what_refuses_and_what_holds_without_a_store(self, more, hard, fallback):
        (claim,) = claims(Budget(limit_usd=1, **more))
        assert (claim.hard, claim.fallback) == (hard, fallback)

    def test_degrades_early_and_only_what_has_a_cheaper_model(self):
        budget = Budget(limit_usd=5, action="degrade", degrade={"gpt-5": "gpt-5-mini"}, degrade_at=0.29)
        early, full = claims(budget)
        assert (early.per_mille, full.per_mille) == (290, 1000)
        assert early._replace(per_mille=1000) == full
        assert early.hard
        assert len(claims(budget, of=call("gpt-5-mini"))) == 1
        assert len(claims(budget, early=False)) == 1
        assert len(claims(Budget(limit_usd=5, action="degrade", degrade={"gpt-5": "gpt-5-mini"}))) == 1

    @given(share=st.integers(1, 1000))
    def test_a_share_in_thousandths_is_that_many(self, share):
        budget = Budget(limit_usd=5, action="degrade", degrade={"gpt-5": "gpt-5-mini"}, degrade_at=share / 1000)
        assert claims(budget)[0].per_mille == share

    def test_the_smallest_share_is_none(self):
        budget = Budget(limit_usd=5, action="degrade", degrade={"gpt-5": "gpt-5-mini"}, degrade_at=0.0001)
        assert claims(budget)[0].per_mille == 0

    def test_chains_of_cheaper_models(self):
        rule = Rule(
            Budget(
                limit_usd=1,
                action="degrade",
                degrade={"claude-*": "claude-haiku-4-5", "claude-opus-4-1": "claude-sonnet-4-5", "GPT-5": "gpt-5-mini"},
            )
        )
        assert rule.cheaper("claude-opus-4-1") == "claude-sonnet-4-5"
        assert rule.cheaper("claude-sonnet-4-5") == "claude-haiku-4-5"
        assert rule.cheaper("claude-haiku-4-5") is None
        assert rule.cheaper("gpt-5") == "gpt-5-mini"
        assert rule.cheaper("o3") is None


class TestPolicy:
    def test_is_the_policy_of_claims(self):
        budget = Budget(limit_usd=5, per=("tenant", "model"), name="mine|")
        assert Rule(budget).policy({"model": "gpt-5", "tenant": "acme"}) == claims(budget)[0].policy
        assert Rule(Budget(limit_usd=5)).policy() == claims(Budget(limit_usd=5))[0].policy

    @pytest.mark.parametrize("scope", [{}, {"tenant": "a", "user": "b"}, {"user": "b"}])
    def test_not_a_scope(self, scope):
        with pytest.raises(ValueError, match=r"is not a scope of budget 'mine': give 'tenant'"):
            Rule(Budget(limit_usd=5, per="tenant", name="mine")).policy(scope)
        if scope:
            with pytest.raises(ValueError, match="it has none: leave the scope out"):
                Rule(Budget(limit_usd=5)).policy(scope)

    @settings(max_examples=100, deadline=None)
    @given(one=st.text("ab|=%", max_size=4), other=st.text("ab|=%", max_size=4), name=st.text("a|%", min_size=1))
    def test_names_are_unambiguous(self, one, other, name):
        rule = Rule(Budget(limit_usd=5, per=("a", "b"), name=name))
        policy = rule.policy({"a": one, "b": other})
        assert scope_of(f"budget|{escape(name)}|w|" + policy.partition("|")[2]) == {"a": one, "b": other}

    def test_limits_set_for_one_scope(self, ledger):
        rule = Rule(Budget(limit_calls=1, per="tenant"))
        ledger.set_limits(rule.policy({"tenant": "acme"}), Limits(calls=3))
        room = {}
        for tenant in ("acme", "other"):
            (claim,) = rule.claims(call(tenant=tenant), ESTIMATE, NOW)
            room[tenant] = sum(not isinstance(ledger.reserve(f"{tenant}{i}", [claim], 60), Refused) for i in range(5))
        assert room == {"acme": 3, "other": 1}


class TestRolling:
    def test_claims_name_what_came_before(self):
        (claim,) = claims(Budget(limit_calls=1, window="rolling 1h", per="tenant", name="b"))
        assert claim.key == "budget|b|rolling 1h/2026-11-22T19:00:00Z|tenant=acme"
        assert len(claim.older) == 60
        assert claim.older[0] == "budget|b|rolling 1h/2026-11-22T18:00:00Z|tenant=acme"
        assert claim.older[-1] == "budget|b|rolling 1h/2026-11-22T18:59:00Z|tenant=acme"
        assert claim.ends == NOW + 60 + 3600

    def test_without_scopes_the_older_keys_are_made_once_for_each_part(self):
        rule = Rule(Budget(limit_calls=1, window="rolling 1h"))
        first, again, later = (rule.claim(call(), ESTIMATE, now) for now in (NOW, NOW + 59, NOW + 60))
        assert first.older is again.older
        assert later.older[-1] == first.key

    @settings(max_examples=60, deadline=None)
    @given(
        gaps=st.lists(st.floats(0, 2000), min_size=1, max_size=40),
        limit=st.integers(1, 6),
        window=st.sampled_from(["rolling 90s", "rolling 30m", "rolling 24h"]),
    )
    def test_no_span_of_time_ever_sees_more_calls_than_the_limit(self, gaps, limit, window):
        now = NOW
        ledger = MemoryLedger(clock=lambda: now)
        rule = Rule(Budget(limit_calls=limit, window=window))
        span = {"rolling 90s": 90, "rolling 30m": 1800, "rolling 24h": 86_400}[window]
        admitted: list[float] = []
        for number, gap in enumerate(gaps):
            now += gap
            (claim,) = rule.claims(call(), ESTIMATE, now)
            if isinstance(ledger.reserve(str(number), [claim], 60), Refused):
                # refused too early by one part at most
                assert sum(1 for at in admitted if at > now - span - span / 60) >= limit
            else:
                ledger.settle(str(number), Amount(1, 1, 1))
                admitted.append(now)
                assert sum(1 for at in admitted if at > now - span) <= limit

    @settings(max_examples=80, deadline=None)
    @given(
        spent=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5), st.integers(0, 5)), max_size=20),
        limit=st.integers(0, 12),
        needed=st.integers(1, 6),
        second=st.floats(0, 59.9),
    )
    def test_there_is_room_at_the_moment_that_is_told_and_none_before(self, spent, limit, needed, second):
        rule = Rule(Budget(limit_tokens=limit, window="rolling 1h"))
        estimate = Estimate(Amount(0, needed), Amount(0, needed))
        now = NOW + second
        claim = rule.claim(call(), estimate, now)
        keys = (*claim.older, claim.key)
        stand = {key: Balance(key) for key in keys}
        for part, settled, reserved in spent:
            was = stand[keys[part]]
            stand[keys[part]] = was._replace(
                spent_tokens=was.spent_tokens + settled, reserved_tokens=was.reserved_tokens + reserved
            )

        def fits(at: float) -> bool:
            later = rule.claim(call(), estimate, at)
            counted = (stand.get(key, Balance(key)) for key in (*later.older, later.key))
            return sum(each.spent_tokens + each.reserved_tokens for each in counted) + needed <= limit

        at = rule.when_room([each for each in stand.values() if any(each[1:])], claim, now)
        if needed > limit:
            assert at is None
            return
        assert at is not None
        assert fits(at)
        assert at == now or not fits(at - 0.001)

    def test_of_other_windows_there_is_room_in_the_next(self):
        month, lifetime = Rule(Budget(limit_calls=1, window="month")), Rule(Budget(limit_calls=1))
        claim = month.claim(call(), ESTIMATE, NOW)
        assert month.when_room((), claim, NOW) == claim.ends
        assert month.when_room((), claim._replace(limit_calls=0), NOW) is None
        assert lifetime.when_room((), lifetime.claim(call(), ESTIMATE, NOW), NOW) is None


class TestStanding:
    def test_of_a_rolling_window_parts_are_added_up(self):
        now = NOW
        ledger = MemoryLedger(clock=lambda: now)
        rule, other = (
            Rule(Budget(limit_calls=9, window="rolling 1h", per="tenant", name=name)) for name in ("a", "a2")
        )
        for minutes in (0, 30, 59, 70):  # the first has ceased to count by then
            now = NOW + minutes * 60
            for tenant in ("x", "y") if minutes == 30 else ("x",):
                (claim,) = rule.claims(call(tenant=tenant), ESTIMATE, now)
                ledger.charge(f"{minutes}{tenant}", Amount(5, 7), [claim])
                ledger.charge(f"{minutes}{tenant}2", Amount(5, 7), other.claims(call(tenant=tenant), ESTIMATE, now))
        rows = rule.standing(ledger.balances(rule.prefix(now)), now)
        assert {scope_of(row.key)["tenant"]: row[1:4] for row in rows} == {"x": (15, 21, 3), "y": (5, 7, 1)}
        assert {row.key.split("|")[2] for row in rows} == {rule.window(now).id}

    def test_of_a_calendar_window_only_what_is_in_force(self):
        rule = Rule(Budget(limit_calls=9, window="month", per="tenant", name="a"))
        ledger = MemoryLedger(clock=lambda: NOW)
        for number, moment in enumerate((NOW, NOW + 30 * 86_400)):
            ledger.charge(str(number), Amount(5, 7), rule.claims(call(tenant="x"), ESTIMATE, moment))
        (row,) = rule.standing(ledger.balances("budget|a|"), NOW)
        assert row == Balance("budget|a|2026-11|tenant=x", 5, 7, 1)

    def test_not_what_a_budget_of_the_name_was_counted_by_before(self):
        rule = Rule(Budget(limit_calls=9, per="tenant", name="a"))
        ledger = MemoryLedger(clock=lambda: NOW)
        for number, per in enumerate([None, "tenant", ("tenant", "model"), "model"]):
            before = Rule(Budget(limit_calls=9, per=per, name="a"))
            ledger.charge(str(number), Amount(5, 7), before.claims(call(tenant="x|y=z"), ESTIMATE, NOW))
        (row,) = rule.standing(ledger.balances(rule.prefix(NOW)), NOW)
        assert scope_of(row.key) == {"tenant": "x|y=z"}

    @pytest.mark.parametrize(
        ("window", "after"), [("day", 5 * 3600), ("rolling 24h", 86_400 + 12 * 60), ("lifetime", None)]
    )
    def test_when_it_does_not_count_any_more(self, window, after):
        rule = Rule(Budget(limit_calls=9, window=window))
        assert rule.ends(NOW) == (None if after is None else NOW + after) == rule.claim(call(), ESTIMATE, NOW).ends
