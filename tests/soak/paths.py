"""The paths that calls take, each as a function that makes the calls of a range of numbers."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from canned_provider import BEDROCK_MODEL, CHAT, CONVERSE, GEMINI_MODEL, MESSAGE
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import tokenbudget_otel as tb

Run = Callable[[int, int], None]

AT_ONCE: Final = 50
"""Calls of an asynchronous path that are under way together."""


class _Dropped(SpanExporter):
    """An exporter that has sent everything, so to say."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class _DroppedMetrics(MetricExporter):
    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **kwargs: Any) -> None:
        return None


class Stand:
    """What all paths share: where the provider is, the two OpenTelemetry providers, and whether we are there."""

    def __init__(self, port: int, *, instrumented: bool) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.instrumented = instrumented
        self.folder: str | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(BatchSpanProcessor(_Dropped(), schedule_delay_millis=200))
        self.meter_provider = MeterProvider([PeriodicExportingMetricReader(_DroppedMetrics(), 1_000)])
        if instrumented:
            tb.map_host(f"127.0.0.1:{port}/v1", "openai")

    def instrument(self, **options: Any) -> None:
        """Meter every SDK, with budgets that have room for all: one for everything, one for each of a few tenants."""
        if not self.instrumented:
            return
        options.setdefault(
            "budgets",
            [
                tb.Budget(limit_usd=1_000_000, window="month", name="all"),
                tb.Budget(limit_usd=1_000_000, window="day", per="tenant", name="tenants"),
            ],
        )
        tb.instrument(self.tracer_provider, self.meter_provider, **options)

    def settle(self) -> None:
        """Have everything done that is done later."""
        self.tracer_provider.force_flush()
        if self.loop is not None:  # asynchronous generators are closed by tasks that the loop makes when it can
            self.loop.run_until_complete(asyncio.sleep(0.05))
        if self.instrumented:
            tb.usage()  # waits for calls that were dropped
            from tokenbudget_otel.meter import meter

            meter().enforcer.flush(30)

    def counted(self) -> dict[str, int]:
        """What the meter of this process says of it."""
        totals = tb.usage()
        return {"calls": totals.calls, "refused": totals.refused_calls, "estimated": totals.estimated_calls}

    def run_async(self, one: Callable[[int], Awaitable[None]]) -> Run:
        """Calls as tasks of one event loop, each a task of its own, so many at a time."""
        runner = asyncio.Runner()
        self.loop = runner.get_loop()

        async def some(first: int, last: int) -> None:
            for start in range(first, last, AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for number in range(start, min(start + AT_ONCE, last)):
                        group.create_task(one(number))  # type: ignore[arg-type]

        return lambda first, last: runner.run(some(first, last))

    def close(self) -> None:
        """End at once: nobody reads what would still be sent."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)


PATHS: Final[dict[str, Callable[[Stand], Run]]] = {}
"""By name: given the stand, gives what makes calls number ``first`` up to ``last``."""


def path(make: Callable[[Stand], Run]) -> Callable[[Stand], Run]:
    PATHS[make.__name__] = make
    return make


def each(call: Callable[[int], object]) -> Run:
    """One call after the other."""

    def run(first: int, last: int) -> None:
        for number in range(first, last):
            call(number)

    return run


# --- openai ------------------------------------------------------------------------------------------------------


def _openai(stand: Stand) -> Any:
    import openai

    return openai.OpenAI(base_url=f"{stand.url}/v1", api_key="any", max_retries=0)


def _async_openai(stand: Stand) -> Any:
    import openai

    return openai.AsyncOpenAI(base_url=f"{stand.url}/v1", api_key="any", max_retries=0)


@path
def openai_create(stand: Stand) -> Run:
    stand.instrument()
    create = _openai(stand).chat.completions.create
    return each(lambda _: create(**CHAT))


@path
def openai_stream(stand: Stand) -> Run:
    stand.instrument()
    create = _openai(stand).chat.completions.create

    def call(_: int) -> None:
        for _chunk in create(**CHAT, stream=True):
            pass

    return each(call)


@path
def openai_stream_closed_early(stand: Stand) -> Run:
    stand.instrument()
    create = _openai(stand).chat.completions.create

    def call(_: int) -> None:
        with create(**CHAT, stream=True) as stream:
            for _chunk in stream:
                break

    return each(call)


@path
def openai_stream_dropped(stand: Stand) -> Run:
    """Left after the first piece, and never closed: the garbage collector finds it."""
    stand.instrument()
    create = _openai(stand).chat.completions.create

    def call(number: int) -> None:
        for _chunk in create(**CHAT, stream=True):
            break
        if number % 100 == 99:
            gc.collect()

    return each(call)


@path
def openai_async_create(stand: Stand) -> Run:
    stand.instrument()
    create = _async_openai(stand).chat.completions.create

    async def call(_: int) -> None:
        await create(**CHAT)

    return stand.run_async(call)


@path
def openai_async_stream(stand: Stand) -> Run:
    stand.instrument()
    create = _async_openai(stand).chat.completions.create

    async def call(_: int) -> None:
        async for _chunk in await create(**CHAT, stream=True):
            pass

    return stand.run_async(call)


@path
def openai_tags(stand: Stand) -> Run:
    """Every call for another user: more users than any table has room for."""
    stand.instrument()
    create = _openai(stand).chat.completions.create

    def call(number: int) -> None:
        with tb.tags(tenant=f"t{number % 50}", user=f"u{number}"):
            create(**CHAT)

    return each(call)


@path
def openai_scopes(stand: Stand) -> Run:
    """Every call in a ``tb.budget`` of its own, in one of another that stays."""
    stand.instrument()
    create = _openai(stand).chat.completions.create

    def call(_: int) -> None:
        with tb.budget(max_cost_usd=1):
            create(**CHAT)

    return each(call)


@path
def openai_sqlite(stand: Stand) -> Run:
    """What a call reserves is its upper bound, in a ledger on disk."""
    stand.folder = tempfile.mkdtemp(prefix="soak-")
    stand.instrument(
        ledger=f"sqlite:{stand.folder}/budgets.db",
        budgets=[tb.Budget(limit_usd=1_000_000, window="month", name="all", mode="worst_case")],
    )
    create = _openai(stand).chat.completions.create
    return each(lambda _: create(**CHAT))


@path
def refused(stand: Stand) -> Run:
    """A budget that is used up: nothing is sent."""
    stand.instrument(budgets=[tb.Budget(limit_calls=1, window="month", name="one", per="tenant")])
    create = _openai(stand).chat.completions.create
    if stand.instrumented:
        for number in range(20):
            with tb.tags(tenant=f"t{number}"):
                create(**CHAT)

    def call(number: int) -> None:
        with tb.tags(tenant=f"t{number % 20}"):
            try:
                create(**CHAT)
            except tb.BudgetExceeded:
                return
            assert not stand.instrumented, "the budget has run out"

    return each(call)


@path
def empty_scopes(stand: Stand) -> Run:
    """``tb.budget`` and ``tb.tags``, opened and closed around nothing, nested."""

    def call(number: int) -> None:
        with tb.tags(user=f"u{number}"), tb.budget(max_calls=3), tb.budget(max_cost_usd=1):
            pass

    return each(call)


@path
def openai_clients(stand: Stand) -> Run:
    """Every call by a client of its own, wrapped by itself, over one HTTP client."""
    import httpx
    import openai

    http = httpx.Client()

    def call(_: int) -> None:
        client = openai.OpenAI(base_url=f"{stand.url}/v1", api_key="any", max_retries=0, http_client=http)
        if stand.instrumented:
            client = tb.wrap(client, tracer_provider=stand.tracer_provider, meter_provider=stand.meter_provider)
        client.chat.completions.create(**CHAT)

    return each(call)


# --- other SDKs --------------------------------------------------------------------------------------------------


@path
def anthropic_create(stand: Stand) -> Run:
    import anthropic

    stand.instrument()
    create = anthropic.Anthropic(base_url=stand.url, api_key="any", max_retries=0).messages.create
    return each(lambda _: create(**MESSAGE))


@path
def anthropic_stream(stand: Stand) -> Run:
    import anthropic

    stand.instrument()
    create = anthropic.Anthropic(base_url=stand.url, api_key="any", max_retries=0).messages.create

    def call(_: int) -> None:
        for _event in create(**MESSAGE, stream=True):
            pass

    return each(call)


@path
def google_generate(stand: Stand) -> Run:
    from google import genai

    stand.instrument()
    client = genai.Client(api_key="any", vertexai=False, http_options={"base_url": stand.url})
    return each(lambda _: client.models.generate_content(model=GEMINI_MODEL, contents="Say hello."))


@path
def bedrock_converse(stand: Stand) -> Run:
    import boto3

    stand.instrument()
    client = boto3.client(
        "bedrock-runtime",
        endpoint_url=stand.url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    return each(lambda _: client.converse(modelId=BEDROCK_MODEL, **CONVERSE))


# --- spans of others ---------------------------------------------------------------------------------------------

_ASKED: Final = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
}
_USED: Final = {"gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 30}


def _tracer(stand: Stand) -> trace.Tracer:
    if stand.instrumented:
        from tokenbudget_otel.meter import meter
        from tokenbudget_otel.processor import TokenBudgetSpanProcessor

        meter().enforcer.add(tb.Budget(limit_usd=1_000_000, window="month", name="all"))
        stand.tracer_provider.add_span_processor(TokenBudgetSpanProcessor(meter_provider=stand.meter_provider))
    return stand.tracer_provider.get_tracer("opentelemetry.instrumentation.somebody")


def _under(span: trace.Span) -> context_api.Context:
    return trace.set_span_in_context(span)


@path
def foreign_spans(stand: Stand) -> Run:
    """An agent with two nested spans of one call, and a request that has nothing to do with it."""
    tracer = _tracer(stand)

    def call(number: int) -> None:
        with tracer.start_as_current_span("GET /answer"):
            with (
                tracer.start_as_current_span("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"}),
                tracer.start_as_current_span("chat", attributes=_ASKED) as outer,
                tracer.start_as_current_span("chat gpt-4o-mini", attributes=_ASKED) as inner,
            ):
                inner.set_attributes({**_USED, "gen_ai.response.id": f"r{number}"})
                outer.set_attributes({**_USED, "gen_ai.response.id": f"r{number}"})
            with tracer.start_as_current_span("POST"):
                pass

    return each(call)


@path
def foreign_spans_never_ended(stand: Stand) -> Run:
    """In every trace a call that never ends, below a root that does not either, beside one that does."""
    tracer = _tracer(stand)

    def call(_: int) -> None:
        root = tracer.start_span("GET /answer", context_api.Context())
        tracer.start_span("chat", _under(root), attributes=_ASKED)
        ended = tracer.start_span("chat", _under(root), attributes=_ASKED)
        ended.set_attributes(_USED)
        ended.end()

    return each(call)


@path
def foreign_spans_out_of_order(stand: Stand) -> Run:
    """Parents that end before their children, and children that begin after their parent has ended."""
    tracer = _tracer(stand)

    def call(_: int) -> None:
        root = tracer.start_span("GET /answer", context_api.Context())
        outer = tracer.start_span("chat", _under(root), attributes=_ASKED)
        inner = tracer.start_span("chat", _under(outer), attributes=_ASKED)
        root.end()
        outer.set_attributes(_USED)
        outer.end()
        late = tracer.start_span("chat", _under(outer), attributes=_ASKED)
        for span in (inner, late):
            span.set_attributes(_USED)
            span.end()

    return each(call)


@path
def foreign_spans_in_scopes(stand: Stand) -> Run:
    """A ``tb.budget`` around each call that only its span tells of."""
    tracer = _tracer(stand)

    def call(number: int) -> None:
        with tb.budget(max_cost_usd=1), tb.tags(user=f"u{number}"):
            span = tracer.start_span("chat", attributes=_ASKED)
            span.set_attributes(_USED)
            span.end()

    return each(call)
