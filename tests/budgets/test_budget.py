"""Declaring budgets: what is taken, and what is refused at once and how."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from decimal import Decimal

import pytest

from tokenbudget_otel.budgets import Budget, Enforcer, budget


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "needs a limit: give limit_usd, limit_tokens or limit_calls"),
        ({"limit_usd": -1}, "limit_usd must be at least 0, not -1"),
        ({"limit_usd": "-0.01"}, "limit_usd must be at least 0, not '-0.01'"),
        ({"limit_usd": float("nan")}, "limit_usd must be a finite amount of US dollars, not nan"),
        ({"limit_usd": Decimal("NaN")}, "limit_usd must be a finite amount"),
        ({"limit_usd": float("inf")}, "limit_usd must be a finite amount of US dollars, not inf"),
        ({"limit_usd": "ten"}, "limit_usd must be a finite amount of US dollars, not 'ten'"),
        ({"limit_usd": True}, "limit_usd must be a finite amount of US dollars, not True"),
        ({"limit_usd": [1]}, r"limit_usd must be a finite amount of US dollars, not \[1\]"),
        ({"limit_tokens": -5}, "limit_tokens must be at least 0, not -5"),
        ({"limit_tokens": 1.5}, "limit_tokens must be a whole number, not 1.5"),
        ({"limit_tokens": float("nan")}, "limit_tokens must be a whole number, not nan"),
        ({"limit_tokens": float("inf")}, "limit_tokens must be a whole number, not inf"),
        ({"limit_tokens": "100"}, "limit_tokens must be a whole number, not '100'"),
        ({"limit_calls": False}, "limit_calls must be a whole number, not False"),
        ({"limit_usd": 1, "window": "monthly"}, "unknown window 'monthly': use one of 'lifetime', 'hour', 'day'"),
        ({"limit_usd": 1, "window": None}, "unknown window None"),
        ({"limit_usd": 1, "window": "run"}, r"for one run use `with tokenbudget_otel.budget\("),
        ({"limit_usd": 1, "action": "stop"}, "unknown action 'stop': use one of 'block', 'warn'"),
        ({"limit_usd": 1, "mode": "max"}, "unknown mode 'max': use one of 'expected', 'worst_case'"),
        ({"limit_usd": 1, "unpriced": "zero"}, "unknown unpriced 'zero': use one of 'deny', 'allow'"),
        (
            {"limit_usd": 1, "timezone": "Europe/Berlim"},
            "unknown timezone 'Europe/Berlim': did you mean 'Europe/Berlin'",
        ),
        ({"limit_usd": 1, "timezone": None}, "unknown timezone None"),
        ({"limit_usd": 1, "per": ()}, r"per=\(\) names no tag: leave it out"),
        ({"limit_usd": 1, "per": ""}, "per: tag name '' must be"),
        ({"limit_usd": 1, "per": "a b"}, "per: tag name 'a b' must be"),
        ({"limit_usd": 1, "per": ("tenant", "tenant")}, "names a tag twice"),
        ({"limit_usd": 1, "per": 5}, "per must name tags"),
        ({"limit_usd": 1, "per": ("tenant", None)}, "per must name tags"),
        ({"limit_usd": 1, "match": {}}, "match={} names no tag: leave it out to match every call"),
        ({"limit_usd": 1, "match": "acme"}, "match must be a mapping"),
        (
            {"limit_usd": 1, "match": {"tenant": ""}},
            "match: tag 'tenant' must have 1 to 256 characters.* match no call",
        ),
        ({"limit_usd": 1, "match": {"tenant": None}}, "match: tag 'tenant' must be a string"),
        ({"limit_usd": 1, "match": {"tenant": "a\nb"}}, "match: tag 'tenant' must not contain control characters"),
        ({"limit_usd": 1, "match": {"tenant": " acme"}}, "begins or ends with a space"),
        ({"limit_usd": 1, "match": {"ten ant": "acme"}}, "match: tag name 'ten ant'"),
        ({"limit_usd": 1, "match": {5: "acme"}}, "match: the name of a tag must be a string, not 5"),
        ({"limit_usd": 1, "name": ""}, "the name of a budget must be 1 to 128 printable characters"),
        ({"limit_usd": 1, "name": "a\nb"}, "the name of a budget must be"),
        ({"limit_usd": 1, "name": 7}, "the name of a budget must be"),
        ({"limit_usd": 1, "action": "warn", "on_warn": "print"}, "on_warn must be a function"),
        ({"limit_usd": 1, "on_warn": print}, "only called by a budget that warns: add action='warn'"),
    ],
)
def test_bad_declaration(arguments, says):
    with pytest.raises(ValueError, match=says):
        Budget(**arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "needs a limit: give max_cost_usd, max_tokens or max_calls"),
        ({"max_cost_usd": -1}, "max_cost_usd must be at least 0, not -1"),
        ({"max_cost_usd": float("nan")}, "max_cost_usd must be a finite amount"),
        ({"max_tokens": 0.5}, "max_tokens must be a whole number, not 0.5"),
        ({"max_calls": -1}, "max_calls must be at least 0"),
        ({"max_calls": 1, "mode": "max"}, "unknown mode 'max'"),
        ({"max_calls": 1, "unpriced": "x"}, "unknown unpriced 'x'"),
        ({"max_calls": 1, "name": ""}, "the name of a budget must be"),
    ],
)
def test_bad_run(arguments, says):
    with pytest.raises(ValueError, match=says):
        budget(**arguments)


def test_values_are_normalised():
    declared = Budget(limit_usd=0.1, limit_tokens=1e6, per=["tenant", "feature"], match={"retry": 2, "beta": True})
    assert declared.limit_usd == Decimal("0.1")
    assert type(declared.limit_tokens) is int
    assert declared.per == ("tenant", "feature")
    assert declared.match == {"retry": "2", "beta": "true"}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"limit_usd": 5}, "usd/lifetime"),
        ({"limit_usd": 50, "window": "month", "per": "tenant"}, "usd/month per tenant"),
        ({"limit_usd": 1, "limit_calls": 3, "window": "day", "per": ("a", "b")}, "usd+calls/day per a+b"),
        (
            {"limit_tokens": 9, "match": {"tenant": "x", "model": "o*"}, "action": "warn"},
            "tokens/lifetime where model=o*,tenant=x (warn)",
        ),
        ({"limit_usd": 1, "name": "mine"}, "mine"),
    ],
)
def test_name(arguments, name):
    assert Budget(**arguments).name == name


def test_frozen_hashable_comparable_picklable():
    one, same = (Budget(limit_usd=1, window="day", match={"tenant": "a"}) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    with pytest.raises(FrozenInstanceError):
        one.limit_usd = 2


def test_two_budgets_of_one_name():
    with pytest.raises(ValueError, match=r"two different budgets named 'usd/month': give one of them another name="):
        Enforcer([Budget(limit_usd=1, window="month"), Budget(limit_usd=2, window="month")])
    enforcer = Enforcer([Budget(limit_usd=1, name="a")])
    with pytest.raises(ValueError, match="'a'"):
        enforcer.add(Budget(limit_usd=3, name="b"), Budget(limit_usd=2, name="a"))
    assert [each.name for each in enforcer.budgets] == ["a"]
    enforcer.add(Budget(limit_usd=1, name="a"))
    assert len(enforcer.budgets) == 1


def test_bad_enforcer():
    with pytest.raises(ValueError, match="a Budget is needed, not 'x'"):
        Enforcer(["x"])
    with pytest.raises(ValueError, match="unknown on_expiry 'x': use one of 'charge', 'charge_input', 'release'"):
        Enforcer(on_expiry="x")
    with pytest.raises(ValueError, match="ttl"):
        Enforcer(ttl=float("nan"))
    with pytest.raises(ValueError, match="no budget named 'b'; declared: 'a'"):
        Enforcer([Budget(limit_usd=1, name="a")]).remove("b")
