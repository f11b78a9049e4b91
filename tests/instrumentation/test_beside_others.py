"""Beside the instrumentors of others, with stand-ins for what they do: where a door stands, whose span a call has, and
how a span that ends later finds the call that it tells of. `make peers` has the real ones."""

from __future__ import annotations

import contextvars
import functools
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import openai
import pytest
import wrapt
from opentelemetry import trace
from opentelemetry.trace import Tracer

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.dialects import COVERED_BY, Inference
from tokenbudget_otel.instrumentation import guard, metered_calls
from tokenbudget_otel.instrumentation.beneath import holder_of
from tokenbudget_otel.instrumentation.metered_calls import MAX_IN_CONTEXT, SOON_NS, EndedSpan
from tokenbudget_otel.instrumentation.peers import is_peer, of_one_maker
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Behaviour, Simulator
from tokenbudget_otel.usage import TokenUsage

QUESTION: Any = [{"role": "user", "content": "How much is this?"}]
MODEL = "gpt-4o"
ANSWER = Behaviour(input_tokens=1200, cached_tokens=1000, output_tokens=80)
COST = 0.00255

SPAN = {"gen_ai.operation.name": "chat", "gen_ai.request.model": MODEL, "gen_ai.provider.name": "openai"}
USED = {
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 80,
    "gen_ai.usage.cache_read.input_tokens": 1000,
}


# --- stand-ins -------------------------------------------------------------------------------------------------------

PEER = "openlit.instrumentation.standin"

SOURCE = """
import time
def is_current(tracer, call):
    with tracer.start_as_current_span("chat", attributes=SPAN) as span:
        answer = call()
        span.set_attributes(USED)
        return answer

def says_what_it_is_at_the_end(tracer, call):
    with tracer.start_as_current_span("chat") as span:
        answer = call()
        span.set_attributes({**SPAN, **USED})
        return answer

def is_never_current(tracer, call):
    span = tracer.start_span("chat", attributes=SPAN)
    answer = call()
    span.set_attributes(USED)
    span.end()
    return answer

def is_made_afterwards(tracer, call):
    began = time.time_ns()
    answer = call()
    tracer.start_span("chat", attributes={**SPAN, **USED}, start_time=began).end()
    return answer

def writes_a_cost_of_its_own(tracer, call):
    with tracer.start_as_current_span("chat", attributes=SPAN) as span:
        answer = call()
        span.set_attributes({**USED, "gen_ai.usage.cost": 0.0})
        return answer
"""

WAYS = (
    "is_current",
    "says_what_it_is_at_the_end",
    "is_never_current",
    "is_made_afterwards",
    "writes_a_cost_of_its_own",
)


def standin(module: str = PEER) -> Any:
    """A module of another instrumentor: five ways to make a span around a call."""
    made = ModuleType(module)
    vars(made).update(SPAN=SPAN, USED=USED)
    exec(SOURCE, vars(made))  # so that it stands on the stack as that module
    return made


def wrapping(way: str, tracer: Tracer, module: str = PEER) -> Callable[..., Any]:
    """A wrapper for wrapt that makes spans so."""
    around = getattr(standin(module), way)
    return lambda wrapped, _instance, args, kwargs: around(tracer, functools.partial(wrapped, *args, **kwargs))


@pytest.fixture
def peer(telemetry: Any) -> Iterator[Callable[..., None]]:
    """Puts another instrumentor on a method of the SDK, and takes it off again."""
    owners: list[tuple[Any, str, Any]] = []

    def put(way: str, owner: Any = openai.resources.chat.Completions, name: str = "create") -> None:
        owners.append((owner, name, vars(owner).get(name)))
        tracer = telemetry.tracer_provider.get_tracer("openlit.instrumentation.standin")
        wrapt.wrap_function_wrapper(owner, name, wrapping(way, tracer))

    yield put
    for owner, name, before in reversed(owners):
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def ask(sim: Simulator) -> None:
    sim.then(ANSWER)
    with openai.OpenAI(base_url=sim.openai_url, api_key="any", max_retries=0) as client:
        client.chat.completions.create(model=MODEL, messages=QUESTION)


