"""Streams that a program still holds when it ends: their calls are ended, and their spans are exported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tokenbudget_otel.simulator import Simulator

PROGRAM = """
import asyncio, os, sys
import anthropic, openai
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
import tokenbudget_otel as tb

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.to_json(None) + "\\n")))
tb.instrument(provider)
slow = {"default_headers": {"x-simulate": '{"chunk_s": 5, "chunks": 9, "text": "one two three four"}'}}
asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
HOLD = []

def sync():
    HOLD.append(openai.OpenAI(**slow).chat.completions.create(**asked))
    next(HOLD[-1])

def never_read():
    HOLD.append(openai.OpenAI(**slow).chat.completions.create(**asked))

def claude():
    client = anthropic.Anthropic(**slow)
    HOLD.append(client.messages.create(**{**asked, "model": "claude-haiku-4-5", "max_tokens": 9}))
    next(iter(HOLD[-1]))

def forked():
    sync()
    if os.fork() == 0:
        sys.exit(0)  # the child ends as a program does; the stream is its parent's
    os.wait()

globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize("case", ["sync", "never_read", "claude", "forked"])
def test_what_is_still_open_is_ended(sim: Simulator, case: str) -> None:
    env = {
        **os.environ,
        "OPENAI_BASE_URL": sim.openai_url,
        "ANTHROPIC_BASE_URL": sim.anthropic_url,
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_API_KEY": "any",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, case], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    [span] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert span["attributes"]["tokenbudget.call.outcome"] == "abandoned"
    assert span["attributes"]["tokenbudget.usage.estimated"] is True
    assert "Exception ignored" not in done.stderr
    assert "tokenbudget" not in done.stderr
