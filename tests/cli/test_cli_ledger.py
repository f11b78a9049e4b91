"""The ledger behind the socket: the contract of ledgers, forks, threads, and a host that goes away."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from budgets import test_ledger_contract as contract
from budgets.budget_ledgers import Clock
from tokenbudget_otel.budgets import (
    Amount,
    Budget,
    BudgetUnreachable,
    Call,
    Claim,
    Enforcer,
    Estimate,
    Granted,
    Ledger,
    LedgerUnavailable,
    MemoryLedger,
    Refused,
)
from tokenbudget_otel.budgets.rules import Rule
from tokenbudget_otel.cli.ledger import LedgerHost, RemoteLedger, RunLedger
from tokenbudget_otel.cli.metered import budget_of

# The suite that every ledger has to pass; the examples of it, without the long state machine.
for _name in dir(contract):
    if _name.startswith("Test") and "Machine" not in _name:
        globals()[_name] = getattr(contract, _name)

KEY = b"0" * 32


@pytest.fixture
def make_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Callable[[], float]], Ledger]]:
    hosts = []
    numbers = itertools.count()
    folder = tmp_path_factory.mktemp("s")

    def make(clock: Callable[[], float]) -> Ledger:
        socket = folder / str(next(numbers))
        hosts.append(LedgerHost(socket, KEY, MemoryLedger(clock=clock)))
        return RemoteLedger(socket, KEY)

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(make_ledger: Callable[[Callable[[], float]], Ledger], clock: Clock) -> Ledger:
    return make_ledger(clock)


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[tuple[MemoryLedger, LedgerHost, RemoteLedger]]:
    memory = MemoryLedger()
    host = LedgerHost(tmp_path / "s", KEY, memory)
    yield memory, host, RemoteLedger(tmp_path / "s", KEY)
    host.close()


def claim(key: str = "run|k", limit: int = 100) -> Claim:
    return Claim(key, nano_usd=1, calls=1, limit_nano_usd=limit)


def test_many_threads_and_a_fork(hosted: tuple[MemoryLedger, LedgerHost, RemoteLedger]) -> None:
    memory, _, remote = hosted
    remote.reserve("parent", [claim()], 60)
    pid = os.fork()
    if pid == 0:
        answer = remote.reserve("child", [claim()], 60)
        os._exit(0 if isinstance(answer, Granted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert memory.balance("run|k").reserved_calls == 2

    answers = []

    def reserve(name: str) -> None:
        answers.extend(remote.reserve(f"{name}-{number}", [claim()], 60) for number in range(10))

    threads = [threading.Thread(target=reserve, args=(str(name),)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(answer, Granted) for answer in answers) == 98
    assert memory.balance("run|k").reserved_nano_usd == 100


def test_a_program_that_closes_all_descriptors_finds_its_own_untouched(
    hosted: tuple[MemoryLedger, LedgerHost, RemoteLedger], tmp_path: Path
) -> None:
    memory, _, remote = hosted
    remote.reserve("1", [claim()], 60)
    file = remote._connection().fileno()
    mine = os.open(tmp_path / "mine", os.O_CREAT | os.O_RDWR)
    os.dup2(mine, file)  # the descriptor is the program's now
    remote.reserve("2", [claim()], 60)
    assert memory.balance("run|k").reserved_calls == 2
    assert (tmp_path / "mine").read_bytes() == b""
    assert os.fstat(file).st_ino == os.fstat(mine).st_ino
    os.close(file)
    os.close(mine)


def test_without_the_key_there_is_no_entry(
    hosted: tuple[MemoryLedger, LedgerHost, RemoteLedger], tmp_path: Path
) -> None:
    from multiprocessing import AuthenticationError

    with pytest.raises(AuthenticationError):
        RemoteLedger(tmp_path / "s", b"1" * 32).balance("k")
    assert hosted[2].balance("k").spent_calls == 0  # and it goes on serving the others


class Gone:
    """A host that does not answer any more."""

    def __getattr__(self, name: str) -> object:
        def fail(*_: object) -> None:
            raise LedgerUnavailable(name)

        return fail


def test_both_or_none() -> None:
    host = MemoryLedger()
    ledger = RunLedger("run|", host)
    mine, shared = claim("mine", 1), claim("run|k", 1)
    assert isinstance(ledger.reserve("1", [mine, shared], 60), Granted)
    assert ledger.settle("1", Amount(1, 0), [mine, shared]) == "done"
    assert (host.balance("run|k").spent_nano_usd, ledger.balance("mine").spent_nano_usd) == (1, 1)
    assert host.balance("mine").spent_nano_usd == 0

    # No room at the host: nothing is reserved here either. And the other way round.
    assert isinstance(ledger.reserve("2", [claim("free"), shared], 60), Refused)
    assert isinstance(ledger.reserve("3", [mine, claim("run|free")], 60), Refused)
    assert ledger.balance("free").reserved_calls == ledger.balance("run|free").reserved_calls == 0

    ledger.reserve("4", [claim("free"), claim("run|free")], 60)
    assert ledger.release("4") == "done"
    assert ledger.balance("free").reserved_calls == ledger.balance("run|free").reserved_calls == 0
    ledger.charge("5", Amount(7, 0), [mine, shared])
    assert (host.balance("run|k").spent_nano_usd, ledger.balance("mine").spent_nano_usd) == (8, 8)
    ledger.forget(["mine", "run|k"])
    assert (host.balance("run|k").spent_nano_usd, ledger.balance("mine").spent_nano_usd) == (8, 0)


def test_when_the_host_is_gone() -> None:
    ledger = RunLedger("run|", Gone())  # type: ignore[arg-type]
    assert isinstance(ledger.reserve("1", [claim("mine")], 60), Granted)
    with pytest.raises(LedgerUnavailable):
        ledger.reserve("2", [claim("mine"), claim()], 60)
    assert ledger.balance("mine").reserved_calls == 1
    with pytest.raises(LedgerUnavailable):
        ledger.settle("3", Amount(1, 0), [claim()])


def test_a_call_is_refused_when_the_host_is_gone(tmp_path) -> None:
    host = LedgerHost(tmp_path / "s", KEY, MemoryLedger())
    budget = Budget(limit_usd=1, name="run")
    remote = RemoteLedger(tmp_path / "s", KEY)
    enforcer = Enforcer([budget], ledger=RunLedger(Rule(budget).prefix(0), remote))
    call, estimate = Call("openai", "gpt-5"), Estimate(Amount(1, 1), Amount(1, 1))
    hold = enforcer.admit(call, estimate)
    host.close()
    remote._forget_connections()  # as if the other end had hung up
    with pytest.raises(BudgetUnreachable, match=r"'run' refused .* The `tokenbudget run` that keeps it has ended"):
        enforcer.admit(call, estimate)
    enforcer.settle(hold, Amount(1, 1))  # what was sent was sent; nobody can refuse that


def test_the_budget_as_plain_data() -> None:
    settings = {"name": "n", "limit_usd": "0.10", "limit_tokens": None, "mode": "worst_case", "unpriced": "allow"}
    budget = budget_of(settings)
    assert (str(budget.limit_usd), budget.mode, budget.unpriced) == ("0.1", "worst_case", "allow")
