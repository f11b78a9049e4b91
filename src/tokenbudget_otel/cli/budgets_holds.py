"""`tokenbudget budgets holds`: what calls in flight reserve, and who makes them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tokenbudget_otel.cli.budgets_source import json_option, ledger_option, open_source, reachable, scope_option

if TYPE_CHECKING:
    from tokenbudget_otel.budgets import OpenHold


@click.command("holds", short_help="Open reservations, and who holds them.")
@ledger_option
@click.option("--budget", "name", metavar="NAME", help="Only those in this budget.")
@scope_option
@json_option
@click.pass_context
def holds(
    ctx: click.Context, ledger: str | None, name: str | None, scope: tuple[tuple[str, str], ...], as_json: bool
) -> None:
    """What calls in flight reserve: who holds it, in which budget, since when, and until when at most.

    A reservation ends with its call. That of a process that has died ends when it runs out, and is counted as spent.
    """
    from tokenbudget_otel.cli.budgets_words import place

    source = open_source(ctx, ledger)
    if name is not None:
        source.rule(name)

    def wanted(key: str) -> bool:
        at = place(key)
        return (name is None or at.budget == name) and dict(scope).items() <= dict(at.scope).items()

    with reachable(source.address):
        found = [
            hold._replace(claims=claims)
            for hold in source.ledger.holds()
            if (claims := tuple(claim for claim in hold.claims if wanted(claim.key)))
        ]
    if as_json:
        click.echo(json.dumps({"ledger": source.address, "holds": [plain(hold) for hold in found]}, indent=2))
    elif found:
        show(found)
    else:
        click.echo(f"No call in flight reserves anything{' of that' if name or scope else ''} in {source.address}.")


def show(found: Sequence[OpenHold]) -> None:
    """Print a table of holds."""
    from tokenbudget_otel.cli import budgets_words as words
    from tokenbudget_otel.cli.budgets_table import empty_table
    from tokenbudget_otel.cli.tables import console

    table = empty_table("id", "owner", "budget", "scope", "reserves", "since", "until")
    now = time.time()
    for hold in found:
        first = (hold.id, hold.owner or "not told")
        last = (words.away(hold.created - now), words.away(hold.expires - now))
        for claim in hold.claims:
            at = words.place(claim.key)
            table.add_row(*first, at.budget, words.scope(at.scope), words.amounts(claim[1:4]), *last)
            first = last = ("", "")
    console().print(table)


def plain(hold: OpenHold) -> dict[str, Any]:
    """A hold for JSON."""
    from datetime import UTC

    from tokenbudget_otel.cli import budgets_words as words
    from tokenbudget_otel.money import to_usd

    return {
        "id": hold.id,
        "owner": hold.owner or None,
        "since": words.iso(hold.created, UTC),
        "until": words.iso(hold.expires, UTC),
        "reserves": [
            {
                "budget": (at := words.place(claim.key)).budget,
                "scope": dict(at.scope),
                "window_id": at.window,
                "key": claim.key,
                "usd": words.plain(to_usd(claim.nano_usd)),
                "tokens": claim.tokens,
                "calls": claim.calls,
            }
            for claim in hold.claims
        ],
    }
