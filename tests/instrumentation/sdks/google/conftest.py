"""Clients live as long as a test, and the garbage collector leaves the modules of the SDKs alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _kept() -> Iterator[None]:
    yield
    if "google_harness" in sys.modules:
        sys.modules["google_harness"].KEPT.clear()
