"""Servers that fork, spawn and reload, under `opentelemetry-instrument`."""

from __future__ import annotations

import json
import signal

import pytest
from zero_place import ZeroCode, free_port, get, until
from zero_programs import CHAT, TOLD

from tokenbudget_otel.simulator import Simulator

WSGI = (
    TOLD
    + CHAT
    + """
import os

def app(environ, start_response):
    status = "200 OK"
    try:
        chat()
    except tb.BudgetExceeded:
        status = "402 Payment Required"
    used = tb.usage()
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "status": status, "calls": used.calls}).encode()]
"""
)


@pytest.mark.parametrize(
    "preload",
    [pytest.param([], marks=pytest.mark.soak, id="each worker loads"), pytest.param(["--preload"], id="preload")],
)
def test_gunicorn_forks_and_the_workers_share_a_budget(zero: ZeroCode, sim: Simulator, preload: list[str]) -> None:
    zero.write("served.py", WSGI)
    port = free_port()
    server = zero.start(
        "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}", *preload, "served:app",
        TOKENBUDGET_LIMIT_CALLS="7", TOKENBUDGET_WINDOW="day", TOKENBUDGET_LEDGER="sqlite:budget.db",
        TOKENBUDGET_TAGS="service=web",
    )  # fmt: skip
    until(lambda: get(port), server=server)
    answers = [json.loads(get(port)) for _ in range(29)]
    server_out = zero.stop(server)

    assert server.returncode == 0, server_out
    assert len(sim.billed) == 7, "the limit holds over both workers"
    assert {answer["status"] for answer in answers} == {"200 OK", "402 Payment Required"}
    last = {answer["pid"]: answer["calls"] for answer in answers}
    assert server.pid not in last
    assert sum(last.values()) <= 7
    calls = zero.collector.calls()
    assert len(calls) == 30, "no span of a worker is lost"
    assert [span.attributes["gen_ai.usage.cost"] for span in calls if "error.type" not in span.attributes] == [
        0.003
    ] * 7
    assert {span.attributes["tokenbudget.tag.service"] for span in calls} == {"web"}
    assert "Traceback" not in server_out[1]


ASGI = (
    TOLD
    + CHAT
    + """
import os
ANSWER = "first"

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/call":
        chat()
    body = json.dumps({"pid": os.getpid(), "answer": ANSWER, "calls": tb.usage().calls}).encode()
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})
"""
)


@pytest.mark.soak
def test_uvicorn_reloads_and_nothing_is_doubled(zero: ZeroCode, sim: Simulator) -> None:
    zero.write("served.py", ASGI)
    port = free_port()
    # The server proper is a child of multiprocessing, which ends without exporting what it holds.
    server = zero.start("uvicorn", "--reload", "--port", str(port), "served:app", OTEL_BSP_SCHEDULE_DELAY="100")
    until(lambda: get(port), server=server)
    first = json.loads(get(port, "/call"))
    assert (first["answer"], first["calls"]) == ("first", 1)
    until(zero.collector.calls)

    zero.write("served.py", ASGI.replace('"first"', '"second"'))
    until(lambda: json.loads(get(port))["answer"] == "second", server=server)
    second = json.loads(get(port, "/call"))
    assert second["pid"] != first["pid"]
    assert second["calls"] == 1
    until(lambda: len(zero.collector.calls()) >= 2)
    _, err = zero.stop(server, signal.SIGINT)
    assert [span.attributes["gen_ai.usage.cost"] for span in zero.collector.calls()] == [0.003, 0.003], err
    assert len(sim.billed) == 2
    assert "already instrumented" not in err
