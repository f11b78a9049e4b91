"""What reported names mean, and what they must not mean."""

from __future__ import annotations

import pytest

from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.pricing.names import PROVIDERS, names_to_price, plain, provider_id
from tokenbudget_otel.usage import TokenUsage

BOOK = PriceBook(stale_after_days=None)
USAGE = TokenUsage(input_tokens=1000, output_tokens=1000)

MEANS = [
    # reported provider, reported model, catalog provider, catalog model
    ("openai", "gpt-4o-2024-11-20", "openai", "gpt-4o"),
    ("OpenAI", "GPT-4o", "openai", "gpt-4o"),
    ("openai", "openai/gpt-5", "openai", "gpt-5"),
    ("openai", "gpt-5-2030-01-31", "openai", "gpt-5"),
    ("openai", "gpt-5-20300131", "openai", "gpt-5"),
    ("openai", "o1-pro", "openai", "o1-pro"),
    ("openai", "o1-2024-12-17", "openai", "o1"),
    ("openai", "gpt-4o-audio-preview-2024-12-17", "openai", "gpt-4o-audio-preview"),
    ("openai", "ft:gpt-4o-mini-2024-07-18:org::id", "openai", "ft:gpt-4o-mini"),
    ("anthropic", "claude-opus-4-5-20251101", "anthropic", "claude-opus-4-5"),
    ("anthropic", "claude-opus-4-20250514", "anthropic", "claude-opus-4-0"),
    ("anthropic", "claude-3-7-sonnet-latest", "anthropic", "claude-3-7-sonnet-latest"),
    ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "google", "claude-sonnet-4-5"),
    ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", "google", "gemini-2.5-pro"),
    (
        "gcp.vertex_ai",
        "projects/p/locations/us/publishers/google/models/gemini-2.5-flash",
        "google",
        "gemini-2.5-flash",
    ),
    ("gcp.gemini", "models/gemini-2.5-flash", "google", "gemini-2.5-flash"),
    ("gcp.gen_ai", "gemini-2.0-flash-001", "google", "gemini-2.0-flash"),
    (
        "aws.bedrock",
        "anthropic.claude-3-haiku-20240307-v1:0",
        "aws",
        "regional.anthropic.claude-3-haiku-20240307-v1:0",
    ),
    (
        "aws.bedrock",
        "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
        "aws",
        "regional.anthropic.claude-3-haiku-20240307-v1:0",
    ),
    (
        "aws.bedrock",
        "arn:aws-us-gov:bedrock:us-gov-west-1:111122223333:inference-profile/us-gov.anthropic.claude-3-haiku-20240307-v1:0",
        "aws",
        "regional.anthropic.claude-3-haiku-20240307-v1:0",
    ),
    ("aws.bedrock", "apac.amazon.nova-pro-v1:0", "aws", "amazon.nova-pro-v1:0"),
    ("azure.ai.openai", "gpt-4o-2024-08-06", "azure", "gpt-4o"),
    ("azure.ai.inference", "gpt-5", "azure", "gpt-5"),
    ("x_ai", "grok-4", "x-ai", "grok-4-0709"),
    ("xai", "grok-4-0709", "x-ai", "grok-4-0709"),
    ("openrouter", "openai/gpt-4o", "openrouter", "openai/gpt-4o"),
    ("litellm", "anthropic/claude-haiku-4-5", "anthropic", "claude-haiku-4-5"),
    (None, "claude-haiku-4-5-20251001", "anthropic", "claude-haiku-4-5"),
    (None, "gpt-5-mini", "openai", "gpt-5-mini"),
    (None, "text-embedding-3-small", "openai", "text-embedding-3-small"),
    (None, "gemini-2.5-pro", "google", "gemini-2.5-pro"),
    (None, "amazon.nova-pro-v1:0", "aws", "amazon.nova-pro-v1:0"),
    (None, "mistral/codestral-latest", "mistral", "codestral"),
]


@pytest.mark.parametrize(("provider", "model", "catalog_provider", "catalog_model"), MEANS)
def test_a_reported_name_means(provider: str | None, model: str, catalog_provider: str, catalog_model: str) -> None:
    cost = BOOK.cost(provider, model, USAGE)
    assert (cost.provider, cost.model) == (catalog_provider, catalog_model)
    assert cost.nano_usd


UNKNOWN = [
    ("anthropic", "claude-zzz-9"),
    ("anthropic", "claude"),
    (None, "claude-zzz-9"),
    ("openai", "gpt-9-foo"),
    ("openai", "gpt-4o-audio"),
    ("openai", "o1-ultra"),
    ("openai", "gpt-5-2030-13-31"),
    ("openai", "ft:gpt-5-2025-08-07:org::id"),
    ("openai", "ft:o1:org::id"),
    ("azure.ai.openai", "my-prod-deployment"),
    ("aws.bedrock", "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/a1b2c3"),
    ("aws.bedrock", "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/claude-3-haiku-20240307"),
    ("aws.bedrock", "arn:aws:bedrock:us-east-1:111122223333:provisioned-model/anthropic.claude-3-haiku-20240307"),
    ("openrouter", "openai/gpt-4o:nitro"),
    ("openrouter", "openrouter/auto"),
    ("somebody", "gpt-4o"),
    ("openai-compatible", "gpt-4o"),
    (None, "llama-3.3-70b-versatile"),
    (None, "my-model"),
    ("openai", "claude-haiku-4-5"),
    ("openai", ""),
    ("openai", "  "),
    ("openai", "gpt-4o; drop table"),
    ("google", "gemini-2.0-flash-exp-image-generation"),
]


