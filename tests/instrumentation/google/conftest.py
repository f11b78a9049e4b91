"""Clients live as long as a test, and the garbage collector leaves the modules of the SDKs alone."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _small_heap() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _kept() -> Iterator[None]:
    yield
    if "google_harness" in sys.modules:
        sys.modules["google_harness"].KEPT.clear()
