"""Where `tokenbudget spool` looks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from tokenbudget_otel.export.folder import Folder

folder_option: Final = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The spool; else TOKENBUDGET_SPOOL, or the one of this user.",
)
destination_option: Final = click.option(
    "--destination", metavar="NAME", help="Only this destination: its name, or a part of its name or URL."
)


@dataclass
class Waiting:
    """What one destination's folder holds.

    Attributes:
        name, place: of the folder.
        url: where it goes.
        files, items, bytes: what waits.
        oldest: when the oldest of it was handed over, in seconds since 1970; None if nothing waits.
        refused, damaged: items that were set aside.
    """

    name: str
    place: Path
    url: str
    files: int = 0
    items: int = 0
    bytes: int = 0
    oldest: float | None = None
    refused: int = 0
    damaged: int = 0


def open_folder(ctx: click.Context, folder: Path | None) -> Folder:
    """The spool that the command line or the environment names.

    Raises:
        click.ClickException: if there is none, or it cannot be used.
    """
    from tokenbudget_otel.export.folder import Folder
    from tokenbudget_otel.export.place import checked_max_bytes, default_folder, made_ready
    from tokenbudget_otel.export.spool_error import SpoolError

    given = folder or (ctx.parent.params.get("folder") if ctx.parent else None) or default_folder()
    if not given.exists():
        raise click.ClickException(
            f"there is no spool {str(given)!r}: nothing was exported through one by this user. "
            "Say where it is with --folder or TOKENBUDGET_SPOOL"
        )
    try:
        return Folder(made_ready(given), checked_max_bytes())
    except SpoolError as error:
        raise click.ClickException(str(error)) from None


def waiting(folder: Folder, destination: str | None = None) -> list[Waiting]:
    """What each destination holds.

    Raises:
        click.UsageError: if one is asked for that there is not.
    """
    rows = {place: Waiting(place.name, place, _url(place)) for place in folder.destinations()}
    for place, where, entry, size in folder.files():
        if where:
            setattr(rows[place], where, getattr(rows[place], where) + entry.items)
            continue
        row = rows[place]
        row.files += 1
        row.items += entry.items
        row.bytes += size
        seconds = entry.time_ns / 1e9
        row.oldest = seconds if row.oldest is None else min(row.oldest, seconds)
    if destination is None:
        return list(rows.values())
    found = [row for row in rows.values() if row.name == destination] or [
        row for row in rows.values() if destination in row.name or destination in row.url
    ]
    if not found:
        known = ", ".join(row.name for row in rows.values()) or "none"
        raise click.UsageError(f"there is no destination {destination!r} in {folder.root}; known: {known}")
    return found


def _url(place: Path) -> str:
    try:
        return str(json.loads((place / "destination.json").read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def spans_of(number: int) -> str:
    """A number of spans; of other signals it is metrics and log records that are counted.

    >>> spans_of(1), spans_of(1200)
    ('1 span', '1,200 spans')
    """
    return f"{number:,} span{'' if number == 1 else 's'}"
