"""Over the whole catalog taken from genai-prices our cost is what genai-prices says, to the nano-USD.

What we do otherwise on purpose, each with its reason, is in ``DELIBERATE`` and has a test below.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from genai_prices import Usage, calc_price, types
from genai_prices.data import providers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.pricing.names import FAMILY_WORDS, names_another_family
from tokenbudget_otel.usage import TokenUsage

DELIBERATE = {
    "empty price": "genai-prices answers 0 for a model without prices; we say unknown, or free if its name says so",
    "all prices 0": "the same where every price is 0 and nothing says that the model is free",
    "units without a price": "genai-prices leaves them out silently; we price the rest and say partial",
    "unknown tier": "genai-prices takes the standard price silently; we say partial, or take the tier from litellm",
    "supplements": "web searches and 12 h cache writes that only litellm prices are added to its prices",
    "inconsistent usage": "genai-prices raises; we price what is certain and say partial",
    "other families": "a prefix or part of a name that genai-prices accepts does not reach into another family",
    "28 digits": "genai-prices rounds at 28 digits; we compare after rounding away what is below 1e-22 USD",
    "text messages": "input_text_messages (4 voice models) is no count of TokenUsage",
}

BOOK = PriceBook(stale_after_days=None)
MODELS = [(provider, model) for provider in providers for model in provider.models]

# Our counts as genai-prices names them, where the names differ.
GENAI_NAMES = {
    "tool_use_input_tokens": "input_tool_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "citation_tokens": "output_citation_tokens",
    "cache_read_audio_tokens": "cache_audio_read_tokens",
    "cache_read_image_tokens": "cache_image_read_tokens",
    "cache_read_video_tokens": "cache_video_read_tokens",
    "document_pages": "input_document_pages",
    "annotated_document_pages": "input_annotated_document_pages",
}
# Units that genai-prices' registry has and that a model may price; the others it would ignore.
UNITS = ("input_characters", "input_pixels", "web_searches", "social_searches", "storage_searches", "rerank_searches")


def genai_usage(usage: TokenUsage) -> Usage:
    counts: dict[str, Any] = {GENAI_NAMES.get(name, name): value for name, value in usage.counts().items()}
    seconds = [Fraction(str(counts[n])) for n in ("input_audio_seconds", "output_audio_seconds") if n in counts]
    if seconds:
        total = sum(seconds)
        counts["audio_seconds"] = Decimal(total.numerator) / Decimal(total.denominator)
    return Usage(**counts)


def genai_nano(model: str, provider: str, usage: TokenUsage, at: float, context: dict[str, str]) -> int:
    price = calc_price(
        genai_usage(usage),
        model,
        provider_id=provider,
        genai_request_timestamp=datetime.fromtimestamp(at, UTC),
        price_context=context or None,
    )
    nano = price.total_price * 10**9
    if usage.input_audio_seconds is not None or usage.output_audio_seconds is not None:
        nano = nano.quantize(
            Decimal("1e-12")
        )  # "28 digits": only an hour's price is divided by what is not a power of ten
    return math.ceil(nano)


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """Usages whose counts agree, as far as both sides can express them."""
    split = st.integers(0, 4)

    def parts(whole: int, *names: str) -> dict[str, int]:
        found, rest = {}, whole
        for name in names:
            share = draw(split)
            if share and rest:
                found[name] = rest if share == 4 else draw(st.integers(0, rest))
                rest -= found[name]
        return found

    counts: dict[str, Any] = {}
    whole = draw(st.one_of(st.integers(0, 3000), st.integers(0, 2_000_000), st.sampled_from(EDGES)))
    counts["input_tokens"] = whole
    # The input as a table of kinds by modalities, so that every crossing is consistent.
    modality = draw(st.sampled_from((None, None, "audio", "image", "video")))
    plain = whole
    if modality:
        other = draw(st.integers(0, whole))
        cached_other = draw(st.integers(0, other))
        counts[f"input_{modality}_tokens"] = other
        counts[f"cache_read_{modality}_tokens"] = cached_other
        plain = whole - other
        cached = draw(st.integers(0, plain))
        counts["cache_read_tokens"] = cached + cached_other
        plain -= cached
    else:
        kinds = parts(plain, "cache_read_tokens", "cache_write_tokens", "tool_use_input_tokens")
        counts.update(kinds)
        plain -= sum(kinds.values())
    if "cache_write_tokens" in counts:
        counts.update(parts(counts["cache_write_tokens"], "cache_write_1h_tokens", "cache_write_5m_tokens"))
    counts["output_tokens"] = draw(st.integers(0, 400_000))
    if draw(st.booleans()):
        counts.update(parts(counts["output_tokens"], "reasoning_tokens", "citation_tokens"))
    else:
        counts.update(parts(counts["output_tokens"], "output_audio_tokens", "output_image_tokens"))
    for name in draw(st.sets(st.sampled_from(UNITS), max_size=2)):
        counts[name] = draw(st.integers(0, 500))
    if draw(split) == 0:
        seconds = st.one_of(st.integers(0, 90_000), st.decimals(0, 4000, places=3).map(Decimal))
        counts["input_audio_seconds"] = draw(seconds)
    if draw(split) == 0:
        counts["document_pages"] = draw(st.integers(0, 3000))
        counts["annotated_document_pages"] = draw(st.integers(0, counts["document_pages"]))
    return TokenUsage(**counts)


EDGES = sorted(
    {
        tier.start + step
        for _, model in MODELS
        for price in (model.prices if isinstance(model.prices, list) else [model])
        for value in (price.prices.__dict__.values() if not isinstance(price.prices, list) else ())
        if isinstance(value, types.TieredPrices)
        for tier in value.tiers
        for step in (0, 1)
    }
)


def times(model: types.ModelInfo) -> list[float]:
    """Moments at and just before each change of a model's prices, and some others."""
    found = [datetime(2026, 11, 22, 18, tzinfo=UTC).timestamp(), datetime(2023, 1, 1, 0, 30, tzinfo=UTC).timestamp()]
    constraints = [p.constraint for p in model.prices] if isinstance(model.prices, list) else []
    constraints += [variant.constraint for variant in model.price_variants or ()]
    for constraint in constraints:
        if isinstance(constraint, types.StartDateConstraint):
            start = datetime.combine(constraint.start_date, datetime.min.time(), UTC).timestamp()
            found += [start - 0.5, start]
        elif isinstance(constraint, types.TimeOfDateConstraint):
            for clock in (constraint.start_time, constraint.end_time):
                start = datetime.combine(date(2026, 10, 1), clock.replace(tzinfo=UTC)).timestamp()
                found += [start - 0.25, start]
    return sorted(set(found))


