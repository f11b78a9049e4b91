"""What of a request can be changed is the same however quickly it is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plain_readers as plain
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shapes import SCALARS, SHAPES, Dict, Plain

from tokenbudget_otel.instrumentation.changes import LEAST_THINKING, Changes, Path
from tokenbudget_otel.instrumentation.facts import positive

NAMES = ("model", "max", "most", "config", "thinking", "budget")

PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)

INNER = st.one_of(SCALARS, st.sampled_from(("gpt-5", "models/gpt-5")), st.integers(0, 9))

NESTED = st.recursive(
    INNER,
    lambda inner: st.builds(
        lambda fields, shape: shape(fields),
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
        st.sampled_from(SHAPES[:6]),
    ),
    max_leaves=8,
)

FIELDS = st.builds(
    lambda fields, shape: shape(fields),
    st.dictionaries(st.sampled_from(NAMES), NESTED, max_size=6),
    st.sampled_from((dict, dict, Dict)),
)

CHANGES = st.builds(
    Changes,
    model=st.one_of(st.none(), st.just(("model",)), PATHS),
    limits=st.lists(PATHS, max_size=3).map(tuple),
    unset=st.one_of(st.none(), st.one_of(st.none(), PATHS).map(lambda path: lambda *_: path)),
    thinking=st.lists(PATHS, max_size=2).map(tuple),
)


def _reached(fields: Any, path: Path) -> bool:
    for name in path:
        if fields is None:
            return True
        if not isinstance(fields, Mapping):
            return False
        fields = fields.get(name)
    return True


def _possible(changes: Changes, fields: Mapping[str, Any], model: str) -> set[str]:
    found = set()
    asked = plain.get(fields, *changes.model) if changes.model is not None else None
    if model and isinstance(asked, str) and asked.endswith(model):
        found.add("model")
    limits = tuple(path for path in changes.limits if positive(plain.get(fields, *path)))
    if not limits and changes.limits:
        path = changes.limits[0] if changes.unset is None else changes.unset(fields, "openai", model)
        limits = () if path is None else (path,)
    if limits and all(_reached(fields, path) for path in limits):
        found.add("max_output_tokens")
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES, FIELDS, st.sampled_from(("", "gpt-5")))
@example(Changes(limits=(("config", "max"),)), {"config": Plain({"max": 5})}, "gpt-5")
@example(Changes(limits=(("config", "max"),)), {"model": "models/gpt-5"}, "gpt-5")
def test_what_can_be_changed(changes: Changes, fields: Mapping[str, Any], model: str) -> None:
    assert changes.possible(fields, "openai", model) == _possible(changes, fields, model)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES, FIELDS)
def test_the_least_output(changes: Changes, fields: Mapping[str, Any]) -> None:
    thinks = any(positive(plain.get(fields, *path)) for path in changes.thinking)
    assert changes.least_output(fields) == (LEAST_THINKING + 1 if thinks else 1)
