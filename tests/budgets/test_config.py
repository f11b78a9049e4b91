"""Budgets from files and the environment: what is found, what it means, what is refused and how."""

from __future__ import annotations

import inspect
import logging
import os
import re
import subprocess
import sys
import threading
import tomllib
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Budget, Limits
from tokenbudget_otel.budgets.alerting.alert import Alert
from tokenbudget_otel.budgets.config import OPTIONS, Config, find, load
from tokenbudget_otel.budgets.config import _tags as parse_tags
from tokenbudget_otel.budgets.config_watch import ConfigWatch
from tokenbudget_otel.budgets.store_error import allow_local
from tokenbudget_otel.instrumentation.hosts import provider_of
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.settings import configure, option
from tokenbudget_otel.tags import current_tags

WHOLE = """
ledger = "sqlite:state/budgets.db"

[[budgets]]
name = "tenants"
limit_usd = 50.10
limit_tokens = 1e6
window = "month"
timezone = "Europe/Berlin"
starts_on = 15
per = ["tenant", "api_key"]
match = { model = "gpt-5*", tenant = "a*" }
token_type = "output"
mode = "worst_case"
unpriced = "assume"
action = "degrade"
degrade = { "gpt-5" = "gpt-5-mini", "claude-opus-*" = "claude-haiku-4-5" }
degrade_at = 0.8
alerts = [
    0.5,
    { at = 0.8, to = "https://${HOOK_HOST}/x", secret = "$HOOK_SECRET" },
    { at = 1.0, to = "$SLACK" },
]
on_store_error = { usd = 0.5 }
cut_streams = true

[[budgets]]
limit_calls = 1000
window = "rolling 24h"
action = "wait"
max_wait = 30

[[budgets]]
limit_usd = 1
action = "shrink"
min_output_tokens = 100
dry_run = true

[[limits]]
budget = "tenants"
scope = { tenant = "acme", api_key = "" }
usd = 200
calls = 5

[[limits]]
budget = "calls/rolling 24h"
calls = 2000
"""
SECRETS = {"HOOK_HOST": "example.com", "HOOK_SECRET": "s", "SLACK": "https://hooks.slack.com/services/x"}


def written(folder: Path, text: str, name: str = "tokenbudget.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a folder below its root, which is the working directory."""
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / "src" / "app").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repo" / "src" / "app")
    return tmp_path / "repo"


