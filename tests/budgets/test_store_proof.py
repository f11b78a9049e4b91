"""Ledgers that outlive their processes, with real processes and real kills: P6 and P15.

What a call truly costs is written down when it is sent, as the provider would bill it, whatever becomes of the process.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redis_server import shared_server
from tokenbudget_otel.budgets import Amount, Balance, Claim, Granted, Ledger, Refused, SQLiteLedger

from .budget_ledgers import MEMORY_DISK

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill so")

LEASE_S = 0.4
OPENING = """
import os, random, sys, threading, time
from tokenbudget_otel.budgets import Amount, Claim, Granted, LedgerUnavailable, RedisLedger, SQLiteLedger

kind, where, root, lease = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
ledger = SQLiteLedger(where, timeout=20) if kind == "sqlite" else RedisLedger(where, root=root, timeout=5)
"""


class Store:
    """Where a ledger is kept, and how a process gets at it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.root = uuid.uuid4().hex
        self.where = str(folder / "budgets.db") if kind == "sqlite" else shared_server().unix_url

    def ledger(self) -> Ledger:
        if self.kind == "sqlite":
            return SQLiteLedger(self.where, timeout=20)
        from tokenbudget_otel.budgets import RedisLedger

        return RedisLedger(self.where, root=self.root, timeout=5)

    def process(self, program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OPENING + program, self.kind, self.where, self.root, str(LEASE_S)]
        return subprocess.Popen(
            [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK) as folder:
        yield Store(request.param, Path(folder))


def said(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(30)
    process.stdin.close()
    process.stdout.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


# -- P6 -----------------------------------------------------------------------------------------------------------

ONE_CALL = """
claims = [Claim("org", 50, 10, 1, limit_nano_usd=100), Claim("team", 50, 10, 1)]
on_expiry = Amount(20, 10) if sys.argv[5] == "input" else None
steps = {
    "reserved": lambda: ledger.reserve("h", claims, lease, on_expiry, "the victim"),
    "extended": lambda: ledger.extend("h", "x", [Claim("org", 30, limit_nano_usd=100)], lease),
    "settled": lambda: ledger.settle("h", Amount(45, 9), claims),
}
for name, step in steps.items():
    step()
    print(name, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("killed", "policy", "spent"),
    [
        ("reserved", "all", Balance("org", 50, 10, 1)),
        ("extended", "all", Balance("org", 80, 10, 1)),
        ("extended", "input", Balance("org", 20, 10, 1)),
        ("settled", "all", Balance("org", 45, 9, 1)),
    ],
)
def test_a_process_that_is_killed_leaves_its_charge_and_no_hold(store, killed, policy, spent):
    """P6: after ``kill -9`` between any two steps, what is reserved is given back and what may be spent is counted."""
    victim = store.process(ONE_CALL, policy)
    try:
        while said(victim) != killed:
            victim.stdin.write("\n")
            victim.stdin.flush()
        victim.kill()
        victim.wait(30)
        ledger = store.ledger()
        if killed != "settled":
            # Its room is nobody else's as long as it may still be spent, nor what it is charged afterwards.
            assert {hold.owner for hold in ledger.holds()} <= {"the victim"}
            assert isinstance(ledger.reserve("early", [Claim("org", 100, limit_nano_usd=100)], 60), Refused)
            until(lambda: bool(ledger.expire()) or not ledger.holds())
        assert ledger.balance("org") == spent
        assert ledger.holds() == ()
        left = 100 - spent.spent_nano_usd
        assert isinstance(ledger.reserve("new", [Claim("org", left, limit_nano_usd=100)], 60), Granted)
        # The answer did come, and somebody read it: what is known in the end is what counts.
        if killed != "settled":
            assert ledger.settle("h", Amount(45, 9)) == "late"
        assert ledger.balance("org")[1:4] == (45, 9, 1)
    finally:
        ended(victim)


# -- P15 ----------------------------------------------------------------------------------------------------------

MANY_CALLS = """
name, limit, threads, seconds, log = sys.argv[5], int(sys.argv[6]), int(sys.argv[7]), float(sys.argv[8]), sys.argv[9]
log = os.open(log, os.O_WRONLY | os.O_APPEND)

def work(number):
    dice = random.Random(f"{name} {number}")
    until = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < until:
        turn += 1
        hold = f"{name} {number} {turn}"
        bound = dice.randint(1, 900)
        actual = dice.randint(0, bound)
        team = f"team {dice.randrange(2)}"
        claims = [
            Claim("org", bound, 7, 1, limit_nano_usd=limit),
            Claim(team, bound, 7, 1, limit_nano_usd=limit * 2 // 3),
            Claim("calls", bound, 7, 1),
        ]
        try:
            granted = isinstance(ledger.reserve(hold, claims, lease), Granted)
        except LedgerUnavailable:
            continue
        if not granted:
            os.write(log, b"refused\\n")
            time.sleep(0.01)
            continue
        os.write(log, f"{team} {actual}\\n".encode())  # sent: from here on it costs
        time.sleep(dice.uniform(0, 0.004))
        if dice.random() < 0.1:
            ledger.extend(hold, "more", [claims[0]._replace(calls=0, tokens=0)], lease)
        ledger.settle(hold, Amount(actual, 5), claims)

print("ready", flush=True)
sys.stdin.readline()
running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for thread in running:
    thread.start()
for thread in running:
    thread.join()
"""


def hammered(
    store: Store, *, processes: int, threads: int, seconds: float, kills: int, limit: int, heirs: int = 0
) -> None:
    log = store.folder / "log"
    log.touch()
    store.ledger().balances()  # made, before all come at once
    dice = random.Random(11)
    arguments = (limit, threads, seconds, log)
    running = [store.process(MANY_CALLS, f"p{number}", *arguments) for number in range(processes + heirs)]
    try:
        assert {said(process) for process in running} == {"ready"}
        waiting = running[processes:]
        for process in running[:processes]:
            process.stdin.write("\n")
            process.stdin.flush()
        most = 0
        watching = store.ledger()
        for victim in running[:kills]:
            end = time.monotonic() + dice.uniform(0.03, 0.15)
            while time.monotonic() < end:
                org = watching.balance("org")
                most = max(most, org.spent_nano_usd + org.reserved_nano_usd)
            victim.kill()
            if waiting:
                heir = waiting.pop()
                heir.stdin.write("\n")
                heir.stdin.flush()
        for process in running:
            process.wait(60)
            assert process.returncode in (0, -signal.SIGKILL)
    finally:
        for process in running:
            ended(process)
    lines = [line.rpartition(" ") for line in log.read_text().splitlines()]
    truth = {team: sum(int(cost) for name, _, cost in lines if name == team) for team in ("team 0", "team 1")}
    calls = sum(name != "" for name, *_ in lines)
    ledger = store.ledger()
    until(lambda: bool(ledger.expire()) or not ledger.holds())
    balances = {balance.key: balance for balance in ledger.balances()}
    assert all(balance[4:7] == (0, 0, 0) for balance in balances.values()), "nothing stays reserved"
    spent = balances["org"].spent_nano_usd
    assert most <= limit
    assert sum(truth.values()) <= spent <= limit, "no more than the limit, and no less than what calls cost"
    assert "refused" in log.read_text(), "and the limit was reached"
    assert spent >= limit - 900 * processes * threads
    for team, cost in truth.items():
        assert cost <= balances[team].spent_nano_usd <= limit * 2 // 3
    # What was granted and never sent is charged as well: one call at most for each thread that was killed.
    assert calls <= balances["calls"].spent_calls <= calls + kills * threads


def test_processes_and_threads_that_are_killed_stay_within_the_limit(store):
    """P15, small."""
    hammered(store, processes=2, threads=4, seconds=0.9, kills=1, limit=40_000)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("limit", [100_000, 500_000])
def test_many_processes_and_threads_that_are_killed_stay_within_the_limit(store, limit):
    """P15."""
    hammered(store, processes=6, threads=8, seconds=8, kills=6, limit=limit, heirs=6)
