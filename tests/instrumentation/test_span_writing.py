"""Attributes that are set at once are those that a span has when it is told of them in the public way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span

from tokenbudget_otel.instrumentation import span_writing
from tokenbudget_otel.instrumentation.span_writing import set_clean

NAMES = st.sampled_from([f"name.{number}" for number in range(12)])
CLEAN = st.one_of(
    st.text(max_size=9), st.booleans(), st.integers(), st.floats(), st.lists(st.text(max_size=3)).map(tuple)
)  # fmt: skip
OTHER = st.one_of(st.none(), st.lists(st.text(max_size=3)), st.binary(max_size=3), st.builds(object))


class Told:
    """A span that notes whether it is told in the public way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real: Callable[..., None] = sdk.Span.set_attributes

        def set_attributes(span: Span, attributes: Any) -> None:
            self.count += 1
            real(span, attributes)

        monkeypatch.setattr(sdk.Span, "set_attributes", set_attributes)


@pytest.fixture(autouse=True)
def _unlearned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(span_writing, "_known", span_writing._KnownSpan())
    yield


def span(**limits: int | None) -> Any:
    return TracerProvider(span_limits=SpanLimits(**limits)).get_tracer("x").start_span("y", attributes={"name.0": "0"})


def seen(of: Any) -> tuple[list[tuple[str, Any]], int]:
    return [(name, repr(value)) for name, value in of.attributes.items()], of._attributes.dropped


@given(
    writes=st.lists(st.dictionaries(NAMES, CLEAN, max_size=8), max_size=4),
    room=st.sampled_from([None, 0, 1, 3, 8, 128]),
    longest=st.sampled_from([None, None, 4]),
)
@settings(deadline=None)
def test_it_is_as_if_told_in_the_public_way(
    writes: list[dict[str, Any]], room: int | None, longest: int | None
) -> None:
    fast, slow = (span(max_span_attributes=room, max_span_attribute_length=longest) for _ in range(2))
    for attributes in writes:
        set_clean(fast, attributes)
        slow.set_attributes(attributes)
    assert seen(fast) == seen(slow)


@given(st.dictionaries(NAMES, st.one_of(CLEAN, OTHER), max_size=8))
@settings(deadline=None)
def test_values_that_have_to_be_cleaned_are_cleaned(attributes: dict[str, Any]) -> None:
    fast, slow = span(), span()
    set_clean(fast, attributes)
    slow.set_attributes(attributes)
    assert seen(fast) == seen(slow)


def test_what_is_given_is_not_kept() -> None:
    target, attributes = span(), {"a": 1}
    set_clean(target, attributes)
    attributes["a"] = 2
    assert target.attributes["a"] == 1


def test_spans_of_the_sdk_are_not_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    target = span()
    set_clean(target, {"a": 1})
    told = []
    monkeypatch.setattr(type(target._attributes), "__setitem__", lambda *args: told.append(args))
    monkeypatch.setattr(type(target._attributes), "_set_items", lambda *args: told.append(args), raising=False)
    set_clean(target, {"a": 2, "b": ("c",)})
    assert dict(target.attributes) == {"name.0": "0", "a": 2, "b": ("c",)}
    assert not told
    set_clean(target, {"a": ["c"]})
    assert told


def test_a_span_that_has_ended_takes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    target = span()
    set_clean(target, {"a": 1})
    target.end()
    with caplog.at_level(logging.WARNING):
        set_clean(target, {"a": 2, "b": 3})
    assert dict(target.attributes) == {"name.0": "0", "a": 1}
    assert "ended span" in caplog.text


def test_who_wants_to_see_what_is_set_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    target = span()
    set_clean(target, {"a": 1})
    told = Told(monkeypatch)
    set_clean(target, {"a": 2})
    assert told.count == 1
    assert target.attributes["a"] == 2
    monkeypatch.undo()
    set_clean(target, {"a": 3})
    assert told.count == 1


class Foreign(NonRecordingSpan):
    """A span of somebody else."""

    def __init__(self) -> None:
        super().__init__(INVALID_SPAN.get_span_context())
        self.told: dict[str, Any] = {}

    def set_attributes(self, attributes: Any) -> None:
        self.told |= attributes


def test_spans_of_others_are_told_in_the_public_way() -> None:
    target = Foreign()
    for value in (1, 2):
        set_clean(target, {"a": value})
        set_clean(INVALID_SPAN, {"a": value})
        set_clean(TracerProvider(sampler=ALWAYS_OFF).get_tracer("x").start_span("y"), {"a": value})
        assert target.told == {"a": value}


class Derived(sdk._Span):
    """A span that somebody derived from the SDK's."""


def test_so_are_those_of_a_class_of_their_own() -> None:
    target = Derived("x", INVALID_SPAN.get_span_context(), limits=SpanLimits())
    set_clean(target, {"a": 1})
    assert dict(target.attributes or {}) == {"a": 1}
    assert span_writing._known.kind is None


@pytest.mark.parametrize("part", ["_dict", "_immutable", "_lock"])
def test_an_sdk_that_keeps_attributes_otherwise_is_told_in_the_public_way(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = span()
    del target._attributes.__dict__[part]
    told: list[Any] = []
    assert not span_writing._known.learn(target)
    monkeypatch.setattr(sdk.Span, "set_attributes", lambda _, attributes: told.append(attributes))
    set_clean(target, {"a": 1})
    assert told == [{"a": 1}]


def test_without_the_sdk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(span_writing.sys.modules, "opentelemetry.sdk.trace")  # type: ignore[attr-defined]
    assert not span_writing._known.learn(span())
