"""Properties of TokenUsage: what is added, what is read from a provider, and what is certain of it."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbudget_otel.usage import (
    CACHE_READ_MODALITIES,
    FIELDS,
    INPUT_MODALITIES,
    PARTS,
    TOKEN_FIELDS,
    UNIT_FIELDS,
    TokenUsage,
)

SECONDS = {"input_audio_seconds", "output_audio_seconds"}
counts = st.integers(min_value=0, max_value=10**9)
seconds = st.one_of(
    counts, st.floats(0, 10**6).map(lambda value: round(value, 6)), st.decimals(0, 10**6, places=3)
)  # as providers report them, to the microsecond at most
usages = st.builds(
    lambda whole, fractions: TokenUsage(**whole, **fractions),
    st.dictionaries(st.sampled_from(sorted(FIELDS - SECONDS)), counts, max_size=8),
    st.dictionaries(st.sampled_from(sorted(SECONDS)), seconds, max_size=2),
)
junk = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2),
    st.decimals(), st.just(object()), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
sent = st.dictionaries(st.one_of(st.sampled_from(sorted(FIELDS)), st.text(max_size=8)), st.one_of(counts, junk))


def exact(value: Any) -> Fraction:
    return Fraction(repr(value) if isinstance(value, float) else str(value))


# --- adding --------------------------------------------------------------------------------------------------------


@given(usages, usages, usages)
def test_addition_is_exact_and_in_any_order(one: TokenUsage, two: TokenUsage, three: TokenUsage) -> None:
    total = one + two + three
    assert total == one + (two + three) == three + two + one
    for name in FIELDS:
        known = [exact(value) for usage in (one, two, three) if (value := getattr(usage, name)) is not None]
        value = getattr(total, name)
        assert (value is None) == (not known), "unknown stays unknown, and is not zero"
        assert value is None or exact(value) == sum(known)


@given(usages)
def test_nothing_is_neutral(usage: TokenUsage) -> None:
    assert usage + TokenUsage() == usage == TokenUsage() + usage
    assert bool(usage) == bool(usage.counts())


@given(usages, usages)
def test_the_total_of_tokens_adds_up(one: TokenUsage, two: TokenUsage) -> None:
    assert (one + two).total_tokens == one.total_tokens + two.total_tokens


def test_only_usages_add() -> None:
    for other in (1, None, "x", {"input_tokens": 1}):
        with pytest.raises(TypeError):
            TokenUsage(input_tokens=1) + other


def test_zero_and_unknown_differ() -> None:
    zero = TokenUsage(input_tokens=0)
    assert zero != TokenUsage()
    assert zero.input_tokens == 0
    assert zero
    assert TokenUsage().input_tokens is None
    assert (zero + TokenUsage()).input_tokens == 0


# --- reading -------------------------------------------------------------------------------------------------------


@given(sent)
def test_reading_never_raises_and_takes_only_counts(values: dict[str, Any]) -> None:
    usage = TokenUsage.reading(values)
    assert not usage.problems()
    for name, value in usage.counts().items():
        assert name in FIELDS
        assert type(value) is int or name in SECONDS
        assert math.isfinite(value)
        assert value >= 0
        assert value == values[name]
        assert not isinstance(values[name], bool)


READ = [
    ({"input_tokens": 7.0}, {"input_tokens": 7}),
    ({"input_tokens": Decimal(7)}, {"input_tokens": 7}),
    ({"input_tokens": 7.5}, {}),
    ({"input_tokens": -1}, {}),
    ({"input_tokens": True}, {}),
    ({"input_tokens": "7"}, {}),
    ({"input_tokens": float("nan")}, {}),
    ({"input_tokens": float("inf")}, {}),
    ({"input_tokens": [7]}, {}),
    ({"input_tokens": None}, {}),
    ({"tokens": 7}, {}),
    ({"input_audio_seconds": 1.5}, {"input_audio_seconds": 1.5}),
    ({"output_tokens": 5, "reasoning_tokens": 9}, {"output_tokens": 5}),
    ({"input_tokens": 10, "cache_read_tokens": 6, "cache_write_tokens": 6}, {"input_tokens": 10}),
    ({"input_tokens": 10, "input_audio_tokens": 20, "cache_read_tokens": 5},
     {"input_tokens": 10, "cache_read_tokens": 5}),
    ({"reasoning_tokens": 9}, {"reasoning_tokens": 9}),  # nothing contradicts it
]  # fmt: skip


@pytest.mark.parametrize(("values", "known"), READ)
def test_reading(values: dict[str, Any], known: dict[str, Any]) -> None:
    assert TokenUsage.reading(values).counts() == known


# --- what is certain -----------------------------------------------------------------------------------------------


@given(usages)
def test_certain_leaves_no_contradiction_and_is_idempotent(usage: TokenUsage) -> None:
    certain = usage.certain()
    assert certain.problems() == ()
    assert certain.certain() is certain
    assert bool(usage.problems()) == (certain != usage)
    if not usage.problems():
        assert certain is usage
    # It only forgets, and forgets no whole that nothing contains.
    assert certain.counts().items() <= usage.counts().items()
    for whole in ("input_tokens", "output_tokens", *UNIT_FIELDS):
        assert getattr(certain, whole) == getattr(usage, whole)


@given(usages)
def test_no_part_exceeds_its_whole(usage: TokenUsage) -> None:
    certain = usage.certain()
    for whole, groups in PARTS.items():
        if (limit := getattr(certain, whole)) is not None:
            for group in groups:
                assert sum(getattr(certain, part) or 0 for part in group) <= limit
    for part, whole in zip(CACHE_READ_MODALITIES, INPUT_MODALITIES, strict=True):
        if getattr(certain, part) is not None and getattr(certain, whole) is not None:
            assert getattr(certain, part) <= getattr(certain, whole)


@given(usages)
def test_every_problem_names_what_is_wrong(usage: TokenUsage) -> None:
    for problem in usage.problems():
        named = [name for name in TOKEN_FIELDS if name in problem]
        assert len(named) >= 2
        assert str(getattr(usage, named[0])) in problem or "+" in problem


# --- as a value ----------------------------------------------------------------------------------------------------


@given(usages)
def test_copies_are_equal(usage: TokenUsage) -> None:
    for again in (pickle.loads(pickle.dumps(usage)), copy.copy(usage), copy.deepcopy(usage), usage.replace()):
        assert again == usage
        assert hash(again) == hash(usage)
        assert type(again) is TokenUsage
    assert eval(repr(usage), {"TokenUsage": TokenUsage, "Decimal": Decimal}) == usage


@given(usages, st.sampled_from(sorted(FIELDS)))
def test_it_cannot_be_changed(usage: TokenUsage, name: str) -> None:
    before = usage.counts()
    with pytest.raises(AttributeError):
        setattr(usage, name, 1)
    with pytest.raises(AttributeError):
        delattr(usage, name)
    usage.counts()["input_tokens"] = -1
    assert usage.counts() == before


@given(usages, counts)
def test_replace_leaves_the_original(usage: TokenUsage, count: int) -> None:
    before = usage.counts()
    assert usage.replace(input_tokens=count).input_tokens == count
    assert usage.replace(input_tokens=None).input_tokens is None
    assert usage.counts() == before


BAD = [
    ({"tokens": 1}, TypeError), ({"input_tokens": "1"}, TypeError), ({"input_tokens": True}, TypeError),
    ({"input_tokens": [1]}, TypeError), ({"input_tokens": -1}, ValueError), ({"input_tokens": 1.5}, ValueError),
    ({"input_tokens": float("nan")}, ValueError), ({"input_audio_seconds": float("inf")}, ValueError),
    ({"input_audio_seconds": -0.5}, ValueError), ({"input_tokens": Decimal("NaN")}, ValueError),
]  # fmt: skip


@pytest.mark.parametrize(("values", "kind"), BAD)
def test_what_cannot_be_a_count_is_named(values: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=next(iter(values))):
        TokenUsage(**values)


def test_an_unknown_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError):
        TokenUsage().tokens  # noqa: B018
    assert not hasattr(TokenUsage(), "prompt_tokens")


few = st.dictionaries(st.sampled_from(TOKEN_FIELDS), st.integers(0, 9), max_size=8)


@given(few)
def test_reading_keeps_what_agrees_and_what_is_certain_of_the_rest(known: dict[str, int]) -> None:
    usage = TokenUsage(**known)
    read = TokenUsage.reading(known)
    assert read == usage.certain() and not read.problems()
    assert (list(read.counts()) == list(known)) == (not usage.problems())


def test_what_is_compared_is_kept_for_so_many_sets_of_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = sys.modules["tokenbudget_otel.usage"]
    monkeypatch.setattr(usage, "_MOST_SUMS", 5)
    usage._sums.clear()
    for index in range(50):
        TokenUsage.reading({name: 0 for bit, name in enumerate(TOKEN_FIELDS) if (index + 3) >> bit & 1})
        assert len(usage._sums) <= 5
