"""Anthropic's message batches: each message that succeeded is charged once, however often and how far it is read."""

from __future__ import annotations

import json
import threading
from typing import Any

import anthropic
import pytest
from batch_jobs import (
    CLAUDE,
    bare,
    charged_once,
    costs,
    each,
    ended_elsewhere,
    nothing_charged,
    requests_of,
    settled,
)

import tokenbudget_otel as tb
from far_ledger import FarLedger
from tokenbudget_otel.simulator import Behaviour


async def types_of(client: Any, batch_id: str, **options: Any) -> list[str]:
    results = await settled(client.messages.batches.results(batch_id, **options))
    return [line.result.type async for line in each(results)]


async def ended(client: Any, requests: list[Any]) -> Any:
    batch = await settled(client.messages.batches.create(requests=requests))
    while batch.processing_status != "ended":
        batch = await settled(client.messages.batches.retrieve(batch.id))
    return batch


async def test_charged_by_whoever_reads_the_results_first(claude, sim, instrumented, meter):
    batch = await ended(claude, requests_of(4))
    nothing_charged(meter)
    for _ in range(3):
        assert await types_of(claude, batch.id) == ["succeeded"] * 4
    charged_once(meter, sim, "anthropic")
    (row,) = meter.totals.rows()
    assert (row["model"], row["operation"], row["calls"]) == (CLAUDE, "chat", 4)
    spans = [span for span in instrumented.spans() if "tokenbudget.batch.id" in span.attributes]
    assert [span.name for span in spans] == [f"create_batch {CLAUDE}", *["fetch_batch"] * 3]
    assert all(span.attributes["tokenbudget.batch.id"] == batch.id for span in spans)
    assert costs(spans) == [meter.totals.get().nano_usd / 1e9]
    first = spans[1].attributes
    assert first["tokenbudget.batch.results"] == 4
    assert first["gen_ai.response.model"] == CLAUDE
    assert first["gen_ai.usage.input_tokens"] == meter.totals.get().usage.input_tokens


