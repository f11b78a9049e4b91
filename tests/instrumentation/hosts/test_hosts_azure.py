"""Azure OpenAI: deployments, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
AZURE = "azure.ai.openai"
USED = tb.TokenUsage(input_tokens=1_000, output_tokens=100)
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])


@pytest.fixture
def client(sim: Any) -> Iterator[openai.AzureOpenAI]:
    http = openai.DefaultHttpxClient(verify=False)
    with openai.AzureOpenAI(
        azure_endpoint=sim.azure_url, api_version="2025-04-01-preview", api_key="any", max_retries=0, http_client=http
    ) as client:
        yield client


def chat(client: Any, sim: Any, deployment: str, answers: str | None, streamed: bool) -> None:
    sim.then(Behaviour(input_tokens=1_000, output_tokens=100, model=answers))
    made = client.chat.completions.create(model=deployment, messages=MESSAGES, stream=streamed)
    if streamed:
        assert not next(iter(made)).choices, "Azure's first chunk holds the filters of the prompt only"
        list(made)


def price(model: str) -> int | None:
    cost = tb.calculate_cost(model, USED, AZURE)
    assert cost is not None
    return cost.nano_usd


@STREAMED
def test_the_model_that_answers_prices_a_deployment(
    streamed: bool, client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    chat(client, sim, "prod-chat", "gpt-4o-2024-08-06", streamed)
    assert meter.totals.get().nano_usd == price("gpt-4o-2024-08-06")
    told = instrumented.span().attributes
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("prod-chat", "gpt-4o-2024-08-06")


@STREAMED
def test_what_the_program_says_of_a_deployment_goes_first(
    streamed: bool, client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    tb.map_model("prod-chat", "gpt-4o-mini", provider=AZURE)
    chat(client, sim, "prod-chat", "gpt-4o-2024-08-06", streamed)
    assert meter.totals.get().nano_usd == price("gpt-4o-mini")


@STREAMED
def test_provisioned_throughput_costs_nothing_by_the_token(
    streamed: bool, client: Any, sim: Any, instrumented: Any, meter: Any
) -> None:
    tb.register_model("ptu-chat", provider=AZURE, free=True)
    with tb.budget(max_cost_usd=0.000001):
        chat(client, sim, "ptu-chat", "gpt-4o-2024-08-06", streamed)
    assert meter.totals.get().nano_usd == 0
    assert instrumented.span().attributes["tokenbudget.cost.state"] == "free"
    # Said of that deployment, and of no other.
    chat(client, sim, "gpt-4o", None, streamed)
    assert meter.totals.get().nano_usd == price("gpt-4o")


def test_a_deployment_that_nobody_explains_has_no_price(client: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    chat(client, sim, "prod-chat", None, False)
    assert instrumented.span().attributes["tokenbudget.cost.state"] == "unknown"


def test_models_of_others_on_foundry(client: Any, sim: Any, instrumented: Any, meter: Any) -> None:
    tb.map_model("DeepSeek-R1-prod", "deepseek-r1", provider=AZURE)
    chat(client, sim, "DeepSeek-R1-prod", None, False)
    assert meter.totals.get().nano_usd == price("deepseek-r1")
