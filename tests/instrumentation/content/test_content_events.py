"""The event of a call: what it says, whatever becomes of the span, and of the call."""

from __future__ import annotations

import copy
import gc
from typing import Any

import httpx
import openai
import pytest
from content_calls import INPUT, chat, message, openai_client, read, respond
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import content_shape
import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Behaviour, Simulator

ASKED = INPUT["chat"]


def rest(attributes: Any) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in content_shape.NAMES}


@pytest.mark.parametrize("way", [chat, respond, message], ids=lambda way: way.__name__)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_it_has_what_the_span_has(sim: Simulator, captured: Any, way: Any, stream: bool) -> None:
    captured.start(emit_event=True)
    with tb.tags(tenant="acme"):
        read(way(sim, stream=stream, extra_body={"temperature": 0.5}))
    [record] = captured.records()
    span = captured.telemetry.span()
    assert rest(record.attributes) == dict(span.attributes) == dict(record.attributes)
    assert record.attributes["tokenbudget.tag.tenant"] == "acme"
    assert record.attributes["gen_ai.request.temperature"] == 0.5
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert record.observed_timestamp >= span.start_time


@pytest.mark.parametrize("provider", ["dropped", "none"])
def test_it_is_emitted_though_no_span_is(sim: Simulator, captured: Any, provider: str) -> None:
    """A sampler drops the span, or there is no SDK for spans: the event says all the same."""
    dropped = provider == "dropped"
    captured.tracer_provider = TracerProvider(sampler=ALWAYS_OFF) if dropped else trace.NoOpTracerProvider()
    captured.start(capture_content="both")
    chat(sim, temperature=0.5)
    said = captured.in_event()
    assert said["gen_ai.input.messages"] == ASKED["gen_ai.input.messages"]
    [record] = captured.records()
    for name, value in {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": sim.billed[0].usage.input_tokens,
        "gen_ai.usage.output_tokens": sim.billed[0].usage.output_tokens,
        "server.address": "127.0.0.1",
    }.items():
        assert record.attributes[name] == value
    assert record.attributes["gen_ai.response.id"]
    assert captured.telemetry.spans() == []
    if dropped:
        assert record.trace_id
        assert not record.trace_flags.sampled


# --- who else is there -----------------------------------------------------------------------------------------------


