"""Whether OpenTelemetry is told to ask where a program runs, and whether there is somebody to ask."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Final

from tokenbudget_otel.export.where.places import DETECTORS

VARIABLE: Final = "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"
NAME: Final = "tokenbudget"
"""The name of our detector there."""

_OPENTELEMETRYS_OWN: Final = "opentelemetry-sdk"


def is_on() -> bool:
    """Whether the variable names our detector, or all that there are.

    >>> is_on()
    False
    """
    named = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")}
    return not named.isdisjoint((NAME, "*"))


def is_installed() -> bool:
    """Whether the extra ``where`` is installed: all of the detectors that it brings."""
    return not missing()


def missing() -> list[str]:
    """The distributions of the extra ``where`` that are not installed."""
    wanted = {detector.distribution for detector in DETECTORS.values()} - {_OPENTELEMETRYS_OWN}
    return sorted(name for name in wanted if not _is_there(name))


def _is_there(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
