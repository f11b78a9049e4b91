"""`tokenbudget budgets`: how the budgets stand that are counted in a shared ledger."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from tokenbudget_otel.cli.budgets_explain import explain
from tokenbudget_otel.cli.budgets_holds import holds
from tokenbudget_otel.cli.budgets_limits import set_limit
from tokenbudget_otel.cli.budgets_source import Source, json_option, ledger_option, open_source, reachable, scope_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from tokenbudget_otel.budgets import BudgetStatus

    Look = Callable[[], list[BudgetStatus]]


@click.group("budgets", invoke_without_command=True, short_help="How budgets stand, in the ledger that programs share.")
@ledger_option
@click.option("--budget", "name", metavar="NAME", help="Only this budget.")
@scope_option
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Of each budget the N scopes used most; else 20.")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show it again every so often (2 seconds), until Ctrl-C.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    ledger: str | None,
    name: str | None,
    scope: tuple[tuple[str, str], ...],
    top: int | None,
    watch: float | None,
    as_json: bool,
) -> None:
    """How each budget stands in the window in force: limit, spent, reserved, remaining, and when it begins anew.

    Looks into the ledger that programs share, and changes nothing.

    \b
      tokenbudget budgets --ledger sqlite:budgets.db
      tokenbudget budgets --scope tenant=acme --watch
    """
    if ctx.invoked_subcommand is not None:
        return
    from tokenbudget_otel.cli.budgets_table import TOP, plain, statuses, view

    source = open_source(ctx, ledger)
    if name is not None:
        source.rule(name)
    source.tell_unreadable()

    def look() -> list[BudgetStatus]:
        with reachable(source.address):
            return [
                row
                for row in statuses(source, time.time())
                if (name is None or row.budget == name) and dict(scope).items() <= dict(row.scope).items()
            ]

    if as_json:
        _json_lines(lambda: json.dumps(plain(source, look(), top), indent=None if watch else 2), source, watch)
    elif watch is None:
        from tokenbudget_otel.cli.tables import console

        console().print(view(source, look(), top or TOP))
    else:
        _live(lambda: view(source, look(), top or TOP), source, watch)


for _subcommand in (explain, holds, set_limit):
    command.add_command(_subcommand)


def _json_lines(line: Callable[[], str], source: Source, watch: float | None) -> None:
    """Print it once; with ``watch``, again and again, a line each time."""
    click.echo(line())
    try:
        while watch is not None:
            time.sleep(watch)
            source.read()
            click.echo(line())
    except KeyboardInterrupt:
        pass


def _live(view: Callable[[], RenderableType], source: Source, seconds: float) -> None:
    """Show it until Ctrl-C. A ledger that cannot be reached for a while ends nothing."""
    from rich.live import Live
    from rich.text import Text

    from tokenbudget_otel.cli.tables import console

    with Live(view(), console=console(), auto_refresh=False) as live:
        try:
            while True:
                time.sleep(seconds)
                try:
                    source.read()
                    live.update(view(), refresh=True)
                except click.ClickException as error:
                    live.update(Text(error.message, style="bold red"), refresh=True)
        except KeyboardInterrupt:
            pass
