"""What every provider file promises, held against every surface: a new provider passes by being listed."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from contract import check_counted, check_span, client_of, hooks, left_early, outcome, run
from opentelemetry.instrumentation.utils import suppress_instrumentation
from surface import ALL, Surface, installed

import tokenbudget_otel as tb
from both_modes import settled
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

KINDS = ("call", "stream", "raw")


def rows(*kinds: str, modes: tuple[str, ...] = ("sync", "async")) -> Any:
    """The surfaces that have a call of one of ``kinds``, in their modes: ``(surface, mode, kind)``."""
    made = []
    for surface in ALL:
        skip = pytest.mark.skipif(not installed(surface.sdk), reason=f"{surface.sdk} is not installed")
        for mode in modes:
            if surface.modes.get(mode) is not None:
                continue
            made += [
                pytest.param(surface, mode, kind, id=f"{surface}-{mode}-{kind}", marks=skip)
                for kind in kinds
                if getattr(surface, kind)
            ]
    return pytest.mark.parametrize(("surface", "mode", "kind"), made)


def one_of(surface: Surface) -> str:
    """A kind of call that the surface has."""
    return "call" if surface.call else "stream"


def surfaces(modes: tuple[str, ...] = ("sync", "async")) -> Any:
    """Every surface, once a mode, by its plainest call."""
    made = [
        pytest.param(
            surface,
            mode,
            id=f"{surface}-{mode}",
            marks=pytest.mark.skipif(not installed(surface.sdk), reason=f"{surface.sdk} is not installed"),
        )
        for surface in ALL
        for mode in modes
        if surface.modes.get(mode) is None
    ]
    return pytest.mark.parametrize(("surface", "mode"), made)


@rows(*KINDS)
async def test_counted_to_the_token(
    surface: Surface, mode: str, kind: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.then(Behaviour(**surface.behaviour))
    async with client_of(surface, sim, mode) as client:
        await run(surface, client, kind)
    check_counted(surface, kind, sim, instrumented, meter)


@rows(*KINDS)
async def test_the_program_gets_what_the_sdk_gives(
    surface: Surface, mode: str, kind: str, sim: Simulator, telemetry: Any, meter: Meter
) -> None:
    results = []
    for instrumented in (False, True):
        sim.reset()
        sim.then(Behaviour(**surface.behaviour, **({} if "text" in surface.behaviour else {"text": "A river."})))
        if instrumented:
            tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        try:
            async with client_of(surface, sim, mode) as client:
                results.append(await outcome(surface, client, kind))
        finally:
            tb.uninstrument()
    assert results[0] == results[1]
    assert results[0][0] != "raised"


@rows("stream")
async def test_a_stream_that_is_left_early_ends_once(
    surface: Surface, mode: str, kind: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    if surface.early is not None:
        return  # the table says why
    sim.then(Behaviour(text="word " * 40, chunks=20, chunk_s=0.002))
    meter.enforcer.add(tb.Budget(limit_usd=100, window="hour", name="early", unpriced="allow"))
    async with client_of(surface, sim, mode) as client:
        await left_early(surface.stream(client))
        gc.collect()
    for _ in range(60):  # litellm's own logging holds on to a stream for a moment
        if instrumented.spans():
            break
        await asyncio.sleep(0.05)
    span = instrumented.span()
    check_span(surface, span, outcome=("closed", "abandoned"))
    assert "error.type" not in span.attributes
    assert span.attributes["tokenbudget.usage.estimated"] is True
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (1, 1)
    assert totals.usage.input_tokens is not None
    assert [row.reserved_usd for row in meter.enforcer.status()] == [0]


@rows("call", "stream")
@pytest.mark.parametrize("status", (429, 500))
async def test_errors(
    surface: Surface, mode: str, kind: str, status: int, sim: Simulator, telemetry: Any, meter: Meter
) -> None:
    if surface.errors is not None:
        return  # the table says why
    meter.enforcer.add(tb.Budget(limit_usd=100, window="hour", name="errors", unpriced="allow"))
    results = []
    for instrumented in (False, True):
        sim.reset()
        sim.then(Behaviour(status=status))
        if instrumented:
            tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        try:
            async with client_of(surface, sim, mode) as client:
                results.append(await outcome(surface, client, kind))
        finally:
            tb.uninstrument()
    assert results[0] == results[1]
    assert results[0][0] == "raised"
    span = telemetry.span()
    attributes = check_span(surface, span, outcome=("failed",))
    assert attributes["error.type"]
    # A refusal of the provider's costs nothing; what comes after it may have done the work is estimated.
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == ((0, 0) if status == 429 else (1, 1))
    assert [row.reserved_usd for row in meter.enforcer.status()] == [0]


@surfaces()
async def test_refused_before_a_byte_is_sent(
    surface: Surface, mode: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    kinds = [kind for kind in ("call", "stream") if getattr(surface, kind)]
    async with client_of(surface, sim, mode) as client:
        with tb.budget(max_calls=0):
            for kind in kinds:
                with pytest.raises(tb.BudgetExceeded):
                    await run(surface, client, kind)
    assert sim.requests == []
    totals = meter.totals.get()
    assert (totals.calls, totals.refused_calls) == (0, len(kinds))
    for span in instrumented.spans():
        check_span(surface, span, outcome=("refused",))


@surfaces()
async def test_suppressed_spans_do_not_hide_the_cost(
    surface: Surface, mode: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    sim.then(Behaviour(**surface.behaviour))
    async with client_of(surface, sim, mode) as client:
        with suppress_instrumentation():
            await run(surface, client, one_of(surface))
    assert instrumented.spans() == []
    assert meter.totals.get().calls == 1
    assert meter.totals.get().estimated_calls == 0


@surfaces(("sync",))
async def test_uninstrument_brings_the_originals_back(
    surface: Surface, mode: str, sim: Simulator, telemetry: Any, meter: Meter
) -> None:
    async with client_of(surface, sim, mode) as client:  # imports the SDK
        for _ in range(2):
            tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
            replaced = list(hooks(surface))
            assert replaced
            assert all(vars(owner).get(name) is not previous for owner, name, previous in replaced)
            tb.uninstrument()
            assert all(vars(owner).get(name) is previous for owner, name, previous in replaced)
        await run(surface, client, one_of(surface))
    assert telemetry.spans() == []
    assert meter.totals.get().calls == 0


@surfaces()
async def test_one_client_only(surface: Surface, mode: str, sim: Simulator, telemetry: Any, meter: Meter) -> None:
    if surface.wrap is not None:
        return  # the table says why
    options = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    kind = one_of(surface)
    async with client_of(surface, sim, mode) as client, client_of(surface, sim, mode) as other:
        assert tb.wrap(client, **options) is client
        assert tb.wrap(client, **options) is client
        await run(surface, client, kind)
        await run(surface, other, kind)
        assert meter.totals.get().calls == 1
        tb.instrument(**options)
        try:
            await run(surface, client, kind)
            assert meter.totals.get().calls == 2
        finally:
            tb.uninstrument()
        assert tb.unwrap(client) is client
        await run(surface, client, kind)
        assert meter.totals.get().calls == 2
    assert len(telemetry.spans()) == 2


@surfaces()
async def test_many_callers(surface: Surface, mode: str, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    kind, calls = one_of(surface), 12
    sim.default = Behaviour(**surface.behaviour)
    async with client_of(surface, sim, mode) as client:
        if mode == "async":
            await asyncio.gather(*(run(surface, client, kind) for _ in range(calls)))
        else:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: asyncio.run(_run_here(surface, client, kind)), range(calls)))
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (calls, 0)
    expected = surface.stream_usage if kind == "stream" and surface.stream_usage is not None else surface.usage
    assert totals.usage.counts() == {name: count * calls for name, count in expected.items()}
    spans = instrumented.spans()
    assert len({span.attributes["tokenbudget.call.id"] for span in spans}) == len(spans) == calls


async def _run_here(surface: Surface, client: Any, kind: str) -> None:
    await settled(await run(surface, client, kind))


@surfaces(("sync",))
async def test_tags_reach_the_span_and_the_totals(
    surface: Surface, mode: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    async with client_of(surface, sim, mode) as client:
        with tb.tags(tenant="acme"):
            await run(surface, client, one_of(surface))
    assert instrumented.span().attributes["tokenbudget.tag.tenant"] == "acme"
    assert meter.totals.get("tenant")["acme"].calls == 1