async def test_caches_and_tiers_at_the_price_of_batches(claude, sim, instrumented, meter):
    sim.default = Behaviour(
        input_tokens=1000, cached_tokens=400, cache_write_5m_tokens=200, cache_write_1h_tokens=100, output_tokens=50
    )
    await types_of(claude, (await ended_elsewhere(claude, requests_of(2))).id)
    charged_once(meter, sim, "anthropic")
    assert meter.totals.get().usage.cache_write_1h_tokens == 200
    usage = tb.TokenUsage(
        input_tokens=1000, cache_read_tokens=400, cache_write_5m_tokens=200, cache_write_1h_tokens=100,
        output_tokens=50,
    )  # fmt: skip
    # Half of what the calls would have cost, caches included.
    assert meter.totals.get().nano_usd == 2 * (tb.calculate_cost(CLAUDE, usage, "anthropic").nano_usd // 2)


async def beta(client: Any, batch_id: str) -> None:
    results = await settled(client.beta.messages.batches.results(batch_id))
    assert [line async for line in each(results)]


async def raw(client: Any, batch_id: str) -> None:
    response = await settled(client.messages.batches.with_raw_response.results(batch_id))
    assert [line async for line in each(await settled(response.parse()))]


async def raw_bytes(client: Any, batch_id: str) -> None:
    response = await settled(client.messages.batches.with_raw_response.results(batch_id))
    assert await settled(response.read())


async def streamed_lines(client: Any, batch_id: str) -> None:
    manager = client.messages.batches.with_streaming_response.results(batch_id)
    if hasattr(manager, "__aenter__"):
        async with manager as response:
            assert [line async for line in response.iter_lines()]
    else:
        with manager as response:
            assert list(response.iter_lines())


@pytest.mark.parametrize("read", [beta, raw, raw_bytes, streamed_lines], ids=lambda way: way.__name__)
async def test_any_way_of_reading(read, claude, sim, instrumented, meter):
    batch = await ended_elsewhere(claude, requests_of(3))
    for gzip in (False, True):
        sim.default = Behaviour(split=83, gzip=gzip)
        await read(claude, batch.id)
    charged_once(meter, sim, "anthropic")


async def test_an_event_loop_never_waits_for_a_ledger(clients, sim, instrumented, meter):
    """Who reads the results first is for the ledger to say, line by line."""
    claude = clients("anthropic", "async")
    batch = await ended_elsewhere(claude, requests_of(3))
    ledger = FarLedger()
    meter.enforcer.use(ledger)
    meter.enforcer.add(tb.Budget(limit_usd=5))
    assert await types_of(claude, batch.id) == ["succeeded"] * 3
    charged_once(meter, sim, "anthropic")
    assert [operation for operation, _ in ledger.asked].count("charge") == 3
    assert threading.get_ident() not in {thread for _, thread in ledger.asked}


async def test_left_half_way_and_read_again(claude, sim, instrumented, meter):
    batch = await ended_elsewhere(claude, requests_of(60))
    sim.default = Behaviour(split=1_000)
    results = await settled(claude.messages.batches.results(batch.id))
    async for _ in each(results):
        break
    await settled(results.close())
    before = meter.totals.get().calls
    assert 0 < before < 60
    assert await types_of(claude, batch.id) == ["succeeded"] * 60
    charged_once(meter, sim, "anthropic")
    spans = [span for span in instrumented.spans() if "tokenbudget.batch.results" in span.attributes]
    assert [span.attributes["tokenbudget.batch.results"] for span in spans] == [before, 60 - before]
    assert [span.attributes["tokenbudget.call.outcome"] for span in spans] == ["closed", "completed"]
    assert sum(costs(spans)) == pytest.approx(meter.totals.get().nano_usd / 1e9)


async def test_dropped_half_way(claude, sim, instrumented, meter):
    batch = await ended_elsewhere(claude, requests_of(60))
    sim.default = Behaviour(split=1_000)
    results = await settled(claude.messages.batches.results(batch.id))
    async for _ in each(results):
        break
    del results
    instrumented.spans()
    sim.default = Behaviour()
    await types_of(claude, batch.id)
    charged_once(meter, sim, "anthropic")


@pytest.mark.parametrize("end", ["canceled", "expired"])
async def test_only_what_succeeded_is_billed(end, claude, sim, instrumented, meter):
    requests = [*requests_of(3), {"custom_id": "bad", "params": {"model": CLAUDE}}, *requests_of(2)]
    sim.then(Behaviour(outcome="incomplete" if end == "expired" else "completed"))
    with bare(claude):
        batch = await settled(claude.messages.batches.create(requests=requests))
        if end == "canceled":
            await settled(claude.messages.batches.cancel(batch.id))
        while (await settled(claude.messages.batches.retrieve(batch.id))).processing_status != "ended":
            pass
    seen = await types_of(claude, batch.id)
    assert seen == ["succeeded"] * 3 + [end] * 3
    charged_once(meter, sim, "anthropic")


async def test_requests_that_fail(claude, sim, instrumented, meter):
    batch = await ended_elsewhere(claude, [*requests_of(1), {"custom_id": "bad", "params": {"model": CLAUDE}}])
    assert await types_of(claude, batch.id) == ["succeeded", "errored"]
    charged_once(meter, sim, "anthropic")


async def test_results_without_usage(claude, sim, instrumented, meter):
    sim.default = Behaviour(usage="absent")
    batch = await ended_elsewhere(claude, requests_of(2))
    for _ in range(2):
        await types_of(claude, batch.id)
    totals = meter.totals.get()
    assert (totals.calls, totals.unpriced_calls, totals.usage.total_tokens, totals.nano_usd) == (2, 2, 0, 0)
    spans = [span for span in instrumented.spans() if "tokenbudget.batch.results" in span.attributes]
    assert [span.attributes["tokenbudget.cost.state"] for span in spans] == ["unknown"]
    assert costs(spans) == []


async def test_damaged_lines(claude, sim, instrumented, meter):
    batch = await ended_elsewhere(claude, requests_of(2))
    sim.then(Behaviour(), Behaviour(malformed_after=0))
    with pytest.raises(json.JSONDecodeError):
        await types_of(claude, batch.id)
    # The second line ended in its middle: an answer came, and what it used is not known.
    totals = meter.totals.get()
    assert totals.calls in (1, 2)
    assert totals.calls - totals.unpriced_calls <= 1


async def test_a_connection_that_breaks(claude, sim, instrumented, meter):
    batch = await ended_elsewhere(claude, requests_of(40))
    sim.then(Behaviour(), Behaviour(cut_after=0))
    with pytest.raises(Exception):  # noqa: B017 - the HTTP library's own, of two of them
        await types_of(claude, batch.id)
    assert meter.totals.get().calls < 40
    assert meter.totals.get().unpriced_calls == 0
    await types_of(claude, batch.id)
    charged_once(meter, sim, "anthropic")


async def test_looking_is_free(claude, sim, instrumented, meter):
    meter.enforcer.add(tb.Budget(limit_calls=0, name="none"))
    batch = await ended_elsewhere(claude, requests_of(2))
    await settled(claude.messages.batches.retrieve(batch.id))
    assert [one.id async for one in each(claude.messages.batches.list())] == [batch.id]
    nothing_charged(meter)
    await types_of(claude, batch.id)
    assert meter.totals.get().calls == 2


async def test_a_budget_that_is_used_up_refuses_a_batch(claude, sim, instrumented, meter):
    meter.enforcer.add(tb.Budget(limit_usd="0.0001", name="small"))
    batch = await ended(claude, requests_of(2))
    assert meter.enforcer.status()[0].reserved_usd == 0
    await types_of(claude, batch.id)
    sent = len(sim.requests)
    with pytest.raises(tb.BudgetExceeded):
        await settled(claude.messages.batches.create(requests=requests_of(1)))
    assert len(sim.requests) == sent
    assert instrumented.spans()[-1].attributes["tokenbudget.call.outcome"] == "refused"


async def test_a_budget_of_one_model(claude, sim, instrumented, meter):
    meter.enforcer.add(tb.Budget(limit_calls=0, name="no opus", match={"model": "*opus*"}))
    await settled(claude.messages.batches.create(requests=requests_of(2)))
    with pytest.raises(tb.BudgetExceeded):
        await settled(claude.messages.batches.create(requests=requests_of(2, model="claude-opus-4-6")))


async def test_results_go_to_whoever_asked_for_the_work(claude, sim, instrumented, meter):
    with tb.tags(tenant="acme"):
        batch = await ended(claude, requests_of(2))
    with tb.tags(tenant="operations", job="reader"), tb.budget(max_tokens=10**6) as run:
        await types_of(claude, batch.id)
    (row,) = meter.totals.rows()
    assert row["tags"] == {"tenant": "acme", "job": "reader"}
    assert run.spent_tokens == meter.totals.get().usage.total_tokens


async def test_results_that_are_not_there(claude, sim, instrumented, meter):
    batch = await settled(claude.messages.batches.create(requests=requests_of(1)))
    with pytest.raises(anthropic.AnthropicError):
        await types_of(claude, batch.id)
    batch = await ended_elsewhere(claude, requests_of(1))
    sim.then(Behaviour(), Behaviour(status=500))
    with pytest.raises(anthropic.InternalServerError):
        await types_of(claude, batch.id)
    nothing_charged(meter)
    await types_of(claude, batch.id)
    assert meter.totals.get().calls == 1


async def test_what_the_program_sees(claude, sim, instrumented):
    batch = await ended_elsewhere(claude, requests_of(3))

    async def run() -> Any:
        results = await settled(claude.messages.batches.results(batch.id))
        return type(results), [line.model_dump(exclude_unset=True) async for line in each(results)]

    with bare(claude):
        without = await run()
    assert await run() == without
