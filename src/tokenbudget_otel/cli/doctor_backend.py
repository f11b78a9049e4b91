"""The part of `tokenbudget doctor` that is about the TokenBudget backend, and the spool before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from tokenbudget_otel.cli.doctor_reach import reach
from tokenbudget_otel.cli.findings import Finding, version_of
from tokenbudget_otel.export.backend_options import (
    ALL_SPANS,
    API_KEY,
    COMPRESSION,
    ENDPOINT,
    TIMEOUT,
    backend_options,
    checked_compression,
    checked_endpoint,
    checked_flag,
    checked_key,
    checked_timeout,
    is_loopback,
    shown_key,
)
from tokenbudget_otel.export.destination_name import public_url
from tokenbudget_otel.export.place import MAX_BYTES_VARIABLE, VARIABLE, checked_max_bytes

VARIABLES: Final[Mapping[str, Callable[[str], object]]] = {
    **{
        name: partial(lambda name, check, value: check(name, value) if value.strip() else None, name, check)
        for name, check in {
            ENDPOINT: checked_endpoint,
            API_KEY: checked_key,
            COMPRESSION: checked_compression,
            TIMEOUT: checked_timeout,
            ALL_SPANS: checked_flag,
        }.items()
    },
    VARIABLE: str,
    MAX_BYTES_VARIABLE: lambda _: checked_max_bytes(),  # which reads it, and names it
}
"""Environment variables of the backend's exporter and the spool, and what checks each. Their errors name them, and
nothing that is secret."""

_TRACES: Final = "OTEL_TRACES_EXPORTER"
_OURS: Final = frozenset(("tokenbudget", "otlp_spooled"))


def shown(name: str, value: str) -> str:
    """The value of a variable, without what is secret in it."""
    if name == API_KEY:
        return shown_key(value)
    return public_url(value) if name == ENDPOINT else value


def backend() -> Iterator[Finding]:
    """Where spans for the TokenBudget backend go, and whether they would get there."""
    exporters = {name.strip() for name in os.environ.get(_TRACES, "").split(",")}
    if "tokenbudget" in exporters or os.environ.get(ENDPOINT, "").strip():
        yield from _endpoint("tokenbudget" in exporters)
    if exporters & _OURS or os.environ.get(ENDPOINT, "").strip() or os.environ.get(VARIABLE, "").strip():
        yield _spool()


def _endpoint(exported: bool) -> Iterator[Finding]:
    try:
        options = backend_options()
    except ValueError as error:
        yield Finding("attention", "backend", f"nothing is sent to it: {error}")
        return
    yield reach("backend", public_url(options.url))
    if options.api_key is not None:
        yield Finding("ok", "backend key", shown_key(options.api_key))
        if options.url.startswith("http:") and not is_loopback(options.url):
            yield Finding("note", "backend key", "travels unencrypted", f"set an https URL as {ENDPOINT}")
    elif options.lacks_key:
        yield Finding("attention", "backend key", "is not set; the backend will ask for one", f"set {API_KEY}")
    else:
        yield Finding("note", "backend key", f"{API_KEY} is not set")
    if not exported and not os.environ.get("OTEL_CONFIG_FILE"):
        named = os.environ.get(_TRACES, "").strip()
        yield Finding(
            "note",
            "backend exporter",
            f"`tokenbudget run` leaves exporters as {_TRACES}={named} has them, and does not send spans there" if named
            else "`tokenbudget run` sends spans there; opentelemetry-instrument does not",
            f"set {_TRACES}={named if named and named != 'none' else 'otlp'},tokenbudget",
        )  # fmt: skip
    if version_of("opentelemetry-distro") is None:
        yield Finding(
            "attention", "backend exporter", "no spans are sent without code", "pip install opentelemetry-distro"
        )


def _spool() -> Finding:
    from tokenbudget_otel.cli.spool_source import spans_of, waiting
    from tokenbudget_otel.export.folder import Folder
    from tokenbudget_otel.export.place import default_folder, is_off, made_ready
    from tokenbudget_otel.export.spool_error import SpoolError

    if is_off():
        return Finding(
            "note", "spool", f"{VARIABLE} says that nothing is kept: spans that cannot be sent within seconds are lost"
        )
    place = default_folder()
    try:
        size = checked_max_bytes()
        if not place.exists():
            return Finding("ok", "spool", f"{place} is made when spans are exported; {size:,} bytes fit")
        rows = waiting(Folder(made_ready(place), size))
    except SpoolError as error:
        return Finding("attention", "spool", str(error))
    held = sum(row.bytes for row in rows)
    text = f"{place}: {spans_of(sum(row.items for row in rows))} waiting ({held:,} of {size:,} bytes)"
    aside = sum(row.refused + row.damaged for row in rows)
    if aside:
        return Finding(
            "attention",
            "spool",
            f"{text}, {spans_of(aside)} refused or damaged",
            "tokenbudget spool list; then tokenbudget spool replay --refused, or tokenbudget spool clear",
        )
    return Finding("ok", "spool", text)
