"""10,000 spans through whatever may go wrong: what was handed over is at the receiver, or counted as dropped.

The programs are real ones, with the SDK's tracer provider and batch processor; they are killed while they send.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from receiver import CUT_AFTER, CUT_BEFORE, FINE, HANG, Mood, Receiver
from until import until

from tokenbudget_otel.export import Spool, SpoolingSession

pytestmark = [pytest.mark.soak, pytest.mark.timeout(240)]

HERE = Path(__file__).parent
SPANS = int(os.environ.get("SOAK_SPANS", "10000"))
BATCH = 64

MIXED = [FINE, FINE, FINE, Mood(503), Mood(500), Mood(429, {"Retry-After": "0.1"}), CUT_BEFORE, CUT_AFTER, Mood(502)]


class Apps:
    """Programs that share a spool."""

    def __init__(self, receiver: Receiver, tmp_path: Path, folder: Path, number: int, **options: Any) -> None:
        self.receiver = receiver
        self.folder = folder
        self.log = tmp_path / "handed"
        self.log.touch()
        self.options = options
        self.kills = 0
        self.running = [self._start() for _ in range(number)]

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = (self.receiver.url, str(self.folder), str(self.log), json.dumps(self.options))
        with (self.log.parent / "stderr").open("ab") as stderr:
            return subprocess.Popen([sys.executable, str(HERE / "chaos_app.py"), *arguments], stderr=stderr)

    def kill_one(self) -> None:
        which = random.randrange(len(self.running))
        self.running[which].kill()
        self.running[which].wait()
        self.kills += 1
        self.running[which] = self._start()

    @property
    def handed(self) -> list[tuple[str, str]]:
        lines = self.log.read_text().splitlines()
        return [(trace, span) for trace, _, span in (line.partition(" ") for line in lines) if len(span) == 16]

    def run(self, seconds: float, kill_every: float | None = None, upto: int | None = None) -> None:
        end = time.monotonic() + seconds
        due = time.monotonic() + (kill_every or seconds)
        while time.monotonic() < end and (upto is None or len(self.handed) < upto):
            time.sleep(0.05)
            if time.monotonic() >= due:
                self.kill_one()
                due += kill_every or seconds

    def end(self) -> None:
        for each in self.running:
            until(Path(f"{self.log}.{each.pid}").exists, 60)
            each.send_signal(signal.SIGTERM)
        for each in self.running:
            assert each.wait(100) == 0, (self.log.parent / "stderr").read_text()
        assert "Traceback" not in (self.log.parent / "stderr").read_text()

    def deliver_the_rest(self) -> Spool:
        """As the next program does that starts."""
        spool = Spool(self.folder, first_wait=0.05, longest_wait=0.5, max_bytes=self.options.get("max_bytes"))
        SpoolingSession(spool).begin(self.receiver.url, timeout=1)
        assert spool.flush(120)
        spool.close()
        return spool


@pytest.fixture
def start(receiver: Receiver, tmp_path: Path) -> Iterator[Callable[..., Apps]]:
    made: list[Apps] = []

    def make(number: int, folder: Path | None = None, **options: Any) -> Apps:
        apps = Apps(receiver, tmp_path, folder or tmp_path / "spool", number, **options)
        made.append(apps)
        return apps

    yield make
    for apps in made:
        for each in apps.running:
            each.kill()
            each.wait()


def report(title: str, apps: Apps, receiver: Receiver, tally: dict[str, int]) -> dict[str, int]:
    handed = apps.handed
    missing = [key for key in handed if not receiver.spans[key]]
    figures = {
        "handed over": len(handed),
        "at the receiver": len(receiver.spans),
        "missing": len(missing),
        "counted as dropped": sum(number for name, number in tally.items() if name.startswith("dropped")),
        "requests posted": receiver.posts,
        "kills": apps.kills,
        "taken twice": sum(number > 1 for number in receiver.spans.values()),
        "taken and acknowledged twice": sum(number > 1 for number in receiver.acknowledged.values()),
    }
    print(f"\n{title}: " + ", ".join(f"{name} {number:,}" for name, number in figures.items()))
    print(f"tally: { {name: number for name, number in tally.items() if number} }")
    assert len(set(handed)) == len(handed)
    return figures


def resent_requests(receiver: Receiver) -> int:
    """How many requests were sent again after an answer of 200 had been written to the client."""
    seen: Counter[bytes] = Counter(request.body for request in receiver.requests if request.body)
    return sum(number - 1 for number in seen.values())


def test_ten_thousand_spans_through_everything(receiver: Receiver, start: Callable[..., Apps]) -> None:
    receiver.stop()
    apps = start(3)
    part = SPANS // 10
    apps.run(30, kill_every=0.7, upto=part)
    receiver.start()
    apps.run(30, kill_every=0.7, upto=2 * part)
    for step, mood in enumerate([Mood(503), Mood(429, {"Retry-After": "1"}), Mood(500), HANG], 3):
        receiver.mood = mood
        apps.run(30, kill_every=0.7, upto=step * part)
        receiver.mood = FINE
        receiver.release()
    cut_after = 0

    def mixed(_: Any) -> Mood:
        nonlocal cut_after
        mood = random.choice(MIXED)
        cut_after += mood is CUT_AFTER
        return mood

    receiver.mood = mixed
    apps.run(30, kill_every=0.7, upto=8 * part)
    receiver.stop()
    apps.run(30, kill_every=0.7, upto=9 * part)
    receiver.start()
    apps.run(60, kill_every=0.7, upto=SPANS)
    receiver.mood = FINE
    apps.end()
    spool = apps.deliver_the_rest()
    figures = report("through everything", apps, receiver, spool._folder.tally.read())
    again = resent_requests(receiver)
    print(f"cut after it was taken {cut_after}, requests taken again {again}")
    assert figures["handed over"] >= SPANS
    assert figures["missing"] == 0
    assert figures["counted as dropped"] == 0
    # Sent again is only what nobody could know of: cut off before the answer, or killed before it was read.
    assert again <= cut_after + apps.kills
    assert figures["taken and acknowledged twice"] <= apps.kills * BATCH
    assert not list(apps.folder.glob("*/*.otlp"))


def test_over_the_bound_what_is_missing_is_counted(receiver: Receiver, start: Callable[..., Apps]) -> None:
    receiver.stop()
    apps = start(2, max_bytes=200_000)
    apps.run(60, kill_every=0.7, upto=SPANS // 4)
    on_disk = sum(path.stat().st_size for path in apps.folder.glob("*/*.otlp"))
    assert on_disk <= 200_000
    receiver.start()
    apps.end()
    spool = apps.deliver_the_rest()
    tally = spool._folder.tally.read()
    figures = report("over the bound", apps, receiver, tally)
    assert figures["missing"] > 0
    # One that was killed may have written down what it had not told yet, and what it was about to drop.
    assert 0 <= tally["dropped.full"] - figures["missing"] <= apps.kills * 2 * BATCH
    assert figures["taken twice"] == 0


def test_without_kills_every_span_is_accounted_for_exactly(receiver: Receiver, start: Callable[..., Apps]) -> None:
    receiver.stop()
    apps = start(2, max_bytes=100_000)
    apps.run(60, upto=SPANS // 10)
    receiver.start()
    apps.end()
    spool = apps.deliver_the_rest()
    tally = spool._folder.tally.read()
    figures = report("over the bound, no kills", apps, receiver, tally)
    assert tally["accepted"] == figures["handed over"] == tally["delivered"] + tally["dropped.full"]
    assert tally["dropped.full"] == figures["missing"] > 0
    assert figures["at the receiver"] == tally["delivered"]


@pytest.fixture(params=["mounted", "seeming"])
def small_disk(request: Any, tmp_path: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """A file system of 256 kB, where one can be mounted; and writes that fail as on one."""
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    if request.param == "seeming":
        yield place / "spool", {"disk": 200_000}
        return
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield place / "spool", {}
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full(
    receiver: Receiver, start: Callable[..., Apps], small_disk: tuple[Path, dict[str, int]]
) -> None:
    receiver.stop()
    folder, options = small_disk
    apps = start(2, folder, **options)
    apps.run(60, upto=SPANS // 4)
    assert "cannot be written to" in (apps.log.parent / "stderr").read_text()
    receiver.start()
    apps.run(20, upto=SPANS // 4 + 500)
    apps.end()
    spool = apps.deliver_the_rest()
    tally = spool._folder.tally.read()
    figures = report("a disk that is full", apps, receiver, tally)
    assert figures["missing"] == tally["dropped.unwritable"] + tally["dropped.full"]
    assert figures["taken twice"] == 0
