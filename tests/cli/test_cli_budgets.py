"""`tokenbudget budgets`: what a real ledger file, written by programs, looks like from outside."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_server import RedisServer, need_redis
from tokenbudget_otel.budgets import (
    Amount,
    Budget,
    BudgetExceeded,
    Call,
    Enforcer,
    Estimate,
    LedgerUnavailable,
    Limits,
    MemoryLedger,
)
from tokenbudget_otel.budgets.config import Config
from tokenbudget_otel.budgets.ledgers import addresses
from tokenbudget_otel.budgets.ledgers.sqlite import SQLiteLedger
from tokenbudget_otel.budgets.rules import Rule
from tokenbudget_otel.cli import budgets, budgets_explain, budgets_holds, budgets_limits, budgets_table
from tokenbudget_otel.cli.app import app
from tokenbudget_otel.cli.budgets_source import Source
from tokenbudget_otel.meter import Meter, Request, Size
from tokenbudget_otel.pricing import price_book

USD = 10**9
START = 1_795_374_000.0  # 2026-11-22 19:00 UTC

MONTH = Budget(limit_usd=50, window="month", per="tenant", timezone="Europe/Berlin")
DAY = Budget(limit_usd=2, limit_tokens=10_000, window="day", name="all")
PROBE = Budget(limit_calls=4, window="rolling 24h", name="probe", action="warn", match={"model": "gpt-5*"})


def call(**tags: str) -> Call:
    return Call("openai", "gpt-5", tags, operation="chat")


def estimate(usd: str, tokens: int = 100) -> Estimate:
    amount = Amount(int(Decimal(usd) * USD), tokens)
    return Estimate(amount, amount)


class Visited(SQLiteLedger):
    """What the command opens: a ledger that can go away."""

    away = False

    def limits(self) -> Mapping[str, Limits]:
        if self.away:
            raise LedgerUnavailable("it went for lunch")
        return super().limits()


class Desk:
    """A folder with a ledger in it, programs that count there, and somebody who looks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = START
        self.ledger = SQLiteLedger(folder / "b.db", clock=self.clock)
        self.opened: list[Enforcer] = []

    def clock(self) -> float:
        return self.now

    def program(self, *declared: Budget) -> Enforcer:
        """A program that declares budgets and counts in the ledger."""
        ledger = SQLiteLedger(self.folder / "b.db", clock=self.clock)
        self.opened.append(enforcer := Enforcer(declared, ledger=ledger, clock=self.clock))
        assert enforcer.flush()
        return enforcer

    def spend(self, enforcer: Enforcer, usd: str, tokens: int = 100, **tags: str) -> None:
        enforcer.charge(call(**tags), Amount(int(Decimal(usd) * USD), tokens))

    def __call__(self, *arguments: str, env: dict[str, str | None] | None = None) -> Result:
        return CliRunner().invoke(
            app, ["budgets", *arguments], env={"TOKENBUDGET_LEDGER": "sqlite:b.db", "COLUMNS": "200"} | (env or {})
        )

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code in (0, 1), result.output
        return json.loads(result.stdout)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in [name for name in os.environ if name.startswith("TOKENBUDGET_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    frozen = SimpleNamespace(time=desk.clock)
    for module in (budgets, budgets_explain, budgets_holds, budgets_limits, budgets_table):
        monkeypatch.setattr(module, "time", frozen)
    monkeypatch.setitem(addresses._MAKERS, "sqlite", lambda at, _: Visited(addresses.sqlite_path(at), clock=desk.clock))
    yield desk
    for enforcer in desk.opened:
        enforcer.way.close()


def rows(result: Result) -> list[list[str]]:
    """The cells of a table, without its head."""
    assert result.exit_code == 0, result.output
    lines = result.stdout.rpartition("─")[2].splitlines()
    return [re.split(r" {2,}", line.strip()) for line in lines if "  " in line.strip()]


# --- the table ---------------------------------------------------------------------------------------------------


def test_how_budgets_stand(desk: Desk) -> None:
    program = desk.program(MONTH, DAY, PROBE)
    desk.spend(program, "1.5", tenant="acme")
    desk.spend(program, "0.25", tokens=9_000)
    desk.now += 3600
    program.admit(call(tenant="acme"), estimate("0.125", 200))
    assert rows(desk()) == [
        ["all", "all calls", "day", "$2.0000", "$1.7500", "$0.1250", "$0.1250", "87.5%",
         "2026-11-23 00:00 UTC (in 4 hours)"],
        ["10,000 tokens", "9,100 tokens", "200 tokens", "700 tokens", "91.0%"],
        ["probe (warns)", "all calls", "rolling 24h", "4 calls", "2 calls", "1 call", "1 call", "50.0%", "bit by bit"],
        ["usd/month per tenant", "tenant=acme", "month", "$50.0000", "$1.5000", "$0.1250", "$48.3750", "3.0%",
         "2026-12-01 00:00 CET (in 8 days 3 hours)"],
        ["usd/month per tenant", "no tenant", "month", "$50.0000", "$0.2500", "$0.0000", "$49.7500", "0.5%",
         "2026-12-01 00:00 CET (in 8 days 3 hours)"],
    ]  # fmt: skip


def test_a_new_window_begins_anew(desk: Desk) -> None:
    program = desk.program(DAY, PROBE)
    desk.spend(program, "1.5")
    desk.now += 6 * 3600
    spent = {row["budget"]: (row.get("usd") or row["calls"])["spent"] for row in desk.json()["budgets"]}
    assert spent == {"all": "0", "probe": 1}
    desk.now += 20 * 3600
    assert desk.json("--budget", "probe")["budgets"][0]["calls"]["spent"] == 0


def test_as_json(desk: Desk) -> None:
    desk.spend(desk.program(MONTH), "1.5", tenant="acme")
    assert desk("set-limit", MONTH.name, "--scope", "tenant=acme", "--usd", "3").exit_code == 0
    assert desk.json() == {
        "ledger": "sqlite:b.db",
        "at": "2026-11-22T19:00:00+00:00",
        "budgets": [
            {
                "budget": "usd/month per tenant",
                "scope": {"tenant": "acme"},
                "action": "block",
                "dry_run": False,
                "window": "month",
                "window_id": "2026-11@Europe/Berlin",
                "resets_at": "2026-12-01T00:00:00+01:00",
                "resets_in_s": 705600.0,
                "used": 0.5,
                "usd": {"limit": "3", "spent": "1.5", "reserved": "0", "remaining": "1.5"},
                "own_limits": ["usd"],
            }
        ],
        "left_out": 0,
        "unreadable": {},
    }


def test_which_rows(desk: Desk) -> None:
    program = desk.program(MONTH, DAY)
    for number in range(25):
        desk.spend(program, f"0.0{number:02}", tenant=f"t{number}")
    shown = desk("--budget", MONTH.name)
    assert len(rows(shown)) == 20
    assert f"{MONTH.name}: 5 scopes more" in shown.stdout
    assert [row[1] for row in rows(desk("--top", "2")) if row[0] == MONTH.name] == ["tenant=t24", "tenant=t23"]
    found = desk.json("--scope", "tenant=t7")["budgets"]
    assert [(row["budget"], row["scope"]) for row in found] == [(MONTH.name, {"tenant": "t7"})]
    assert desk.json("--top", "3")["left_out"] == 22
    assert len(desk.json()["budgets"]) == 26
    nobody = desk("--scope", "tenant=nobody")
    assert (nobody.exit_code, "Nothing that this asks for" in nobody.stdout) == (0, True)


def test_a_budget_nobody_knows(desk: Desk) -> None:
    desk.program(DAY)
    for arguments in (("--budget", "al"), ("holds", "--budget", "al"), ("set-limit", "al", "--usd", "1")):
        result = desk(*arguments)
        assert result.exit_code == 2
        assert "there is no budget named 'al' in sqlite:b.db; known: 'all'" in result.stderr


def test_an_empty_ledger(desk: Desk) -> None:
    assert desk().stdout == "No budget is declared in sqlite:b.db yet: a program that counts there declares its own.\n"
    assert desk.json()["budgets"] == []
    assert desk("holds").stdout == "No call in flight reserves anything in sqlite:b.db.\n"
    explained = desk("explain", "--model", "gpt-5")
    assert (explained.exit_code, "No budget counts it.\nWould be sent." in explained.stdout) == (0, True)


# --- where it looks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), ("holds",), ("explain",), ("set-limit", "all", "--usd", "1")])
@pytest.mark.parametrize("address", [None, "memory"])
def test_without_a_shared_ledger(desk: Desk, command: tuple[str, ...], address: str | None) -> None:
    result = desk(*command, env={"TOKENBUDGET_LEDGER": address})
    assert result.exit_code == 2
    for remedy in ("--ledger sqlite:budgets.db", "TOKENBUDGET_LEDGER=redis://", "tokenbudget.toml"):
        assert remedy in result.stderr


def test_looking_makes_no_ledger(desk: Desk) -> None:
    result = desk("--ledger", "sqlite:other.db")
    assert result.exit_code == 1
    assert "there is no ledger at sqlite:other.db yet" in result.stderr
    assert not (desk.folder / "other.db").exists()


def test_what_is_no_ledger(desk: Desk) -> None:
    (desk.folder / "notes.db").write_text("Dear diary, ..." * 100)
    for address, problem in (("postgres://me:secret@db", "unknown kind of ledger"), ("notes.db", "notes.db")):
        result = desk("--ledger", address)
        assert result.exit_code in (1, 2)
        assert isinstance(result.exception, SystemExit)
        assert problem in result.stderr
        assert "secret" not in result.stderr


def test_a_server_that_is_away(desk: Desk) -> None:
    need_redis()
    result = desk("--ledger", "redis://me:secret@127.0.0.1:1/0")
    assert result.exit_code == 1
    assert "the ledger at redis://***@127.0.0.1:1/0 cannot be read" in result.stderr
    assert "secret@" not in result.stderr


def test_in_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RedisServer() as server:

        def look(*arguments: str) -> Any:
            result = CliRunner().invoke(app, ["budgets", "--ledger", server.url, *arguments, "--json"])
            assert result.exit_code in (0, 1), result.output
            return json.loads(result.stdout)

        program = Enforcer([MONTH], ledger=addresses.ledger_at(server.url))
        program.charge(call(tenant="acme"), Amount(49 * USD))
        hold = program.admit(call(tenant="acme"), estimate("0.9995"))
        assert hold is not None
        assert look()["budgets"][0]["usd"] == {
            "limit": "50",
            "spent": "49",
            "reserved": "0.9995",
            "remaining": "0.0005",
        }
        assert [each["id"] for each in look("holds")["holds"]] == [hold.id]
        asked = ("explain", "--model", "gpt-5", "--tag", "tenant=acme", "--input-tokens", "2000")
        assert look(*asked)["refused_by"] == [MONTH.name]
        scope = ("--scope", "tenant=acme", "--usd", "80")
        raised = CliRunner().invoke(app, ["budgets", "set-limit", "--ledger", server.url, MONTH.name, *scope])
        assert "$50.0000 -> $80.0000" in raised.stdout
        assert look(*asked)["admitted"] is True
        program.release(hold)
        program.way.close()


def test_the_option_goes_before_the_environment_and_that_before_the_file(desk: Desk) -> None:
    for name in ("file", "environment", "option"):
        ledger = SQLiteLedger(desk.folder / f"{name}.db", clock=desk.clock)
        Enforcer([Budget(limit_usd=1, name=name)], ledger=ledger).flush()
    (desk.folder / "tokenbudget.toml").write_text('ledger = "sqlite:file.db"')
    unset: dict[str, str | None] = {"TOKENBUDGET_LEDGER": None}
    said: dict[str, str | None] = {"TOKENBUDGET_LEDGER": "environment.db"}
    assert rows(desk(env=unset))[0][0] == "file"
    assert rows(desk(env=said))[0][0] == "environment"
    assert rows(desk("--ledger", "option.db", env=said))[0][0] == "option"
    holds = desk("--ledger", "option.db", "holds", env=said)
    assert "option.db" in holds.stdout


def test_budgets_of_the_file_are_there_before_a_program_is(desk: Desk) -> None:
    (desk.folder / "tokenbudget.toml").write_text(
        'ledger = "sqlite:b.db"\n'
        '[[budgets]]\nname = "planned"\nlimit_usd = 7\n'
        '[[budgets]]\nname = "all"\nlimit_usd = 100\n'
        '[[limits]]\nbudget = "planned"\nusd = 8\n'
    )
    desk.program(DAY)
    found = {row["budget"]: row["usd"]["limit"] for row in desk.json()["budgets"]}
    # What is declared in the ledger is in force until a program has read the file.
    assert found == {"planned": "8", "all": "2"}


def test_a_configuration_with_a_mistake(desk: Desk) -> None:
    (desk.folder / "tokenbudget.toml").write_text("[[budgets]]\nlimit_usd = -1\n")
    result = desk()
    assert result.exit_code == 2
    assert "limit_usd must be at least 0" in result.stderr


def test_a_description_that_cannot_be_read(desk: Desk) -> None:
    desk.program(DAY)
    desk.ledger.declare("future", '{"version": 9, "limit_calls": 1, "window": "fortnight"}')
    result = desk()
    assert rows(result)[0][0] == "all"
    assert "note: budget 'future' is left out, its description cannot be read: unknown window" in result.stderr
    assert list(desk.json()["unreadable"]) == ["future"]
    assert desk("--budget", "future").exit_code == 2


# --- live --------------------------------------------------------------------------------------------------------


class Sleeper:
    """Time that passes only while somebody sleeps; something happens in each sleep, and Ctrl-C in the last."""

    def __init__(self, desk: Desk, *happens: Callable[[], object]) -> None:
        self._desk = desk
        self._happens = list(happens)
        self.time = desk.clock

    def sleep(self, seconds: float) -> None:
        self._desk.now += seconds
        if not self._happens:
            raise KeyboardInterrupt
        self._happens.pop(0)()


def test_watching(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.live import Live

    program = desk.program(DAY)
    shown: list[str] = []
    monkeypatch.setattr(Live, "update", lambda live, what, refresh: shown.append(as_text(what)))
    monkeypatch.setattr(
        budgets,
        "time",
        Sleeper(
            desk,
            lambda: desk.spend(program, "0.5"),
            lambda: desk.spend(program, "0.25"),
            lambda: monkeypatch.setattr(Visited, "away", True),
            lambda: (monkeypatch.setattr(Visited, "away", False), desk.program(PROBE)),
        ),
    )
    result = desk("--watch", "5")
    assert result.exit_code == 0, result.output
    assert ["$0.5000" in shown[0], "$0.7500" in shown[1], "$0.7500" in shown[3]] == [True, True, True]
    assert ["probe" in each for each in shown] == [False, False, False, True]
    assert shown[2] == "the ledger at sqlite:b.db cannot be read: it went for lunch"
    assert len(shown) == 4


def as_text(what: Any) -> str:
    from rich.console import Console

    console = Console(width=200, file=io.StringIO())
    console.print(what)
    return console.file.getvalue().strip()  # type: ignore[attr-defined]


def test_watching_as_json_until_interrupted(cli: Any, tmp_path: Path) -> None:
    enforcer = Enforcer([DAY], ledger=SQLiteLedger(tmp_path / "b.db"))
    enforcer.flush()
    started = cli.start("budgets", "--ledger", "b.db", "--watch", "0.1", "--json")
    assert started.stdout is not None
    first = json.loads(started.stdout.readline())
    enforcer.charge(call(), Amount(USD))
    for line in started.stdout:
        if json.loads(line)["budgets"][0]["usd"]["spent"] == "1":
            break
    started.send_signal(signal.SIGINT)
    assert started.wait(20) == 0
    assert first["budgets"][0]["usd"]["spent"] == "0"
    enforcer.way.close()


# --- holds -------------------------------------------------------------------------------------------------------


def test_who_holds_what(desk: Desk) -> None:
    program = desk.program(MONTH, DAY)
    hold = program.admit(call(tenant="acme"), estimate("0.5", 700))
    assert hold is not None
    desk.now += 12
    first, second = rows(desk("holds"))
    owner = re.compile(rf"\S+:{os.getpid()} openai gpt-5")
    assert first[0] == hold.id
    assert owner.fullmatch(first[1])
    assert first[2:] == [MONTH.name, "tenant=acme", "$0.5000, 700 tokens, 1 call", "12 seconds ago", "in 48 seconds"]
    assert second == ["all", "all calls", "$0.5000, 700 tokens, 1 call"]
    (plain,) = desk.json("holds", "--scope", "tenant=acme")["holds"]
    assert owner.fullmatch(plain.pop("owner"))
    assert plain == {
        "id": hold.id,
        "since": "2026-11-22T19:00:00+00:00",
        "until": "2026-11-22T19:01:00+00:00",
        "reserves": [
            {
                "budget": MONTH.name,
                "scope": {"tenant": "acme"},
                "window_id": "2026-11@Europe/Berlin",
                "key": "budget|usd/month per tenant|2026-11@Europe/Berlin|tenant=acme",
                "usd": "0.5",
                "tokens": 700,
                "calls": 1,
            }
        ],
    }
    assert [row[2] for row in rows(desk("holds", "--budget", "all"))] == ["all"]
    assert desk.json("holds", "--scope", "tenant=globex")["holds"] == []
    program.settle(hold, Amount(USD // 2, 700))
    program.flush()
    assert desk.json("holds")["holds"] == []


def test_a_call_in_flight_explained(desk: Desk) -> None:
    program = desk.program(MONTH, DAY)
    hold = program.admit(call(tenant="acme"), estimate("0.5", 700))
    assert hold is not None
    desk.spend(program, "0.1", tenant="globex")
    shown = desk("explain", hold.id)
    assert shown.exit_code == 0
    assert hold.id in shown.stdout
    assert "$0.5000, 700 tokens, 1 call" in shown.stdout
    found = desk.json("explain", hold.id)
    assert found["hold"]["id"] == hold.id
    assert [(row["budget"], row["scope"], row["usd"]["remaining"]) for row in found["budgets"]] == [
        ("all", {}, "1.4"),
        (MONTH.name, {"tenant": "acme"}, "49.5"),
    ]
    missing = desk("explain", "no-such-call")
    assert missing.exit_code == 1
    assert "no call in flight has the id 'no-such-call' in sqlite:b.db" in missing.stderr


# --- explain -----------------------------------------------------------------------------------------------------


def test_what_budgets_would_say(desk: Desk) -> None:
    program = desk.program(MONTH, DAY, PROBE, Budget(limit_usd=1, name="globex", match={"tenant": "globex"}))
    desk.spend(program, "1.995", tenant="acme")
    before = (desk.ledger.balances(), desk.ledger.holds(), dict(desk.ledger.declared()))
    arguments = (
        "explain",
        "--model",
        "gpt-5",
        "--tag",
        "tenant=acme",
        "--input-tokens",
        "2000",
        "--output-tokens",
        "500",
    )
    result = desk(*arguments)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == ["chat openai gpt-5, tenant=acme", "needs $0.0075, 2,500 tokens, 1 call"]
    assert "not counted by 'globex': tenant is 'acme', and it counts 'globex'" in result.stdout
    assert "Would be refused by 'all': room from 2026-11-23 00:00 UTC (in 5 hours)." in result.stdout
    lines = [re.split(r" {2,}", line.strip()) for line in result.stdout.splitlines()]
    assert ["all", "2026-11-22", "$0.0075", "$0.0050 of $2.0000", "refuses it"] in lines
    found = desk.json(*arguments)
    assert found["call"] == {"provider": "openai", "model": "gpt-5", "operation": "chat", "tags": {"tenant": "acme"}}
    assert found["needs"]["expected"] == {"usd": "0.0075", "tokens": 2500, "calls": 1}
    assert (found["admitted"], found["refused_by"]) == (False, ["all"])
    assert found["retry_at"] == "2026-11-23T00:00:00+00:00"
    assert {row["budget"]: row["verdict"] for row in found["budgets"]} == {
        "all": "refuse",
        "probe": "room",
        MONTH.name: "room",
    }
    assert found["budgets"][0]["usd"] == {
        "needed": "0.0075",
        "limit": "2",
        "spent": "1.995",
        "reserved": "0",
        "remaining": "0.005",
    }
    assert found["budgets"][2]["key"] == "budget|usd/month per tenant|2026-11@Europe/Berlin|tenant=acme"
    assert found["not_counted_by"] == {"globex": "tenant is 'acme', and it counts 'globex'"}
    assert before == (desk.ledger.balances(), desk.ledger.holds(), dict(desk.ledger.declared()))


def test_a_call_of_unknown_size_needs_the_least(desk: Desk) -> None:
    program = desk.program(DAY)
    desk.spend(program, "1.999999999")
    admitted = desk("explain", "--model", "gpt-5")
    assert (admitted.exit_code, "asks only whether any room is left" in admitted.stdout) == (0, True)
    desk.spend(program, "0.000000001")
    assert desk("explain", "--model", "gpt-5").exit_code == 1
    assert desk.json("explain", "--model", "gpt-5")["needs"] is None


def test_a_model_without_a_price(desk: Desk) -> None:
    desk.program(DAY, Budget(limit_usd=1, name="lax", unpriced="allow"))
    arguments = ("explain", "--provider", "custom", "--model", "no-such-model", "--input-tokens", "10")
    result = desk(*arguments)
    assert result.exit_code == 1
    assert "refuses it: the price is not known" in result.stdout
    assert "needs unknown cost, 1,010 tokens, 1 call" in result.stdout
    assert "Would be refused by 'all': waiting does not help." in result.stdout
    found = desk.json(*arguments)
    assert [(row["budget"], row["verdict"], row["unpriced"]) for row in found["budgets"]] == [
        ("all", "refuse", True),
        ("lax", "room", False),
    ]
    assert found["needs"]["expected"]["usd"] is None
    (desk.folder / "prices.toml").write_text(
        '[[model]]\nmodel = "no-such-model"\nprovider = "custom"\ninput_per_1m = 1\noutput_per_1m = 1\n'
    )
    assert desk(*arguments, "--price-file", "prices.toml").exit_code == 0
    price_book().reset()


@pytest.mark.parametrize(
    ("more", "verdict", "says"),
    [
        ({"action": "warn"}, "warn", "has no room, and only warns"),
        ({"dry_run": True}, "dry_run", "would refuse it, but for the dry run"),
        ({"action": "shrink"}, "shrink", "shortens the answer if that helps"),
        ({"action": "wait", "max_wait": 5}, "wait", "waits up to 5 s for it"),
        ({"action": "degrade", "degrade": {"gpt-5": "gpt-5-mini"}}, "degrade", "has it asked of gpt-5-mini instead"),
        ({"action": "degrade", "degrade": {"o3": "gpt-5-mini"}}, "refuse", "refuses it"),
    ],
)
def test_what_else_budgets_do(desk: Desk, more: dict[str, Any], verdict: str, says: str) -> None:
    desk.spend(desk.program(Budget(limit_usd=1, name="one", **more)), "0.999")
    arguments = ("explain", "--model", "gpt-5", "--input-tokens", "2000", "--max-output-tokens", "500")
    result = desk(*arguments)
    assert says in result.stdout
    found = desk.json(*arguments)
    assert found["budgets"][0]["verdict"] == verdict
    admitted = {"warn": True, "dry_run": True, "refuse": False}.get(verdict)
    assert (found["admitted"], result.exit_code) == (admitted, int(admitted is False))


def test_degraded_early(desk: Desk) -> None:
    budget = Budget(limit_usd=1, name="one", action="degrade", degrade={"gpt-5": "gpt-5-mini"}, degrade_at=0.5)
    desk.spend(program := desk.program(budget), "0.4")
    arguments = ("explain", "--model", "gpt-5", "--input-tokens", "2000", "--max-output-tokens", "500")
    assert desk.json(*arguments)["budgets"][0]["verdict"] == "room"
    desk.spend(program, "0.1")
    assert desk.json(*arguments)["budgets"][0]["verdict"] == "degrade"
    assert "Would be sent if what 'one' can do makes it fit." in desk(*arguments).stdout


def test_tokens_of_what(desk: Desk) -> None:
    desk.program(DAY)
    result = desk("explain", "--input-tokens", "5")
    assert (result.exit_code, "say of which --model" in result.stderr) == (2, True)


PER = st.sampled_from([None, "tenant", ("tenant", "model")])


@st.composite
def declared(draw: st.DrawFn) -> list[Budget]:
    made = []
    for number in range(draw(st.integers(1, 3))):
        more = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "action": st.sampled_from(["block", "warn"]),
                    "match": st.sampled_from([{"tenant": "a*"}, {"model": "gpt-5"}, {"provider": "anthropic"}]),
                    "dry_run": st.booleans(),
                    "limit_calls": st.integers(0, 3),
                    "limit_tokens": st.integers(0, 9_000),
                    "unpriced": st.sampled_from(["deny", "allow", "assume"]),
                    "mode": st.sampled_from(["expected", "worst_case"]),
                },
            )
        )
        limit = draw(st.decimals(0, "0.1", places=3))
        window = draw(st.sampled_from(["lifetime", "day", "rolling 24h"]))
        made.append(Budget(name=f"b{number}", limit_usd=limit, per=draw(PER), window=window, **more))
    return made


@settings(max_examples=150, deadline=None)
@given(
    declared(),
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60_000_000), st.integers(0, 5_000), st.sampled_from("abc")),
        max_size=5,
    ),
    st.sampled_from("abc"),
    st.sampled_from([("openai", "gpt-5"), ("openai", "no-such-model")]),
    st.one_of(st.none(), st.integers(0, 5_000)),
    st.one_of(st.none(), st.decimals(0, "0.1", places=3)),
)
def test_it_says_what_happens(
    made: list[Budget],
    spent: list[tuple[int, int, int, str]],
    tenant: str,
    asked: tuple[str, str],
    tokens: int | None,
    other: Decimal | None,
) -> None:
    """The verdict is what the meter comes to for the same request at the same moment, and looking changes nothing."""
    now = [START]
    ledger = MemoryLedger(clock=lambda: now[0])
    enforcer = Enforcer(made, ledger=ledger, clock=lambda: now[0])
    for hours_ago, nano_usd, used, whose in sorted(spent, reverse=True):
        now[0] = START - 3600 * hours_ago
        enforcer.charge(Call("openai", "gpt-5", {"tenant": whose}), Amount(nano_usd, used))
    now[0] = START
    rules = {budget.name: Rule(budget) for budget in made}
    first = rules["b0"]
    if other is not None:
        scope = {name: {"tenant": tenant, "model": asked[1]}[name] for name in first.per}
        ledger.set_limits(first.policy(scope), Limits(nano_usd=int(other * USD)))
    size = Size(tokens or 0, tokens or 0, max_output_tokens=400, untold=tokens is None)
    request = Request(*asked, "chat", lambda: size, at=START, tags={"tenant": tenant})
    before = (ledger.balances(), ledger.holds())
    found = budgets_explain.explanation(Source("memory", ledger, Config(), rules, dict(ledger.limits())), request)
    assert (ledger.balances(), ledger.holds()) == before
    try:
        ticket = Meter(enforcer=enforcer).admit(request)
    except BudgetExceeded as error:
        assert not found.admitted
        assert error.budget in [each.rule.name for each in found.refusing]
        if error.retry_after is not None and found.retry_at is not None:
            assert found.retry_at.timestamp() == pytest.approx(START + error.retry_after, abs=1e-3)
    else:
        assert found.admitted, found
        warned = set() if ticket.hold is None else {each.budget for each in ticket.hold.warnings}
        assert warned == {each.rule.name for each in found.verdicts if each.word in ("warn", "dry_run")}
    assert {each.rule.name for each in found.verdicts} | set(found.not_counted_by) == set(rules)


