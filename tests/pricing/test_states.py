"""What a cost says of how surely it is known, and that no usage makes it raise."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenbudget_otel.pricing import Cost, PriceBook, calculate_cost
from tokenbudget_otel.usage import TOKEN_FIELDS, UNIT_FIELDS, TokenUsage

BOOK = PriceBook(stale_after_days=None)
NOW = datetime(2026, 11, 22, 18, tzinfo=UTC).timestamp()
PLAIN = TokenUsage(input_tokens=1000, output_tokens=100)


def test_unknown_is_none_and_never_zero() -> None:
    cost = BOOK.cost("openai", "no-such-model", PLAIN)
    assert (cost.nano_usd, cost.usd, cost.state, dict(cost.breakdown)) == (None, None, "unknown", {})
    assert calculate_cost("no-such-model", PLAIN) is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [("google", "gemma-4-31b-it"), ("openai", "omni-moderation-latest"), ("github-copilot", "gpt-4.1")],
)
def test_an_entry_without_a_price_is_not_free(provider: str, model: str) -> None:
    cost = BOOK.cost(provider, model, PLAIN)
    assert cost.nano_usd is None or cost.nano_usd > 0
    assert cost.state != "free"


def test_free_only_where_the_name_says_so() -> None:
    cost = BOOK.cost("openrouter", "deepseek/deepseek-r1:free", PLAIN)
    assert (cost.nano_usd, cost.state, cost.source) == (0, "free", "genai-prices")
    assert BOOK.bound("openrouter", "deepseek/deepseek-r1:free", input_tokens=1, output_tokens=1) == 0


def test_nothing_in_the_catalog_costs_nothing_without_saying_free() -> None:
    usage = TokenUsage(input_tokens=1000, output_tokens=1000)
    for provider in BOOK.providers():
        for model in BOOK.models(provider):
            cost = BOOK.cost(provider, model, usage, at=NOW)
            if cost.nano_usd == 0:
                assert cost.state == "free" or cost.unpriced, (provider, model, cost)
                assert cost.state != "free" or model.endswith(":free"), (provider, model)


def test_reported_units_without_a_price_make_it_partial() -> None:
    cost = BOOK.cost("anthropic", "claude-haiku-4-5", PLAIN.replace(code_executions=3), at=NOW)
    assert (cost.state, cost.unpriced) == ("partial", ("code_executions",))
    assert cost.nano_usd == BOOK.cost("anthropic", "claude-haiku-4-5", PLAIN, at=NOW).nano_usd


def test_a_count_of_zero_needs_no_price() -> None:
    assert BOOK.cost("anthropic", "claude-haiku-4-5", PLAIN.replace(code_executions=0), at=NOW).state == "priced"


def test_web_fetches_are_paid_by_their_tokens() -> None:
    assert BOOK.cost("anthropic", "claude-haiku-4-5", PLAIN.replace(web_fetches=2), at=NOW).state == "priced"


def test_another_measure_of_what_was_billed_is_not_unpriced() -> None:
    usage = TokenUsage(input_tokens=100, output_tokens=1000, output_images=1, input_characters=400)
    assert BOOK.cost("openai", "gpt-image-1", usage, at=NOW).state == "priced"
    assert (
        BOOK.cost("openai", "whisper-1", TokenUsage(input_audio_seconds=9, input_tokens=90), at=NOW).state == "priced"
    )


def test_nothing_priced_at_all_is_unknown() -> None:
    cost = BOOK.cost("openai", "whisper-1", PLAIN, at=NOW)
    assert (cost.nano_usd, cost.state) == (None, "unknown")
    assert cost.unpriced == ("input_tokens", "output_tokens")


def test_a_tier_without_a_price_is_said() -> None:
    cost = BOOK.cost("groq", "llama-3.3-70b-versatile", PLAIN, at=NOW, tier="performance")
    assert (cost.state, cost.unpriced, cost.nano_usd) == ("partial", ("tier:priority",), 669_000)


def test_a_tier_before_its_price_is_said() -> None:
    cost = BOOK.cost("openai", "gpt-5", PLAIN, at=datetime(2026, 10, 11, tzinfo=UTC).timestamp(), tier="flex")
    assert (cost.state, cost.unpriced) == ("partial", ("tier:flex",))


def test_a_tier_that_only_the_second_source_knows() -> None:
    usage = TokenUsage(input_tokens=1_000_000)
    cost = BOOK.cost("azure.ai.openai", "gpt-5.4", usage.replace(input_tokens=100_000), at=NOW, batch=True)
    assert (cost.source, cost.tier, cost.state) == ("litellm", "batch", "priced")
    standard = BOOK.cost("azure.ai.openai", "gpt-5.4", usage.replace(input_tokens=100_000), at=NOW)
    assert standard.source == "genai-prices"
    assert cost.nano_usd is not None
    assert standard.nano_usd is not None
    assert cost.nano_usd * 2 == standard.nano_usd


def test_times_to_live_without_a_price_of_their_own() -> None:
    usage = TokenUsage(input_tokens=1000, cache_write_tokens=1000)
    general = BOOK.cost("openai", "gpt-5.6-sol", usage, at=NOW)
    half_hour = BOOK.cost("openai", "gpt-5.6-sol", usage.replace(cache_write_30m_tokens=1000), at=NOW)
    assert (half_hour.nano_usd, half_hour.state) == (general.nano_usd, "priced")
    long = BOOK.cost("anthropic", "claude-haiku-4-5", usage.replace(cache_write_12h_tokens=400), at=NOW)
    assert (long.nano_usd, long.state, long.unpriced) == (1_250_000, "partial", ("cache_write_12h_tokens",))


def test_twelve_hours_where_the_second_source_has_the_price() -> None:
    usage = TokenUsage(input_tokens=1000, cache_write_tokens=1000, cache_write_12h_tokens=1000)
    cost = BOOK.cost("openai", "gpt-6-astra", usage, at=NOW)
    assert (cost.nano_usd, cost.state) == (25_000_000, "priced")  # 25 for 1M: twice the general 12.50


def test_stale_by_the_age_of_the_catalog() -> None:
    book = PriceBook(stale_after_days=180)
    read = datetime.fromisoformat(book.sources[0].date or "").replace(tzinfo=UTC).timestamp()
    assert book.cost("openai", "gpt-4o", PLAIN, at=read + 179 * 86_400).state == "priced"
    old = book.cost("openai", "gpt-4o", PLAIN, at=read + 181 * 86_400)
    assert (old.state, old.nano_usd) == ("stale", 3_500_000)
    book.stale_after_days = None
    assert book.cost("openai", "gpt-4o", PLAIN, at=read + 10_000 * 86_400).state == "priced"
    book.stale_after_days = 0
    book.register_model("mine", input_per_1m=1, output_per_1m=1)
    assert book.cost("openai", "mine", PLAIN, at=read + 10_000 * 86_400).state == "priced"
    with pytest.raises(ValueError, match="stale_after_days"):
        book.stale_after_days = -1


def test_what_the_provider_says_wins() -> None:
    cost = BOOK.cost("openai", "gpt-4o", PLAIN, reported_nano_usd=7)
    assert (cost.nano_usd, cost.state, cost.source, dict(cost.breakdown)) == (7, "priced", "provider", {"reported": 7})
    assert BOOK.cost("openai", "gpt-4o", PLAIN, reported_nano_usd=-5000).source == "genai-prices"


def test_contradictions_are_reduced_to_what_is_certain() -> None:
    cost = BOOK.cost("openai", "gpt-4o", TokenUsage(input_tokens=100, cache_read_tokens=900), at=NOW)
    assert (cost.nano_usd, cost.state, cost.unpriced) == (250_000, "partial", ("cache_read_tokens",))
    cost = BOOK.cost("openai", "gpt-4o", TokenUsage(cache_read_tokens=900), at=NOW)
    assert (cost.nano_usd, cost.state) == (1_125_000, "priced")
    cost = BOOK.cost("anthropic", "claude-haiku-4-5", TokenUsage(cache_write_1h_tokens=1000), at=NOW)
    assert cost.nano_usd == 2_000_000


def test_cached_and_audio_without_what_is_both_takes_the_dearest() -> None:
    usage = TokenUsage(input_tokens=1000, input_audio_tokens=600, cache_read_tokens=700)
    cost = BOOK.cost("openai", "gpt-4o-realtime-preview", usage, at=NOW)
    # At least 300 are both: 300 audio at 40, 700 cached at 2.50.
    assert (cost.nano_usd, cost.state) == (13_750_000, "partial")
    assert cost.unpriced == ("cache_read_audio_tokens",)


def test_a_cost_cannot_be_changed() -> None:
    cost = BOOK.cost("openai", "gpt-4o", PLAIN)
    with pytest.raises(AttributeError):
        cost.nano_usd = 0  # type: ignore[misc]
    assert cost == BOOK.cost("openai", "gpt-4o", PLAIN)
    assert len({cost, BOOK.cost("openai", "gpt-4o", PLAIN), Cost(None, "unknown")}) == 2
    assert "3500000" not in repr(cost)
    assert "0.0035 USD" in repr(cost)


ANY_COUNT = st.one_of(st.none(), st.integers(0, 10_000_000), st.just(0))
ANY_USAGE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(TOKEN_FIELDS + UNIT_FIELDS, ANY_COUNT),
        "input_audio_seconds": st.one_of(st.floats(0, 1e6), st.decimals(0, 1000, places=3), st.integers(0, 10**6)),
    },
).map(lambda counts: TokenUsage(**counts))
SOME = st.sampled_from(
    [
        ("openai", "gpt-4o"),
        ("openai", "gpt-4o-realtime-preview"),
        ("openai", "gpt-image-1"),
        ("openai", "whisper-1"),
        ("openai", "gpt-6-astra"),
        ("anthropic", "claude-haiku-5-5"),
        ("google", "gemini-2.5-flash"),
        ("perplexity", "sonar-deep-research"),
        ("mistral", "mistral-ocr-latest"),
        ("groq", "whisper-large-v3"),
        ("deepseek", "deepseek-v4-pro"),
    ]
)
ANY_TIME = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@settings(max_examples=400, deadline=None)
@given(SOME, ANY_USAGE, ANY_TIME)
def test_no_usage_raises_or_costs_less_than_nothing(
    named: tuple[str, str], usage: TokenUsage, at: float | None
) -> None:
    cost = BOOK.cost(*named, usage, at=at)
    assert cost.nano_usd is None or cost.nano_usd >= 0
    assert sum(cost.breakdown.values()) == (cost.nano_usd or 0)
    assert (cost.state == "unknown") == (cost.nano_usd is None)
    assert cost.usd is None or cost.usd == Decimal(cost.nano_usd or 0) / 10**9
