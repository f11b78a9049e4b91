"""The tables that people see."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from bounds import Line


def show(figures: dict[str, Any], bounds: list[Line]) -> None:
    """Print everything."""
    console = Console(width=max(140, Console().width))
    for peer in dict.fromkeys(row["peer"] for row in figures["rows"]):
        console.print(_calls(figures, peer))
    if figures["fresh"]:
        console.print(_fresh(figures["fresh"]))
    console.print(_bounds(bounds))
    over = sum(not line.ok for line in bounds)
    console.print(f"{len(bounds) - over} of {len(bounds)} bounds hold. {about(figures)}")


def about(figures: dict[str, Any]) -> str:
    """Where and when."""
    clock = {"wall": "wall time", "cpu": "processor time"}[figures["clock"]]
    return (
        f"Medians of {figures['rounds']} rounds (streams: twice as many), {clock}; "
        f"Python {figures['python']}, {figures['cpus']} processors, {figures['date']}."
    )


def _calls(figures: dict[str, Any], peer: str | None) -> Table:
    versions = ", ".join(f"{name} {value}" for name, value in (figures["versions"].get(peer or "own") or {}).items())
    table = Table(title=f"{peer or 'ours alone'}", caption=versions)
    table.add_column("calls", no_wrap=True)
    others = [] if peer is None else [peer]
    for name in ("bare µs", "floor +µs", *(f"{other} +µs" for other in others), "ours +µs", *others, "ours"):
        table.add_column(name, justify="right")
    for name in (*others, "ours"):
        table.add_column(f"{name}: first chunk, calls/s", justify="right")
    for row in figures["rows"]:
        if row["peer"] != peer:
            continue
        sides = [row["sides"][name] for name in (*others, "ours") if name in row["sides"]]
        table.add_row(
            f"{row['workload']}, {row['way']}{'' if row['sampled'] else ', always_off'}",
            f"{row['bare_us']:.0f}",
            f"{row['sides']['floor']['added_us']:.1f}",
            *(f"{side['added_us']:.1f}" for side in sides),
            *(f"{side['ratio']:.2f} x" for side in sides),
            *(_more(row, side) for side in sides),
        )
    return table


def _more(row: dict[str, Any], side: dict[str, Any]) -> str:
    """What there is beside added time: to the first chunk, or of threads the calls a second; beside the floor's."""
    if row["way"] == "threads":
        return f"{side['throughput']:.2f} x"
    return f"{side['first']:.3f} x" if row["chunks"] else ""


def _fresh(fresh: dict[str, Any]) -> Table:
    table = Table("fresh interpreters", "ms")
    for key, name in (
        ("sdk_import_ms", "import opentelemetry.sdk.trace"),
        ("import_ms", "import tokenbudget_otel, after it"),
        ("instrument_ms", "ours: instrument(), SDKs imported"),
        ("catalog_ms", "ours: reading the price catalog"),
        ("first_call_ms", "ours: first call after it, beyond a later one"),
    ):
        if key in fresh:
            table.add_row(name, f"{fresh[key]:.1f}")
    for name, value in fresh["instrument"].items():
        table.add_row(f"{name}: import and instrument", f"{value:.1f}")
    for name, values in fresh["memory"].items():
        table.add_row(f"{name}: memory of putting it on, kB", f"{values['put_on_kb']:,.0f}")
        table.add_row(f"{name}: memory of 1,000 calls more, kB", f"{values['per_1000_calls_kb']:,.0f}")
    return table


def _bounds(bounds: list[Line]) -> Table:
    table = Table("bound", "measured", "must be", "", title="bounds")
    for line in bounds:
        shown = line.shown()
        value = f"{line.value:.3f}" if "first chunk" in line.name else f"{line.value:.2f}"
        table.add_row(line.name, f"{value} {line.unit}", shown["bound"], "[green]ok" if line.ok else "[red]over")
    return table
