"""The peers: how each is set up, as its users do with its defaults, and what it claims to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemetry import Telemetry

HERE = Path(__file__).parent

NO_PRICES = HERE.parent.parent / "tests" / "peers" / "no_prices.json"
"""OpenLIT asks the network for prices otherwise."""

Flush = list[Any]
"""What has to be flushed before the exporter has everything, besides the processor that all share."""

OPENAI = ("chat", "responses", "embeddings", "chat-stream", "chat-stream-usage", "responses-stream")
ANTHROPIC = ("messages", "messages-stream")


def official(_: Telemetry) -> Flush:
    from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    AnthropicInstrumentor().instrument()
    return []


def native(_: Telemetry) -> Flush:
    """The anthropic SDK makes spans by itself: nothing to set up."""
    return []


def openllmetry(_: Telemetry) -> Flush:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    AnthropicInstrumentor().instrument()
    return []


def openinference(_: Telemetry) -> Flush:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    AnthropicInstrumentor().instrument()
    return []


def openlit(_: Telemetry) -> Flush:
    import openlit
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.sdk._logs import LoggerProvider

    set_logger_provider(LoggerProvider())  # it prints its events otherwise
    openlit.init(pricing_json=str(NO_PRICES))
    return []


def logfire(telemetry: Telemetry) -> Flush:
    """A configuration of its own beside the global providers, so that the other sides keep theirs."""
    import logfire
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    processor = telemetry.batching()
    configured = logfire.configure(
        local=True,
        send_to_logfire=False,
        console=False,
        additional_span_processors=[processor],
        metrics=logfire.MetricsOptions(additional_readers=[InMemoryMetricReader()]),
    )
    configured.instrument_openai()
    configured.instrument_anthropic()
    return [processor]


def langfuse(telemetry: Telemetry) -> Flush:
    """A provider of its own, to which it adds its processor. Its drop-in for openai wraps when it is imported."""
    import langfuse.openai  # noqa: F401
    from langfuse import Langfuse
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    Langfuse(
        public_key="pk",
        secret_key="sk",
        base_url="http://127.0.0.1:9",
        tracer_provider=provider,
        span_exporter=telemetry.exporter,
    )
    return [provider]


@dataclass(frozen=True)
class Peer:
    """One of them.

    Attributes:
        environment: under ``.peers``; the name of its requirements as well.
        distributions: whose versions are noted.
        workloads: what it makes spans of.
        miscounts: of those, where it does not say how many tokens the answer has, or not rightly. None does of a stream
            that was not asked for its usage. Each is checked, either way.
    """

    title: str
    environment: str
    put_on: Callable[[Telemetry], Flush]
    distributions: tuple[str, ...]
    workloads: tuple[str, ...] = (*OPENAI, *ANTHROPIC)
    miscounts: frozenset[str] = frozenset(("chat-stream",))


PEERS: dict[str, Peer] = {
    "official": Peer(
        "official",
        "official",
        official,
        ("opentelemetry-instrumentation-genai-openai", "opentelemetry-instrumentation-genai-anthropic"),
    ),
    "openinference": Peer(
        "OpenInference",
        "openinference",
        openinference,
        ("openinference-instrumentation-openai", "openinference-instrumentation-anthropic"),
    ),
    "openllmetry": Peer(
        "OpenLLMetry",
        "openllmetry",
        openllmetry,
        ("opentelemetry-instrumentation-openai", "opentelemetry-instrumentation-anthropic"),
        miscounts=frozenset(("chat-stream", "messages-stream")),
    ),
    "openlit": Peer("OpenLIT", "openlit", openlit, ("openlit",)),
    "logfire": Peer("logfire", "logfire", logfire, ("logfire",)),
    "langfuse": Peer("langfuse", "langfuse", langfuse, ("langfuse",), workloads=OPENAI),
    "native": Peer("anthropic's own", "official", native, ("anthropic",), workloads=ANTHROPIC),
}
