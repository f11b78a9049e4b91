"""What the tests of metrics share: instrumentors with options, a reader, and what it read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from tokenbudget_otel.instrumentation.anthropic import AnthropicInstrumentor
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.simulator import Simulator

OURS = (OpenAIInstrumentor, AnthropicInstrumentor)
GPT, CLAUDE = "gpt-4o", "claude-haiku-4-5"
SAID: Any = [{"role": "user", "content": "How much is this?"}]


@dataclass
class Point:
    """A data point, of a counter or a histogram."""

    attributes: dict[str, Any]
    count: int | None
    sum: float
    bounds: tuple[float, ...] = ()


class Readings:
    """What metrics came to. Points of all scopes of a name are read together."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        data = reader.get_metrics_data()
        self.units: dict[str, str] = {}
        self.points: dict[str, list[Point]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.units[metric.name] = metric.unit
                    for point in metric.data.data_points:
                        count = getattr(point, "count", None)
                        value = point.sum if count is not None else point.value
                        bounds = tuple(getattr(point, "explicit_bounds", ()))
                        self.points.setdefault(metric.name, []).append(
                            Point(dict(point.attributes), count, value, bounds)
                        )

    def __getitem__(self, name: str) -> list[Point]:
        return self.points.get(name, [])

    def one(self, name: str) -> Point:
        (point,) = self[name]
        return point

    def by(self, name: str, attribute: str) -> dict[Any, float]:
        """Sums by an attribute."""
        sums: dict[Any, float] = {}
        for point in self[name]:
            key = point.attributes.get(attribute)
            sums[key] = sums.get(key, 0) + point.sum
        return sums


@contextmanager
def measuring(*kinds: Any, tracers: TracerProvider | None = None, **options: Any) -> Iterator[Any]:
    """Instrument, ours by default; gives what reads the metrics."""
    reader = InMemoryMetricReader()
    meters, tracers = MeterProvider([reader]), tracers or TracerProvider()
    instrumentors = [kind() for kind in kinds or OURS]
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=tracers, meter_provider=meters, **options)
    try:
        yield lambda: Readings(reader)
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()
        tracers.shutdown()


def gpt(sim: Simulator) -> openai.OpenAI:
    return openai.OpenAI(base_url=sim.openai_url, api_key="any", max_retries=0)


def claude(sim: Simulator) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=sim.anthropic_url, api_key="any", max_retries=0, open_telemetry=False)


def chat(sim: Simulator, model: str = GPT, **more: Any) -> Any:
    return gpt(sim).chat.completions.create(model=model, messages=SAID, **more)


def chat_stream(sim: Simulator) -> None:
    for _ in chat(sim, stream=True, stream_options={"include_usage": True}):
        pass


def embeddings(sim: Simulator) -> None:
    gpt(sim).embeddings.create(model="text-embedding-3-small", input="How much is this?")


def responses(sim: Simulator) -> None:
    gpt(sim).responses.create(model="gpt-5", input="How much is this?")


def responses_stream(sim: Simulator) -> None:
    for _ in gpt(sim).responses.create(model="gpt-5", input="How much is this?", stream=True):
        pass


def message(sim: Simulator, **more: Any) -> Any:
    return claude(sim).messages.create(model=CLAUDE, max_tokens=99, messages=SAID, **more)


def message_stream(sim: Simulator) -> None:
    for _ in message(sim, stream=True):
        pass


def tried(call: Any, sim: Simulator) -> None:
    """Make a call that may fail."""
    with suppress(openai.OpenAIError, anthropic.AnthropicError):
        call(sim)