# --- whose span ------------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program in which no span processor of ours was ever made."""
    monkeypatch.setattr(metered_calls, "_listeners", 0)


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("way", WAYS)
def test_the_span_is_theirs_and_has_our_cost(
    sim: Simulator,
    telemetry: Any,
    meter: Meter,
    peer: Callable[..., None],
    nobody_listens: None,
    caplog: pytest.LogCaptureFixture,
    way: str,
    first: str,
) -> None:
    guard._told.clear()
    if first == "theirs":
        peer(way)
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    try:
        if first == "ours":
            peer(way)
        ask(sim)
        ask(sim)
    finally:
        tb.uninstrument()
    spans = telemetry.spans()
    assert [span.attributes[semconv.USAGE_COST] for span in spans] == [COST, COST]
    assert len({span.attributes[semconv.CALL_ID] for span in spans}) == 2
    assert {span.instrumentation_scope.name for span in spans} == {"openlit.instrumentation.standin"}
    assert meter.totals.get().calls == 2
    said = [record.getMessage() for record in caplog.records if record.name == "tokenbudget_otel"]
    assert len(said) == 1, said
    assert said[0].startswith("openlit.instrumentation.standin makes the spans of these calls.")
    assert caplog.records[0].levelno == logging.WARNING


def test_a_program_of_such_a_name_is_no_peer(sim: Simulator, instrumented: Any) -> None:
    """What stands above the SDK's own code and is no instrumentor makes no span of this call."""
    tracer = instrumented.tracer_provider.get_tracer("app")
    standin("my_app.openlit").is_never_current(tracer, lambda: ask(sim))
    ours = [span for span in instrumented.spans() if span.instrumentation_scope.name.startswith("tokenbudget_otel")]
    assert len(ours) == 1


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_on_the_method_that_we_hook_too(
    sim: Simulator, telemetry: Any, meter: Meter, peer: Callable[..., None], first: str
) -> None:
    """The other instrumentor stands on top in either order: it gets the client, and the arguments that it knows."""
    if first == "theirs":
        peer("is_current", openai.OpenAI, "request")
    tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
    try:
        if first == "ours":
            peer("is_current", openai.OpenAI, "request")
        ask(sim)
    finally:
        tb.uninstrument()
    span = telemetry.span()
    assert span.instrumentation_scope.name == "openlit.instrumentation.standin"
    assert span.attributes[semconv.USAGE_COST] == COST
    assert meter.totals.get().calls == 1
    ask(sim)
    assert meter.totals.get().calls == 1, "ours is off"
    assert len(telemetry.spans()) == 2, "theirs is still on"


