"""What is counted and what is refused does not depend on what is traced: one program under every sampler, without an
SDK, and with the SDK switched off, comes to the same totals and the same refusals, to the last digit."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import anthropic
import openai
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

import tokenbudget_otel as tb
from tokenbudget_otel import meter as meter_module
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import guard, hosts
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.processor import TokenBudgetSpanProcessor
from tokenbudget_otel.simulator import Behaviour, Simulator

CALLS: Final = 300
TRIAL_CALLS: Final = 25
"""The trial tenant may make so many calls; it would make more."""

GPT: Final = "gpt-4o-mini"
CLAUDE: Final = "claude-haiku-4-5"
EMBED: Final = "text-embedding-3-small"

TENANTS: Final = ("acme", "globex", "trial")

BUDGETS: Final = (
    tb.Budget(limit_calls=TRIAL_CALLS, window="lifetime", match={"tenant": "trial"}, name="trial"),
    # In money, one tenant comes to its end somewhere on the way, and two do not.
    tb.Budget(limit_usd="0.004", window="lifetime", match={"tenant": "globex"}, name="globex"),
    tb.Budget(limit_usd=1_000, window="lifetime", per="tenant", name="roomy"),
)


class _SameIds(IdGenerator):
    """The same ids in every run, so that the same traces are sampled."""

    def __init__(self) -> None:
        self._random = random.Random(7)

    def generate_span_id(self) -> int:
        return self._random.randrange(1, 2**64)

    def generate_trace_id(self) -> int:
        return self._random.randrange(1, 2**128)


# --- the program -------------------------------------------------------------------------------------------------


class Program:
    """Calls of many kinds, one after the other, each in a trace of its own: the same in every run."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.openai = openai.OpenAI(base_url=sim.openai_url, api_key="any", max_retries=0)
        self.async_openai = openai.AsyncOpenAI(base_url=sim.openai_url, api_key="any", max_retries=0)
        self.anthropic = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="any", max_retries=0)
        self.async_anthropic = anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="any", max_retries=0)
        self.refused: list[tuple[int, str]] = []
        self.limited = 0

    def close(self) -> None:
        self.openai.close()
        self.anthropic.close()

    # Each kind of call, as something that may have to be awaited.

    async def chat(self, ask: Any) -> None:
        self.openai.chat.completions.create(model=GPT, messages=ask)

    async def chat_stream(self, ask: Any) -> None:
        for _ in self.openai.chat.completions.create(model=GPT, messages=ask, stream=True):
            pass

    async def chat_async(self, ask: Any) -> None:
        await self.async_openai.chat.completions.create(model=GPT, messages=ask)

    async def chat_async_stream(self, ask: Any) -> None:
        async for _ in await self.async_openai.chat.completions.create(model=GPT, messages=ask, stream=True):
            pass

    async def response(self, ask: Any) -> None:
        self.openai.responses.create(model=GPT, input=ask)

    async def embedding(self, ask: Any) -> None:
        self.openai.embeddings.create(model=EMBED, input=ask[0]["content"])

    async def message(self, ask: Any) -> None:
        self.anthropic.messages.create(model=CLAUDE, max_tokens=64, messages=ask)

    async def message_stream(self, ask: Any) -> None:
        with self.anthropic.messages.stream(model=CLAUDE, max_tokens=64, messages=ask) as stream:
            stream.until_done()

    async def message_async(self, ask: Any) -> None:
        await self.async_anthropic.messages.create(model=CLAUDE, max_tokens=64, messages=ask)

    KINDS = (chat, message, chat_stream, embedding, chat_async, message_stream, response, chat_async_stream,
             message_async)  # fmt: skip

    async def run(self, calls: int, tracer: trace.Tracer) -> None:
        for number in range(calls):
            kind = self.KINDS[number % len(self.KINDS)]
            ask = [{"role": "user", "content": "Tell me of the river. " * (1 + number % 7)}]
            sent = len(self.sim.requests)
            self.sim.default = Behaviour(status=429) if number % 11 == 5 else Behaviour()
            with (
                tracer.start_as_current_span(f"request {number}"),
                tb.tags(tenant=TENANTS[number % len(TENANTS)], feature=f"f{number % 4}"),
            ):
                try:
                    await kind(self, ask)
                except tb.BudgetExceeded as refusal:
                    assert len(self.sim.requests) == sent, "a refused call was sent"
                    self.refused.append((number, str(refusal.budget)))
                except (openai.RateLimitError, anthropic.RateLimitError):
                    self.limited += 1


# --- the settings ------------------------------------------------------------------------------------------------


@dataclass
class Setting:
    """How the program is traced."""

    sampler: Callable[[], Sampler] | None = None
    """``None``: there is no tracer provider but the API's own."""
    environment: dict[str, str] = field(default_factory=dict)
    exported: tuple[int, int] = (0, 0)
    """The fewest and the most calls of which spans are exported, per hundred."""


