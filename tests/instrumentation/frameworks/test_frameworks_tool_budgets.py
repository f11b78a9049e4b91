"""A tool with a budget of its own that is exhausted: whether the refusal ends the run, or is told to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ways_langchain
import ways_llama_index
import ways_openai_agents
import ways_pydantic_ai
from framework_harness import ASKS, Stand, asking, installed

import tokenbudget_otel as tb


def capped(stand: Stand) -> Callable[[str], str]:
    return tb.budget(max_calls=0, name="tool")(asking(stand))


def agents_tool(stand: Stand, **options: Any) -> Any:
    from agents import function_tool

    tool = function_tool(capped(stand), **options)
    return ways_openai_agents.run(stand, "OpenAIResponsesModel", tools=[tool])


def agents_only_tool(stand: Stand) -> Any:
    """The tool's word is the agent's answer."""
    tools = ways_openai_agents.tools(capped(stand))
    return ways_openai_agents.run(stand, "OpenAIResponsesModel", tools=tools, tool_use_behavior="stop_on_first_tool")


RUNS = {
    "LangChain": ("langchain_openai", lambda stand: ways_langchain.aagent(ways_langchain.chat(stand), capped(stand))),
    "Pydantic AI": (
        "pydantic_ai",
        lambda stand: ways_pydantic_ai.agent(ways_pydantic_ai.chat(stand), tools=[capped(stand)]).run("Hi"),
    ),
    "openai-agents": ("agents", agents_tool),
    "openai-agents that stops on a tool": ("agents", agents_only_tool),
    "openai-agents without an error function": (
        "agents",
        lambda stand: agents_tool(stand, failure_error_function=None),
    ),
    "LlamaIndex": ("llama_index", lambda stand: ways_llama_index.agent(ways_llama_index.chat(stand), capped(stand))),
}

TOLD = {"openai-agents": 2, "openai-agents that stops on a tool": 1, "LlamaIndex": 2}
"""Frameworks that make an error of a tool into an answer to the model, and how many calls the run makes then."""

WRAPPED = {"openai-agents without an error function": "UserError"}
"""Frameworks that raise an error of their own, with the refusal as its cause."""


@pytest.mark.parametrize("name", RUNS)
def test_a_tool_is_refused(name: str, stand: Stand, instrumented: Any, meter: Any) -> None:
    needs, make = RUNS[name]
    if not installed(needs):
        pytest.skip(f"{needs} is not in this environment")
    stand.sim.then(ASKS)
    if name in TOLD:
        stand.run(make)
    else:
        with pytest.raises(Exception) as caught:
            stand.run(make)
        assert type(caught.value).__name__ == WRAPPED.get(name, "BudgetExceeded")
        refusal = tb.BudgetExceeded.behind(caught.value)
        assert refusal is not None
        assert refusal.budget == "tool"
    # Told to the model or not, nothing was sent for the tool, and the refusal is on record.
    totals = tb.usage()
    assert (totals.calls, totals.refused_calls) == (TOLD.get(name, 1), 1)
    assert len(stand.sim.billed) == totals.calls
