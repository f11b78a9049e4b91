"""`tokenbudget spool clear`: delete what waits."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

import click

from tokenbudget_otel.cli.spool_source import destination_option, folder_option, open_folder, spans_of, waiting

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def duration(value: str) -> float:
    """A time as a number and a unit, in seconds.

    >>> duration("90m"), duration("7d")
    (5400.0, 604800.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is not a time such as 90m, 12h or 7d")
    return float(found[1]) * _SECONDS[found[2]]


@click.command("clear", short_help="Delete what waits.")
@folder_option
@destination_option
@click.option("--refused-only", is_flag=True, help="Only what was set aside as refused or damaged.")
@click.option("--older-than", type=duration, metavar="TIME", help="Only what was handed over before: 90m, 12h, 7d ...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def clear(
    ctx: click.Context,
    folder: Path | None,
    destination: str | None,
    refused_only: bool,
    older_than: float | None,
    yes: bool,
) -> None:
    """Delete what waits and what was set aside. It is counted as dropped, and cannot be had back.

    \b
      tokenbudget spool clear --refused-only
      tokenbudget spool clear --older-than 7d --yes
    """
    from tokenbudget_otel.export.folder import File

    found = open_folder(ctx, folder)
    places = {row.place for row in waiting(found, destination)}
    before = (time.time() - (older_than or 0.0)) * 1e9
    files = [
        File(0, entry, place / where / entry.name, size)
        for place, where, entry, size in found.files()
        if place in places and (where or not refused_only) and (older_than is None or entry.time_ns < before)
    ]
    if not files:
        click.echo("There is nothing of that to delete.")
        return
    size = sum(file.size for file in files)
    items = sum(file.entry.items for file in files)
    if not yes:
        click.confirm(f"Delete {spans_of(items)} in {len(files):,} requests ({size:,} bytes)?", abort=True)
    gone = sum(file.entry.items for file in files if found.clear(file))
    click.echo(f"Deleted {spans_of(gone)}.")
