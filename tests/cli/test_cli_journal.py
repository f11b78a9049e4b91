"""The files in which processes tell what they used."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

from tokenbudget_otel.cli import journal as module
from tokenbudget_otel.cli.journal import Journal, Tally, total
from tokenbudget_otel.usage import TokenUsage


def add(journal: Journal, **more: bool) -> None:
    usage = TokenUsage(input_tokens=10, output_tokens=2, input_audio_seconds=Decimal("1.5"))
    journal.add("openai", "gpt-5", "chat", {"tenant": "acme"}, usage, 5, **more)


def read(folder: Path) -> Tally:
    tally = Tally()
    tally.read_folder(folder)
    return tally


def test_calls_add_up_over_processes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    add(journal)
    add(journal, estimated=True)
    journal.refuse("openai", "gpt-5", "chat", {})
    journal.refusal("no")
    if (pid := os.fork()) == 0:
        add(journal)
        journal.refusal("no")
        os._exit(0)
    os.waitpid(pid, 0)
    tally = read(tmp_path)
    assert (tally.processes, tally.refusals) == (2, ["no"])
    everything = total(tally.rows())
    assert (everything.calls, everything.estimated_calls, everything.refused_calls, everything.nano_usd) == (
        3,
        1,
        1,
        15,
    )
    assert everything.usage == TokenUsage(input_tokens=30, output_tokens=6, input_audio_seconds=Decimal("4.5"))
    # What the process itself sees is its own.
    assert journal.get().calls == 2


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    add(Journal(tmp_path))
    (file,) = tmp_path.glob("*.calls")
    with file.open("ab") as lines:
        lines.write(file.read_bytes()[:40])
    assert total(read(tmp_path).rows()).calls == 1


def test_a_long_file_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPACT_AT", 2_000)
    journal = Journal(tmp_path)
    journal.refusal("no")
    for _ in range(100):
        add(journal)
    (file,) = tmp_path.glob("*.calls")
    assert file.stat().st_size < 3_000
    tally = read(tmp_path)
    assert (total(tally.rows()).calls, total(tally.rows()).nano_usd, tally.refusals) == (100, 500, ["no"])


def test_when_the_run_has_ended_nothing_is_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "gone")
    add(journal)
    assert journal.get().calls == 1
