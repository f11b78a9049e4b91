"""Every stream of every SDK, under a budget that cuts it: what comes out, and what is booked."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from contract import check_span, client_of, opened
from surface import Surface
from test_contract import rows

import tokenbudget_otel as tb
from both_modes import each, settled
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

UNCOUNTED = {
    "images.generate": "pictures come, and no text",
    "audio.transcriptions": "priced by what is heard",
    "audio.transcriptions.create": "priced by what is heard",
}
"""Streams whose output is not counted as it arrives."""

WORDS = 300
"""Pieces of the long answer, each of a token or more."""

KEPT = {"text_completion (openai)": "LiteLLM reads it in a generator of its own, and holds on to what that reads"}
"""Streams whose connection is closed when the SDK lets go of it, and not at once."""

USUAL = 4
"""Tokens of the usual answer: what a call expects, and reserves."""

ROOM = 6
"""Tokens of output beside those that the budget has room for; all in all fewer than any request allows."""


async def each_of(stream: Any) -> AsyncIterator[Any]:
    """Every item of a stream."""
    items, leave = await opened(stream)
    async for item in each(items):
        yield item
    if leave is not None:
        await settled(leave(None))


@pytest.mark.soak  # each surface is here; how a cut looks to a program is in tests/instrumentation/budgets
@rows("stream")
async def test_a_stream_that_outgrows_its_budget_is_cut(
    surface: Surface, mode: str, kind: str, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    if surface.name in UNCOUNTED or surface.early is not None:
        return
    async with client_of(surface, sim, mode) as client:
        form = '{"answer": "%s"}' if "text" in surface.behaviour else "%s"
        meter._learn(surface.system, surface.model, USUAL)
        sim.then(Behaviour(text=form % "words", output_tokens=USUAL))
        with tb.budget(max_tokens=1_000_000) as run:
            reserved = 0
            async for _ in each_of(surface.stream(client)):
                reserved = reserved or run._reserved[1]
        instrumented.spans()
        instrumented.exporter.clear()

        read = reserved - USUAL
        text = form % " ".join(f"word{n}" for n in range(WORDS))
        sim.then(Behaviour(text=text, chunks=WORDS, chunk_s=0.004, input_tokens=read))
        limit = reserved + ROOM
        with tb.budget(max_tokens=limit, cut_streams=True) as run:
            items, leave = await opened(surface.stream(client))
            iterator = items.__aiter__() if hasattr(items, "__aiter__") else iter(items)
            step = iterator.__anext__ if hasattr(iterator, "__anext__") else iterator.__next__
            seen = 0
            with pytest.raises(tb.BudgetExceeded) as caught:
                while True:
                    await settled(step())
                    seen += 1
            with pytest.raises((StopIteration, StopAsyncIteration)):
                await settled(step())
            if leave is not None:
                await settled(leave(None))
            assert run.spent_tokens > 0
        refusal = caught.value
        refusal.__traceback__ = None  # where frames hold on to the stream
        del items, iterator, step, leave, caught
        gc.collect()

    assert isinstance(refusal, tb.TokenLimitReached)
    assert refusal.partial
    assert 0 < seen < WORDS
    assert run._reserved == [0, 0, 0]
    assert limit - 5 <= run.spent_tokens <= limit

    span = instrumented.span()
    attributes = check_span(surface, span, outcome=("cut_by_budget",))
    assert attributes["error.type"] == "tokenbudget_otel.TokenLimitReached"
    assert attributes["tokenbudget.usage.estimated"] is True
    counted = attributes["gen_ai.usage.input_tokens"] + attributes["gen_ai.usage.output_tokens"]
    assert counted == run.spent_tokens

    for _ in range(100):  # nothing goes on at the provider
        if not sim.open_requests:
            break
        await asyncio.sleep(0.01)
    assert sim.settle()
    assert not sim.billed[-1].completed or surface.name in KEPT
