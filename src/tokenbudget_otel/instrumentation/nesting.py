"""One request, one call, however many doors it passes: which call is under way in this context."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from tokenbudget_otel.instrumentation.endpoint import Opened

under_way: Final[ContextVar[Opened | None]] = ContextVar("tokenbudget_call_under_way", default=None)
"""The call that a door has let in and the SDK is at work on. A second door behind the first (before the class of a
wrapped client, or before the client that a library works with) lets it pass; the SDK's retries are noted on it."""


def part_of_another(key: Any) -> bool:
    """Whether the request that ``key`` stands for belongs to a call that a door has already let in.

    One that has ended has no more parts: a task that was started inside it may go on, and make calls of its own.
    """
    outer = under_way.get()
    return outer is not None and (outer.covers or outer.key is key) and not outer.call.finished
