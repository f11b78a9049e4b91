"""`tokenbudget spool replay`: deliver now."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from tokenbudget_otel.cli.spool_source import (
    Waiting,
    destination_option,
    folder_option,
    open_folder,
    spans_of,
    waiting,
)

if TYPE_CHECKING:
    from tokenbudget_otel.export.folder import Folder


def header(value: str) -> tuple[str, str]:
    """A header as ``name=value``, as OTEL_EXPORTER_OTLP_HEADERS has them.

    >>> header("x-key=abc=")
    ('x-key', 'abc=')
    """
    name, equals, text = value.partition("=")
    if not equals or not name.strip() or "\n" in value or "\r" in value:
        raise click.BadParameter(f"{value!r} is not of the form name=value")
    return name.strip(), text.strip()


def http_url(value: str) -> str:
    """An address of a receiver.

    >>> http_url("http://collector:4318/v1/traces")
    'http://collector:4318/v1/traces'
    """
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise click.BadParameter(f"{value!r} is not a URL such as http://collector:4318/v1/traces")
    return value


@click.command("replay", short_help="Deliver what waits, now.")
@folder_option
@destination_option
@click.option("--refused", is_flag=True, help="Also what receivers have refused: it waits again.")
@click.option("--to", type=http_url, metavar="URL", help="Another receiver; else the one that it was meant for.")
@click.option("--header", "headers", type=header, multiple=True, metavar="NAME=VALUE", help="A header to send.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=10.0, help="Seconds for each request (10).")
@click.pass_context
def replay(
    ctx: click.Context,
    folder: Path | None,
    destination: str | None,
    refused: bool,
    to: str | None,
    headers: tuple[tuple[str, str], ...],
    timeout: float,
) -> None:
    """Deliver what waits now, oldest first, until it is delivered or a receiver does not take it.

    Headers are those of OTEL_EXPORTER_OTLP_HEADERS (or _TRACES_HEADERS ...) for the host that
    OTEL_EXPORTER_OTLP_ENDPOINT names, and TOKENBUDGET_API_KEY for that of TOKENBUDGET_ENDPOINT; keys go to no other
    host. Ends with 1 if something still waits, or was refused.

    \b
      tokenbudget spool replay --refused --header "authorization=Bearer new-key"
      tokenbudget spool replay --to http://other:4318/v1/traces
    """
    found = open_folder(ctx, folder)
    logging.getLogger("tokenbudget_otel.export").addHandler(logging.NullHandler())
    rows = waiting(found, destination)
    if refused:
        for row in rows:
            _take_back(found, row)
        rows = waiting(found, destination)
    rows = [row for row in rows if row.files]
    if not rows:
        click.echo(f"Nothing waits in {found.root}.")
        return
    complete = [_replayed(found, row, to or row.url, dict(headers), timeout) for row in rows]
    if not all(complete):
        sys.exit(1)


def _take_back(folder: Folder, row: Waiting) -> None:
    from tokenbudget_otel.export.folder import REFUSED

    for place, where, entry, _ in list(folder.files()):
        if place == row.place and where == REFUSED:
            folder.take_back(place, entry)


def _replayed(folder: Folder, row: Waiting, url: str, headers: dict[str, str], timeout: float) -> bool:
    import requests

    from tokenbudget_otel.export.courier import Courier
    from tokenbudget_otel.export.json_fallback import JsonFallback
    from tokenbudget_otel.export.memory_queue import MemoryQueue
    from tokenbudget_otel.export.waits import Waits
    from tokenbudget_otel.export.wire import HttpWire, Wire

    if urlsplit(url).scheme not in ("http", "https"):
        click.echo(f"{row.url}: give --to with the URL of an OTLP/HTTP receiver", err=True)
        return False
    http = HttpWire(requests.Session(), url, {**headers_of_environment(url), **headers}, timeout, "gzip")
    wire: Wire = JsonFallback(http) if urlsplit(url).path.rstrip("/").endswith("/v1/traces") else http
    before = dict(folder.counts)
    courier = Courier(folder, row.place, MemoryQueue(), wire, url, Waits())
    if not courier.deliver_now():
        click.echo(f"{url}: another process is delivering; nothing to do here")
        return True
    done = {name: number - before.get(name, 0) for name, number in folder.counts.items()}
    left = sum(entry.items for entry in folder.waiting(row.place))
    said = [f"{spans_of(done.get('delivered', 0))} delivered"]
    said += [f"{number:,} {name.replace('dropped.', 'dropped, ').replace('_', ' ')}"
             for name, number in done.items() if name != "delivered" and number]  # fmt: skip
    if left:
        said.append(f"{left:,} still waiting ({courier.failure or 'being sent again later'})")
    click.echo(f"{url}: {', '.join(said)}")
    return not left and not done.get("refused")


def headers_of_environment(url: str) -> dict[str, str]:
    """The headers that the environment has for the host of a URL."""
    from opentelemetry.util.re import parse_env_headers

    host = urlsplit(url).netloc.rpartition("@")[2]
    found: dict[str, str] = {}
    signal = next((name for name in ("TRACES", "METRICS", "LOGS") if url.rstrip("/").endswith(name.lower())), "TRACES")
    general, special = "OTEL_EXPORTER_OTLP_", f"OTEL_EXPORTER_OTLP_{signal}_"
    endpoint = os.environ.get(f"{special}ENDPOINT") or os.environ.get(f"{general}ENDPOINT") or "http://localhost:4318"
    if urlsplit(endpoint).netloc.rpartition("@")[2] == host:
        text = os.environ.get(f"{special}HEADERS") or os.environ.get(f"{general}HEADERS") or ""
        found.update(parse_env_headers(text, liberal=True))
    key = os.environ.get("TOKENBUDGET_API_KEY", "").strip()
    if key and urlsplit(os.environ.get("TOKENBUDGET_ENDPOINT", "")).netloc.rpartition("@")[2] == host:
        found.update({"authorization": f"Bearer {key}", "x-tokenbudget-key": key})
    return found
