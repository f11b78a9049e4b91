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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from typing import Any

import check
from clocks import CPU
from measure import BLOCK_S, THREADS, Block, block_async, block_sync, block_threads, in_turn
from ours import exhaust, put_on
from peers import PEERS
from refused import RefusedSide, StoppedSide
from sides import FloorSide, Ours, Side
from telemetry import Telemetry
from toggles import SDKS, Toggle, import_whole, state
from workloads import ALL, Workload

VERSIONS = ("openai", "anthropic", "opentelemetry-sdk", "httpx", "httpx2", "wrapt", "pydantic")


THREADED = ("chat", "responses", "embeddings", "messages", "chat-stream-usage")
"""What is called by several threads."""

SETTLING = 800
"""Calls of each side before anything is timed: more spans than are waiting to be exported at any later time."""

STREAM_ROUNDS = 2
"""A stream is a block of its own: as many more rounds make up for what that leaves to chance."""


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
        self.installed = [sdk for sdk in SDKS if util.find_spec(sdk) is not None]
        self.workloads = [ALL[name] for name in spec["workloads"] if ALL[name].sdk in self.installed]
        for sdk in self.installed:
            import_whole(sdk)
        bare = Side("bare")
        for workload in self.workloads:  # what an SDK imports at its first call is imported
            check.made(bare, workload, None, 1)
            check.made(bare, workload, self.loop, 1)
        # Ours first: what is put on later may keep what it finds.
        before = state()
        put_on()
        self.toggle = Toggle("ours", before, state())
        self.toggle.switch(False)
        self.sides: list[Side] = [Side("bare"), FloorSide(self.telemetry), Ours(self.toggle)]
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
                except check.SideError as problem:
                    wrong.append(str(problem))
        if wrong:
            raise check.SideError("\n".join(wrong))

    def settle(self) -> None:
        """Make calls until the process has the memory that it will have: new pages are slow."""
        for side in self.sides:
            side.enter()
            check.made(side, self.workloads[0], None, SETTLING // 10 if self.workloads[0].streamed else SETTLING)
            side.leave()

    def measure(self) -> list[dict[str, Any]]:
        """Every workload in every way that was asked for."""
        return [
            self._taken(self.sides, workload, way, self.spec["rounds"])
            for workload in self.workloads
            for way in self.spec["ways"]
            if way != "threads" or workload.name in THREADED
        ]

    def measure_refused(self) -> list[dict[str, Any]]:
        """Calls that are refused, beside calls that are stopped. Nothing else can be measured afterwards."""
        exhaust()
        sides = [StoppedSide(self.installed), RefusedSide(self.toggle)]
        whole = [workload for workload in self.workloads if not workload.streamed]
        return [
            self._taken(sides, workload, way, self.spec["rounds"])
            for workload in whole
            for way in self.spec["ways"]
            if way != "threads"
        ]

    def _taken(self, sides: Sequence[Side], workload: Workload, way: str, rounds: int) -> dict[str, Any]:
        seconds = BLOCK_S
        if way == "sync":
            block = functools.partial(_swapped, block_sync, workload)
        elif way == "async":
            block = functools.partial(_swapped, block_async, workload, loop=self.loop)
        else:
            block = functools.partial(_swapped, block_threads, workload, pool=self.pool)
            seconds *= 5 / THREADS
        if workload.streamed:
            seconds = 0.0
            rounds *= 1 if way == "threads" else STREAM_ROUNDS
        taken = in_turn(sides, rounds, block, seconds)
        return {
            "workload": workload.name,
            "way": way,
            "chunks": workload.chunks,
            "calls": taken.calls,
            "whole": taken.whole,
            "first": taken.first,
            "floor_spent": taken.spent.get("floor", []),
        }


def _swapped(block: Callable[..., Block], workload: Workload, side: Side, calls: int, **more: Any) -> Block:
    return block(side, workload, calls, *more.values())


def main(spec: dict[str, Any]) -> None:
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    bench = Bench(spec)
    bench.check()
    bench.settle()
    gc.collect()
    gc.freeze()
    found = {
        "peer": spec.get("peer"),
        "sampled": bench.sampled,
        "clock": "cpu" if CPU else "wall",
        "versions": versions(() if bench.peer is None else bench.peer.distributions),
        "results": bench.measure(),
        "refused": bench.measure_refused() if spec.get("refused") else [],
        "seconds": time.perf_counter() - began,
    }
    print()
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
