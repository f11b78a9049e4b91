"""Instructor over the OpenAI SDK: structured output by tools and by JSON, partial and iterable streams, retries."""

from __future__ import annotations

from typing import Any

from framework_harness import MODEL, PARTS, Answer, Stand, Way

from tokenbudget_otel.simulator import Behaviour, ToolCall

MESSAGES = [{"role": "user", "content": "Tell me a story."}]
BY_TOOL = Behaviour(tool_calls=(ToolCall("Answer", {"answer": "yes"}),), **PARTS)
BY_JSON = Behaviour(text='{"answer": "yes"}', **PARTS)
WRONG = Behaviour(tool_calls=(ToolCall("Answer", {"answer": {"not": "text"}}),), **PARTS)


def client(stand: Stand, mode: str = "TOOLS") -> Any:
    import instructor

    return instructor.from_openai(stand.openai(), mode=instructor.Mode[mode])


def aclient(stand: Stand) -> Any:
    import instructor

    return instructor.from_openai(stand.async_openai())


def asked(**options: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": MESSAGES, "response_model": Answer, "max_retries": 3, **options}


def patient() -> Any:
    """Tenacity's own way to retry: everything, until it stops."""
    from tenacity import Retrying, stop_after_attempt

    return Retrying(stop=stop_after_attempt(3))


def sparing() -> Any:
    from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt

    import tokenbudget_otel as tb

    return Retrying(stop=stop_after_attempt(3), retry=retry_if_not_exception_type(tb.BudgetExceeded), reraise=True)


async def apartial(stand: Stand) -> Any:
    return [piece async for piece in aclient(stand).chat.completions.create_partial(**asked())]


def _way(name: str, run: Any, **facts: Any) -> Way:
    return Way("instructor", name, run, ("instructor",), **{"wrapped": "InstructorRetryException", **facts})


WAYS = [
    _way("tools", lambda stand: client(stand).chat.completions.create(**asked()), answers=(BY_TOOL,)),
    _way("async tools", lambda stand: aclient(stand).chat.completions.create(**asked()), answers=(BY_TOOL,)),
    _way("JSON", lambda stand: client(stand, "JSON").chat.completions.create(**asked()), answers=(BY_JSON,)),
    _way(
        "asked again",
        lambda stand: client(stand).chat.completions.create(**asked()),
        answers=(WRONG, BY_TOOL),
        calls=2,
    ),
    _way("partial", lambda stand: list(client(stand).chat.completions.create_partial(**asked())), answers=(BY_TOOL,)),
    _way("async partial", apartial, answers=(BY_TOOL,)),
    _way(
        "tenacity",
        lambda stand: client(stand).chat.completions.create(**asked(max_retries=patient())),
        answers=(BY_TOOL,),
        refusals=(3,),
    ),
    _way(
        "tenacity without refusals",
        lambda stand: client(stand).chat.completions.create(**asked(max_retries=sparing())),
        answers=(BY_TOOL,),
    ),
    _way(
        "no response model",
        lambda stand: client(stand).chat.completions.create(**asked(response_model=None)),
        wrapped=None,
    ),
]
