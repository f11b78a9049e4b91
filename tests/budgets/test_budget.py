"""Declaring budgets: what is taken, and what is refused at once and how."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from datetime import timedelta
from decimal import Decimal

import pytest

from tokenbudget_otel.budgets import Budget, Enforcer, budget
from tokenbudget_otel.budgets.alerting.alert import Alert
from tokenbudget_otel.budgets.store_error import allow_local


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
        ({"limit_usd": 1, "window": "rolling 5s"}, "at least 60 seconds and at most 366 days, not 'rolling 5s'"),
        ({"limit_usd": 1, "window": timedelta(days=400)}, "at most 366 days"),
        ({"limit_usd": 1, "window": "7d"}, "unknown window '7d': .*, or a rolling one such as 'rolling 24h'"),
        ({"limit_usd": 1, "window": 86_400}, "unknown window 86400"),
        ({"limit_usd": 1, "window": "day", "starts_on": 2}, "starts_on goes with the windows 'week', 'month'"),
        ({"limit_usd": 1, "window": "month", "starts_on": "first"}, "starts_on of a month is a day from 1 to 31"),
        ({"limit_usd": 1, "per": ("tenant", 5)}, "or 'model', 'provider', 'operation' or 'api_key', not 5"),
        ({"limit_tokens": 1, "token_type": "cached"}, "unknown token_type 'cached': use one of 'all', 'input'"),
        ({"limit_usd": 1, "token_type": "input"}, "token_type says which tokens limit_tokens counts: add limit_tokens"),
        ({"limit_usd": 1, "action": "degrade"}, "needs the cheaper models: add degrade={'gpt-5': 'gpt-5-mini'}"),
        ({"limit_usd": 1, "degrade": {"a": "b"}}, "degrade is only used by action='degrade': add that, or leave"),
        ({"limit_usd": 1, "degrade_at": 0.5}, "degrade_at is only used by action='degrade'"),
        ({"limit_usd": 1, "max_wait": 5}, "max_wait is only used by action='wait'"),
        ({"limit_usd": 1, "action": "wait", "min_output_tokens": 5}, "only used by action='shrink'"),
        ({"limit_usd": 1, "action": "degrade", "degrade": {}}, "degrade must be a mapping such as"),
        ({"limit_usd": 1, "action": "degrade", "degrade": ["a"]}, "degrade must be a mapping such as"),
        ({"limit_usd": 1, "action": "degrade", "degrade": {"a": 5}}, "names of models to names of models, not 5"),
        ({"limit_usd": 1, "action": "degrade", "degrade": {"a": " "}}, "to names of models, not ' '"),
        ({"limit_usd": 1, "action": "degrade", "degrade": {"a": "b*"}}, "'b\\*' is a pattern: name the one model"),
        ({"limit_usd": 1, "action": "degrade", "degrade": {"a": "A"}}, "in a circle: A -> A"),
        ({"limit_usd": 1, "action": "degrade", "degrade": {"a": "b", "b": "c", "c": "a"}}, "b -> c -> a -> b"),
        ({"limit_usd": 1, "action": "degrade", "degrade": {"g*": "g1", "g1": "g2"}}, "circle: g1 -> g2 -> g1"),
        (
            {"limit_usd": 1, "action": "degrade", "degrade": {"a": "b"}, "degrade_at": 80},
            "above 0 and at most 1, not 80",
        ),
        ({"limit_usd": 1, "action": "degrade", "degrade": {"a": "b"}, "degrade_at": 0}, "degrade_at must be a number"),
        (
            {"limit_usd": 1, "action": "wait", "max_wait": 0},
            "max_wait must be a number above 0 and at most 3600, not 0",
        ),
        ({"limit_usd": 1, "action": "wait", "max_wait": 3601}, "at most 3600, not 3601"),
        ({"limit_usd": 1, "action": "wait", "max_wait": float("nan")}, "max_wait must be a number .*, not nan"),
        ({"limit_usd": 1, "action": "shrink", "min_output_tokens": 0}, "min_output_tokens must be at least 1"),
        ({"limit_calls": 1, "action": "shrink"}, "nothing that this budget limits gets less by that: give limit_usd"),
        ({"limit_tokens": 1, "token_type": "input", "action": "shrink"}, "give limit_usd, or limit_tokens of output"),
        ({"limit_usd": 1, "alerts": 0.8}, r"alerts must be a list such as \[Alert\(at=0.8\)\], not 0.8"),
        ({"limit_usd": 1, "alerts": [0.5, 80]}, "alert 2: at must be a number above 0 and at most 10, not 80"),
        ({"limit_usd": 1, "alerts": [{"at": 1, "url": "x"}]}, "alert 1: unknown key 'url': an alert has 'at', 'to'"),
        (
            {"limit_usd": 1, "alerts": [{"to": "mail:me"}]},
            "alert 1: to must be 'log', a function, the URL of a webhook",
        ),
        ({"limit_usd": 1, "alerts": [None]}, "alert 1: at must be a number .*, not None"),
        ({"limit_usd": 1, "dry_run": "false"}, "dry_run must be true or false, not 'false'"),
        ({"limit_usd": 1, "cut_streams": 1}, "cut_streams must be true or false, not 1"),
        (
            {"limit_usd": 1, "on_store_error": "ignore"},
            "unknown on_store_error 'ignore': use one of 'deny', 'allow', or",
        ),
        ({"limit_usd": 1, "on_store_error": {"eur": 1}}, "on_store_error: unknown key 'eur'"),
        ({"limit_usd": 1, "on_store_error": {}}, "allow_local needs an amount: give usd, tokens or calls"),
        ({"limit_usd": 1, "on_store_error": {"usd": -1}}, "usd of allow_local must be at least 0, not -1"),
        ({"limit_usd": 1, "on_store_error": {"calls": 9}}, "has to limit something that the budget limits: add usd"),
        (
            {"limit_usd": 1, "action": "warn", "on_store_error": "deny"},
            "a budget that warns refuses none: leave it out",
        ),
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
        ({"limit_usd": 1, "window": "month", "starts_on": 15}, "usd/month from 15"),
        ({"limit_usd": 1, "window": "month", "starts_on": 1}, "usd/month"),
        ({"limit_usd": 1, "window": timedelta(hours=24)}, "usd/rolling 24h"),
        ({"limit_usd": 1, "limit_tokens": 1, "token_type": "cache_read"}, "usd+cache_read tokens/lifetime"),
        # What happens at the limit does not change what is counted; only to warn is a budget of its own.
        ({"limit_usd": 1, "action": "wait", "mode": "worst_case", "dry_run": True}, "usd/lifetime"),
    ],
)
def test_name(arguments, name):
    assert Budget(**arguments).name == name


@pytest.mark.parametrize("action", ["block", "warn", "shrink", "wait"])
def test_what_is_not_given(action):
    declared = Budget(limit_usd=1, action=action)
    assert declared.on_store_error == ("allow" if action == "warn" else "deny")
    assert Budget(limit_usd=1, action=action, dry_run=True).on_store_error == "allow"
    assert (declared.degrade_at, declared.max_wait, declared.min_output_tokens) == (1.0, 60.0, 64)
    assert (declared.starts_on, declared.token_type, declared.alerts, declared.cut_streams) == (None, "all", (), False)


def test_on_warn_of_a_dry_run():
    assert Budget(limit_usd=1, dry_run=True, on_warn=print).on_warn is print


def test_one_way_of_writing_or_another():
    assert Budget(limit_usd=1, window="rolling 1d") == Budget(limit_usd=1, window=timedelta(hours=24))
    assert Budget(limit_usd=1, window="week", starts_on="Monday") == Budget(limit_usd=1, window="week")
    assert Budget(limit_usd=1, window="year", starts_on="4-6") == Budget(limit_usd=1, window="year", starts_on="04-06")
    assert Budget(limit_usd=1, on_store_error={"usd": 5}) == Budget(limit_usd=1, on_store_error=allow_local(usd="5.0"))
    assert Budget(limit_usd=1, alerts=[0.5, {"at": 1}]) == Budget(limit_usd=1, alerts=(Alert(0.5), Alert(1)))


class TestAlert:
    @pytest.mark.parametrize(
        ("to", "kind", "url"),
        [
            ("log", "log", None),
            (print, "call", None),
            ("https://example.com/hook", "webhook", "https://example.com/hook"),
            ("http://localhost:8080/", "webhook", "http://localhost:8080/"),
            ("https://hooks.slack.com/services/T/B/x", "slack", "https://hooks.slack.com/services/T/B/x"),
            ("slack:https://mattermost.example.com/hooks/x", "slack", "https://mattermost.example.com/hooks/x"),
        ],
    )
    def test_destinations(self, to, kind, url):
        alert = Alert(to=to)
        assert (alert.at, alert.kind, alert.url) == (0.8, kind, url)

    @pytest.mark.parametrize(
        "to",
        ["", "logs", "ftp://example.com/x", "https://", "slack:", "https://a b/", "https://x/\n", "http://[", 5, None],
    )
    def test_no_destination(self, to):
        with pytest.raises(ValueError, match="to must be 'log', a function"):
            Alert(to=to)

    def test_nothing_secret_is_shown(self):
        alert = Alert(to="https://me:password@example.com/T0/token", secret="s3cret")
        shown = repr(Budget(limit_usd=1, alerts=[alert]))
        assert "Alert(at=0.8, to='webhook:example.com/…', secret=…)" in shown
        with pytest.raises(ValueError) as caught:
            Alert(to="htps://example.com/token")
        assert "token" not in str(caught.value)

    def test_secrets(self):
        with pytest.raises(ValueError, match="secret signs what is sent to a webhook, and this alert goes to log"):
            Alert(secret="x")
        with pytest.raises(ValueError, match="secret must be a text"):
            Alert(to="https://example.com", secret="")

    def test_a_program_that_is_read_again_declares_the_same(self):
        one, again = (Alert(to=lambda event: None) for _ in range(2))
        assert one == again
        assert hash(one) == hash(again)
        assert one != Alert(to="log")
        assert Alert(to="https://a.example") != Alert(to="https://b.example")


def test_frozen_hashable_comparable_picklable():
    one, same = (
        Budget(
            limit_usd=1,
            window="day",
            match={"tenant": "a"},
            action="degrade",
            degrade={"gpt-5": "gpt-5-mini"},
            alerts=[Alert(0.5, "https://example.com", "secret")],
            on_store_error=allow_local(usd=1),
        )
        for _ in range(2)
    )
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
