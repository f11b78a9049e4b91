"""Whether content is captured: off by default, switched on by the standard environment variable.

``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is ``NO_CONTENT`` (the default), ``SPAN_ONLY``,
``EVENT_ONLY`` or ``SPAN_AND_EVENT``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from tokenbudget_otel.instrumentation.guard import logger

ENVIRONMENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@dataclass(frozen=True, slots=True)
class Capture:
    """Where content goes."""

    span: bool = False
    event: bool = False

    def __bool__(self) -> bool:
        return self.span or self.event


_MODES: Final = {
    "NO_CONTENT": Capture(),
    "SPAN_ONLY": Capture(span=True),
    "EVENT_ONLY": Capture(event=True),
    "SPAN_AND_EVENT": Capture(span=True, event=True),
    # What packages of the previous conventions took.
    "FALSE": Capture(),
    "TRUE": Capture(span=True),
}


def capture_from_environment() -> Capture:
    """What the environment says; nothing is captured where it says something unknown."""
    value = os.environ.get(ENVIRONMENT, "").strip().upper()
    if not value:
        return Capture()
    mode = _MODES.get(value)
    if mode is None:
        logger.warning(
            "%s is %r; known are %s. No content is captured.", ENVIRONMENT, value, ", ".join(list(_MODES)[:4])
        )
    return mode or Capture()
