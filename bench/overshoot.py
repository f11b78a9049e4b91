"""How far a budget is passed when many processes spend it at once, some of them are killed, and the store goes away.

    python bench/overshoot.py [--stores memory sqlite redis] [--calls 10000] [--processes 4] [--tasks 8]

Workers (processes, each with threads or with tasks of an event loop) hammer one budget of one dollar, or four that are
nested (org > team > user > feature), with calls of random true cost. Now and then one is killed with `kill -9` in the
middle of its calls and another takes its place; in the middle of the run Redis is killed and started again. What a
call truly cost is written down when it is sent, so that calls of killed workers count in full, as a provider would
bill them. The memory of a process is no other's: that ledger is hammered by threads, and nobody is killed.

Printed for each store and budget: calls that were admitted, what was truly spent in the fullest scope against its
limit, the overshoot, what the ledger says was spent, refusals whose own numbers show that there was room (phantoms),
and what is reserved when all have ended and the leases have run out. In `worst_case` mode a call reserves an upper
bound, and the overshoot must be 0; in `expected` mode it may be what calls came to beyond their reservations, which is
printed beside it. The program ends with 1 if anything is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tokenbudget_otel.budgets import Amount, Budget, BudgetExceeded, BudgetUnreachable, Call, Enforcer, Estimate
from tokenbudget_otel.budgets.ledgers.addresses import ledger_at

NANO = 10**9
LEASE_S = 3.0
LEVELS = ("org", "team", "user", "feature")
LIMITS = {"org": 1.00, "team": 0.60, "user": 0.35, "feature": 0.20}


def budgets_of(shape: str, mode: str) -> list[Budget]:
    """One budget of a dollar, or four that are nested."""
    if shape == "one":
        return [Budget(limit_usd=1, name="one", mode=mode)]
    return [
        Budget(limit_usd=LIMITS[level], name=level, per=LEVELS[: depth + 1], mode=mode)
        for depth, level in enumerate(LEVELS)
    ]


def tags_of(rng: random.Random) -> dict[str, str]:
    return {"org": "o", **{level: f"{level[0]}{rng.randrange(2)}" for level in LEVELS[1:]}}


class Caller:
    """Makes calls, and writes down what each truly cost when it is sent."""

    def __init__(self, enforcer: Enforcer, log: int, seed: int, unit: int) -> None:
        self.enforcer = enforcer
        self.log = log
        self.rng = random.Random(seed)
        self.unit = unit

    def next(self) -> tuple[Call, Estimate, int]:
        """A call, what it is thought to come to, and what it comes to."""
        bound = self.rng.randrange(self.unit // 2, self.unit * 2)
        actual = self.rng.randrange(0, bound + 1)
        expected = max(1, int(actual * self.rng.uniform(0.5, 1.5)))
        estimate = Estimate(Amount(min(expected, bound), 10), Amount(bound, 20))
        return Call("bench", "model", tags_of(self.rng)), estimate, actual

    def sent(self, call: Call, actual: int, held: int) -> None:
        """The call is on its way: whatever becomes of us, it costs so much."""
        self.write({"tags": dict(call.tags), "actual": actual, "over": max(0, actual - held)})

    def refused(self, refusal: BudgetExceeded) -> None:
        if isinstance(refusal, BudgetUnreachable):
            self.write({"away": 1})
        else:
            room = refusal.remaining_usd is not None and refusal.needed_usd <= refusal.remaining_usd
            self.write({"refused": 1, "phantom": int(bool(room))})

    def write(self, entry: dict) -> None:
        os.write(self.log, json.dumps(entry).encode() + b"\n")  # one write, whole or not at all


def call_in_thread(caller: Caller, stop: threading.Event) -> None:
    while not stop.is_set():
        call, estimate, actual = caller.next()
        try:
            hold = caller.enforcer.admit(call, estimate)
        except BudgetExceeded as refusal:
            caller.refused(refusal)
            time.sleep(0.005)
            continue
        caller.sent(call, actual, hold.claims[0].nano_usd)
        time.sleep(caller.rng.uniform(0, 0.002))
        caller.enforcer.settle(hold, Amount(actual, 15))


async def call_in_task(caller: Caller, stop: threading.Event) -> None:
    while not stop.is_set():
        call, estimate, actual = caller.next()
        try:
            hold = await caller.enforcer.admit_async(call, estimate)
        except BudgetExceeded as refusal:
            caller.refused(refusal)
            await asyncio.sleep(0.005)
            continue
        caller.sent(call, actual, hold.claims[0].nano_usd)
        await asyncio.sleep(caller.rng.uniform(0, 0.002))
        caller.enforcer.settle(hold, Amount(actual, 15))


def work(enforcer: Enforcer, log: int, seed: int, unit: int, tasks: int, stop: threading.Event) -> None:
    """Call until told to stop: in threads, or every other worker in tasks of an event loop."""
    callers = [Caller(enforcer, log, seed * 1000 + number, unit) for number in range(tasks)]
    if seed % 2:

        async def all_of_them() -> None:
            await asyncio.gather(*(call_in_task(each, stop) for each in callers))

        asyncio.run(all_of_them())
    else:
        threads = [threading.Thread(target=call_in_thread, args=(each, stop)) for each in callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    enforcer.flush(5)


def worker(options: argparse.Namespace) -> None:
    """What a process of the run does."""
    enforcer = Enforcer(budgets_of(options.shape, options.mode), ledger=ledger_at(options.worker), ttl=LEASE_S)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    log = os.open(options.log, os.O_WRONLY | os.O_APPEND)
    work(enforcer, log, options.seed, options.unit, options.tasks, stop)


def hammer(store: str, shape: str, mode: str, options: argparse.Namespace) -> bool:
    """One run. Prints its line, and says whether everything is as it must be."""
    folder = Path(tempfile.mkdtemp(prefix="overshoot-"))
    log = folder / "calls.jsonl"
    log.touch()
    server = None
    address = "memory"
    if store == "sqlite":
        address = f"sqlite:{folder / 'budgets.db'}"
    elif store == "redis":
        from _redis_server import RedisServer

        server = RedisServer()
        address = server.url
    unit = NANO // options.calls  # the mean of a call's true cost is about half of it, and so twice as many are made
    killed = 0
    try:
        if store == "memory":
            enforcer = Enforcer(budgets_of(shape, mode), ttl=LEASE_S)
            stop = threading.Event()
            file = os.open(log, os.O_WRONLY | os.O_APPEND)
            runs = [
                threading.Thread(target=work, args=(enforcer, file, seed, unit, options.tasks, stop))
                for seed in range(options.processes)
            ]
            for each in runs:
                each.start()
            until_quiet(log, options.calls, lambda: None)
            stop.set()
            for each in runs:
                each.join()
        else:
            killed = processes(address, shape, mode, log, unit, options, server)
            enforcer = Enforcer(budgets_of(shape, mode), ledger=ledger_at(address), ttl=LEASE_S)
            time.sleep(LEASE_S + 0.2)
        return report(store, shape, mode, enforcer, log, killed)
    finally:
        if server is not None:
            server.close()


def processes(
    address: str, shape: str, mode: str, log: Path, unit: int, options: argparse.Namespace, server: object
) -> int:
    """Start workers, kill some, kill the server once, and end them. How many were killed."""
    seeds = iter(range(1_000_000))

    def start() -> subprocess.Popen:
        seed = next(seeds)
        return subprocess.Popen(
            [
                sys.executable, __file__, "--worker", address, "--log", str(log), "--seed", str(seed), "--unit",
                str(unit), "--tasks", str(options.tasks), "--shape", shape, "--mode", mode,
            ]
        )  # fmt: skip

    running = [start() for _ in range(options.processes)]
    rng, killed, begun = random.Random(7), 0, time.monotonic()
    next_kill, restarted = begun + 1.5, False

    def meanwhile() -> None:
        nonlocal killed, next_kill, restarted
        now = time.monotonic()
        if now > next_kill and killed < options.kills:
            victim = rng.randrange(len(running))
            running[victim].send_signal(signal.SIGKILL)
            running[victim].wait()
            running[victim] = start()
            killed += 1
            next_kill = now + rng.uniform(0.3, 0.8)
        if server is not None and not restarted and now > begun + 2.5:
            restarted = True
            server.kill()
            time.sleep(0.3)
            server.start()

    until_quiet(log, options.calls, meanwhile)
    for each in running:
        each.terminate()
    for each in running:
        each.wait(30)
    return killed


def until_quiet(log: Path, calls: int, meanwhile) -> None:
    """Wait until so many calls have been tried and for a second none was admitted: the budget is spent."""
    admitted_before, quiet_since, end = -1, time.monotonic(), time.monotonic() + 120
    while time.monotonic() < end:
        time.sleep(0.1)
        meanwhile()
        text = log.read_bytes()
        tried, admitted = text.count(b"\n"), text.count(b'"actual"')
        if admitted != admitted_before:
            admitted_before, quiet_since = admitted, time.monotonic()
        elif tried >= calls and admitted and time.monotonic() - quiet_since > LEASE_S + 1.5:
            return


def report(store: str, shape: str, mode: str, enforcer: Enforcer, log: Path, killed: int) -> bool:
    spent: dict[tuple, int] = collections.Counter()
    over: dict[tuple, int] = collections.Counter()
    counts = collections.Counter()
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if "actual" not in entry:
            counts.update(entry)
            continue
        counts["admitted"] += 1
        scopes = [()] if shape == "one" else [tuple(entry["tags"].items())[: depth + 1] for depth in range(4)]
        for scope in scopes:
            spent[scope] += entry["actual"]
            over[scope] += entry["over"]
    limits = {(): NANO} if shape == "one" else {scope: int(LIMITS[scope[-1][0]] * NANO) for scope in spent}
    overshoot = max(max(0, spent[scope] - limits[scope]) for scope in spent)
    allowed = max(over[scope] for scope in spent) if mode == "expected" else 0
    fullest = max(spent, key=lambda scope: spent[scope] / limits[scope])
    enforcer.ledger.expire()
    rows = enforcer.status()
    reserved = sum(row.reserved_usd or 0 for row in rows)
    booked = max(row.spent_usd for row in rows)
    probe = probe_room(enforcer)
    fine = (
        overshoot <= allowed
        and not reserved
        and not counts["phantom"]
        and probe
        and counts["admitted"] + counts["refused"] >= 10_000
        and all(row.spent_usd >= 0 for row in rows)
    )
    print(
        f"{store:<8}{shape:<8}{mode:<12}{counts['admitted']:>9,}{counts['refused']:>10,}{counts['away']:>8,}"
        f"{killed:>8}{spent[fullest] / NANO:>10.4f} of {limits[fullest] / NANO:.2f}"
        f"{overshoot / NANO:>11.3f}{allowed / NANO:>9.3f}{float(booked):>10.4f}"
        f"{counts['phantom']:>9}{float(reserved):>10.3f}  {'ok' if fine else 'WRONG'}",
        flush=True,
    )
    return fine


def probe_room(enforcer: Enforcer) -> bool:
    """Whether a call that fits into what is left is admitted, and one nano-dollar more is not."""
    call = Call("bench", "model", {"org": "o", "team": "t0", "user": "u0", "feature": "f0"})
    try:
        enforcer.admit(call, Estimate(Amount(10 * NANO, 1), Amount(10 * NANO, 1)))
    except BudgetExceeded:
        left = min(
            int(row.remaining_usd * NANO)
            for row in enforcer.status()
            if all(call.tags.get(name) == value for name, value in row.scope.items())
        )
        if left == 0:
            return True
        try:
            enforcer.admit(call, Estimate(Amount(left + 1, 1), Amount(left + 1, 1)))
        except BudgetExceeded:
            enforcer.release(enforcer.admit(call, Estimate(Amount(left, 1), Amount(left, 1))))
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stores", nargs="+", default=["memory", "sqlite", "redis"])
    parser.add_argument("--shapes", nargs="+", default=["one", "nested"])
    parser.add_argument("--modes", nargs="+", default=["worst_case", "expected"])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--kills", type=int, default=6)
    for name, kind in (("worker", str), ("log", str), ("seed", int), ("unit", int), ("shape", str), ("mode", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # that the store was away is in the table
    if options.worker:
        worker(options)
        return 0
    print(f"{options.processes} processes x {options.tasks} threads or tasks; amounts in US dollars")
    print(
        f"{'store':<8}{'budgets':<8}{'mode':<12}{'admitted':>9}{'refused':>10}{'away':>8}{'killed':>8}"
        f"{'fullest scope':>18}{'overshoot':>11}{'allowed':>9}{'booked':>10}{'phantom':>9}{'reserved':>10}"
    )
    runs = [(store, shape, mode) for store in options.stores for shape in options.shapes for mode in options.modes]
    return 0 if all([hammer(*each, options) for each in runs]) else 1  # noqa: C419 - all of them, whatever the first says


if __name__ == "__main__":
    sys.exit(main())
