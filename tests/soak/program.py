"""One path, called very often in one process: what the process holds after a warm-up, and at the end.

Run by soaking.py: ``python program.py PATH PORT CALLS WARM_UP [bare]``. The last line of its output is a report in
JSON. ``bare`` runs the same calls without our instrumentation, for comparison.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from paths import PATHS, Stand
from tables import instances, tables

STEPS: Final = 4
"""So often is looked after the warm-up."""

SETTLE_S: Final = 0.3
"""Threads that do something later have this long to have done it."""

LOOK_S: Final = 60.0
TRIES: Final = 3


def resident() -> int:
    """Bytes of this process that are in memory, free ones given back. glibc keeps freed memory in its arenas: without
    ``malloc_trim`` the figure is the most that was ever needed, not what is held."""
    for _ in range(3):
        gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Snapshot:
    """What the process holds now.

    Looking through everything takes tens of megabytes, and leaves the memory in pieces: what is measured then would be
    the looking. A forked child does it, and leaves what it found in a file that is read at the end.
    """

    def __init__(self, stand: Stand) -> None:
        stand.settle()
        time.sleep(SETTLE_S)
        self.resident = resident()
        self.blocks = sys.getallocatedblocks()
        self.threads = threading.active_count()
        self.tasks = len(asyncio.all_tasks(stand.loop)) if stand.loop is not None else 0
        descriptor, path = tempfile.mkstemp(prefix="soak-")
        os.close(descriptor)
        self._told = Path(path)
        if not any(_looked(self._told) for _ in range(TRIES)):
            raise RuntimeError("nobody could look through the tables")

    def told(self) -> tuple[Counter[str], Counter[str]]:
        """Entries of our tables and objects of our classes, then."""
        found = json.loads(self._told.read_text())
        self._told.unlink()
        return Counter(found[0]), Counter(found[1])


def _looked(told: Path) -> bool:
    """Whether a child has looked through everything.

    It is not made by ``os.fork``, which would have our objects renew themselves there, and the interpreter its locks:
    if another thread was about to run just then, the child waits for it for ever, and the next one tries.
    """
    if not (child := ctypes.PyDLL(None).fork()):
        done = 1
        try:
            told.write_text(json.dumps([tables(), instances()]))
            done = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(done)
    end = time.monotonic() + LOOK_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.05)


def grown(looks: Sequence[Counter[str]]) -> dict[str, list[int]]:
    """Those that have more entries at the last look than at the first, with what they had at each."""
    return {name: [look[name] for look in looks] for name, count in sorted(looks[-1].items()) if count > looks[0][name]}


def main(name: str, port: str, calls: str, warm_up: str, *bare: str) -> None:
    logging.disable(logging.CRITICAL)
    stand = Stand(int(port), instrumented=not bare)
    run = PATHS[name](stand)
    total, warm = int(calls), int(warm_up)
    run(0, min(50, warm))
    gc.collect()
    gc.freeze()  # the SDKs' own modules and classes need not be gone through at each collection
    started = time.perf_counter()
    run(min(50, warm), warm)
    Snapshot(stand)  # what looking needs for the first time does not count
    looks = [Snapshot(stand)]
    for step in range(STEPS):
        run(warm + (total - warm) * step // STEPS, warm + (total - warm) * (step + 1) // STEPS)
        looks.append(Snapshot(stand))
    told = [look.told() for look in looks]
    report = {
        "path": name,
        "calls": total,
        "warm_up": warm,
        "seconds": round(time.perf_counter() - started, 1),
        "resident": [look.resident for look in looks],
        "blocks": [look.blocks for look in looks],
        "threads": [look.threads for look in looks],
        "tasks": [look.tasks for look in looks],
        "tables": grown([tables for tables, _ in told]),
        "instances": grown([instances for _, instances in told]),
        "seen_tables": len(told[-1][0]),
        "entries": sum(told[-1][0].values()),
        "counted": stand.counted(),
    }
    print(json.dumps(report), flush=True)
    stand.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
