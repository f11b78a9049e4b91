"""Pydantic AI, over OpenAI's two APIs and Anthropic: runs, streams, tools, structured output, fallback models."""

from __future__ import annotations

from typing import Any

from framework_harness import ASKS, CLAUDE, LOOKS_UP, MODEL, PARTS, Answer, Stand, Way, asking, only, weather

from tokenbudget_otel.simulator import Behaviour, ToolCall

QUESTION = "Tell me a story."
ANSWERS = Behaviour(tool_calls=(ToolCall("final_result", {"answer": "yes"}),), **PARTS)


def chat(stand: Stand) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=stand.async_openai()))


def responses(stand: Stand) -> Any:
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIResponsesModel(MODEL, provider=OpenAIProvider(openai_client=stand.async_openai()))


def claude(stand: Stand) -> Any:
    import anthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = anthropic.AsyncAnthropic(base_url=stand.sim.anthropic_url, api_key="any", http_client=stand.async_http)
    return AnthropicModel(CLAUDE, provider=AnthropicProvider(anthropic_client=client))


def agent(model: Any, **options: Any) -> Any:
    from pydantic_ai import Agent

    return Agent(model, **options)


def native(model: Any) -> Any:
    from pydantic_ai import NativeOutput

    return agent(model, output_type=NativeOutput(Answer))


async def streamed(model: Any, **options: Any) -> Any:
    async with agent(model, **options).run_stream(QUESTION) as result:
        return [piece async for piece in result.stream_text(delta=True)]


def streamed_sync(model: Any) -> Any:
    with agent(model).run_stream_sync(QUESTION) as result:
        return list(result.stream_text(delta=True))


async def left(model: Any) -> None:
    async with agent(model).run_stream(QUESTION) as result:
        async for _piece in result.stream_text(delta=True, debounce_by=None):
            break


async def stepped(model: Any) -> Any:
    """Node by node, as a program does that looks into the run."""
    async with agent(model, tools=[weather]).iter(QUESTION) as run:
        return [node async for node in run]


async def with_inner(model: Any) -> Any:
    inner = agent(model)

    async def ask(question: str) -> str:
        """Asks another agent."""
        return (await inner.run(question)).output

    return await agent(model, tools=[ask]).run(QUESTION)


def fallback(stand: Stand, **options: Any) -> Any:
    from pydantic_ai.models.fallback import FallbackModel

    return FallbackModel(chat(stand), responses(stand), **options)


def _ways(make: Any, label: str, needs: str, **facts: Any) -> list[Way]:
    def way(name: str, run: Any, **more: Any) -> Way:
        return Way("Pydantic AI", f"{label} {name}", run, ("pydantic_ai", needs), **{**facts, **more})

    return [
        way("run", lambda stand: agent(make(stand), retries=3).run(QUESTION)),
        way("run_sync", lambda stand: agent(make(stand)).run_sync(QUESTION)),
        way(
            "run_stream",
            lambda stand: streamed(make(stand)),
            early=lambda stand: left(make(stand)),
        ),
        way("run_stream_sync", lambda stand: streamed_sync(make(stand))),
        way("agent", lambda stand: agent(make(stand), tools=[weather]).run(QUESTION), answers=(LOOKS_UP,), calls=2),
        way("streamed agent", lambda stand: streamed(make(stand), tools=[weather]), answers=(LOOKS_UP,), calls=2),
        way("iter", lambda stand: stepped(make(stand)), answers=(LOOKS_UP,), calls=2),
        way(
            "structured output",
            lambda stand: agent(make(stand), output_type=Answer).run(QUESTION),
            answers=(ANSWERS,),
        ),
        way("agent as a tool", lambda stand: with_inner(make(stand)), answers=(ASKS,), calls=3),
        way(
            "sync tool in a thread",
            lambda stand: agent(make(stand), tools=[asking(stand)]).run(QUESTION),
            answers=(ASKS,),
            calls=3,
        ),
    ]


def _openai(name: str, run: Any, **facts: Any) -> Way:
    return Way("Pydantic AI", name, run, ("pydantic_ai",), **facts)


BASIC = ("run", "run_stream", "agent", "structured output")

WAYS = [
    *_ways(responses, "responses", "openai"),
    *only(_ways(chat, "chat", "openai"), *BASIC),
    *only(_ways(claude, "Claude", "anthropic", system="anthropic", model=CLAUDE), *BASIC),
    _openai("native output", lambda stand: native(chat(stand)).run(QUESTION)),
    # A model of another kind has the same budget, and is not asked: a refusal is no error of a provider.
    _openai("fallback model", lambda stand: agent(fallback(stand)).run(QUESTION)),
    _openai(
        "fallback on everything",
        lambda stand: agent(fallback(stand, fallback_on=(Exception,))).run(QUESTION),
        refusals=(2,),
        wrapped="FallbackExceptionGroup",
    ),
]
