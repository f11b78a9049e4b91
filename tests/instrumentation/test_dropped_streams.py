"""Half-read streams that the collector finds while the connection pool is at work: with httpx 0.28 a program hangs for
that without us (its generator's finaliser takes the lock of the pool on the thread that holds it), and not with us."""

from __future__ import annotations

import os
import subprocess
import sys

from tokenbudget_otel.simulator import Simulator

PROGRAM = """
import gc
import openai
import tokenbudget_otel as tb

tb.instrument()
gc.set_threshold(50)
client = openai.OpenAI()
for _ in range(300):
    next(iter(client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hi"}], stream=True)))
gc.collect()
gc.collect()
print(tb.usage().calls)
"""


def test_the_program_does_not_hang(sim: Simulator) -> None:
    env = {**os.environ, "OPENAI_BASE_URL": sim.openai_url, "OPENAI_API_KEY": "any"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["300"], done.stderr
