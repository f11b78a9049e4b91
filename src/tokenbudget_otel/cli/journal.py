"""How the processes of a run tell what they used: each appends to a file of its own, a line for each call.

A line is written when a call has been settled, so nothing has to happen when a process ends: one that is
killed, or leaves by ``os._exit``, has told everything but the calls in flight.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from tokenbudget_otel.instrumentation.guard import log_once
from tokenbudget_otel.totals import Totals, TotalsTable
from tokenbudget_otel.usage import TokenUsage

SUFFIX: Final = ".calls"
COMPACT_AT: Final = 8_000_000
"""Bytes at which a file is rewritten with its calls added up."""
MOST_REFUSALS: Final = 100
"""Different messages of refusals that are kept."""

_Key = tuple[str, str, str, tuple[tuple[str, str], ...]]


class Journal(TotalsTable):
    """The totals of a process, which also writes each call into a folder.

    The file is opened for each line: a program that closes all descriptors (a daemon does) must not find its
    own files where ours was.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._new_file()
        os.register_at_fork(after_in_child=self._new_file)

    def _new_file(self) -> None:
        self._writing = threading.Lock()
        self._written = 0
        self._file = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"

    def add(
        self,
        provider: str,
        model: str,
        operation: str,
        tags: Mapping[str, str],
        usage: TokenUsage | None,
        nano_usd: int | None,
        *,
        calls: int = 1,
        unpriced: int = 0,
        estimated: int = 0,
    ) -> None:
        """Count one call, or several that were answered together, and write it down."""
        counted: dict[str, int] = {"calls": calls, "unpriced": int(unpriced), "estimated": int(estimated)}
        super().add(provider, model, operation, tags, usage, nano_usd, **counted)
        counts = {} if usage is None else usage.counts()
        self._write(
            {
                "provider": provider,
                "model": model,
                "operation": operation,
                "tags": dict(tags),
                "calls": calls,
                "estimated_calls": int(estimated),
                "unpriced_calls": int(unpriced),
                "nano_usd": nano_usd or 0,
                "usage": {name: value if isinstance(value, int) else str(value) for name, value in counts.items()},
            }
        )

    def refuse(self, provider: str, model: str, operation: str, tags: Mapping[str, str]) -> None:
        """Count one call that a budget refused, and write it down."""
        super().refuse(provider, model, operation, tags)
        call = {"provider": provider, "model": model, "operation": operation, "tags": dict(tags)}
        self._write({**call, "refused_calls": 1})

    def refusal(self, message: str) -> None:
        """Write down what the program was told when a budget refused a call."""
        self._write({"refusal": message})

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        try:
            with self._writing:
                self._append(line)
                if self._written > COMPACT_AT:
                    self._compact()
        except FileNotFoundError:
            pass  # the run has ended, and its report has been given
        except OSError as error:
            log_once("write a call into the journal of `tokenbudget run`", error)

    def _append(self, line: bytes) -> None:
        file = os.open(self._file, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._written += os.write(file, line)
        finally:
            os.close(file)

    def _compact(self) -> None:
        tally = Tally()
        tally.read(self._file)
        lines = [json.dumps(row.plain()) for row in tally.rows()]
        lines += [json.dumps({"refusal": message}) for message in tally.refusals]
        fresh = self._file.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
        fresh.replace(self._file)
        self._written = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What calls of one kind, with the same tags, came to."""

    provider: str
    model: str
    operation: str
    tags: Mapping[str, str]
    totals: Totals

    def plain(self) -> dict[str, Any]:
        """The row as data for JSON, as :meth:`.TotalsTable.rows` gives it."""
        totals = self.totals
        return {
            "provider": self.provider,
            "model": self.model,
            "operation": self.operation,
            "tags": dict(self.tags),
            "calls": totals.calls,
            "refused_calls": totals.refused_calls,
            "estimated_calls": totals.estimated_calls,
            "unpriced_calls": totals.unpriced_calls,
            "nano_usd": totals.nano_usd,
            "usage": {
                name: value if isinstance(value, int) else str(value) for name, value in totals.usage.counts().items()
            },
        }


@dataclass(slots=True)
class Tally:
    """The journals of several processes, added up.

    Attributes:
        refusals: what the program was told by budgets; each message once, in the order of appearance.
        processes: how many processes made calls.
    """

    refusals: list[str] = field(default_factory=list)
    processes: int = 0
    _rows: dict[_Key, Totals] = field(default_factory=dict)

    def read_folder(self, folder: Path) -> None:
        """Add every journal in a folder."""
        for file in sorted(folder.glob(f"*{SUFFIX}")):
            self.read(file)

    def read(self, file: Path) -> None:
        """Add one journal. A last line that was cut short, with its process, is left out."""
        called = False
        for line in file.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "refusal" in entry:
                if entry["refusal"] not in self.refusals and len(self.refusals) < MOST_REFUSALS:
                    self.refusals.append(entry["refusal"])
            else:
                self.add(entry)
                called = True
        self.processes += called

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add one row of plain data."""
        key = (entry["provider"], entry["model"], entry["operation"], tuple(sorted(entry["tags"].items())))
        totals = Totals(
            entry.get("calls", 0),
            TokenUsage(**{name: _count(value) for name, value in entry.get("usage", {}).items()}),
            entry.get("nano_usd", 0),
            entry.get("unpriced_calls", 0),
            entry.get("estimated_calls", 0),
            entry.get("refused_calls", 0),
        )
        known = self._rows.get(key)
        self._rows[key] = totals if known is None else known + totals

    def rows(self) -> list[Row]:
        """What was added, by provider, model, operation and tags."""
        return [Row(*key[:3], dict(key[3]), totals) for key, totals in sorted(self._rows.items(), key=lambda it: it[0])]


def total(rows: Iterable[Row]) -> Totals:
    """All rows in one."""
    return sum((row.totals for row in rows), Totals(0, TokenUsage(), 0))


def _count(value: object) -> Any:
    return Decimal(value) if isinstance(value, str) else value
