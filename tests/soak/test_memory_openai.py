"""Memory after many calls: the OpenAI SDK's ways, with tags, scopes and ledgers (soaking.py says what must hold)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from paths import PATHS
from soaking import check


@pytest.mark.soak
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("name", [name for name in PATHS if name.startswith("openai_")])
def test_many_calls_leave_nothing_behind(name: str, port: int, record_property: Callable[[str, object], None]) -> None:
    check(name, port, record_property)
