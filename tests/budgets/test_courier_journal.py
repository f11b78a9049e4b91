"""What is to be booked later survives the process that could not book it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import Amount, Claim, Granted, LedgerUnavailable, Limits, MemoryLedger
from tokenbudget_otel.budgets.remote.courier import Courier
from tokenbudget_otel.budgets.remote.outbox import OPERATIONS as KINDS
from tokenbudget_otel.budgets.remote.outbox import Outbox, _read

from .flaky_ledger import FlakyLedger
from .test_courier import TTL, eventually, spent, usd

CLAIMS = (Claim("k", 5, 6, 1, ends=1795374000.5, limit_nano_usd=9), Claim("l", 50, 60, 1))
KEPT = tuple(claim._replace(limit_nano_usd=None) for claim in CLAIMS)
"""What is kept of them: not the limits."""

OPERATIONS = [
    ("settle", ("h1", Amount(3, 4), CLAIMS, {"l": Amount(1, 2, 3)})),
    ("settle", ("h2", Amount(None, 4), CLAIMS, None)),
    ("settle", ("h3", Amount(3))),
    ("release", ("h4",)),
    ("charge", ("c", Amount(3, 4), CLAIMS, None)),
    ("adjust", ("a", Amount(-3, 0, 0), CLAIMS, "invoice\nof “May”")),
    ("forget", (["k", "l"],)),
    ("declare", ("budget", "{}")),
    ("set_limits", ("budget|tenant=acme", Limits(5, None, 3))),
    ("set_limits", ("budget", None)),
]


JSON = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def left_by_the_dead(folder: Path, text: bytes) -> Path:
    path = folder / "1-dead.jsonl"
    path.write_bytes(text)
    return path


def abandon(outbox: Outbox) -> None:
    """Let go of the file as a process does that dies."""
    os.close(outbox._file)
    outbox._file = None


def contents(outbox: Outbox) -> list[tuple[str, tuple]]:
    return [entry[1:] for entry in outbox._entries]


class TestFile:
    def test_holds_every_operation_as_it_was(self, tmp_path):
        outbox, heir = Outbox(tmp_path), Outbox(tmp_path)
        for operation, arguments in OPERATIONS:
            assert outbox.put(operation, arguments)
        abandon(outbox)
        assert heir.adopt() == len(OPERATIONS)
        expected = [
            (operation, tuple(KEPT if value is CLAIMS else value for value in arguments))
            for operation, arguments in OPERATIONS
        ]
        assert [(name, tuple(map(_plain, values))) for name, values in contents(heir)] == [
            (name, tuple(map(_plain, values))) for name, values in expected
        ]

    def test_what_is_done_is_crossed_out(self, tmp_path):
        outbox, heir = Outbox(tmp_path), Outbox(tmp_path)
        for number in range(3):
            outbox.put("release", (f"h{number}",))
        outbox.done(outbox.first())
        abandon(outbox)
        heir.adopt()
        assert contents(heir) == [("release", ("h1",)), ("release", ("h2",))]

    def test_is_empty_when_all_is_done_and_gone_when_it_is_closed(self, tmp_path):
        outbox = Outbox(tmp_path)
        assert not files(tmp_path), "no file before there is something to write"
        outbox.put("release", ("h",))
        outbox.note("i", CLAIMS, None)
        (path,) = files(tmp_path)
        assert path.stat().st_mode & 0o777 == 0o600
        outbox.done(outbox.first())
        outbox.clear("i")
        assert path.stat().st_size == 0
        outbox.put("release", ("j",))
        assert path.stat().st_size
        outbox.done(outbox.first())
        outbox.close()
        assert not files(tmp_path)

    def test_of_a_living_process_is_left_alone(self, tmp_path):
        outbox, other = Outbox(tmp_path), Outbox(tmp_path)
        outbox.put("release", ("h",))
        assert other.left_behind()
        assert other.adopt() == 0
        assert len(files(tmp_path)) == 1

    def test_of_a_forked_process_is_its_parents(self, tmp_path):
        outbox, other = Outbox(tmp_path), Outbox(tmp_path)
        outbox.put("release", ("h",))
        before = files(tmp_path)[0].read_bytes()
        child = os.fork()
        if child == 0:
            outbox._after_fork()
            outbox.put("release", ("child",))
            os._exit(0 if len(outbox) == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert other.adopt() == 1
        assert contents(other) == [("release", ("child",))]
        outbox.put("release", ("i",))
        abandon(outbox)
        assert other.adopt() == 2
        assert before

    def test_damaged_lines_are_counted_and_the_others_are_read(self, tmp_path, caplog):
        left_by_the_dead(
            tmp_path,
            b'\n[1,"release","a"]\n\n[2,"release"\n\n[3,"release","b"]\n\n{"x":1}\n\n17\n\n[4,"fly","c"]\n'
            b'\n[5,"settle","s",[1.5,0,1],[]]\n\n[6,"release"]\n\xff\xfe\n\n[3]\n\n[7,"release","d"]\n\n[8,"rel',
        )
        heir = Outbox(tmp_path)
        assert heir.adopt() == 2
        assert contents(heir) == [("release", ("a",)), ("release", ("d",))]
        assert heir.torn == 8
        assert "8 lines were damaged" in caplog.text

    @given(st.integers(0, 600), st.sampled_from([b"", b"\n", b"\xff", b"[]]"]))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
    def test_cut_anywhere_it_gives_what_was_whole(self, tmp_path_factory, length, garbage):
        folder = tmp_path_factory.mktemp("journal")
        outbox = Outbox(folder)
        for number in range(20):
            outbox.put("release", (f"h{number}",))
            if number % 3 == 2:
                outbox.done(outbox.first())
        text = files(folder)[0].read_bytes()[:length]
        abandon(outbox)
        files(folder)[0].unlink()
        left_by_the_dead(folder, text + garbage)
        heir = Outbox(folder)
        heir.adopt()
        whole = [line for line in (text + garbage).split(b"\n") if line.endswith(b"]") and b"]]" not in line]
        holds = [line.split(b'"')[3].decode() for line in whole if b"release" in line]
        done = sum(b"release" not in line for line in whole)
        assert [arguments[0] for _, arguments in contents(heir)][: len(holds) - done] == holds[done:]
        outbox.close()
        heir.close()

    @given(
        st.lists(
            st.tuples(
                st.integers(1, 3),
                st.sampled_from(sorted(KINDS)),
                JSON,
            )
        )
    )
    @settings(deadline=None, max_examples=60)
    def test_nothing_in_it_is_trusted(self, lines):
        _read(json.dumps([number, operation, *_listed(rest)]).encode() + b"\n" for number, operation, rest in lines)

    def test_where_there_is_no_room_it_is_left_for_later(self, tmp_path):
        outbox, heir = Outbox(tmp_path), Outbox(tmp_path, most=2)
        for number in range(3):
            outbox.put("release", (f"h{number}",))
        abandon(outbox)
        assert heir.adopt() == 0
        assert len(files(tmp_path)) == 1
        assert [heir.put("release", (str(number),)) for number in range(3)] == [True, True, False]
        assert heir.dropped == 1

    def test_a_disk_that_is_full_costs_the_file_and_not_the_operations(self, tmp_path, monkeypatch, caplog):
        outbox = Outbox(tmp_path)
        outbox.put("release", ("a",))
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, text: write(file, text[:5]))
        outbox.put("release", ("b",))
        outbox.put("release", ("c",))
        monkeypatch.undo()
        outbox.put("release", ("d",))
        assert [arguments[0] for _, arguments in contents(outbox)] == ["a", "b", "c", "d"]
        assert len(caplog.records) == 1
        abandon(outbox)
        heir = Outbox(tmp_path)
        heir.adopt()
        assert [arguments[0] for _, arguments in contents(heir)] == ["a", "d"]

    def test_a_journal_that_cannot_be_a_folder_is_refused(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match=r"journal: .*file cannot be made a folder"):
            Courier(MemoryLedger(), journal=tmp_path / "file")

    def test_many_heirs_take_each_operation_over_once(self, tmp_path):
        for number in range(20):
            outbox = Outbox(tmp_path)
            outbox.put("release", (f"h{number}",))
            abandon(outbox)
        heirs = [Outbox(tmp_path) for _ in range(4)]
        threads = [threading.Thread(target=heir.adopt) for heir in heirs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = sorted(arguments[0] for heir in heirs for _, arguments in contents(heir))
        assert found == sorted(f"h{number}" for number in range(20))


def _listed(value):
    return value if isinstance(value, list) else [value]


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


class TestNotes:
    """Holds that were admitted while the store was away, and that their process did not live to end."""

    def test_are_charged_with_their_estimate(self, tmp_path, clock):
        outbox, heir = Outbox(tmp_path), Outbox(tmp_path)
        outbox.note("charged", CLAIMS, None)
        outbox.note("input only", CLAIMS, Amount(None, 2))
        outbox.note("ended", CLAIMS, None)
        outbox.put("settle", ("ended", Amount(1), CLAIMS))
        outbox.note("given back", CLAIMS, None)
        outbox.clear("given back")
        outbox.note("grown", CLAIMS, None)
        outbox.note("grown", (*CLAIMS, Claim("m", 1)), None)
        abandon(outbox)
        heir.adopt()
        ledger = MemoryLedger(clock=clock)
        for operation, arguments in contents(heir):
            getattr(ledger, operation)(*arguments)
        balances = {balance.key: balance[1:4] for balance in ledger.balances()}
        assert balances == {"k": (5 + 5 + 1 + 5, 6 + 2 + 6, 4), "l": (50 + 50 + 1 + 50, 60 + 2 + 60, 4), "m": (1, 0, 0)}

    def test_are_taken_back_by_a_call_that_ends(self, tmp_path, clock):
        store = FlakyLedger(clock)
        store.failure = "refuses"
        courier = Courier(store, clock=clock, journal=tmp_path)
        for hold in "abc":
            courier.ask("reserve", hold, (usd(10, fallback=100),), TTL)
        courier.tell("settle", "a", Amount(1), (usd(10),))
        courier.tell("release", "b")
        store.failure = ""
        clock.on(2)
        courier.tell("settle", "c", Amount(2), (usd(10),))
        assert courier.flush()
        assert spent(store) == 3
        assert [path.stat().st_size for path in files(tmp_path)] == [0]
        courier.close()

    def test_stay_with_a_courier_that_was_closed_while_calls_went_on(self, tmp_path, clock):
        store = FlakyLedger(clock)
        store.failure = "refuses"
        courier = Courier(store, clock=clock, journal=tmp_path)
        courier.ask("reserve", "h", (usd(10, fallback=100),), TTL)
        courier.close()
        assert Outbox(tmp_path).adopt() == 0
        store.failure = ""
        courier.tell("settle", "h", Amount(2), (usd(10),))
        clock.on(2)
        courier.flush()
        assert spent(store) == 2


DYING = """
import sys, time
from pathlib import Path
from tokenbudget_otel.budgets import Amount, Claim, Granted, LedgerUnavailable, MemoryLedger
from tokenbudget_otel.budgets.remote.courier import Courier

