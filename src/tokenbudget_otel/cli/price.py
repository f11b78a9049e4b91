"""`tokenbudget price`: what a call would cost."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tokenbudget_otel.cli.options import moment, price_file

if TYPE_CHECKING:
    from tokenbudget_otel.pricing import Cost, PriceBook
    from tokenbudget_otel.usage import TokenUsage

_STATES: Final = {
    "priced": "priced",
    "free": "free: the model is explicitly free",
    "partial": "partial: what is listed as unpriced is not in the cost",
    "stale": "stale: the prices were read long ago; update tokenbudget-otel",
    "unknown": "unknown",
}


@click.command("price", short_help="What a call would cost.")
@click.argument("model")
@click.option("--input", "input_tokens", type=click.IntRange(min=0), metavar="N", help="Input tokens, cached included.")
@click.option("--output", "output_tokens", type=click.IntRange(min=0), metavar="N", help="Output, reasoning included.")
@click.option(
    "--cached", "cache_read_tokens", type=click.IntRange(min=0), metavar="N", help="Of the input: read from a cache."
)
@click.option(
    "--cache-write",
    "cache_write_tokens",
    type=click.IntRange(min=0),
    metavar="N",
    help="Of the input: written to a cache.",
)
@click.option(
    "--reasoning", "reasoning_tokens", type=click.IntRange(min=0), metavar="N", help="Of the output: reasoning."
)
@click.option("--provider", help="Who serves it (openai, azure.ai.openai, aws.bedrock ...); else the model's vendor.")
@click.option("--tier", help="The service tier: flex, priority ...")
@click.option("--batch", is_flag=True, help="As part of a batch.")
@click.option("--at", type=moment, metavar="TIME", help="When it is sent: 2026-11-01T12:00Z. Now by default.")
@price_file
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: str,
    provider: str | None,
    tier: str | None,
    batch: bool,
    at: float | None,
    price_files: tuple[Path, ...],  # noqa: ARG001 - read when they were checked
    as_json: bool,
    **counts: int | None,
) -> None:
    """What a call of MODEL with so many tokens costs, and how that is known.

    Exits with 1 if the price is not known.

    \b
      tokenbudget price gpt-5 --input 12000 --cached 8000 --output 900
    """
    from tokenbudget_otel.pricing import price_book
    from tokenbudget_otel.usage import TokenUsage

    if counts["input_tokens"] is None and counts["output_tokens"] is None:
        # Still useful: whether there is a price at all.
        counts |= {"input_tokens": 0, "output_tokens": 0}
    usage = TokenUsage(**counts)
    if problems := usage.problems():
        raise click.UsageError(f"these counts contradict each other: {'; '.join(problems)}")
    book = price_book()
    cost = book.cost(provider, model, usage, at=at, tier=tier, batch=batch)
    near = nearest(book, model) if cost.provider is None else []
    if as_json:
        click.echo(json.dumps(_plain(model, provider, usage, cost, near), indent=2))
    elif cost.nano_usd is None:
        click.echo(unknown(model, provider, cost, near), err=True)
    else:
        _show(cost)
    sys.exit(1 if cost.nano_usd is None else 0)


def _show(cost: Cost) -> None:
    from tokenbudget_otel.money import format_usd

    lines = [("cost", format_usd(cost.nano_usd))]
    lines += [(f"  {part}", format_usd(nano_usd)) for part, nano_usd in reversed(list(cost.breakdown.items()))]
    lines += [("priced as", f"{cost.provider} {cost.model}{f' ({cost.tier})' if cost.tier else ''}")]
    lines += [("state", _STATES[cost.state])]
    lines += [("unpriced", ", ".join(cost.unpriced))] if cost.unpriced else []
    lines += [("source", " ".join(filter(None, (cost.source, cost.source_version))))]
    width = max(len(name) for name, _ in lines)
    click.echo("\n".join(f"{name:<{width}}  {text}" for name, text in lines))


def unknown(model: str, provider: str | None, cost: Cost | None, near: list[tuple[str, str]]) -> str:
    """What to tell of a model without a price."""
    of = f" of {provider}" if provider else ""
    what = f": it has no price for {', '.join(cost.unpriced)}" if cost is not None and cost.unpriced else ""
    text = f"The price of {model!r}{of} is unknown{what}."
    if near:
        text += "\nNear names: " + ", ".join(f"{name} ({of})" for of, name in near)
    owner = f', provider="{provider}"' if provider else ""
    return text + (
        "\nSet a price in the program:\n"
        f'  tokenbudget_otel.register_model("{model}", input_per_1m=..., output_per_1m=...{owner})\n'
        "or in a file for --price-file:\n"
        "  [[model]]\n"
        f'  model = "{model}"\n'
        + (f'  provider = "{provider}"\n' if provider else "")
        + "  input_per_1m = 1.25    # US dollars, yours\n"
        "  output_per_1m = 10.00"
    )


def nearest(book: PriceBook, model: str, most: int = 5) -> list[tuple[str, str]]:
    """Known models with names like this one, as (provider, model): the likeliest first."""
    sellers: dict[str, str] = {}
    for provider in book.providers():
        for name in book.models(provider):
            sellers.setdefault(name.rpartition("/")[2].lower(), provider)
    wanted = model.rpartition("/")[2].lower()
    found = []
    for name in difflib.get_close_matches(wanted, sellers, most, 0.7):
        vendor = book.explain(None, name)  # many resell the same model
        found.append((sellers[name] if vendor is None else vendor.provider, name))
    return found


def _plain(
    model: str, provider: str | None, usage: TokenUsage, cost: Cost, near: list[tuple[str, str]]
) -> dict[str, Any]:
    from tokenbudget_otel.money import to_usd

    return {
        "model": model,
        "provider": provider,
        "usage": usage.counts(),
        "cost_usd": None if cost.usd is None else f"{cost.usd:f}",
        "state": cost.state,
        "breakdown_usd": {part: f"{to_usd(nano_usd):f}" for part, nano_usd in cost.breakdown.items()},
        "unpriced": list(cost.unpriced),
        "priced_as": None if cost.provider is None else {"provider": cost.provider, "model": cost.model},
        "tier": cost.tier,
        "source": cost.source,
        "source_version": cost.source_version,
        "near": [{"provider": of, "model": name} for of, name in near],
    }