# --- set-limit ---------------------------------------------------------------------------------------------------


def test_another_limit_holds_for_the_next_call_of_a_running_program(desk: Desk) -> None:
    program = desk.program(MONTH)
    desk.spend(program, "49.5", tenant="acme")
    with pytest.raises(BudgetExceeded):
        program.admit(call(tenant="acme"), estimate("1"))
    result = desk("set-limit", MONTH.name, "--scope", "tenant=acme", "--usd", "80")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "usd/month per tenant (tenant=acme), from the next call on:\n"
        "  limit $50.0000 -> $80.0000: $49.5000 spent, $0.0000 reserved, $30.5000 remaining\n"
    )
    program.release(program.admit(call(tenant="acme"), estimate("1")))
    with pytest.raises(BudgetExceeded):
        program.admit(call(tenant="globex"), estimate("60"))
    shown = desk()
    assert "$80.0000*" in shown.stdout
    assert "* in the place of the declared limit" in shown.stdout
    program.flush()
    lowered = desk("set-limit", MONTH.name, "--scope", "tenant=acme", "--usd", "$10")
    assert "limit $80.0000 -> $10.0000: $49.5000 spent, $0.0000 reserved, $0.0000 remaining" in lowered.stdout
    with pytest.raises(BudgetExceeded):
        program.admit(call(tenant="acme"), estimate("0.01"))
    back = desk("set-limit", MONTH.name, "--scope", "tenant=acme", "--reset")
    assert "limit $10.0000 -> $50.0000" in back.stdout
    assert desk.ledger.limits() == {}
    program.release(program.admit(call(tenant="acme"), estimate("0.4")))


