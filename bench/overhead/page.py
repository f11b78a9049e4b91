"""The tables in docs/overhead.md, between their marks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bounds import Line
from peers import PEERS
from report import about
from workloads import ALL

TIMES = "\N{MULTIPLICATION SIGN}"

WAYS = ("sync", "async")


def write(page: Path, figures: dict[str, Any], bounds: list[Line]) -> None:
    """Put the figures in.

    Raises:
        ValueError: if the page has no marks for them.
    """
    text = page.read_text()
    for name, table in (
        ("ours", _ours(figures)),
        ("peers", _peers(figures)),
        ("other", _other(figures)),
        ("bounds", _bounds(bounds)),
        ("versions", _versions(figures)),
    ):
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not mark.search(text):
            raise ValueError(f"{page} has no marks for {name}")
        text = mark.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    page.write_text(text)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(figures: dict[str, Any], peer: str | None, workload: str, way: str) -> dict[str, Any] | None:
    for row in figures["rows"]:
        if (row["peer"], row["workload"], row["way"], row["sampled"]) == (peer, workload, way, True):
            return row
    return None


def _ours(figures: dict[str, Any]) -> str:
    rows = []
    for workload in ALL:
        for way in WAYS:
            row = _row(figures, None, workload, way)
            if row is None:
                continue
            ours = row["sides"]["ours"]
            rows.append(
                [
                    f"{workload}, {way}",
                    f"{row['bare_us']:,.0f} µs",
                    f"{row['sides']['floor']['added_us']:.0f} µs",
                    f"{ours['added_us']:.0f} µs",
                    f"{ours['ratio']:.2f} {TIMES}",
                    f"{ours['added_us'] / row['chunks']:.2f} µs" if row["chunks"] else "",
                    f"{ours['first']:.3f} {TIMES}" if row["chunks"] else "",
                ]
            )
    head = ["call", "bare client", "floor adds", "we add", "of the floor", "a chunk", "first chunk, of bare + floor"]
    return f"{_table(head, rows)}\n\n{about(figures)}"


def _peers(figures: dict[str, Any]) -> str:
    peers = list(dict.fromkeys(row["peer"] for row in figures["rows"] if row["peer"]))
    rows = []
    for workload in ALL:
        for way in WAYS:
            own = _row(figures, None, workload, way)
            cells = ["" if own is None else f"**{own['sides']['ours']['ratio']:.1f}**"]
            for peer in peers:
                row = _row(figures, peer, workload, way)
                cells.append("" if row is None else f"{row['sides'][peer]['ratio']:.1f}")
            if any(cells):
                rows.append([f"{workload}, {way}", *cells])
    return _table(["multiples of the floor", "ours", *(PEERS[peer].title for peer in peers)], rows)


def _other(figures: dict[str, Any]) -> str:
    rows = []
    for row in figures["rows"]:
        ours = row["sides"]["ours"]
        if row["peer"] is None and row["way"] == "threads":
            text = f"{ours['throughput']:.3f} {TIMES} the floor's calls a second"
            rows.append([f"8 threads on one client, {row['workload']}", text])
        elif row["peer"] is None and not row["sampled"]:
            rows.append(
                [
                    f"`always_off`, {row['workload']}",
                    f"{ours['added_us']:.0f} µs, {ours['ratio']:.2f} {TIMES} the floor",
                ]
            )
    rows += [
        [f"a refused call, {row['workload']}, {row['way']}", f"{row['added_us']:.0f} µs"]
        for row in figures["refused"]
        if row["peer"] is None
    ]
    fresh = figures["fresh"] or {}
    for key, name in (
        ("sdk_import_ms", "importing `opentelemetry.sdk.trace`"),
        ("import_ms", "importing us after it"),
        ("instrument_ms", "`instrument()`, the SDKs imported"),
        ("catalog_ms", "reading the price catalog"),
        ("first_call_ms", "the first call after `instrument()`, beyond a later one"),
    ):
        if key in fresh:
            rows.append([name, f"{fresh[key]:.1f} ms"])
    for peer, value in (fresh.get("instrument") or {}).items():
        rows.append([f"importing and instrumenting: {PEERS[peer].title}", f"{value:,.0f} ms"])
    for side, values in (fresh.get("memory") or {}).items():
        name = PEERS[side].title if side in PEERS else side
        text = f"{values['put_on_kb']:,.0f} kB, and {values['per_1000_calls_kb']:,.0f} kB for each 1,000 calls"
        rows.append([f"memory: {name}", text])
    return _table(["", "median"], rows)


def _bounds(bounds: list[Line]) -> str:
    rows = []
    for line in bounds:
        if "ahead of" in line.name and line.ok:
            continue
        shown = line.shown()
        rows.append([line.name, f"{line.value:.3g} {line.unit}", shown["bound"], "ok" if line.ok else "**over**"])
    ahead = [line for line in bounds if "ahead of" in line.name]
    said = f"\n\nAhead of the peers: {sum(line.ok for line in ahead)} of {len(ahead)}, each in its own environment."
    return _table(["bound", "measured", "must be", ""], rows) + (said if ahead else "")


def _versions(figures: dict[str, Any]) -> str:
    return "\n".join(
        f"* {PEERS[name].title if name in PEERS else 'ours'}: "
        + ", ".join(f"{package} {version}" for package, version in versions.items())
        for name, versions in figures["versions"].items()
    )