def test_on_one_client_that_is_wrapped(sim: Simulator, telemetry: Any, meter: Meter) -> None:
    """logfire puts a function on single clients, which keeps their method in its closure."""
    seen = []

    def instrument(client: Any) -> None:
        original = client.request

        @functools.wraps(original)
        def theirs(*args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return original(*args, **kwargs)

        client.request = theirs

    sim.then(ANSWER, ANSWER)
    with openai.OpenAI(base_url=sim.openai_url, api_key="any", max_retries=0) as client:
        instrument(client)
        tb.wrap(client, tracer_provider=telemetry.tracer_provider)
        client.chat.completions.create(model=MODEL, messages=QUESTION)
        assert (len(seen), meter.totals.get().calls) == (1, 1)
        tb.unwrap(client)
        client.chat.completions.create(model=MODEL, messages=QUESTION)
        assert (len(seen), meter.totals.get().calls) == (2, 1)


CLOSURE = """
def instrument(client, seen):
    original = client.request

    def theirs(*args, **kwargs):
        seen.append(args)
        return original(*args, **kwargs)

    client.request = theirs
"""


def test_on_one_client_before_all_are_instrumented(
    sim: Simulator, telemetry: Any, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with logfire.instrument_openai(client): no class leads to what it has kept."""
    theirs = ModuleType("logfire._internal.integrations.llm_providers.standin")
    exec(CLOSURE, vars(theirs))
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    seen: list[Any] = []
    sim.then(ANSWER, ANSWER)
    with openai.OpenAI(base_url=sim.openai_url, api_key="any", max_retries=0) as client:
        theirs.instrument(client, seen)
        tb.instrument(telemetry.tracer_provider, telemetry.meter_provider)
        try:
            client.chat.completions.create(model=MODEL, messages=QUESTION)
        finally:
            tb.uninstrument()
        assert (len(seen), meter.totals.get().calls) == (1, 1)
        client.chat.completions.create(model=MODEL, messages=QUESTION)
        assert (len(seen), meter.totals.get().calls) == (2, 1)


# --- beneath ---------------------------------------------------------------------------------------------------------


def sdk_method(self: Any, value: int) -> str:
    return f"sdk {value}"


def with_wrapt(inner: Any) -> Any:
    return wrapt.FunctionWrapper(inner, lambda wrapped, _self, args, kwargs: f"<{wrapped(*args, **kwargs)}>")


def with_closure(inner: Any) -> Any:
    @functools.wraps(inner)
    def around(*args: Any, **kwargs: Any) -> Any:
        return f"({inner(*args, **kwargs)})"

    return around


@pytest.mark.parametrize(
    ("layers", "shown"),
    [
        ([with_wrapt], "<metered 7>"),
        ([with_closure], "(metered 7)"),
        ([with_wrapt, with_wrapt], "<<metered 7>>"),
        ([with_closure, with_wrapt], "<(metered 7)>"),
        ([with_wrapt, with_closure], "(<metered 7>)"),
    ],
)
def test_the_sdks_own_method_is_found_below_every_layer(layers: list[Any], shown: str) -> None:
    method: Any = sdk_method
    for layer in layers:
        method = layer(method)
    owner = type("Client", (), {"request": method})
    holder = holder_of(method, "sdk")
    assert holder is not None
    assert holder.get() is sdk_method
    holder.set(lambda self, value: f"metered {value}")
    assert owner().request(7) == shown


@pytest.mark.parametrize("method", [sdk_method, functools.partial(sdk_method), None, len])
def test_the_sdks_own_method_has_nothing_above_it(method: Any) -> None:
    assert holder_of(method, "sdk") is None


def test_wrappers_of_the_sdk_itself_are_its_own() -> None:
    assert holder_of(with_closure(sdk_method), __name__.partition(".")[0]) is None


# --- which call a span tells of --------------------------------------------------------------------------------------

SECOND = 1_000_000_000
USAGE = TokenUsage(input_tokens=1200, output_tokens=80)
MAKER = "openlit.instrumentation.openai.openai"
SCOPE = "openlit.instrumentation.openai"


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A call from the 10th to the 12th second."""
    metered_calls.forget()
    metered_calls.listen()

    def remember(
        name: str = "a", began: float = 10, ended: float | None = 12, response: str | None = None, **more: Any
    ) -> Any:
        call = metered_calls.remember(name, {MODEL}, int(began * SECOND), **more)
        assert call is not None
        if ended is not None:
            call.finish(int(ended * SECOND), {semconv.USAGE_COST: 1.0}, (1200, 80), response, "gpt-4o-2024-08-06")
        return call

    yield remember
    metered_calls.forget()


def told(began: float, ended: float, scope: str = "app", **more: Any) -> Any:
    facts = {"request_model": MODEL, "usage": USAGE, **more}
    span = EndedSpan(7, scope, int(began * SECOND), int(ended * SECOND))
    return metered_calls.told_by_span(span, Inference("conventions", "openai", "chat", **facts))


def test_a_span_around_the_call_with_its_usage_tells_of_it(remembered: Callable[..., Any]) -> None:
    call = remembered()
    assert told(9, 13) is call


@pytest.mark.parametrize(
    "span",
    [
        {"began": 11, "ended": 13},  # began later: another call
        {"began": 12.5, "ended": 13},
        {"began": 8, "ended": 9},
        {"began": 9, "ended": 13, "request_model": "gpt-5"},
        {"began": 9, "ended": 13, "usage": TokenUsage(input_tokens=1, output_tokens=1)},
    ],
)
def test_other_spans_do_not(remembered: Callable[..., Any], span: dict[str, Any]) -> None:
    remembered()
    assert told(**span) is None


def test_response_ids_decide_where_there_are_two(remembered: Callable[..., Any]) -> None:
    call = remembered(response="r1")
    assert told(9, 13, response_id="r2") is None
    assert told(11, 13, response_id="r1", request_model="another name", usage=None) is call
    assert told(500, 501, response_id="r1") is None, "of a server that gives every response the same id"


def test_the_maker_may_count_otherwise(remembered: Callable[..., Any]) -> None:
    call = remembered(maker=MAKER)
    wrong = TokenUsage(input_tokens=200, output_tokens=81)
    assert told(9, 13, SCOPE, usage=wrong) is call
    assert told(9, 13, "app", usage=wrong) is None


def test_a_span_that_is_made_when_the_stream_has_ended(remembered: Callable[..., Any]) -> None:
    call = remembered(maker=MAKER, shown=False)
    soon = 12 + SOON_NS / SECOND / 2
    assert told(soon, soon, SCOPE) is call
    assert told(soon, soon, "app") is None, "of somebody else"
    assert told(soon + 1, soon + 1, SCOPE) is None, "too late"
    call.shown = True
    assert told(soon, soon, SCOPE) is None, "a call of its own, as like as two peas"


def test_of_several_calls_it_is_the_one_that_began_next(remembered: Callable[..., Any]) -> None:
    """Two streams are read side by side: each span ends after its stream."""
    first = remembered("a", 10, None, maker=MAKER)
    second = remembered("b", 20, None, maker=MAKER)
    assert told(9, 30, SCOPE) is first
    assert told(19, 31, SCOPE) is second


@pytest.mark.parametrize(
    ("scope", "found"),
    [("openinference.instrumentation.langchain", True), ("app.llm", False)],
    ids=["framework", "app"],
)
def test_callbacks_of_a_framework_run_in_another_context(
    remembered: Callable[..., Any], scope: str, found: bool
) -> None:
    calls = [contextvars.copy_context().run(remembered, name) for name in "ab"]
    first, second = told(9, 13, scope), told(9, 13, scope)
    assert ({first, second} == set(calls)) is found, "each span has a call of its own"
    assert told(9, 13, scope) is None


def test_spans_above_are_left_to_the_tree(remembered: Callable[..., Any]) -> None:
    remembered().above = frozenset((7,))
    assert told(9, 13) is None


def test_two_streams_of_one_maker_are_two_calls(remembered: Callable[..., Any]) -> None:
    """Read side by side, with the same counts, and nothing that tells their responses apart."""
    call = remembered()
    call.scope = "somebody"
    assert told(9, 13, "somebody") is None
    assert told(9, 13, "framework") is call


def test_no_more_than_a_few_are_remembered(remembered: Callable[..., Any]) -> None:
    for n in range(3 * MAX_IN_CONTEXT):
        remembered(str(n), 10 + n)
    assert len(metered_calls._in_context.get()) == MAX_IN_CONTEXT


def test_what_is_remembered_keeps_no_call_alive(remembered: Callable[..., Any]) -> None:
    class Call:
        def so_far(self) -> dict[str, Any]:
            return {semconv.USAGE_COST: 1.0}

    under_way = Call()
    metered = remembered(ended=None, so_far=under_way.so_far)
    assert metered.known() == {semconv.USAGE_COST: 1.0}
    reference = weakref.ref(under_way)
    del under_way
    assert reference() is None
    assert metered.known() is None


def test_nothing_is_remembered_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metered_calls, "_listeners", 0)
    assert metered_calls.remember("a", {MODEL}, 1) is None


@pytest.mark.parametrize(
    ("module", "scope", "same"),
    [
        ("opentelemetry.instrumentation.anthropic", "opentelemetry.instrumentation.anthropic", True),
        ("opentelemetry.instrumentation.openai.v1.responses_wrappers", "opentelemetry.instrumentation.openai.v1", True),
        ("opentelemetry.instrumentation.openai.shared", "opentelemetry.instrumentation.langchain", False),
        ("opentelemetry.util.genai.handler", "opentelemetry.instrumentation.genai.openai", True),
        ("openinference.instrumentation.openai._request", "openinference.instrumentation.openai", True),
        ("openinference.instrumentation.openai._request", "openinference.instrumentation.langchain", False),
        ("logfire._internal.integrations.llm_providers.llm_provider", "logfire.anthropic", True),
        ("langfuse.openai", "langfuse-sdk", True),
        ("langfuse.openai", None, False),
        (None, "langfuse-sdk", False),
    ],
)
def test_module_and_scope_of_one_maker(module: str | None, scope: str | None, same: bool) -> None:
    assert of_one_maker(module, scope) is same


@pytest.mark.parametrize(
    ("module", "peer"),
    [
        ("opentelemetry.instrumentation.genai.openai.patch", True),
        ("opentelemetry.instrumentation.openai_v2.patch", True),
        ("langfuse.openai", True),
        ("opentelemetry.instrumentation.threading", False),
        ("opentelemetry.instrumentation.httpx", False),
        ("opentelemetry.instrumentation.botocore", False),
        ("openlit", False),
        ("my.openlit.instrumentation.copy", False),
    ],
)
def test_who_is_a_peer(module: str, peer: bool) -> None:
    assert is_peer(module) is peer


def test_the_current_span_of_a_program_is_no_span_of_a_call(sim: Simulator, instrumented: Any) -> None:
    with instrumented.tracer_provider.get_tracer("app").start_as_current_span("request"):
        ask(sim)
        assert trace.get_current_span().is_recording()
    assert sorted(span.name for span in instrumented.spans()) == ["chat gpt-4o", "request"]


def test_a_second_span_of_one_call_says_where_it_is_shown(sim: Simulator, instrumented: Any) -> None:
    """A framework's span that is in another trace (OpenInference's for LangChain)."""
    from tokenbudget_otel.processor import TokenBudgetSpanProcessor

    instrumented.tracer_provider.add_span_processor(TokenBudgetSpanProcessor())
    tracer = instrumented.tracer_provider.get_tracer("framework")
    standin("framework.callbacks").is_never_current(tracer, lambda: ask(sim))
    spans = {span.instrumentation_scope.name: dict(span.attributes) for span in instrumented.spans()}
    ours = spans["tokenbudget_otel.instrumentation.openai"]
    assert ours[semconv.USAGE_COST] == COST
    assert spans["framework"][COVERED_BY] == ours[semconv.CALL_ID]
    assert semconv.USAGE_COST not in spans["framework"]
    assert tb.usage().calls == 1
