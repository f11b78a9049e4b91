"""The files of a spool: any sequence of what may happen keeps order, bound and counts."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from export_requests import names_in, request_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tokenbudget_otel.export.entry import Entry
from tokenbudget_otel.export.folder import DAMAGED, REFUSED, WAITING, Folder
from tokenbudget_otel.export.otlp_bytes import halves

MAX_BYTES = 2_500


class Spooling(RuleBasedStateMachine):
    """A folder beside a model of it: the names of the spans that wait, in order, and where all others went."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = Folder(self.root, MAX_BYTES)
        self.place = self.folder.destination("there", {"url": "http://there"})
        self.clock = 0
        self.made = 0
        self.gone = 0

    def spans_waiting(self) -> list[str]:
        return [
            name for entry in self.folder.mended(self.place) for name in names_in(self.folder.read(self.place, entry))
        ]

    @rule(spans=st.integers(1, 8), text=st.integers(0, 60))
    def put(self, spans: int, text: int) -> None:
        body = request_of(spans, first=self.made, text="x" * text)
        self.clock += 1
        self.folder.put(self.place, Entry.of(body, spans, self.clock, os.getpid(), self.clock), body)
        self.made += spans

    @precondition(lambda self: self.folder.waiting(self.place))
    @rule()
    def acknowledge(self) -> None:
        entry = self.folder.waiting(self.place)[0]
        self.folder.delivered(self.place, entry, len(self.folder.read(self.place, entry)))

    @precondition(lambda self: self.folder.waiting(self.place))
    @rule(where=st.sampled_from([REFUSED, DAMAGED]))
    def set_aside(self, where: str) -> None:
        assert self.folder.set_aside(self.place, self.folder.waiting(self.place)[0], where)

    @rule()
    def take_back(self) -> None:
        for place, where, entry, _ in list(self.folder.files()):
            if where == REFUSED:
                assert self.folder.take_back(place, entry)

    @precondition(lambda self: self.folder.waiting(self.place))
    @rule()
    def split(self) -> None:
        entry = self.folder.waiting(self.place)[0]
        body = self.folder.read(self.place, entry)
        if (parts := halves(body)) is not None:
            self.folder.split(self.place, entry, len(body), parts)

    @precondition(lambda self: self.folder.waiting(self.place))
    @rule(written=st.integers(1, 2))
    def killed_while_splitting(self, written: int) -> None:
        """One or both halves are there, and the whole still is."""
        entry = self.folder.waiting(self.place)[0]
        body = self.folder.read(self.place, entry)
        parts = halves(body)
        if parts is None or "." in entry.part:
            return
        before = self.spans_waiting()
        with self.folder.tally.open() as numbers:
            self.folder._add(numbers, sum(len(part) for part, _ in parts), 2)
        for which in range(written):
            Folder._write(self.place / entry.half(which, *parts[which]).name, parts[which][0])
        assert self.spans_waiting() == before

    @rule()
    def killed_while_writing(self) -> None:
        left = self.place / ".01-half.otlp.tmp"
        left.write_bytes(b"half")
        os.utime(left, (time.time() - 3600,) * 2)

    @rule()
    def started_again(self) -> None:
        before = self.spans_waiting()
        counts = self.folder.counts
        self.folder = Folder(self.root, MAX_BYTES)
        self.folder.look()
        self.folder.counts = counts
        assert self.spans_waiting() == before
        assert not list(self.place.glob(".*.tmp"))

    @invariant()
    def in_order(self) -> None:
        numbers = [int(name.split()[1]) for name in self.spans_waiting()]
        assert numbers == sorted(numbers)
        assert len(numbers) == len(set(numbers))

    @invariant()
    def within_the_bound(self) -> None:
        size = sum(size for *_, size in self.folder.files())
        assert size <= MAX_BYTES
        assert size <= self.folder.tally.read()["bytes"]

    @invariant()
    def all_are_accounted_for(self) -> None:
        numbers = self.folder.tally.read()
        on_disk = {WAITING: 0, REFUSED: 0, DAMAGED: 0}
        self.folder.mended(self.place)
        for _, where, entry, _ in self.folder.files():
            on_disk[where] += entry.items
        assert numbers["accepted"] == self.made
        assert self.made == numbers["delivered"] + numbers["dropped.full"] + sum(on_disk.values())
        assert all(numbers[name] == number for name, number in self.folder.counts.items())


TestSpooling = Spooling.TestCase
TestSpooling.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_oldest_give_way(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 1_000)
    place = folder.destination("there", {})
    for number in range(20):
        folder.put(place, Entry.of(bytes(90), 1, number, 1, number), bytes(90))
    assert [entry.time_ns for entry in folder.waiting(place)] == list(range(9, 20))
    assert folder.counts == {"accepted": 20, "dropped.full": 9}


def test_what_cannot_be_delivered_gives_way_first(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 1_000)
    place = folder.destination("there", {})
    for number in range(10):
        folder.put(place, Entry.of(bytes(90), 1, number, 1, number), bytes(90))
    folder.set_aside(place, folder.waiting(place)[5], REFUSED)
    folder.set_aside(place, folder.waiting(place)[5], DAMAGED)
    for number in range(10, 13):
        folder.put(place, Entry.of(bytes(90), 1, number, 1, number), bytes(90))
    assert [entry.time_ns for entry in folder.waiting(place)] == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12]
    assert not [where for _, where, *_ in folder.files() if where]


def test_writing_looks_at_no_other_files(tmp_path: Path, monkeypatch) -> None:
    folder = Folder(tmp_path, 10_000_000)
    place = folder.destination("there", {})
    monkeypatch.setattr(os, "scandir", None)
    monkeypatch.setattr(os, "listdir", None)
    for number in range(10):
        folder.put(place, Entry.of(bytes(90), 1, number, 1, number), bytes(90))


def test_the_numbers_survive_a_lock_that_is_never_let_go(tmp_path: Path) -> None:
    import fcntl

    folder = Folder(tmp_path, 10_000)
    place = folder.destination("there", {})
    with (tmp_path / "tally").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with folder.tally.open(patience=0.01) as numbers:
            numbers["accepted"] += 1
        assert folder.tally.read()["accepted"] == 1
    body = bytes(9)
    folder.put(place, Entry.of(body, 1, 1, 1, 1), body)
    assert folder.tally.read()["accepted"] == 2
