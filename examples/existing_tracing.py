"""Adding cost to the tracing that an application already has.

The first three statements stand for what is there: a tracer provider with an exporter, set up by hand. The
instrumentors take the same provider; the span processor prices GenAI spans that others make, and may be added
before or after the exporter.
"""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.anthropic import AnthropicInstrumentor
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.processor import TokenBudgetSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)

# What is added:
OpenAIInstrumentor().instrument(tracer_provider=provider)
AnthropicInstrumentor().instrument(tracer_provider=provider)
provider.add_span_processor(TokenBudgetSpanProcessor())

import openai  # noqa: E402 - SDKs may be imported before or after

with trace.get_tracer("example").start_as_current_span("answer a ticket"), tb.tags(tenant="acme", feature="support"):
    openai.OpenAI().chat.completions.create(
        model="gpt-5-mini", messages=[{"role": "user", "content": "Where is my parcel?"}]
    )

print(tb.usage(by="tenant"))
provider.shutdown()