@pytest.mark.parametrize(("provider", "model"), UNKNOWN)
def test_a_name_that_nothing_explains_has_no_price(provider: str | None, model: str) -> None:
    cost = BOOK.cost(provider, model, USAGE)
    assert (cost.nano_usd, cost.usd, cost.state, cost.source) == (None, None, "unknown", None)
    assert BOOK.bound(provider, model, input_tokens=1, output_tokens=1) is None
    assert BOOK.expected(provider, model, input_tokens=1, output_tokens=1) is None
    assert BOOK.limits(provider, model) == (None, None)
    assert BOOK.explain(provider, model) is None


DIFFERENT = [
    ("openai", "o1", "o1-pro"),
    ("openai", "o3", "o3-pro"),
    ("openai", "o3", "o3-deep-research"),
    ("openai", "gpt-4o", "gpt-4o-realtime-preview"),
    ("openai", "gpt-4o", "gpt-4o-mini"),
    ("openai", "gpt-5", "gpt-5-pro"),
    ("openai", "gpt-4", "gpt-4-turbo"),
    ("anthropic", "claude-opus-4", "claude-opus-4-5"),
    ("anthropic", "claude-haiku-4-5", "claude-haiku-5-5"),
    ("azure", "o4-mini", "o4-mini-deep-research"),
    ("google", "gemini-3.8-flash", "gemini-3.8-flash-cyber"),
    ("google", "gemini-2.5-flash", "gemini-2.5-flash-lite"),
    ("openai", "gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini-2024-07-18:org::id"),
]


@pytest.mark.parametrize(("provider", "one", "other"), DIFFERENT)
def test_a_name_that_goes_on_is_another_model(provider: str, one: str, other: str) -> None:
    first, second = BOOK.cost(provider, one, USAGE), BOOK.cost(provider, other, USAGE)
    assert first.model != second.model
    assert first.nano_usd != second.nano_usd


CONVENTIONS = """
openai azure.ai.openai azure.ai.inference anthropic aws.bedrock gcp.gemini gcp.vertex_ai gcp.gen_ai mistral_ai cohere
groq deepseek x_ai perplexity moonshot_ai ibm.watsonx.ai together together_ai fireworks openrouter
"""


@pytest.mark.parametrize("name", CONVENTIONS.split())
def test_every_provider_of_the_conventions_is_known(name: str) -> None:
    known = provider_id(name)
    assert known in BOOK.providers()
    assert BOOK.models(name)


def test_the_table_of_providers_is_written_plainly_and_without_doubles() -> None:
    aliases = [alias for known, names in PROVIDERS.items() for alias in (known, *names)]
    assert len(aliases) == len(set(aliases))
    assert all(plain(alias) == alias for alias in aliases)


def test_strange_names_never_raise() -> None:
    for model in (
        None,
        3,
        b"gpt-4o",
        ["gpt-4o"],
        "x" * 100_000,
        "arn:aws:bedrock",
        "ft:",
        "/",
        "@",
        "\x00",
        "gpt-4o\n",
    ):
        for provider in (None, "openai", "aws.bedrock", "google", "", 7, "litellm"):
            BOOK.cost(provider, model, USAGE)  # type: ignore[arg-type]


def test_names_are_kept_within_bounds() -> None:
    book = PriceBook()
    for number in range(10_000):
        book.cost("openai", f"nobody-{number}", USAGE)
    assert len(book._view.tariffs) <= 4096
    assert len(book._view.found) <= 4096


PROFILE = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
OWN = "arn:aws:bedrock:eu-central-1:111122223333:"


@pytest.mark.parametrize(
    ("provider", "asked", "answered", "names"),
    [
        ("openai", "gpt-5", "gpt-5-2025-08-07", ("gpt-5-2025-08-07", "gpt-5")),
        ("openai", "gpt-5", "gpt-5", ("gpt-5",)),
        ("openai", "gpt-5", None, ("gpt-5",)),
        ("openai", "gpt-5", "", ("gpt-5",)),
        ("aws.bedrock", PROFILE, "claude-haiku-4-5-20251001", (PROFILE, "claude-haiku-4-5-20251001")),
        ("AWS Bedrock", PROFILE, "claude-haiku-4-5-20251001", (PROFILE, "claude-haiku-4-5-20251001")),
        ("aws.bedrock", f"{OWN}application-inference-profile/a1", "claude-haiku-4-5-20251001", None),
        ("aws.bedrock", f"{OWN}provisioned-model/a1", "claude-haiku-4-5-20251001", None),
        ("aws.bedrock", f"{OWN}imported-model/a1", "qwen", None),
        (
            "aws.bedrock",
            f"{OWN}default-prompt-router/anthropic.claude:1",
            f"{OWN}inference-profile/{PROFILE}",
            (f"{OWN}default-prompt-router/anthropic.claude:1", f"{OWN}inference-profile/{PROFILE}"),
        ),
    ],
)
def test_the_names_that_a_call_is_priced_by(
    provider: str, asked: str, answered: str | None, names: tuple[str, ...] | None
) -> None:
    assert names_to_price(provider, asked, answered) == (names or (asked,))
