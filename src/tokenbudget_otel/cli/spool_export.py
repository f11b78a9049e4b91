"""`tokenbudget spool export`: copy what waits to files that other programs read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenbudget_otel.cli.spool_source import destination_option, folder_option, open_folder, spans_of, waiting

if TYPE_CHECKING:
    from tokenbudget_otel.export.entry import Entry
    from tokenbudget_otel.export.folder import Folder


@click.command("export", short_help="Copy what waits, as OTLP/JSON lines or protobuf files.")
@folder_option
@destination_option
@click.option("--refused", is_flag=True, help="Also what receivers have refused.")
@click.argument("out", metavar="FILE|FOLDER|-")
@click.pass_context
def export(ctx: click.Context, folder: Path | None, destination: str | None, refused: bool, out: str) -> None:
    """Copy what waits; it stays in the spool.

    To a file, or - for the standard output: one request in OTLP/JSON a line, as the Collector's file exporter writes
    and its otlpjsonfile receiver reads them. To a folder (that exists, or ends in /): each request as an .otlp file of
    OTLP protobuf, which any receiver takes: curl --data-binary @FILE -H content-type:application/x-protobuf URL
    """
    found = open_folder(ctx, folder)
    places = {row.place: row.url for row in waiting(found, destination)}
    chosen = list(_chosen(found, places, refused))
    try:
        if out == "-":
            for line in _lines(found, chosen, places):
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        elif out.endswith("/") or Path(out).is_dir():
            _copy(chosen, Path(out))
        else:
            with Path(out).open("wb") as file:
                file.writelines(_lines(found, chosen, places))
    except OSError as error:
        raise click.ClickException(f"{out!r} cannot be written: {error.strerror}") from None
    total = sum(entry.items for _, _, entry in chosen)
    click.echo(f"{spans_of(total)} in {len(chosen):,} requests exported to {out}", err=True)


def _chosen(folder: Folder, places: dict[Path, str], refused: bool) -> Iterator[tuple[Path, str, Entry]]:
    from tokenbudget_otel.export.folder import REFUSED, WAITING

    wanted = (WAITING, REFUSED) if refused else (WAITING,)
    found = sorted((entry, place, where) for place, where, entry, _ in folder.files())
    for entry, place, where in found:
        if place in places and where in wanted:
            yield place, where, entry


def _copy(chosen: list[tuple[Path, str, Entry]], out: Path) -> None:
    for place, where, entry in chosen:
        to = out / place.name / where
        to.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            shutil.copyfile(place / where / entry.name, to / entry.name)
        except FileNotFoundError:
            pass  # delivered in the meantime


def _lines(folder: Folder, chosen: list[tuple[Path, str, Entry]], places: dict[Path, str]) -> Iterator[bytes]:
    from tokenbudget_otel.export.otlp_json import otlp_as_json, signal_of

    for place, where, entry in chosen:
        try:
            body = folder.read(place / where, entry)
        except FileNotFoundError:
            continue
        try:
            yield otlp_as_json(body, signal_of(places[place])) + b"\n"
        except ValueError as error:
            click.echo(f"note: {entry.name} is left out: {error}", err=True)
