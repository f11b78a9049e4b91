"""The examples in docstrings run, and every public name has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import tokenbudget_otel as tb
from tokenbudget_otel.meter import Meter

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(tb.__path__, "tokenbudget_otel.")
    if "sitecustomize" not in module.name and not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["tokenbudget_otel", *MODULES])
def test_examples_in_docstrings_run(name: str, meter: Meter) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", sorted(set(tb.__all__) - {"__version__"}))
def test_public_names_say_what_they_are(name: str) -> None:
    assert inspect.getdoc(getattr(tb, name)), name