def test_where_spans_are_suppressed_nothing_is_recorded(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both")
    with suppress_instrumentation():
        chat(sim)
    assert (captured.telemetry.spans(), captured.records()) == ([], [])


def test_a_span_that_somebody_else_made_is_theirs_to_fill(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both")
    tracer = captured.tracer_provider.get_tracer("somebody")
    said = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
    with tracer.start_as_current_span("chat gpt-4o", attributes=said):
        chat(sim)
    assert captured.on_span() == {}
    assert captured.telemetry.span().attributes["tokenbudget.call.id"]
    assert captured.records() == []


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_beside_the_official_package_content_is_recorded_once(
    sim: Simulator, captured: Any, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    genai = pytest.importorskip("opentelemetry.instrumentation.genai.openai", reason="it is not installed")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_AND_EVENT")
    official = genai.OpenAIInstrumentor()
    starts = [
        captured.start,
        lambda: official.instrument(tracer_provider=captured.tracer_provider, logger_provider=captured.loggers),
    ]
    for start in starts if first == "ours" else reversed(starts):
        start()
    try:
        chat(sim)
    finally:
        official.uninstrument()
    assert len(captured.telemetry.spans()) == 1
    assert captured.on_span()["gen_ai.input.messages"]
    assert captured.in_event()["gen_ai.input.messages"]


# --- how calls end ---------------------------------------------------------------------------------------------------


def test_a_call_that_failed_has_its_input(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both")
    sim.then(Behaviour(status=500))
    with pytest.raises(openai.InternalServerError):
        chat(sim)
    assert captured.on_span() == ASKED == captured.in_event()
    assert captured.records()[0].attributes["error.type"] == captured.telemetry.span().attributes["error.type"]


def test_a_call_that_never_got_out_has_its_input(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both")
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="any", max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello?"}])
    assert captured.on_span() == captured.in_event()
    assert captured.on_span()["gen_ai.input.messages"][0]["parts"][0]["content"] == "Hello?"


def test_a_call_that_a_budget_refused_has_its_input(sim: Simulator, captured: Any, meter: Any) -> None:
    """Who looks into a refusal wants to see what was asked. Nothing of it was sent."""
    meter.enforcer.add(tb.Budget(name="none left", limit_usd="0.000001"))
    captured.start(capture_content="both")
    with pytest.raises(tb.BudgetExceeded):
        chat(sim)
    assert captured.on_span() == ASKED == captured.in_event()
    [record] = captured.records()
    assert record.attributes["tokenbudget.call.outcome"] == "refused"
    assert record.attributes["error.type"] == "tokenbudget_otel.BudgetExceeded"
    assert record.attributes["tokenbudget.budget.name"] == "none left"
    assert record.attributes["gen_ai.request.model"] == "gpt-4o"
    assert sim.requests == []


@pytest.mark.parametrize("way", [chat, respond, message], ids=lambda way: way.__name__)
def test_a_stream_that_is_left_has_what_came_of_it(sim: Simulator, captured: Any, way: Any) -> None:
    captured.start(capture_content="both")
    sim.then(Behaviour(text="one two three four five six", chunks=6, chunk_s=0.02))
    with way(sim, stream=True) as stream:
        for event in stream:
            if "one" in str(event):
                break
    said = captured.in_event()
    assert said == captured.on_span()
    words = content_shape.texts(said["gen_ai.output.messages"])
    assert words.startswith("one")
    assert not words.endswith("six")


def test_a_stream_that_is_dropped_has_what_came_of_it(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="span")
    sim.then(Behaviour(text="one two three four five six", chunks=6, chunk_s=0.02))
    stream = chat(sim, stream=True)
    while "one" not in str(next(stream)):
        pass
    del stream
    gc.collect()
    assert content_shape.texts(captured.on_span()["gen_ai.output.messages"]).startswith("one")


def test_a_response_in_the_background_has_its_output_where_it_is_first_seen(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both")
    sim.then(Behaviour(text="It is noon.", polls=2))
    started = respond(sim, background=True)
    client = openai_client(sim)
    while client.responses.retrieve(started.id).status != "completed":
        pass
    spans = captured.telemetry.spans()
    assert [span.attributes["gen_ai.operation.name"] for span in spans] == ["chat"] + ["fetch_response"] * (
        len(spans) - 1
    )
    asked, answered = content_shape.of_span(spans[0]), content_shape.of_span(spans[-1])
    assert asked == INPUT["respond"]
    assert content_shape.texts(answered["gen_ai.output.messages"]) == "It is noon."
    assert list(answered) == ["gen_ai.output.messages"]
    # Looks that saw nothing have no event.
    assert [record.attributes["gen_ai.operation.name"] for record in captured.records()] == ["chat", "fetch_response"]


# --- what is the program's -------------------------------------------------------------------------------------------


def test_what_the_program_says_later_was_not_said(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="span")
    messages: list[Any] = [{"role": "user", "content": "First."}]
    stream = chat(sim, messages=messages, stream=True)
    next(stream)
    messages.append({"role": "user", "content": "Later."})
    messages[0]["content"] = "Changed."
    read(stream)
    assert captured.on_span()["gen_ai.input.messages"] == [
        {"role": "user", "parts": [{"type": "text", "content": "First."}]}
    ]


def test_iterators_are_the_sdks_to_read(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both")
    chat(sim, messages=({"role": "user", "content": word} for word in ("One.", "Two.")))
    sent = sim.requests[-1].json["messages"]
    assert [each["content"] for each in sent] == ["One.", "Two."]
    message(sim, messages=iter([{"role": "user", "content": "Three."}]))
    assert sim.requests[-1].json["messages"][0]["content"] == "Three."


def test_nothing_of_the_programs_is_changed(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both", redact=lambda _text, _place: "[gone]", content_max_bytes=200)
    asked: dict[str, Any] = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a" * 999}]}],
        "tools": [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}],
    }
    before = copy.deepcopy(asked)
    answer = chat(sim, **asked)
    assert asked == before
    assert sim.requests[-1].json["messages"] == before["messages"]
    assert answer.choices[0].message.content != "[gone]"


def test_a_body_that_is_already_read_is_recorded_too(sim: Simulator, captured: Any) -> None:
    captured.start(capture_content="both")
    client = openai_client(sim)
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Hello?"}]
    )
    assert isinstance(raw.http_response, httpx.Response) or raw.http_response.status_code == 200
    assert captured.in_event()["gen_ai.output.messages"]


def test_a_stream_that_a_budget_cut_has_what_came_of_it(sim: Simulator, captured: Any, meter: Any) -> None:
    captured.start(capture_content="both")
    meter._learn("openai", "gpt-4o", 50)  # answers were short so far: that is what is reserved
    meter.enforcer.add(tb.Budget(name="small", limit_tokens=200, cut_streams=True))
    sim.then(Behaviour(text=" ".join(f"word{n}" for n in range(300)), chunks=300, chunk_s=0.0005))
    with pytest.raises(tb.BudgetExceeded):
        read(chat(sim, stream=True))
    [record] = captured.records()
    assert rest(record.attributes) == rest(captured.telemetry.span().attributes)
    assert record.attributes["tokenbudget.call.outcome"] == "cut_by_budget"
    assert record.attributes["tokenbudget.budget.name"] == "small"
    words = content_shape.texts(captured.in_event()["gen_ai.output.messages"])
    assert words.startswith("word0 word1")
    assert "word299" not in words
