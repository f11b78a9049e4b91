"""What is particular to the ledger in a file: many processes, kill -9, forks, files that are none, disks that fail."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tokenbudget_otel.budgets import (
    Amount,
    Balance,
    Claim,
    Granted,
    LedgerUnavailable,
    Limits,
    Refused,
    SQLiteLedger,
)
from tokenbudget_otel.budgets.ledgers import sqlite_file, sqlite_place

from .budget_ledgers import MEMORY_DISK, Clock

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def usd(key: str, nano_usd: int, limit: int | None = None, **more) -> Claim:
    return Claim(key, nano_usd=nano_usd, calls=1, limit_nano_usd=limit, **more)


@pytest.fixture
def file():
    """A path for a ledger, where files are quick."""
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK) as folder:
        yield Path(folder) / "budgets.db"


# -- several processes ------------------------------------------------------------------------------------------

WORKER = """
import os, random, sys, time
from tokenbudget_otel.budgets import Amount, Claim, Granted, SQLiteLedger

path, limit, name, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
ledger = SQLiteLedger(path, timeout=20)
dice = random.Random(name)
print("ready", flush=True)
sys.stdin.readline()
until = time.time() + seconds
number = 0
while time.time() < until:
    number += 1
    bound = dice.randint(1, 900)
    hold = f"{name}-{number}"
    claims = [Claim("org", bound, calls=1, limit_nano_usd=limit), Claim(name, bound, calls=1)]
    if isinstance(ledger.reserve(hold, claims, 30, owner=name), Granted):
        actual = dice.randint(0, bound)
        ledger.settle(hold, Amount(actual))
        os.write(1, f"{actual}\\n".encode())
