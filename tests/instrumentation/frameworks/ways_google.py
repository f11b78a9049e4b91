"""Frameworks over google-genai: LangChain and Pydantic AI."""

from __future__ import annotations

from typing import Any

import ways_langchain
import ways_pydantic_ai
from framework_harness import LOOKS_UP, Stand, Way, afirst, first, weather

QUESTION = "Tell me a story."
GEMINI = "gemini-2.5-flash"
FACTS: dict[str, Any] = {"system": "gcp.gemini", "model": GEMINI, "operation": "generate_content"}


def langchain(stand: Stand) -> Any:
    from langchain_google_genai import ChatGoogleGenerativeAI

    return ChatGoogleGenerativeAI(model=GEMINI, google_api_key="any", base_url=stand.sim.google_url)


def pydantic_ai(stand: Stand) -> Any:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    return GoogleModel(GEMINI, provider=GoogleProvider(api_key="any", base_url=stand.sim.google_url))


def _langchain(name: str, run: Any, **facts: Any) -> Way:
    return Way("LangChain", f"Gemini {name}", run, ("langchain_google_genai",), **FACTS, **facts)


def _pydantic_ai(name: str, run: Any, **facts: Any) -> Way:
    return Way("Pydantic AI", f"Gemini {name}", run, ("pydantic_ai", "google.genai"), **FACTS, **facts)


WAYS = [
    _langchain("invoke", lambda stand: langchain(stand).invoke(QUESTION)),
    _langchain("ainvoke", lambda stand: langchain(stand).ainvoke(QUESTION)),
    _langchain(
        "stream",
        lambda stand: list(langchain(stand).stream(QUESTION)),
        early=lambda stand: first(langchain(stand).stream(QUESTION)),
    ),
    _langchain(
        "astream",
        lambda stand: ways_langchain.read(langchain(stand).astream(QUESTION)),
        early=lambda stand: afirst(langchain(stand).astream(QUESTION)),
    ),
    _langchain("batch", lambda stand: langchain(stand).batch(["a", "b"]), calls=2, refusals=(1, 2)),
    _langchain("agent", lambda stand: ways_langchain.agent(langchain(stand), weather), answers=(LOOKS_UP,), calls=2),
    _pydantic_ai("run", lambda stand: ways_pydantic_ai.agent(pydantic_ai(stand)).run(QUESTION)),
    _pydantic_ai(
        "run_stream",
        lambda stand: ways_pydantic_ai.streamed(pydantic_ai(stand)),
        early=lambda stand: ways_pydantic_ai.left(pydantic_ai(stand)),
    ),
    _pydantic_ai(
        "agent",
        lambda stand: ways_pydantic_ai.agent(pydantic_ai(stand), tools=[weather]).run(QUESTION),
        answers=(LOOKS_UP,),
        calls=2,
    ),
]