def contexts(model: types.ModelInfo) -> list[tuple[dict[str, str], str | None, bool]]:
    """Each context that the model's variants know: for genai-prices, and as our tier and batch."""
    found: list[tuple[dict[str, str], str | None, bool]] = [({}, None, False)]
    for variant in model.price_variants or ():
        if variant.when == {"processing": "batch"}:
            found.append((variant.when, None, True))
        else:
            ((key, value),) = variant.when.items()
            found.append((variant.when, value if key in ("service_tier", "speed") else f"{key}:{value}", False))
    return found


def resolved(provider: types.Provider, model: str) -> types.ModelInfo | None:
    return provider.find_model(model, all_providers=list(providers))


def check(provider: types.Provider, name: str, usage: TokenUsage, at: float, context: Any) -> None:
    model = resolved(provider, name)
    if model is None:
        return
    genai_context, tier, batch = context
    cost = BOOK.cost(provider.id, name, usage, at=at, tier=tier, batch=batch)
    theirs = genai_nano(name, provider.id, usage, at, genai_context)
    if cost.nano_usd is None or cost.state == "free" or cost.source == "litellm":
        # "empty price", "all prices 0" and "units without a price": they say 0, or we would have to guess.
        assert theirs == 0, (cost, theirs)
        return
    prices = model.get_prices(datetime.fromtimestamp(at, UTC), genai_context)
    ours = cost.nano_usd
    if prices.__dict__.get("web_searches_kcount") is None:  # "supplements"
        searches = BOOK.cost(provider.id, name, TokenUsage(web_searches=usage.web_searches or 0), at=at).nano_usd or 0
        ours -= searches - (BOOK.cost(provider.id, name, TokenUsage(), at=at).nano_usd or 0)
    if cost.nano_usd != ours:
        assert abs(ours - theirs) <= 1, (cost, theirs)
    else:
        assert ours == theirs, (cost, theirs, dict(cost.breakdown))
    assert sum(cost.breakdown.values()) == cost.nano_usd


