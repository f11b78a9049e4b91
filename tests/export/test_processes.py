"""A spool that several processes share, that forks, and whose processes die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_requests import request_of
from receiver import FINE, HANG, Mood, Receiver
from until import until

from tokenbudget_otel.export import Spool, SpoolingSession

MakeSpool = Callable[..., Spool]
HEADERS = {"Content-Type": "application/x-protobuf"}


def in_child(run: Callable[[], None]) -> int:
    """Run something in a forked child; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(70)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def test_a_forked_child_delivers_what_is_its_own(receiver: Receiver, make_spool: MakeSpool) -> None:
    spool = make_spool()
    session = SpoolingSession(spool)
    session.post(receiver.url, data=request_of(1), headers=HEADERS)
    assert spool.flush(10)

    def child() -> None:
        session.post(receiver.url, data=request_of(1, first=1), headers=HEADERS)
        assert spool.flush(10)
        spool.close()

    assert in_child(child) == 0
    session.post(receiver.url, data=request_of(1, first=2), headers=HEADERS)
    assert spool.flush(10)
    assert receiver.names == ["span 0", "span 1", "span 2"]


def test_a_fork_while_others_write(receiver: Receiver, make_spool: MakeSpool) -> None:
    spool = make_spool()
    session = SpoolingSession(spool)
    over = threading.Event()
    numbers = iter(range(1_000_000))

    def write() -> None:
        # However long the forks take: what has been written has to be delivered in the end.
        while not over.wait(0.002) and (number := next(numbers)) < 1_500:
            session.post(receiver.url, data=request_of(1, first=number), headers=HEADERS)
            written.append(number)

    written: list[int] = []
    writers = [threading.Thread(target=write) for _ in range(3)]
    for each in writers:
        each.start()
    try:
        for number in range(10):
            first = 2_000_000 + number

            def child(first: int = first) -> None:
                session.post(receiver.url, data=request_of(1, first=first), headers=HEADERS)
                spool.close(5)

            assert in_child(child) == 0
    finally:
        over.set()
        for each in writers:
            each.join()
    assert spool.flush(60)
    made = len(written)
    assert sorted(receiver.names) == sorted(f"span {number}" for number in (*written, *range(2_000_000, 2_000_010)))
    tally = spool._folder.tally.read()
    assert (tally["bytes"], tally["files"]) == (0, 0)
    assert tally["accepted"] == tally["delivered"] == made + 10


def test_a_child_does_not_keep_the_lock_of_its_parent(receiver: Receiver, make_spool: MakeSpool) -> None:
    receiver.mood = HANG
    spool = make_spool()
    session = SpoolingSession(spool)
    session.post(receiver.url, data=request_of(1), headers=HEADERS)
    until(lambda: receiver.posts == 1)  # the parent is sending, and has the lock
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(0)
    receiver.mood = FINE
    receiver.release()
    assert spool.flush(10)
    # The parent has let go of it; another process can have it though the child lives.
    other = make_spool()
    SpoolingSession(other).post(receiver.url, data=request_of(1, first=1), headers=HEADERS)
    assert other.flush(10)
    os.write(write, b"x")
    os.waitpid(pid, 0)
    assert receiver.names == ["span 0", "span 1"]


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[3])
from export_requests import request_of
from tokenbudget_otel.export import Spool, SpoolingSession
spool = Spool(sys.argv[1], first_wait=0.05, longest_wait=0.2, close_timeout=0.2)
session = SpoolingSession(spool)
body = request_of(2, first=int(sys.argv[4]))
session.post(sys.argv[2], data=body, headers={"Content-Type": "application/x-protobuf"})
print("handed over", flush=True)
sys.stdin.read()
"""


def program(folder: Path, url: str, first: int) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), url, str(Path(__file__).parent), str(first)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None and started.stdout.readline() == "handed over\n"
    return started


@pytest.mark.parametrize("mood", [HANG, Mood(503)], ids=["while it sends", "while it waits"])
def test_another_process_goes_on_for_one_that_was_killed(
    receiver: Receiver, make_spool: MakeSpool, tmp_path: Path, mood: Mood
) -> None:
    receiver.mood = mood
    first = program(tmp_path / "spool", receiver.url, 0)
    until(lambda: receiver.posts >= 1)
    second = program(tmp_path / "spool", receiver.url, 2)
    first.kill()
    first.wait()
    receiver.mood = FINE
    receiver.release()
    until(lambda: len(receiver.names) == 4)
    assert receiver.names == [f"span {number}" for number in range(4)]
    second.communicate(timeout=10)
    assert set(receiver.spans.values()) == {1}


def test_one_process_sends_at_a_time(receiver: Receiver, tmp_path: Path) -> None:
    under_way: list[int] = []
    most = 0

    def slow(_: Any) -> Mood:
        nonlocal most
        under_way.append(1)
        most = max(most, len(under_way))
        time.sleep(0.005)
        under_way.pop()
        return FINE

    receiver.mood = slow
    receiver.stop()
    programs = [program(tmp_path / "spool", receiver.url, 2 * number) for number in range(3)]
    receiver.start()
    until(lambda: len(receiver.names) == 6)
    for each in programs:
        each.communicate(timeout=10)
    assert most == 1
    assert set(receiver.spans.values()) == {1}


def test_at_the_end_of_a_program_the_last_spans_are_out(receiver: Receiver, tmp_path: Path) -> None:
    text = """
import sys
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tokenbudget_otel.export import Spool, SpoolingSession
provider = TracerProvider()
exporter = OTLPSpanExporter(sys.argv[2], session=SpoolingSession(Spool(sys.argv[1], close_timeout=1)))
provider.add_span_processor(BatchSpanProcessor(exporter))
with provider.get_tracer("test").start_as_current_span("the last"):
    pass
"""

    def run() -> None:
        subprocess.run([sys.executable, "-c", text, str(tmp_path / "spool"), receiver.url], check=True, timeout=30)

    run()
    assert receiver.names == ["the last"]
    receiver.mood = HANG
    run()
    (left,) = (tmp_path / "spool").glob("*/*.otlp")
    receiver.mood = FINE
    run()
    assert receiver.names == ["the last"] * 3
    assert not left.exists()
