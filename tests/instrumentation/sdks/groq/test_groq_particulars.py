"""What is particular to Groq: usage that comes unasked, and the least that a recording costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator

groq = pytest.importorskip("groq", reason="groq is not installed here")

CHAT: dict[str, Any] = {"model": "openai/gpt-oss-120b", "messages": [{"role": "user", "content": "A river?"}]}


@pytest.fixture
def client(sim: Simulator) -> Iterator[Any]:
    http = groq.DefaultHttpxClient(verify=False)
    with groq.Groq(api_key="any", base_url=sim.groq_url, max_retries=0, http_client=http) as client:
        yield client


def test_a_stream_is_not_asked_for_its_usage(client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    sim.then(Behaviour(input_tokens=100, output_tokens=20))
    chunks = list(client.chat.completions.create(**CHAT, stream=True))
    assert "stream_options" not in sim.requests[0].json
    assert chunks[-1].x_groq.usage.completion_tokens == 20
    assert meter.totals.get().usage.output_tokens == 20
    assert meter.totals.get().estimated_calls == 0


@pytest.mark.parametrize(("seconds", "billed"), ((2.5, 10), (62.5, 62.5)))
@pytest.mark.parametrize("resource", ("transcriptions", "translations"))
def test_ten_seconds_at_least(
    resource: str, seconds: float, billed: float, client: Any, sim: Simulator, instrumented: Any
) -> None:
    sim.then(Behaviour(audio_seconds=seconds))
    getattr(client.audio, resource).create(
        model="whisper-large-v3", file=("a.wav", b"\0" * 3_200), response_format="verbose_json"
    )
    assert instrumented.span().attributes["tokenbudget.usage.input_audio_seconds"] == billed


def test_an_answer_that_does_not_tell_the_length(client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    answer = client.audio.transcriptions.create(model="whisper-large-v3", file=("a.wav", b"\0" * 3_200))
    assert answer.text
    assert instrumented.span().attributes["tokenbudget.usage.estimated"] is True
    assert "tokenbudget.usage.input_audio_seconds" not in instrumented.span().attributes


def test_the_tier_that_served_it(client: Any, sim: Simulator, instrumented: Any) -> None:
    client.chat.completions.create(**CHAT, service_tier="flex", temperature=0.2, max_completion_tokens=90)
    attributes = instrumented.span().attributes
    assert attributes["openai.request.service_tier"] == "flex"
    assert attributes["gen_ai.request.temperature"] == 0.2
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_looking_at_models_costs_nothing(client: Any, sim: Simulator, instrumented: Any, meter: Meter) -> None:
    assert client.models.list().data
    assert instrumented.spans() == []
    assert meter.totals.get().calls == 0
