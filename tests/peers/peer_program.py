"""A program in the environment of one peer: makes every call of the matrix, and prints what became of each.

    python peer_program.py PEER ORDER

``ORDER`` is ``absent`` (the peer, and our span processor alone), ``before`` (our instrumentors first), ``after``, or
``bare`` (as ``after``, without the span processor). The last line of the output is JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from peer_calls import ANSWERS, CALLS, Call

import tokenbudget_otel as tb
from tokenbudget_otel import meter as meter_module
from tokenbudget_otel.instrumentation import deferred, guard
from tokenbudget_otel.meter import Meter, meter
from tokenbudget_otel.processor import TokenBudgetSpanProcessor
from tokenbudget_otel.simulator import Simulator


class Watch(SpanProcessor):
    """Every span that starts and ends."""

    def __init__(self) -> None:
        self.started: dict[int, Span] = {}
        self.ended: list[ReadableSpan] = []

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        self.started[span.context.span_id] = span

    def on_end(self, span: ReadableSpan) -> None:
        if self.started.pop(span.context.span_id, None) is not None:
            self.ended.append(span)


class Log(logging.Handler):
    """Every warning, whoever logs it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.getMessage()))


# --- peers -----------------------------------------------------------------------------------------------------------


def official() -> None:
    from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
    from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
    from opentelemetry.instrumentation.google_genai import GoogleGenAiSdkInstrumentor

    for kind in (OpenAIInstrumentor, AnthropicInstrumentor, GoogleGenAiSdkInstrumentor, LangChainInstrumentor):
        kind().instrument()


def native() -> None:
    """The anthropic SDK makes spans by itself."""


def openllmetry() -> None:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
    from opentelemetry.instrumentation.google_generativeai import GoogleGenerativeAiInstrumentor
    from opentelemetry.instrumentation.langchain import LangchainInstrumentor
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    for kind in (OpenAIInstrumentor, AnthropicInstrumentor, GoogleGenerativeAiInstrumentor, LangchainInstrumentor):
        kind().instrument()


def openinference() -> None:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor
    from openinference.instrumentation.google_genai import GoogleGenAIInstrumentor
    from openinference.instrumentation.langchain import LangChainInstrumentor
    from openinference.instrumentation.openai import OpenAIInstrumentor

    for kind in (OpenAIInstrumentor, AnthropicInstrumentor, GoogleGenAIInstrumentor, LangChainInstrumentor):
        kind().instrument()


def openlit() -> None:
    import openlit

    openlit.init(pricing_json=os.environ["OPENLIT_PRICES"], disable_metrics=True, disable_events=True)


def logfire() -> None:
    import logfire

    logfire.instrument_openai()
    logfire.instrument_anthropic()
    logfire.instrument_google_genai()


def langfuse() -> None:
    """Its drop-in for openai wraps the SDK's own methods when it is imported."""
    import langfuse.openai  # noqa: F401
    from langfuse import Langfuse

    # Its spans go to the provider that the program has; its own exporter reaches nobody.
    Langfuse(public_key="pk", secret_key="sk", base_url="http://127.0.0.1:9", tracing_enabled=True)


PEERS: dict[str, Callable[[], None]] = {
    "official": official,
    "native": native,
    "openllmetry": openllmetry,
    "openinference": openinference,
    "openlit": openlit,
    "logfire": logfire,
    "langfuse": langfuse,
}


def provider_with(peer: str, processors: list[SpanProcessor]) -> None:
    """The tracer provider that a program with this peer has."""
    if peer == "logfire":
        import logfire

        logfire.configure(
            send_to_logfire=False, console=False, additional_span_processors=processors, inspect_arguments=False
        )
        return
    made = TracerProvider()
    for processor in processors:
        made.add_span_processor(processor)
    trace.set_tracer_provider(made)


# --- one call --------------------------------------------------------------------------------------------------------


def made(call: Call, sim: Simulator, watch: Watch, log: Log, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """Make one call, and tell what became of it."""
    watch.started.clear()
    watch.ended.clear()
    log.records.clear()
    meter().totals.clear()
    before = len(sim.requests)
    sim.then(ANSWERS[call.model])
    error = None
    try:
        loop.run_until_complete(call.run(sim)) if call.is_async else call.run(sim)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    gc.collect()
    deferred.drain()
    totals = meter().totals.get()
    return {
        "error": error,
        "calls": totals.calls,
        "nano_usd": totals.nano_usd,
        "estimated": totals.estimated_calls,
        "usage": {name: float(count) for name, count in totals.usage.counts().items()},
        "sent": len(sim.requests) - before,
        "leaked": [span.name for span in watch.started.values()],
        "spans": [
            {
                "name": span.name,
                "scope": span.instrumentation_scope.name if span.instrumentation_scope else "",
                "attributes": {
                    name: value if isinstance(value, str | int | float | bool) else repr(value)
                    for name, value in (span.attributes or {}).items()
                },
            }
            for span in watch.ended
        ],
        "log": list(log.records),
    }


def main(peer: str, order: str) -> None:
    watch, log = Watch(), Log()
    logging.getLogger().addHandler(log)
    warnings.simplefilter("ignore")
    processors: list[SpanProcessor] = [watch]
    if order != "bare":
        processors.append(TokenBudgetSpanProcessor())
    meter_module._meter = Meter()
    with Simulator(seed=7) as sim:
        tb.map_host(sim.openai_url, "openai")
        provider_with(peer, processors)
        if order == "before":
            tb.instrument()
        PEERS[peer]()
        if order in ("after", "bare"):
            tb.instrument()
        setup = list(log.records)
        results = {}
        loop = asyncio.new_event_loop()  # one for all calls: LangChain keeps its HTTP clients
        for name in os.environ.get("PEER_CALLS", ",".join(CALLS)).split(","):
            if (call := CALLS.get(name)) is not None:
                results[name] = made(call, sim, watch, log, loop)
        threads = sorted(thread.name for thread in threading.enumerate())
    print()
    print(
        json.dumps({"setup": setup, "results": results, "logged": sorted(map(str, guard._logged)), "threads": threads})
    )
    sys.stdout.flush()
    os._exit(0)  # what peers do at exit is theirs


if __name__ == "__main__":
    main(*sys.argv[1:])
