"""Blocks of calls, the sides in turn. What is reported is of one round each: added time is a side's minus the bare
client's of the same round, and ratios are to what the floor added in that round."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from clocks import clock, clock_of_all
from sides import Side
from workloads import Workload


class Block(NamedTuple):
    """Seconds a call; of streams also to the first chunk, and what the floor knows to have spent itself."""

    whole: float
    first: float | None = None
    spent: float | None = None


BLOCK_S = 0.02
"""How long a block of calls of the bare client lasts, about."""

MOST_CALLS = 200
"""Of a block: no garbage is collected during one."""

WARM = 60
"""Calls before a block: as many as it takes until the interpreter has specialised its code for the classes anew."""

WARM_STREAMS = 2
THREADS = 8


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage is collected meanwhile; what there is, before."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def block_sync(side: Side, workload: Workload, calls: int) -> Block:
    once = side.sync(workload)
    for _ in range(WARM_STREAMS if workload.streamed else WARM):
        once(clock())
    firsts, spent = 0.0, side.spent(workload)
    with quiet():
        start = clock()
        if workload.streamed:
            for _ in range(calls):
                firsts += once(clock()) or 0.0
        else:
            for _ in range(calls):
                once(0.0)
        took = clock() - start
    if not workload.streamed:
        return Block(took / calls)
    return Block(took / calls, firsts / calls, (side.spent(workload) - spent) / calls)


def block_async(side: Side, workload: Workload, calls: int, loop: asyncio.AbstractEventLoop) -> Block:
    once = side.asynchronous(workload)

    async def run() -> Block:
        for _ in range(WARM_STREAMS if workload.streamed else WARM):
            await once(clock())
        firsts, spent = 0.0, side.spent(workload)
        with quiet():
            start = clock()
            if workload.streamed:
                for _ in range(calls):
                    firsts += await once(clock()) or 0.0
            else:
                for _ in range(calls):
                    await once(0.0)
            took = clock() - start
        if not workload.streamed:
            return Block(took / calls)
        return Block(took / calls, firsts / calls, (side.spent(workload) - spent) / calls)

    return loop.run_until_complete(run())


def block_threads(side: Side, workload: Workload, calls: int, pool: ThreadPoolExecutor) -> Block:
    """So many calls on each of the threads, which share a client. Seconds a call of the whole."""
    once = side.sync(workload)
    for _ in range(WARM_STREAMS if workload.streamed else WARM):
        once(clock())
    ready = threading.Barrier(THREADS)

    def work() -> None:
        ready.wait()  # a thread each: none takes the work of two
        for _ in range(calls):
            once(clock())

    with quiet():
        start = clock_of_all()
        running = [pool.submit(contextvars.copy_context().run, work) for _ in range(THREADS)]
        for each in running:
            each.result()
        took = clock_of_all() - start
    return Block(took / (calls * THREADS))


class Taken:
    """What one workload took, by side, a value for each round."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.whole: dict[str, list[float]] = {}
        self.first: dict[str, list[float]] = {}
        self.spent: dict[str, list[float]] = {}

    def note(self, side: Side, block: Block) -> None:
        """One block."""
        for taken, value in ((self.whole, block.whole), (self.first, block.first), (self.spent, block.spent)):
            if value is not None:
                taken.setdefault(side.name, []).append(value)


def calls_in_a_block(block: Callable[[Side, int], Block], bare: Side, seconds: float) -> int:
    """How many calls of the bare client fill a block."""
    bare.enter()
    each = min(block(bare, 2).whole for _ in range(5))
    bare.leave()
    return min(MOST_CALLS, max(1, round(seconds / each)))


def in_turn(sides: Sequence[Side], rounds: int, block: Callable[[Side, int], Block], seconds: float = BLOCK_S) -> Taken:
    """Every side once a round, beginning with another each time. The first round is not counted."""
    calls = calls_in_a_block(block, sides[0], seconds)
    taken = Taken(calls)
    for turn in range(rounds + 1):
        first = turn % len(sides)
        for side in (*sides[first:], *sides[:first]):
            for each in sides:
                each.stir()
            side.enter()
            try:
                took = block(side, calls)
                if turn:
                    taken.note(side, took)
            finally:
                side.leave()
    return taken