class TestFile:
    def test_everything_a_budget_can_say(self, tmp_path):
        path = written(tmp_path, WHOLE)
        config = load(path, SECRETS)
        assert config.budgets == (
            Budget(
                name="tenants",
                limit_usd="50.10",
                limit_tokens=1_000_000,
                window="month",
                timezone="Europe/Berlin",
                starts_on=15,
                per=("tenant", "api_key"),
                match={"model": "gpt-5*", "tenant": "a*"},
                token_type="output",
                mode="worst_case",
                unpriced="assume",
                action="degrade",
                degrade={"gpt-5": "gpt-5-mini", "claude-opus-*": "claude-haiku-4-5"},
                degrade_at=0.8,
                alerts=[
                    Alert(0.5),
                    Alert(0.8, "https://example.com/x", "s"),
                    Alert(1.0, "https://hooks.slack.com/services/x"),
                ],
                on_store_error=allow_local(usd="0.5"),
                cut_streams=True,
            ),
            Budget(limit_calls=1000, window="rolling 24h", action="wait", max_wait=30),
            Budget(limit_usd=1, action="shrink", min_output_tokens=100, dry_run=True),
        )
        assert config.budgets[0].limit_usd == Decimal("50.1")
        assert config.ledger == f"sqlite:{tmp_path}/state/budgets.db"
        assert config.limits == {
            "tenants|tenant=acme|api_key=": Limits(nano_usd=200 * 10**9, calls=5),
            "calls/rolling 24h": Limits(calls=2000),
        }
        assert (config.source, config.path) == (str(path), path)

    def test_every_argument_but_functions_is_a_key(self):
        said = {key for table in tomllib.loads(WHOLE)["budgets"] for key in table}
        assert said == set(inspect.signature(Budget).parameters) - {"on_warn"}

    def test_in_pyproject(self, tmp_path):
        text = "[project]\nname = 'x'\n" + WHOLE.replace("ledger", "[tool.tokenbudget]\nledger").replace(
            "[[", "[[tool.tokenbudget."
        )
        config = load(written(tmp_path, text, "pyproject.toml"), SECRETS)
        assert config.budgets == load(written(tmp_path, WHOLE), SECRETS).budgets
        assert len(config.limits) == 2

    def test_an_empty_file(self, tmp_path):
        config = load(written(tmp_path, ""), {})
        assert (config.budgets, config.ledger, config.limits) == ((), None, {})

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("sqlite:budgets.db", "sqlite:{}/budgets.db"),
            ("./state/budgets.sqlite3", "sqlite:{}/state/budgets.sqlite3"),
            ("sqlite:///var/lib/budgets.db", "sqlite:/var/lib/budgets.db"),
            ("redis://:$HOOK_SECRET@cache:6379/0", "redis://:s@cache:6379/0"),
            ("rediss://cache/budgets.db", "rediss://cache/budgets.db"),
            ("memory", "memory"),
        ],
    )
    def test_ledgers(self, tmp_path, address, expected):
        config = load(written(tmp_path, f'ledger = "{address}"'), SECRETS)
        assert config.ledger == expected.format(tmp_path)
        assert "s@cache" not in repr(config)

    def test_dry_run_of_all(self, tmp_path):
        text = "[[budgets]]\nlimit_usd = 1\n[[budgets]]\nlimit_usd = 1\nname = 'b'\ndry_run = true\n"
        one, two = load(written(tmp_path, text), {}).budgets
        assert (one.dry_run, two.dry_run) == (False, True)
        assert all(each.dry_run for each in load(written(tmp_path, f"dry_run = true\n{text}"), {}).budgets)
        assert all(each.dry_run for each in load(written(tmp_path, text), {"TOKENBUDGET_DRY_RUN": "true"}).budgets)
        one, two = load(written(tmp_path, f"dry_run = true\n{text}"), {"TOKENBUDGET_DRY_RUN": "false"}).budgets
        assert (one.dry_run, two.dry_run) == (False, True)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("[[budgets]]\nlimit_usd = ten", "is not TOML: .*line 2"),
            ("legder = 'x'", "tokenbudget.toml: unknown key 'legder': did you mean 'ledger'?"),
            ("x = 1", "unknown key 'x': use one of 'budgets', 'limits', 'ledger', 'dry_run'"),
            ("ledger = 5", "tokenbudget.toml: ledger must be an address such as 'sqlite:budgets.db'"),
            ("ledger = 'sqlite:'", "tokenbudget.toml: .*names no file: write 'sqlite:budgets.db'"),
            ("ledger = 'redis://$NOWHERE'", "tokenbudget.toml: the environment variable NOWHERE is not set"),
            ("dry_run = 'yes'", "tokenbudget.toml: dry_run must be true or false, not 'yes'"),
            ("budgets = 5", r"budgets must be tables: write \[\[budgets\]\] above the keys of each"),
            ("[budgets]\nlimit_usd = 1", r"write \[\[budgets\]\]"),
            ("budgets = [1]", r"write \[\[budgets\]\]"),
            (
                "[[budgets]]\nlimit_usd = 1\n[[budgets]]\nlimit_us = 1",
                r"\[\[budgets\]\] table 2: unknown key 'limit_us': did you mean 'limit_usd'?",
            ),
            ("[[budgets]]\nwindow = 'day'", r"\[\[budgets\]\] table 1: a budget needs a limit"),
            ("[[budgets]]\nlimit_usd = 1\non_warn = 'f'", "unknown key 'on_warn'"),
            ("[[budgets]]\nlimit_usd = 1\nwindow = 'monthly'", "table 1: unknown window 'monthly'"),
            ("[[budgets]]\nlimit_usd = 1\nstarts_on = 2026-04-01\nwindow = 'year'", "starts_on='04-01', not"),
            ("[[budgets]]\nlimit_usd = 1\nalerts = [{to = '$NOWHERE'}]", "environment variable NOWHERE is not set"),
            (
                "[[budgets]]\nlimit_usd = 1\n[[budgets]]\nlimit_usd = 2",
                r"two budgets named 'usd/lifetime': .*table 1 and .*table 2. Give one of them another name",
            ),
            ("[[limits]]\nusd = 1", "table 1: the name of a budget must be"),
            ("[[limits]]\nbudget = 'x'\nusd = 1", "there is no budget named 'x' in this file; declared: none"),
            ("[[limits]]\nbudget = 'x'\nlimit_usd = 1", r"\[\[limits\]\] table 1: unknown key 'limit_usd'"),
            ("B\n[[limits]]\nbudget = 'b'", "needs a limit: give usd, tokens or calls"),
            ("B\n[[limits]]\nbudget = 'b'\nusd = -1\nscope = {tenant='x'}", "usd must be at least 0, not -1"),
            ("B\n[[limits]]\nbudget = 'b'\nusd = 1", "is not a scope of budget 'b': give 'tenant'"),
            ("B\n[[limits]]\nbudget = 'b'\nusd = 1\nscope = 'acme'", "scope must be a table of strings"),
            (
                "B\n[[limits]]\nbudget = 'b'\nusd = 1\nscope.tenant='x'\n"
                "[[limits]]\nbudget = 'b'\ncalls = 1\nscope.tenant='x'",
                r"table 2: there is another \[\[limits\]\] table for the same budget and scope",
            ),
        ],
    )
    def test_what_cannot_be_meant(self, tmp_path, text, says):
        text = text.replace("B\n", "[[budgets]]\nname = 'b'\nlimit_usd = 1\nper = 'tenant'\n")
        with pytest.raises(ValueError, match=says) as caught:
            load(written(tmp_path, text), {})
        assert str(tmp_path) in str(caught.value)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(ValueError, match=r"nowhere.toml cannot be read: No such file"):
            load(tmp_path / "nowhere.toml", {})
        with pytest.raises(ValueError, match=r"nowhere.toml cannot be read: No such file"):
            load(environ={"TOKENBUDGET_CONFIG": str(tmp_path / "nowhere.toml")})
        with pytest.raises(ValueError, match=r"has no table \[tool.tokenbudget\]"):
            load(written(tmp_path, "[project]", "pyproject.toml"), {})

    @settings(max_examples=300, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(sorted(set(Budget.__init__.__kwdefaults__) - {"on_warn"})),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers(-5, 10**20)
                | st.floats()
                | st.sampled_from(
                    ["day", "rolling 1h", "block", "degrade", "wait", "log", "$X", "", "a*", "UTC", "allow"]
                )
                | st.text(max_size=3)
                | st.just(datetime(2026, 1, 1, tzinfo=UTC))
                | st.just(date(2026, 1, 1)),
                lambda values: (
                    st.lists(values, max_size=3)
                    | st.dictionaries(st.sampled_from(["usd", "at", "to", "a", "gpt-5"]), values, max_size=3)
                ),
                max_leaves=4,
            ),
            max_size=5,
        )
    )
    def test_whatever_a_file_says_is_a_budget_or_an_explanation(self, arguments):
        try:
            Budget(**{"limit_usd": 1, **arguments})
        except ValueError as error:
            assert str(error)


