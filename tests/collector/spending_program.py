"""A program that makes the calls it is told to make, with the real SDKs, and ends: python spending_program.py CALLS.

Each call is a JSON object; what it took is printed as one line of JSON each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import anthropic
import openai
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import tokenbudget_otel as tb

ASK: Any = [{"role": "user", "content": "Why is the sky blue?"}]


def main() -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
    tb.instrument(
        tracers,
        meters,
        ledger=os.environ["LEDGER"],
        metric_tags=("tenant", "feature"),
        budgets=[
            tb.Budget(name="tenants", limit_usd=0.6, window="month", per="tenant", unpriced="allow"),
            tb.Budget(name="no initech", limit_calls=0, window="day", match={"tenant": "initech"}),
        ],
    )
    gpt = openai.OpenAI(max_retries=0)
    claude = anthropic.Anthropic(max_retries=0)
    for call in json.loads(sys.argv[1]):
        headers = {
            "x-tenant": call.get("tenant", ""),
            "x-feature": call.get("feature", ""),
            "x-simulate": json.dumps(call["answer"]),
        }
        tags = {name: call[name] for name in ("tenant", "feature") if name in call}
        arguments: dict[str, Any] = {"model": call["model"], "messages": ASK, "extra_headers": headers}
        began = time.perf_counter()
        with tb.tags(**tags):
            try:
                if call["model"].startswith("claude"):
                    answer: Any = claude.messages.create(max_tokens=4096, stream=call["stream"], **arguments)
                else:
                    answer = gpt.chat.completions.create(stream=call["stream"], **arguments)
                if call["stream"]:
                    for _ in answer:
                        pass
            except (openai.APIError, anthropic.APIError, tb.BudgetExceeded) as error:
                print(json.dumps({"error": type(error).__name__}), flush=True)
                continue
        print(json.dumps({"model": call["model"], "seconds": time.perf_counter() - began}), flush=True)
    tracers.shutdown()
    meters.shutdown()


main()
