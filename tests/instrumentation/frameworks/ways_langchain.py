"""LangChain: chat models of OpenAI and Anthropic, chains, batches, structured output, tools, embeddings."""

from __future__ import annotations

import itertools
from typing import Any

from framework_harness import (
    ASKS,
    CLAUDE,
    LOOKS_UP,
    MODEL,
    PARTS,
    Answer,
    Stand,
    Way,
    afirst,
    asking,
    first,
    only,
    weather,
)

from tokenbudget_otel.simulator import Behaviour, ToolCall

QUESTION = "Tell me a story."
ANSWERS = Behaviour(tool_calls=(ToolCall("Answer", {"answer": "yes"}),), **PARTS)


def chat(stand: Stand, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=MODEL,
        base_url=stand.sim.openai_url,
        api_key="any",
        http_client=stand.http,
        http_async_client=stand.async_http,
        **options,
    )


def responses(stand: Stand) -> Any:
    return chat(stand, use_responses_api=True)


_TIMEOUTS = itertools.count(60)


def claude(stand: Stand) -> Any:
    from langchain_anthropic import ChatAnthropic

    # Models share one HTTP client for each time-out, also across event loops, which breaks the connections.
    return ChatAnthropic(model=CLAUDE, base_url=stand.sim.anthropic_url, api_key="any", timeout=next(_TIMEOUTS))


def embedder(stand: Stand) -> Any:
    from langchain_openai import OpenAIEmbeddings

    return OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=stand.sim.openai_url,
        api_key="any",
        check_embedding_ctx_length=False,
        http_client=stand.http,
        http_async_client=stand.async_http,
    )


def chain(stand: Stand) -> Any:
    """Two calls at a time, on LangChain's threads, and one that takes both answers."""
    from langchain_core.runnables import RunnableLambda, RunnableParallel

    model = chat(stand)
    both = RunnableParallel(first=model, second=model)
    return both | RunnableLambda(lambda found: f"{found['first'].text} {found['second'].text}") | model


def sync_only(stand: Stand) -> Any:
    """A model that has no async methods: LangChain runs it in an executor."""
    from langchain_core.language_models import SimpleChatModel

    client = stand.openai()

    class SyncOnly(SimpleChatModel):
        def _call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
            said = [{"role": "user", "content": message.text} for message in messages]
            return client.chat.completions.create(model=MODEL, messages=said).choices[0].message.content

        @property
        def _llm_type(self) -> str:
            return "sync-only"

    return SyncOnly()


def agent(model: Any, *functions: Any) -> Any:
    """The loop that an agent is: call the model, run the tools that it asks for, until it asks for none."""
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import tool

    tools = {made.name: made for made in map(tool, functions)}
    bound = model.bind_tools(list(tools.values()))
    messages: list[Any] = [HumanMessage(QUESTION)]
    while True:
        answer = bound.invoke(messages)
        messages.append(answer)
        if not answer.tool_calls:
            return answer.text
        messages += [tools[call["name"]].invoke(call) for call in answer.tool_calls]


async def aagent(model: Any, *functions: Any) -> Any:
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import tool

    tools = {made.name: made for made in map(tool, functions)}
    bound = model.bind_tools(list(tools.values()))
    messages: list[Any] = [HumanMessage(QUESTION)]
    while True:
        answer = await bound.ainvoke(messages)
        messages.append(answer)
        if not answer.tool_calls:
            return answer.text
        messages += [await tools[call["name"]].ainvoke(call) for call in answer.tool_calls]


async def read(source: Any) -> list[Any]:
    return [piece async for piece in source]


def retried(model: Any, **options: Any) -> Any:
    return model.with_retry(exponential_jitter_params={"initial": 0.001, "max": 0.002, "jitter": 0.0}, **options)


def _ways(make: Any, label: str, needs: str, **facts: Any) -> list[Way]:
    def way(name: str, run: Any, **more: Any) -> Way:
        return Way("LangChain", f"{label} {name}", run, ("langchain_core", needs), **{**facts, **more})

    return [
        way("invoke", lambda stand: make(stand).invoke(QUESTION)),
        way("ainvoke", lambda stand: make(stand).ainvoke(QUESTION)),
        way(
            "stream",
            lambda stand: list(make(stand).stream(QUESTION)),
            early=lambda stand: first(make(stand).stream(QUESTION)),
        ),
        way(
            "astream",
            lambda stand: read(make(stand).astream(QUESTION)),
            early=lambda stand: afirst(make(stand).astream(QUESTION)),
        ),
        way("batch", lambda stand: make(stand).batch(["a", "b", "c"]), calls=3, refusals=(1, 2, 3)),
        way("abatch", lambda stand: make(stand).abatch(["a", "b", "c"]), calls=3, refusals=(1, 2, 3)),
        way("agent", lambda stand: agent(make(stand), weather), answers=(LOOKS_UP,), calls=2),
        way("async agent", lambda stand: aagent(make(stand), weather), answers=(LOOKS_UP,), calls=2),
        way(
            "structured output",
            lambda stand: make(stand).with_structured_output(Answer, method="function_calling").invoke(QUESTION),
            answers=(ANSWERS,),
        ),
    ]


def _openai(name: str, run: Any, **facts: Any) -> Way:
    return Way("LangChain", name, run, ("langchain_core", "langchain_openai"), **facts)


BASIC = ("invoke", "ainvoke", "stream", "astream", "agent", "structured output")

WAYS = [
    *_ways(chat, "chat", "langchain_openai"),
    *only(_ways(responses, "responses", "langchain_openai"), *BASIC),
    *only(_ways(claude, "Claude", "langchain_anthropic", system="anthropic", model=CLAUDE), *BASIC),
    _openai("JSON schema", lambda stand: chat(stand).with_structured_output(Answer).invoke(QUESTION)),
    _openai("astream events", lambda stand: read(chat(stand).astream_events(QUESTION))),
    # The first answer that fails ends the chain, and the one beside it is under way by then.
    _openai("parallel chain", lambda stand: chain(stand).invoke(QUESTION), calls=3, refusals=(1, 2)),
    _openai("async parallel chain", lambda stand: chain(stand).ainvoke(QUESTION), calls=3, refusals=(1, 2)),
    _openai("sync model awaited", lambda stand: sync_only(stand).ainvoke(QUESTION)),
    _openai(
        "sync tool in a thread",
        lambda stand: aagent(chat(stand), asking(stand)),
        answers=(ASKS,),
        calls=3,
    ),
    _openai("with_retry", lambda stand: retried(chat(stand)).invoke(QUESTION), refusals=(3,)),
    _openai("with_retry batch", lambda stand: retried(chat(stand)).batch(["a", "b"]), calls=2, refusals=range(3, 7)),
    _openai(
        "with_retry of provider errors",
        lambda stand: retried(chat(stand), retry_if_exception_type=(OSError,)).invoke(QUESTION),
    ),
    _openai("with_fallbacks", lambda stand: chat(stand).with_fallbacks([chat(stand)]).invoke(QUESTION), refusals=(2,)),
    _openai(
        "embeddings",
        lambda stand: embedder(stand).embed_documents(["a story", "another one"]),
        answers=(Behaviour(),),
        operation="embeddings",
        model="text-embedding-3-small",
    ),
    _openai(
        "async embeddings",
        lambda stand: embedder(stand).aembed_query("a story"),
        answers=(Behaviour(),),
        operation="embeddings",
        model="text-embedding-3-small",
    ),
]
