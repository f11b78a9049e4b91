"""Whatever comes back, the program gets exactly what the SDK gives without us, and the span says what is known."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from contract import check_span, client_of, outcome
from surface import ALL, Surface, installed

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

SEEDS = 12
"""Damaged answers of each kind that every surface is given, others in every run outside CI."""


CASES = [
    pytest.param(
        surface,
        kind,
        id=f"{surface}-{kind}",
        marks=pytest.mark.skipif(not installed(surface.sdk), reason=f"{surface.sdk} is not installed"),
    )
    for surface in ALL
    for kind in ("call", "stream")
    if getattr(surface, kind) and surface.fuzz is None
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("surface", "kind"), CASES)
async def test_damaged_answers(
    surface: Surface, kind: str, sim: Simulator, telemetry: Any, meter: Meter, seeds: list[int]
) -> None:
    mode = "sync" if surface.modes.get("sync") is None else "async"
    behaviours = [Behaviour(**{**surface.behaviour, "text": "A river.", "damage": seed}) for seed in seeds]
    behaviours.append(Behaviour(**{**surface.behaviour, "text": "A river.", "usage": "absent"}))
    async with client_of(surface, sim, mode) as client:
        bare = await _outcomes(surface, client, kind, sim, behaviours)
        # Without our request for usage: the same damage in another answer would be another damage.
        tb.instrument(telemetry.tracer_provider, telemetry.meter_provider, stream_usage=False)
        try:
            metered = await _outcomes(surface, client, kind, sim, behaviours)
        finally:
            tb.uninstrument()
    for behaviour, without, with_us in zip(behaviours, bare, metered, strict=True):
        assert without == with_us, behaviour
    spans = telemetry.spans()
    assert len(spans) == len(behaviours)
    for span in spans:
        check_span(surface, span, outcome=("completed", "failed", "cut", "closed", "abandoned", "background"))
    # An answer without usage is an estimate that says so, or unknown: never a count.
    last = spans[-1].attributes
    assert last.get("tokenbudget.usage.estimated") is True or surface.without_usage == "counted"


async def _outcomes(surface: Surface, client: Any, kind: str, sim: Simulator, behaviours: list[Behaviour]) -> list[Any]:
    results = []
    for behaviour in behaviours:
        sim.reset()
        sim.then(behaviour)
        results.append(await outcome(surface, client, kind))
    return results


@pytest.fixture
def seeds() -> list[int]:
    dice = random.Random(0 if os.environ.get("CI") else None)
    return [dice.randrange(10**6) for _ in range(SEEDS)]
