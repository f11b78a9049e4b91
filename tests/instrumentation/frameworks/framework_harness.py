"""What the tests of frameworks share: ways to call a model through a framework, and what a call must leave behind.

A framework brings a list of :class:`Way`; the tests are written once for all of them. Frameworks are imported
inside the ways, when one runs: importing them takes seconds, and each environment has only some of them.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import openai
import pytest
from pydantic import BaseModel

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import deferred
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

http: Final = importlib.import_module("httpx2" if int(openai.__version__.split(".")[0]) >= 3 else "httpx")
"""The HTTP library that the installed major version of the OpenAI SDK works with."""

MODEL: Final = "gpt-4o"
CLAUDE: Final = "claude-sonnet-4-6"

PARTS: Final = {"cached_tokens": 16, "reasoning_tokens": 8}
"""What the simulator counts besides the text, so that a part that is lost or counted twice is noticed."""

LOOKS_UP: Final = Behaviour(tool_calls=(ToolCall("weather", {"city": "Rome"}),), **PARTS)
"""The model asks for the tool :func:`weather`."""


class Answer(BaseModel):
    """A structured answer."""

    answer: str


def weather(city: str) -> str:
    """Tells the weather in a city."""
    return f"sunny in {city}"


ASKS: Final = Behaviour(tool_calls=(ToolCall("ask", {"question": "What now?"}),), **PARTS)
"""The model asks for a tool that makes a call of its own."""


def asking(stand: Stand) -> Callable[[str], str]:
    """A tool that calls a model, with the plain SDK: a sync function, which async agents run in a thread."""

    def ask(question: str) -> str:
        """Asks somebody else."""
        messages: Any = [{"role": "user", "content": question}]
        return stand.openai().chat.completions.create(model=MODEL, messages=messages).choices[0].message.content or ""

    return ask


class Stand:
    """Where a way finds the provider, and HTTP clients that are cheap to make (they load no certificates)."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim

    @cached_property
    def http(self) -> Any:
        return http.Client(verify=False)

    @cached_property
    def async_http(self) -> Any:
        return http.AsyncClient(verify=False)

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.sim.openai_url, api_key="any", http_client=self.http)

    def async_openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.sim.openai_url, api_key="any", http_client=self.async_http)

    def run(self, way: Callable[[Stand], Any]) -> Any:
        """What the way gives, in an event loop of its own where it is async."""
        made = way(self)
        return asyncio.run(self._awaited(made)) if inspect.isawaitable(made) else made

    async def _awaited(self, made: Any) -> Any:
        try:
            return await made
        finally:
            if "async_http" in vars(self):
                with suppress(RuntimeError):  # its connections belonged to a loop that has ended
                    await self.async_http.aclose()

    def close(self) -> None:
        if "http" in vars(self):
            self.http.close()


def first(source: Any) -> Any:
    """The first piece of a stream, which is closed then."""
    piece = next(source)
    source.close()
    return piece


async def afirst(source: Any) -> Any:
    piece = await anext(source)
    await source.aclose()
    return piece


@dataclass(frozen=True)
class Way:
    """One way to call a model through a framework.

    Attributes:
        framework: its name.
        name: the way: ``invoke``, ``agent with a tool``.
        run: makes the calls, given a :class:`Stand`; what it gives is awaited.
        needs: the modules that have to be installed.
        answers: how the calls are answered, in their order; the simulator's own way for those that follow.
        calls: how many calls it makes.
        system, model, operation: of the calls' spans.
        refusals: how many times a budget without any room may be asked. More than once only where the framework
            asks for several answers at a time, or tries again.
        wrapped: the name of the error that a refusal is wrapped in; ``None`` where it comes out as itself.
        early: makes one call, and leaves its stream after the first piece; ``None`` where there is no stream.
    """

    framework: str
    name: str
    run: Callable[[Stand], Any]
    needs: tuple[str, ...]
    answers: tuple[Behaviour, ...] = ()
    calls: int = 1
    system: str = "openai"
    model: str = MODEL
    operation: str = "chat"
    refusals: Container[int] = (1,)
    wrapped: str | None = None
    early: Callable[[Stand], Any] | None = None

    def __str__(self) -> str:
        return f"{self.framework}-{self.name}".replace(" ", "_")


def only(ways: list[Way], *names: str) -> list[Way]:
    """The ways with these names, after the first word: what is done with every kind of model. The rest is the
    framework's own code, whatever the model."""
    return [way for way in ways if way.name.partition(" ")[2] in names]


def all_ways() -> list[Way]:
    names = ("langchain", "llama_index", "openai_agents", "pydantic_ai", "instructor", "google")
    return [way for name in names for way in importlib.import_module(f"ways_{name}").WAYS]


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def rows(ways: list[Way]) -> list[Any]:
    """Parameters of a test: one a way, skipped where the environment lacks the framework."""
    marked = []
    for way in ways:
        missing = [name for name in way.needs if not installed(name)]
        reason = f"{', '.join(missing)} is not in this environment"
        marked.append(pytest.param(way, id=str(way), marks=pytest.mark.skipif(bool(missing), reason=reason)))
    return marked


@contextmanager
def program(telemetry: Any) -> Iterator[Any]:
    """A span of the user's own, of which everything is to be a child."""
    with telemetry.tracer_provider.get_tracer("program").start_as_current_span("program") as span:
        yield span


def ended(telemetry: Any) -> tuple[Any, ...]:
    """The spans that have ended, without a look for what was dropped: the collector takes long by now."""
    deferred.drain()
    return telemetry.exporter.get_finished_spans()


INFERENCE: Final = ("chat", "generate_content", "embeddings", "text_completion")


def inferences(spans: Iterable[Any]) -> list[Any]:
    """The spans that say that they are a call to a model."""
    return [span for span in spans if (span.attributes or {}).get("gen_ai.operation.name") in INFERENCE]


def of_bill(usage: Any) -> tuple[int, ...]:
    return (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)


def of_span(span: Any) -> tuple[int, ...]:
    names = (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.reasoning.output_tokens",
    )
    return tuple(span.attributes.get(name, 0) for name in names)


def cost_of(way: Way, usage: Any) -> int:
    """What the price book says a bill comes to, in nano-USD."""
    tokens = tb.TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
    cost = tb.calculate_cost(way.model, tokens, way.system)
    assert cost is not None
    assert cost.nano_usd
    return cost.nano_usd


def is_below(span: Any, root: Any, spans: list[Any]) -> bool:
    """Whether ``span`` is a descendant of ``root`` through spans that have ended."""
    by_id = {each.context.span_id: each for each in spans}
    root_id = root.get_span_context().span_id
    while span is not None and span.parent is not None:
        if span.parent.span_id == root_id:
            return True
        span = by_id.get(span.parent.span_id)
    return False
