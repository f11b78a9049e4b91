"""Real emitters against the provider simulator: the anthropic SDK itself and the official packages.

Whatever is installed beside us, and in whatever order: one call, one charge, with the tokens that the
provider counted, and the cost on one span.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry import context
from processor_bench import Bench

from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation import deferred
from tokenbudget_otel.instrumentation.anthropic import AnthropicInstrumentor
from tokenbudget_otel.instrumentation.openai import OpenAIInstrumentor
from tokenbudget_otel.instrumentation.suppression import SUPPRESS_LANGUAGE_MODEL
from tokenbudget_otel.simulator import Behaviour, Simulator

official_openai = pytest.importorskip("opentelemetry.instrumentation.genai.openai")
official_anthropic = pytest.importorskip("opentelemetry.instrumentation.genai.anthropic")

QUESTION = [{"role": "user", "content": "How much is this?"}]
CLAUDE = "claude-sonnet-4-6"
GPT = "gpt-4o"

ANSWER = {
    CLAUDE: Behaviour(
        text="Little.", input_tokens=3210, cached_tokens=3000, cache_write_5m_tokens=150, cache_write_1h_tokens=50,
        output_tokens=50, reasoning_tokens=20,
    ),
    GPT: Behaviour(text="Little.", input_tokens=1200, cached_tokens=1000, output_tokens=80, reasoning_tokens=64),
}  # fmt: skip

# claude-sonnet-4-6: 3 / 15 USD for a million, cache reads 0.30, writes 3.75 (5 minutes) and 6 (1 hour).
# gpt-4o: 2.50 / 10, cached 1.25.
COST = {
    CLAUDE: (10 * 3_000 + 3000 * 300 + 150 * 3_750 + 50 * 6_000 + 50 * 15_000),
    GPT: (200 * 2_500 + 1000 * 1_250 + 80 * 10_000),
}
WITHOUT_TTL = COST[CLAUDE] - 50 * 6_000 + 50 * 3_750
"""What a Claude call comes to where the span does not say for how long the cache keeps what was written."""


# --- calls -----------------------------------------------------------------------------------------------------------


def claude(sim: Simulator, bench: Bench, native: bool, make: Any = anthropic.Anthropic) -> Any:
    options = {"tracer_provider": bench.provider} if native else False
    return make(base_url=sim.anthropic_url, api_key="any", max_retries=0, open_telemetry=options)


def gpt(sim: Simulator, make: Any = openai.OpenAI) -> Any:
    return make(base_url=sim.openai_url, api_key="any", max_retries=0)


ASK_CLAUDE: dict[str, Any] = {"model": CLAUDE, "max_tokens": 500, "messages": QUESTION}
ASK_GPT: dict[str, Any] = {"model": GPT, "messages": QUESTION}


def claude_create(client: Any) -> None:
    client.messages.create(**ASK_CLAUDE)


def claude_stream(client: Any) -> None:
    for _ in client.messages.create(**ASK_CLAUDE, stream=True):
        pass


def claude_helper(client: Any) -> None:
    with client.messages.stream(**ASK_CLAUDE) as stream:
        assert "".join(stream.text_stream)


def claude_raw(client: Any) -> None:
    client.messages.with_raw_response.create(**ASK_CLAUDE).parse()


def claude_beta(client: Any) -> None:
    client.beta.messages.create(**ASK_CLAUDE)


async def claude_async(client: Any) -> None:
    await client.messages.create(**ASK_CLAUDE)


async def claude_async_stream(client: Any) -> None:
    async for _ in await client.messages.create(**ASK_CLAUDE, stream=True):
        pass


async def claude_async_helper(client: Any) -> None:
    async with client.messages.stream(**ASK_CLAUDE) as stream:
        async for _ in stream.text_stream:
            pass


def claude_break(client: Any) -> None:
    with client.messages.create(**ASK_CLAUDE, stream=True) as stream:
        next(iter(stream))


async def claude_async_break(client: Any) -> None:
    async with await client.messages.create(**ASK_CLAUDE, stream=True) as stream:
        async for _ in stream:
            break


def gpt_create(client: Any) -> None:
    client.chat.completions.create(**ASK_GPT)


def gpt_stream(client: Any) -> None:
    for _ in client.chat.completions.create(**ASK_GPT, stream=True, stream_options={"include_usage": True}):
        pass


def gpt_responses(client: Any) -> None:
    client.responses.create(model=GPT, input="How much is this?")


def gpt_responses_stream(client: Any) -> None:
    for _ in client.responses.create(model=GPT, input="How much is this?", stream=True):
        pass


def gpt_raw(client: Any) -> None:
    client.chat.completions.with_raw_response.create(**ASK_GPT).parse()


async def gpt_async(client: Any) -> None:
    await client.chat.completions.create(**ASK_GPT)


async def gpt_async_stream(client: Any) -> None:
    async for _ in await client.chat.completions.create(**ASK_GPT, stream=True, stream_options={"include_usage": True}):
        pass


CLAUDE_CALLS = [
    claude_create,
    claude_stream,
    claude_helper,
    claude_raw,
    claude_beta,
    claude_async,
    claude_async_stream,
    claude_async_helper,
]
GPT_CALLS = [gpt_create, gpt_stream, gpt_responses, gpt_responses_stream, gpt_raw, gpt_async, gpt_async_stream]


def run(call: Callable[[Any], Any], clients: Callable[[Any], Any], kinds: tuple[Any, Any]) -> None:
    """One call, with the client of its kind."""
    if not asyncio.iscoroutinefunction(call):
        with clients(kinds[0]) as client:
            call(client)
        return

    async def main() -> None:
        async with clients(kinds[1]) as client:
            await call(client)

    asyncio.run(main())


# --- who is installed --------------------------------------------------------------------------------------------


@pytest.fixture
def installed(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Bench]]:
    """Puts instrumentors on in the order given: ``ours``, ``official``. They are taken off again at the end."""
    with ExitStack() as stack:

        def install(*names: str) -> Bench:
            bench = make()
            kinds = {
                "ours": (AnthropicInstrumentor, OpenAIInstrumentor),
                "official": (official_anthropic.AnthropicInstrumentor, official_openai.OpenAIInstrumentor),
            }
            for name in names:
                for kind in kinds[name]:
                    kind().instrument(tracer_provider=bench.provider)
                    stack.callback(kind().uninstrument)
            return bench

        yield install
    gc.collect(1)  # what a test leaves is young
    deferred.drain()
    # The official anthropic package cannot detach its own context when an async generator is collected elsewhere.
    said = [record.getMessage() for record in caplog.records if "detach" in record.getMessage()]
    assert not said, said


def charged_once(bench: Bench, model: str, cost: int, *, spans: int) -> None:
    finished = bench.exporter.get_finished_spans()
    story = [(span.name, span.instrumentation_scope.name, dict(span.attributes or {})) for span in finished]
    totals = bench.meter.totals.get()
    behaviour = ANSWER[model]
    assert totals.calls == 1, story
    assert totals.usage.input_tokens == behaviour.input_tokens, story
    assert totals.usage.output_tokens == behaviour.output_tokens, story
    assert totals.usage.cache_read_tokens == behaviour.cached_tokens, story
    assert totals.nano_usd == cost, story
    assert [span.attributes[semconv.USAGE_COST] for span in bench.with_cost()] == [cost / 1e9], story
    assert len(finished) == spans, story


# --- the anthropic SDK by itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CLAUDE_CALLS)
def test_the_anthropic_sdk_alone(sim: Simulator, installed: Callable[..., Bench], call: Any) -> None:
    bench = installed()
    sim.then(ANSWER[CLAUDE])
    run(call, lambda make: claude(sim, bench, True, make), (anthropic.Anthropic, anthropic.AsyncAnthropic))
    charged_once(bench, CLAUDE, COST[CLAUDE], spans=1)


@pytest.mark.parametrize("call", CLAUDE_CALLS)
def test_the_anthropic_sdk_and_ours(sim: Simulator, installed: Callable[..., Bench], call: Any) -> None:
    bench = installed("ours")
    sim.then(ANSWER[CLAUDE])
    run(call, lambda make: claude(sim, bench, True, make), (anthropic.Anthropic, anthropic.AsyncAnthropic))
    charged_once(bench, CLAUDE, COST[CLAUDE], spans=1)


@pytest.mark.parametrize("call", CLAUDE_CALLS)
def test_the_anthropic_sdk_and_the_official_package(sim: Simulator, installed: Callable[..., Bench], call: Any) -> None:
    bench = installed("official")
    sim.then(ANSWER[CLAUDE])
    run(call, lambda make: claude(sim, bench, True, make), (anthropic.Anthropic, anthropic.AsyncAnthropic))
    charged_once(bench, CLAUDE, COST[CLAUDE], spans=2)


# --- the official packages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CLAUDE_CALLS)
def test_official_anthropic_alone(sim: Simulator, installed: Callable[..., Bench], call: Any) -> None:
    bench = installed("official")
    sim.then(ANSWER[CLAUDE])
    run(call, lambda make: claude(sim, bench, False, make), (anthropic.Anthropic, anthropic.AsyncAnthropic))
    charged_once(bench, CLAUDE, WITHOUT_TTL, spans=1)


@pytest.mark.parametrize("call", GPT_CALLS)
def test_official_openai_alone(sim: Simulator, installed: Callable[..., Bench], call: Any) -> None:
    bench = installed("official")
    sim.then(ANSWER[GPT])
    run(call, lambda make: gpt(sim, make), (openai.OpenAI, openai.AsyncOpenAI))
    charged_once(bench, GPT, COST[GPT], spans=1)


ORDERS = [("ours", "official"), ("official", "ours")]

WHO_MAKES_SPANS = pytest.mark.parametrize(
    ("names", "native"),
    [
        (names, native)
        for names in ((), ("official",), ("ours", "official"), ("ours",))
        for native in (False, True)
        if names or native
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "native" if value else "not native",
)


@pytest.mark.parametrize("order", ORDERS, ids=" then ".join)
@pytest.mark.parametrize("native", [False, True], ids=["", "and native"])
@pytest.mark.parametrize("call", CLAUDE_CALLS)
def test_official_anthropic_and_ours(
    sim: Simulator, installed: Callable[..., Bench], order: tuple[str, str], native: bool, call: Any
) -> None:
    bench = installed(*order)
    sim.then(ANSWER[CLAUDE])
    run(call, lambda make: claude(sim, bench, native, make), (anthropic.Anthropic, anthropic.AsyncAnthropic))
    charged_once(bench, CLAUDE, COST[CLAUDE], spans=1)


@pytest.mark.parametrize("order", ORDERS, ids=" then ".join)
@pytest.mark.parametrize("call", GPT_CALLS)
def test_official_openai_and_ours(
    sim: Simulator, installed: Callable[..., Bench], order: tuple[str, str], call: Any
) -> None:
    bench = installed(*order)
    sim.then(ANSWER[GPT])
    run(call, lambda make: gpt(sim, make), (openai.OpenAI, openai.AsyncOpenAI))
    charged_once(bench, GPT, COST[GPT], spans=1)


def test_ours_where_spans_are_suppressed(sim: Simulator, installed: Callable[..., Bench]) -> None:
    bench = installed("ours")
    sim.then(ANSWER[CLAUDE])
    token = context.attach(context.set_value(SUPPRESS_LANGUAGE_MODEL, True))
    try:
        with claude(sim, bench, True) as client:
            claude_create(client)
    finally:
        context.detach(token)
    assert bench.meter.totals.get().calls == 1


@WHO_MAKES_SPANS
def test_a_call_inside_of_the_loop_over_a_stream(
    sim: Simulator, installed: Callable[..., Bench], names: tuple[str, ...], native: bool
) -> None:
    """The official anthropic package leaves the span of a stream current, so the other call's spans lie below it."""
    bench = installed(*names)
    sim.then(ANSWER[CLAUDE], ANSWER[CLAUDE])
    with claude(sim, bench, native) as client:
        for n, _ in enumerate(client.messages.create(**ASK_CLAUDE, stream=True)):
            if n == 2:
                claude_create(client)
    totals = bench.meter.totals.get()
    # The official package takes the other call for a part of the stream and makes no span for it: by itself it
    # hides that call from everybody.
    seen = 1 if names == ("official",) and not native else 2
    assert totals.calls == seen, [(span.name, dict(span.attributes)) for span in bench.exporter.get_finished_spans()]
    assert totals.usage.output_tokens == 50 * seen


