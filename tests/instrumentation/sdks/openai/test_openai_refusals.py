"""A budget's refusal comes before a byte is sent, as itself, from every surface."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import openai
import pytest
from openai_harness import MESSAGES, entered, read, settled
from opentelemetry.trace import StatusCode

import tokenbudget_otel as tb

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def enter(manager: Any) -> Any:
    async with entered(manager) as inner:
        return inner


CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": MESSAGES}
RESPONSE: dict[str, Any] = {"model": "gpt-5", "input": "A story."}
SOUND: dict[str, Any] = {"file": ("a.wav", b"\0" * 64)}
SURFACES = {
    "chat": lambda c: c.chat.completions.create(**CHAT),
    "chat stream": lambda c: c.chat.completions.create(**CHAT, stream=True),
    "chat parse": lambda c: c.chat.completions.parse(**CHAT),
    "chat helper": lambda c: enter(c.chat.completions.stream(**CHAT)),
    "chat raw": lambda c: c.chat.completions.with_raw_response.create(**CHAT),
    "chat streaming response": lambda c: enter(c.chat.completions.with_streaming_response.create(**CHAT)),
    "responses": lambda c: c.responses.create(**RESPONSE),
    "responses stream": lambda c: c.responses.create(**RESPONSE, stream=True),
    "responses parse": lambda c: c.responses.parse(**RESPONSE),
    "responses helper": lambda c: enter(c.responses.stream(**RESPONSE)),
    "responses background": lambda c: c.responses.create(**RESPONSE, background=True),
    "responses raw": lambda c: c.responses.with_raw_response.create(**RESPONSE),
    "responses streaming response": lambda c: enter(c.responses.with_streaming_response.create(**RESPONSE)),
    "completions": lambda c: c.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once"),
    "embeddings": lambda c: c.embeddings.create(model="text-embedding-3-small", input="a river"),
    "images": lambda c: c.images.generate(model="gpt-image-1", prompt="A river"),
    "edits": lambda c: c.images.edit(model="gpt-image-1", prompt="A river", image=("a.png", PNG)),
    "transcriptions": lambda c: c.audio.transcriptions.create(model="whisper-1", **SOUND),
    "translations": lambda c: c.audio.translations.create(model="whisper-1", **SOUND),
    "speech": lambda c: c.audio.speech.create(model="tts-1", voice="alloy", input="Hello"),
    "speech streaming": lambda c: enter(
        c.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="Hello")
    ),
}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("surface", SURFACES)
async def test_refused_before_a_byte_is_sent(surface, client, sim, instrumented, meter):
    meter.enforcer.add(tb.Budget(limit_calls=0, name="none"))
    with pytest.raises(tb.BudgetExceeded) as caught:
        await settled(SURFACES[surface](client))
    assert type(caught.value) is tb.BudgetExceeded
    assert caught.value.budget == "none"
    assert sim.requests == []
    span = instrumented.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["tokenbudget.call.outcome"] == "refused"
    assert span.attributes["tokenbudget.budget.name"] == "none"
    assert span.attributes["error.type"] == "tokenbudget_otel.BudgetExceeded"
    assert "gen_ai.usage.cost" not in span.attributes
    assert meter.totals.get().calls == 0
    assert meter.totals.get().refused_calls == 1
    (refusals,) = instrumented.metrics()["tokenbudget.budget.refusals"]
    assert refusals.value == 1
    (status,) = meter.enforcer.status()
    assert status.reserved_calls == 0


LIMITS = {
    "tokens": ({"limit_tokens": 0}, tb.TokenLimitReached),
    "dollars": ({"limit_usd": 0}, tb.BudgetExceeded),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("surface", ["chat", "responses helper", "embeddings", "images", "speech", "transcriptions"])
async def test_other_limits(limit, surface, client, sim, instrumented, meter):
    options, kind = LIMITS[limit]
    meter.enforcer.add(tb.Budget(name="none", mode="worst_case", **options))
    with pytest.raises(kind):
        await settled(SURFACES[surface](client))
    assert sim.requests == []


async def test_the_budget_around_the_call(client, sim, instrumented, meter):
    with tb.budget(max_calls=1) as run:
        await settled(SURFACES["chat"](client))
        with pytest.raises(tb.BudgetExceeded):
            await settled(SURFACES["chat"](client))
    assert run.usage.input_tokens == sim.billed[0].usage.input_tokens
    await settled(SURFACES["chat"](client))
    assert len(sim.requests) == 2


async def test_a_refusal_is_no_error_of_the_provider(mode, clients, sim, instrumented, meter):
    # Nothing of the SDK's may take it for one, and try again.
    client = clients(mode, max_retries=5)
    meter.enforcer.add(tb.Budget(limit_calls=0, name="none"))
    with pytest.raises(tb.BudgetExceeded) as caught:
        await settled(SURFACES["chat"](client))
    assert not isinstance(caught.value, openai.OpenAIError)
    assert caught.value.__cause__ is None
    assert meter.totals.get().refused_calls == 1


async def test_a_stream_reserves_until_it_ends(client, sim, instrumented, meter):
    meter.enforcer.add(tb.Budget(limit_usd=1, name="one", mode="worst_case"))
    stream = await settled(SURFACES["chat stream"](client))
    (during,) = meter.enforcer.status()
    assert during.reserved_usd > 0
    await read(stream)
    (after,) = meter.enforcer.status()
    assert after.reserved_usd == 0
    assert after.spent_usd == meter.totals.get().cost_usd


async def test_worst_case_is_never_passed(clients, sim, instrumented, meter):
    """Many calls at once on one budget: what is spent stays below the limit, and what was refused was not sent."""
    client = clients("async")
    meter.enforcer.add(tb.Budget(limit_usd="0.02", name="cap", mode="worst_case"))

    async def one() -> bool:
        try:
            await read(await client.chat.completions.create(**CHAT, max_tokens=100, stream=True))
        except tb.BudgetExceeded:
            return False
        return True

    admitted = sum(await asyncio.gather(*(one() for _ in range(40))))
    assert 0 < admitted < 40
    assert len(sim.requests) == admitted
    totals = meter.totals.get()
    assert totals.calls == admitted
    assert totals.refused_calls == 40 - admitted
    (status,) = meter.enforcer.status()
    assert status.reserved_usd == 0
    assert status.spent_usd == totals.cost_usd <= status.limit_usd


async def test_a_warning_lets_it_through(client, sim, instrumented, meter):
    met: list[Any] = []
    meter.enforcer.add(tb.Budget(limit_calls=0, name="soft", action="warn", on_warn=met.append))
    await settled(SURFACES["chat"](client))
    assert len(met) == 1
    assert len(sim.requests) == 1
    assert meter.totals.get().calls == 1
