"""Child processes count for themselves, and memory and threads stay as they are however long it goes on."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from door_sdks import ANTHROPIC, SDKS, Sdk, budget_of, collected

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import bodies, deferred, guard
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

pytestmark = [
    pytest.mark.usefixtures("instrumented"),
    # The simulator runs in a thread of the process that forks; the children use nothing of it but its port.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning", "ignore::ResourceWarning"),
]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def forked(work: Callable[[], Any], timeout: float = 20) -> Any:
    """What ``work`` gives in a forked child; fails where it does not end in time."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer = {"value": work()}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], timeout)
        if not ready:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the child hangs")
        answer = json.loads(os.read(reader, 65_536))
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    assert "error" not in answer, answer
    return answer["value"]


@needs_fork
@pytest.mark.parametrize("sdk", SDKS, ids=str)
def test_a_forked_child_starts_with_totals_of_its_own(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    client = sdk.client(sim)
    sdk.call(client)

    def work() -> list[int]:
        before = tb.usage().calls
        sdk.call(sdk.client(sim))  # a client of its own: connections cannot be shared
        return [before, tb.usage().calls]

    assert forked(work) == [0, 1]
    assert tb.usage().calls == 1, "the parent counts its own"
    assert len(sim.requests) == 2


@needs_fork
@pytest.mark.parametrize("sdk", SDKS, ids=str)
def test_forking_while_a_stream_is_open_charges_it_once(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    sim.default = Behaviour(text="word " * 40, chunks=10, chunk_s=0.01, input_tokens=100, output_tokens=40)
    meter.enforcer.add(tb.Budget(limit_usd=5))
    stream = sdk.call(sdk.client(sim), stream=True)
    next(iter(stream))

    def work() -> list[int]:
        # The parent's stream is the parent's. One of the child's own is dropped, and settled by a worker of its own.
        ring: list[Any] = [sdk.call(sdk.client(sim), stream=True)]
        ring.append(ring)
        del ring
        gc.collect()
        worker = deferred._worker
        deferred.drain()
        return [tb.usage().calls, int(worker is not None and worker.is_alive())]

    assert forked(work) == [1, 1]
    assert meter.totals.get().calls == 0
    for _ in stream:
        pass
    assert meter.totals.get().calls == 1
    assert meter.totals.get().estimated_calls == 0
    row = budget_of(meter)
    assert (row.spent_calls or row.spent_usd > 0) and row.reserved_usd == 0


@needs_fork
def test_forking_while_a_thread_is_inside_the_ledger_does_not_hang_the_child(
    sim: Simulator, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has a copy of the lock, and nobody who would ever give it back."""
    meter.enforcer.add(tb.Budget(limit_usd=5))
    inside, leave = threading.Event(), threading.Event()
    tidy = meter.enforcer.ledger._tidy  # what the ledger does under its lock

    def slow_tidy(now: float) -> None:
        if threading.current_thread() is holder:
            inside.set()
            leave.wait(30)
        tidy(now)

    monkeypatch.setattr(meter.enforcer.ledger, "_tidy", slow_tidy)
    holder = threading.Thread(target=meter.enforcer.status)
    holder.start()
    inside.wait(5)
    try:
        assert forked(lambda: [ANTHROPIC.call(ANTHROPIC.client(sim)).role, tb.usage().calls]) == ["assistant", 1]
    finally:
        leave.set()
        holder.join()


@needs_fork
def test_forking_while_a_thread_is_inside_a_run_does_not_hang_the_child(sim: Simulator, meter: Meter) -> None:
    with tb.budget(max_calls=5) as run, run._lock:  # as a thread that adds to what is spent holds it

        def work() -> int:
            ANTHROPIC.call(ANTHROPIC.client(sim))
            return run.calls

        assert forked(work) == 1


@needs_fork
def test_forking_under_load_does_not_hang(sim: Simulator, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=50))
    client = ANTHROPIC.client(sim)
    stop = threading.Event()

    def worker() -> None:
        while not stop.is_set():
            ANTHROPIC.call(client)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):

            def work() -> int:
                tb.track(provider="openai", model="gpt-4o", usage=tb.TokenUsage(input_tokens=10, output_tokens=1))
                return tb.usage().calls

            assert forked(work, 10) == 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def in_child(url: str, name: str, fresh: bool) -> list[int]:
    """What a child process of multiprocessing does: instrument (if it was started anew), call, count."""
    sdk = next(each for each in SDKS if str(each) == name)
    if fresh:
        tb.instrument(budgets=[tb.Budget(limit_calls=2)])
    before = tb.usage().calls
    client = sdk.classes[0](base_url=url, api_key="any", max_retries=0, http_client=sdk.http[0](verify=False))
    refused = 0
    for _ in range(3):
        try:
            sdk.call(client)
        except tb.BudgetExceeded:
            refused += 1
    return [before, tb.usage().calls, refused]


@pytest.mark.parametrize("method", ("fork", "spawn"))
def test_processes_of_multiprocessing(method: str, sim: Simulator, meter: Meter) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    if method == "fork":
        meter.enforcer.add(tb.Budget(limit_calls=2))
    with multiprocessing.get_context(method).Pool(1) as pool:
        answer = pool.apply_async(in_child, (ANTHROPIC.url(sim), "anthropic", method == "spawn")).get(30)
    assert answer == [0, 2, 1]
    assert meter.totals.get().calls == 0
    assert len(sim.requests) == 2


# --- memory --------------------------------------------------------------------------------------------------------


def tables(meter: Meter) -> dict[str, int]:
    """How large the tables are that live as long as the process."""
    ledger = meter.enforcer.ledger
    return {
        "open holds": len(ledger._open),
        "deadlines beyond the slack": max(0, len(ledger._deadlines) - 256),
        "window ends": len(ledger._window_ends),
        "keys": len(ledger._counters),
        "warnings told": len(meter.enforcer._told),
        "runs": len(meter.enforcer._runs),
        "typical outputs": len(meter._typical),
        "rows of totals": len(meter.totals._rows),
        "body classes": len(bodies._classes),
        "deferred": deferred._queue.qsize(),
        "errors logged": len(guard._logged),
        "threads of ours": sum(thread.name.startswith("tokenbudget-deferred") for thread in threading.enumerate()),
    }


def use(sdk: Sdk, client: Any, rounds: int) -> None:
    for turn in range(rounds):
        with tb.budget(max_calls=10):
            if turn % 3 == 0:
                sdk.call(client)
            elif turn % 3 == 1:
                with sdk.call(client, stream=True) as stream:
                    for _ in stream:
                        pass
            else:
                next(iter(sdk.call(client, stream=True)))  # and dropped


def check_nothing_grows(sdk: Sdk, sim: Simulator, meter: Meter, rounds: int) -> None:
    sim.default = Behaviour(text="word " * 4)
    meter.enforcer.add(tb.Budget(limit_usd=500, window="hour", per="tenant"))
    client = sdk.client(sim)
    use(sdk, client, 30)
    collected()
    meter.enforcer.status()  # which forgets the runs that nobody can use any more
    before = tables(meter)
    use(sdk, client, rounds)
    collected()
    meter.enforcer.status()
    assert tables(meter) == before
    assert len(meter.enforcer.ledger._ended) <= 4096
    assert meter.totals.get().calls == 30 + rounds


def test_nothing_grows(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    check_nothing_grows(sdk, sim, meter, 120)


@pytest.mark.soak
def test_nothing_grows_over_thousands_of_calls(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    check_nothing_grows(sdk, sim, meter, 6_000)
