"""The server around the routes: books, queue, determinism, life and death, many clients at once."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tokenbudget_otel.simulator import Behaviour, Simulator

ASK: list[Any] = [{"role": "user", "content": "Tell me of the river."}]


def test_precedence_header_queue_default(sim: Simulator, clients: Any) -> None:
    client = clients.get("openai")

    def ask(**more: Any) -> str:
        answer = client.chat.completions.create(model="m", messages=ASK, **more)
        return str(answer.choices[0].message.content)

    sim.default = Behaviour(text="default")
    sim.then(Behaviour(text="first"), Behaviour(text="second"))
    header = {"x-simulate": json.dumps({"text": "header"})}
    assert [ask(), ask(extra_headers=header), ask(), ask()] == ["first", "header", "second", "default"]
    sim.reset()
    assert (sim.requests, sim.billed, sim.default) == ([], [], Behaviour())


def test_requests_are_recorded(sim: Simulator, clients: Any) -> None:
    clients.get("azure").chat.completions.create(model="gpt-5", messages=ASK, extra_headers={"X-Own": "yes"})
    [request] = sim.requests
    assert (request.method, request.path) == ("POST", "/openai/deployments/gpt-5/chat/completions")
    assert request.query == "api-version=2025-04-01-preview"
    assert request.headers["x-own"] == "yes"
    assert request.json["messages"] == ASK
    assert clients.get("openai").models.list()
    assert sim.requests[1].json is None


def test_bills_name_what_was_billed(sim: Simulator, clients: Any) -> None:
    sim.then(Behaviour(model="gpt-5-2026-01-01", service_tier="flex"))
    answer = clients.get("openai").chat.completions.create(model="gpt-5", messages=ASK)
    [bill] = sim.billed
    assert (bill.provider, bill.model, bill.service_tier) == ("openai", "gpt-5-2026-01-01", "flex")
    assert bill.request_id == answer._request_id
    assert answer.model == "gpt-5-2026-01-01"


PATHS = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/completions"]


def everything(seed: int, paths: list[str]) -> dict[str, list[bytes]]:
    body = {"model": "m", "messages": ASK, "input": "Hi", "prompt": "Hi", "max_tokens": 50}
    with Simulator(seed=seed) as sim, httpx2.Client() as client:
        return {
            path: [
                b"%r" % sorted((name, value) for name, value in answer.headers.items()) + answer.content
                for stream in (False, True, True)
                for answer in [client.post(sim.url + path, json=body | {"stream": stream})]
            ]
            for path in paths
        }


def test_same_seed_same_bytes_in_any_order() -> None:
    first = everything(1, PATHS)
    assert everything(1, PATHS[::-1]) == first
    assert everything(2, PATHS) != first
    # The same request again is another request.
    assert first[PATHS[0]][1] != first[PATHS[0]][2]


def test_the_clock_can_run() -> None:
    with Simulator(clock=time.time) as sim:
        client = openai.OpenAI(base_url=sim.openai_url, api_key="x")
        assert abs(client.chat.completions.create(model="m", messages=ASK).created - time.time()) < 10


def test_unknown_paths_and_hosts(sim: Simulator) -> None:
    answer = httpx2.post(f"{sim.url}/v1/nothing", json={})
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "Invalid URL (POST /v1/nothing)")
    answer = httpx2.post(f"{sim.url}/host/nobody/v1/chat/completions", json={})
    assert answer.status_code == 404
    assert "there are openai, azure" in answer.json()["error"]["message"]
    with pytest.raises(ValueError, match="there are openai, azure"):
        sim.host_url("nobody")


def test_openai_misses_what_it_needs(sim: Simulator, clients: Any) -> None:
    # What a drained generator looks like to the provider.
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'messages'"):
        clients.get("openai").chat.completions.create(model="m", messages=[])
    assert sim.billed == []


def test_other_processes_can_set_and_read(sim: Simulator) -> None:
    def tell(path: str, body: Any) -> httpx2.Response:
        return httpx2.post(f"{sim.url}/_simulator/{path}", json=body)

    def ask() -> str:
        return str(
            httpx2.post(f"{sim.url}/v1/responses", json={"input": "Hi"}).json()["output"][0]["content"][0]["text"]
        )

    assert tell("then", [{"text": "one", "input_tokens": 5}, {"text": "two"}]).status_code == 204
    assert tell("default", {"text": "ever"}).status_code == 204
    assert [ask() for _ in range(3)] == ["one", "two", "ever"]
    assert httpx2.get(f"{sim.url}/_simulator/billed").json()[0]["usage"]["input_tokens"] == 5
    refused = tell("then", [{"colour": "red"}])
    assert (refused.status_code, refused.json()["error"][:20]) == (400, "unknown key 'colour'")
    assert tell("reset", {}).status_code == 204
    assert sim.billed == []


def test_anthropic_misses_what_it_needs(sim: Simulator) -> None:
    answer = httpx2.post(f"{sim.url}/v1/messages", json={"model": "m", "messages": ASK})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "max_tokens: Field required")


def test_starts_and_stops_fast_and_again() -> None:
    sim = Simulator()
    for _ in range(3):
        begin = time.perf_counter()
        with sim:
            assert httpx2.get(f"{sim.openai_url}/models").status_code == 200
            with pytest.raises(RuntimeError, match="runs already"):
                sim.start()
        assert time.perf_counter() - begin < 2  # Mostly some milliseconds; the machine may be busy.
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{sim.openai_url}/models")
    sim.stop()


def test_what_began_before_a_reset_is_not_billed_after(sim: Simulator, clients: Any) -> None:
    sim.then(Behaviour(chunk_s=0.02, chunks=4))
    stream = clients.get("openai").chat.completions.create(model="m", messages=ASK, stream=True)
    next(stream)
    sim.reset()
    assert list(stream)
    assert sim.settle()
    assert sim.billed == []


def test_a_taken_port_is_an_error(sim: Simulator) -> None:
    with pytest.raises(OSError, match="in use"):
        Simulator(port=int(sim.url.rsplit(":", 1)[1])).start()


def test_keep_bounds_the_books() -> None:
    with Simulator(keep=3) as sim:
        client = openai.OpenAI(base_url=sim.openai_url, api_key="x")
        for _ in range(5):
            client.chat.completions.create(model="m", messages=ASK)
        assert (len(sim.requests), len(sim.billed)) == (3, 3)


def test_nothing_is_logged(sim: Simulator, clients: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = clients.get("openai")
    with caplog.at_level(logging.WARNING):
        for fault in ({"cut_after": 1}, {"drop": True}, {"silent_end_after": 1}):
            sim.then(Behaviour(**fault))  # type: ignore[arg-type]
            try:
                list(client.chat.completions.create(model="m", messages=ASK, stream=True))
            except openai.APIConnectionError:
                pass
        assert sim.settle()
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_many_threads(sim: Simulator) -> None:
    def ask(number: int) -> int:
        answer = client.chat.completions.create(model=f"m{number}", messages=ASK)
        return answer.usage.total_tokens if answer.usage else 0

    with openai.OpenAI(base_url=sim.openai_url, api_key="x") as client, ThreadPoolExecutor(64) as pool:
        counted = list(pool.map(ask, range(256)))
    assert len(sim.requests) == 256
    assert sum(bill.usage.total_tokens for bill in sim.billed) == sum(counted)


async def test_many_tasks(sim: Simulator) -> None:
    limits = httpx2.Limits(max_connections=500)
    async with (
        httpx2.AsyncClient(limits=limits, timeout=60) as http,
        anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="x", http_client=http) as client,
    ):
        sim.default = Behaviour(latency_s=0.2)

        async def ask() -> int:
            answer = await client.messages.create(model="m", max_tokens=9, messages=ASK)
            return answer.usage.input_tokens + answer.usage.output_tokens

        counted = await asyncio.gather(*(ask() for _ in range(500)))
    assert sum(bill.usage.total_tokens for bill in sim.billed) == sum(counted)


def test_without_its_extra_the_import_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("tokenbudget_otel.simulator"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"tokenbudget-otel\[simulator\]"):
        importlib.import_module("tokenbudget_otel.simulator")


SERVE = """
from tokenbudget_otel.simulator import Behaviour, serve
serve(port=0, seed=3, default=Behaviour(text="Served."), ready=lambda sim: print(sim.openai_url, flush=True))
print("over")
"""


def test_serve_until_interrupted() -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        client = openai.OpenAI(base_url=process.stdout.readline().strip(), api_key="x")
        assert client.responses.create(model="m", input="Hi").output_text == "Served."
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "over\n"
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_two_simulators_do_not_mix() -> None:
    with Simulator() as one, Simulator() as other:
        threads = [
            threading.Thread(target=lambda sim=sim: httpx2.post(f"{sim.openai_url}/embeddings", json={"input": "x"}))
            for sim in (one, one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(one.billed), len(other.billed)) == (2, 1)
