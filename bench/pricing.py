"""How fast prices are: ours beside genai-prices, in one run. ``python bench/pricing.py``

Every figure is the best of several rounds; cold figures are the median of fresh interpreters.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tokenbudget_otel.pricing import PriceBook, catalog, price_book
from tokenbudget_otel.usage import TokenUsage

AT = 1_790_000_000.0

COLD = {
    "import tokenbudget_otel.pricing": "import tokenbudget_otel.usage, time; t = time.perf_counter();"
    "import tokenbudget_otel.pricing; print(time.perf_counter() - t)",
    "load the catalog": "import tokenbudget_otel.pricing.catalog as c, time; t = time.perf_counter(); c.load();"
    "print(time.perf_counter() - t)",
    "first price, catalog and all": "import time; from tokenbudget_otel.usage import TokenUsage;"
    "from tokenbudget_otel.pricing import price_book; u = TokenUsage(input_tokens=1, output_tokens=1);"
    "t = time.perf_counter(); price_book().cost('openai', 'gpt-5', u); print(time.perf_counter() - t)",
    "genai-prices: import": "import time; t = time.perf_counter(); import genai_prices; print(time.perf_counter() - t)",
    "genai-prices: first price": "import time, genai_prices as g; u = g.Usage(input_tokens=1, output_tokens=1);"
    "t = time.perf_counter(); g.calc_price(u, 'gpt-5', provider_id='openai'); print(time.perf_counter() - t)",
}

CALLS = {
    "gpt-4o, in and out": ("openai", "gpt-4o", TokenUsage(input_tokens=1000, output_tokens=100)),
    "gpt-5.6-sol, cached, reasoning, dated and tiered": (
        "openai",
        "gpt-5.6-sol",
        TokenUsage(input_tokens=300_000, output_tokens=900, cache_read_tokens=200_000, reasoning_tokens=700),
    ),
    "claude-haiku-4-5, cache read and 1h writes": (
        "anthropic",
        "claude-haiku-4-5-20251001",
        TokenUsage(
            input_tokens=30_000,
            output_tokens=900,
            cache_read_tokens=20_000,
            cache_write_tokens=5000,
            cache_write_1h_tokens=5000,
        ),
    ),
    "deepseek-v4-pro, by the hour of the day": (
        "deepseek",
        "deepseek-v4-pro",
        TokenUsage(input_tokens=30_000, output_tokens=900, cache_read_tokens=20_000),
    ),
    "gemini-2.5-flash, audio cached": (
        "google",
        "gemini-2.5-flash",
        TokenUsage(
            input_tokens=30_000,
            output_tokens=900,
            cache_read_tokens=2000,
            input_audio_tokens=500,
            cache_read_audio_tokens=100,
        ),
    ),
}
GENAI_NAMES = {"reasoning_tokens": "output_reasoning_tokens", "cache_read_audio_tokens": "cache_audio_read_tokens"}


def best(call: Callable[[], object], number: int, rounds: int = 7) -> float:
    """Seconds for one call, in the best of some rounds."""
    found = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(number):
            call()
        found = min(found, (time.perf_counter() - start) / number)
    return found


def cold(code: str) -> float:
    runs = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(7)]
    return statistics.median(runs)


def main() -> None:
    print("cold, each in a fresh interpreter")
    for name, code in COLD.items():
        print(f"  {name:<52}{cold(code) * 1e3:9.1f} ms")
    raw = catalog.load()
    rows = sum(len(provider.models) for provider in raw.providers.values())
    extra = sum(len(provider.extra) for provider in raw.providers.values())
    print(f"  rows: {rows} from genai-prices, {extra} from litellm, {len(raw.providers)} providers\n")

    import genai_prices

    book = price_book()
    print(f"{'warm, one call':<54}{'ours':>10}{'genai-prices':>14}{'ratio':>8}")
    when = datetime.fromtimestamp(AT, UTC)
    for name, (provider, model, usage) in CALLS.items():
        theirs = genai_prices.Usage(**{GENAI_NAMES.get(key, key): value for key, value in usage.counts().items()})
        ours_s = best(lambda p=provider, m=model, u=usage: book.cost(p, m, u, at=AT), 20_000)
        theirs_s = best(
            lambda p=provider, m=model, u=theirs: genai_prices.calc_price(
                u, m, provider_id=p, genai_request_timestamp=when
            ),
            500,
        )
        print(f"  {name:<52}{ours_s * 1e6:8.2f} µs{theirs_s * 1e6:11.1f} µs{theirs_s / ours_s:7.0f}x")

    usage = TokenUsage(input_tokens=1000, output_tokens=100)
    many = {"input_tokens": 10_000, "output_tokens": 1000}
    print("\nwarm, ours alone")
    for name, call in {
        "cost with breakdown": lambda: book.cost("openai", "gpt-4o", usage, at=AT).breakdown,
        "cost of an unknown model": lambda: book.cost("openai", "no-such-model", usage, at=AT),
        "expected": lambda: book.expected("openai", "gpt-4o", at=AT, **many),
        "bound": lambda: book.bound("openai", "gpt-4o", at=AT, **many),
        "bound, an hour ahead, every tier": lambda: book.bound(
            "openai", "gpt-5.6-sol", at=AT, horizon_s=3600, tier="auto", **many
        ),
    }.items():
        print(f"  {name:<52}{best(call, 5000) * 1e6:8.2f} µs")
    start = time.perf_counter()
    PriceBook().cost("openai", "gpt-5", usage, at=AT)
    print(f"  {'first cost of a model, catalog loaded':<52}{(time.perf_counter() - start) * 1e6:8.2f} µs")


if __name__ == "__main__":
    main()
