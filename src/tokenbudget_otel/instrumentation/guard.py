"""Our mistakes stay ours: what goes wrong in telemetry is logged once and the user's call goes on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

logger = logging.getLogger("tokenbudget_otel")

P = ParamSpec("P")
R = TypeVar("R")

_logged: set[tuple[str, str]] = set()


def log_once(where: str, error: BaseException) -> None:
    """Log an error of ours with its traceback, the first time this kind of it happens at this place."""
    kind = (where, type(error).__name__)
    if kind not in _logged:
        _logged.add(kind)
        logger.warning(
            "tokenbudget-otel could not %s (%s: %s). The call itself is not affected; this is logged once.",
            where,
            type(error).__name__,
            error,
            exc_info=error,
        )


def guarded(where: str) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Make a function give ``None`` instead of raising. ``where`` completes "could not …" in the log."""

    def decorate(func: Callable[P, R]) -> Callable[P, R | None]:
        @functools.wraps(func)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                return func(*args, **kwargs)
            except Exception as error:
                log_once(where, error)
                return None

        return wrapper

    return decorate
