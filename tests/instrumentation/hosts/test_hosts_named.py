"""Who answers at a base URL, and that nobody's prices are taken for somebody else's."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import hosts
from tokenbudget_otel.simulator import Behaviour

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://us.api.openai.com/v1", "openai"),
        ("https://team.openai.azure.com/openai/v1/", "azure.ai.openai"),
        ("https://team.openai.azure.us/openai/v1/", "azure.ai.openai"),
        ("https://team.cognitiveservices.azure.com/openai", "azure.ai.openai"),
        ("https://team.services.ai.azure.com/openai/v1/", "azure.ai.openai"),
        ("https://team.services.ai.azure.com/models", "azure.ai.inference"),
        ("https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1", "aws.bedrock"),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", "aws.bedrock"),
        ("https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi", "gcp.vertex_ai"),
        ("https://aiplatform.us.rep.googleapis.com/v1/projects/p/locations/us/endpoints/openapi", "gcp.vertex_ai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gcp.gemini"),
        ("https://api.deepseek.com/beta", "deepseek"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://models.github.ai/inference", "github_models"),
        ("https://router.huggingface.co/v1", "huggingface"),
        ("https://api.moonshot.cn/v1", "moonshot_ai"),
        ("https://codestral.mistral.ai/v1", "mistral_ai"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://[::1]:11434/v1", "ollama"),
        ("http://gpu-box:11434/v1", "?"),
        ("http://localhost:8000/v1", "?"),
        ("https://api.openai.com.example.com/v1", "?"),
        ("https://xapi.openai.com.evil.test/v1", "?"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com.evil.test/v1", "?"),
        ("http://[broken", "?"),
    ],
)
def test_by_base_url(base_url: str, provider: str) -> None:
    assert hosts.provider_of(base_url, "?") == provider


def test_the_longest_beginning_counts_and_ends_where_a_name_does() -> None:
    tb.map_host("localhost:80", "eighty")
    tb.map_host("LLM.example.com", "gateway")
    tb.map_host("https://llm.example.com/groq/", "groq")
    for url, provider in (
        ("http://localhost:80/v1", "eighty"),
        ("http://localhost:8000/v1", "?"),
        ("https://llm.example.com:8443/v1", "gateway"),
        ("https://llm.example.com/groq/v1", "groq"),
        ("https://llm.example.com/groqish/v1", "gateway"),
        ("https://llm.example.community/v1", "?"),
    ):
        assert hosts.provider_of(url, "?") == provider, url


def test_named_in_the_environment(caplog: pytest.LogCaptureFixture) -> None:
    hosts._read_variable(" llm.example.org=openai, localhost:9/x=mine,, nonsense")
    assert hosts.provider_of("https://llm.example.org/v1", "?") == "openai"
    assert hosts.provider_of("http://localhost:9/x/v1", "?") == "mine"
    assert "nonsense" in caplog.text


@pytest.mark.parametrize("streamed", [False, True])
def test_a_model_of_an_unknown_host_is_not_openais(
    streamed: bool, client_at: Any, sim: Any, instrumented: Any, meter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_at("vllm")
    sim.default = Behaviour(input_tokens=1_000, output_tokens=100)

    def call() -> None:
        made = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=streamed)
        if streamed:
            list(made)

    with caplog.at_level(logging.WARNING):
        call()
        call()
    assert meter.totals.get().nano_usd == 0
    assert meter.totals.get().unpriced_calls == 2
    assert [span.attributes["tokenbudget.cost.state"] for span in instrumented.spans()] == ["unknown"] * 2
    assert caplog.text.count("does not know who answers") == 1
    assert "tb.map_host" in caplog.text

    tb.register_model("gpt-4o", input_per_1m=1, output_per_1m=2)
    call()
    assert meter.totals.get().nano_usd == 1_200_000
    tb.map_host(sim.host_url("vllm"), "deepseek")
    tb.register_model("gpt-4o", provider="deepseek", input_per_1m=10, output_per_1m=20)
    call()
    assert meter.totals.get().nano_usd == 13_200_000


def test_a_limit_in_dollars_refuses_what_has_no_price(client_at: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    client = client_at("vllm")
    with tb.budget(max_cost_usd=5), pytest.raises(tb.BudgetExceeded):
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert sim.requests == []
