"""Our mistakes stay ours: what goes wrong in telemetry is logged once and the user's call goes on."""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger("tokenbudget_otel")

MAX_TOLD: Final = 1_000
"""Most things that are told, and most kinds of errors that are logged. A program that asks a host of another name each
time has read the message often enough by then, and the memory of it stays small."""

_told: set[str] = set()


def tell_once(about: str, message: str, *arguments: object) -> None:
    """Tell the program's author something about a call that cannot be known otherwise, once for each ``about``."""
    if about not in _told and len(_told) < MAX_TOLD:
        _told.add(about)
        logger.warning(message, *arguments)


_logged: set[tuple[str, str]] = set()


def log_once(where: str, error: BaseException) -> None:
    """Log an error of ours with its traceback, the first time this kind of it happens at this place."""
    kind = (where, type(error).__name__)
    if kind not in _logged and len(_logged) < MAX_TOLD:
        _logged.add(kind)
        logger.warning(
            "tokenbudget-otel could not %s (%s: %s). The call itself is not affected; this is logged once.",
            where,
            type(error).__name__,
            error,
            exc_info=error,
        )