"""


class Worker:
    """A process that reserves and settles as fast as it can, and writes down each amount after it is settled."""

    def __init__(self, file: Path, limit: int, name: str, seconds: float) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(file), str(limit), name, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        assert self.process.stdout.readline() == "ready\n"

    def start(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.settled: list[int] = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        self.settled = [int(line) for line in self.process.stdout if line.endswith("\n")]

    def end(self) -> list[int]:
        self.process.wait(60)
        self.reader.join(60)
        self.process.stdin.close()
        self.process.stdout.close()
        return self.settled


@contextlib.contextmanager
def workers(file: Path, count: int, seconds: float, limit: int):
    made = [Worker(file, limit, f"worker {number}", seconds) for number in range(count)]
    try:
        for worker in made:
            worker.ready()
        for worker in made:
            worker.start()
        yield made
    finally:
        for worker in made:
            worker.process.kill()
            worker.end()


def after_the_leases(file: Path) -> SQLiteLedger:
    ledger = SQLiteLedger(file, clock=lambda: time.time() + 3600)
    ledger.expire()
    return ledger


def killed_at_random(file: Path, count: int, seconds: float, kills: int, limit: int) -> dict[str, list[int]]:
    """P6, P15: processes that reserve the worst case never spend more than the limit together, whoever is killed."""
    watching = SQLiteLedger(file)
    dice = random.Random(7)
    most = 0
    with workers(file, count, seconds, limit) as running:
        victims = running[:kills]
        for worker in victims:
            until = time.monotonic() + dice.uniform(0.05, 0.3)
            while time.monotonic() < until:
                balance = watching.balance("org")
                most = max(most, balance.spent_nano_usd + balance.reserved_nano_usd)
            worker.process.kill()
        settled = {worker.name: worker.end() for worker in running}
        killed = {worker.name for worker in victims}
    ledger = after_the_leases(file)
    org = ledger.balance("org")
    assert ledger.holds() == ()
    assert all(balance[4:7] == (0, 0, 0) for balance in ledger.balances())
    assert most <= limit
    assert org.spent_nano_usd <= limit
    assert org.spent_nano_usd == sum(balance.spent_nano_usd for balance in ledger.balances("worker"))
    for name, amounts in settled.items():
        spent = ledger.balance(name).spent_nano_usd
        if name in killed:  # settled and not yet written down, or in flight and charged: at most one of each
            assert sum(amounts) <= spent <= sum(amounts) + 900
        else:
            assert spent == sum(amounts)
    return settled


def test_kill_9_in_the_middle(file):
    settled = killed_at_random(file, count=3, seconds=0.9, kills=2, limit=100_000_000)
    assert all(settled.values())


def test_a_budget_that_runs_out_under_kill_9(file):
    settled = killed_at_random(file, count=3, seconds=0.7, kills=1, limit=150_000)
    assert sum(map(sum, settled.values())) > 150_000 - 3 * 900


@pytest.mark.soak
@pytest.mark.parametrize("round_", range(5))
def test_kill_9_again_and_again(file, round_):
    killed_at_random(file, count=6, seconds=4, kills=5, limit=(1 + round_) * 400_000)


def test_everybody_gets_a_share(file):
    """Four processes that never pause: none waits while others go round and round."""
    with workers(file, 4, seconds=0.8, limit=10**15) as running:
        shares = [len(worker.end()) for worker in running]
    assert min(shares) > sum(shares) / 4 / 4, shares


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop processes")
def test_a_stopped_process_holds_up_nobody_for_ever(file):
    ledger = SQLiteLedger(file, timeout=0.3)
    with workers(file, 2, seconds=30, limit=10**15) as running:
        time.sleep(0.1)
        for worker in running:
            worker.process.send_signal(signal.SIGSTOP)
        # They may have been stopped inside a transaction: then this is said in time; if not, it works.
        start = time.monotonic()
        with contextlib.suppress(LedgerUnavailable):
            ledger.reserve("h", [usd("k", 1)], 60)
        assert time.monotonic() - start < 2
        for worker in running:
            worker.process.kill()
            worker.process.wait(10)
        assert isinstance(ledger.reserve("i", [usd("k", 1)], 60), Granted)


def test_who_is_next_and_does_not_move_is_passed(file):
    """The queue says whose turn it is, and no more: who waited long enough goes ahead."""
    fcntl = pytest.importorskip("fcntl")
    ledger = SQLiteLedger(file, timeout=0.2)
    ledger.reserve("h", [usd("k", 1)], 60)
    with Path(f"{file}-queue").open() as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        assert ledger.settle("h", Amount(1)) == "done"


def test_threads_of_one_process(file):
    ledgers = [SQLiteLedger(file, timeout=30) for _ in range(2)]
    granted: list[int] = []

    def work(number: int) -> None:
        for step in range(20):
            if isinstance(ledgers[number % 2].reserve(f"{number} {step}", [usd("k", 7, 700)], 60), Granted):
                granted.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 100
    assert ledgers[0].balance("k").reserved_nano_usd == 700


# -- forks ------------------------------------------------------------------------------------------------------


def in_child(work) -> str:
    """What a forked child answers, or how it failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, str(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


@needs_fork
def test_before_and_after_a_fork(file):
    ledger = SQLiteLedger(file)
    claims = [usd("k", 10, 30)]
    ledger.reserve("parent", claims, 60)
    assert ledger.balance("k").reserved_nano_usd == 10

    def child() -> str:
        granted = ledger.reserve("child", claims, 60)
        return f"{type(granted).__name__} {ledger.balance('k').reserved_nano_usd} {ledger.settle('parent', Amount(3))}"

    assert in_child(child) == "Granted 20 done"
    assert ledger.settle("parent", Amount(3)) == "replayed"
    assert [hold.id for hold in ledger.holds()] == ["child"]
    assert isinstance(ledger.reserve("next", claims, 60), Granted)
    assert isinstance(ledger.reserve("one too many", claims, 60), Refused)


@pytest.mark.soak
@needs_fork
def test_forks_while_threads_count(file):
    ledger = SQLiteLedger(file, timeout=20)
    stop = threading.Event()
    counted: list[int] = []

    def work() -> None:
        while not stop.is_set():
            ledger.charge(f"t{len(counted)}", Amount(1), [usd("k", 0)])
            counted.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    answers = [
        in_child(lambda number=number: ledger.charge(f"c{number}", Amount(1), [usd("k", 0)])) for number in range(10)
    ]
    stop.set()
    thread.join()
    assert answers == ["done"] * 10
    assert ledger.balance("k").spent_calls == len(counted) + 10
    assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@needs_fork
def test_a_fork_that_python_was_not_told_of(file, monkeypatch):
    """A child that has its parent's connection does not touch it, and says so."""
    ledger = SQLiteLedger(file)
    ledger.charge("1", Amount(1), [usd("k", 0)])
    monkeypatch.setattr(sqlite_file.Transactions, "_before_fork", lambda self: None)
    answer = in_child(lambda: ledger.charge("2", Amount(1), [usd("k", 0)]))
    assert answer.startswith("LedgerUnavailable: ")
    assert "forked" in answer
    assert ledger.charge("3", Amount(1), [usd("k", 0)]) == "done"


# -- the file ---------------------------------------------------------------------------------------------------


def test_reopening_finds_everything(file):
    clock = Clock()
    first = SQLiteLedger(file, clock=clock)
    first.reserve("open", [usd("k", 50, 100, ends=clock.now + 60)], 60, Amount(20, 3), owner="worker 7")
    first.extend("open", "more", [usd("k", 5, 100)])
    first.charge("c", Amount(7, 8), [usd("k", 0)], {"k": Amount(9, 9)})
    first.set_limits("month", Limits(nano_usd=60))
    first.declare("month", json.dumps({"limit": 1}))
    assert first.first("warned")
    first.close()

    again = SQLiteLedger(file, clock=clock)
    assert again.balance("k") == Balance("k", 9, 9, 1, 55, 0, 2)
    (hold,) = again.holds()
    assert (hold.id, hold.owner, hold.created, hold.expires) == ("open", "worker 7", clock.now, clock.now + 60)
    assert hold.claims[0][:4] == ("k", 55, 0, 2)
    assert again.limits() == {"month": Limits(60)}
    assert again.declared() == {"month": '{"limit": 1}'}
    assert not again.first("warned")
    assert again.reserve("open", [usd("k", 50, 100)], 60) == Granted(replayed=True)
    clock.on(60)
    assert again.expire() == ("open",)
    assert again.balance("k") == Balance("k", 29, 12, 2)
    assert first.settle("open", Amount(50)) == "late"  # one that was closed opens again
    assert again.balance("k").spent_nano_usd == 59


def test_it_is_bounded(file):
    """Windows, holds and marks are forgotten when their time has come, a few with each request."""
    clock = Clock()
    ledger = SQLiteLedger(file, clock=clock, keep_windows=100, remember=50, remember_expired=70)

    def rows() -> tuple[int, int, int]:
        with contextlib.closing(sqlite3.connect(file)) as db:
            return tuple(
                db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("keys", "holds", "marks")
            )

    for number in range(400):
        ledger.reserve(f"h{number}", [usd(f"k{number}", 1, ends=clock.now)], 1)
        ledger.first(f"m{number}", ends=clock.now)
        if number % 2:
            ledger.settle(f"h{number}", Amount(1))
        clock.on(1)
    keys, holds, marks = rows()
    assert keys < 180
    assert holds < 150
    assert marks < 60
    clock.on(1000)
    for number in range(20):
        ledger.charge(f"c{number}", Amount(1), [usd("now", 0)])
        clock.on(1)
    assert rows() == (1, 20, 0)
    assert ledger.balances() == (Balance("now", 20, 0, 20),)


def test_numbers_beyond_what_it_counts(file):
    ledger = SQLiteLedger(file)
    largest = ledger.largest
    assert ledger.reserve("h", [usd("k", largest)], 60) == Granted()
    for act in (
        lambda: ledger.reserve("i", [usd("k", 1)], 60),
        lambda: ledger.reserve("i", [usd("new", largest + 1)], 60),
        lambda: ledger.reserve("i", [usd("new", largest + 1, 5)], 60),
        lambda: ledger.reserve("i", [usd("new", 5, largest + 1)], 60),
        lambda: ledger.extend("h", "s", [usd("k", 1)]),
        lambda: ledger.settle("i", Amount(largest + 1), [usd("k", 1)]),
        lambda: ledger.charge("i", Amount(largest + 1), [usd("k", 1)]),
        lambda: ledger.adjust("i", Amount(-largest - 2), [usd("k", 1)]),
        lambda: ledger.set_limits("p", Limits(largest + 1)),
    ):
        before = ledger.balances(), ledger.holds(), ledger.limits()
        with pytest.raises(ValueError, match="9,223,372,036,854,775,807"):
            act()
        assert (ledger.balances(), ledger.holds(), ledger.limits()) == before
    assert ledger.settle("h", Amount(largest)) == "done"
    assert ledger.balance("k").spent_nano_usd == largest


def claimed(*keys: str, **more) -> tuple[Claim, ...]:
    return tuple(usd(key, 5, 1000, **more) for key in keys)


@pytest.mark.parametrize(
    "claims",
    [
        claimed("a", "b"),
        claimed("a", "b", ends=2e9 + 0.1),
        claimed("a", older=("b", "c")),
        (*claimed("a"), *claimed("a", per_mille=800)),
        claimed('"quoted" \\ and ü'),
        (),
    ],
    ids=["plain", "with ends", "rolling", "twice", "odd names", "none"],
)
@pytest.mark.parametrize("told", [True, False], ids=["claims told", "claims not told"])
def test_short_ways_end_as_the_long_ones(file, claims, told):
    """Whether the claims of a hold come with its settlement, and are its own, changes nothing."""
    ledger = SQLiteLedger(file, clock=Clock())
    for number in range(3):  # the keys are new, then known
        assert ledger.reserve(f"h{number}", claims, 60) == Granted()
    assert ledger.reserve("h2", claims, 60) == Granted(replayed=True)
    assert ledger.settle("h1", Amount(3, 4), claims if told else ()) == "done"
    assert ledger.settle("h1", Amount(3, 4), claims if told else ()) == "replayed"
    keys = sorted({claim.key for claim in claims})
    assert ledger.balances() == tuple(Balance(key, 3, 4, 1, 10, 0, 2) for key in keys)
    if keys:
        ledger.extend("h0", "more", [usd(keys[0], 2)])
        assert ledger.settle("h0", Amount(1), claims if told else ()) == "done"
        assert ledger.settle("h2", Amount(None), claimed("other") if told else ()) == "done"
        assert ledger.balances() == tuple(Balance(key, 9, 4, 3) for key in keys)


def test_a_request_without_room_in_its_last_key_changes_no_other(file):
    ledger = SQLiteLedger(file)
    ledger.reserve("h", [usd("a", 1), usd("b", 1), usd("c", 10, 10)], 60)
    before = ledger.balances()
    assert isinstance(ledger.reserve("i", [usd("a", 1), usd("b", 1), usd("c", 1, 10)], 60), Refused)
    assert ledger.balances() == before


def test_older_keys_whose_sum_is_beyond_what_it_counts(file):
    ledger = SQLiteLedger(file)
    for part in ("1", "2"):
        ledger.charge(f"c{part}", Amount(ledger.largest, calls=0), [Claim(part)])
    assert ledger.reserve("h", [Claim("3")], 60) == Granted()
    refused = ledger.reserve("i", [usd("3", 1, ledger.largest, older=("1", "2"))], 60)
    assert isinstance(refused, Refused)
    assert refused.shortages[0].balance.spent_nano_usd == 2 * ledger.largest
    for number, delta in enumerate((-ledger.largest, -5)):  # below nothing, so that more than any number is left
        ledger.adjust(f"a{number}", Amount(delta, calls=0), [Claim("1"), Claim("2")])
    assert ledger.reserve("i", [usd("3", 1, ledger.largest, older=("1", "2"))], 60) == Granted()


@pytest.mark.parametrize("way", ["expire", "holds", "balance", "reserve", "charge", "renew"])
def test_holds_run_out_in_their_own_time(file, way):
    """In whatever order they were made, lengthened, shortened and ended; whoever asks the ledger ends them."""
    clock = Clock()
    start = clock.now
    one, other = (SQLiteLedger(file, clock=clock) for _ in range(2))
    one.reserve("an hour", [usd("k", 1)], 3600)
    other.reserve("a minute", [usd("k", 1)], 60)
    other.reserve("longer", [usd("k", 1)], 30)
    one.reserve("shorter", [usd("k", 1)], 3600)
    one.reserve("ended", [usd("k", 1)], 10)
    other.renew(["longer"], 90)
    one.extend("shorter", "s", ttl=20)
    other.settle("ended", Amount(1))
    ask = {
        "expire": other.expire,
        "holds": other.holds,
        "balance": lambda: other.balance("k"),
        "reserve": lambda: other.reserve(f"at {clock.now}", [usd("k", 1)], 10**6),
        "charge": lambda: other.charge(f"at {clock.now}", Amount(1), [usd("k", 1)]),
        "renew": lambda: other.renew(["ended"], 60),
    }[way]
    ran_out = []
    for seconds in (9, 10, 19, 20, 59, 60, 89, 90, 3599, 3600):
        clock.now = start + seconds
        ask()
        with contextlib.closing(sqlite3.connect(file)) as db:
            expired = {row[0] for row in db.execute("SELECT id FROM holds WHERE state = 'expired'")}
        ran_out += [(hold, seconds) for hold in sorted(expired.difference(hold for hold, _ in ran_out))]
    assert ran_out == [("shorter", 20), ("a minute", 60), ("longer", 90), ("an hour", 3600)]


# -- where there can be none ------------------------------------------------------------------------------------


def another_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE photos (name)")


def newer(path: Path) -> None:
    SQLiteLedger(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "is a folder: give the path of a file"),
        (lambda path: path.write_bytes(b"something else entirely" * 100), "another program's file"),
        (another_program, "another program's file"),
        (newer, "has version 99, .* upgrade tokenbudget-otel"),
    ],
    ids=["a folder", "not a database", "another program's", "of a later version"],
)
def test_a_path_with_something_else(file, make, says):
    make(file)
    with pytest.raises(ValueError, match=says) as refused:
        SQLiteLedger(file)
    assert str(file) in str(refused.value)


