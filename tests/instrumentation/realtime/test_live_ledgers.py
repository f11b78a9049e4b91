"""Live sessions whose budgets are counted elsewhere: an event loop goes on while the ledger is asked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from live_rows import ROWS, SILENCE, SPEECH, Live

import tokenbudget_otel as tb
from tokenbudget_otel.budgets import MemoryLedger
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

SLOW = 0.2
SHORT = Behaviour(text="A river.", input_tokens=300, output_tokens=6)


class SlowLedger(MemoryLedger):
    """A ledger at the other end of a slow line."""

    blocking = True

    def reserve(self, *arguments: Any) -> Any:
        time.sleep(SLOW)
        return super().reserve(*arguments)


class Pulse:
    """The longest that the event loop stood still."""

    async def __aenter__(self) -> Pulse:
        self.longest = 0.0
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0)
        return self

    async def _beat(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.sleep(0.002)
        self._task.cancel()


LOOPS = tuple(row for row in ROWS if row.name in ("openai-async", "responses-async", "gemini"))


@pytest.mark.parametrize("row", LOOPS, ids=[row.name for row in LOOPS], indirect=True)
@pytest.mark.parametrize("how", ("written", "spoken", "refused"))
async def test_an_event_loop_goes_on(
    how: str, row: Live, client: Any, sim: Simulator, instrumented: Any, meter: Meter
) -> None:
    if how == "spoken" and not row.speaks:
        pytest.skip("these sessions are written")
    meter.enforcer.use(SlowLedger())
    meter.enforcer.add(tb.Budget(limit_calls=0 if how == "refused" else 5, name="b"))
    sim.then(SHORT)
    async with row.session(client, spoken=how == "spoken") as talk:
        begun = time.monotonic()
        async with Pulse() as pulse:
            if how == "refused":
                with pytest.raises(tb.BudgetExceeded):
                    await talk.ask()
            elif how == "spoken":
                await talk.hear(SPEECH)
            else:
                await talk.ask()
        took = time.monotonic() - begun
        if how == "spoken":
            await talk.hear(SILENCE)
        if how != "refused":
            await talk.turn()
    assert took >= SLOW  # it was asked before anything was sent
    assert pulse.longest < SLOW
    assert meter.enforcer.flush()
    (status,) = meter.enforcer.status()
    assert (status.spent_calls, status.reserved_calls) == (0 if how == "refused" else 1, 0)
    assert len(sim.billed) == status.spent_calls
