"""A folder that keeps OTLP requests until their receivers have taken them. (signatures first; the body follows)"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokenbudget_otel.export.wire import Wire

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider


class Destination:
    """Where requests of a spool go: one URL, with one set of headers."""

    def put(self, body: bytes) -> None:
        """Keep an OTLP request (protobuf, uncompressed) and have it delivered. Never raises, never waits for a receiver."""
        raise NotImplementedError

    def flush(self, timeout: float) -> bool:
        """Wait until all is delivered, at most ``timeout`` seconds."""
        raise NotImplementedError

    def close(self, timeout: float) -> None:
        """Deliver what can be delivered in ``timeout`` seconds; the rest stays on disk."""
        raise NotImplementedError


class Spool:
    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
        close_timeout: float = 5.0,
    ) -> None:
        raise NotImplementedError

    def to(self, url: str, wire: Wire, headers: Mapping[str, str] | None = None) -> Destination:
        """The destination of a URL and headers (whose hash is part of its name: accounts are not mixed up). Delivery of
        what is there already begins at once."""
        raise NotImplementedError

    def flush(self, timeout: float) -> bool:
        raise NotImplementedError

    def close(self, timeout: float | None = None) -> None:
        raise NotImplementedError