def test_what_is_no_path(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere.* create it"):
        SQLiteLedger(tmp_path / "nowhere" / "budgets.db")
    for name in ("", ":memory:"):
        with pytest.raises(ValueError, match="MemoryLedger"):
            SQLiteLedger(name)


@pytest.mark.parametrize("what", ["file", "folder"])
@needs_fork
def test_where_it_may_not_write(file, what):
    SQLiteLedger(file).close()
    place = file if what == "file" else file.parent
    place.chmod(0o444 if what == "file" else 0o555)
    (file.parent if what == "file" else file).chmod(0o777 if what == "file" else 0o666)

    def as_nobody() -> str:
        if os.getuid() == 0:  # to whom everything is allowed
            os.setuid(65534)
        return str(SQLiteLedger(file))

    try:
        assert in_child(as_nobody).startswith(
            f"ValueError: the {what} {str(place)!r} cannot be written to by this user"
        )
    finally:
        place.chmod(0o777)


MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt/team\\040files rw,relatime - nfs4 server:/export rw,vers=4.2
31 22 0:27 / /mnt/share rw,relatime - cifs //server/share rw
32 22 0:28 / /home/me/remote rw,nosuid - fuse.sshfs me@host:/ rw
33 32 254:1 / /home/me/remote/local rw - ext4 /dev/vdb rw
34 22 0:29 / /over rw - ext4 /dev/vdc rw
35 34 0:30 / /over rw - 9p drive rw
a line that is cut
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/budgets.db", "ext4"),
        ("/mnt/team files/a/budgets.db", "nfs4"),
        ("/mnt/team filesystem/budgets.db", "ext4"),
        ("/mnt/share/budgets.db", "cifs"),
        ("/home/me/remote/x/budgets.db", "fuse.sshfs"),
        ("/home/me/remote/local/budgets.db", "ext4"),
        ("/over/budgets.db", "9p"),
    ],
)
def test_the_file_system_of_a_path(path, kind):
    assert sqlite_place.file_system(Path(path), MOUNTINFO) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse.rclone", "9p", "ext4", "tmpfs"])
