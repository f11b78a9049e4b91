"""A program that calls for days holds no more than one that has called for an hour.

Each path is called 100,000 times in a process of its own: real SDKs, real HTTP on loopback. After the first 20,000
calls everything that has a bound is full. From then on resident memory grows by less than 2 MB, and no threads, no
tasks, no entries in any table of ours and no objects of ours come to be more.

``make soak`` makes fewer calls on the paths where an SDK takes a millisecond or more for each; ``make soak-memory``
makes them all. ``SOAK_CALLS`` sets the number for all paths. There are two files of tests, for two processors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from paths import AT_ONCE, PATHS

LIMIT: Final = 2_000_000
"""Bytes that resident memory may grow by after the warm-up."""

SLACK: Final = 2 * (64 + 2 * AT_ONCE)
"""Entries that a table may have more at one look than at another: deadlines of holds that have ended since, of two
fields each, are swept out when there are so many (:class:`~tokenbudget_otel.budgets.ledgers.memory.MemoryLedger`)."""

ALL: Final = (100_000, 20_000)
"""Calls, and how many of them are the warm-up."""

SOME: Final[dict[str, tuple[int, int]]] = {
    **dict.fromkeys(PATHS, (12_000, 8_000)),
    "openai_tags": (16_000, 12_000),  # there is room for the totals of 10,000 combinations
    "refused": (40_000, 20_000),
    **dict.fromkeys((name for name in PATHS if name.startswith("foreign_") or name == "empty_scopes"), ALL),
}
"""The same where ``SOAK_CALLS`` says nothing: all where a call takes a fraction of a millisecond, otherwise enough to
fill what has a bound, and some more."""


def calls_of(name: str) -> tuple[int, int]:
    said = os.environ.get("SOAK_CALLS")
    if said is None:
        return SOME[name]
    return int(said), max(int(said) // 5, SOME[name][1] if int(said) > SOME[name][1] else 0)


def run(name: str, port: int, *options: str, times: int = 1) -> dict[str, Any]:
    """The report of one path in a process of its own; with so many times the calls after the warm-up."""
    calls, warm_up = calls_of(name)
    calls = warm_up + times * (calls - warm_up)
    # One arena: with several, how much of them is free depends on which thread asked for memory.
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("program.py")),
            name,
            str(port),
            str(calls),
            str(warm_up),
            *options,
        ],
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    report["grown"] = report["resident"][-1] - report["resident"][0]
    return report


COUNTED: Final[dict[str, Callable[[int], dict[str, int]]]] = {
    "refused": lambda calls: {"calls": 20, "refused": calls, "estimated": 0},
    "empty_scopes": lambda calls: {"calls": 0, "refused": 0, "estimated": 0},
    "openai_stream_closed_early": lambda calls: {"calls": calls, "refused": 0, "estimated": calls},
    "openai_stream_dropped": lambda calls: {"calls": calls, "refused": 0, "estimated": calls},
    "foreign_spans_out_of_order": lambda calls: {"calls": 2 * calls, "refused": 0, "estimated": 0},
}
"""What the meter has counted, where that is not each call once."""


def check(name: str, port: int, record_property: Callable[[str, object], None]) -> None:
    """Nothing is left behind by the calls of one path."""
    report = run(name, port)
    if report["grown"] >= LIMIT:  # a step of the allocator, or does it go on? What grows does so twice as much.
        report = run(name, port, times=2)
    if report["grown"] >= LIMIT:  # is it ours? The same calls, without us.
        report["bare"] = run(name, port, "bare")["grown"]
    record_property("memory", report)

    counted = COUNTED.get(name, lambda calls: {"calls": calls, "refused": 0, "estimated": 0})
    assert report["counted"] == counted(report["calls"])
    assert report["threads"][-1] <= report["threads"][0]
    assert report["tasks"] == [0] * len(report["tasks"])
    for kind in ("tables", "instances"):
        grown = {name: looks for name, looks in report[kind].items() if looks[-1] - looks[0] > SLACK}
        assert not grown, f"{kind} of ours go on growing"
    assert report["grown"] - max(0, report.get("bare", 0)) < LIMIT, report["resident"]
