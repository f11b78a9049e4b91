"""What holds for every live session, whatever the SDK: a charge for each turn, once, whole, and within the budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from live_rows import SILENCE, SPEECH, Live, every_row, in_our_terms, spoken
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import SpanKind, StatusCode

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.live import _SESSION
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

Make = Callable[[Live], Any]
SHORT = Behaviour(text="A river ran under the bridge.", input_tokens=300, output_tokens=6)


def spent(meter: Meter, sim: Simulator) -> None:
    """What we counted is what was billed, turn for turn."""
    totals = meter.totals.get()
    assert totals.calls == len(sim.billed)
    assert totals.usage.input_tokens == sum(bill.usage.input_tokens for bill in sim.billed)
    assert totals.usage.output_tokens == sum(bill.usage.output_tokens for bill in sim.billed)


def outcomes(telemetry: Any) -> list[str]:
    return [span.attributes["tokenbudget.call.outcome"] for span in telemetry.spans()]


def nothing_reserved(meter: Meter) -> None:
    assert not any(status.reserved_calls for status in meter.enforcer.status())


@every_row
async def test_turn(row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(text="A river ran under the bridge.", **row.counted))
    async with row.session(client, spoken=True) as talk:
        await talk.ask()
        await talk.turn()
    span = instrumented.span()
    attributes = span.attributes
    assert span.name == f"{row.operation} {row.model}"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert attributes["gen_ai.provider.name"] == row.provider
    assert attributes["gen_ai.request.model"] == row.model
    assert attributes["server.address"] == "127.0.0.1"
    assert attributes["tokenbudget.call.outcome"] == "completed"
    assert attributes.get("gen_ai.output.type") == ("speech" if row.speaks else None)
    assert attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert "tokenbudget.usage.estimated" not in attributes
    (bill,) = sim.billed
    assert bill.path.startswith(row.path)
    totals = meter.totals.get()
    assert totals.usage == in_our_terms(row)
    assert totals.calls == 1
    cost = tb.calculate_cost(row.model, totals.usage, row.provider, at=span.start_time / 1e9)
    assert cost is not None
    assert cost.state == "priced"
    assert totals.nano_usd == cost.nano_usd == sum(cost.breakdown.values())
    assert attributes["gen_ai.usage.cost"] == cost.nano_usd / 1e9
    metrics = instrumented.metrics()
    assert metrics["gen_ai.client.operation.duration"][0].count == 1


async def test_turns_one_after_the_other(
    row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    async with row.session(client) as talk:
        for _ in range(3):
            await talk.ask()
            await talk.turn()
    spent(meter, sim)
    assert outcomes(instrumented) == ["completed"] * 3
    assert len({span.attributes["tokenbudget.call.id"] for span in instrumented.spans()}) == 3


async def test_the_program_cannot_tell(row: Live, make: Make, sim: Simulator, telemetry: Any, meter: Meter) -> None:
    """The same messages, in objects of the same classes."""
    seen: list[Any] = []
    for instrument in (False, True):
        if instrument:
            tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        sim.reset()
        try:
            async with row.session(make(row), spoken=True) as talk:
                kind = type(talk.connection)
                await talk.ask()
                seen.append((kind, await talk.turn(), [request.body for request in sim.requests]))
        finally:
            tb.uninstrument()
    assert seen[0] == seen[1]
    assert meter.totals.get().calls == 1


@spoken
async def test_a_turn_that_the_server_begins(
    row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1_000))
    async with row.session(client) as talk:
        await talk.hear(SPEECH)
        assert [status.reserved_calls for status in meter.enforcer.status()] == [1]
        await talk.hear(SILENCE)
        await talk.turn()
        nothing_reserved(meter)
        spent(meter, sim)
        (status,) = meter.enforcer.status()
        assert status.spent_calls == 1
        await talk.hear(SPEECH)
    nothing_reserved(meter)
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "completed"
    assert meter.totals.get().nano_usd > 0


@every_row
async def test_refused_before_it_is_sent(
    row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1))
    async with row.session(client) as talk:
        await talk.ask()
        await talk.turn()
        before = len(sim.requests)
        with pytest.raises(tb.BudgetExceeded):
            await talk.ask()
        assert sim.settle()
        asked = [request.json for request in sim.requests[before:]]
        assert not [one for one in asked if "client_content" in one or one.get("type") == "response.create"]
        # The session is as good as before.
        meter.enforcer.clear()
        await talk.ask()
        await talk.turn()
    spent(meter, sim)
    assert sorted(outcomes(instrumented)) == ["completed", "completed", "refused"]
    assert meter.totals.get().refused_calls == 1


@spoken
async def test_audio_is_refused_when_the_budget_is_used_up(
    row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1))
    async with row.session(client) as talk:
        await talk.hear(SPEECH)
        await talk.hear(SILENCE)
        await talk.turn()
        before = len(sim.requests)
        for _ in range(3):
            with pytest.raises(tb.BudgetExceeded):
                await talk.hear(SPEECH)
        assert len(sim.requests) == before
    spent(meter, sim)
    assert sorted(outcomes(instrumented)) == ["completed", "refused"]  # one span, not one for each piece of audio
    nothing_reserved(meter)


@every_row
@pytest.mark.parametrize("speech", [False, True], ids=["written", "spoken"])
async def test_cut_in_the_middle(
    row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter, speech: bool
) -> None:
    if speech and not row.speaks:
        pytest.skip("these answers are never spoken")
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1_000))
    cut = 8
    sim.then(Behaviour(text="One two three four five six seven eight nine ten.", cut_after=cut))
    async with row.session(client, spoken=speech) as talk:
        await talk.ask()
        with pytest.raises(Exception) as error:
            await talk.turn()
        assert not isinstance(error.value, tb.BudgetExceeded)
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "cut"
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert span.status.status_code is StatusCode.ERROR
    assert sim.settle()
    (bill,) = sim.billed
    usage = meter.totals.get().usage
    assert usage.output_tokens == pytest.approx(bill.usage.output_tokens, rel=0.4, abs=3)
    if speech:
        assert usage.output_audio_tokens == pytest.approx(bill.usage.output_audio_tokens, rel=0.1, abs=3)
    assert usage.input_tokens is not None
    nothing_reserved(meter)


async def test_closed_in_the_middle(row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    meter.enforcer.add(tb.Budget(name="talk", limit_calls=1_000))
    sim.then(Behaviour(text="One two three " * 20, chunk_s=0.02, tokens_per_chunk=1))
    async with row.session(client) as talk:
        await talk.ask()
        await talk.some(3)
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "closed"
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert span.status.status_code is StatusCode.UNSET
    assert meter.totals.get().usage.output_tokens == pytest.approx(3, abs=1)
    nothing_reserved(meter)


@spoken
async def test_audio_that_nobody_answered_is_not_counted(
    row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    """What was spoken has no known number of tokens before the provider counts it: the input stays open."""
    sim.then(Behaviour(text="One two three " * 20, chunk_s=0.02))
    async with row.session(client) as talk:
        await talk.hear(SPEECH)
        await talk.hear(SILENCE)
        await talk.some(2)
    span = instrumented.span()
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert "gen_ai.usage.input_tokens" not in span.attributes
    assert span.attributes["gen_ai.usage.output_tokens"] == 2


@pytest.mark.parametrize("mode", ["absent", "null"])
async def test_without_a_count(
    row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter, mode: Any
) -> None:
    sim.then(Behaviour(text="One two three four.", usage=mode))
    async with row.session(client) as talk:
        await talk.ask()
        await talk.turn()
    span = instrumented.span()
    assert span.attributes["tokenbudget.call.outcome"] == "completed"
    assert span.attributes["tokenbudget.usage.estimated"] is True
    assert meter.totals.get().usage.output_tokens == pytest.approx(4, abs=1)


async def test_metered_without_spans(row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    with suppress_instrumentation():
        async with row.session(client) as talk:
            await talk.ask()
            await talk.turn()
    assert not instrumented.spans()
    spent(meter, sim)


@spoken
async def test_tags_and_scopes(row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    """A turn that is asked for belongs to who asks; one that the server begins, to who opened the session."""
    with tb.tags(tenant="opened"):
        async with row.session(client) as talk:
            with tb.tags(tenant="asked"):
                await talk.ask()
            await talk.turn()
            await talk.hear(SPEECH)
            await talk.hear(SILENCE)
            await talk.turn()
    assert {name: totals.calls for name, totals in meter.totals.get("tenant").items()} == {"opened": 1, "asked": 1}
    assert len(sim.billed) == 2


@every_row
async def test_uninstrument_restores(row: Live, client: Any, sim: Simulator, telemetry: Any, meter: Meter) -> None:
    owner = row.classes()
    original = vars(owner)["connect"]
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    assert vars(owner)["connect"] is not original
    try:
        async with row.session(client) as talk:
            tb.uninstrument()
            assert vars(owner)["connect"] is original
            await talk.ask()
            await talk.turn()
    finally:
        tb.uninstrument()
    assert meter.totals.get().calls == 0
    assert len(sim.billed) == 1


@every_row
async def test_wrapped_client_only(row: Live, make: Make, sim: Simulator, telemetry: Any, meter: Meter) -> None:
    wrapped, other = make(row), make(row)
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    assert tb.wrap(wrapped, **options) is wrapped
    for client in (wrapped, other):
        async with row.session(client) as talk:
            await talk.ask()
            await talk.turn()
    assert meter.totals.get().calls == 1
    tb.unwrap(wrapped)
    async with row.session(wrapped) as talk:
        await talk.ask()
        await talk.turn()
    assert meter.totals.get().calls == 1
    assert len(telemetry.spans()) == 1
    assert len(sim.billed) == 3


async def test_wrapped_and_instrumented_counts_once(
    row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    tb.wrap(client)
    async with row.session(client) as talk:
        await talk.ask()
        await talk.turn()
    tb.unwrap(client)
    spent(meter, sim)


async def test_many_sessions_at_once(row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    async def one(number: int) -> None:
        async with row.session(client) as talk:
            for _ in range(2):
                await talk.ask(f"Number {number}")
                await talk.turn()

    await asyncio.gather(*(one(number) for number in range(4)))
    assert len(instrumented.spans()) == 8
    spent(meter, sim)


async def test_nobody_there(row: Live, make: Make, instrumented: Any, meter: Meter) -> None:
    """A connection that does not come about is the program's error, and costs nothing."""
    with Simulator() as gone:
        client = row.client(gone)
    with pytest.raises(OSError):
        async with row.session(client):
            pass
    assert not instrumented.spans()
    assert meter.totals.get().calls == 0


async def test_a_session_keeps_nothing(row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    manager = row.connect(client, False)
    session = vars(manager)[_SESSION]
    started = time.monotonic()
    connection = await manager.__aenter__() if hasattr(manager, "__aenter__") else manager.__enter__()
    talk = row.talk(connection)
    for _ in range(2):
        await talk.ask()
        await talk.turn()
    assert not session.busy
    leave = manager.__aexit__ if hasattr(manager, "__aexit__") else manager.__exit__
    left = leave(None, None, None)
    if hasattr(left, "__await__"):
        await left
    assert session.done
    assert time.monotonic() - started < 5
    spent(meter, sim)
