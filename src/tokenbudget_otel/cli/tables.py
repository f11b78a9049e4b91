"""The table of calls that `tokenbudget run` and `tokenbudget demo` end with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tokenbudget_otel.cli.journal import Row, total
from tokenbudget_otel.money import format_usd
from tokenbudget_otel.totals import Totals

NOT_REPORTED: Final = "-"

FIGURES: Final[tuple[tuple[str, Callable[[Totals], str]], ...]] = (
    ("calls", lambda totals: f"{totals.calls:,}"),
    ("tokens in", lambda totals: count(totals.usage.input_tokens)),
    ("cached", lambda totals: count(totals.usage.cache_read_tokens)),
    ("out", lambda totals: count(totals.usage.output_tokens)),
    ("reasoning", lambda totals: count(totals.usage.reasoning_tokens)),
    ("cost", lambda totals: money(totals)),
)


def count(value: int | None) -> str:
    """A count for people; one that nobody reported is no zero.

    >>> count(12345), count(None)
    ('12,345', '-')
    """
    return NOT_REPORTED if value is None else f"{value:,}"


def money(totals: Totals) -> str:
    """What is known of a cost, and whether that is all.

    >>> from tokenbudget_otel.usage import TokenUsage
    >>> [money(Totals(2, TokenUsage(), *known)) for known in ((1_000_000, 0), (1_000_000, 1), (0, 2), (0, 0))]
    ['$0.0010', '$0.0010 + ?', 'unknown', '$0.0000']
    """
    if not totals.unpriced_calls:
        return format_usd(totals.nano_usd)
    return f"{format_usd(totals.nano_usd)} + ?" if totals.nano_usd else "unknown"


def grouped(rows: Iterable[Row], by: Callable[[Row], tuple[str, ...]]) -> dict[tuple[str, ...], Totals]:
    """Rows added up under what ``by`` says of each, in the order of that."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row)
    return {key: total(members) for key, members in sorted(groups.items())}


def calls_table(
    rows: Iterable[Row], names: tuple[str, ...], by: Callable[[Row], tuple[str, ...]], title: str | None = None
) -> Table:
    """One line for each group that had calls, and a last one for all."""
    rows = [row for row in rows if row.totals.calls]
    table = Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False, show_footer=True
    )
    everything = total(rows)
    for index, name in enumerate(names):
        # On a narrow screen the last of the names gives way.
        table.add_column(name, footer="" if index else "total", overflow="fold", no_wrap=name != names[-1])
    for name, write in FIGURES:
        table.add_column(name, justify="right", footer=write(everything), no_wrap=True)
    for key, totals in grouped(rows, by).items():
        table.add_row(*key, *(write(totals) for _, write in FIGURES))
    return table


def console(*, stderr: bool = False) -> Console:
    """Where tables go. A file or a pipe gets lines long enough that no table is folded."""
    found = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=max(found.width, 120))
