"""Programs that know little or nothing of tokenbudget-otel."""

from __future__ import annotations

CHAT = """
import openai

client = openai.OpenAI(max_retries=0)

def chat():
    return client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Hi"}], max_tokens=50,
        extra_headers={"x-simulate": '{"input_tokens": 1000, "output_tokens": 50}'})
"""
"""``chat()`` is a call of gpt-4o that costs $0.003."""

FOREIGN = """
from opentelemetry import trace

def foreign():
    span = trace.get_tracer("somebody").start_span("chat gpt-4o", attributes={
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100})
    span.end()
    return span
"""
"""``foreign()`` is the span of a call that nobody but the processor sees; it cost $0.0035."""

TOLD = """
import json
import tokenbudget_otel as tb

def told(**more):
    used = tb.usage()
    print(json.dumps({"calls": used.calls, "usd": str(used.cost_usd), "refused": used.refused_calls, **more}))
"""
"""``told()`` prints what this process has counted."""
