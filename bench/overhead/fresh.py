"""What only a fresh interpreter can tell: the time to import and instrument, the first call, and memory.

Prints JSON, in the last line.

    python fresh.py import | instrument SIDE | catalog | first PAUSE | memory SIDE CALLS

A side is ``bare``, ``floor``, ``ours`` or a peer.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

clock = time.perf_counter

SDKS = ("openai", "anthropic")


def timed(work: Callable[[], object]) -> float:
    start = clock()
    work()
    return clock() - start


def import_times() -> dict[str, float]:
    """The OpenTelemetry SDK, and us after it."""
    return {
        "sdk": timed(lambda: importlib.import_module("opentelemetry.sdk.trace")),
        "ours": timed(lambda: importlib.import_module("tokenbudget_otel")),
    }


def import_sdks() -> list[str]:
    """Those that are installed."""
    found = [sdk for sdk in SDKS if importlib.util.find_spec(sdk) is not None]
    for sdk in found:
        importlib.import_module(sdk)
    return found


def instrument_time(side: str) -> dict[str, float]:
    """The SDKs and OpenTelemetry's are imported and set up; so are we, whose import is measured apart."""
    import_sdks()
    from telemetry import Telemetry

    telemetry = Telemetry()
    if side == "ours":
        import tokenbudget_otel as tb
        from ours import budgets

        return {"seconds": timed(lambda: tb.instrument(budgets=budgets()))}
    from peers import PEERS

    return {"seconds": timed(lambda: PEERS[side].put_on(telemetry))}


def catalog_time() -> dict[str, float]:
    """Reading the price catalog."""
    from tokenbudget_otel.pricing import catalog

    return {"seconds": timed(catalog.load)}


def first_call(pause: float) -> dict[str, float]:
    """The first call after `instrument()`, at once or a little later, and the calls after it."""
    import tokenbudget_otel as tb

    import_sdks()
    from ours import budgets
    from telemetry import Telemetry
    from workloads import ALL, Clients

    Telemetry()
    once = ALL["chat"].sync(Clients().of("openai", is_async=False))
    for _ in range(20):
        once(0.0)
    tb.instrument(budgets=budgets())
    time.sleep(pause)
    gc.collect()
    gc.freeze()  # whether the collector happens to come by just then says nothing
    first = timed(lambda: once(0.0))
    return {"first": first, "later": min(timed(lambda: once(0.0)) for _ in range(20))}


def resident() -> float:
    """kB."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(side: str, calls: int) -> dict[str, float]:
    """What putting a side on takes, and what its calls leave behind."""
    import_sdks()
    from telemetry import Telemetry

    telemetry = Telemetry()
    from floor import Floor
    from peers import PEERS
    from workloads import ALL, Clients

    gc.collect()
    before = resident()
    native = False
    flush: list[Any] = [telemetry.processor]
    if side == "ours":
        from ours import TAGS, put_on

        put_on()
        import tokenbudget_otel as tb

        tb.tags(**TAGS).__enter__()
        native = True
    elif side in PEERS:
        flush += PEERS[side].put_on(telemetry)
        native = side == "native"
    gc.collect()
    after = resident()
    workload = ALL["messages" if native and side != "ours" else "chat"]
    once = workload.sync(Clients(spans=native).of(workload.sdk, is_async=False))
    if side == "floor":
        once = Floor(workload, telemetry).around(once)

    def settled(count: int) -> float:
        for _ in range(count):
            once(clock())
        for processor in flush:
            processor.force_flush()
        gc.collect()
        return resident()

    start = settled(2 * calls)
    end = settled(calls)
    return {"put_on_kb": after - before, "per_1000_calls_kb": (end - start) / calls * 1000}


def main(what: str, *args: str) -> None:
    logging.disable(logging.ERROR)
    found: dict[str, Any]
    if what == "import":
        found = import_times()
    elif what == "instrument":
        found = instrument_time(args[0])
    elif what == "catalog":
        found = catalog_time()
    elif what == "first":
        found = first_call(float(args[0]))
    else:
        found = memory(args[0], int(args[1]))
    print()
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
