"""Responses that go on in the background: charged once, when their usage becomes known, however often it is seen."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai_harness import bare, each, mode_of, read, response_tokens, seen, settled, some, until

import tokenbudget_otel as tb
from tokenbudget_otel.budgets import Enforcer
from tokenbudget_otel.budgets.ledgers.memory import MemoryLedger
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour

LONG = Behaviour(
    text="The river turns east.", polls=3, input_tokens=200, output_tokens=90, reasoning_tokens=50, cached_tokens=100
)
BUDGET = tb.Budget(limit_usd=5, name="background", mode="worst_case")


@pytest.fixture
def budget(meter: Any) -> Any:
    """What is reserved and spent, as it stands."""
    meter.enforcer.add(BUDGET)

    def status() -> Any:
        (one,) = meter.enforcer.status()
        return one

    return status


async def start(client: Any, **options: Any) -> Any:
    return await settled(client.responses.create(model="gpt-5", input="A long story.", background=True, **options))


def only_once(meter: Any, sim: Any) -> None:
    """One call, and what the provider bills for it."""
    (billed,) = sim.billed
    totals = meter.totals.get()
    assert totals.calls == 1
    assert totals.estimated_calls == 0
    assert totals.usage == response_tokens(billed.usage)
    assert totals.nano_usd == tb.calculate_cost("gpt-5", totals.usage, "openai").nano_usd


async def test_charged_by_the_first_retrieval_that_finds_it_done(client, sim, instrumented, meter, budget):
    sim.then(LONG)
    started = await start(client)
    assert started.status == "queued"
    assert meter.totals.get().calls == 0
    # The work goes on, and so does the reservation.
    assert budget().reserved_usd > 0

    statuses = []
    for _ in range(6):
        statuses.append((await settled(client.responses.retrieve(started.id))).status)
    assert statuses == ["in_progress", "in_progress", *["completed"] * 4]

    only_once(meter, sim)
    assert budget().reserved_usd == 0
    assert budget().spent_usd == meter.totals.get().cost_usd
    spans = instrumented.spans()
    assert [span.name for span in spans].count("chat gpt-5") == 1
    assert spans[0].attributes["tokenbudget.call.outcome"] == "background"
    assert spans[0].attributes["gen_ai.response.status"] == "queued"
    fetched = [span for span in spans if span.attributes["gen_ai.operation.name"] == "fetch_response"]
    assert len(fetched) == 6
    assert all(span.attributes["gen_ai.response.id"] == started.id for span in fetched)
    # The cost is on one span of all.
    assert sum("gen_ai.usage.cost" in span.attributes for span in spans) == 1


async def test_what_the_program_sees(client, sim, instrumented):
    async def run() -> Any:
        sim.reset()
        sim.then(LONG)
        started = await start(client)
        return seen([started] + [await settled(client.responses.retrieve(started.id)) for _ in range(4)])

    with bare(client):
        without = await run()
    assert await run() == without


async def test_foreground_responses_were_charged_when_they_were_made(client, sim, instrumented, meter):
    made = await settled(client.responses.create(model="gpt-5", input="A story."))
    for _ in range(2):
        await settled(client.responses.retrieve(made.id))
    stream = await settled(client.responses.retrieve(made.id, stream=True))
    await read(stream)
    only_once(meter, sim)


async def retrieve_stream(client: Any, response_id: str) -> None:
    await read(await settled(client.responses.retrieve(response_id, stream=True)))


async def retrieve_helper(client: Any, response_id: str) -> None:
    manager = client.responses.stream(response_id=response_id)
    if mode_of(client) == "async":
        async with manager as stream:
            await read(stream)
    else:
        with manager as stream:
            await read(stream)


async def retrieve_raw(client: Any, response_id: str) -> None:
    raw = await settled(client.responses.with_raw_response.retrieve(response_id))
    raw.parse()


@pytest.mark.parametrize("retrieve", [retrieve_stream, retrieve_helper, retrieve_raw], ids=lambda way: way.__name__)
async def test_charged_by_any_way_of_retrieving(retrieve, client, sim, instrumented, meter):
    sim.then(Behaviour(text="The river turns east.", polls=1, input_tokens=200, output_tokens=90))
    started = await start(client)
    for _ in range(2):
        await retrieve(client, started.id)
    only_once(meter, sim)


async def test_streamed_in_the_background_and_read_out(client, sim, instrumented, meter, budget):
    sim.then(LONG)
    events = await read(await start(client, stream=True))
    only_once(meter, sim)
    assert budget().reserved_usd == 0
    # Looked at again afterwards, as a page that is reloaded does: it has been charged.
    await settled(client.responses.retrieve(events[-1].response.id))
    only_once(meter, sim)


async def test_streamed_in_the_background_left_and_resumed(client, sim, instrumented, meter, budget):
    sim.then(Behaviour(text="one two three four five six", chunks=3, chunk_s=30))
    stream = await start(client, stream=True)
    (first,) = await some(stream, 1)
    await settled(stream.close())
    await until(instrumented.spans)
    assert budget().reserved_usd > 0
    response_id = first.response.id
    async for _ in each(await settled(client.responses.retrieve(response_id, stream=True, starting_after=1))):
        pass
    await settled(client.responses.retrieve(response_id))
    assert meter.totals.get().calls == 1
    assert meter.totals.get().usage == response_tokens(sim.billed[-1].whole)
    assert budget().reserved_usd == 0


async def test_a_retrieval_that_is_left_charges_nothing(client, sim, instrumented, meter):
    sim.then(LONG)
    started = await start(client)
    stream = await settled(client.responses.retrieve(started.id, stream=True))
    await settled(stream.close())
    await until(lambda: len(instrumented.spans()) == 2)
    assert meter.totals.get().calls == 0
    await settled(client.responses.retrieve(started.id))
    assert meter.totals.get().calls == 1
    assert meter.totals.get().usage == response_tokens(sim.billed[0].whole)


async def test_cancelled(client, sim, instrumented, meter, budget):
    sim.then(LONG)
    started = await start(client)
    cancelled = await settled(client.responses.cancel(started.id))
    assert cancelled.status == "cancelled"
    await settled(client.responses.retrieve(started.id))
    totals = meter.totals.get()
    # What it had cost until then is not told: one call, marked as an estimate, and nothing stays reserved.
    assert totals.calls == totals.estimated_calls == 1
    assert budget().reserved_usd == 0
    assert sum("gen_ai.usage.cost" in span.attributes for span in instrumented.spans()) == 1


FAILURES = {
    "not found": (Behaviour(status=404), openai.NotFoundError),
    "server error": (Behaviour(status=500), openai.InternalServerError),
    "dropped": (Behaviour(drop=True), openai.APIConnectionError),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_retrieval_that_fails_is_no_call(failure, client, sim, instrumented, meter, budget):
    # Looking costs nothing, so a look that fails has not cost anything either.
    behaviour, error = FAILURES[failure]
    sim.then(LONG, behaviour)
    started = await start(client)
    with pytest.raises(error):
        await settled(client.responses.retrieve(started.id))
    assert meter.totals.get().calls == 0
    assert budget().reserved_usd > 0
    while (await settled(client.responses.retrieve(started.id))).status != "completed":
        pass
    only_once(meter, sim)


async def test_started_elsewhere_and_retrieved_here(client, sim, instrumented, meter):
    """Another process started it: whoever polls for it learns of its usage, and books it once."""
    sim.then(Behaviour(polls=1, input_tokens=200, output_tokens=90))
    with bare(client):
        started = await start(client)
    for _ in range(3):
        await settled(client.responses.retrieve(started.id))
    only_once(meter, sim)


@pytest.mark.parametrize("maker_looks_first", [True, False])
async def test_processes_that_share_a_ledger_charge_it_once(maker_looks_first, clients, mode, sim, telemetry):
    """The one that made it holds a reservation, and the other one polls: whoever is first charges it, for both."""
    rule = tb.Budget(limit_usd=5, name="background", mode="worst_case")
    ledger = MemoryLedger()
    meters = [Meter(enforcer=Enforcer([rule], ledger=ledger)) for _ in range(2)]
    maker, other = (tb.wrap(clients(mode), meter=meter) for meter in meters)
    sim.then(Behaviour(polls=1, input_tokens=200, output_tokens=90))
    started = await start(maker)
    for client in (maker, other, maker) if maker_looks_first else (other, maker, other):
        await settled(client.responses.retrieve(started.id))
    (billed,) = sim.billed
    first, second = (meter.totals.get() for meter in (meters if maker_looks_first else reversed(meters)))
    assert (first.calls, second.calls) == (1, 0)
    assert first.usage == response_tokens(billed.usage)
    (row,) = ledger.balances("budget|background")
    assert (row.spent_nano_usd, row.spent_calls) == (first.nano_usd, 1)
    assert (row.reserved_nano_usd, row.reserved_calls) == (0, 0)


async def test_however_many_doors_lead_to_a_meter(clients, mode, sim, telemetry, meter):
    sim.then(Behaviour(polls=1, input_tokens=200, output_tokens=90))
    started = await start(tb.wrap(clients(mode)))
    for _ in range(2):
        await settled(tb.wrap(clients(mode)).responses.retrieve(started.id))
    tb.instrument(telemetry.tracer_provider)
    try:
        await settled(clients(mode).responses.retrieve(started.id))
    finally:
        tb.uninstrument()
    only_once(meter, sim)


async def test_retrieving_is_not_refused_by_a_budget(client, sim, instrumented, meter):
    sim.then(LONG)
    started = await start(client)
    meter.enforcer.add(tb.Budget(limit_calls=0, name="none"))
    assert (await settled(client.responses.retrieve(started.id))).status == "in_progress"
    with pytest.raises(tb.BudgetExceeded):
        await start(client)


async def test_a_background_response_that_fails(client, sim, instrumented, meter, budget):
    sim.then(Behaviour(outcome="failed", polls=1))
    started = await start(client)
    assert (await settled(client.responses.retrieve(started.id))).status == "failed"
    assert budget().reserved_usd == 0
    fetch = instrumented.spans()[-1]
    assert fetch.attributes["gen_ai.response.status"] == "failed"
    assert fetch.attributes["error.type"] == "server_error"
