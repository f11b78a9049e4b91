"""What is to hold of us, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WHOLE_RATIO = 1.5
STREAM_RATIO = 2.5
CHUNK_US = 2.0
FIRST_CHUNK = 1.01
REFUSED_US = 50.0
UNSAMPLED_RATIO = 0.5
THROUGHPUT = 0.97
IMPORT_MS = 60.0
INSTRUMENT_MS = 100.0
CATALOG_MS = 50.0
FIRST_CALL_MS = 5.0
"""The first call after `instrument()` beyond what a later one takes: no catalog is read in that time."""


@dataclass(frozen=True)
class Line:
    """One of them. ``at_least`` says in which direction."""

    name: str
    value: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def ok(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        sign = "≥" if self.at_least else "≤"
        return {
            "line": self.name,
            "value": self.value,
            "bound": f"{sign} {self.bound:g} {self.unit}".strip(),
            "unit": self.unit,
            "ok": self.ok,
        }


def lines(figures: dict[str, Any]) -> list[Line]:
    """Every bound that was measured, of our own environment; beside peers, of theirs."""
    own = [row for row in figures["rows"] if row["peer"] is None]
    return [*_of_calls(own), *_of_peers(figures["rows"]), *_of_others(figures)]


def _of_calls(rows: list[dict[str, Any]]) -> list[Line]:
    found = []
    for row in rows:
        name, ours = f"{row['workload']}, {row['way']}", row["sides"].get("ours")
        if ours is None:
            continue
        if not row["sampled"]:
            found.append(Line(f"{name}, always_off", ours["ratio"], UNSAMPLED_RATIO, "x floor"))
        elif row["way"] == "threads":
            found.append(Line(f"{name}: throughput", ours["throughput"], THROUGHPUT, "x floor", at_least=True))
        elif not row["chunks"]:
            found.append(Line(name, ours["ratio"], WHOLE_RATIO, "x floor"))
        else:
            found.append(Line(name, ours["ratio"], STREAM_RATIO, "x floor"))
            found.append(Line(f"{name}: a chunk", ours["added_us"] / row["chunks"], CHUNK_US, "µs"))
            found.append(Line(f"{name}: first chunk", ours["first"], FIRST_CHUNK, "x bare + floor"))
    return found


def _of_peers(rows: list[dict[str, Any]]) -> list[Line]:
    """Ahead of each with calls that are not streamed, in its own environment, in the same run."""
    found = []
    for row in rows:
        peer = row["sides"].get(row["peer"])
        if peer is None or row["way"] == "threads" or row["chunks"]:
            continue
        name = f"{row['workload']}, {row['way']}: ahead of {row['peer']}"
        found.append(Line(name, row["sides"]["ours"]["added_us"], peer["added_us"], "µs"))
    return found


def _of_others(figures: dict[str, Any]) -> list[Line]:
    found = [
        Line(f"{row['workload']}, {row['way']}: refused", row["added_us"], REFUSED_US, "µs")
        for row in figures["refused"]
        if row["peer"] is None
    ]
    fresh = figures.get("fresh") or {}
    for key, name, bound in (
        ("import_ms", "import, over the OpenTelemetry SDK", IMPORT_MS),
        ("instrument_ms", "instrument()", INSTRUMENT_MS),
        ("catalog_ms", "reading the price catalog", CATALOG_MS),
        ("first_call_ms", "first call after instrument(), beyond a later one", FIRST_CALL_MS),
    ):
        if key in fresh:
            found.append(Line(name, fresh[key], bound, "ms"))
    return found
