"""The OpenAI Agents SDK, over responses and chat completions: runs, streamed runs, tools, agents as tools."""

from __future__ import annotations

from typing import Any

from framework_harness import ASKS, LOOKS_UP, MODEL, PARTS, Answer, Stand, Way, asking, only, weather

from tokenbudget_otel.simulator import Behaviour, ToolCall

QUESTION = "Tell me a story."
ASKS_AGENT = Behaviour(tool_calls=(ToolCall("ask", {"input": "What now?"}),), **PARTS)


def agent(stand: Stand, kind: str, **options: Any) -> Any:
    import agents

    agents.set_tracing_disabled(True)  # it sends its traces to OpenAI
    model = getattr(agents, kind)(model=MODEL, openai_client=stand.async_openai())
    return agents.Agent(name="assistant", model=model, **options)


def tools(*functions: Any) -> list[Any]:
    from agents import function_tool

    return [function_tool(function) for function in functions or (weather,)]


async def run(stand: Stand, kind: str, **options: Any) -> Any:
    from agents import Runner

    return (await Runner.run(agent(stand, kind, **options), QUESTION)).final_output


async def streamed(stand: Stand, kind: str, **options: Any) -> Any:
    from agents import Runner

    return [event async for event in Runner.run_streamed(agent(stand, kind, **options), QUESTION).stream_events()]


async def left(stand: Stand, kind: str) -> None:
    from agents import Runner

    running = Runner.run_streamed(agent(stand, kind), QUESTION)
    async for event in running.stream_events():
        if event.type == "raw_response_event" and "delta" in event.data.type:
            running.cancel()


async def retried(stand: Stand, kind: str, *policies: Any) -> Any:
    from agents import ModelRetrySettings, ModelSettings, retry_policies

    policy = retry_policies.any(*policies) if policies else lambda _context: True
    settings = ModelRetrySettings(max_retries=2, policy=policy, backoff={"initial_delay": 0.001, "max_delay": 0.002})
    return await run(stand, kind, model_settings=ModelSettings(retry=settings))


def retried_as_advised(stand: Stand, kind: str) -> Any:
    """Every policy that the SDK has for what may pass: errors of the network, statuses, a time to wait until."""
    from agents import retry_policies as policies

    chosen = (policies.network_error(), policies.http_status([429, 503]), policies.retry_after())
    return retried(stand, kind, *chosen, policies.provider_suggested())


def run_sync(stand: Stand, kind: str) -> Any:
    from agents import Runner

    return Runner.run_sync(agent(stand, kind), QUESTION).final_output


async def with_inner(stand: Stand, kind: str) -> Any:
    inner = agent(stand, kind)
    return await run(stand, kind, tools=[inner.as_tool("ask", "Asks another agent.")])


def _ways(kind: str, label: str) -> list[Way]:
    def way(name: str, make: Any, **facts: Any) -> Way:
        return Way("openai-agents", f"{label} {name}", make, ("agents",), **facts)

    return [
        way("run", lambda stand: run(stand, kind)),
        way("run_sync", lambda stand: run_sync(stand, kind)),
        way("run_streamed", lambda stand: streamed(stand, kind), early=lambda stand: left(stand, kind)),
        way("agent", lambda stand: run(stand, kind, tools=tools()), answers=(LOOKS_UP,), calls=2),
        way("streamed agent", lambda stand: streamed(stand, kind, tools=tools()), answers=(LOOKS_UP,), calls=2),
        way("structured output", lambda stand: run(stand, kind, output_type=Answer)),
        way("agent as a tool", lambda stand: with_inner(stand, kind), answers=(ASKS_AGENT,), calls=3),
        way(
            "sync tool in a thread",
            lambda stand: run(stand, kind, tools=tools(asking(stand))),
            answers=(ASKS,),
            calls=3,
        ),
        way("retry as advised", lambda stand: retried_as_advised(stand, kind)),
        way("retry of everything", lambda stand: retried(stand, kind), refusals=(3,)),
    ]


WAYS = [
    *_ways("OpenAIResponsesModel", "responses"),
    *only(_ways("OpenAIChatCompletionsModel", "chat"), "run", "run_streamed", "agent", "structured output"),
]
