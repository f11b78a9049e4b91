"""The straight ways to a price say what the general way says, on every rate card there is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.pricing.card import Card
from tokenbudget_otel.pricing.straight import MOST, SEEN, straight
from tokenbudget_otel.pricing.tariff import Tariff
from tokenbudget_otel.usage import TOKEN_FIELDS, UNIT_FIELDS, TokenUsage

BOOK = PriceBook(stale_after_days=None)
NOW = datetime(2026, 11, 22, 18, tzinfo=UTC).timestamp()

SHAPES = (
    ("input_tokens", "output_tokens"),
    ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"),
    (
        "input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens", "input_audio_tokens",
        "output_audio_tokens", "rejected_prediction_tokens",
    ),
    (
        "cache_read_tokens", "cache_write_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "input_tokens",
        "output_tokens", "web_searches",
    ),
    (
        "input_tokens", "input_text_tokens", "input_audio_tokens", "cache_read_tokens", "cache_read_audio_tokens",
        "output_tokens", "reasoning_tokens",
    ),
    ("input_tokens", "output_tokens", "tool_use_input_tokens", "input_image_tokens", "citation_tokens"),
    ("input_tokens",),
    ("output_tokens", "output_images"),
    ("cache_read_tokens", "output_tokens"),
    ("input_tokens", "cache_write_12h_tokens", "cache_write_tokens"),
)  # fmt: skip
"""The counts that providers report together, and some that none should."""

NUMBERS = (0, 0, 1, 3, 7, 20, 999, 1024, 1200, 130_001, 272_001, 300_000, 1_000_003)


@cache
def cards() -> tuple[Card, ...]:
    """Every rate card of the catalog, those of the tiers too; of those that are alike, one."""
    found: dict[object, Card] = {}
    for provider in BOOK.providers():
        for model in BOOK.models(provider):
            if (listed := BOOK._find(BOOK._view, provider, model)) is None:
                continue
            entry = listed[0]
            for tiers in (frozenset(), *(frozenset((tier,)) for tier in entry.tiers)):
                for at in (0.0, NOW):
                    if (card := Tariff(entry, tiers).card(at)) is not None:
                        found[repr(card.rates), card.least] = card
    return tuple(found.values())


def usages(shape: tuple[str, ...]) -> Iterator[TokenUsage]:
    for start in range(0, len(NUMBERS), 2):
        yield TokenUsage(**{name: NUMBERS[(start + 5 * i) % len(NUMBERS)] for i, name in enumerate(shape)})
    yield TokenUsage(**dict.fromkeys(shape, 0))
    wholes = {"input_tokens": 1_000_000, "output_tokens": 50_000}
    yield TokenUsage(**{name: wholes.get(name, 30 + i) for i, name in enumerate(shape)})


def same(card: Card, usage: TokenUsage) -> bool:
    """Whether the functions say what the general way does. Returns whether they say anything."""
    made = straight(card, tuple(usage.counts()))
    if made is None:
        return False
    price = made.price(*usage.counts().values())
    if price is None:
        return False
    assert (price, ()) == card.price_in_general(usage), usage
    parts = made.parts(*usage.counts().values())
    if parts is not None:
        general = card.parts_in_general(usage)
        assert list(parts.items()) == list(general.items()), usage
        assert sum(parts.values()) == price
    return parts is not None


@pytest.mark.parametrize("shape", SHAPES, ids="+".join)
def test_the_whole_catalog_is_priced_alike(shape: tuple[str, ...]) -> None:
    said = sum(same(card, usage) for card in cards() for usage in usages(shape))
    assert said or shape[0] in ("cache_read_tokens", "output_tokens"), "nothing was compared"


COUNTS = st.dictionaries(
    st.sampled_from((*TOKEN_FIELDS, *UNIT_FIELDS)), st.integers(0, 40) | st.integers(0, 10**9), max_size=9
)


@given(st.integers(0, 10**6), COUNTS)
def test_any_counts_are_priced_alike(which: int, counts: dict[str, int]) -> None:
    known = cards()
    same(known[which % len(known)], TokenUsage(**counts))


@given(st.integers(0, 10**6), COUNTS)
def test_what_comes_again_costs_the_same(which: int, counts: dict[str, int]) -> None:
    """Also while the functions are being made."""
    known = cards()
    card, usage = known[which % len(known)], TokenUsage(**counts)
    answers = [(card.price(usage), list(card.parts(usage).items())) for _ in range(SEEN + 2)]
    assert answers == [answers[0]] * len(answers)
    assert answers[0] == (card.price_in_general(usage), list(card.parts_in_general(usage).items()))


def test_functions_are_kept_for_so_many_shapes_only() -> None:
    card = Card({"input_tokens": "1", "output_tokens": "2"})
    names = [name for name in TOKEN_FIELDS if "input" in name or "output" in name or "reasoning" in name]
    for index in range(2 * MOST):
        shape = [name for bit, name in enumerate(names) if index >> bit & 1]
        for _ in range(SEEN + 1):
            card.price(TokenUsage(**dict.fromkeys(shape, 0)))
    assert len(card._straights.made) == MOST
    assert len(card._straights._seen) <= MOST


# --- quotes ---------------------------------------------------------------------------------------------------------


@cache
def models() -> tuple[tuple[str, str], ...]:
    return tuple((provider, model) for provider in BOOK.providers() for model in BOOK.models(provider))


TIERS = st.sampled_from((None, "default", "auto", "priority", "flex", "fast"))
TIMES = st.sampled_from((0.0, NOW)) | st.floats(1_700_000_000, 1_900_000_000)
TOKENS = st.integers(0, 2_000_000)


@given(
    st.integers(0, 10**6), TIERS, st.booleans(), st.sampled_from((None, "none", "5m", "1h")), st.booleans(), TIMES,
    st.sampled_from((0.0, 600.0, 90_000.0)), TOKENS, TOKENS, st.none() | st.just(TokenUsage(web_searches=3)),
)  # fmt: skip
def test_a_quote_says_what_the_book_says(
    which: int, tier: str | None, batch: bool, ttl: str | None, text_only: bool, at: float, horizon: float,
    read: int, written: int, extra: TokenUsage | None,
) -> None:  # fmt: skip
    provider, model = models()[which % len(models())]
    quote = BOOK.quote(provider, model, tier=tier, batch=batch, cache_write_ttl=ttl, text_only=text_only)
    usage = TokenUsage(input_tokens=read, output_tokens=written)
    cost = BOOK.cost(provider, model, usage, at=at, tier=tier, batch=batch)
    assert quote.expected(read, written, at) == cost.nano_usd
    bound = BOOK.bound(
        provider, model, input_tokens=read, output_tokens=written, at=at, horizon_s=horizon, tier=tier, batch=batch,
        cache_write_ttl=ttl, text_only=text_only, extra=extra,
    )  # fmt: skip
    assert quote.bound(read, written, at, at + horizon, extra) == bound
    assert quote.limits == BOOK.limits(provider, model)


def test_every_model_is_quoted_as_it_costs() -> None:
    for provider, model in models():
        quote = BOOK.quote(provider, model)
        for read, written in ((0, 0), (1, 0), (1000, 100), (128_001, 7), (272_001, 1), (1_000_001, 99)):
            usage = TokenUsage(input_tokens=read, output_tokens=written)
            assert quote.expected(read, written, NOW) == BOOK.cost(provider, model, usage, at=NOW).nano_usd, model
            most = BOOK.bound(provider, model, input_tokens=read, output_tokens=written, at=NOW, horizon_s=600)
            assert quote.bound(read, written, NOW, NOW + 600) == most, model


def test_cards_between_two_moments_are_those_of_all_moments_between() -> None:
    for provider, model in models():
        tariff = BOOK._tariff(BOOK._view, provider, model, None, False)
        if tariff is None or not tariff.dated:
            continue
        for at in (
            0.0,
            NOW,
            *(start - 60 for start in tariff._starts),
            *(NOW // 86_400 * 86_400 + clock - 60 for clock in tariff._clocks),
        ):
            for span in (0.0, 30.0, 600.0, 86_400.0 * 2):
                assert set(tariff.cards(at, at + span)) == set(tariff._cards(at, at + span)), model


def test_a_price_that_is_set_later_is_quoted_from_then_on() -> None:
    book = PriceBook(stale_after_days=None)
    assert book.quote("openai", "mine").expected(1000, 0, NOW) is None
    assert book.limits("openai", "mine").max_output_tokens is None
    book.register_model("mine", provider="openai", input_per_1m=1, output_per_1m=1, max_output_tokens=5)
    assert book.quote("openai", "mine").expected(1000, 0, NOW) == 1_000_000
    assert book.limits("openai", "mine").max_output_tokens == 5
    assert book.sets("openai", "mine") and not book.sets("openai", "other")
    book.reset()
    assert not book.sets("openai", "mine")
    assert book.quote("openai", "mine").expected(1000, 0, NOW) is None
