"""`tokenbudget run`: a program, as it is, with its LLM calls metered and capped."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from tokenbudget_otel.cli import hook
from tokenbudget_otel.cli.options import dollars, price_file, tag, writable
from tokenbudget_otel.cli.report import Report
from tokenbudget_otel.cli.signals import Forwarder, die_as

EXPORTERS: Final = (
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"),
    "TOKENBUDGET_ENDPOINT",
)
"""Variables that say that spans are wanted: with one of them set, the program runs under OpenTelemetry's own
auto-instrumentation as well."""

_LONGEST_SOCKET: Final = 100
"""Characters that the path of a socket may have, and a few less."""


@click.command(
    "run", context_settings={"allow_interspersed_args": False}, short_help="Run a program and report its LLM costs."
)
@click.option("--max-cost", type=dollars, metavar="USD", help="Refuse calls that would spend more than this.")
@click.option("--max-tokens", type=click.IntRange(min=0), metavar="N", help="Refuse calls that would use more.")
@click.option(
    "--mode",
    type=click.Choice(("expected", "worst_case")),
    default="expected",
    show_default=True,
    help="What a call in flight reserves: a likely amount, or an upper bound with which the limit is never passed.",
)
@click.option(
    "--unpriced",
    type=click.Choice(("deny", "allow")),
    default="deny",
    show_default=True,
    help="What --max-cost does with a call whose price is not known.",
)
@click.option("--tag", "tags", type=tag, multiple=True, metavar="NAME=VALUE", help="Tag every call.")
@price_file
@click.option("--json", "json_file", type=writable, metavar="FILE", help="Also write the report as JSON.")
@click.option("--csv", "csv_file", type=writable, metavar="FILE", help="Also write the report as CSV.")
@click.option("--quiet", is_flag=True, help="Print no report.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGS]...")
def command(
    max_cost: Decimal | None,
    max_tokens: int | None,
    mode: str,
    unpriced: str,
    tags: tuple[tuple[str, str], ...],
    price_files: tuple[Path, ...],
    json_file: Path | None,
    csv_file: Path | None,
    quiet: bool,
    program: tuple[str, ...],
) -> None:
    """Run a program as it is, and report on stderr what its LLM calls cost.

    Processes that it starts are counted too. Its output, its input and its exit code are its own.

    \b
      tokenbudget run -- python app.py
      tokenbudget run --max-cost 1.00 --tag team=search -- python -m package.job --fast
    """
    if Path(os.environ.get("TOKENBUDGET_RUN") or "-").exists():
        raise click.UsageError("this is inside a `tokenbudget run` already, which counts and caps everything here")
    settings: dict[str, Any] = {
        "tags": dict(tags),
        "price_files": [str(file) for file in price_files],
        "export": any(os.environ.get(name) for name in EXPORTERS),
        "key": os.urandom(32).hex(),
        "budget": _budget(max_cost, max_tokens, mode, unpriced),
    }
    with _folder() as folder:
        report = _run(list(program), folder, settings)
        problems = [
            problem
            for file, write in ((json_file, report.write_json), (csv_file, report.write_csv))
            if file is not None and (problem := _written(file, write))
        ]
        try:
            if not quiet:
                report.show()
            for problem in problems:
                click.echo(f"Error: {problem}", err=True)
        except OSError:  # nobody reads stderr any more; the program's exit code still counts
            pass
    if report.signal is not None:
        die_as(getattr(signal, report.signal))
        sys.exit(128 + getattr(signal, report.signal))  # a signal that does not end a process
    sys.exit(report.exit_code)


def _budget(max_cost: Decimal | None, max_tokens: int | None, mode: str, unpriced: str) -> dict[str, Any] | None:
    limits = {"--max-cost": max_cost, "--max-tokens": max_tokens}
    given = [f"{option} {value:f}" if isinstance(value, Decimal) else f"{option} {value}" for option, value in
             limits.items() if value is not None]  # fmt: skip
    if not given:
        return None
    return {
        "name": f"tokenbudget run {' '.join(given)}",
        "limit_usd": None if max_cost is None else str(max_cost),
        "limit_tokens": max_tokens,
        "mode": mode,
        "unpriced": unpriced,
    }


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that only this user can enter, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tokenbudget-"))
    if len(str(folder)) > _LONGEST_SOCKET:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="tokenbudget-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: list[str], folder: Path, settings: Mapping[str, Any]) -> Report:
    from tokenbudget_otel.cli.metered import RUN, SETTINGS, SOCKET

    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    if settings["export"]:
        (folder / "early").touch()
    front = folder / "hook"
    front.mkdir()
    shutil.copyfile(hook.__file__, front / "sitecustomize.py")

    started = time.monotonic()
    ledger = None
    with Forwarder() as signals:
        if settings["budget"] is not None:
            from tokenbudget_otel.budgets import MemoryLedger
            from tokenbudget_otel.cli.ledger import LedgerHost

            ledger = MemoryLedger()
            host = LedgerHost(folder / SOCKET, bytes.fromhex(settings["key"]), ledger)
        child = _start(program, {**os.environ, RUN: str(folder), "PYTHONPATH": _in_front(front)})
        signals.started(child.pid)
        code = child.wait()
        signals.ended()
        report = _report(program, folder, settings, code)
        report.duration_s = time.monotonic() - started
        if ledger is not None:
            host.close()
            report.budget = _standing(settings["budget"], ledger)
    return report


def _in_front(front: Path) -> str:
    # An empty PYTHONPATH means none; an empty entry in one that is not empty means the current folder.
    before = os.environ.get("PYTHONPATH")
    return f"{front}{os.pathsep}{before}" if before else str(front)


def _start(program: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        # Descriptors that whoever called us has opened for the program are the program's.
        return subprocess.Popen(program, env=environment, close_fds=False)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        click.echo(f"Error: {shlex.quote(program[0])} cannot be run: {error.strerror}", err=True)
        raise SystemExit(127 if missing else 126) from None


def _report(program: list[str], folder: Path, settings: Mapping[str, Any], code: int) -> Report:
    from tokenbudget_otel.cli.journal import Row, Tally

    tally = Tally()
    tally.read_folder(folder)
    # The run's tags are on every call, also where a program started from a context without them.
    rows = Tally()
    for row in tally.rows():
        tagged = Row(row.provider, row.model, row.operation, {**settings["tags"], **row.tags}, row.totals)
        rows.add(tagged.plain())
    return Report(
        command=program,
        exit_code=code if code >= 0 else None,
        signal=None if code >= 0 else signal.Signals(-code).name,
        tags=settings["tags"],
        rows=rows.rows(),
        processes=tally.processes,
        refusals=tally.refusals,
        notes=[file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.note"))],
        seen=(folder / "seen").exists(),
    )


def _standing(budget: Mapping[str, Any], ledger: Any) -> dict[str, Any]:
    from tokenbudget_otel.money import to_usd

    balance = next(iter(ledger.balances()), None)
    return {
        "name": budget["name"],
        "limit_usd": budget["limit_usd"],
        "limit_tokens": budget["limit_tokens"],
        "mode": budget["mode"],
        "spent_usd": f"{to_usd(0 if balance is None else balance.spent_nano_usd):f}",
        "spent_tokens": 0 if balance is None else balance.spent_tokens,
        "in_flight_usd": f"{to_usd(0 if balance is None else balance.reserved_nano_usd):f}",
        "in_flight_calls": 0 if balance is None else balance.reserved_calls,
    }


def _written(file: Path, write: Any) -> str | None:
    try:
        write(file)
    except OSError as error:
        return f"{str(file)!r} could not be written: {error.strerror}"
    return None
