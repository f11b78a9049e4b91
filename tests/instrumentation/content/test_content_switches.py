"""Content is recorded where, and only where, the standard variables or the program say so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from content_calls import INPUT, WAYS, chat, openai_client, read

import tokenbudget_otel as tb
from tokenbudget_otel.instrumentation import guard
from tokenbudget_otel.instrumentation.capture import EMIT_EVENT, ENVIRONMENT, MAX_BYTES, Capture, capture_of
from tokenbudget_otel.instrumentation.recording import EVENT_NAME
from tokenbudget_otel.simulator import Behaviour, Simulator

ANSWER = Behaviour(text="It is noon.", chunks=3)
ANSWERED = [{"role": "assistant", "parts": [{"type": "text", "content": "It is noon."}], "finish_reason": "stop"}]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_is_said_is_recorded(sim: Simulator, captured: Any, way: Callable[..., Any], stream: bool) -> None:
    captured.start(capture_content="both")
    sim.then(ANSWER)
    read(way(sim, stream=stream))
    said = INPUT[way.__name__] | {"gen_ai.output.messages": ANSWERED}
    assert captured.on_span() == said
    assert captured.in_event() == said
    # Whatever is captured, what is counted is the same.
    attributes = captured.telemetry.span().attributes
    assert attributes["gen_ai.usage.output_tokens"] == sim.billed[0].usage.output_tokens


MODES = [
    (None, False, False),
    ("", False, False),
    ("NO_CONTENT", False, False),
    ("no such mode", False, False),
    ("SPAN_ONLY", True, False),
    (" span_only ", True, False),
    ("EVENT_ONLY", False, True),
    ("SPAN_AND_EVENT", True, True),
    ("true", True, False),
    ("false", False, False),
]


EMITS = {None: None, "": None, "true": True, " TRUE ": True, "false": False, "perhaps": None}


def say(monkeypatch: pytest.MonkeyPatch, mode: str | None, emit: str | None) -> None:
    for name, value in ((ENVIRONMENT, mode), (EMIT_EVENT, emit)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("mode", "on_span", "in_event"), MODES)
@pytest.mark.parametrize("emit", EMITS)
def test_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, on_span: bool, in_event: bool, emit: str | None
) -> None:
    say(monkeypatch, mode, emit)
    asked = EMITS[emit]
    assert capture_of() == Capture(on_span, in_event, in_event if asked is None else asked)


@pytest.mark.parametrize(
    ("mode", "on_span", "in_event"), [mode for mode in MODES if mode[0] in (None, "EVENT_ONLY", "SPAN_AND_EVENT")]
)
@pytest.mark.parametrize("emit", [None, "true", "false"])
def test_spans_and_events_keep_to_them(
    sim: Simulator, captured: Any, monkeypatch: pytest.MonkeyPatch, mode: str | None, on_span: bool, in_event: bool,
    emit: str | None,
) -> None:  # fmt: skip
    say(monkeypatch, mode, emit)
    captured.start()
    chat(sim)
    assert bool(captured.on_span()) is on_span
    emitted = {"true": True, "false": False}.get(emit or "", in_event)
    records = captured.records()
    assert [record.event_name for record in records] == [EVENT_NAME] * emitted
    if emitted:
        assert bool(captured.in_event()) is in_event
        assert records[0].attributes["gen_ai.usage.input_tokens"] == sim.billed[0].usage.input_tokens


@pytest.mark.parametrize("mode", [mode for mode, *_ in MODES[:8]])
@pytest.mark.parametrize("emit", EMITS)
def test_events_are_emitted_when_the_official_package_would(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, emit: str | None
) -> None:
    invocation = pytest.importorskip("opentelemetry.util.genai._inference_invocation", reason="it is not installed")
    utils = pytest.importorskip("opentelemetry.util.genai.utils", reason="it is not installed")
    say(monkeypatch, mode, emit)
    assert capture_of().emits is invocation._should_emit_event(utils.get_content_capturing_mode())


@pytest.mark.parametrize(("mode", "on_span", "in_event"), MODES[:8])
def test_modes_are_those_of_the_official_package(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, on_span: bool, in_event: bool
) -> None:
    """`true` and `false`, which the packages of the former conventions took, are ours alone."""
    genai = pytest.importorskip("opentelemetry.util.genai.utils", reason="opentelemetry-util-genai is not installed")
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    if mode is not None:
        monkeypatch.setenv(ENVIRONMENT, mode)
    official = genai.get_content_capturing_mode().name
    assert (official in ("SPAN_ONLY", "SPAN_AND_EVENT"), official in ("EVENT_ONLY", "SPAN_AND_EVENT")) == (
        on_span, in_event,
    )  # fmt: skip
    capture = capture_of()
    assert (capture.span, capture.event) == (on_span, in_event)


def test_the_standard_variables_are_named_as_in_the_official_package() -> None:
    names = pytest.importorskip("opentelemetry.util.genai.environment_variables", reason="it is not installed")
    assert names.OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT == ENVIRONMENT
    assert names.OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT == EMIT_EVENT


@pytest.mark.parametrize(
    ("option", "capture"),
    [
        ("none", Capture()),
        ("span", Capture(span=True)),
        ("event", Capture(event=True, emits=True)),
        ("both", Capture(span=True, event=True, emits=True)),
        ("SPAN_AND_EVENT", Capture(span=True, event=True, emits=True)),
    ],
)
def test_the_program_goes_over_the_environment(monkeypatch: pytest.MonkeyPatch, option: str, capture: Capture) -> None:
    for mode in ("NO_CONTENT", "SPAN_AND_EVENT"):
        monkeypatch.setenv(ENVIRONMENT, mode)
        assert capture_of({"capture_content": option}) == capture
    monkeypatch.setenv(EMIT_EVENT, "true")
    assert capture_of({"capture_content": option, "emit_event": False}).emits is False
    assert capture_of({"capture_content": option}).emits is True


BAD: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "capture_content is True; known are": ({"capture_content": True}, ValueError),
    "capture_content is 'all'; known are": ({"capture_content": "all"}, ValueError),
    "emit_event is 'yes'; it is True or False": ({"emit_event": "yes"}, TypeError),
    "redact must be a function": ({"redact": "app:redact"}, TypeError),
    "content_max_bytes is -1; it is a number": ({"content_max_bytes": -1}, ValueError),
    "content_max_bytes is 1.5; it is a number": ({"content_max_bytes": 1.5}, ValueError),
    "content_max_bytes is True; it is a number": ({"content_max_bytes": True}, ValueError),
}


@pytest.mark.parametrize(("message", "row"), BAD.items(), ids=BAD)
def test_an_argument_that_cannot_be_meant_is_refused_before_anything_is_done(
    message: str, row: tuple[dict[str, Any], type[Exception]], meter: Any
) -> None:
    options, kind = row
    with pytest.raises(kind, match=message):
        tb.instrument(budgets=[tb.Budget(limit_calls=1)], **options)
    assert meter.enforcer.budgets == ()
    tb.uninstrument()


def test_an_async_hook_is_refused() -> None:
    async def redact(text: str, place: Any) -> str:
        return text

    class Hook:
        async def __call__(self, text: str, place: Any) -> str:
            return text

    for hook in (redact, Hook()):
        with pytest.raises(TypeError, match="redact must not be async"):
            capture_of({"redact": hook})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (ENVIRONMENT, "SPAN", "No content is captured"),
        (EMIT_EVENT, "1", "it is true or false"),
        (MAX_BYTES, "many", "65536 are recorded"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_told_of(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "_told", set())
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, "tokenbudget_otel"):
        assert [capture_of(), capture_of()] == [Capture(), Capture()]
    assert len(caplog.records) == 1, "every instrumentor looks, and it is told once"
    assert expected in caplog.text
    assert value in caplog.text


@pytest.mark.parametrize(
    ("value", "most"), [("4096", 4096), ("0", None), ("none", None), ("NONE", None), ("", 65_536), ("-5", 65_536)]
)
def test_the_size_in_the_environment(value: str, most: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BYTES, value)
    assert capture_of().max_bytes == most
    assert capture_of({"content_max_bytes": 7}).max_bytes == 7


def test_a_wrapped_client_has_options_of_its_own(sim: Simulator, captured: Any) -> None:

    client = tb.wrap(
        openai_client(sim),
        tracer_provider=captured.tracer_provider,
        capture_content="span",
    )
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Mine."}])
    assert captured.on_span()["gen_ai.input.messages"][0]["parts"][0]["content"] == "Mine."
