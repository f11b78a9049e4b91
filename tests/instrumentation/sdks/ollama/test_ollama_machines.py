"""What is particular to Ollama: machines of one's own and the cloud, thinking, module functions, errors in a stream."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.ollama import costs_nothing
from tokenbudget_otel.simulator import Behaviour, Simulator, ToolCall

ollama = pytest.importorskip("ollama", reason="the SDK is not in this environment")

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]


@pytest.fixture
def client(sim: Simulator) -> Any:
    with ollama.Client(host=sim.ollama_url, verify=False) as made:
        yield made


@pytest.mark.parametrize(
    ("url", "model", "free"),
    [
        ("http://127.0.0.1:11434", "llama3.2", True),
        ("http://localhost:11434", "llama3.2", True),
        ("http://[::1]:11434", "llama3.2", True),
        ("http://192.168.1.7:11434", "llama3.2", True),
        ("http://ollama:11434", "llama3.2", True),
        ("http://gpu.internal:11434", "llama3.2", True),
        ("http://127.0.0.1:11434", "gpt-oss:120b-cloud", False),
        ("http://127.0.0.1:11434", "minimax-m2:cloud", False),
        ("https://ollama.com", "gpt-oss:120b", False),
        ("https://llm.example.com", "llama3.2", False),
        ("http://8.8.8.8:11434", "llama3.2", False),
        ("", "llama3.2", True),
    ],
)
def test_whose_machine(url: str, model: str, free: bool) -> None:
    assert costs_nothing(url, {"model": model}) is free


def test_the_cloud_is_not_free(client: Any, instrumented: Any, meter: Any) -> None:
    client.chat("gpt-oss:120b-cloud", MESSAGES)
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.cost.state"] == "unknown"
    assert "gen_ai.usage.cost" not in attributes
    assert meter.totals.get().unpriced_calls == 1


def test_a_free_call_passes_a_budget_that_is_used_up(
    client: Any, instrumented: Any, meter: Any, sim: Simulator
) -> None:
    with tb.budget(max_cost_usd=0):
        client.chat("llama3.2", MESSAGES)
    assert meter.totals.get().nano_usd == 0
    assert instrumented.span().attributes["gen_ai.usage.cost"] == 0
    with tb.budget(max_tokens=1), pytest.raises(tb.BudgetExceeded):
        client.chat("llama3.2", MESSAGES)
    assert len(sim.requests) == 1


@pytest.mark.parametrize("streamed", (False, True))
def test_thinking_and_the_reason(client: Any, instrumented: Any, sim: Simulator, streamed: bool) -> None:
    sim.then(Behaviour(thinking="Which river was it?", text="The Rhine.", finish_reason="length"))
    answer = client.chat("deepseek-r1", MESSAGES, think=True, stream=streamed, options={"temperature": 0.5, "seed": 3})
    said = list(answer) if streamed else [answer]
    assert "".join(part.message.thinking or "" for part in said) == "Which river was it?"
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.response.finish_reasons"] == ("length",)
    assert attributes["gen_ai.usage.output_tokens"] == sim.billed[0].usage.output_tokens
    assert (attributes["gen_ai.request.temperature"], attributes["gen_ai.request.seed"]) == (0.5, 3)


def test_thinking_is_estimated_too_when_a_stream_is_left(client: Any, instrumented: Any, sim: Simulator) -> None:
    sim.then(Behaviour(thinking="One two three four five six.", text="And a text.", tokens_per_chunk=1))
    stream = client.chat("deepseek-r1", MESSAGES, stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    assert instrumented.span().attributes["gen_ai.usage.output_tokens"] == 4  # "One two three", 13 bytes


def test_tools(client: Any, instrumented: Any, sim: Simulator) -> None:
    sim.then(Behaviour(tool_calls=(ToolCall("now", {"zone": "UTC"}),)))

    def now(zone: str) -> str:
        """The time.

        Args:
          zone: where.
        """
        return zone

    answer = client.chat("llama3.2", MESSAGES, tools=[now])
    assert answer.message.tool_calls[0].function.name == "now"
    assert instrumented.span().attributes["tokenbudget.cost.state"] == "free"


def test_functions_of_the_module(
    monkeypatch: pytest.MonkeyPatch, instrumented: Any, sim: Simulator, meter: Any
) -> None:
    """They belong to a client that was made when the module was imported."""
    module_client = ollama.chat.__self__
    monkeypatch.setattr(module_client, "_client", ollama.Client(host=sim.ollama_url, verify=False)._client)
    ollama.chat("llama3.2", MESSAGES)
    ollama.generate("llama3.2", "Tell me a story.")
    assert meter.totals.get().calls == 2


def test_the_former_route_of_embeddings(client: Any, instrumented: Any, sim: Simulator, meter: Any) -> None:
    client.embeddings("nomic-embed-text", "a river under a bridge")
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.usage.estimated"] is True
    assert "gen_ai.usage.output_tokens" not in attributes


def test_other_requests_are_left_alone(client: Any, instrumented: Any, meter: Any) -> None:
    with pytest.raises(ollama.ResponseError):
        client.show("llama3.2")
    assert instrumented.spans() == []


@pytest.mark.parametrize(
    ("behaviour", "error", "outcome"),
    [
        ({"error_event_after": 1}, ollama.ResponseError, "failed"),
        ({"malformed_after": 1}, ValueError, "failed"),
        ({"cut_after": 1}, Exception, "cut"),
        ({"silent_end_after": 1}, None, "cut"),
    ],
)
def test_streams_that_break(
    client: Any, instrumented: Any, sim: Simulator, behaviour: dict[str, int], error: Any, outcome: str
) -> None:
    sim.then(Behaviour(text="One two three four.", tokens_per_chunk=1, **behaviour))
    stream = client.chat("llama3.2", MESSAGES, stream=True)
    if error is None:
        list(stream)
    else:
        with pytest.raises(error):
            list(stream)
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.call.outcome"] == outcome
    assert attributes["tokenbudget.usage.estimated"] is True
    assert attributes["gen_ai.usage.output_tokens"] == 1


def test_a_server_that_is_not_there(instrumented: Any, meter: Any) -> None:
    nobody = ollama.Client(host="http://127.0.0.1:9", verify=False)
    with pytest.raises(ConnectionError):
        nobody.chat("llama3.2", MESSAGES)
    with pytest.raises(Exception, match="refused"):
        list(nobody.chat("llama3.2", MESSAGES, stream=True))
    assert meter.totals.get().calls == 0
    assert len(instrumented.spans()) == 2


def test_an_answer_that_cannot_be_read_was_billed(client: Any, instrumented: Any, sim: Simulator, meter: Any) -> None:
    sim.then(Behaviour(malformed_after=0))
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Invalid"):
        client.chat("llama3.2", MESSAGES)
    assert (meter.totals.get().calls, meter.totals.get().estimated_calls) == (1, 1)


def test_a_stream_that_is_dropped_unread(client: Any, instrumented: Any, sim: Simulator, meter: Any) -> None:
    client.chat("llama3.2", MESSAGES, stream=True)
    gc.collect()
    assert instrumented.span().attributes["tokenbudget.call.outcome"] == "abandoned"
    assert meter.totals.get().calls == 0
    assert sim.requests == []


def test_images_are_counted_as_images(client: Any, instrumented: Any, meter: Any) -> None:
    """And not as the text that carries them: a budget for tokens would never fit one."""
    with tb.budget(max_tokens=3_000_000):
        client.chat("llava", [{**MESSAGES[0], "images": [b"\x89PNG" + bytes(200_000)]}])
    assert meter.totals.get().calls == 1
