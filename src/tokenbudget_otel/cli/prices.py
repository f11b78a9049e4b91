"""`tokenbudget prices`: the known prices, and where each comes from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tokenbudget_otel.cli.options import price_file

if TYPE_CHECKING:
    from tokenbudget_otel.pricing import Explanation, PriceBook

_SHOWN: Final = {"input": "input_tokens", "cached": "cache_read_tokens", "output": "output_tokens"}
"""Columns of the list, and what they show the standard price of."""


@click.group("prices", invoke_without_command=True, short_help="List the known prices.")
@click.option("--provider", help="Only those of this provider.")
@click.option("--search", metavar="TEXT", help="Only those with all of these words in their name.")
@price_file
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    provider: str | None,
    search: str | None,
    price_files: tuple[Path, ...],  # noqa: ARG001 - read when they were checked
    as_json: bool,
) -> None:
    """List the known prices, in US dollars for a million tokens.

    \b
      tokenbudget prices --provider anthropic
      tokenbudget prices --search "gpt-5 mini"
      tokenbudget prices show gpt-5
    """
    if ctx.invoked_subcommand is not None:
        return
    from tokenbudget_otel.pricing import price_book

    book = price_book()
    words = search or ""
    found = book.search(words) if provider is None else _of(book, provider, words)
    if not found:
        click.echo("No model with such a name is known.", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps([_entry(book, *each) for each in found], indent=2))
    else:
        _list(book, found)


@command.command("show")
@click.argument("model")
@click.option("--provider", help="Who serves it; else the model's vendor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(model: str, provider: str | None, as_json: bool) -> None:
    """Every price of MODEL, and where it comes from."""
    from tokenbudget_otel.cli.price import nearest, unknown
    from tokenbudget_otel.pricing import price_book

    book = price_book()
    found = book.explain(provider, model)
    if found is None:
        click.echo(unknown(model, provider, None, nearest(book, model)), err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(_explained(found), indent=2))
    else:
        _show(found)


def _of(book: PriceBook, provider: str, words: str) -> list[tuple[str, str]]:
    names = book.models(provider)
    if not names:
        raise click.ClickException(f"no prices of {provider!r} are known; known are {', '.join(book.providers())}")
    listed = book.explain(provider, names[0])
    of = provider if listed is None else listed.provider
    return [(of, name) for name in names if all(word in f"{of} {name}".lower() for word in words.lower().split())]


def _list(book: PriceBook, found: list[tuple[str, str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from tokenbudget_otel.cli.tables import console

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("provider", overflow="fold")
    table.add_column("model", overflow="fold")
    for name in _SHOWN:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True)
    for of, name in found:
        entry = _entry(book, of, name)
        rates = (entry["usd_per_1m"].get(column) for column in _SHOWN)
        note = "free" if entry["state"] == "free" else "-"
        table.add_row(of, name, *(note if rate is None else rate for rate in rates), entry["source"] or "")
    out = console()
    out.print(table)
    sources = ", ".join(f"{source.name} {source.version} of {source.date}" for source in book.sources)
    out.print(f"{len(found)} models. US dollars for a million tokens, at the standard tier and for short prompts.")
    out.print(f"Sources: {sources}. `tokenbudget prices show MODEL` shows all prices of a model.")


def _entry(book: PriceBook, provider: str, model: str) -> dict[str, Any]:
    found = book.explain(provider, model)
    if found is None:
        return {"provider": provider, "model": model, "state": "unknown", "usd_per_1m": {}, "source": None}
    standard = {line.unit: line.usd for line in reversed(found.prices) if line.when == "" and line.above == 0}
    return {
        "provider": provider,
        "model": model,
        "state": found.state,
        "usd_per_1m": {column: standard[unit] for column, unit in _SHOWN.items() if unit in standard},
        "source": found.source.name,
    }


def _show(found: Explanation) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from tokenbudget_otel.cli.tables import console, count

    out = console()
    listed = f", listed as {found.listed_as}" if found.listed_as != found.model.lower() else ""
    out.print(f"{found.provider} {found.model}{listed}")
    source = found.source
    read = f", read on {source.date}" if source.date else ""
    out.print(f"state    {found.state}")
    out.print(f"source   {' '.join(filter(None, (source.name, source.version)))}{read}")
    if found.other is not None:
        out.print(
            f"also in  {found.other.name} {found.other.version or ''}, which prices it otherwise or in more tiers"
        )
    out.print(f"tiers    {', '.join(('standard', *found.tiers))}")
    out.print(f"context  {count(found.limits.context_window)} tokens, output {count(found.limits.max_output_tokens)}")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, right in (("when", False), ("prompt above", True), ("what", False), ("USD", True), ("per", True)):
        table.add_column(name, justify="right" if right else "left")
    for line in found.prices:
        above = f"{line.above:,} tokens" if line.above else ""
        table.add_row(line.when or "always", above, line.unit, line.usd, f"{line.per:,}")
    out.print(table)


def _explained(found: Explanation) -> dict[str, Any]:
    plain = found._asdict()
    plain["source"] = found.source._asdict()
    plain["other"] = None if found.other is None else found.other._asdict()
    plain["limits"] = found.limits._asdict()
    plain["prices"] = [line._asdict() for line in found.prices]
    return plain