@WHO_MAKES_SPANS
@pytest.mark.parametrize("call", [claude_break, claude_async_break])
def test_a_stream_that_is_left_early(
    sim: Simulator, installed: Callable[..., Bench], names: tuple[str, ...], native: bool, call: Any
) -> None:
    """What the provider counted is not known then. Ours estimate; nobody is charged twice, and no span is lost."""
    bench = installed(*names)
    sim.then(ANSWER[CLAUDE])
    run(call, lambda make: claude(sim, bench, native, make), (anthropic.Anthropic, anthropic.AsyncAnthropic))
    gc.collect()
    deferred.drain()
    assert bench.meter.totals.get().calls <= 1
    assert len(bench.with_cost()) <= 1
    assert bench.processor._open == {}


def test_official_fetch_response_is_no_call(sim: Simulator, installed: Callable[..., Bench]) -> None:
    bench = installed("official")
    with gpt(sim) as client:
        made = client.responses.create(model=GPT, input="How much is this?")
        client.responses.retrieve(made.id)
    assert bench.meter.totals.get().calls == 1
    assert len(bench.exporter.get_finished_spans()) == 2


def test_official_stream_without_usage_is_said_to_be_unknown(sim: Simulator, installed: Callable[..., Bench]) -> None:
    bench = installed("official")
    with gpt(sim) as client:
        for _ in client.chat.completions.create(**ASK_GPT, stream=True):
            pass
    (span,) = bench.exporter.get_finished_spans()
    assert bench.meter.totals.get().calls == 0
    assert span.attributes[semconv.COST_STATE] == "unknown"


def test_official_embeddings(sim: Simulator, installed: Callable[..., Bench]) -> None:
    bench = installed("official")
    with gpt(sim) as client:
        client.embeddings.create(model="text-embedding-3-small", input="How much is this?")
    (span,) = bench.with_cost()
    assert bench.meter.totals.get(by="operation")["embeddings"].calls == 1
    assert span.attributes[semconv.USAGE_COST] > 0


def test_a_failed_call_is_not_charged(sim: Simulator, installed: Callable[..., Bench]) -> None:
    bench = installed("official")
    sim.then(Behaviour(status=429))
    with claude(sim, bench, True) as client, pytest.raises(anthropic.RateLimitError):
        client.messages.create(**ASK_CLAUDE)
    assert bench.meter.totals.get().calls == 0
    assert bench.with_cost() == []
