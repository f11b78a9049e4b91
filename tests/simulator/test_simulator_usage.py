"""One usage, in the shape of each provider and host."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tokenbudget_otel.simulator import Behaviour, Simulator, Usage
from tokenbudget_otel.simulator.usage import measure

ASK: list[Any] = [{"role": "user", "content": "Tell me of the river."}]
BUSY = Behaviour(
    text="The river.",
    input_tokens=1000,
    cached_tokens=400,
    cache_write_5m_tokens=100,
    cache_write_1h_tokens=50,
    output_tokens=300,
    reasoning_tokens=120,
    citation_tokens=20,
    web_searches=2,
)
COUNTED = Usage(
    input_tokens=1000,
    cached_tokens=400,
    cache_write_5m_tokens=100,
    cache_write_1h_tokens=50,
    output_tokens=300,
    reasoning_tokens=120,
    citation_tokens=20,
    web_searches=2,
)

# Host -> what its usage says, as (path, value) pairs.
SHAPES: dict[str, dict[str, Any]] = {
    "openai": {
        "prompt_tokens": 1000,
        "completion_tokens": 300,
        "total_tokens": 1300,
        "prompt_tokens_details.cached_tokens": 400,
        "prompt_tokens_details.cache_write_tokens": 150,
        "completion_tokens_details.reasoning_tokens": 120,
    },
    "deepseek": {"prompt_tokens": 1000, "prompt_cache_hit_tokens": 400, "prompt_cache_miss_tokens": 600},
    "groq": {"prompt_tokens": 1000, "completion_tokens": 300, "total_time": 0.602},
    "openrouter": {"cost": 0.0013, "cost_details.upstream_inference_completions_cost": 0.0003},
    "xai": {"completion_tokens": 180, "total_tokens": 1300, "completion_tokens_details.reasoning_tokens": 120},
    "perplexity": {
        "completion_tokens": 160,
        "reasoning_tokens": 120,
        "citation_tokens": 20,
        "num_search_queries": 2,
        "cost.total_cost": 0.0013,
    },
    "mistral": {"prompt_tokens": 1000, "completion_tokens": 300, "num_cached_tokens": 400},
}


def pick(usage: Any, path: str) -> Any:
    for step in path.split("."):
        usage = usage[step]
    return usage


def told(usage: Any, host: str) -> dict[str, Any]:
    return {path: pick(usage.model_dump(), path) for path in SHAPES[host]}


@pytest.mark.parametrize("host", SHAPES)
def test_host_reports_in_its_own_shape(host: str, sim: Simulator, clients: Any) -> None:
    sim.default = BUSY
    client = clients.get(host if host == "openai" else f"{host} lenient")
    whole = client.chat.completions.create(model="m", messages=ASK)
    assert told(whole.usage, host) == SHAPES[host]
    options = {} if host == "mistral" else {"stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="m", messages=ASK, stream=True, **options))
    if host == "groq":
        assert chunks[-2].x_groq["usage"]["prompt_tokens"] == 1000
    assert told(chunks[-1].usage, host) == SHAPES[host]
    assert [(bill.provider, bill.usage) for bill in sim.billed] == [(host, COUNTED)] * 2


def stream(client: Any, **more: Any) -> list[Any]:
    return list(client.chat.completions.create(model="m", messages=ASK, stream=True, **more))


@pytest.mark.parametrize(
    ("host", "status", "words"),
    [
        ("strict", 400, "Unrecognized request argument supplied: stream_options"),
        ("strict422", 422, "Extra inputs are not permitted"),
        ("mistral", 422, "Extra inputs are not permitted"),
    ],
)
def test_hosts_that_refuse_stream_options(host: str, status: int, words: str, sim: Simulator, clients: Any) -> None:
    client = clients.get(host)
    with pytest.raises(openai.APIStatusError) as caught:
        stream(client, stream_options={"include_usage": True})
    assert words in caught.value.response.text
    assert caught.value.status_code == status
    assert sim.billed == []
    assert stream(client)
    assert len(sim.billed) == 1


# Host -> the chunks of an unasked stream that carry usage, counted from the end (None: all).
@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("openai", []),
        ("strict", []),
        ("groq", []),
        ("azure", []),
        ("deepseek", [-1]),
        ("xai", [-1]),
        ("mistral", [-1]),
        ("openrouter", [-1]),
        ("perplexity", None),
    ],
)
def test_where_a_stream_reports_usage(host: str, where: list[int] | None, sim: Simulator, clients: Any) -> None:
    chunks = stream(clients.get(f"{host} lenient"))
    found = [place - len(chunks) for place, chunk in enumerate(chunks) if chunk.usage]
    assert found == (list(range(-len(chunks), 0)) if where is None else where)
    if where is None:
        counts = [chunk.usage.completion_tokens for chunk in chunks]
        assert counts == sorted(counts)
        assert counts[-1] == sim.billed[0].usage.output_tokens


def test_openrouter_reports_a_given_cost_and_its_provider(sim: Simulator, clients: Any) -> None:
    sim.default = Behaviour(cost_usd=0.42)
    answer = clients.get("openrouter").chat.completions.create(model="openai/gpt-5", messages=ASK)
    assert (answer.usage.cost, answer.provider, answer.model) == (0.42, "Simulated", "openai/gpt-5")
    assert stream(clients.get("openrouter"))[-1].usage.cost == 0.42


def test_perplexity_names_its_sources(sim: Simulator, clients: Any) -> None:
    sim.default = Behaviour(web_searches=2)
    assert len(clients.get("perplexity").chat.completions.create(model="sonar", messages=ASK).citations) == 2


def test_anthropic_counts_the_cache_apart(sim: Simulator, clients: Any) -> None:
    sim.default = BUSY
    client = clients.get("anthropic")
    usage = client.messages.create(model="m", max_tokens=9, messages=ASK).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (450, 400, 150)
    assert (usage.cache_creation.ephemeral_5m_input_tokens, usage.cache_creation.ephemeral_1h_input_tokens) == (100, 50)
    assert (usage.output_tokens, usage.output_tokens_details.thinking_tokens) == (300, 120)
    events = list(client.messages.create(model="m", max_tokens=9, messages=ASK, stream=True))
    start, delta = events[0].message.usage, events[-2].usage
    # What two searches found is not counted yet when the stream begins.
    assert (start.input_tokens, start.output_tokens, start.cache_creation.ephemeral_1h_input_tokens) == (150, 1, 50)
    assert (delta.input_tokens, delta.output_tokens, delta.cache_read_input_tokens) == (450, 300, 400)
    assert delta.server_tool_use.web_search_requests == 2
    assert not hasattr(delta, "cache_creation")
    assert [bill.usage for bill in sim.billed] == [COUNTED] * 2


def test_anthropic_tier_speed_and_place(sim: Simulator, clients: Any) -> None:
    sim.then(Behaviour(service_tier="priority", speed="fast", inference_geo="us"))
    usage = clients.get("anthropic").messages.create(model="m", max_tokens=9, messages=ASK).usage
    assert (usage.service_tier, usage.speed, usage.inference_geo) == ("priority", "fast", "us")


def test_responses_split_cache_writes_by_time(sim: Simulator, clients: Any) -> None:
    sim.then(Behaviour(input_tokens=100, cache_write_30m_tokens=40, cache_write_12h_tokens=20, cached_tokens=10))
    details = clients.get("openai").responses.create(model="m", input="Hi").usage.input_tokens_details
    assert (details.cached_tokens, details.cache_write_tokens) == (10, 60)
    assert details.cache_write_tokens_details.ttl_12h_tokens == 20


@pytest.mark.parametrize("mode", ["absent", "null"])
def test_usage_can_be_missing_but_is_billed(mode: str, sim: Simulator, clients: Any) -> None:
    sim.default = Behaviour(usage=mode)  # type: ignore[arg-type]
    client = clients.get("openai")
    answer = client.chat.completions.create(model="m", messages=ASK)
    assert answer.usage is None
    assert ("usage" in answer.model_fields_set) == (mode == "null")
    assert all(chunk.usage is None for chunk in stream(client, stream_options={"include_usage": True}))
    assert client.responses.create(model="m", input="Hi").usage is None
    events = clients.get("anthropic lenient").messages.create(model="m", max_tokens=9, messages=ASK, stream=True)
    assert getattr(list(events)[-2], "usage", None) is None
    assert all(bill.usage.output_tokens for bill in sim.billed)


def test_prediction_and_audio_tokens(sim: Simulator, clients: Any) -> None:
    sim.then(Behaviour(accepted_prediction_tokens=3, rejected_prediction_tokens=7, input_audio_tokens=50,
                       output_audio_tokens=20, text="Four words of text"))  # fmt: skip
    usage = clients.get("openai").chat.completions.create(model="m", messages=ASK).usage
    assert usage.completion_tokens == 4 + 7 + 20
    assert usage.prompt_tokens == 6 + 50
    assert usage.completion_tokens_details.rejected_prediction_tokens == 7
    assert usage.prompt_tokens_details.audio_tokens == 50


def test_derived_counts() -> None:
    assert measure(Behaviour(), 10, 5) == Usage(10, 5)
    assert measure(Behaviour(cached_tokens=100), 10, 5).input_tokens == 110
    assert measure(Behaviour(reasoning_tokens=100), 10, 5).output_tokens == 105
    assert measure(Behaviour(thinking="so it is"), 10, 5).reasoning_tokens == 3
    assert measure(Behaviour(input_tokens=7, output_tokens=0), 10, 5) == Usage(7, 0)


def test_output_tokens_decide_the_length_of_the_text(sim: Simulator, clients: Any) -> None:
    sim.then(Behaviour(output_tokens=30, reasoning_tokens=10), Behaviour(output_tokens=1_000_000))
    create = clients.get("openai").chat.completions.create
    assert len(create(model="m", messages=ASK).choices[0].message.content.split()) == 20
    answer = create(model="m", messages=ASK)
    assert answer.usage.completion_tokens == 1_000_000
    assert len(answer.choices[0].message.content.split()) == 4096
