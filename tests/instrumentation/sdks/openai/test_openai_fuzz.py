"""Answers that no provider should send: the program gets what the SDK makes of them, and we survive them quietly."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openai_harness import MESSAGES, bare, outcome_of, read, seen
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tokenbudget_otel as tb
from tokenbudget_otel import meter as meter_module
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.meter import Meter

ABSURD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5000),
    st.sampled_from([-1, 2**31, 2**63, 10**30, 1.5, 1e300, 0.0, -0.0, "12", "", "many", [], {}, [1], {"a": 1}]),
    st.text(max_size=5),
)
COUNTS = st.one_of(st.integers(0, 10_000), ABSURD)


def maybe(**fields: Any) -> Any:
    """An object with some of these fields, sane or not."""
    return st.fixed_dictionaries({}, optional={name: st.one_of(kind, ABSURD) for name, kind in fields.items()})


CHAT_USAGE = maybe(
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    total_tokens=COUNTS,
    prompt_tokens_details=maybe(cached_tokens=COUNTS, audio_tokens=COUNTS, cache_write_tokens=COUNTS),
    completion_tokens_details=maybe(reasoning_tokens=COUNTS, audio_tokens=COUNTS, rejected_prediction_tokens=COUNTS),
    reasoning_tokens=COUNTS,
    prompt_cache_hit_tokens=COUNTS,
    cost=st.one_of(st.floats(), COUNTS, st.just("0.5")),
)
CHOICE = maybe(
    index=COUNTS, finish_reason=st.sampled_from(["stop", "length"]), message=maybe(role=st.just("assistant"))
)
CHAT_BODY = maybe(
    id=st.just("chatcmpl-1"),
    object=st.just("chat.completion"),
    created=COUNTS,
    model=st.just("gpt-4o-2024-11-20"),
    service_tier=st.sampled_from(["default", "flex"]),
    system_fingerprint=st.just("fp"),
    choices=st.lists(CHOICE, max_size=2),
    usage=CHAT_USAGE,
    error=maybe(message=st.just("no"), code=st.just("bad")),
)
RESPONSE_USAGE = maybe(
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    total_tokens=COUNTS,
    input_tokens_details=maybe(
        cached_tokens=COUNTS,
        cache_write_tokens=COUNTS,
        cache_write_tokens_details=maybe(ttl_30m_tokens=COUNTS, ttl_12h_tokens=COUNTS),
    ),
    output_tokens_details=maybe(reasoning_tokens=COUNTS),
)
RESPONSE_BODY = maybe(
    id=st.just("resp_1"),
    object=st.just("response"),
    created_at=COUNTS,
    model=st.just("gpt-5"),
    status=st.sampled_from(["completed", "failed", "incomplete", "queued", "in_progress", "cancelled"]),
    background=st.booleans(),
    incomplete_details=maybe(reason=st.just("max_output_tokens")),
    error=maybe(code=st.just("server_error"), message=st.just("no")),
    output=st.lists(maybe(type=st.sampled_from(["message", "web_search_call"]), id=st.just("m")), max_size=2),
    usage=RESPONSE_USAGE,
)
BODIES = st.one_of(
    st.tuples(st.just("chat"), st.one_of(CHAT_BODY, ABSURD, st.just([1, 2]))),
    st.tuples(st.just("responses"), st.one_of(RESPONSE_BODY, ABSURD)),
)


class Pieces(httpx2.SyncByteStream):
    """A body as it comes from a socket: in pieces, and not read before the SDK reads it."""

    def __init__(self, body: bytes, size: int) -> None:
        self._pieces = [body[start : start + size] for start in range(0, len(body), size)]

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


class World:
    """An instrumented client whose provider answers whatever it is told to."""

    def __init__(self, base_url: str = "http://127.0.0.1:1/v1") -> None:
        self.body = b""
        self.split = 1 << 20
        self.content_type = "application/json"
        transport = httpx2.MockTransport(self._answer)
        self.client = openai.OpenAI(
            api_key="any", base_url=base_url, max_retries=0, http_client=httpx2.Client(transport=transport)
        )
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def _answer(self, _request: Any) -> Any:
        return httpx2.Response(200, headers={"content-type": self.content_type}, stream=Pieces(self.body, self.split))

    async def call(self, surface: str, streamed: bool) -> Any:
        if surface == "chat":
            result: Any = self.client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=streamed)
        else:
            result = self.client.responses.create(model="gpt-5", input="A story.", stream=streamed)
        return await read(result) if streamed else result


@pytest.fixture(scope="module", params=["http://127.0.0.1:1/v1", "https://openrouter.ai/api/v1", "https://api.x.ai/v1"])
def world(request: pytest.FixtureRequest) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        world = World(request.param)
        world.meter = Meter()  # type: ignore[attr-defined]
        patch.setattr(meter_module, "_meter", world.meter)  # type: ignore[attr-defined]
        tb.instrument(world.provider, NoOpMeterProvider())
        yield world
        tb.uninstrument()
        world.client.close()


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """What is logged here is not what the next test sees."""
    guard._logged.clear()
    yield
    guard._logged.clear()


def run_both(world: Any, surface: str, body: bytes, streamed: bool, split: int = 1 << 20) -> Any:
    """Both worlds agree; the span and the charge of our call, if it was charged, and what we logged."""
    world.body, world.split = body, split
    world.content_type = "text/event-stream" if streamed else "application/json"
    with bare(world.client):
        without = asyncio.run(outcome_of(world.call(surface, streamed)))
    world.exporter.clear()
    world.meter.totals.clear()
    guard._logged.clear()
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logging.getLogger("tokenbudget_otel").addHandler(handler)
    try:
        with_us = asyncio.run(outcome_of(world.call(surface, streamed)))
    finally:
        logging.getLogger("tokenbudget_otel").removeHandler(handler)
    assert with_us == without
    (span,) = world.exporter.get_finished_spans()
    totals = world.meter.totals.get()
    return span, totals, [record.getMessage() for record in logged]


def sane(span: Any, totals: Any, logged: list[str]) -> None:
    assert len(logged) <= 1
    assert totals.nano_usd >= 0
    assert totals.calls <= 1
    for name, value in span.attributes.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert value >= 0, name
        if isinstance(value, int):
            # OTLP has 64 bits for an integer: one attribute beyond that costs the whole batch.
            assert value < 2**63, name


def dumped(body: Any) -> bytes:
    return json.dumps(body, allow_nan=True).encode()


SETTINGS = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@given(BODIES)
@example(("responses", {"id": "resp_1", "output": [{"type": ["web_search_call"]}], "usage": {"input_tokens": 3}}))
@example(("chat", {"usage": {"prompt_tokens": 10**30, "completion_tokens": 1}}))
@example(("chat", {"usage": {"prompt_tokens": 5, "completion_tokens": 2**63}}))
def test_absurd_json(world, case):
    surface, body = case
    sane(*run_both(world, surface, dumped(body), streamed=False))


@SETTINGS
@given(st.lists(BODIES, max_size=4), st.booleans(), st.sampled_from([3, 40, 1 << 20]))
def test_absurd_chunks(world, cases, done, split):
    for surface in ("chat", "responses"):
        events = []
        for kind, body in cases:
            if surface == "responses":
                body = {"type": "response.completed", "response": body}
            elif kind != "chat":
                continue
            events.append(b"data: %s\n\n" % dumped(body))
        if done:
            events.append(b"data: [DONE]\n\n")
        sane(*run_both(world, surface, b"".join(events), streamed=True, split=split))


@SETTINGS
@given(st.binary(max_size=80), st.booleans(), st.sampled_from([1, 7, 1 << 20]))
@example(b"data: {\n\n", True, 1 << 20)
@example(b'data: {"usage": {"prompt_tokens": 1}\n\n', True, 1 << 20)
@example(b"", False, 1)
@example(b"", True, 1)
def test_any_bytes(world, body, streamed, split):
    # A mark inside of broken JSON may trouble our reader: once, and only in the log.
    sane(*run_both(world, "chat", body, streamed, split))


@pytest.mark.parametrize("split", [1, 7, 30, 1 << 20])
def test_not_a_byte_is_lost_when_our_reader_gives_up(split, world):
    """Broken JSON with something in it that we look for: the program gets it as it came, in pieces or not."""
    body = b'data: {"id":"c","choices":[]}\n\ndata: {"finish_reason": "stop", oops\n\ndata: [DONE]\n\n'
    sane(*run_both(world, "chat", body, True, split))


# --- what is known is said ---------------------------------------------------------------------------------------

NOTHING = ({}, [], 5, "many", {"prompt_tokens": None}, {"prompt_tokens": "x", "completion_tokens": -1}, True)


@pytest.mark.parametrize("usage", NOTHING, ids=str)
@pytest.mark.parametrize("surface", ["chat", "responses"])
@pytest.mark.parametrize("streamed", [False, True])
def test_usage_that_says_nothing_is_not_a_count_of_zero(surface, streamed, usage, world):
    body: dict[str, Any] = {"id": "x_1", "model": "gpt-4o", "usage": usage, "choices": [], "output": []}
    if surface == "responses":
        body |= {"status": "completed"}
    data = dumped(body)
    if streamed:
        event = {"type": "response.completed", "response": body} if surface == "responses" else body
        data = b"data: %s\n\ndata: [DONE]\n\n" % dumped(event)
    span, totals, logged = run_both(world, surface, data, streamed)
    sane(span, totals, logged)
    assert totals.estimated_calls == 1
    assert span.attributes["gen_ai.usage.input_tokens"] > 0


PARTLY = (
    ({"prompt_tokens": 10, "completion_tokens": "x"}, {"gen_ai.usage.input_tokens": 10}),
    (
        {"prompt_tokens": 10, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 9}},
        {"gen_ai.usage.input_tokens": 10},
    ),
    (
        {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 99}},
        {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4},
    ),
    (
        {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": "none"},
        {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4},
    ),
)


@pytest.mark.parametrize(("usage", "known"), PARTLY, ids=str)
def test_what_is_known_is_kept(usage, known, world):
    span, totals, logged = run_both(world, "chat", dumped({"id": "c", "choices": [], "usage": usage}), False)
    sane(span, totals, logged)
    for name, value in known.items():
        assert span.attributes[name] == value
    assert "gen_ai.usage.cache_read.input_tokens" not in span.attributes


def test_a_server_tool_of_unknown_kind_does_not_lose_the_tokens(world):
    body = {
        "id": "resp_1",
        "model": "gpt-5",
        "status": "completed",
        "output": [{"type": ["web_search_call"]}, {"type": None}, 7, {"type": "web_search_call"}],
        "usage": {"input_tokens": 11, "output_tokens": 3},
    }
    span, _, logged = run_both(world, "responses", dumped(body), False)
    assert logged == []
    assert span.attributes["gen_ai.usage.input_tokens"] == 11
    assert span.attributes["tokenbudget.usage.web_searches"] == 1


@pytest.mark.parametrize("cost", ["1e999999", "-1", "nan", -0.5, True, None, [], {"total": 1}])
def test_a_cost_that_is_none(cost, world):
    """Reported costs are read from OpenRouter only, and only if they are amounts of money."""
    body = {"id": "c", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4, "cost": cost}}
    start = time.monotonic()
    span, totals, logged = run_both(world, "chat", dumped(body), False)
    assert time.monotonic() - start < 2
    sane(span, totals, logged)
    assert span.attributes.get("tokenbudget.cost.source") != "provider"


def test_seen_tells_types_apart():
    # The comparison of these tests is worth something.
    assert seen({"a": 1}) != seen({"a": 2})
    assert seen("chatcmpl-" + "0" * 24) == seen("chatcmpl-" + "f" * 24)
