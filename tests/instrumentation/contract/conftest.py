"""What keeps two thousand small tests short."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _garbage() -> Iterator[None]:
    gc.collect()
    yield
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def _small_heap(_garbage: None) -> None:
    """Every test collects garbage, to see what becomes of abandoned streams. Most of that would go into the modules
    of the SDKs, which are imported as they are needed and are no garbage."""
    gc.freeze()
