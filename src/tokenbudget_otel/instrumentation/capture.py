"""Whether content is captured, and how much of it: off by default, switched on by the standard environment variables or
by arguments of ``tb.instrument`` and of the instrumentors, which go over the environment.

``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is ``NO_CONTENT`` (the default), ``SPAN_ONLY``, ``EVENT_ONLY`` or
``SPAN_AND_EVENT``. ``OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT`` says whether there is an event at all; without it there is
one where content goes there. Both are read as opentelemetry-util-genai reads them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenbudget_otel.instrumentation.guard import tell_once
from tokenbudget_otel.instrumentation.redaction import REDACT, Redaction, redaction_named

ENVIRONMENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
EMIT_EVENT: Final = "OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT"
MAX_BYTES: Final = "TOKENBUDGET_CONTENT_MAX_BYTES"

DEFAULT_MAX_BYTES: Final = 65_536
"""Bytes of one content attribute. Backends cut or refuse values of some ten to some hundred KiB."""

MOST_KEPT_BYTES: Final = 32 * 1024 * 1024
"""Bytes of a streamed answer that are kept until it ends, at most."""

ENVELOPE: Final = 64
"""How many bytes of a stream are kept for a byte that may be recorded: of an event with one token some hundreds are
wrapping."""


@dataclass(frozen=True, slots=True)
class Capture:
    """Where content goes, and what becomes of it on the way.

    Attributes:
        span: whether it stands on spans.
        event: whether it stands in events.
        emits: whether there are events, with content or without.
        redaction: what is done to every text before it is recorded.
        max_bytes: of one attribute, as JSON in UTF-8; ``None``: no limit.
    """

    span: bool = False
    event: bool = False
    emits: bool = False
    redaction: Redaction | None = None
    max_bytes: int | None = DEFAULT_MAX_BYTES

    def __bool__(self) -> bool:
        """Whether any content is captured."""
        return self.span or self.event

    @property
    def kept_bytes(self) -> int:
        """Bytes of a streamed answer that are kept until it ends."""
        return MOST_KEPT_BYTES if self.max_bytes is None else min(ENVELOPE * self.max_bytes, MOST_KEPT_BYTES)


_MODES: Final = {
    "NO_CONTENT": (False, False),
    "SPAN_ONLY": (True, False),
    "EVENT_ONLY": (False, True),
    "SPAN_AND_EVENT": (True, True),
}

_FORMER: Final = {"FALSE": (False, False), "TRUE": (True, False)}
"""What packages of the previous conventions took, and many programs are still started with."""

_WORDS: Final = {"none": "NO_CONTENT", "span": "SPAN_ONLY", "event": "EVENT_ONLY", "both": "SPAN_AND_EVENT"}

_SWITCH: Final = {"true": True, "false": False}


OPTIONS: Final = ("capture_content", "emit_event", "redact", "content_max_bytes")
"""Arguments of instrumentors."""


def capture_of(options: Mapping[str, Any] | None = None) -> Capture:
    """What the arguments of an instrumentor say, and the environment where they say nothing.

    Args:
        options: ``capture_content``: ``"none"``, ``"span"``, ``"event"`` or ``"both"``, or the standard's names for
            these; ``emit_event``: whether there is an event for each call; ``redact``: see ``redaction.py``;
            ``content_max_bytes``: of one attribute, 0 for no limit.

    Raises:
        TypeError, ValueError: for an argument that cannot be meant. What the environment says wrongly is logged, and
            nothing is captured then that may not be.

    >>> capture_of({"capture_content": "both"}).event, bool(capture_of({"capture_content": "none"}))
    (True, False)
    >>> capture_of({"capture_content": "spam"})
    Traceback (most recent call last):
        ...
    ValueError: capture_content is 'spam'; known are 'none', 'span', 'event', 'both'
    """
    given = options or {}
    mode, asked = given.get("capture_content"), given.get("emit_event")
    span, event = _mode_in_environment() if mode is None else _mode_given(mode)
    if asked is not None and not isinstance(asked, bool):
        raise TypeError(f"emit_event is {asked!r}; it is True or False")
    emits = _switch_in_environment() if asked is None else asked
    emits = event if emits is None else emits
    hook, most = given.get("redact"), given.get("content_max_bytes")
    if hook is None:
        redaction = redaction_named(os.environ.get(REDACT, "").strip())
    else:
        redaction = hook if isinstance(hook, Redaction) else Redaction(hook)
    return Capture(span, event, emits, redaction, _most_in_environment() if most is None else _most_given(most))


def _mode_given(mode: Any) -> tuple[bool, bool]:
    name = _WORDS.get(mode, mode.upper()) if isinstance(mode, str) else None
    if name not in _MODES:
        raise ValueError(f"capture_content is {mode!r}; known are {', '.join(map(repr, _WORDS))}")
    return _MODES[name]


def _tell(variable: str, value: str, what: str) -> None:
    """Once, though every instrumentor looks."""
    tell_once(f"{variable}={value}", "%s is %r; %s.", variable, value, what)


def _mode_in_environment() -> tuple[bool, bool]:
    value = os.environ.get(ENVIRONMENT, "").strip().upper()
    known = _MODES | _FORMER
    if value and value not in known:
        _tell(ENVIRONMENT, value, f"known are {', '.join(_MODES)}. No content is captured")
    return known.get(value, (False, False))


def _switch_in_environment() -> bool | None:
    value = os.environ.get(EMIT_EVENT, "").strip().lower()
    if value and value not in _SWITCH:
        _tell(EMIT_EVENT, value, "it is true or false. There are events where content goes there")
    return _SWITCH.get(value)


def _most_given(most: Any) -> int | None:
    if most == "none":
        return None
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        raise ValueError(f"content_max_bytes is {most!r}; it is a number of bytes, 0 or 'none' for no limit")
    return most or None


def read_max_bytes(value: str) -> int | None:
    """Bytes as the environment has them; ``None``: no limit.

    Raises:
        ValueError: for what is no number of bytes.

    >>> read_max_bytes("4096"), read_max_bytes("none"), read_max_bytes("0")
    (4096, None, None)
    """
    said = value.strip().lower()
    return _most_given(int(said) if said.isdecimal() else said)


def _most_in_environment() -> int | None:
    value = os.environ.get(MAX_BYTES, "").strip()
    try:
        return read_max_bytes(value) if value else DEFAULT_MAX_BYTES
    except ValueError:
        _tell(MAX_BYTES, value, f"it is a number of bytes, or none. {DEFAULT_MAX_BYTES} are recorded")
        return DEFAULT_MAX_BYTES
