"""A program that knows nothing of tokenbudget-otel.

opentelemetry-instrument --traces_exporter console python examples/zero_code.py
tokenbudget run -- python examples/zero_code.py
"""

import anthropic
import openai

QUESTION = "In one sentence: why is the sky blue?"

answer = openai.OpenAI().chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": QUESTION}])
print("GPT:   ", answer.choices[0].message.content)

message = anthropic.Anthropic().messages.create(
    model="claude-haiku-4-5", max_tokens=200, messages=[{"role": "user", "content": QUESTION}]
)
print("Claude:", message.content[0].text)