def test_network_file_systems_are_refused(file, tmp_path, monkeypatch, kind):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:26 / {file.parent.resolve()} rw - {kind} x rw\n")
    monkeypatch.setattr(sqlite_place, "MOUNTS", mounts)
    if kind in ("ext4", "tmpfs"):
        SQLiteLedger(file)
        return
    with pytest.raises(ValueError, match=rf"network file system \({kind}\).* use Redis"):
        SQLiteLedger(file)
    assert not file.exists()


def test_many_that_make_one_file(file):
    made: list[object] = []

    def make(number: int) -> None:
        try:
            made.append(SQLiteLedger(file, timeout=20).charge(f"c{number}", Amount(1), [usd("k", 0)]))
        except Exception as error:
            made.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["done"] * 8
    assert SQLiteLedger(file).balance("k").spent_calls == 8


# -- when the file fails ----------------------------------------------------------------------------------------


def operations(ledger: SQLiteLedger) -> list:
    claims = [usd("k", 1)]
    return [
        lambda: ledger.reserve("new", claims, 60),
        lambda: ledger.extend("h", "s", claims),
        lambda: ledger.renew(["h"], 60),
        lambda: ledger.settle("h", Amount(1)),
        lambda: ledger.release("h"),
        lambda: ledger.charge("c", Amount(1), claims),
        lambda: ledger.adjust("a", Amount(1), claims),
        ledger.expire,
        lambda: ledger.forget(["k"]),
        lambda: ledger.first("mark"),
        lambda: ledger.set_limits("p", Limits(1)),
        lambda: ledger.declare("b", "{}"),
    ]


