"""`tokenbudget spool`: what waits to be delivered on this machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from tokenbudget_otel.cli.spool_clear import clear
from tokenbudget_otel.cli.spool_export import export
from tokenbudget_otel.cli.spool_replay import replay
from tokenbudget_otel.cli.spool_source import Waiting, folder_option, open_folder, spans_of, waiting


@click.group("spool", invoke_without_command=True, short_help="What waits to be delivered, on this machine.")
@folder_option
@click.pass_context
def command(ctx: click.Context, folder: Path | None) -> None:
    """Requests to OTLP receivers that could not be delivered yet: list, replay, export and clear them.

    \b
      tokenbudget spool
      tokenbudget spool replay
      tokenbudget spool export waiting.jsonl
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, folder=folder, as_json=False)


@command.command("list")
@folder_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(ctx: click.Context, folder: Path | None, as_json: bool) -> None:
    """What waits for which receiver, since when, and what has become of the rest."""
    found = open_folder(ctx, folder)
    rows = waiting(found)
    tally = found.tally.read()
    if as_json:
        click.echo(
            json.dumps(
                {
                    "folder": str(found.root),
                    "max_bytes": found.max_bytes,
                    "destinations": [_plain(row) for row in rows],
                    "total": {name: number for name, number in tally.items() if name not in ("bytes", "files")},
                },
                indent=2,
            )
        )
        return
    if rows:
        _show(rows)
    if not any(row.files for row in rows):
        click.echo(f"Nothing waits in {found.root}.")
    _say_tally(tally)


def _show(rows: list[Waiting]) -> None:
    from tokenbudget_otel.cli.budgets_table import empty_table
    from tokenbudget_otel.cli.budgets_words import away
    from tokenbudget_otel.cli.tables import console

    now = time.time()
    table = empty_table("destination", "to", "waiting", "files", "bytes", "oldest", "refused", "damaged")
    for row in rows:
        oldest = "-" if row.oldest is None else away(row.oldest - now)
        numbers = (row.items, row.files, row.bytes)
        table.add_row(
            row.name, row.url, *(f"{number:,}" for number in numbers), oldest, f"{row.refused:,}", f"{row.damaged:,}"
        )
    console().print(table)


def _say_tally(tally: dict[str, int]) -> None:
    dropped = ", ".join(
        f"{number:,} {name.removeprefix('dropped.').replace('_', ' ')}"
        for name, number in tally.items()
        if name.startswith("dropped.") and number
    )
    accepted = spans_of(tally["accepted"])
    click.echo(f"So far: {accepted} accepted, {tally['delivered']:,} delivered, dropped: {dropped or 'none'}.")


def _plain(row: Waiting) -> dict[str, Any]:
    from datetime import UTC

    from tokenbudget_otel.cli.budgets_words import iso

    return {
        "destination": row.name,
        "url": row.url,
        "files": row.files,
        "spans": row.items,
        "bytes": row.bytes,
        "oldest": iso(row.oldest, UTC),
        "refused": row.refused,
        "damaged": row.damaged,
    }


for each in (replay, export, clear):
    command.add_command(each)
