"""LlamaIndex with its OpenAI integration: completions, chats, streams, agents, structured output."""

from __future__ import annotations

from typing import Any

from framework_harness import ASKS, LOOKS_UP, MODEL, PARTS, Answer, Stand, Way, afirst, asking, first, only, weather

from tokenbudget_otel.simulator import Behaviour

QUESTION = "Tell me a story."
NEEDS = ("llama_index", "llama_index.llms.openai")


def chat(stand: Stand, kind: str = "OpenAI") -> Any:
    import llama_index.llms.openai

    return getattr(llama_index.llms.openai, kind)(
        model=MODEL,
        api_base=stand.sim.openai_url,
        api_key="any",
        http_client=stand.http,
        async_http_client=stand.async_http,
        max_retries=3,
    )


def responses(stand: Stand) -> Any:
    return chat(stand, "OpenAIResponses")


def said() -> list[Any]:
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(role="user", content=QUESTION)]


async def read(source: Any) -> list[Any]:
    return [piece async for piece in await source]


async def left(source: Any) -> Any:
    return await afirst(await source)


async def agent(model: Any, *tools: Any, streaming: bool = False) -> Any:
    from llama_index.core.agent.workflow import FunctionAgent

    return await FunctionAgent(tools=list(tools) or [weather], llm=model, streaming=streaming).run(QUESTION)


async def react(model: Any) -> Any:
    from llama_index.core.agent.workflow import ReActAgent

    return await ReActAgent(tools=[weather], llm=model).run(QUESTION)


def structured(model: Any) -> Any:
    return model.as_structured_llm(Answer).complete(QUESTION)


async def astructured(model: Any) -> Any:
    return await model.as_structured_llm(Answer).acomplete(QUESTION)


def from_an_async_program(model: Any) -> Any:
    """Sync code of a program that has a loop running: LlamaIndex starts a thread with a loop of its own."""
    from llama_index.core.async_utils import run_async_tasks

    async def program() -> Any:
        return run_async_tasks([model.acomplete("a"), model.acomplete("b")])

    return program()


def _ways(make: Any, label: str) -> list[Way]:
    def way(name: str, run: Any, **facts: Any) -> Way:
        return Way("LlamaIndex", f"{label} {name}", run, NEEDS, **facts)

    return [
        way("complete", lambda stand: make(stand).complete(QUESTION)),
        way("acomplete", lambda stand: make(stand).acomplete(QUESTION)),
        way("chat", lambda stand: make(stand).chat(said())),
        way("achat", lambda stand: make(stand).achat(said())),
        way(
            "stream_chat",
            lambda stand: list(make(stand).stream_chat(said())),
            early=lambda stand: first(make(stand).stream_chat(said())),
        ),
        way(
            "astream_chat",
            lambda stand: read(make(stand).astream_chat(said())),
            early=lambda stand: left(make(stand).astream_chat(said())),
        ),
        way("stream_complete", lambda stand: list(make(stand).stream_complete(QUESTION))),
        way("astream_complete", lambda stand: read(make(stand).astream_complete(QUESTION))),
        way("agent", lambda stand: agent(make(stand)), answers=(LOOKS_UP,), calls=2),
        way("streamed agent", lambda stand: agent(make(stand), streaming=True), answers=(LOOKS_UP,), calls=2),
        way("structured output", lambda stand: structured(make(stand))),
        way("async structured output", lambda stand: astructured(make(stand))),
    ]


THINKS = Behaviour(text='Thought: I need a tool.\nAction: weather\nAction Input: {"city": "Rome"}', **PARTS)
KNOWS = Behaviour(text="Thought: I can answer.\nAnswer: It is sunny.", **PARTS)

WAYS = [
    *_ways(chat, "chat"),
    *only(_ways(responses, "responses"), "chat", "achat", "stream_chat", "astream_chat", "agent", "structured output"),
    Way("LlamaIndex", "ReAct agent", lambda stand: react(chat(stand)), NEEDS, answers=(THINKS, KNOWS), calls=2),
    Way(
        "LlamaIndex",
        "sync tool in a thread",
        lambda stand: agent(chat(stand), asking(stand)),
        NEEDS,
        answers=(ASKS,),
        calls=3,
    ),
    Way(
        "LlamaIndex",
        "in a thread with a loop",
        lambda stand: from_an_async_program(chat(stand)),
        NEEDS,
        calls=2,
        refusals=(1, 2),
    ),
]
