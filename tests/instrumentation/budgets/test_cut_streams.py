"""Streams that outgrow their budget: extended while there is room, then cut, however the program reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from door_sdks import ANTHROPIC, MESSAGES, OPENAI, Sdk, each, read_out, settled

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

WORDS = 300
LONG = Behaviour(
    text=" ".join(f"word{n}" for n in range(WORDS)), chunks=WORDS, chunk_s=0.0005, input_tokens=20, output_tokens=1_000
)
Read = Callable[[Any], Any]


def learn(meter: Meter) -> None:
    """Calls so far were short: that is what the next one reserves."""
    for sdk in (OPENAI, ANTHROPIC):
        meter._learn(sdk.name, sdk.model, 50)


CHAT = {"model": OPENAI.model, "messages": MESSAGES}
RESPONSE = {"model": OPENAI.model, "input": "Tell me a story."}
MESSAGE = {"model": ANTHROPIC.model, "messages": MESSAGES, "max_tokens": 3_000}


async def entered(manager: Any, read: Read) -> None:
    if hasattr(manager, "__aenter__"):
        async with manager as stream:
            await settled(read(stream))
    else:
        with manager as stream:
            await settled(read(stream))


async def parsed(raw: Any) -> None:
    await read_out(await settled((await settled(raw)).parse()))


WAYS: dict[str, tuple[Sdk, Read]] = {
    "chat chunks": (OPENAI, lambda c: create(c.chat.completions.create(**CHAT, stream=True))),
    "chat raw": (OPENAI, lambda c: parsed(c.chat.completions.with_raw_response.create(**CHAT, stream=True))),
    "chat events": (OPENAI, lambda c: entered(c.chat.completions.stream(**CHAT), read_out)),
    "chat helper": (OPENAI, lambda c: entered(c.chat.completions.stream(**CHAT), lambda s: s.get_final_completion())),
    "responses": (OPENAI, lambda c: create(c.responses.create(**RESPONSE, stream=True))),
    "responses helper": (OPENAI, lambda c: entered(c.responses.stream(**RESPONSE), lambda s: s.get_final_response())),
    "messages": (ANTHROPIC, lambda c: create(c.messages.create(**MESSAGE, stream=True))),
    "messages raw": (ANTHROPIC, lambda c: parsed(c.messages.with_raw_response.create(**MESSAGE, stream=True))),
    "messages text": (ANTHROPIC, lambda c: entered(c.messages.stream(**MESSAGE), lambda s: read_out(s.text_stream))),
    "messages helper": (ANTHROPIC, lambda c: entered(c.messages.stream(**MESSAGE), lambda s: s.get_final_message())),
    **{
        f"{sdk} {name}": (sdk, lambda c, call=call, name=name: entered(call(c), via(name)))
        for sdk, call in (
            (OPENAI, lambda c: c.chat.completions.with_streaming_response.create(**CHAT, stream=True)),
            (ANTHROPIC, lambda c: c.messages.with_streaming_response.create(**MESSAGE, stream=True)),
        )
        for name in ("iter_lines", "iter_bytes", "iter_text", "read")
    },
}  # fmt: skip


def via(name: str) -> Read:
    """Read a response by one of its methods."""
    return lambda response: getattr(response, name)() if name == "read" else read_out(getattr(response, name)())


async def create(made: Any) -> None:
    await read_out(await settled(made))


@pytest.mark.parametrize("way", WAYS)
async def test_the_refusal_comes_out_as_it_is(
    way: str, asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sdk, read = WAYS[way]
    learn(meter)
    sim.then(LONG)
    client = sdk.client(sim, asynchronous)
    with tb.budget(max_cost_usd="0.004", cut_streams=True) as run, pytest.raises(tb.BudgetExceeded) as caught:
        await settled(read(client))
    assert type(caught.value) is tb.BudgetExceeded
    assert caught.value.partial
    assert "in the middle of its answer" in str(caught.value)
    assert Decimal("0.0039") < run.spent_usd <= Decimal("0.004")
    assert run.remaining_usd == run.limit_usd - run.spent_usd  # nothing is reserved any more
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "cut_by_budget"
    assert span.attributes["error.type"] == "tokenbudget_otel.BudgetExceeded"
    assert span.attributes["tokenbudget.budget.name"] == run.name
    assert span.attributes["gen_ai.usage.cost"] == pytest.approx(float(run.spent_usd))
    # The connection is closed, and the provider has noticed.
    assert client._client._transport._pool.connections == []
    assert sim.settle()
    assert not sim.billed[-1].completed
    await settled(client.close())


async def test_a_stream_with_room_is_extended_and_goes_on(
    sdk: Sdk, asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    learn(meter)
    sim.then(LONG)
    meter.enforcer.add(tb.Budget(limit_usd=1, name="wide", cut_streams=True), tb.Budget(limit_usd=1, name="other"))
    held = set()
    async for _ in each(await settled(sdk.call(sdk.client(sim, asynchronous), stream=True))):
        held |= {claim.nano_usd for hold in meter.enforcer.ledger.holds() for claim in hold.claims}
    assert len(held) > 2  # in both budgets the same
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "completed"
    assert "error.type" not in span.attributes
    assert span.attributes["gen_ai.usage.output_tokens"] == 1_000
    for row in meter.enforcer.status():
        assert row.reserved_usd == 0
        assert float(row.spent_usd) == pytest.approx(span.attributes["gen_ai.usage.cost"])


async def test_without_cut_streams_nothing_is_counted_as_it_comes(
    sdk: Sdk, asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    learn(meter)
    sim.then(LONG)
    held = set()
    with tb.budget(max_cost_usd="0.004") as run:
        async for _ in each(await settled(sdk.call(sdk.client(sim, asynchronous), stream=True))):
            held |= {claim.nano_usd for hold in meter.enforcer.ledger.holds() for claim in hold.claims}
    assert len(held) == 1
    assert run.spent_usd > run.limit_usd
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"


async def test_an_output_limit_in_worst_case_mode_needs_no_extension(
    sdk: Sdk, asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.then(LONG)
    held = set()
    with tb.budget(max_cost_usd=1, mode="worst_case", cut_streams=True):
        async for _ in each(await settled(sdk.call(sdk.client(sim, asynchronous), stream=True))):
            held |= {claim.nano_usd for hold in meter.enforcer.ledger.holds() for claim in hold.claims}
    assert len(held) == 1
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "completed"


async def test_streams_at_once_share_one_budget(sdk: Sdk, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    learn(meter)
    sim.default = LONG
    client = sdk.client(sim, True)
    with tb.budget(max_tokens=1_000, cut_streams=True) as run:
        results = await asyncio.gather(
            *(create(sdk.call(client, stream=True)) for _ in range(3)), return_exceptions=True
        )
    assert [type(result) for result in results] == [tb.TokenLimitReached] * 3
    assert 980 <= run.spent_tokens <= 1_000
    assert run.remaining_tokens == 1_000 - run.spent_tokens
    assert run.calls == 3
    assert len(instrumented.spans()) == 3


async def test_what_had_arrived_is_handed_on_first(
    sdk: Sdk, asynchronous: bool, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    """Whoever stops reading just then is told nothing."""
    learn(meter)
    sim.then(LONG)
    ended = False
    with tb.budget(max_tokens=400, cut_streams=True) as run:
        stream = await settled(sdk.call(sdk.client(sim, asynchronous), stream=True))
        async for _ in each(stream):
            if run.calls:  # it has ended, and this is of what had arrived
                ended = True
                break
        await settled(stream.close())
    assert ended
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "cut_by_budget"
    assert run.spent_tokens <= 400


async def test_cancelled_while_it_asks_for_more(sim: Simulator, instrumented: Any, meter: Meter) -> None:
    learn(meter)
    sim.then(LONG)
    client = OPENAI.client(sim, True)

    async def ask(*_args: Any) -> Any:
        await asyncio.sleep(30)

    with tb.budget(max_tokens=300, cut_streams=True) as run:
        stream = await OPENAI.call(client, stream=True)
        meter.enforcer.way.ask_async = ask  # a ledger that takes its time
        task = asyncio.create_task(read_out(stream))
        await asyncio.sleep(0.15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "cancelled"
    assert run.calls == 1