class TestWhere:
    def test_the_nearest_above(self, repository):
        assert find() is None
        assert load(environ={}) == Config()
        top = written(repository, "")
        assert find() == top
        near = written(repository / "src", "")
        assert find() == near
        assert load(environ={}).path == near

    def test_a_file_of_its_own_before_the_projects(self, repository):
        project = written(repository / "src", "[tool.tokenbudget]\n", "pyproject.toml")
        assert find() == project
        top = written(repository, "")
        assert find() == top

    def test_projects_that_say_nothing_of_budgets(self, repository):
        written(repository / "src", "[tool.other] # not tool.tokenbudget\n", "pyproject.toml")
        written(repository / "src" / "app", "this is no TOML", "pyproject.toml")
        assert find() is None
        top = written(repository, "[[tool.tokenbudget.budgets]]\nlimit_usd = 1", "pyproject.toml")
        assert find() == top

    def test_not_outside_of_the_repository(self, repository):
        written(repository.parent, "")
        assert find() is None

    def test_up_to_home_where_there_is_no_repository(self, tmp_path, monkeypatch):
        deep = tmp_path / "home" / "a" / "b"
        deep.mkdir(parents=True)
        monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
        written(tmp_path, "")
        assert find(deep) is None
        assert find(tmp_path / "home") is None
        mine = written(tmp_path / "home", "")
        assert find(deep) == mine
        # What lies above a folder that belongs to neither may be anybody's.
        elsewhere = tmp_path / "shared" / "job"
        elsewhere.mkdir(parents=True)
        assert find(elsewhere) is None
        assert find(tmp_path) == tmp_path / "tokenbudget.toml"

    def test_named_in_the_environment(self, repository, tmp_path):
        written(repository, "")
        other = written(tmp_path / "etc", "[[budgets]]\nlimit_usd = 1", "limits.toml")
        assert load(environ={"TOKENBUDGET_CONFIG": str(other)}).path == other
        assert load(environ={"TOKENBUDGET_CONFIG": ""}).path == repository / "tokenbudget.toml"


