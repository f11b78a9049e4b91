"""Beginnings of programs that `tokenbudget run` is to run."""

CHAT = """
import openai
client = openai.OpenAI(max_retries=0)

def chat(**behaviour):
    import json
    return client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Hi"}], max_tokens=50,
        extra_headers={"x-simulate": json.dumps({"input_tokens": 1000, "output_tokens": 50, **behaviour})})
"""
"""The beginning of a program: ``chat()`` is a call of gpt-4o that costs $0.003, and reserves a little more."""

TRACK = """
import tokenbudget_otel as tb

def call():
    tb.track(provider="openai", model="gpt-4o", usage=tb.TokenUsage(input_tokens=1000, output_tokens=100))
"""
"""The same without an SDK, which takes a second to import: ``call()`` costs $0.0035."""
