"""What a provider file promises, surface by surface: rows that the contract suite runs and the documents show.

A provider is under contract by a file ``surfaces_<name>.py`` beside this one with a list ``SURFACES``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenbudget_otel.simulator import Simulator


@dataclass(frozen=True)
class Because:
    """Why a cell of the table does not apply."""

    reason: str

    def __bool__(self) -> bool:
        return False


Call = Callable[[Any], Any]
"""Makes one call, given a client; what an async client gives is awaited (and read) by the suite."""

NO_RAW = Because("the SDK has no raw responses")


@dataclass(frozen=True)
class Surface:
    """One way to call a model with one SDK.

    Attributes:
        provider: who answers, as the table's heading says it: ``Google Gemini``.
        sdk: the name that the SDK is imported under.
        name: the surface: ``models.generate_content``.
        system: ``gen_ai.provider.name``.
        model: the model that is asked for; one with a price, where the provider has prices.
        client: makes a client of the simulator, sync or async (the second argument), that does not retry.
        call, stream, raw: one call each; ``raw`` gives the SDK's raw response (of ``call``).
        behaviour: what the simulator is to count (fields of ``Behaviour``): every part that this surface reports.
        usage: what must be counted then, exactly, as ``TokenUsage.counts()`` gives it.
        stream_usage: the same of a stream, where it differs.
        operation: ``gen_ai.operation.name``.
        cost_state: ``priced``, ``partial``, ``unknown``, ``free``: the ``tokenbudget.cost.state`` that is expected.
        modes: ``sync``, ``async`` or both, and why one is missing.
        early: why a stream of this surface cannot be left early; ``None`` where it can.
        errors: why the simulator's error statuses do not apply; ``None`` where they do.
        fuzz: why damaged answers do not apply; ``None`` where they do.
        wrap: why ``tb.wrap`` does not apply (functions have no client); ``None`` where it does.
        without_usage: ``estimated``, or ``counted`` where the request or the headers say what was used.

    Rows are read in every environment: import SDKs inside the functions, not at the top of the file.
    """

    provider: str
    sdk: str
    name: str
    system: str
    model: str
    client: Callable[[Simulator, bool], Any]
    behaviour: Mapping[str, Any]
    usage: Mapping[str, Any]
    call: Call | Because
    stream: Call | Because
    raw: Call | Because = NO_RAW
    stream_usage: Mapping[str, Any] | None = None
    operation: str = "chat"
    cost_state: str = "priced"
    modes: Mapping[str, Because | None] = field(default_factory=lambda: {"sync": None, "async": None})
    early: Because | None = None
    errors: Because | None = None
    fuzz: Because | None = None
    wrap: Because | None = None
    without_usage: str = "estimated"

    def __str__(self) -> str:
        return f"{self.provider}-{self.name}".replace(" ", "_")


def _all() -> list[Surface]:
    found: list[Surface] = []
    for path in sorted(Path(__file__).parent.glob("surfaces_*.py")):
        found += importlib.import_module(path.stem).SURFACES
    return found


def installed(sdk: str) -> bool:
    """Whether an SDK is there: the previous major versions are tested in an environment without some of them."""
    try:
        return importlib.util.find_spec(sdk) is not None
    except ImportError:
        return False


ALL: list[Surface] = _all()