class TestEnvironment:
    def test_one_budget(self, repository):
        config = load(
            environ={
                "TOKENBUDGET_LIMIT_USD": "50.5",
                "TOKENBUDGET_LIMIT_TOKENS": "1e6",
                "TOKENBUDGET_LIMIT_CALLS": " 100 ",
                "TOKENBUDGET_WINDOW": "rolling 1d",
                "TOKENBUDGET_PER": "tenant, model",
                "TOKENBUDGET_TIMEZONE": "Asia/Tokyo",
                "TOKENBUDGET_ACTION": "warn",
                "TOKENBUDGET_MODE": "worst_case",
                "TOKENBUDGET_DRY_RUN": "1",
                "TOKENBUDGET_LEDGER": "redis://cache",
            }
        )
        assert config.budgets == (
            Budget(
                name="environment",
                limit_usd="50.5",
                limit_tokens=1_000_000,
                limit_calls=100,
                window="rolling 24h",
                per=("tenant", "model"),
                timezone="Asia/Tokyo",
                action="warn",
                mode="worst_case",
                dry_run=True,
            ),
        )
        assert (config.ledger, config.source, config.path) == ("redis://cache", "environment", None)

    def test_beside_a_file(self, repository):
        path = written(repository, "ledger = 'a.db'\n[[budgets]]\nlimit_usd = 1\n")
        config = load(environ={"TOKENBUDGET_LIMIT_CALLS": "5", "TOKENBUDGET_LEDGER": "memory"})
        assert [each.name for each in config.budgets] == ["usd/lifetime", "environment"]
        assert (config.ledger, config.source) == ("memory", f"{path} and environment")
        written(repository, "[[budgets]]\nlimit_usd = 1\nname = 'environment'")
        with pytest.raises(ValueError, match=r"two budgets named 'environment': .*tokenbudget.toml and environment"):
            load(environ={"TOKENBUDGET_LIMIT_CALLS": "5"})

    def test_empty_is_not_set(self, repository):
        names = ("CONFIG", "LIMIT_USD", "LIMIT_TOKENS", "WINDOW", "PER", "LEDGER", "DRY_RUN", "TAGS", "FORMER_NAMES",
                 "STREAM_USAGE", "PROCESSOR", "SPAN_TAGS")  # fmt: skip
        assert load(environ={f"TOKENBUDGET_{name}": "" for name in names}) == Config()

    @pytest.mark.parametrize(
        ("environ", "says"),
        [
            ({"LIMIT_USD": "ten"}, "LIMIT_…: limit_usd must be a finite amount of US dollars, not 'ten'"),
            ({"LIMIT_TOKENS": "many"}, "TOKENBUDGET_LIMIT_TOKENS must be a number, not 'many'"),
            ({"LIMIT_CALLS": "1.5"}, "limit_calls must be a whole number, not 1.5"),
            ({"LIMIT_USD": "1", "WINDOW": "monthly"}, "unknown window 'monthly'"),
            ({"LIMIT_USD": "1", "PER": "tenant,"}, "per: tag name ''"),
            ({"LIMIT_USD": "1", "DRY_RUN": "maybe"}, "TOKENBUDGET_DRY_RUN must be true or false, not 'maybe'"),
            ({"WINDOW": "day"}, "TOKENBUDGET_WINDOW is set, and no limit that it could be of: set TOKENBUDGET_LIMIT_"),
            # A misspelt limit would be no limit.
            (
                {"LIMIT_USB": "1"},
                "unknown environment variable TOKENBUDGET_LIMIT_USB: did you mean TOKENBUDGET_LIMIT_USD",
            ),
            ({"LIMITS": "1"}, "unknown environment variable TOKENBUDGET_LIMITS: did you mean"),
        ],
    )
    def test_what_cannot_be_meant(self, repository, environ, says):
        with pytest.raises(ValueError, match=says):
            load(environ={f"TOKENBUDGET_{name}": value for name, value in environ.items()})


