"""What `tokenbudget doctor` finds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from typing import Final, Literal

Level = Literal["ok", "note", "attention"]

DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``, ``note`` (good to know) or ``attention`` (something is wrong or will surprise).
        subject: what was looked at.
        text: what was found.
        remedy: what to do about it.
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""


def version_of(distribution: str) -> str | None:
    """The version of a distribution that is installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def disabled() -> set[str]:
    """What auto-instrumentation is told to leave off."""
    return {name.strip() for name in os.environ.get(DISABLED, "").split(",") if name.strip()}