def test_units_are_set_one_by_one(desk: Desk) -> None:
    desk.program(DAY)
    assert desk("set-limit", "all", "--usd", "3").exit_code == 0
    result = desk("set-limit", "all", "--tokens", "20000")
    assert result.stdout.splitlines()[1:] == [
        "  limit $3.0000, as before: $0.0000 spent, $0.0000 reserved, $3.0000 remaining",
        "  limit 10,000 tokens -> 20,000 tokens: 0 tokens spent, 0 tokens reserved, 20,000 tokens remaining",
    ]
    assert desk.ledger.limits() == {"all": Limits(3 * USD, 20_000)}
    assert desk("set-limit", "all", "--tokens", "0").exit_code == 0
    assert desk.ledger.limits() == {"all": Limits(3 * USD, 0)}


def test_the_scope_of_calls_without_the_tag(desk: Desk) -> None:
    program = desk.program(MONTH)
    assert "(no tenant)" in desk("set-limit", MONTH.name, "--scope", "tenant=", "--usd", "0").stdout
    with pytest.raises(BudgetExceeded):
        program.admit(call(), estimate("0.01"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("all",), "give --usd, --tokens or --calls, or --reset"),
        (("all", "--usd", "1", "--reset"), "give --usd, --tokens or --calls, or --reset"),
        (("all", "--usd", "-1"), "must be at least 0"),
        (("all", "--calls", "1"), "budget 'all' does not limit calls"),
        (("all", "--usd", "1", "--scope", "tenant=acme"), "it has none: leave the scope out"),
        ((MONTH.name, "--usd", "1"), "give 'tenant'"),
        ((MONTH.name, "--usd", "1", "--scope", "user=me"), "give 'tenant'"),
        ((MONTH.name, "--usd", "1", "--scope", "acme"), "not of the form name=value"),
        (("all", "--usd", "1e12"), "counts exactly up to 9,223,372,036,854,775,807 nano-USD"),
    ],
)
def test_limits_that_cannot_be_set(desk: Desk, arguments: tuple[str, ...], problem: str) -> None:
    desk.program(MONTH, DAY)
    result = desk("set-limit", *arguments)
    assert result.exit_code == 2, result.output
    assert problem in result.stderr.replace("\n", " ")
    assert desk.ledger.limits() == {}


# --- as a command ------------------------------------------------------------------------------------------------


def test_help_imports_neither_prices_nor_ledgers() -> None:
    program = (
        "import sys; from tokenbudget_otel.cli.app import app\n"
        "try: app(['budgets', '--help'])\n"
        "finally: print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for heavy in ("rich.table", "tokenbudget_otel.pricing", "tokenbudget_otel.budgets", "sqlite3", "redis"):
        assert f"'{heavy}'" not in done.stdout


def test_every_subcommand_has_help() -> None:
    group = budgets.command
    for name in group.list_commands(click.Context(group)):
        assert CliRunner().invoke(app, ["budgets", name, "--help"]).exit_code == 0
