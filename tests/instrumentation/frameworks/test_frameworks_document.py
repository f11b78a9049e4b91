"""The programs in docs/frameworks.md run, in whichever environment has the framework.

They are marked ``py``, not ``python``: tests/docs runs each of those in an interpreter of its own, where importing
these packages takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from framework_harness import installed

import tokenbudget_otel as tb
from tokenbudget_otel.simulator import Simulator

DOCUMENT = Path(__file__).parents[3] / "docs" / "frameworks.md"
IMPORTED = re.compile(r"^(?:from|import) ([\w.]+)", re.MULTILINE)


def programs() -> Iterator[Any]:
    text = DOCUMENT.read_text()
    for found in re.finditer(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        missing = [name for name in IMPORTED.findall(found[1]) if not installed(name)]
        yield pytest.param(
            found[1],
            id=f"line {text.count(chr(10), 0, found.start()) + 1}",
            marks=pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not in this environment"),
        )


@pytest.mark.parametrize("program", programs())
def test_the_programs_of_the_document_run(
    program: str, sim: Simulator, meter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):  # LlamaIndex has a name of its own
        monkeypatch.setenv(name, sim.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
    try:
        exec(compile(program, str(DOCUMENT), "exec"), {"__name__": "__main__"})
    finally:
        tb.uninstrument()
