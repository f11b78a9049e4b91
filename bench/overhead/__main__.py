"""What calls cost with us, beside the bare client, a hand-written floor, and the peers.

    python bench/overhead [--peers official,openinference,...] [--workloads chat,...] [--rounds 40] [--quick]

An environment of each peer is built first (`make .peers/<peer>/.ready`); in each, one process measures the sides in
alternation. Nothing is sent: the provider is a transport in the process. docs/overhead.md says more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def run(python: Path | str, spec: dict[str, Any]) -> dict[str, Any]:
    """What the worker measured in one environment."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        [str(python), str(HERE / "worker.py"), json.dumps(spec)], stdout=subprocess.PIPE, text=True, env=env, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--peers", default="none")
    parser.add_argument("--workloads", default="chat,responses,embeddings,messages,chat-stream,chat-stream-usage,responses-stream,messages-stream")
    parser.add_argument("--ways", default="sync,async,threads")
    options = parser.parse_args()
    spec = {"workloads": options.workloads.split(","), "ways": options.ways.split(","), "rounds": options.rounds}
    found = run(sys.executable, spec)
    print(f"{'':<34}{'bare µs':>9}{'floor +µs':>10}{'ours +µs':>10}{'x floor':>9}")
    for result in found["results"]:
        whole = result["whole"]
        bare, floor, ours = whole["bare"], whole["floor"], whole["ours"]
        fl = statistics.median(f - b for b, f in zip(bare, floor, strict=True))
        ou = statistics.median(f - b for b, f in zip(bare, ours, strict=True))
        name = f"{result['workload']}, {result['way']}"
        print(f"{name:<34}{statistics.median(bare) * 1e6:>9.0f}{fl * 1e6:>10.1f}{ou * 1e6:>10.1f}{ou / fl:>9.2f}")


if __name__ == "__main__":
    main()
