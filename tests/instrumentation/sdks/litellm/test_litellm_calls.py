"""What is particular to LiteLLM: names of providers, one call for all that it does, and its own exceptions."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation.litellm import conventional, provider_at, resolved
from tokenbudget_otel.simulator import Behaviour, Simulator

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # nothing is fetched when it is imported
litellm = pytest.importorskip("litellm", reason="the SDK is not in this environment")
litellm.suppress_debug_info = True

MESSAGES = [{"role": "user", "content": "Tell me a story about a river."}]


@pytest.fixture
def options(sim: Simulator) -> dict[str, Any]:
    return {"api_base": sim.openai_url, "api_key": "any", "max_retries": 0, "timeout": 20}


@pytest.mark.parametrize(
    ("model", "given", "provider", "name"),
    [
        ("openai/gpt-4o", None, "openai", "gpt-4o"),
        ("gpt-4o", None, "openai", "gpt-4o"),
        ("claude-sonnet-4-5", None, "anthropic", "claude-sonnet-4-5"),
        ("groq/llama-3.1-8b-instant", None, "groq", "llama-3.1-8b-instant"),
        ("bedrock/anthropic.claude-sonnet-4-5-v1:0", None, "aws.bedrock", "anthropic.claude-sonnet-4-5-v1:0"),
        ("vertex_ai/gemini-2.5-pro", None, "gcp.vertex_ai", "gemini-2.5-pro"),
        ("gemini/gemini-2.5-pro", None, "gcp.gemini", "gemini-2.5-pro"),
        ("azure/my-deployment", None, "azure.ai.openai", "my-deployment"),
        ("xai/grok-4", None, "x_ai", "grok-4"),
        ("openrouter/openai/gpt-4o", None, "openrouter", "openai/gpt-4o"),
        ("meta/llama", "together_ai", "together", "meta/llama"),
        ("nobody-knows-it", None, "litellm", "nobody-knows-it"),
    ],
)
def test_who_answers(model: str, given: str | None, provider: str, name: str) -> None:
    assert provider_at("", {"model": model, "custom_llm_provider": given}) == provider
    assert resolved(model, given)[1] == name


def test_a_host_that_is_known(options: dict[str, Any]) -> None:
    assert provider_at("https://api.deepseek.com/v1", {"model": "openai/deepseek-chat"}) == "deepseek"
    assert conventional("vertex_ai-anthropic_models") == "gcp.vertex_ai"


OTHERS: dict[str, Any] = {
    "speech": ({"model": "openai/tts-1", "input": "a river", "voice": "alloy"}, {"input_characters": 7}),
    "image_generation": ({"model": "openai/gpt-image-1", "prompt": "a river"}, None),
    "transcription": ({"model": "openai/gpt-4o-transcribe", "file": ("a.wav", b"RIFF")}, None),
}


@pytest.mark.parametrize("asynchronous", (False, True), ids=("sync", "async"))
@pytest.mark.parametrize("name", OTHERS)
def test_other_functions(
    name: str, asynchronous: bool, instrumented: Any, meter: Any, sim: Simulator, options: dict[str, Any]
) -> None:
    arguments, counts = OTHERS[name]
    if asynchronous:
        asyncio.run(getattr(litellm, f"a{name}")(**arguments, **options))
    else:
        getattr(litellm, name)(**arguments, **options)
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls, len(sim.billed)) == (1, 0, 1)
    usage = totals.usage.counts()
    if counts is not None:
        assert usage == counts
    else:
        assert usage["input_tokens"] == sim.billed[0].usage.input_tokens
        assert usage["output_tokens"] == sim.billed[0].usage.output_tokens


def test_reranking(instrumented: Any, meter: Any, sim: Simulator) -> None:
    litellm.rerank(
        "cohere/rerank-v3.5", "where?", ["a river", "a bridge"], api_base=f"{sim.cohere_url}/v2/rerank", api_key="any"
    )
    assert meter.totals.get().usage.counts() == {"rerank_searches": 1}
    assert instrumented.span().attributes["gen_ai.operation.name"] == "rerank"


def test_names_that_are_imported_afterwards(instrumented: Any, meter: Any, options: dict[str, Any]) -> None:
    from litellm import acompletion, completion

    completion("openai/gpt-4o", MESSAGES, **options)
    asyncio.run(acompletion("openai/gpt-4o", MESSAGES, **options))
    assert meter.totals.get().calls == 2


def test_positional_arguments_of_async_functions(instrumented: Any, meter: Any, options: dict[str, Any]) -> None:
    asyncio.run(litellm.aembedding("openai/text-embedding-3-small", input=["a river"], **options))
    assert instrumented.span().attributes["gen_ai.request.model"] == "text-embedding-3-small"


@pytest.mark.parametrize("asynchronous", (False, True), ids=("sync", "async"))
def test_a_router(asynchronous: bool, instrumented: Any, meter: Any, sim: Simulator, options: dict[str, Any]) -> None:
    router = litellm.Router(
        model_list=[{"model_name": "any", "litellm_params": {"model": "openai/gpt-4o", **options}}], num_retries=0
    )

    async def read() -> int:
        return len([chunk async for chunk in await router.acompletion("any", MESSAGES, stream=True)])

    if asynchronous:
        assert asyncio.run(read()) > 1
    else:
        router.completion("any", MESSAGES)
    totals = meter.totals.get()
    assert (totals.calls, totals.estimated_calls) == (1, 0)
    assert instrumented.span().attributes["gen_ai.request.model"] == "gpt-4o"
    with tb.budget(max_calls=0), pytest.raises(tb.BudgetExceeded):
        if asynchronous:
            asyncio.run(read())
        else:
            router.completion("any", MESSAGES)
    assert len(sim.requests) == 1


def test_a_fallback_is_part_of_the_call(
    instrumented: Any, meter: Any, sim: Simulator, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "LiteLLM")
    sim.then(Behaviour(status=400))
    other = {"model": "anthropic/claude-sonnet-4-5", "api_base": sim.anthropic_url}
    litellm.completion("openai/gpt-4o", MESSAGES, fallbacks=[other], **options)
    assert len(sim.billed) == 1
    assert meter.totals.get().calls == 1
    attributes = instrumented.span().attributes
    assert attributes["gen_ai.provider.name"] == "anthropic"
    assert attributes["gen_ai.response.model"] == "claude-sonnet-4-5"
    assert attributes["tokenbudget.cost.state"] == "priced"


@pytest.mark.parametrize("more", ({}, {"num_retries": 2}, {"fallbacks": ["openai/gpt-4o-mini"]}, {"stream": True}))
def test_refusals_come_out_as_themselves(
    more: dict[str, Any], instrumented: Any, sim: Simulator, options: dict[str, Any]
) -> None:
    with tb.budget(max_calls=0):
        with pytest.raises(tb.BudgetExceeded):
            litellm.completion("openai/gpt-4o", MESSAGES, **more, **options)
        with pytest.raises(tb.BudgetExceeded):
            asyncio.run(litellm.acompletion("openai/gpt-4o", MESSAGES, **more, **options))
    assert sim.requests == []


def test_a_server_that_is_not_there(instrumented: Any, meter: Any, options: dict[str, Any]) -> None:
    options["api_base"] = "http://127.0.0.1:9/v1"
    with pytest.raises(litellm.exceptions.InternalServerError):
        litellm.completion("openai/gpt-4o", MESSAGES, **options)
    assert meter.totals.get().calls == 0


def test_what_was_never_asked_for(instrumented: Any, meter: Any, sim: Simulator, options: dict[str, Any]) -> None:
    litellm.completion("openai/gpt-4o", MESSAGES, mock_response="made up", **options)
    assert sim.requests == []
    assert meter.totals.get().calls == 0


def test_answers_out_of_its_cache(
    instrumented: Any, meter: Any, sim: Simulator, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="LiteLLM's cache wants it")
    monkeypatch.setattr(litellm, "cache", litellm.Cache(type="local"))
    for _ in range(2):
        litellm.completion("openai/gpt-4o", MESSAGES, **options)
    assert len(sim.requests) == 1
    assert meter.totals.get().calls == 1


@pytest.mark.parametrize("stream_options", (None, {"include_usage": True}, {"include_usage": False}))
def test_the_program_sees_the_chunks_that_it_would_have_seen(
    stream_options: dict[str, Any] | None, telemetry: Any, meter: Any, sim: Simulator, options: dict[str, Any]
) -> None:
    if stream_options is not None:
        options["stream_options"] = stream_options
    seen = []
    for instrumented in (False, True):
        sim.reset()
        sim.then(Behaviour(text="One river runs home.", cached_tokens=5))
        if instrumented:
            tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        try:
            chunks = list(litellm.completion("openai/gpt-4o", MESSAGES, stream=True, **options))
        finally:
            tb.uninstrument()
        kept = ("choices", "usage", "model", "object")
        seen.append([{name: value for name, value in dict(chunk).items() if name in kept} for chunk in chunks])
    assert str(seen[0]) == str(seen[1])
    assert meter.totals.get().calls == 1
    if stream_options != {"include_usage": False}:
        assert meter.totals.get().usage.cache_read_tokens == 5


def test_a_server_that_refuses_to_be_asked(
    instrumented: Any, meter: Any, sim: Simulator, options: dict[str, Any]
) -> None:
    options["api_base"] = sim.host_url("strict")
    for _ in range(2):
        assert list(litellm.completion("openai/gpt-4o", MESSAGES, stream=True, **options))
    assert len(sim.requests) == 3
    assert meter.totals.get().calls == 2
