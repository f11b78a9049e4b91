"""A program to fill the dashboards: real SDKs, tenants with budgets, streams, tools, and answers by the simulator.

    tokenbudget simulate --port 8089 &
    export OPENAI_BASE_URL=http://127.0.0.1:8089/v1 ANTHROPIC_BASE_URL=http://127.0.0.1:8089
    export TOKENBUDGET_HOSTS=http://127.0.0.1:8089/v1=openai,http://127.0.0.1:8089=anthropic
    python collector-config/example/app.py --rounds 5

Sends spans and metrics to ``OTEL_EXPORTER_OTLP_ENDPOINT`` (by default a Collector on this machine). A round makes some
ten calls; ``--rounds 0`` goes on until it is stopped. At its end it prints one line of JSON: what was counted here, to
hold against what the dashboards show.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import time
import uuid

import anthropic
import openai
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import tokenbudget_otel as tb

TENANTS = ("acme", "globex", "initech")

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}


def simulated(**behaviour: object) -> dict[str, str]:
    """How the simulator is to answer; a real provider would not look at it."""
    return {"x-simulate": json.dumps(behaviour)}


def chat(client: openai.OpenAI, model: str) -> None:
    client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is a river?"}],
        extra_headers=simulated(input_tokens=2000, cached_tokens=1500, output_tokens=300, reasoning_tokens=100),
    )


def stream(client: openai.OpenAI, model: str) -> None:
    for _ in client.chat.completions.create(
        model=model, stream=True, messages=[{"role": "user", "content": "And a bridge?"}]
    ):
        pass


def tool_loop(client: openai.OpenAI, model: str) -> None:
    messages: list = [{"role": "user", "content": "How is the weather in Delft?"}]
    call = {"name": "weather", "arguments": {"place": "Delft"}}
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=[TOOL], extra_headers=simulated(tool_calls=[call])
    )
    message = answer.choices[0].message
    messages.append(message)
    with trace.get_tracer("example").start_as_current_span("execute_tool weather"):
        for asked in message.tool_calls or ():
            messages.append({"role": "tool", "tool_call_id": asked.id, "content": "Rain."})
    client.chat.completions.create(model=model, messages=messages, tools=[TOOL])


def expensive(client: anthropic.Anthropic) -> None:
    client.messages.create(
        model="claude-opus-4-5",
        max_tokens=20_000,
        messages=[{"role": "user", "content": "Read all of this."}],
        extra_headers=simulated(input_tokens=60_000, output_tokens=4_000),
    )


def failing(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Hello?"}],
        extra_headers=simulated(status=400),
    )


def one_round(oai: openai.OpenAI, claude: anthropic.Anthropic, number: int) -> int:
    """One customer after the other; gives how many calls a budget refused."""
    refused = 0
    tracer = trace.get_tracer("example")
    for tenant in TENANTS:
        for feature, work in (
            ("chat", lambda: chat(oai, "gpt-5")),
            ("chat", lambda: stream(oai, "gpt-4o-mini")),
            ("agent", lambda: tool_loop(oai, "gpt-5-mini")),
            ("summary", lambda: expensive(claude)),
        ):
            if feature == "summary" and TENANTS[number % len(TENANTS)] != tenant:
                continue
            with tb.tags(tenant=tenant, feature=feature), tracer.start_as_current_span(f"POST /{feature}"):
                try:
                    work()
                except tb.BudgetExceeded:
                    refused += 1
    with tb.tags(tenant="acme", feature="chat"), tracer.start_as_current_span("POST /chat"):
        try:
            failing(oai)
        except openai.BadRequestError:
            pass
        except tb.BudgetExceeded:
            refused += 1
    return refused


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3, help="0 for no end")
    arguments.add_argument("--pause", type=float, default=0.0, help="seconds between rounds")
    arguments.add_argument("--export-every", type=float, default=5.0, help="seconds between exports of metrics")
    options = arguments.parse_args()

    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318").rstrip("/")
    # Each process needs an instance of its own: two that write one counter would overwrite each other.
    instance = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    resource = Resource.create({"service.name": "example-shop", "service.instance.id": instance})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    trace.set_tracer_provider(traces)
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{endpoint}/v1/metrics"), export_interval_millis=options.export_every * 1000
    )
    meters = MeterProvider([reader], resource=resource)
    metrics.set_meter_provider(meters)
    tb.instrument(
        traces,
        meters,
        budgets=[
            tb.Budget(limit_usd=50, window="month", per="tenant", name="tenant-month"),
            # Soon used up, so that there are refusals to see.
            tb.Budget(limit_usd="0.02", window="hour", match={"tenant": "initech"}, name="initech-hour"),
        ],
        metric_tags=("tenant", "feature"),
    )
    oai, claude = openai.OpenAI(max_retries=0), anthropic.Anthropic(max_retries=0)
    refused = 0
    try:
        for number in range(options.rounds) if options.rounds else itertools.count():
            refused += one_round(oai, claude, number)
            time.sleep(options.pause)
    except KeyboardInterrupt:
        pass
    totals = tb.usage()
    counted = {
        "calls": totals.calls,
        "refused": refused,
        "cost_usd": f"{totals.cost_usd:f}",
        "by_tenant": {tenant: f"{total.cost_usd:f}" for tenant, total in tb.usage(by="tenant").items()},
        "by_model": {model: f"{total.cost_usd:f}" for model, total in tb.usage(by="model").items()},
    }
    traces.shutdown()
    meters.shutdown()
    print(json.dumps(counted))  # noqa: T201


if __name__ == "__main__":
    main()
