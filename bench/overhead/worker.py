"""What runs inside one environment: the sides in alternation. Prints JSON, in the last line.

    python worker.py '{"peer": null, "parts": [...], ...}'

Uses nothing but the standard library and what every peer's environment has.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from typing import Any

import check
from measure import THREADS, block_async, block_sync, block_threads, in_turn
from ours import put_on
from peers import PEERS
from sides import FloorSide, Ours, Side
from telemetry import Telemetry
from toggles import SDKS, Toggle, import_whole, state
from workloads import ALL, Workload

VERSIONS = ("openai", "anthropic", "opentelemetry-sdk", "httpx", "httpx2", "wrapt", "pydantic")


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Of the packages that figures depend on."""
    found = {}
    for name in (*VERSIONS, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class Bench:
    """One process: its sides, and what they took."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.sampled = spec.get("sampled", True)
        self.telemetry = Telemetry(sampled=self.sampled)
        self.loop = asyncio.new_event_loop()
        self.pool = ThreadPoolExecutor(THREADS)
        installed = [sdk for sdk in SDKS if util.find_spec(sdk) is not None]
        self.workloads = [ALL[name] for name in spec["workloads"] if ALL[name].sdk in installed]
        for sdk in installed:
            import_whole(sdk)
        bare = Side("bare")
        for workload in self.workloads:  # what an SDK imports at its first call is imported
            check.made(bare, workload, None, 1)
            check.made(bare, workload, self.loop, 1)
        # Ours first: what is put on later may keep what it finds.
        before = state()
        put_on()
        toggle = Toggle("ours", before, state())
        toggle.switch(False)
        self.sides: list[Side] = [Side("bare"), FloorSide(self.telemetry), Ours(toggle)]
        self.peer = PEERS[spec["peer"]] if spec.get("peer") else None
        self.flush: list[Any] = []
        if self.peer is not None:
            self.workloads = [each for each in self.workloads if each.name in self.peer.workloads]
            before = state()
            self.flush = self.peer.put_on(self.telemetry)
            native = spec["peer"] == "native"
            toggle = Toggle(self.peer.title, before, state(), may_be_empty=native)
            toggle.switch(False)
            self.sides.insert(2, Side(spec["peer"], toggle, native_spans=native))

    def check(self) -> None:
        """Every side, every workload, sync and async."""
        bare, floor, *others, ours = self.sides
        telemetry, flush, wrong = self.telemetry, self.flush, []
        for workload, loop in itertools.product(self.workloads, (None, self.loop)):
            checks = [
                functools.partial(check.silent, bare, workload, telemetry, loop, flush),
                functools.partial(check.floor, floor, workload, telemetry, loop),
                *(functools.partial(check.peer, side, self.peer, workload, telemetry, loop, flush) for side in others),
                functools.partial(check.ours, ours, workload, telemetry, loop, sampled=self.sampled),
            ]
            if workload.streamed and loop is None:
                checks += [functools.partial(check.chunks, side, workload) for side in self.sides]
            for each in checks:
                try:
                    each()
                except check.Wrong as problem:
                    wrong.append(str(problem))
        if wrong:
            raise check.Wrong("\n".join(wrong))

    def measure(self) -> list[dict[str, Any]]:
        """Every workload in every way that was asked for."""
        results = []
        for workload in self.workloads:
            for way in self.spec["ways"]:
                rounds = self.spec["rounds"]
                if way == "sync":
                    taken = in_turn(self.sides, rounds, lambda side, calls, w=workload: block_sync(side, w, calls))
                elif way == "async":
                    taken = in_turn(
                        self.sides, rounds, lambda side, calls, w=workload: block_async(side, w, calls, self.loop)
                    )
                else:
                    taken = in_turn(
                        self.sides, rounds, lambda side, calls, w=workload: block_threads(side, w, calls, self.pool)
                    )
                results.append({"workload": workload.name, "way": way, "whole": taken.whole, "first": taken.first})
        return results


def main(spec: dict[str, Any]) -> None:
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    bench = Bench(spec)
    bench.check()
    gc.collect()
    gc.freeze()
    results = bench.measure()
    print()
    print(json.dumps({"versions": versions(), "results": results, "seconds": time.perf_counter() - began}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