def looks(ledger: SQLiteLedger) -> list:
    return [
        lambda: ledger.balance("k"),
        lambda: ledger.read(["k"]),
        ledger.balances,
        ledger.holds,
        ledger.limits,
        ledger.declared,
    ]


def test_locked_by_somebody_else(file):
    ledger = SQLiteLedger(file, timeout=0.03)
    ledger.reserve("h", [usd("k", 5)], 60)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for operation in operations(ledger):
        start = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="locked") as unavailable:
            operation()
        assert isinstance(unavailable.value.__cause__, sqlite3.OperationalError)
        assert 0.03 <= time.monotonic() - start < 1
    for look in looks(ledger):  # who only looks waits for nobody
        look()
    assert ledger.balance("k").reserved_nano_usd == 5
    other.execute("ROLLBACK")
    assert ledger.settle("h", Amount(1)) == "done"


def test_a_thread_that_keeps_it_busy(file):
    ledger = SQLiteLedger(file, timeout=0.05)
    with ledger._writing, pytest.raises(LedgerUnavailable, match="other threads"):
        ledger.expire()
    assert ledger.expire() == ()


def test_a_file_that_is_gone_is_not_taken_for_an_empty_one(file):
    ledger = SQLiteLedger(file)
    ledger.charge("c", Amount(1), [usd("k", 0)])
    ledger.close()
    file.unlink()
    for operation in operations(ledger) + looks(ledger):
        with pytest.raises(LedgerUnavailable, match="unable to open"):
            operation()
    assert not file.exists()


