"""What a run came to: for people, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tokenbudget_otel.cli.journal import Row, total
from tokenbudget_otel.money import format_usd, to_nano, to_usd
from tokenbudget_otel.totals import Totals

TOKENS: Final = {
    "input_tokens": "input_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "output_tokens": "output_tokens",
    "reasoning_tokens": "reasoning_tokens",
}
"""Columns of the CSV file, and the counts that they show."""


@dataclass(slots=True)
class Report:
    """A run that has ended.

    Attributes:
        exit_code: of the program; ``None`` if a signal ended it.
        signal: name of that signal.
        processes: how many processes made calls.
        refusals: what the program was told by budgets, each message once.
        notes: what else a reader should know.
        budget: name, limits and spending of the run's own budget.
        seen: whether any Python process could be metered.
    """

    command: Sequence[str]
    exit_code: int | None = None
    signal: str | None = None
    duration_s: float = 0.0
    tags: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    processes: int = 0
    refusals: Sequence[str] = ()
    notes: Sequence[str] = ()
    budget: Mapping[str, Any] | None = None
    seen: bool = True

    def plain(self) -> dict[str, Any]:
        """As data for JSON; docs/cli.md says what each field means."""
        return {
            "command": list(self.command),
            "exit_code": self.exit_code,
            "signal": self.signal,
            "duration_s": round(self.duration_s, 3),
            "tags": dict(self.tags),
            "processes": self.processes,
            "metered": self.seen,
            "totals": _plain(total(self.rows)),
            "calls": [
                {
                    "provider": row.provider,
                    "model": row.model,
                    "operation": row.operation,
                    "tags": dict(row.tags),
                    **_plain(row.totals),
                }
                for row in self.rows
            ],
            "budget": None if self.budget is None else dict(self.budget),
            "refusals": list(self.refusals),
            "notes": self.all_notes(),
        }

    def write_json(self, file: Path) -> None:
        """Write :meth:`plain` to a file."""
        file.write_text(json.dumps(self.plain(), indent=2) + "\n", encoding="utf-8")

    def write_csv(self, file: Path) -> None:
        """Write a line for each provider, model, operation and combination of tags."""
        names = sorted({name for row in self.rows for name in row.tags})
        with file.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(
                ("provider", "model", "operation", *(f"tag.{name}" for name in names), "calls", "refused_calls",
                 "estimated_calls", "unpriced_calls", *TOKENS, "cost_usd")
            )  # fmt: skip
            for row in self.rows:
                each = _plain(row.totals)
                writer.writerow(
                    (row.provider, row.model, row.operation, *(row.tags.get(name, "") for name in names),
                     *(each[f"{kind}calls"] for kind in ("", "refused_", "estimated_", "unpriced_")),
                     *(each["usage"].get(name, "") for name in TOKENS.values()), each["cost_usd"])
                )  # fmt: skip

    def all_notes(self) -> list[str]:
        """What a reader should know, a sentence or two each."""
        everything = total(self.rows)
        notes = list(self.notes)
        if not self.seen:
            notes.append(
                "no Python process could be metered: the program is not Python, or Python was started with -I, -S or "
                "-E, or with an environment of its own."
            )
        for row in self.rows:
            if row.totals.unpriced_calls:
                notes.append(
                    f"the price of {_calls(row.totals.unpriced_calls)} to {row.provider} {row.model} is not, or not "
                    "wholly, known and not in the cost. Put it into a file and give that with --price-file, or "
                    f"use register_model in the program: `tokenbudget price {shlex.quote(row.model)}` shows how."
                )
        if everything.estimated_calls:
            notes.append(
                f"the usage of {_calls(everything.estimated_calls)} is estimated: the provider did not report it "
                "(a stream was cut short, for example)."
            )
        if self.budget is not None and self.budget["in_flight_calls"]:
            notes.append(
                f"{_calls(self.budget['in_flight_calls'])} in flight when the process ended, for which "
                f"{format_usd(to_nano(self.budget['in_flight_usd']))} were reserved: not in the cost."
            )
        if everything.refused_calls:
            notes.append(f"refused by a budget: {_calls(everything.refused_calls)}.")
        return list(dict.fromkeys(notes))

    def show(self) -> None:
        """Print the report on stderr."""
        from rich.text import Text

        from tokenbudget_otel.cli.tables import calls_table, console

        out = console(stderr=True)
        everything = total(self.rows)
        out.print()
        if everything.calls:
            out.print(calls_table(self.rows, ("provider", "model"), lambda row: (row.provider, row.model)))
        if everything.calls or everything.refused_calls:
            out.print(Text(self._summary(everything)), soft_wrap=True)
        else:
            out.print(Text("tokenbudget: no LLM call was seen."))
        # Further refusals differ in figures only; the JSON report has them all.
        for message in self.refusals[:1]:
            out.print(Text(message, style="bold red"), soft_wrap=True)
        for note in self.all_notes():
            out.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)

    def _summary(self, everything: Totals) -> str:
        from tokenbudget_otel.cli.tables import money

        used = f"{_calls(everything.calls)}, {everything.usage.total_tokens:,} tokens"
        parts = [f"tokenbudget: {used}, {money(everything)}"]
        if self.processes > 1:
            parts.append(f"in {self.processes} processes")
        if self.budget is not None:
            parts.append(f"of {_limits(self.budget)}")
        text = " ".join(parts)
        if self.tags:
            text += f" [{', '.join(f'{name}={value}' for name, value in self.tags.items())}]"
        return text


def _plain(totals: Totals) -> dict[str, Any]:
    unknown = totals.unpriced_calls and not totals.nano_usd
    return {
        "calls": totals.calls,
        "refused_calls": totals.refused_calls,
        "estimated_calls": totals.estimated_calls,
        "unpriced_calls": totals.unpriced_calls,
        "cost_usd": None if unknown else f"{to_usd(totals.nano_usd):f}",
        "usage": {
            name: value if isinstance(value, int) else float(value) for name, value in totals.usage.counts().items()
        },
    }


def _limits(budget: Mapping[str, Any]) -> str:
    limits = []
    if budget["limit_usd"] is not None:
        limits.append(format_usd(to_nano(budget["limit_usd"])))
    if budget["limit_tokens"] is not None:
        limits.append(f"{budget['limit_tokens']:,} tokens")
    return f"{' and '.join(limits)} allowed"


def _calls(number: int) -> str:
    return f"{number:,} call" if number == 1 else f"{number:,} calls"
