"""Budgets that several processes share, through real SDKs: as a program declares them, and as a file does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import openai
import pytest

import tokenbudget_otel as tb
from far_ledger import FarLedger
from redis_server import RedisServer, need_redis
from tokenbudget_otel.budgets import MemoryLedger
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

CALL = Decimal("0.0035")  # 1,000 tokens in and 100 out of gpt-4o


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where budgets are counted: each kind of store that processes can share."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'budgets.db'}"
    need_redis()
    server = request.getfixturevalue("redis_server")
    server.client().flushall()
    return server.url


@pytest.fixture(autouse=True)
def priced(sim: Simulator) -> None:
    sim.default = Behaviour(text="Hello.", input_tokens=1_000, output_tokens=100)


def client(sim: Simulator) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=sim.openai_url, max_retries=0)


def chat(sdk: openai.OpenAI) -> None:
    sdk.chat.completions.create(
        model="gpt-4o", max_completion_tokens=100, messages=[{"role": "user", "content": "Hi."}]
    )


PROGRAM = """
import sys, time
import openai
import tokenbudget_otel as tb

{declare}
client = openai.OpenAI(api_key="k", base_url=sys.argv[1], max_retries=0)
admitted = 0
try:
    for _ in range({calls}):
        client.chat.completions.create(model="gpt-4o", max_completion_tokens=100,
                                       messages=[{{"role": "user", "content": "Hi."}}])
        admitted += 1
except tb.BudgetExceeded as refusal:
    print(type(refusal).__name__, float(refusal.limit_usd))
print(admitted)
"""


def start(sim: Simulator, folder: Path, declare: str, calls: int = 100, **environ: str) -> subprocess.Popen[str]:
    """A program of its own that calls until it is refused."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM).format(declare=declare, calls=calls), sim.openai_url],
        cwd=folder,
        env={**os.environ, **environ},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def said(program: subprocess.Popen[str]) -> list[str]:
    out, problems = program.communicate(timeout=60)
    assert program.returncode == 0, problems
    return out.splitlines()


def test_programs_share_a_budget_to_the_cent(sim: Simulator, address: str, tmp_path: Path) -> None:
    budget = f"tb.Budget(limit_usd={CALL * 10}, name='shared', mode='worst_case')"
    declare = f"tb.instrument(ledger={address!r}, budgets=[{budget}])"
    programs = [start(sim, tmp_path, declare) for _ in range(2)]
    told = [said(program) for program in programs]
    admitted = [int(lines[-1]) for lines in told]
    assert 8 <= sum(admitted) <= 10  # at the end one reserves a little more than it comes to, and the other is refused
    assert len([request for request in sim.requests if "chat" in request.path]) == sum(admitted)
    assert all(lines[0].startswith("BudgetExceeded") for lines in told)


def test_a_file_declares_it_and_another_program_changes_a_limit(sim: Simulator, address: str, tmp_path: Path) -> None:
    (tmp_path / "tokenbudget.toml").write_text(
        textwrap.dedent(f"""
        ledger = "{address}"
        [[budgets]]
        name = "tenants"
        limit_usd = {CALL * 2}
        per = "tenant"
        """)
    )
    declare = "tb.instrument(); tb.tags(tenant='acme').__enter__()"
    assert said(start(sim, tmp_path, declare)) == [f"BudgetExceeded {float(CALL * 2)}", "2"]
    command = ["tokenbudget", "budgets", "set-limit", "tenants", "--scope", "tenant=acme", "--usd", str(CALL * 5)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True, env={**os.environ, "PATH": path})
    assert said(start(sim, tmp_path, declare)) == [f"BudgetExceeded {float(CALL * 5)}", "3"]


def test_an_environment_variable_declares_one(sim: Simulator, address: str, tmp_path: Path) -> None:
    environ = {"TOKENBUDGET_LIMIT_USD": str(CALL * 2), "TOKENBUDGET_LEDGER": address, "TOKENBUDGET_WINDOW": "year"}
    assert said(start(sim, tmp_path, "tb.instrument()", **environ)) == [f"BudgetExceeded {float(CALL * 2)}", "2"]
    assert said(start(sim, tmp_path, "tb.instrument()", **environ))[-1] == "0"


