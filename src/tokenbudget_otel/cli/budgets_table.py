"""How budgets stand, as a table and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from tokenbudget_otel.cli import budgets_words as words

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from tokenbudget_otel.budgets import BudgetStatus
    from tokenbudget_otel.cli.budgets_source import Source

TOP: Final = 20
"""Scopes of one budget that a table shows unless told otherwise."""

NUMBERS: Final = ("limit", "spent", "reserved", "remaining")


def statuses(source: Source, now: float) -> list[BudgetStatus]:
    """A row for each budget and scope in the window in force."""
    from tokenbudget_otel.budgets.status import rows_of

    return [row for rule in source.rules.values() for row in rows_of(rule, source.ledger, source.limits, now)]


def most_used(rows: Sequence[BudgetStatus], top: int | None) -> Iterator[tuple[str, list[BudgetStatus], int]]:
    """Of each budget the ``top`` scopes used most, and how many are left out."""
    for name, scopes in groupby(rows, key=lambda row: row.budget):
        found = sorted(scopes, key=lambda row: -row.used)
        yield name, found[:top], len(found[top:]) if top else 0


def empty_table(*columns: str) -> Table:
    """A table whose columns give way on a narrow screen."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def view(source: Source, rows: Sequence[BudgetStatus], top: int | None = TOP) -> RenderableType:
    """The table, with what is to be said about it below; or a line that says why there is none."""
    from rich.console import Group
    from rich.text import Text

    if not source.rules:
        return Text(f"No budget is declared in {source.address} yet: a program that counts there declares its own.")
    if not rows:
        return Text(f"Nothing that this asks for is counted in {source.address}, in the windows in force.")
    table = empty_table("budget", "scope", "window")
    for name in (*NUMBERS, "used"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("resets")
    notes = []
    changed = False
    for budget, scopes, left_out in most_used(rows, top):
        for row in scopes:
            changed |= _add(table, source, row)
        if left_out:
            notes.append(f"{budget}: {left_out:,} scopes more, of which less is used (--top, --scope).")
    if changed:
        notes.append("* in the place of the declared limit (tokenbudget budgets set-limit).")
    return Group(table, *(Text(note) for note in notes))


def _add(table: Table, source: Source, row: BudgetStatus) -> bool:
    """Add a line for each unit that a budget limits; whether one of the limits is not the declared one."""
    rule = source.rules[row.budget]
    own = source.own_limits(rule, row.scope)
    kind = "(dry run)" if rule.budget.dry_run else "(warns)" if row.action == "warn" else ""
    first = (f"{row.budget} {kind}".rstrip(), words.scope(row.scope), rule.budget.window)
    last = _resets(rule.budget.window, row)
    for unit, mine in zip(words.UNITS, own, strict=True):
        numbers = [getattr(row, f"{name}_{unit}") for name in NUMBERS]
        limit, spent = numbers[:2]
        if limit is None:
            continue
        share = float(spent / limit) if limit else 1.0
        shown = [words.amount(number, unit) for number in numbers]
        shown[0] += "*" if mine is not None else ""
        style = None if share < 0.8 else "yellow" if share < 1 else "red"
        table.add_row(*first, *shown, f"{share:.1%}", last, style=style)
        first, last = ("", "", ""), ""
    return any(mine is not None for mine in own)


def _resets(window: str, row: BudgetStatus) -> str:
    if row.resets_at is None:
        return "never"
    if window.startswith("rolling"):
        return "bit by bit"
    return words.when(row.resets_at, time.time())


def plain(source: Source, rows: Sequence[BudgetStatus], top: int | None = None) -> dict[str, Any]:
    """The same for JSON; docs/cli.md says what each field means."""
    now = time.time()
    found = list(most_used(rows, top))
    return {
        "ledger": source.address,
        "at": words.iso(now, UTC),
        "budgets": [_plain_row(source, row, now) for _, scopes, _ in found for row in scopes],
        "left_out": sum(left_out for _, _, left_out in found),
        "unreadable": source.unreadable,
    }


def _plain_row(source: Source, row: BudgetStatus, now: float) -> dict[str, Any]:
    rule = source.rules[row.budget]
    resets_at = None if rule.budget.window.startswith("rolling") else row.resets_at
    own = zip(words.UNITS, source.own_limits(rule, row.scope), strict=True)
    return {
        "budget": row.budget,
        "scope": dict(row.scope),
        "action": row.action,
        "dry_run": rule.budget.dry_run,
        "window": rule.budget.window,
        "window_id": row.window,
        "resets_at": None if resets_at is None else resets_at.isoformat(),
        "resets_in_s": None if resets_at is None else round(resets_at.timestamp() - now, 3),
        "used": round(row.used, 6),
        **words.standing(vars(row), NUMBERS),
        "own_limits": [unit for unit, limit in own if limit is not None],
    }