SETTINGS: Final = {
    "ratio 1": Setting(lambda: TraceIdRatioBased(1.0), exported=(100, 100)),
    "ratio 0.1": Setting(lambda: TraceIdRatioBased(0.1), exported=(3, 25)),
    "ratio 0": Setting(lambda: TraceIdRatioBased(0.0)),
    "parent based, ratio 1": Setting(lambda: ParentBased(TraceIdRatioBased(1.0)), exported=(100, 100)),
    "parent based, ratio 0.1": Setting(lambda: ParentBased(TraceIdRatioBased(0.1)), exported=(3, 25)),
    "parent based, ratio 0": Setting(lambda: ParentBased(TraceIdRatioBased(0.0))),
    "always off": Setting(lambda: ALWAYS_OFF),
    "SDK disabled": Setting(lambda: ALWAYS_ON, {"OTEL_SDK_DISABLED": "true"}),
    "no SDK": Setting(),
}


@dataclass
class Outcome:
    """What one run came to."""

    totals: dict[tuple[str, ...], tuple[Any, ...]]
    refused: list[tuple[int, str]]
    limited: int
    spent: dict[str, tuple[Decimal, int, int]]
    billed: Counter[tuple[str, str]]
    counted: Counter[tuple[str, str]]
    spans: list[ReadableSpan]


def run(sim: Simulator, setting: Setting, *, processor: bool = False, calls: int = CALLS) -> Outcome:
    """The program, from nothing, under a setting."""
    sim.reset()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in setting.environment.items():
            patch.setenv(name, value)
        patch.setattr(hosts, "_configured", {})
        tb.map_host(sim.openai_url, "openai")
        patch.setattr(meter_module, "_meter", meter := Meter())
        exporter = InMemorySpanExporter()
        provider: Any = None
        if setting.sampler is not None:
            provider = TracerProvider(sampler=setting.sampler(), id_generator=_SameIds())
            if processor:
                provider.add_span_processor(TokenBudgetSpanProcessor())
            provider.add_span_processor(SimpleSpanProcessor(exporter))
        else:
            assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "somebody has set a provider"
        tracer = (provider or trace.get_tracer_provider()).get_tracer("the program")
        metrics = MeterProvider([InMemoryMetricReader()]) if provider is not None else None
        program = Program(sim)
        tb.instrument(provider, metrics, budgets=BUDGETS)
        try:
            asyncio.run(program.run(calls, tracer))
        finally:
            tb.uninstrument()
            program.close()
        totals = {
            group: (
                each.calls,
                each.refused_calls,
                each.estimated_calls,
                each.unpriced_calls,
                each.nano_usd,
                each.usage,
            )
            for group, each in tb.usage(by=("provider", "model", "operation", "tenant", "feature")).items()
        }
        counted: Counter[tuple[str, str]] = Counter()
        for model, each in tb.usage(by="model").items():
            counted[model, "calls"] = each.calls
            counted[model, "input"] = each.usage.input_tokens or 0
            counted[model, "output"] = each.usage.output_tokens or 0
        billed: Counter[tuple[str, str]] = Counter()
        for bill in sim.billed:
            billed[bill.model, "calls"] += 1
            billed[bill.model, "input"] += bill.usage.input_tokens
            billed[bill.model, "output"] += bill.usage.output_tokens
        spent = {
            f"{row.budget} {dict(row.scope)}": (row.spent_usd, row.spent_tokens, row.spent_calls)
            for row in meter.enforcer.status()
        }
        if provider is not None:
            provider.shutdown()
    assert not guard._logged
    return Outcome(
        totals, program.refused, program.limited, spent, +billed, +counted, list(exporter.get_finished_spans())
    )


@pytest.fixture(scope="module")
def expected(_simulator: Simulator) -> Iterator[Outcome]:
    """The program where everything is traced."""
    yield run(_simulator, Setting(lambda: ALWAYS_ON))
    _simulator.reset()


def held_against(found: Outcome, expected: Outcome) -> None:
    assert found.refused == expected.refused
    assert found.limited == expected.limited
    assert found.spent == expected.spent
    assert found.totals == expected.totals
    assert found.counted == found.billed == expected.billed


def test_the_program_is_worth_comparing(expected: Outcome) -> None:
    """Both budgets run out, one of them exactly; there are errors, and what was billed is what was counted."""
    refused = Counter(budget for _, budget in expected.refused)
    assert refused.keys() == {"trial", "globex"}
    trial = sum(row[0] for group, row in expected.totals.items() if group[3] == "trial")
    assert trial == TRIAL_CALLS
    assert expected.limited > 10
    assert expected.counted == expected.billed
    assert {model for model, _ in expected.billed} == {GPT, CLAUDE, EMBED}
    assert len(of_calls(expected.spans)) == CALLS


@pytest.mark.parametrize("name", SETTINGS)
def test_totals_and_refusals_are_the_same(_simulator: Simulator, expected: Outcome, name: str) -> None:
    setting = SETTINGS[name]
    found = run(_simulator, setting)
    held_against(found, expected)
    least, most = setting.exported
    assert least <= 100 * len(of_calls(found.spans)) / CALLS <= most


@pytest.mark.parametrize("name", ("ratio 1", "ratio 0.1", "ratio 0", "always off", "SDK disabled"))
def test_the_span_processor_changes_nothing(_simulator: Simulator, expected: Outcome, name: str) -> None:
    held_against(run(_simulator, SETTINGS[name], processor=True), expected)


def of_calls(spans: list[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if semconv.CALL_ID in (span.attributes or {})]
