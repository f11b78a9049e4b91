"""From what was taken in each round to what is reported: medians over rounds."""

from __future__ import annotations

from statistics import median
from typing import Any


def rows_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each workload and way of one run, microseconds and ratios in it."""
    return [_row(run, result) for result in run["results"]]


def refused_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """What a refused call takes beyond a call that is stopped."""
    rows = []
    for result in run["refused"]:
        whole = result["whole"]
        added = _differences(whole["refused"], whole["stopped"])
        rows.append(
            {
                "peer": run["peer"],
                "workload": result["workload"],
                "way": result["way"],
                "stopped_us": _us(median(whole["stopped"])),
                "added_us": _us(median(added)),
            }
        )
    return rows


def _row(run: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    whole, first = result["whole"], result["first"]
    bare = whole["bare"]
    # Of a stream, what the floor says of itself: it is lost in the difference of two streams.
    floor = result["floor_spent"] or _differences(whole["floor"], bare)
    sides = {}
    for name, values in whole.items():
        if name == "bare":
            continue
        added = floor if name == "floor" else _differences(values, bare)
        ratios = [each / base for each, base in zip(added, floor, strict=True) if base > 0]
        sides[name] = {
            "us": _us(median(values)),
            "added_us": _us(median(added)),
            "ratio": median(ratios) if ratios else float("nan"),
            "throughput": median(base / each for base, each in zip(whole["floor"], values, strict=True)),
        }
        if name in first:
            pairs = zip(first[name], first["floor"], strict=True)
            sides[name]["first"] = median(each / base for each, base in pairs)
            sides[name]["first_us"] = _us(median(first[name]))
    return {
        "peer": run["peer"],
        "sampled": run["sampled"],
        "workload": result["workload"],
        "way": result["way"],
        "chunks": result["chunks"],
        "rounds": len(bare),
        "calls_a_block": result["calls"],
        "bare_us": _us(median(bare)),
        "bare_first_us": _us(median(first["bare"])) if "bare" in first else None,
        "sides": sides,
    }


def _differences(values: list[float], base: list[float]) -> list[float]:
    return [each - other for each, other in zip(values, base, strict=True)]


def _us(seconds: float) -> float:
    return seconds * 1e6


def fresh_of(taken: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Of fresh interpreters, milliseconds and kilobytes."""
    medians = {
        name: {key: median(each[key] for each in values) for key in values[0]}
        for name, values in taken.items()
        if values
    }
    found: dict[str, Any] = {"instrument": {}, "memory": {}}
    for name, values in medians.items():
        what, _, side = name.partition(" ")
        if what == "import":
            found["sdk_import_ms"], found["import_ms"] = values["sdk"] * 1e3, values["ours"] * 1e3
        elif what == "catalog":
            found["catalog_ms"] = values["seconds"] * 1e3
        elif what == "first":
            found["first_call_ms"] = (values["first"] - values["later"]) * 1e3
        elif what == "instrument" and side == "ours":
            found["instrument_ms"] = values["seconds"] * 1e3
        elif what == "instrument":
            found["instrument"][side] = values["seconds"] * 1e3
        else:
            found["memory"][side] = values
    return found
