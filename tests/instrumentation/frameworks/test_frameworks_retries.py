"""What is tried again: below the door it is one call, above it each try is a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ways_langchain
import ways_llama_index
import ways_openai_agents
import ways_pydantic_ai
from framework_harness import Stand, ended, inferences, installed

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour

BUSY = Behaviour(status=429, retry_after_s=0.01)

# Who tries again: what runs it, and the outcomes of the spans that are left.
RETRIES: dict[str, tuple[str, Callable[[Stand], Any], list[str]]] = {
    "LangChain, by the SDK": (
        "langchain_openai",
        lambda stand: ways_langchain.chat(stand, max_retries=2).invoke("Hi"),
        ["completed"],
    ),
    "LangChain, by with_retry": (
        "langchain_openai",
        lambda stand: ways_langchain.retried(ways_langchain.chat(stand, max_retries=0)).invoke("Hi"),
        ["failed", "completed"],
    ),
    "LangChain, by with_fallbacks": (
        "langchain_openai",
        lambda stand: (
            ways_langchain.chat(stand, max_retries=0)
            .with_fallbacks([ways_langchain.chat(stand, max_retries=0)])
            .invoke("Hi")
        ),
        ["failed", "completed"],
    ),
    "openai-agents": ("agents", lambda stand: ways_openai_agents.run(stand, "OpenAIResponsesModel"), ["completed"]),
    "Pydantic AI": (
        "pydantic_ai",
        lambda stand: ways_pydantic_ai.agent(ways_pydantic_ai.chat(stand)).run("Hi"),
        ["completed"],
    ),
    "LlamaIndex": ("llama_index", lambda stand: ways_llama_index.chat(stand).complete("Hi"), ["completed"]),
}


@pytest.mark.parametrize("name", RETRIES)
def test_a_provider_that_is_busy_is_asked_again(name: str, stand: Stand, instrumented: Any, meter: Any) -> None:
    needs, make, outcomes = RETRIES[name]
    if not installed(needs):
        pytest.skip(f"{needs} is not in this environment")
    stand.sim.then(BUSY)
    with tb.budget(max_cost_usd=1) as run:
        stand.run(make)
    assert len(stand.sim.requests) == 2
    spans = inferences(ended(instrumented))
    assert [span.attributes["tokenbudget.call.outcome"] for span in spans] == outcomes
    # An answer of 429 is not billed: only the other one is a call that counts.
    (bill,) = stand.sim.billed
    assert (run.calls, run.active) == (1, False)
    assert (tb.usage().calls, tb.usage().usage.output_tokens) == (1, bill.usage.output_tokens)
