"""Every SDK that is metered is known in all the places where SDKs are listed."""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tokenbudget_otel.api import INSTRUMENTORS, _instrumentor
from tokenbudget_otel.cli import hook
from tokenbudget_otel.instrumentation.instrumentor import EVERYTHING

PROJECT: dict[str, Any] = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
HOME = {"botocore": "boto3", "aiobotocore": "aiobotocore", "google-generativeai": None}
"""Extras are named after what people install; the SDK itself may come with it, or is not developed any more."""


def test_tokenbudget_run_watches_for_every_sdk() -> None:
    hooked = {module for sdk in INSTRUMENTORS for module in _instrumentor(sdk).modules or (sdk,)}
    assert hooked | {"tokenbudget_otel"} == hook._SDKS


@pytest.mark.parametrize("sdk", INSTRUMENTORS)
def test_opentelemetry_finds_the_instrumentor(sdk: str) -> None:
    module, name = INSTRUMENTORS[sdk]
    points = PROJECT["entry-points"]["opentelemetry_instrumentor"]
    assert f"{module}:{name}" in points.values()
    assert all(point.startswith("tokenbudget-") for point in points if point != EVERYTHING)
    assert getattr(importlib.import_module(module), name)().sdk == sdk


@pytest.mark.parametrize("sdk", INSTRUMENTORS)
def test_there_is_an_extra_with_the_same_versions(sdk: str) -> None:
    (wanted,) = map(Requirement, _instrumentor(sdk).instrumentation_dependencies())
    if wanted.name in HOME:
        return
    extras = [Requirement(each) for each in PROJECT["optional-dependencies"][wanted.name]]
    assert [(extra.name, str(extra.specifier)) for extra in extras] == [(wanted.name, str(wanted.specifier))]
