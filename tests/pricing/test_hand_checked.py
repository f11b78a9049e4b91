"""Calls whose cost was worked out by hand from the providers' rates. No expected value is computed.

``USD per 1M`` unless said otherwise. The rates were read on 2026-11-22 from the sources of the catalog; where
a vendor's own price list is known, it says the same.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tokenbudget_otel.pricing import PriceBook
from tokenbudget_otel.usage import TokenUsage

BOOK = PriceBook(stale_after_days=None)


def day(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOW = day("2026-11-22T18:00")
K, M = 1000, 1_000_000


def use(read: int, wrote: int = 0, **counts: Any) -> TokenUsage:
    return TokenUsage(input_tokens=read, output_tokens=wrote, **counts)


Row = tuple[str, str, TokenUsage, dict[str, Any], str, str]

ROWS: list[Row] = [
    # --- OpenAI: in and out
    ("openai", "gpt-4o", use(1000, 100), {}, "0.0035", "2.50 in, 10 out"),
    ("openai", "gpt-4o-2024-08-06", use(1000, 100), {}, "0.0035", "a snapshot at its model's price"),
    ("openai", "gpt-4o-mini-2024-07-18", use(M, M), {}, "0.75", "0.15 in, 0.60 out"),
    ("openai", "o1", use(10 * K, 1000), {}, "0.21", "15 in, 60 out"),
    ("openai", "o1-pro", use(10 * K, 1000), {}, "2.1", "150 in, 600 out: not o1"),
    ("openai", "gpt-5", use(3, 1), {}, "0.000013750", "1.25 in, 10 out: 3750 + 10000 nano"),
    ("openai", "gpt-5-mini", use(1, 0), {}, "0.00000025", "0.25 in: 250 nano for a token"),
    ("openai", "gpt-4.1", use(20 * K, 500), {}, "0.044", "2 in, 8 out"),
    ("openai", "text-embedding-3-small", use(M), {}, "0.02", "0.02 in"),
    # --- OpenAI: cached, reasoning
    ("openai", "gpt-4o", use(10 * K, 0, cache_read_tokens=10 * K), {}, "0.0125", "1.25 cached: all of it"),
    ("openai", "gpt-4o", use(10 * K, 500, cache_read_tokens=8 * K), {}, "0.02", "2k at 2.50, 8k at 1.25, 500 at 10"),
    ("openai", "gpt-5", use(10 * K, 2000, cache_read_tokens=9 * K), {}, "0.022375", "1k 1.25, 9k 0.125, 2k 10"),
    ("openai", "o1", use(0, 1000, reasoning_tokens=800), {}, "0.06", "reasoning is inside the output: 60 once"),
    (
        "openai",
        "gpt-5.6-sol",
        use(100 * K, 0, cache_write_tokens=50 * K, cache_read_tokens=40 * K),
        {},
        "0.306",
        "10k at 4, 50k written at 5, 40k read at 0.40",
    ),
    # --- OpenAI: by prompt length
    ("openai", "gpt-5.6-sol", use(272 * K, 1000), {}, "1.108", "4 and 20 up to 272k: 1.088 + 0.02"),
    ("openai", "gpt-5.6-sol", use(272 * K + 1, 1000), {}, "2.206008", "8 and 30 above, for the whole prompt"),
    ("openai", "gpt-6-astra", use(300 * K, 0, cache_read_tokens=300 * K), {}, "0.6", "2.00 cached above 272k"),
    # --- OpenAI: service tiers
    ("openai", "o3", use(M, 100 * K), {"tier": "flex"}, "1.4", "flex: 1 in, 4 out"),
    ("openai", "o3", use(M, 100 * K), {"tier": "priority"}, "4.9", "priority: 3.50 in, 14 out"),
    ("openai", "o3", use(M, 100 * K), {"tier": "default"}, "2.8", "default is the standard price: 2 in, 8 out"),
    ("openai", "o3", use(M, 100 * K), {"batch": True}, "1.4", "batch: half of 2 and 8"),
    ("openai", "gpt-5", use(M, 0, cache_read_tokens=M), {"tier": "flex"}, "0.0625", "flex halves cached tokens too"),
    ("openai", "gpt-5", use(M, 0, cache_read_tokens=M), {"tier": "priority"}, "0.25", "priority doubles them"),
    ("openai", "gpt-5.6-sol", use(300 * K), {"tier": "priority"}, "4.8", "16 in above 272k"),
    # --- OpenAI: by date
    ("openai", "o3", use(M), {"at": day("2025-06-09T23:59:59")}, "10", "10 in before 2025-06-10"),
    ("openai", "o3", use(M), {"at": day("2025-06-10T00:00")}, "2", "2 in from that day, UTC"),
    ("openai", "gpt-5.6-sol", use(M), {"at": day("2026-08-20T12:00")}, "10", "5, and 10 above 272k, until 2026-08-21"),
    # --- OpenAI: tools, audio, speech, images, fine-tunes
    ("openai", "gpt-5", use(1000, 0, web_searches=3), {}, "0.03125", "10 for 1k searches: 3 cents, and 0.00125"),
    ("openai", "gpt-5", use(0, 0, file_searches=4), {}, "0.01", "2.50 for 1k file searches"),
    (
        "openai",
        "gpt-4o-realtime-preview",
        use(1000, 500, input_audio_tokens=600, output_audio_tokens=400),
        {},
        "0.06",
        "400 text at 5, 600 audio at 40, 100 text out at 20, 400 audio out at 80: 0.002 + 0.024 + 0.002 + 0.032",
    ),
    (
        "openai",
        "gpt-4o-realtime-preview",
        use(1000, 0, input_audio_tokens=600, cache_read_tokens=300, cache_read_audio_tokens=200),
        {},
        "0.01825",
        "300 text 5, 100 cached text 2.50, 400 audio 40, 200 cached audio 2.50: 0.0015 + 0.00025 + 0.016 + 0.0005",
    ),
    ("openai", "whisper-1", TokenUsage(input_audio_seconds=60), {}, "0.006", "0.006 a minute"),
    ("openai", "whisper-1", TokenUsage(input_audio_seconds=7), {}, "0.0007", "0.0001 a second"),
    ("openai", "tts-1", TokenUsage(input_characters=2000), {}, "0.03", "15 for 1M characters"),
    ("openai", "gpt-image-1", use(500, 1000, input_image_tokens=300), {}, "0.044", "200 text 5, 300 image 10, out 40"),
    ("openai", "ft:gpt-4o-mini-2024-07-18:acme::a1b2", use(M, M), {}, "1.5", "fine-tuned: 0.30 in, 1.20 out"),
    ("openai", "ft:gpt-4.1-2025-04-14:acme::a1b2", use(M, M), {}, "15", "fine-tuned: 3 in, 12 out (litellm)"),
    # --- Anthropic
    ("anthropic", "claude-opus-4-5-20251101", use(10 * K, 1000), {}, "0.075", "5 in, 25 out: not opus 4"),
    ("anthropic", "claude-opus-4-1-20250805", use(10 * K, 1000), {}, "0.225", "15 in, 75 out"),
    ("anthropic", "claude-haiku-4-5-20251001", use(10 * K, 1000), {}, "0.015", "1 in, 5 out"),
    (
        "anthropic",
        "claude-haiku-4-5",
        use(150_045, 0, cache_read_tokens=100 * K, cache_write_tokens=50 * K),
        {},
        "0.072545",
        "45 at 1, 100k read at 0.10, 50k written for 5 minutes at 1.25: 0.000045 + 0.01 + 0.0625",
    ),
    (
        "anthropic",
        "claude-haiku-4-5",
        use(10 * K, 0, cache_write_tokens=10 * K, cache_write_1h_tokens=10 * K),
        {},
        "0.02",
        "written for an hour: 2",
    ),
    (
        "anthropic",
        "claude-haiku-4-5",
        use(10 * K, 0, cache_write_tokens=10 * K, cache_write_5m_tokens=4 * K, cache_write_1h_tokens=6 * K),
        {},
        "0.017",
        "4k for 5 minutes at 1.25, 6k for an hour at 2",
    ),
    ("anthropic", "claude-sonnet-4-5", use(200 * K, 1000), {}, "0.615", "3 and 15 up to 200k"),
    ("anthropic", "claude-sonnet-4-5", use(200_001, 1000), {}, "1.222506", "6 and 22.50 above"),
    ("anthropic", "claude-haiku-5-5", use(100 * K), {}, "0.01", "0.10 up to 100k"),
    ("anthropic", "claude-haiku-5-5", use(100_001), {}, "0.0500005", "0.50 above"),
    ("anthropic", "claude-opus-4-6", use(300 * K), {"at": day("2026-03-12T00:00")}, "3", "10 above 200k"),
    ("anthropic", "claude-opus-4-6", use(300 * K), {"at": day("2026-03-13T00:00")}, "1.5", "5 at any length"),
    ("anthropic", "claude-haiku-4-5", use(10 * K, 1000), {"batch": True}, "0.0075", "batch: half"),
    ("anthropic", "claude-haiku-4-5", use(0, 0, web_searches=7), {}, "0.07", "10 for 1k searches"),
    # --- Google
    ("gcp.gemini", "gemini-2.5-pro", use(200 * K, 1000), {}, "0.26", "1.25 in, 10 out"),
    ("gcp.gemini", "gemini-2.5-pro", use(200_001, 1000), {}, "0.5150025", "2.50 in, 15 out above 200k"),
    (
        "gcp.gemini",
        "gemini-2.5-flash",
        use(3000, 0, input_audio_tokens=1000, cache_read_tokens=1000, cache_read_audio_tokens=500),
        {},
        "0.001015",
        "1500 text 0.30, 500 cached 0.03, 500 audio 1, 500 cached audio 0.10: 0.00045 + 0.000015 + 0.0005 + 0.00005",
    ),
    ("gcp.vertex_ai", "claude-haiku-4-5@20251001", use(10 * K, 1000), {}, "0.015", "Vertex: 1 in, 5 out"),
    ("gcp.vertex_ai", "gemini-2.5-flash", use(M, 0), {"batch": True}, "0.15", "batch: half of 0.30"),
    ("gcp.gen_ai", "gemini-3-pro-preview", use(0, 0, web_searches=10), {}, "0.14", "14 for 1k searches"),
    ("google", "models/gemini-3.6-flash", use(M), {"at": day("2026-12-31T23:59")}, "0.75", "0.75 until the year ends"),
    ("google", "models/gemini-3.6-flash", use(M), {"at": day("2027-01-01T00:00")}, "1.5", "then 1.50"),
    # --- DeepSeek: by the hour, UTC
    ("deepseek", "deepseek-v4-pro", use(M, M), {"at": day("2026-11-22T00:59:59")}, "2.64", "off-peak: 0.66, 1.98"),
    ("deepseek", "deepseek-v4-pro", use(M, M), {"at": day("2026-11-22T01:00")}, "5.28", "peak from 01:00: 1.32, 3.96"),
    ("deepseek", "deepseek-v4-pro", use(M, M), {"at": day("2026-11-22T04:00")}, "2.64", "off-peak from 04:00"),
    (
        "deepseek",
        "deepseek-v4-pro",
        use(M, 0, cache_read_tokens=M),
        {"at": day("2026-11-22T07:00")},
        "0.044",
        "peak hit",
    ),
    # --- Bedrock, Azure
    (
        "aws.bedrock",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        use(10 * K, 1000),
        {},
        "0.0495",
        "regional profile: 3.30, 16.50",
    ),
    (
        "aws.bedrock",
        "arn:aws:bedrock:us-east-1:111122223333:inference-profile/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        use(10 * K, 1000),
        {},
        "0.045",
        "global profile: 3, 15",
    ),
    ("aws.bedrock", "amazon.nova-pro-v1:0", use(M, M, cache_read_tokens=M), {}, "3.4", "0.20 cached, 3.20 out"),
    ("aws.bedrock", "us.meta.llama3-3-70b-instruct-v1:0", use(M, M), {}, "1.44", "0.72 and 0.72"),
    ("azure.ai.openai", "gpt-4o-2024-08-06", use(1000, 100), {}, "0.0035", "as OpenAI"),
    ("azure.ai.inference", "o4-mini", use(M, M), {}, "5.5", "1.10, 4.40"),
    # --- others
    ("mistral_ai", "codestral-latest", use(M, M), {}, "1.2", "0.30, 0.90"),
    ("mistral_ai", "mistral-ocr-latest", TokenUsage(document_pages=10), {}, "0.04", "4 for 1k pages since 2026-06-23"),
    (
        "mistral_ai",
        "mistral-ocr-latest",
        TokenUsage(document_pages=10, annotated_document_pages=4),
        {},
        "0.044",
        "6 pages at 4 for 1k, 4 annotated at 5 for 1k",
    ),
    ("groq", "llama-3.3-70b-versatile", use(M, M), {}, "1.38", "0.59, 0.79"),
    ("groq", "whisper-large-v3", TokenUsage(input_audio_seconds=3600), {}, "0.111", "0.111 an hour"),
    (
        "groq",
        "whisper-large-v3",
        TokenUsage(input_audio_seconds=3),
        {},
        "0.000308334",
        "10 seconds at least, rounded up",
    ),
    ("x_ai", "grok-4", use(10 * K, 1000, cache_read_tokens=8000), {}, "0.027", "2k 3, 8k cached 0.75, out 15"),
    ("openrouter", "anthropic/claude-haiku-4.5", use(10 * K, 1000), {}, "0.015", "1, 5"),
    ("openrouter", "openai/gpt-4o", use(10 * K, 0, cache_read_tokens=10 * K), {}, "0.0125", "1.25 cached"),
    ("openrouter", "deepseek/deepseek-r1:free", use(M, M), {}, "0", "explicitly free"),
    ("perplexity", "sonar", use(1000, 1000), {}, "0.014", "1, 1, and 12 for 1k requests"),
    (
        "perplexity",
        "sonar-deep-research",
        use(1000, 10 * K, reasoning_tokens=8000, citation_tokens=1000, web_searches=2),
        {},
        "0.046",
        "2 in, 1k out 8, 8k reasoning 3, 1k citations 2, 5 for 1k searches: 0.002 + 0.008 + 0.024 + 0.002 + 0.01",
    ),
    ("cohere", "command-r-plus-08-2024", use(M, 100 * K), {}, "3.5", "2.50, 10"),
    ("cohere", "rerank-v3.5", TokenUsage(rerank_searches=1), {}, "0.002", "2 for 1k searches (litellm)"),
    ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", use(M, M), {}, "1.76", "0.88, 0.88"),
    ("moonshot_ai", "kimi-k2.5", use(M, 100 * K), {}, "0.9", "0.60, 3"),
    ("ibm.watsonx.ai", "ibm/granite-3-8b-instruct", use(M, M), {}, "0.4", "0.20, 0.20 (litellm)"),
]


def test_there_are_enough_rows() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}-{row[1][:30]}-{number}" for number, row in enumerate(ROWS)])
def test_row(row: Row) -> None:
    provider, model, usage, options, usd, words = row
    cost = BOOK.cost(provider, model, usage, **{"at": NOW, **options})
    assert cost.usd == Decimal(usd), (words, cost, dict(cost.breakdown))
    assert cost.state == ("free" if usd == "0" else "priced")
    assert cost.source == ("litellm" if "(litellm)" in words else "genai-prices")
    assert cost.source_version
    assert sum(cost.breakdown.values()) == cost.nano_usd


def test_the_parts_of_a_cost() -> None:
    usage = use(10 * K, 1000, cache_read_tokens=4 * K, cache_write_tokens=2 * K, reasoning_tokens=600, web_searches=1)
    cost = BOOK.cost("anthropic", "claude-haiku-4-5", usage, at=NOW)
    assert dict(cost.breakdown) == {
        "input": 4_000_000,
        "cache_read": 400_000,
        "cache_write": 2_500_000,
        "output": 2_000_000,
        "reasoning": 3_000_000,
        "web_searches": 10_000_000,
    }
