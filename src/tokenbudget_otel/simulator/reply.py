"""What a route answers with, before it is decided how it travels: :class:`Reply`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenbudget_otel.simulator.sse import Frame
from tokenbudget_otel.simulator.usage import Usage


@dataclass(slots=True)
class Reply:
    """A body or a stream of events, and what the provider bills for it."""

    body: bytes = b""
    content_type: str = "application/json"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    frames: list[Frame] | None = None
    """The events of a stream, instead of a body."""
    error_frame: Callable[[int], Frame] | None = None
    """How this wire format reports an error inside a stream, after so many events."""
    broken_frame: Frame | None = None
    """An event of this wire format with broken JSON in it."""
    usage: Usage | None = None
    """What is billed; None: nothing."""
    model: str | None = None
    further: tuple[tuple[str, Usage], ...] = ()
    """What else is billed once this is sent, and for which model: the requests of a batch."""


class RefusedError(Exception):
    """A route will not have the request: an error status and the body that says why."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body
