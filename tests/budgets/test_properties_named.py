"""The document that says which test holds which promise names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ledger-properties.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
LONG = set(re.findall(r"\*long\* `(tests/[\w/]+\.py)::(\w+)`", TEXT))


def test_every_property_has_a_row_and_a_test():
    rows = re.findall(r"^\| P(\d+) \|.*`tests/.*::\w+`", TEXT, re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, 19))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists_and_says_when_it_runs(path, name):
    (found,) = [
        node
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    decorated = "\n".join(map(ast.unparse, found.decorator_list))
    assert ("pytest.mark.soak" in decorated) == ((path, name) in LONG)
