"""The calls of the matrix: the same for every peer, each with what the provider counts and what that costs.

Run inside a program that a test starts (``peer_program.py``), so nothing here imports pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenbudget_otel.simulator import Behaviour, Simulator

CLAUDE = "claude-sonnet-4-6"
GPT = "gpt-4o"
GEMINI = "gemini-2.5-flash"
QUESTION = "How much is this?"

ANSWERS = {
    CLAUDE: Behaviour(
        text="Little.", input_tokens=3210, cached_tokens=3000, cache_write_5m_tokens=200, output_tokens=50,
        reasoning_tokens=20,
    ),
    GPT: Behaviour(text="Little.", input_tokens=1200, cached_tokens=1000, output_tokens=80, reasoning_tokens=64),
    GEMINI: Behaviour(text="Little.", input_tokens=1100, cached_tokens=400, output_tokens=80, reasoning_tokens=30),
}  # fmt: skip

# nano-USD a token. claude-sonnet-4-6: 3 / 15 USD a million, cache reads 0.30, writes 3.75. gpt-4o: 2.50 / 10, cached
# 1.25. gemini-2.5-flash: 0.30 / 2.50, cached 0.03.
PRICES = {CLAUDE: (3_000, 300, 3_750, 15_000), GPT: (2_500, 1_250, 0, 10_000), GEMINI: (300, 30, 0, 2_500)}


def cost_of(model: str, *, input_tokens: int, cached: int = 0, written: int = 0, output_tokens: int) -> int:
    """What so many tokens come to, in nano-USD."""
    fresh, read, write, out = PRICES[model]
    return (input_tokens - cached - written) * fresh + cached * read + written * write + output_tokens * out


@dataclass(frozen=True)
class Call:
    """One way of calling a model.

    ``streamed`` and ``is_async`` tell what kind it is; ``run`` makes the call, given the simulator and the SDK options.
    """

    name: str
    sdk: str
    model: str
    run: Callable[[Simulator], Any]
    is_async: bool = False


CALLS: dict[str, Call] = {}


def call(sdk: str, model: str, *, is_async: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def note(run: Callable[..., Any]) -> Callable[..., Any]:
        CALLS[run.__name__] = Call(run.__name__, sdk, model, run, is_async)
        return run

    return note


MESSAGES = [{"role": "user", "content": QUESTION}]
ASK_GPT: dict[str, Any] = {"model": GPT, "messages": MESSAGES}
ASK_GPT_STREAM: dict[str, Any] = {**ASK_GPT, "stream": True, "stream_options": {"include_usage": True}}
ASK_CLAUDE: dict[str, Any] = {"model": CLAUDE, "max_tokens": 500, "messages": MESSAGES}


# --- OpenAI ----------------------------------------------------------------------------------------------------------


def _openai(sim: Simulator, kind: str = "OpenAI") -> Any:
    import openai

    return getattr(openai, kind)(base_url=sim.openai_url, api_key="any", max_retries=0)


@call("openai", GPT)
def chat(sim: Simulator) -> None:
    with _openai(sim) as client:
        client.chat.completions.create(**ASK_GPT)


@call("openai", GPT)
def chat_stream(sim: Simulator) -> None:
    with _openai(sim) as client:
        for _ in client.chat.completions.create(**ASK_GPT_STREAM):
            pass


@call("openai", GPT)
def chat_raw(sim: Simulator) -> None:
    with _openai(sim) as client:
        client.chat.completions.with_raw_response.create(**ASK_GPT).parse()


@call("openai", GPT, is_async=True)
async def chat_async(sim: Simulator) -> None:
    async with _openai(sim, "AsyncOpenAI") as client:
        await client.chat.completions.create(**ASK_GPT)


@call("openai", GPT, is_async=True)
async def chat_async_stream(sim: Simulator) -> None:
    async with _openai(sim, "AsyncOpenAI") as client:
        async for _ in await client.chat.completions.create(**ASK_GPT_STREAM):
            pass


@call("openai", GPT)
def responses(sim: Simulator) -> None:
    with _openai(sim) as client:
        client.responses.create(model=GPT, input=QUESTION)


@call("openai", GPT)
def responses_stream(sim: Simulator) -> None:
    with _openai(sim) as client:
        for _ in client.responses.create(model=GPT, input=QUESTION, stream=True):
            pass


@call("openai", GPT, is_async=True)
async def responses_async(sim: Simulator) -> None:
    async with _openai(sim, "AsyncOpenAI") as client:
        await client.responses.create(model=GPT, input=QUESTION)


@call("openai", GPT, is_async=True)
async def responses_async_stream(sim: Simulator) -> None:
    async with _openai(sim, "AsyncOpenAI") as client:
        async for _ in await client.responses.create(model=GPT, input=QUESTION, stream=True):
            pass


# --- Anthropic -------------------------------------------------------------------------------------------------------


def _anthropic(sim: Simulator, kind: str = "Anthropic") -> Any:
    import anthropic

    return getattr(anthropic, kind)(base_url=sim.anthropic_url, api_key="any", max_retries=0)


@call("anthropic", CLAUDE)
def messages(sim: Simulator) -> None:
    with _anthropic(sim) as client:
        client.messages.create(**ASK_CLAUDE)


@call("anthropic", CLAUDE)
def messages_stream(sim: Simulator) -> None:
    with _anthropic(sim) as client:
        for _ in client.messages.create(**ASK_CLAUDE, stream=True):
            pass


@call("anthropic", CLAUDE)
def messages_helper(sim: Simulator) -> None:
    with _anthropic(sim) as client, client.messages.stream(**ASK_CLAUDE) as stream:
        for _ in stream:
            pass


@call("anthropic", CLAUDE, is_async=True)
async def messages_async(sim: Simulator) -> None:
    async with _anthropic(sim, "AsyncAnthropic") as client:
        await client.messages.create(**ASK_CLAUDE)


@call("anthropic", CLAUDE, is_async=True)
async def messages_async_stream(sim: Simulator) -> None:
    async with _anthropic(sim, "AsyncAnthropic") as client:
        async for _ in await client.messages.create(**ASK_CLAUDE, stream=True):
            pass


# --- Google ----------------------------------------------------------------------------------------------------------


def _google(sim: Simulator) -> Any:
    from google import genai

    return genai.Client(api_key="any", http_options={"base_url": sim.google_url})


@call("google", GEMINI)
def generate(sim: Simulator) -> None:
    client = _google(sim)  # one that is not held is closed at once
    client.models.generate_content(model=GEMINI, contents=QUESTION)


@call("google", GEMINI)
def generate_stream(sim: Simulator) -> None:
    client = _google(sim)
    for _ in client.models.generate_content_stream(model=GEMINI, contents=QUESTION):
        pass


@call("google", GEMINI, is_async=True)
async def generate_async(sim: Simulator) -> None:
    client = _google(sim)
    await client.aio.models.generate_content(model=GEMINI, contents=QUESTION)


@call("google", GEMINI, is_async=True)
async def generate_async_stream(sim: Simulator) -> None:
    client = _google(sim)
    async for _ in await client.aio.models.generate_content_stream(model=GEMINI, contents=QUESTION):
        pass


# --- LangChain on top ------------------------------------------------------------------------------------------------


def _langchain(sim: Simulator) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=GPT, base_url=sim.openai_url, api_key="any", max_retries=0, stream_usage=True)


@call("langchain", GPT)
def langchain(sim: Simulator) -> None:
    _langchain(sim).invoke(QUESTION)


@call("langchain", GPT)
def langchain_stream(sim: Simulator) -> None:
    for _ in _langchain(sim).stream(QUESTION):
        pass


@call("langchain", GPT)
def langchain_chain(sim: Simulator) -> None:
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | _langchain(sim) | StrOutputParser()
    chain.invoke({"question": QUESTION})


@call("langchain", GPT, is_async=True)
async def langchain_async(sim: Simulator) -> None:
    await _langchain(sim).ainvoke(QUESTION)


@call("langchain", GPT, is_async=True)
async def langchain_async_stream(sim: Simulator) -> None:
    async for _ in _langchain(sim).astream(QUESTION):
        pass


def _langchain_claude(sim: Simulator) -> Any:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model=CLAUDE, base_url=sim.anthropic_url, api_key="any", max_retries=0, max_tokens=500)


@call("langchain-anthropic", CLAUDE)
def langchain_claude(sim: Simulator) -> None:
    _langchain_claude(sim).invoke(QUESTION)


@call("langchain-anthropic", CLAUDE, is_async=True)
async def langchain_claude_async(sim: Simulator) -> None:
    await _langchain_claude(sim).ainvoke(QUESTION)


@call("langchain-anthropic", CLAUDE)
def langchain_claude_stream(sim: Simulator) -> None:
    for _ in _langchain_claude(sim).stream(QUESTION):
        pass