def test_a_configuration_that_cannot_be_meant_is_refused_at_once(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "tokenbudget.toml").write_text("[[budgets]]\nlimit_us = 1\n")
    program = start(sim, tmp_path, "tb.instrument()")
    _, problems = program.communicate(timeout=60)
    assert "unknown key 'limit_us': did you mean 'limit_usd'?" in problems
    assert sim.requests == []


@pytest.mark.usefixtures("instrumented")
def test_a_changed_file_holds_from_the_next_call_on(sim: Simulator, meter: Meter, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"[[budgets]]\nname = 'mine'\nlimit_usd = {CALL}\n")
    tb.instrument(config=file)
    sdk = client(sim)
    chat(sdk)
    with pytest.raises(tb.BudgetExceeded):
        chat(sdk)
    file.write_text(f"[[budgets]]\nname = 'mine'\nlimit_usd = {CALL * 2}\n")
    time.sleep(0.06)  # until it is taken to be whole
    chat(sdk)
    file.write_text("")
    time.sleep(0.06)
    for _ in range(3):
        chat(sdk)
    assert meter.enforcer.budgets == ()


async def stream_a_chat(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o", max_completion_tokens=100, stream=True, messages=[{"role": "user", "content": "Hi."}]
    )
    async for _ in stream:
        pass


async def look_at_a_response(sdk: openai.AsyncOpenAI) -> None:
    """Booked by whoever sees first that it has ended: the ledger says who that is."""
    response = await sdk.responses.create(model="gpt-4o", input="Hi.", max_output_tokens=100, background=True)
    while response.status in ("queued", "in_progress"):
        response = await sdk.responses.retrieve(response.id)


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("work", [stream_a_chat, look_at_a_response])
async def test_an_event_loop_never_waits_for_a_ledger(sim: Simulator, meter: Meter, work) -> None:
    ledger = FarLedger()
    meter.enforcer.use(ledger)
    meter.enforcer.add(tb.Budget(limit_usd=1))
    async with openai.AsyncOpenAI(api_key="k", base_url=sim.openai_url, max_retries=0) as sdk:
        await work(sdk)
    assert await asyncio.to_thread(meter.enforcer.flush, 5)
    assert {"reserve", "settle"} <= {operation for operation, _ in ledger.asked}
    assert threading.get_ident() not in {thread for _, thread in ledger.asked}
    (row,) = meter.enforcer.status()
    assert (row.spent_usd, row.reserved_usd) == (CALL, 0)


@pytest.mark.usefixtures("instrumented")
def test_when_the_store_is_away(sim: Simulator, meter: Meter) -> None:
    need_redis()
    server = RedisServer(appendonly="yes")
    try:
        tb.instrument(ledger=server.url)
        meter.enforcer.add(tb.Budget(limit_usd=1, name="hard", match={"tenant": "hard"}))
        allowed = tb.allow_local(usd=CALL * 2)
        meter.enforcer.add(tb.Budget(limit_usd=1, name="some", match={"tenant": "some"}, on_store_error=allowed))
        meter.enforcer.add(tb.Budget(limit_usd=1, name="soft", match={"tenant": "soft"}, on_store_error="allow"))
        sdk = client(sim)
        for tenant in ("hard", "some", "soft"):
            with tb.tags(tenant=tenant):
                chat(sdk)
        server.kill()
        begun = time.perf_counter()
        with tb.tags(tenant="hard"), pytest.raises(tb.BudgetUnreachable, match="what is left of it is not known"):
            chat(sdk)
        assert time.perf_counter() - begun < 1
        with tb.tags(tenant="soft"):
            for _ in range(3):
                chat(sdk)
        with tb.tags(tenant="some"):
            chat(sdk)
            chat(sdk)
            with pytest.raises(tb.BudgetExceeded):
                chat(sdk)
        server.start()
        assert meter.enforcer.flush(5)
        spent = {row.budget: row.spent_usd for row in meter.enforcer.status()}
        assert spent == {"hard": CALL, "some": CALL * 3, "soft": CALL * 4}
        assert not any(row.reserved_usd for row in meter.enforcer.status())
    finally:
        meter.enforcer.use(MemoryLedger())
        server.stop()