def test_a_file_that_is_deleted_while_in_use(file):
    """Others would make a new one, and each count for themselves."""
    ledger = SQLiteLedger(file)
    ledger.charge("c", Amount(1), [usd("k", 0)])
    assert ledger.balance("k").spent_nano_usd == 1
    for path in file.parent.iterdir():
        path.unlink()
    with pytest.raises(LedgerUnavailable, match="unable to open"):
        ledger.balance("k")
    with pytest.raises(LedgerUnavailable, match="unable to open"):
        for number in range(20):
            ledger.charge(f"c{number}", Amount(1), [usd("k", 0)])
    SQLiteLedger(file).charge("new", Amount(7), [usd("k", 0)])
    assert ledger.balance("k").spent_nano_usd == 7
    assert ledger.charge("new", Amount(7), [usd("k", 0)]) == "replayed"


@pytest.mark.parametrize("damage", ["overwritten", "another program's"])
def test_a_file_that_was_ruined(file, damage):
    ledger = SQLiteLedger(file)
    for number in range(50):
        ledger.charge(f"c{number}", Amount(1), [usd(f"k{number}", 0)])
    ledger.close()
    if damage == "overwritten":
        file.write_bytes(random.Random(7).randbytes(file.stat().st_size))
    else:
        file.unlink()
        another_program(file)
    for operation in operations(ledger) + looks(ledger):
        with pytest.raises(LedgerUnavailable):
            operation()


