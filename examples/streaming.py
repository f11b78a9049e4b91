"""Streams: the usage is exact although the program never asks for it, and a stream that is left early is
settled on what was seen of it, marked as an estimate."""

import openai

import tokenbudget_otel as tb

tb.instrument()
client = openai.OpenAI()
messages = [{"role": "user", "content": "Write a poem about rivers."}]

# Read to the end. `stream_options` is not set here; the provider is asked for the usage behind the scenes.
for chunk in client.chat.completions.create(model="gpt-5-mini", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
print("after one stream: ", tb.usage())

# Left after three chunks.
with client.chat.completions.create(model="gpt-5-mini", messages=messages, stream=True) as stream:
    for number, _chunk in enumerate(stream, start=1):
        if number == 3:
            break
totals = tb.usage()
print(f"after another one: {totals}; estimated: {totals.estimated_calls}")
