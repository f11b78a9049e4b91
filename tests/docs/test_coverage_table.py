"""The table of what is covered is made from what is tested."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_contract_suite() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "make_coverage.py"))
    document = ROOT / "docs" / "coverage.md"
    assert document.read_text() == made["render"](), "run `make coverage`"
