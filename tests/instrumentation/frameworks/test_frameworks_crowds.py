"""A budget holds for what a framework does at the same time, in its threads and tasks: not one call more is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import ways_langchain
import ways_llama_index
import ways_openai_agents
import ways_pydantic_ai
from framework_harness import Stand, installed

import tokenbudget_otel as tb

MANY, ALLOWED = 12, 4
QUESTIONS = [f"question {number}" for number in range(MANY)]


async def gathered(make: Callable[[], Any]) -> list[Any]:
    return await asyncio.gather(*(make() for _ in QUESTIONS), return_exceptions=True)


def agents_run(stand: Stand) -> Any:
    async def whole() -> Any:
        agent = ways_openai_agents.agent(stand, "OpenAIResponsesModel")
        from agents import Runner

        return await gathered(lambda: Runner.run(agent, "Hi"))

    return whole()


def pydantic_run(stand: Stand) -> Any:
    agent = ways_pydantic_ai.agent(ways_pydantic_ai.chat(stand))
    return gathered(lambda: agent.run("Hi"))


def llama_run(stand: Stand) -> Any:
    model = ways_llama_index.chat(stand)
    return gathered(lambda: model.acomplete("Hi"))


CROWDS = {
    "LangChain batch": (
        "langchain_openai",
        lambda stand: ways_langchain.chat(stand).batch(QUESTIONS, return_exceptions=True),
    ),
    "LangChain batch of streams": (
        "langchain_openai",
        lambda stand: ways_langchain.chat(stand, streaming=True).batch(QUESTIONS, return_exceptions=True),
    ),
    "LangChain abatch": (
        "langchain_openai",
        lambda stand: ways_langchain.chat(stand).abatch(QUESTIONS, return_exceptions=True),
    ),
    "openai-agents": ("agents", agents_run),
    "Pydantic AI": ("pydantic_ai", pydantic_run),
    "LlamaIndex": ("llama_index", llama_run),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_a_budget_holds_in_a_crowd(crowd: str, stand: Stand, instrumented: Any, meter: Any) -> None:
    needs, make = CROWDS[crowd]
    if not installed(needs):
        pytest.skip(f"{needs} is not in this environment")
    with tb.tags(tenant="acme"), tb.budget(max_calls=ALLOWED) as run:
        answers = stand.run(make)

    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert {type(error) for error in refused} == {tb.BudgetExceeded}
    assert (len(answers), len(refused)) == (MANY, MANY - ALLOWED)
    assert len(stand.sim.requests) == len(stand.sim.billed) == ALLOWED
    totals = tb.usage(by="tenant")["acme"]
    assert (totals.calls, totals.refused_calls) == (ALLOWED, MANY - ALLOWED)
    assert (run.calls, run.remaining_calls, run.active) == (ALLOWED, 0, False)