def test_a_full_disk(file):
    """Whatever does not fit is refused as a whole, and what is there stays readable."""
    ledger = SQLiteLedger(file)
    ledger.reserve("h", [usd("k", 5)], 60)
    with ledger._writing as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    ledger._writing._db.execute(f"PRAGMA max_page_count = {pages}")
    before = ledger.balances(), ledger.holds()
    with pytest.raises(LedgerUnavailable, match="full"):
        ledger.charge("c", Amount(1), [usd("x" * 100_000, 0), usd("k", 0)])
    assert (ledger.balances(), ledger.holds()) == before
    assert ledger.charge("c", Amount(1), [usd("k", 0)]) == "done"


@pytest.mark.parametrize("table", ["holds", "keys"])
@pytest.mark.parametrize("operation", ["reserve", "settle", "release", "expire", "extend"])
def test_an_error_in_the_middle_leaves_nothing_half_done(file, operation, table):
    clock = Clock()
    ledger = SQLiteLedger(file, clock=clock)
    ledger.reserve("h", [usd("k", 5)], 60)
    before = ledger.balances(), ledger.holds()
    act = {
        "reserve": lambda: ledger.reserve("i", [usd("k", 5), usd("new", 5)], 60),
        "settle": lambda: ledger.settle("h", Amount(1), [usd("k", 5)]),
        "release": lambda: ledger.release("h"),
        "expire": ledger.expire,
        "extend": lambda: ledger.extend("h", "s", [usd("k", 5)]),
    }[operation]
    with ledger._writing as db:  # whatever is written last, what was written before it is undone
        for change in ("UPDATE", "INSERT"):
            db.execute(
                f"CREATE TEMP TRIGGER fail_{change} AFTER {change} ON {table}"
                " BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
            )
    if operation == "expire":
        clock.on(60)
    with pytest.raises(LedgerUnavailable, match="disk I/O error"):
        act()
    clock.now -= 60 * (operation == "expire")
    assert (ledger.balances(), ledger.holds()) == before
    clock.on(60 * (operation == "expire"))
    assert act() in ("done", ("h",), Granted())
