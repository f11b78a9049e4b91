"""What is worked out in one go for the usual call is what the general ways say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.pricing.names import names_to_price
from tokenbudget_otel.usage import TokenUsage

BOOK = PriceBook()
NAMES = st.sampled_from(("gpt-4o", "gpt-4o-2024-08-06", "gpt-5", "o3", "claude-haiku-4-5", "no-such-model", "prod", ""))
PROVIDERS = st.sampled_from(("openai", "azure.ai.openai", "anthropic", "aws.bedrock", "nobody"))
TIERS = st.sampled_from((None, "default", "flex", "priority", "batch", "no-such-tier"))
COUNTS = st.integers(0, 10**7)
USAGES = st.one_of(
    st.builds(lambda read, wrote: TokenUsage(input_tokens=read, output_tokens=wrote), COUNTS, COUNTS),
    st.builds(
        lambda read, cached, wrote: TokenUsage(input_tokens=read, cache_read_tokens=cached, output_tokens=wrote),
        COUNTS,
        COUNTS,
        COUNTS,
    ),
)
TIMES = st.sampled_from((1_600_000_000.0, 1_790_000_000.0, 4_000_000_000.0))


@given(
    PROVIDERS, NAMES, st.one_of(st.none(), NAMES), USAGES, TIMES, TIERS, st.booleans(), st.sampled_from((None, 0, 7))
)
def test_the_cost_of_an_answer_is_that_of_the_first_name_with_a_price(
    provider: str,
    asked: str,
    answered: str | None,
    usage: TokenUsage,
    at: float,
    tier: str | None,
    batch: bool,
    reported: int | None,
) -> None:
    said = {"at": at, "tier": tier, "batch": batch, "reported_nano_usd": reported}
    costs = [BOOK.cost(provider, name, usage, **said) for name in names_to_price(provider, asked, answered)]
    wanted = next((cost for cost in costs if cost.nano_usd is not None), costs[0])
    for _ in range(4):  # counts that come again are priced by a function of them
        found = BOOK.cost_of_answer(provider, asked, answered, usage, at, tier, batch, reported)
        assert (found, dict(found.breakdown)) == (wanted, dict(wanted.breakdown))


def test_what_the_program_sets_goes_before_the_answer_from_then_on() -> None:
    book = PriceBook()
    usage = TokenUsage(input_tokens=1000)

    def cost() -> int | None:
        return book.cost_of_answer("openai", "mine", "gpt-4o", usage, 1_790_000_000, None, False).nano_usd

    assert {cost() for _ in range(5)} == {2_500_000}
    book.register_model("mine", input_per_1m=1, output_per_1m=1, provider="openai")
    assert {cost() for _ in range(5)} == {1_000_000}
    book.register_model("gpt-4o", input_per_1m=9, output_per_1m=9, provider="openai")
    assert {cost() for _ in range(5)} == {9_000_000}


@given(PROVIDERS, NAMES, TIERS, st.booleans(), st.booleans(), COUNTS, COUNTS, COUNTS, COUNTS, TIMES)
def test_both_amounts_of_a_quote_are_the_one_and_the_other(
    provider: str,
    model: str,
    tier: str | None,
    batch: bool,
    text_only: bool,
    likely_in: int,
    likely_out: int,
    bound_in: int,
    bound_out: int,
    at: float,
) -> None:
    quote = BOOK.quote(provider, model, tier=tier, batch=batch, cache_write_ttl="none", text_only=text_only)
    wanted = quote.expected(likely_in, likely_out, at), quote.bound(bound_in, bound_out, at, at + 600)
    assert quote.amounts(likely_in, likely_out, bound_in, bound_out, at, at + 600) == wanted
