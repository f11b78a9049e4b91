"""Budgets as documents: everything is in it that others may know, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Budget
from tokenbudget_otel.budgets.alerting.alert import Alert
from tokenbudget_otel.budgets.documents import VERSION, from_document, to_document
from tokenbudget_otel.budgets.store_error import allow_local

money = st.decimals(0, 10_000, places=9)
count = st.integers(0, 2**60)
tag = st.from_regex(r"[a-z][a-z0-9_.\-]{0,8}", fullmatch=True)
value = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable() and text == text.strip())
model = st.from_regex(r"[a-z]{3}-[0-9]", fullmatch=True)

WINDOWS = [
    ("lifetime", None),
    ("hour", None),
    ("day", None),
    ("week", "sunday"),
    ("month", 31),
    ("quarter", None),
    ("year", "04-01"),
    ("rolling 36h", None),
]

ACTIONS = st.one_of(
    st.just({}),
    st.just({"action": "warn"}),
    st.fixed_dictionaries({"action": st.just("wait")}, optional={"max_wait": st.integers(1, 3600)}),
    st.fixed_dictionaries({"action": st.just("shrink")}, optional={"min_output_tokens": st.integers(1, 4096)}),
    st.fixed_dictionaries(
        {"action": st.just("degrade"), "degrade": st.fixed_dictionaries({"dear-*": model})},
        optional={"degrade_at": st.floats(0.01, 1)},
    ),
)


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    """Any budget that can be declared, but for functions and hooks."""
    window, starts_on = draw(st.sampled_from(WINDOWS))
    arguments = draw(ACTIONS)
    arguments |= draw(
        st.fixed_dictionaries(
            {"limit_usd": money, "dry_run": st.booleans(), "cut_streams": st.booleans()},
            optional={
                "limit_tokens": count,
                "limit_calls": count,
                "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]),
                "per": st.lists(tag, min_size=1, max_size=3, unique=True),
                "match": st.dictionaries(tag, value, min_size=1, max_size=3),
                "mode": st.sampled_from(["expected", "worst_case"]),
                "unpriced": st.sampled_from(["deny", "allow", "assume"]),
                "name": value,
                "alerts": st.lists(st.floats(0.01, 10).map(Alert), max_size=3),
            },
        )
    )
    if "limit_tokens" in arguments:
        arguments["token_type"] = draw(st.sampled_from(["all", "input", "output", "reasoning", "cache_write"]))
    if arguments.get("action") != "warn":
        arguments["on_store_error"] = draw(
            st.one_of(st.sampled_from([None, "deny", "allow"]), st.builds(allow_local, usd=money))
        )
    return Budget(window=window, starts_on=starts_on, **arguments)


@given(budgets())
def test_a_budget_comes_back_as_it_was(budget):
    document = to_document(budget)
    assert from_document(document) == budget
    assert to_document(from_document(document)) == document
    assert json.loads(document)["version"] == VERSION


@given(budgets(), st.dictionaries(st.text(min_size=3, max_size=8), st.none() | st.integers() | st.text(), max_size=3))
def test_what_a_newer_version_adds_is_passed_over(budget, more):
    document = json.loads(to_document(budget))
    newer = {f"x-{name}": value for name, value in more.items()} | document | {"version": VERSION + 1}
    assert from_document(json.dumps(newer)) == budget


def test_a_long_name_of_its_own_making():
    budget = Budget(limit_usd=1, match={f"tag{number}": "x" * 60 for number in range(4)})
    assert len(budget.name) > 128
    assert from_document(to_document(budget)) == budget


def test_functions_and_secrets_stay_where_they_are():
    budget = Budget(
        limit_usd=1,
        action="warn",
        on_warn=print,
        alerts=[
            0.5,
            Alert(0.8, "https://example.com/hook?token=t0p", secret="s3cret"),
            Alert(0.9, "https://hooks.slack.com/services/T0/B0/XyZ"),
            Alert(1, print),
        ],
    )
    document = to_document(budget)
    for hidden in ("t0p", "s3cret", "XyZ", "example.com", "print"):
        assert hidden not in document
    assert [each["to"] for each in json.loads(document)["alerts"]] == ["log", "webhook", "slack", "call"]
    found = from_document(document)
    assert found.on_warn is None
    assert found.alerts == (Alert(0.5),)


def test_every_argument_is_in_it():
    """A new argument of Budget is written down as well, or named here."""
    plain = json.loads(to_document(Budget(limit_calls=1)))
    assert plain == {"version": 1, "name": "calls/lifetime", "limit_calls": 1, "on_store_error": "deny"}
    assert from_document('{"limit_calls": 1}').name == "calls/lifetime"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("", "no JSON"),
        ("[]", "no JSON object"),
        ("7", "no JSON object"),
        ("{}", "needs a limit"),
        ('{"limit_usd": "much"}', "limit_usd must be a finite amount"),
        ('{"limit_calls": 1, "per": 7}', "per must name tags"),
        ('{"limit_calls": 1, "name": ""}', "name of a budget"),
        ('{"version": 9, "limit_calls": 1, "window": "fortnight"}', "of version 9, and this knows 1"),
        ('{"limit_calls": 1, "timezone": "Mars/Olympus"}', "unknown timezone"),
    ],
)
def test_what_is_no_description(document, problem):
    with pytest.raises(ValueError, match=problem):
        from_document(document)