class Away(MemoryLedger):
    blocking = shared = True
    def reserve(self, *arguments): raise LedgerUnavailable("away")
    settle = charge = reserve

courier = Courier(Away(), journal=Path(sys.argv[1]), cool_off=60)
claims = (Claim("k", 30, 3, 1, limit_nano_usd=10, fallback=(1000, None, None)),)
for hold in ("ended", "given back", "in flight"):
    assert courier.ask("reserve", hold, claims, 60) == Granted()
courier.tell("settle", "ended", Amount(25, 2), claims)
courier.tell("release", "given back")
courier.tell("charge", "batch", Amount(100, 0), claims)
print("ready", flush=True)
"""


class TestProcesses:
    @pytest.fixture
    def dying(self, tmp_path):
        started = []

        def start(more: str = "time.sleep(60)") -> subprocess.Popen:
            process = subprocess.Popen(
                [sys.executable, "-c", DYING + textwrap.dedent(more), str(tmp_path)], stdout=subprocess.PIPE, text=True
            )
            started.append(process)
            assert process.stdout.readline() == "ready\n"
            return process

        yield start
        for process in started:
            process.kill()
            process.wait()

    def test_what_a_killed_process_spent_is_booked_by_the_next(self, dying, tmp_path):
        process = dying()
        ledger = FlakyLedger(time.time)
        first = Courier(ledger, journal=tmp_path)
        time.sleep(0.1)
        assert not ledger.memory.balances(), "its process lives"
        first.close()
        process.send_signal(signal.SIGKILL)
        process.wait()
        second = Courier(ledger, journal=tmp_path)
        eventually(lambda: spent(ledger) == 25 + 30 + 100)
        assert second.flush()
        assert ledger.memory.balance("k")[1:] == (155, 2 + 3, 3, 0, 0, 0)
        assert second.lost == 0
        second.close()
        assert not files(tmp_path)

    def test_delivering_twice_books_once(self, dying, tmp_path):
        process = dying()
        process.kill()
        process.wait()
        (path,) = files(tmp_path)
        text = path.read_bytes()
        ledger = FlakyLedger(time.time)
        for _ in range(2):
            path.write_bytes(text)
            courier = Courier(ledger, journal=tmp_path)
            eventually(lambda: not path.exists())
            assert courier.flush()
            courier.close()
        assert spent(ledger) == 155

    def test_a_program_that_ends_books_what_it_can(self, dying, tmp_path):
        process = dying("""
            del Away.reserve, Away.settle, Away.charge
            end = courier._end
            def report():
                end()
                print(courier.ledger.balance("k")[1:4], courier.pending)
            courier._end = report
        """)
        assert process.stdout.read() == "(155, 5, 3) 0\n"
        assert process.wait(10) == 0
        assert not files(tmp_path)

    def test_and_leaves_the_rest_to_the_next_without_waiting(self, dying, tmp_path):
        start = time.monotonic()
        assert dying("").wait(10) == 0
        assert time.monotonic() - start < 1.5
        ledger = FlakyLedger(time.time)
        courier = Courier(ledger, journal=tmp_path)
        eventually(lambda: spent(ledger) == 155)
        courier.close()

    def test_what_was_told_on_an_event_loop_is_booked_before_the_program_ends(self, tmp_path):
        program = """
            import asyncio, atexit, time
            from tokenbudget_otel.budgets import Amount, Claim, MemoryLedger
            ledger = MemoryLedger()
            atexit.register(lambda: print(ledger.balance("k").spent_nano_usd))  # runs last
            from tokenbudget_otel.budgets.remote.courier import Courier
            class Slow:
                blocking, shared = True, True
                def charge(self, *arguments):
                    time.sleep(0.01)
                    return ledger.charge(*arguments)
            courier = Courier(Slow())
            async def main():
                for number in range(20):
                    courier.tell("charge", str(number), Amount(1), (Claim("k", 1),))
            asyncio.run(main())
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=20
        )
        assert (done.stdout, done.stderr) == ("20\n", "")


def test_without_a_journal_what_is_open_at_the_end_is_charged(clock):
    store = FlakyLedger(clock)
    store.failure = "refuses"
    courier = Courier(store, clock=clock)
    courier.ask("reserve", "h", (usd(10, fallback=100),), TTL)
    store.failure = ""
    courier._end()
    assert spent(store) == 10


def test_a_journal_is_not_written_while_all_is_well(tmp_path, clock):
    courier = Courier(FlakyLedger(clock), clock=clock, journal=tmp_path)
    assert courier.ask("reserve", "h", (usd(10),), TTL) == Granted()
    courier.tell("settle", "h", Amount(1), (usd(10),))
    assert not files(tmp_path)
    courier.close()


def test_too_much_is_counted_and_said(clock, caplog):
    store = FlakyLedger(clock)
    courier = Courier(store, clock=clock)
    courier._outbox._most = 3
    store.failure = "refuses"
    for number in range(5):
        courier.tell("charge", str(number), Amount(1), (usd(1),))
    with pytest.raises(LedgerUnavailable):
        courier.ask("balance", "k")
    assert courier.lost == 2
    assert courier.pending == 3
    assert caplog.text.count("is lost") == 2
    store.failure = ""
    courier.close()
    assert spent(store) == 3
