"""Upper bounds hold for every legal usage, and costs add up."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.usage import TokenUsage

BOOK = PriceBook(stale_after_days=None)
NOW = datetime(2026, 11, 22, 18, tzinfo=UTC).timestamp()

SOME = st.sampled_from(
    [
        ("openai", "gpt-5.6-sol"),
        ("openai", "gpt-4o-realtime-preview"),
        ("openai", "gpt-6-astra"),
        ("anthropic", "claude-haiku-5-5"),
        ("anthropic", "claude-sonnet-4-5"),
        ("google", "gemini-2.5-flash"),
        ("google", "gemini-3.6-flash"),
        ("deepseek", "deepseek-v4-pro"),
        ("azure", "gpt-5.4"),
        ("aws", "eu.amazon.nova-lite-v1:0"),
        ("perplexity", "sonar-deep-research"),
        ("groq", "whisper-large-v3"),
        ("openrouter", "x-ai/grok-4.3"),
    ]
)
EVERY = [(provider, model) for provider in BOOK.providers() for model in BOOK.models(provider)]


@st.composite
def legal(draw: st.DrawFn) -> TokenUsage:
    read, wrote = draw(st.integers(0, 600_000)), draw(st.integers(0, 200_000))
    counts = {"input_tokens": read, "output_tokens": wrote}
    kinds = draw(st.lists(st.integers(0, 1_000_000), min_size=2, max_size=2).map(sorted))
    cached, written = read * kinds[0] // 1_000_000, read * (kinds[1] - kinds[0]) // 1_000_000
    counts.update(cache_read_tokens=cached, cache_write_tokens=written)
    counts[draw(st.sampled_from(["cache_write_5m_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens"]))] = (
        written
    )
    if draw(st.booleans()):
        counts["input_audio_tokens"] = draw(st.integers(0, read))
    counts[draw(st.sampled_from(["reasoning_tokens", "output_audio_tokens", "citation_tokens"]))] = draw(
        st.integers(0, wrote)
    )
    if draw(st.booleans()):
        counts["web_searches"] = draw(st.integers(0, 20))
        counts["input_audio_seconds"] = draw(st.integers(0, 100))
    return TokenUsage(**counts)


TIERS = st.sampled_from([None, "auto", "priority", "flex", "fast", "nonsense"])


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(SOME, SOME, st.sampled_from(EVERY)),
    legal(),
    TIERS,
    st.booleans(),
    st.floats(1.7e9, 1.85e9),
    st.floats(0, 200_000),
    st.floats(0, 1),
)
def test_a_bound_is_never_below_the_cost(
    named: tuple[str, str], usage: TokenUsage, tier: str | None, batch: bool, at: float, horizon: float, part: float
) -> None:
    most = BOOK.bound(
        *named,
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        at=at,
        horizon_s=horizon,
        tier=tier,
        batch=batch,
        extra=usage,
    )
    served = tier if tier != "auto" else "priority"
    # A call may be served at the standard price instead, but not instead of a batch or flex, which are cheaper.
    for actual in {served} if batch or tier == "flex" else {served, None}:
        cost = BOOK.cost(*named, usage, at=at + part * horizon, tier=actual, batch=batch)
        assert cost.nano_usd is None or (most is not None and most >= cost.nano_usd), (named, cost, most)


@settings(max_examples=200, deadline=None)
@given(SOME, legal(), st.sampled_from(["none", "5m", "1h", "12h"]))
def test_what_is_known_of_the_request_makes_a_bound_tighter(
    named: tuple[str, str], usage: TokenUsage, ttl: str
) -> None:
    many = {"input_tokens": usage.input_tokens or 0, "output_tokens": usage.output_tokens or 0, "at": NOW}
    loose = BOOK.bound(*named, **many)  # type: ignore[arg-type]
    tight = BOOK.bound(*named, cache_write_ttl=ttl, text_only=True, **many)  # type: ignore[arg-type]
    assert loose is not None
    assert tight is not None
    assert tight <= loose
    written = {"none": (), "5m": ("5m",), "1h": ("5m", "1h"), "12h": ("5m", "1h", "12h")}[ttl]
    counts = usage.counts()
    for name in ("cache_write_5m_tokens", "cache_write_1h_tokens", "cache_write_12h_tokens"):
        if name.split("_")[2] not in written and name in counts:
            counts.pop(name)
            counts["cache_write_tokens"] = 0
    for name in [n for n in counts if "audio" in n or n == "web_searches"]:
        counts.pop(name)
    cost = BOOK.cost(*named, TokenUsage(**counts), at=NOW)
    assert cost.nano_usd is None or cost.nano_usd <= tight


def test_bounds_by_hand() -> None:
    many = {"input_tokens": 10_000, "output_tokens": 1000, "at": NOW}
    haiku = ("anthropic", "claude-haiku-4-5")
    assert BOOK.bound(*haiku, cache_write_ttl="none", **many) == 15_000_000  # 1 in, 5 out
    assert BOOK.bound(*haiku, cache_write_ttl="5m", **many) == 17_500_000  # 1.25 written
    assert BOOK.bound(*haiku, **many) == 25_000_000  # 2 written for an hour
    assert BOOK.bound("openai", "gpt-4o", **many) == 35_000_000  # no caching that costs more
    assert BOOK.bound("openai", "gpt-4o", tier="auto", **many) == 59_500_000  # priority: 4.25, 17
    assert BOOK.bound("openai", "gpt-5", tier="flex", **many) == 11_250_000  # flex is never billed as standard
    assert BOOK.bound("openai", "gpt-5", tier="priority", **many) == 45_000_000
    assert BOOK.bound("openai", "gpt-5", extra=TokenUsage(web_searches=2), **many) == 42_500_000
    peak = datetime(2026, 11, 22, 0, 59, tzinfo=UTC).timestamp()
    assert BOOK.cost("deepseek", "deepseek-v4-pro", TokenUsage(input_tokens=10_000), at=peak).nano_usd == 6_600_000
    assert BOOK.bound("deepseek", "deepseek-v4-pro", input_tokens=10_000, output_tokens=0, at=peak, horizon_s=60) == (
        13_200_000
    )


def test_where_the_sources_disagree_the_bound_takes_the_dearer() -> None:
    cost = BOOK.expected("x_ai", "grok-code-fast-1", input_tokens=100_000, output_tokens=0, at=NOW)
    assert cost == 20_000_000
    assert BOOK.bound("x_ai", "grok-code-fast-1", input_tokens=100_000, output_tokens=0, at=NOW) == 100_000_000
    found = BOOK.explain("x_ai", "grok-code-fast-1")
    assert found is not None
    assert found.other is not None
    assert found.other.name == "litellm"


@settings(max_examples=300, deadline=None)
@given(SOME, legal(), legal())
def test_costs_add_up_within_one_tier(named: tuple[str, str], one: TokenUsage, other: TokenUsage) -> None:
    small = [
        TokenUsage(**{k: int(v) // 20 for k, v in usage.counts().items() if "audio" not in k}) for usage in (one, other)
    ]
    parts = [BOOK.cost(*named, usage, at=NOW) for usage in small]
    whole = BOOK.cost(*named, small[0] + small[1], at=NOW)
    if None in (parts[0].nano_usd, parts[1].nano_usd, whole.nano_usd):
        return
    # A fee for each request is no part of the usage.
    fee = BOOK.cost(*named, TokenUsage(), at=NOW).nano_usd or 0
    together = (parts[0].nano_usd or 0) + (parts[1].nano_usd or 0) - fee
    assert abs(together - (whole.nano_usd or 0)) <= 2
