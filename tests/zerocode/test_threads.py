"""Tags, budgets and parent spans where work is handed to threads, with OpenTelemetry's threading instrumentation and
without it."""

from __future__ import annotations

import json
import os
from importlib import metadata

import pytest
from zero_place import OFFICIAL, ZeroCode

HANDED_ON = """
import asyncio, contextvars, functools, json, threading
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
import tokenbudget_otel as tb
from tokenbudget_otel.tags import current_tags

seen = {}

def call(way):
    tb.track(provider="openai", model="gpt-4o", usage=tb.TokenUsage(input_tokens=1000, output_tokens=100))
    seen[way] = [current_tags().get("tenant"), trace.get_current_span().get_span_context().span_id == span_id]

def joined(thread):
    thread.start()
    thread.join()

async def on_a_loop():
    await asyncio.to_thread(call, "asyncio.to_thread")
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, call, "run_in_executor")
    await loop.run_in_executor(None, contextvars.copy_context().run, call, "run_in_executor, copied")
    await asyncio.create_task(in_a_task())

async def in_a_task():
    call("a task")

def inside(ways, start):
    global span_id
    tracer = trace.get_tracer("app")
    with tb.tags(tenant="acme"), tb.budget(max_calls=10) as budget, tracer.start_as_current_span("work") as span:
        span_id = span.get_span_context().span_id
        start()
    for way in ways:
        seen[way].append(budget.calls)

class Own(threading.Thread):
    def run(self):
        call("a subclass of Thread")

pool = ThreadPoolExecutor(1)
inside(["Thread"], lambda: joined(threading.Thread(target=call, args=["Thread"])))
inside(["a subclass of Thread"], lambda: joined(Own()))
inside(["Timer"], lambda: joined(threading.Timer(0, call, ["Timer"])))
inside(["ThreadPoolExecutor.submit"], lambda: pool.submit(call, "ThreadPoolExecutor.submit").result())
inside(["ThreadPoolExecutor.map"], lambda: list(pool.map(call, ["ThreadPoolExecutor.map"])))
inside(["copied"], lambda: joined(threading.Thread(target=contextvars.copy_context().run, args=[call, "copied"])))
inside(["asyncio.to_thread", "run_in_executor", "run_in_executor, copied", "a task"], lambda: asyncio.run(on_a_loop()))
print(json.dumps(seen))
"""

LOOP = {"asyncio.to_thread", "run_in_executor", "run_in_executor, copied", "a task"}
"""Ways that share one scope."""

ALONE = {"asyncio.to_thread", "run_in_executor, copied", "a task", "copied"}
"""Ways that carry the context by themselves."""

INSTRUMENTED = {"Thread", "Timer", "ThreadPoolExecutor.submit", "ThreadPoolExecutor.map", "run_in_executor"}
"""Ways that carry it where OpenTelemetry's threading instrumentation is on."""

NEVER = {"a subclass of Thread"}
"""A ``run`` of its own is not what is instrumented."""


@pytest.mark.parametrize("instrumented", [True, False], ids=["instrumented", "alone"])
def test_scopes_and_spans_reach_threads(zero: ZeroCode, instrumented: bool) -> None:
    try:
        metadata.version("opentelemetry-instrumentation-threading")
    except metadata.PackageNotFoundError:
        if instrumented:
            (pytest.fail if os.environ.get("TOKENBUDGET_CI") else pytest.skip)("needs requirements/no-deps.txt")
    disabled = OFFICIAL if instrumented else f"{OFFICIAL},threading"
    out, err = zero.run(HANDED_ON, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=disabled)
    seen = json.loads(out)
    assert seen.keys() == ALONE | INSTRUMENTED | NEVER
    carried = ALONE | INSTRUMENTED if instrumented else ALONE
    for way, (tenant, parent, calls) in seen.items():
        if way in carried:
            assert (tenant, parent, calls) == ("acme", True, len(LOOP & carried) if way in LOOP else 1), way
        else:
            assert (tenant, parent) == (None, False), way
            assert calls == (len(LOOP & carried) if way in LOOP else 0), way
    assert "Traceback" not in err
