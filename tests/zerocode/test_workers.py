"""Processes that programs start: multiprocessing, and the workers of Celery."""

from __future__ import annotations

import json

import pytest
from zero_place import OFFICIAL, ZeroCode, until
from zero_programs import CHAT, FOREIGN, TOLD

from tokenbudget_otel.simulator import Simulator

CHILDREN = (
    TOLD
    + CHAT
    + FOREIGN
    + """
import multiprocessing, sys

def work(method):
    with tb.tags(method=method):
        chat()
        foreign()
    told(method=method)
    sys.stdout.flush()

if __name__ == "__main__":
    chat()
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=work, args=[method])
        child.start()
        child.join()
        assert child.exitcode == 0
    told(method="parent")
"""
)


@pytest.mark.soak
def test_children_that_are_forked_and_spawned_count_for_themselves(zero: ZeroCode, sim: Simulator) -> None:
    out, err = zero.run(CHILDREN, TOKENBUDGET_TAGS="team=search")
    told = {line["method"]: (line["calls"], line["usd"]) for line in map(json.loads, out.splitlines())}
    assert told == {"fork": (2, "0.0065"), "spawn": (2, "0.0065"), "parent": (1, "0.003")}
    assert len(sim.billed) == 3
    assert "Traceback" not in err and "already instrumented" not in err
    # multiprocessing ends a child by os._exit: what it has not exported by then is lost, by OpenTelemetry's design.
    (mine,) = [span for span in zero.collector.calls() if "tokenbudget.tag.method" not in span.attributes]
    assert mine.attributes["tokenbudget.tag.team"] == "search"


BROKER = """
import os
from celery import Celery

app = Celery("tasks", broker="filesystem://", backend="file://" + os.getcwd() + "/results")
app.conf.update(broker_transport_options={
    "data_folder_in": "queue", "data_folder_out": "queue", "processed_folder": "done", "polling_interval": 0.1})
for folder in ("queue", "results"):
    os.makedirs(folder, exist_ok=True)
"""

TASKS = (
    TOLD
    + CHAT
    + """
from broker import app

@app.task(name="ask")
def ask():
    chat()
    with tb.tags(step="second"):
        chat()
    return {tenant: used.calls for tenant, used in tb.usage(by="tenant").items()}
"""
)

ASK = """
import json, tokenbudget_otel as tb
from broker import app

with tb.tags(tenant="acme"):
    result = app.send_task("ask")
print(json.dumps(result.get(timeout=30, interval=0.05)))
"""


@pytest.mark.soak
@pytest.mark.parametrize("carried", [True, False], ids=["carried", "not carried"])
def test_celery_workers_that_are_forked_meter_their_tasks(zero: ZeroCode, sim: Simulator, carried: bool) -> None:
    """What is in force where a task is sent reaches it where Celery's own instrumentation is on."""
    zero.write("broker.py", BROKER)
    zero.write("tasks.py", TASKS)
    disabled = {} if carried else {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": f"{OFFICIAL},celery"}
    worker = zero.start(
        "celery", "--app", "tasks", "worker", "--pool", "prefork", "--concurrency", "1", "--loglevel", "WARNING",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
        TOKENBUDGET_TAGS="service=worker", OTEL_BSP_SCHEDULE_DELAY="100", **disabled,
    )  # fmt: skip
    out, err = zero.run(ASK, **disabled)
    (counted,) = json.loads(out).values()
    assert (counted, "acme" in json.loads(out)) == (2, carried), err
    calls = until(lambda: len(found := zero.collector.calls()) >= 2 and found)
    said = zero.stop(worker)
    assert len(calls) == len(sim.billed) == 2, said
    for span in calls:
        assert span.attributes["tokenbudget.tag.service"] == "worker"
        assert span.attributes["gen_ai.usage.cost"] == 0.003
        assert ("tokenbudget.tag.tenant" in span.attributes) is carried
    assert {span.attributes.get("tokenbudget.tag.step") for span in calls} == {None, "second"}