class TestWatch:
    @pytest.fixture
    def path(self, tmp_path, monkeypatch):
        for name in list(os.environ):
            if name.startswith("TOKENBUDGET_"):
                monkeypatch.delenv(name)
        return written(tmp_path, "[[budgets]]\nlimit_usd = 1")

    @pytest.fixture(autouse=True)
    def _whole_at_once(self, monkeypatch):
        monkeypatch.setattr("tokenbudget_otel.budgets.config_watch.SETTLED_S", 0)

    def test_a_file_that_is_being_written_is_left_alone(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tokenbudget_otel.budgets.config_watch.SETTLED_S", 5)
        path = tmp_path / "tokenbudget.toml"
        path.write_text("[[budgets]]\nlimit_usd = 1\n")
        watch = ConfigWatch(load(path), every=0)
        path.write_text("")  # emptied before it is written
        assert watch.changed() is None
        path.write_text("[[budgets]]\nlimit_usd = 2\n")
        past = path.stat().st_mtime - 10
        os.utime(path, (past, past))
        assert watch.changed().budgets[0].limit_usd == 2

    def test_a_change_is_told_once(self, path, clock):
        watch = ConfigWatch(load(path), every=5, clock=clock)
        clock.on(6)
        assert watch.changed() is None
        written(path.parent, "[[budgets]]\nlimit_usd = 22")
        assert watch.changed() is None  # not yet
        clock.on(5)
        assert watch.changed().budgets[0].limit_usd == 22
        assert watch.config.budgets[0].limit_usd == 22
        clock.on(5)
        assert watch.changed() is None

    def test_a_change_between_reading_and_watching(self, path, clock):
        config = load(path)
        written(path.parent, "[[budgets]]\nlimit_usd = 22")
        watch = ConfigWatch(config, every=5, clock=clock)
        clock.on(5)
        assert watch.changed().budgets[0].limit_usd == 22

    def test_a_change_of_words_only(self, path, clock):
        watch = ConfigWatch(load(path), every=5, clock=clock)
        written(path.parent, "# dear reader\n[[budgets]]\nlimit_usd = 1.00")
        clock.on(5)
        assert watch.changed() is None

    @pytest.mark.parametrize("broken", ["[[budgets", "[[budgets]]\nlimit_usd = -1", None])
    def test_a_broken_file_leaves_the_last_good_one(self, path, clock, caplog, broken):
        watch = ConfigWatch(load(path), every=5, clock=clock)
        path.unlink() if broken is None else written(path.parent, broken)
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                clock.on(5)
                assert watch.changed() is None
        (record,) = caplog.records
        assert str(path) in record.getMessage()
        assert record.getMessage().endswith("The configuration read before stays in force.")
        assert watch.config.budgets[0].limit_usd == 1
        written(path.parent, "[[budgets]]\nlimit_usd = 22")
        clock.on(5)
        assert watch.changed().budgets[0].limit_usd == 22

    def test_one_look_in_a_while(self, path, clock, monkeypatch):
        watch = ConfigWatch(load(path), every=5, clock=clock)
        clock.on(5)
        watch.changed()
        looks = []
        stat = os.stat
        monkeypatch.setattr(os, "stat", lambda *given, **more: looks.append(given) or stat(*given, **more))
        for _ in range(1000):
            watch.changed()
        assert not looks
        clock.on(5)
        for _ in range(1000):
            watch.changed()
        assert looks == [(path,)]

    def test_many_threads_hear_of_a_change_once(self, path, clock):
        watch = ConfigWatch(load(path), every=5, clock=clock)
        written(path.parent, "[[budgets]]\nlimit_usd = 22")
        clock.on(5)
        told = []
        threads = [threading.Thread(target=lambda: told.append(watch.changed())) for _ in range(20)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert [each.budgets[0].limit_usd for each in told if each is not None] == [22]

    def test_without_a_file(self, clock):
        watch = ConfigWatch(Config(), every=5, clock=clock)
        clock.on(50)
        assert watch.changed() is None


METERING = """
former_names = true
stream_usage = false
processor = true
span_tags = "genai"
metric_names = "both"
metric_tags = ["team", "env"]
capture_content = "both"
emit_event = true
redact = "app.privacy:redact"
content_max_bytes = 0
tags = { team = "search", retries = 2 }

[hosts]
"https://LLM.example.com/groq/" = "groq"
"""


class TestMetering:
    """What a configuration says of tags, hosts and how calls are metered."""

    def test_everything_that_can_be_said(self, tmp_path):
        config = load(written(tmp_path, METERING), {})
        assert config.tags == {"team": "search", "retries": "2"}
        assert config.hosts == {"https://llm.example.com/groq": "groq"}
        assert config.options == {
            "former_names": True, "stream_usage": False, "processor": True, "span_tags": "genai",
            "metric_names": "both", "metric_tags": ("team", "env"), "capture_content": "both", "emit_event": True,
            "redact": "app.privacy:redact", "content_max_bytes": 0,
        }  # fmt: skip
        assert config.options.keys() == OPTIONS.keys()

    def test_the_environment_is_over_the_file(self, tmp_path):
        environ = {
            "TOKENBUDGET_TAGS": "env=prod , note=a%2Cb%3Dc,team = web,,",
            "TOKENBUDGET_FORMER_NAMES": "off",
            "TOKENBUDGET_STREAM_USAGE": "yes",
            "TOKENBUDGET_PROCESSOR": "0",
            "TOKENBUDGET_SPAN_TAGS": "None",
            # These are read where they are used.
            "TOKENBUDGET_METRIC_NAMES": "coming",
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT",
        }
        config = load(written(tmp_path, METERING), environ)
        assert config.tags == {"team": "web", "retries": "2", "env": "prod", "note": "a,b=c"}
        assert config.options == {
            "former_names": False, "stream_usage": True, "processor": False, "span_tags": "none",
            "metric_tags": ("team", "env"), "emit_event": True, "redact": "app.privacy:redact", "content_max_bytes": 0,
        }  # fmt: skip
        assert config.source.endswith("tokenbudget.toml and environment")

    @pytest.mark.parametrize(
        ("text", "environ", "says"),
        [
            ("tags = 'team=search'", {}, "tokenbudget.toml: tags must be a table such as { team = 'search' }"),
            ("tags = { team = '' }", {}, "tokenbudget.toml: tag 'team' must have 1 to 256 characters"),
            ("hosts = ['a']", {}, "tokenbudget.toml: hosts must be a table such as"),
            ("hosts = { 'a.example' = 5 }", {}, "hosts must name a provider for each base URL, not 5 for 'a.example'"),
            ("former_names = 'false'", {}, "tokenbudget.toml: former_names must be true or false, not 'false'"),
            ("span_tags = 'some'", {}, "tokenbudget.toml: unknown span_tags 'some'"),
            ("metric_names = 'newest'", {}, "tokenbudget.toml: unknown metric_names 'newest'"),
            ("metric_tags = 'team'", {}, "tokenbudget.toml: metric_tags must be a list of names of tags"),
            ("metric_tags = ['a b']", {}, "tag name 'a b' must be"),
            ("capture_content = 'all'", {}, "tokenbudget.toml: unknown capture_content 'all'"),
            ("redact = 'redact'", {}, "tokenbudget.toml: redact must name a function like 'package.module:function'"),
            ("content_max_bytes = -1", {}, "tokenbudget.toml: content_max_bytes must be a number of bytes"),
            ("procesor = true", {}, "unknown key 'procesor': did you mean 'processor'?"),
            ("", {"TOKENBUDGET_TAGS": "a=1,team"}, "TOKENBUDGET_TAGS: 'team' is not name=value"),
            ("", {"TOKENBUDGET_TAGS": "a b=1"}, "TOKENBUDGET_TAGS: tag name 'a b' must be"),
            ("", {"TOKENBUDGET_TAGS": "a="}, "TOKENBUDGET_TAGS: tag 'a' must have 1 to 256 characters"),
            ("", {"TOKENBUDGET_STREAM_USAGE": "perhaps"}, "TOKENBUDGET_STREAM_USAGE must be true or false"),
            ("", {"TOKENBUDGET_SPAN_TAGS": "some"}, "unknown TOKENBUDGET_SPAN_TAGS 'some'"),
        ],
    )
    def test_what_cannot_be_meant(self, tmp_path, text, environ, says):
        with pytest.raises(ValueError, match=re.escape(says)):
            load(written(tmp_path, text), environ)

    @given(
        st.dictionaries(
            st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,9}", fullmatch=True),
            st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=9),
            max_size=4,
        )
    )
    def test_every_tag_can_be_written_in_the_variable(self, tags):
        text = ",".join(f"{name}={quote(value)}" for name, value in tags.items())
        assert parse_tags({"TOKENBUDGET_TAGS": text}) == tags

    def test_put_in_force_and_changed_while_the_program_runs(self, repository, meter, sim):
        path = written(repository, "tags = { team = 'search' }\nhosts = { 'llm.example.com' = 'groq' }")
        try:
            configure(meter.enforcer)
            assert current_tags() == {"team": "search"}
            assert provider_of("https://llm.example.com/v1", "openai") == "groq"
            path.write_text("former_names = true")
            os.utime(path, (1, 1))
            meter.enforcer.refresh()
            assert current_tags() == {}
            assert provider_of("https://llm.example.com/v1", "openai") == "openai"
            assert option("former_names", False) is True
        finally:
            path.unlink()
            configure(Meter().enforcer)
            assert option("former_names", False) is False


DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_file_in_the_documents(tmp_path):
    (block,) = re.findall(r"^```toml\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    secrets = {"HOOK_SECRET": "s", "SLACK_URL": "https://hooks.slack.com/services/x"}
    config = load(written(tmp_path, block), secrets)
    assert [each.name for each in config.budgets] == ["tenants", "tokens/rolling 24h where model=gpt-5*"]
    assert config.limits == {"tenants|tenant=acme": Limits(nano_usd=200 * 10**9)}


def test_reading_configuration_is_not_imported_with_the_package():
    program = (
        "import sys, tokenbudget_otel, tokenbudget_otel.budgets as b; b.Budget(limit_usd=1, window='rolling 1h'); "
        "print([name for name in sys.modules if name in ('tomllib', 'tokenbudget_otel.budgets.config', "
        "'tokenbudget_otel.budgets.alerting.alert', 'tokenbudget_otel.budgets.store_error')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
