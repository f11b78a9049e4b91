"""Beside other instrumentations of frameworks: no second span, no second charge, and metering goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import pytest
import ways_langchain
import ways_llama_index
import ways_openai_agents
import ways_pydantic_ai
from framework_harness import LOOKS_UP, MODEL, Stand, cost_of, ended, inferences, installed, of_bill, weather
from opentelemetry import context
from opentelemetry.instrumentation.utils import suppress_instrumentation

import tokenbudget_otel as tb
from tokenbudget_otel.processor import TokenBudgetSpanProcessor

RUNS: dict[str, tuple[str, Callable[[Stand], Any]]] = {
    "LangChain": ("langchain_openai", lambda stand: ways_langchain.chat(stand).invoke("Hi")),
    "LangChain in threads": ("langchain_openai", lambda stand: ways_langchain.chat(stand).batch(["Hi", "Ho"])),
    "LangChain astream": (
        "langchain_openai",
        lambda stand: ways_langchain.read(ways_langchain.chat(stand).astream("Hi")),
    ),
    "openai-agents": ("agents", lambda stand: ways_openai_agents.run(stand, "OpenAIResponsesModel")),
    "Pydantic AI": ("pydantic_ai", lambda stand: ways_pydantic_ai.agent(ways_pydantic_ai.chat(stand)).run("Hi")),
    "LlamaIndex": ("llama_index", lambda stand: ways_llama_index.chat(stand).complete("Hi")),
    "LlamaIndex in tasks": ("llama_index", lambda stand: ways_llama_index.agent(ways_llama_index.chat(stand))),
}


@contextmanager
def key(name: str) -> Iterator[None]:
    token = context.attach(context.set_value(name, True))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def openlit() -> Iterator[None]:
    """OpenLIT's flag, in a module that is only there if OpenLIT is."""
    module = ModuleType("openlit.__helpers")
    flag: ContextVar[bool] = ContextVar("openlit_framework_llm_span_active", default=False)
    module.openlit_framework_llm_span_active = flag  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    token = flag.set(True)
    try:
        yield
    finally:
        flag.reset(token)
        del sys.modules[module.__name__]


SUPPRESSIONS = {
    "OpenTelemetry": suppress_instrumentation,
    "OpenLLMetry": lambda: key("suppress_language_model_instrumentation"),
    "official": lambda: key("opentelemetry.genai.client.inference.context"),
    "official embedding": lambda: key("opentelemetry.genai.client.embedding.context"),
    "official fetch": lambda: key("opentelemetry.genai.client.fetch_response.context"),
    "OpenLIT": openlit,
}


def ready(name: str, stand: Stand) -> Callable[[Stand], Any]:
    needs, make = RUNS[name]
    if not installed(needs):
        pytest.skip(f"{needs} is not in this environment")
    return make


@pytest.mark.parametrize(
    ("name", "other"),
    [(name, other) for name in RUNS for other in SUPPRESSIONS if other == "OpenLLMetry" or "in t" in name],
)
def test_a_framework_that_is_traced_by_others(
    name: str, other: str, stand: Stand, instrumented: Any, meter: Any
) -> None:
    make = ready(name, stand)
    with SUPPRESSIONS[other](), tb.tags(tenant="acme"), tb.budget(max_cost_usd=1) as run:
        stand.run(make)
    assert not ended(instrumented)
    bills = stand.sim.billed
    assert run.calls == tb.usage(by="tenant")["acme"].calls == len(bills) > 0
    assert tb.usage().usage.output_tokens == sum(bill.usage.output_tokens for bill in bills)


@pytest.mark.parametrize("other", SUPPRESSIONS)
def test_budgets_hold_where_spans_are_suppressed(other: str, stand: Stand, instrumented: Any, meter: Any) -> None:
    name = next(name for name, (needs, _) in RUNS.items() if installed(needs))
    with SUPPRESSIONS[other](), pytest.raises(tb.BudgetExceeded), tb.budget(max_calls=0):
        stand.run(RUNS[name][1])
    assert not stand.sim.requests
    assert not ended(instrumented)


# How others write a span of a framework's model call: when it starts, what becomes known in the end, and what they
# set around the call so that nobody makes another.
SPANS = {
    "OpenLLMetry": (
        {"gen_ai.system": "openai", "llm.request.type": "chat", "gen_ai.request.model": MODEL},
        ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
        SUPPRESSIONS["OpenLLMetry"],
    ),
    "OpenInference": (
        {"openinference.span.kind": "LLM", "llm.model_name": MODEL},
        ("llm.token_count.prompt", "llm.token_count.completion"),
        lambda: key("nothing"),
    ),
    "official": (
        {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": MODEL},
        ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
        SUPPRESSIONS["official"],
    ),
}


@pytest.mark.parametrize("other", SPANS)
@pytest.mark.parametrize("name", [name for name in RUNS if name in ("LangChain", "LangChain astream", "LlamaIndex")])
def test_the_span_of_others_gets_the_cost(name: str, other: str, stand: Stand, instrumented: Any, meter: Any) -> None:
    make = ready(name, stand)
    instrumented.tracer_provider.add_span_processor(TokenBudgetSpanProcessor(meter))
    start, counts, around = SPANS[other]
    tracer = instrumented.tracer_provider.get_tracer("somebody.else")
    with tracer.start_as_current_span("ChatOpenAI.chat", attributes=start) as span, around():
        stand.run(make)
        (bill,) = stand.sim.billed
        span.set_attributes(dict(zip(counts, of_bill(bill.usage)[:2], strict=True)))

    (only,) = ended(instrumented)
    assert only.name == "ChatOpenAI.chat"
    assert only.attributes["gen_ai.usage.cost"] > 0
    assert tb.usage().calls == 1
    assert tb.usage().usage.input_tokens == bill.usage.input_tokens


@pytest.mark.skipif(not installed("pydantic_ai"), reason="pydantic_ai is not in this environment")
@pytest.mark.parametrize("kind", ["run", "run_stream"])
def test_pydantic_ai_that_traces_itself(kind: str, stand: Stand, instrumented: Any, meter: Any) -> None:
    from pydantic_ai.capabilities import Instrumentation
    from pydantic_ai.models.instrumented import InstrumentationSettings

    instrumented.tracer_provider.add_span_processor(TokenBudgetSpanProcessor(meter))
    settings = InstrumentationSettings(
        tracer_provider=instrumented.tracer_provider, meter_provider=instrumented.meter_provider
    )
    options = {"tools": [weather], "capabilities": [Instrumentation(settings=settings)]}
    stand.sim.then(LOOKS_UP)

    def run(stand: Stand) -> Any:
        model = ways_pydantic_ai.chat(stand)
        if kind == "run":
            return ways_pydantic_ai.agent(model, **options).run("Hi")
        return ways_pydantic_ai.streamed(model, **options)

    stand.run(run)
    calls = inferences(ended(instrumented))
    assert [span.instrumentation_scope.name for span in calls] == ["pydantic-ai"] * 2
    costs = [cost_of(ways_pydantic_ai.WAYS[0], bill.usage) for bill in stand.sim.billed]
    assert sorted(round(span.attributes["gen_ai.usage.cost"] * 1e9) for span in calls) == sorted(costs)
    totals = tb.usage()
    assert (totals.calls, totals.nano_usd) == (2, sum(costs))
    assert sum(span.attributes["gen_ai.usage.input_tokens"] for span in calls) == totals.usage.input_tokens
