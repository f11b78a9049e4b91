"""What is particular to Together: usage that comes unasked, and speech without any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

together = pytest.importorskip("together", reason="together is not installed here")

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


@pytest.fixture
def client(sim: Simulator) -> Iterator[Any]:
    http = together.DefaultHttpxClient(verify=False)
    with together.Together(api_key="any", base_url=sim.together_url, max_retries=0, http_client=http) as client:
        yield client


def test_streams_are_not_asked_for_their_usage(client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.default = Behaviour(input_tokens=100, output_tokens=20)
    list(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "A river?"}], stream=True))
    list(client.completions.create(model=MODEL, prompt="A river", max_tokens=90, stream=True))
    assert all("stream_options" not in request.json for request in sim.requests)
    assert meter.totals.get().usage.output_tokens == 40
    assert meter.totals.get().estimated_calls == 0


def test_the_text_of_completions_is_estimated_once(client: Any, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(text="word " * 40, chunks=20, cut_after=10))
    with pytest.raises(Exception, match=r"(?i)closed|connection|peer"):
        list(client.completions.create(model=MODEL, prompt="A river", max_tokens=90, stream=True))
    attributes = instrumented.span().attributes
    assert attributes["tokenbudget.call.outcome"] == "cut"
    # Twenty words of five letters, and not each of them twice.
    assert attributes["gen_ai.usage.output_tokens"] == 25


def test_speech_is_billed_by_the_character(client: Any, sim: Simulator, instrumented: Any) -> None:
    speech = client.audio.speech.create(model="cartesia/sonic", input="The river.", voice="calm")
    assert speech.read()
    assert instrumented.span().attributes["tokenbudget.usage.input_characters"] == 10


def test_reranking(client: Any, sim: Simulator, instrumented: Any) -> None:
    sim.then(Behaviour(input_tokens=100))
    client.rerank.create(model="Salesforce/Llama-Rank-V1", query="a river", documents=["a bridge", "water"], top_n=1)
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.usage.input_tokens"] == 100
    assert attributes["tokenbudget.cost.state"] == "priced"
