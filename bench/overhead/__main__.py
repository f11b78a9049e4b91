"""What a call costs with us, beside the bare client, a floor written by hand, and the peers.

    python bench/overhead [--peers official,openinference] [--workloads chat] [--rounds 40] [--quick]

An environment of each peer is built first (`make .peers/<peer>/.ready`); in each, one process measures the sides in
alternation. Nothing is sent: the provider is a transport inside the process. docs/overhead.md says more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import figures
import page
import picture
import report
from bounds import lines
from peers import PEERS
from workloads import ALL

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

WHOLE = [workload.name for workload in ALL.values() if not workload.streamed]
QUICK_WORKLOADS = ["chat", "responses", "embeddings", "messages", "chat-stream", "chat-stream-usage"]


def environment(clock: str) -> dict[str, str]:
    """Of the processes that measure: this checkout, compiled once, and no room for surprises."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for name in list(env):
        if name.startswith(("OTEL_", "TOKENBUDGET_", "TRACELOOP_", "LANGFUSE_", "LOGFIRE_", "OPENLIT_")):
            del env[name]
    env["PYTHONPATH"] = str(ROOT / "src")
    env["OTEL_BSP_MAX_QUEUE_SIZE"] = str(1 << 17)
    env["OVERHEAD_CLOCK"] = clock
    return env


def run(python: str, program: str, *args: str, clock: str) -> dict[str, Any]:
    """What a process measured: the last line that it printed."""
    command = [python, str(HERE / program), *args]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(clock), check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def python_of(peer: str) -> str:
    """The interpreter of a peer's environment, which is built if it is not there."""
    name = PEERS[peer].environment
    subprocess.run(["make", "--silent", f".peers/{name}/.ready"], cwd=ROOT, check=True, stdout=sys.stderr)
    return str(ROOT / ".peers" / name / "bin" / "python")


def fresh(peers: dict[str, str], times: int, calls: int, clock: str) -> dict[str, Any]:
    """Of fresh interpreters, taken in turn."""
    programs = {
        "import": (sys.executable, ("import",)),
        "instrument ours": (sys.executable, ("instrument", "ours")),
        "catalog": (sys.executable, ("catalog",)),
        "first": (sys.executable, ("first", "0.5")),
        **{f"instrument {peer}": (python, ("instrument", peer)) for peer, python in peers.items() if peer != "native"},
    }
    memory = {
        f"memory {side}": (peers.get(side, sys.executable), ("memory", side, str(calls)))
        for side in (("bare", "floor", "ours", *peers) if calls else ())
    }
    taken: dict[str, list[dict[str, float]]] = {}
    for turn in range(times):
        for name, (python, args) in {**programs, **(memory if turn < 3 else {})}.items():
            taken.setdefault(name, []).append(run(python, "fresh.py", *args, clock=clock))
    return figures.fresh_of(taken)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    ways = ["sync", "async", "threads"]
    workloads = options.workloads.split(",")
    whole = [name for name in workloads if name in WHOLE]
    peers = {peer: python_of(peer) for peer in options.peers.split(",") if peer != "none"}
    spec = {"workloads": workloads, "ways": ways, "rounds": options.rounds, "refused": True}
    specs = [(sys.executable, spec)]
    if whole:
        unsampled = {**spec, "workloads": whole, "ways": ["sync"], "sampled": False, "refused": False}
        specs.append((sys.executable, unsampled))
    specs += [(python, {**spec, "peer": peer, "refused": False}) for peer, python in peers.items()]
    runs = []
    for python, each in specs:
        who = each.get("peer") or ("ours, nothing sampled" if not each.get("sampled", True) else "ours")
        began = time.monotonic()
        runs.append(run(python, "worker.py", json.dumps(each), clock=options.clock))
        print(f"{who}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "clock": options.clock,
        "rounds": options.rounds,
        "versions": {each["peer"] or "own": each["versions"] for each in runs},
        "rows": [row for each in runs for row in figures.rows_of(each)],
        "refused": [row for each in runs for row in figures.refused_of(each)],
        "fresh": fresh(peers, options.interpreters, options.memory, options.clock) if options.interpreters else {},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--peers", default=",".join(PEERS), help="by comma; none for ours alone")
    parser.add_argument("--workloads", default=",".join(ALL), help="by comma")
    parser.add_argument("--interpreters", type=int, default=9, help="fresh ones for each figure of theirs")
    parser.add_argument("--memory", type=int, default=2000, help="calls after which memory is looked at; 0 for none")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu where others use the machine too")
    parser.add_argument("--quick", action="store_true", help="ours alone, few rounds: a minute")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there")
    parser.add_argument("--from-json", type=Path, metavar="PATH", help="measure nothing: show what was written there")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="draw it there")
    parser.add_argument("--page", type=Path, metavar="PATH", help="put the tables into this page")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.peers, options.interpreters, options.memory = 6, "none", 3, 0
        options.workloads = ",".join(QUICK_WORKLOADS)
    found = json.loads(options.from_json.read_text()) if options.from_json else measured(options)
    bounds = lines(found)
    report.show(found, bounds)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**found, "bounds": [line.shown() for line in bounds]}, indent=1, ensure_ascii=False)
        options.json.write_text(f"{text}\n")
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        options.picture.write_text(picture.draw(found, report.about(found)))
    if options.page:
        page.write(options.page, found, bounds)


if __name__ == "__main__":
    main()
