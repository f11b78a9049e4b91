"""Attempts that an SDK repeats inside one call: whether one of those that failed may have been billed."""

from __future__ import annotations

from typing import Any

from tokenbudget_otel.instrumentation.failures import UNBILLED_STATUS, UNSENT_ERRORS
from tokenbudget_otel.instrumentation.nesting import under_way


def note_attempt(response: Any, error: BaseException | None) -> None:
    """Note on the call that is under way that an attempt failed, with an answer or an error, and another follows."""
    opened = under_way.get()
    if opened is None:
        return
    if response is not None:
        billed = response.status_code not in UNBILLED_STATUS
    else:
        billed = type(error).__name__ not in UNSENT_ERRORS
    opened.billed_before = opened.billed_before or billed
