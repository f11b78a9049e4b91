"""Where the OpenTelemetry context does not go, scopes do not either: what is left then, and how to take it along."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import ways_langchain
from framework_harness import Stand, asking, installed

import tokenbudget_otel as tb


def executor(stand: Stand) -> Any:
    """A thread of the program's own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asking(stand), "Hi").result()


def executor_with_context(stand: Stand) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, asking(stand), "Hi").result()


def langchain_executor(stand: Stand) -> Any:
    """LangChain copies the context for its own executor, and not for one that it is given."""
    from langchain_core.runnables.config import run_in_executor

    with ThreadPoolExecutor(1) as pool:
        return stand.run(lambda stand: run_in_executor(pool, ways_langchain.chat(stand).invoke, "Hi"))


def langchain_context_executor(stand: Stand) -> Any:
    from langchain_core.runnables.config import ContextThreadPoolExecutor, run_in_executor

    with ContextThreadPoolExecutor(1) as pool:
        return stand.run(lambda stand: run_in_executor(pool, ways_langchain.chat(stand).invoke, "Hi"))


KEEPS: dict[Callable[[Stand], Any], bool] = {
    executor: False,
    executor_with_context: True,
    langchain_executor: False,
    langchain_context_executor: True,
}


@pytest.mark.parametrize("make", KEEPS, ids=lambda make: make.__name__)
def test_scopes_go_where_the_context_goes(
    make: Callable[[Stand], Any], stand: Stand, instrumented: Any, meter: Any
) -> None:
    if "langchain" in make.__name__ and not installed("langchain_openai"):
        pytest.skip("langchain_openai is not in this environment")
    meter.enforcer.add(tb.Budget(limit_calls=1, window="year", name="declared"))
    with tb.tags(tenant="acme"), tb.budget(max_calls=5) as run:
        make(stand)
        assert run.calls == (1 if KEEPS[make] else 0)
        assert set(tb.usage(by="tenant")) == {"acme" if KEEPS[make] else ""}
        # Counted it is in any case, and a declared budget holds: it needs no context.
        assert tb.usage().calls == 1
        with pytest.raises(tb.BudgetExceeded) as caught:
            make(stand)
        assert caught.value.budget == "declared"
