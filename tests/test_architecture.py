"""Rooms import only from rooms below them: the table in docs/architecture.md, held against the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tokenbudget_otel"

VOCABULARY = {"usage", "money", "tags", "scopes", "semconv", "dialects", "forks", "version", "weak_identity"}
COUNTING = {"pricing", "budgets"} | VOCABULARY
METER = {"meter", "totals"} | COUNTING
ENGINE = {"instrumentation", "settings", "budget_metrics"} | METER

MAY_IMPORT = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    "pricing": VOCABULARY | {"pricing"},
    "budgets": VOCABULARY | {"budgets"},
    "settings": {"budgets"} | VOCABULARY,
    "budget_metrics": {"budgets"} | VOCABULARY,
    "totals": VOCABULARY,
    "meter": METER,
    "instrumentation": ENGINE,
    "processor": ENGINE,
    "export": ENGINE | {"export"},
    "api": ENGINE,
    "attached": ENGINE | {"processor"},
    "auto": ENGINE | {"api", "attached"},
    "simulator": {"simulator"},
    "cli": ENGINE | {"api", "auto", "processor", "export", "simulator", "cli"},
}
HEAVY = {"openai", "anthropic", "rich", "click", "starlette", "uvicorn", "httpx", "httpx2", "pydantic", "requests"}
"""Never imported when one of the rooms below the command line and the simulator is."""


def imports(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it; those under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_from_rooms_below_it(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[room]
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("tokenbudget_otel.")}
    known = {entry.stem for entry in SOURCE.iterdir() if entry.suffix in ("", ".py")}
    assert rooms & known <= allowed | {room}
    if room not in ("cli", "simulator"):
        # What OpenTelemetry's own exporter sends with, which the room for delivery stands beneath.
        heavy = HEAVY - {"requests"} if room == "export" else HEAVY
        assert not {name.split(".")[0] for name in imports(path)} & heavy