@pytest.mark.parametrize("group", range(8))
def test_every_model_at_every_change_of_its_prices(group: int) -> None:
    """Every provider and model, at each edge of time, in each tier: fixed usages with all that models price."""
    fixed = [
        TokenUsage(
            input_tokens=12_345, output_tokens=678, cache_read_tokens=2345, cache_write_tokens=1000, web_searches=3
        ),
        TokenUsage(
            input_tokens=300_001, output_tokens=9, cache_write_tokens=3, cache_write_1h_tokens=3, reasoning_tokens=7
        ),
        TokenUsage(
            input_tokens=1001,
            output_tokens=1,
            input_audio_tokens=501,
            cache_read_audio_tokens=101,
            cache_read_tokens=301,
            input_audio_seconds=Decimal("7.3"),
            input_characters=77,
            document_pages=3,
            annotated_document_pages=1,
        ),
    ]
    for provider, model in MODELS[group::8]:
        if not resolved(provider, model.id):
            continue
        for at in times(model):
            for context in contexts(model):
                for usage in fixed:
                    check(provider, model.id, usage, at, context)


@settings(
    max_examples=1500, deadline=None, phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck)
)
@given(st.data())
def test_random_usages_times_and_tiers(data: st.DataObject) -> None:
    provider, model = MODELS[data.draw(st.integers(0, len(MODELS) - 1))]
    at = data.draw(st.one_of(st.sampled_from(times(model)), st.floats(1.6e9, 1.9e9)))
    check(provider, model.id, data.draw(usages()), at, data.draw(st.sampled_from(contexts(model))))


def clause_names(match: Any, spelled: bool) -> list[str]:
    """Names made of a model's clauses: the texts in them, alone and with what providers add."""
    if isinstance(match, types.ClauseOr | types.ClauseAnd):
        parts = match.or_ if isinstance(match, types.ClauseOr) else match.and_
        return [name for part in parts for name in clause_names(part, spelled)]
    text = str(next(iter(match.__dict__.values())))
    if isinstance(match, types.ClauseRegex):
        return []
    if isinstance(match, types.ClauseEquals):
        return [text, text.upper(), f"{text}-20260230"] if spelled else [text]
    ends = ("", "-20260801", "-2026-08-01", "-v1:0", "@20260801", "-latest", "-preview", "-cyber", "-mini", ":free")
    before = ("", "us.", "eu.", "global.") if isinstance(match, types.ClauseContains | types.ClauseEndsWith) else ("",)
    after = ("",) if isinstance(match, types.ClauseEndsWith) else ends
    return [head + text + tail for head in before for tail in after]


def test_every_name_that_a_clause_explains_means_the_same_model() -> None:
    usage = TokenUsage(input_tokens=12_345, output_tokens=678, cache_read_tokens=45)
    other_families: set[str] = set()
    seen = 0
    for number, (provider, model) in enumerate(MODELS):
        for name in clause_names(model.match, spelled=number % 7 == 0):
            theirs = resolved(provider, name)
            if theirs is None:
                continue
            seen += 1
            found = BOOK.explain(provider.id, name)
            if found is not None and found.model == theirs.id:
                continue
            if (
                found is not None
                and found.source.name == "litellm"
                and not any(
                    price.prices.__dict__
                    for price in (
                        theirs.prices
                        if isinstance(theirs.prices, list)
                        else [types.ConditionalPrice(prices=theirs.prices)]
                    )
                )
            ):
                continue  # "empty price", where litellm has one
            assert not FAMILY_WORDS.isdisjoint(name.lower().replace("@", "-").split("-")), (provider.id, name, found)
            other_families.add(name)
            assert BOOK.cost(provider.id, name, usage).model != theirs.id
    assert seen > 4000
    assert all(name.endswith(("-cyber", "-mini")) for name in other_families), other_families
    assert any(
        names_another_family(name.removeprefix("gemini-3.8-flash"), "gemini-3.8-flash") for name in other_families
    )
