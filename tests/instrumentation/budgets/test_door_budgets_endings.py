"""How a reservation ends: given back where the call was surely not billed, else settled on the best evidence."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from door_sdks import Sdk, budget_of, collected, each, read_out, settled, until

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.money import to_nano, to_usd
from tokenbudget_otel.simulator import Behaviour, Simulator

pytestmark = pytest.mark.usefixtures("instrumented")

SLOW = Behaviour(text="word " * 160, input_tokens=1000, output_tokens=400, chunks=40, chunk_s=0.02)


@pytest.fixture(autouse=True)
def _budget(meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(limit_usd=10, limit_tokens=10_000_000, limit_calls=1000, mode="worst_case"))


def assert_released(meter: Meter) -> None:
    row = budget_of(meter)
    assert (row.spent_usd, row.spent_tokens, row.spent_calls) == (0, 0, 0)
    assert (row.reserved_usd, row.reserved_tokens, row.reserved_calls) == (0, 0, 0)
    assert meter.totals.get().calls == 0
    assert not meter.enforcer.ledger.holds()


def assert_settled_on_evidence(meter: Meter) -> None:
    row = budget_of(meter)
    assert (row.reserved_usd, row.reserved_tokens, row.reserved_calls) == (0, 0, 0)
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls, row.spent_calls) == (1, 1, 1)
    assert row.spent_tokens == totals.usage.total_tokens > 0
    assert to_nano(row.spent_usd) == totals.nano_usd > 0
    assert not meter.enforcer.ledger.holds()


@pytest.mark.parametrize("status", (400, 401, 403, 404, 413, 422, 429))
async def test_what_the_provider_turned_down_is_given_back(
    status: int, sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter
) -> None:
    sim.default = Behaviour(status=status)
    with pytest.raises(sdk.status_error):
        await settled(sdk.call(sdk.client(sim, asynchronous)))
    assert_released(meter)


@pytest.mark.parametrize("status", (500, 503, 529))
async def test_what_may_have_been_worked_on_is_charged(
    status: int, sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter
) -> None:
    sim.default = Behaviour(status=status)
    with pytest.raises(sdk.status_error):
        await settled(sdk.call(sdk.client(sim, asynchronous)))
    assert_settled_on_evidence(meter)


async def test_a_refused_connection_is_given_back(sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter) -> None:
    with socket.socket() as closed:  # bound, not listening: nobody else gets the port meanwhile
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        tb.map_host(url, sdk.name)  # so that its models have prices
        client = sdk.client(sim, asynchronous, base_url=url)
        with pytest.raises(Exception, match=r"[Cc]onnection"):
            await settled(sdk.call(client))
    assert_released(meter)


async def test_an_argument_that_the_sdk_will_not_send_is_given_back(
    sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter
) -> None:
    with pytest.raises(TypeError):
        await settled(sdk.call(sdk.client(sim, asynchronous), messages=[{"role": "user", "content": object()}]))
    assert sim.requests == []
    assert_released(meter)


@pytest.mark.parametrize("fault", ({"timeout": True}, {"drop": True}), ids=("timeout", "dropped_connection"))
async def test_what_was_sent_and_never_answered_is_charged(
    fault: Any, sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter
) -> None:
    sim.default = Behaviour(**fault)
    with pytest.raises(Exception):  # noqa: B017 - each SDK has names of its own for these
        await settled(sdk.call(sdk.client(sim, asynchronous, timeout=0.3)))
    assert_settled_on_evidence(meter)


async def test_a_cancelled_call_is_charged(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    sim.default = Behaviour(timeout=True)
    task = asyncio.ensure_future(sdk.call(sdk.client(sim, True)))
    await until(lambda: bool(sim.requests))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_settled_on_evidence(meter)


@pytest.mark.parametrize("status", (429, 500))
async def test_retries_are_one_call_with_one_reservation(
    status: int, sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter
) -> None:
    sim.default = Behaviour(status=status, fail_times=2, retry_after_s=0.01)
    await settled(sdk.call(sdk.client(sim, asynchronous, max_retries=3)))
    assert len(sim.requests) == 3
    row = budget_of(meter)
    assert (row.spent_calls, row.reserved_usd) == (1, 0)
    assert row.spent_usd == to_usd(sdk.true_cost(sim.billed[0]))
    assert meter.totals.get().estimated_calls == 0


# --- streams --------------------------------------------------------------------------------------------------------


async def some(stream: Any, count: int = 4) -> Any:
    iterator = each(stream)
    for _ in range(count):
        await anext(iterator)
    return iterator


async def close(stream: Any) -> None:
    await some(stream)
    await settled(stream.close())


async def leave_with(stream: Any) -> None:
    if hasattr(stream, "__aenter__"):
        async with stream:
            await some(stream)
    else:
        with stream:
            await some(stream)


async def drop(stream: Any) -> None:
    await some(stream)


async def drop_unread(stream: Any) -> None:
    pass


async def drop_in_cycle(stream: Any) -> None:
    await some(stream)
    ring = [stream]
    ring.append(ring)


WAYS: dict[str, Callable[[Any], Awaitable[None]]] = {
    way.__name__: way for way in (close, leave_with, drop, drop_unread, drop_in_cycle)
}


# The SDK leaves the connection of a dropped async stream to the collector, which complains about it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_stream_left_early_frees_its_reservation(
    way: Callable[[Any], Awaitable[None]], sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter
) -> None:
    sim.default = SLOW
    client = sdk.client(sim, asynchronous)
    stream = await settled(sdk.call(client, stream=True))
    assert budget_of(meter).reserved_usd > 0
    await way(stream)
    del stream
    async with asyncio.timeout(5):
        while budget_of(meter).reserved_usd:
            collected()
            await asyncio.sleep(0.001)
    assert_settled_on_evidence(meter)
    assert budget_of(meter).spent_tokens < 1400, "what came, not what would have come"


FAULTS = {
    "cut": {"cut_after": 3},
    "silent_end": {"silent_end_after": 3},
    "error_event": {"error_event_after": 3},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_stream_that_the_provider_breaks_frees_its_reservation(
    fault: Any, sdk: Sdk, asynchronous: bool, sim: Simulator, meter: Meter
) -> None:
    sim.default = Behaviour(text="word " * 80, chunks=20, **fault)
    stream = await settled(sdk.call(sdk.client(sim, asynchronous), stream=True))
    try:
        await read_out(stream)
    except Exception:
        pass  # what the program sees of it is a subject of other tests
    assert_settled_on_evidence(meter)


async def test_a_cancelled_reader_frees_the_reservation(sdk: Sdk, sim: Simulator, meter: Meter) -> None:
    sim.default = SLOW
    under_way = asyncio.Event()

    async def reader() -> None:
        async for _ in await sdk.call(sdk.client(sim, True), stream=True):
            under_way.set()

    task = asyncio.create_task(reader())
    await under_way.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_settled_on_evidence(meter)


# --- the collector may run anywhere ----------------------------------------------------------------------------------


def test_streams_collected_under_load_do_not_deadlock_and_nothing_is_lost(
    sdk: Sdk, sim: Simulator, meter: Meter
) -> None:
    """With so small a threshold the collector runs inside locks of ours and of the OpenTelemetry SDK."""
    sim.default = Behaviour(text="word " * 8, input_tokens=10, output_tokens=8)
    client = sdk.client(sim)
    failed: list[BaseException] = []

    def worker(place: int) -> None:
        try:
            for turn in range(12):
                if (place + turn) % 2:
                    sdk.call(client)
                else:
                    ring: list[Any] = [sdk.call(client, stream=True)]
                    ring.append(ring)
        except BaseException as error:
            failed.append(error)

    before = gc.get_threshold()
    gc.set_threshold(20, 2, 2)
    threads = [threading.Thread(target=worker, args=(place,), daemon=True) for place in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "deadlock"
    finally:
        gc.set_threshold(*before)
    assert not failed
    collected()
    collected()
    row = budget_of(meter)
    assert (row.reserved_usd, row.reserved_tokens, row.reserved_calls) == (0, 0, 0)
    assert row.spent_calls == meter.totals.get().calls == 96
    assert to_nano(row.spent_usd) == meter.totals.get().nano_usd
