"""The way of one request to a receiver: what the courier needs of it, and OTLP over HTTP."""

from __future__ import annotations

import copy
import gzip
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, Protocol

from tokenbudget_otel.export.spool_error import SpoolError
from tokenbudget_otel.forks import renew_after_fork

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

MAX_ANSWER: Final = 65_536
"""Bytes of an answer that are read. What OTLP answers is far shorter."""


class Answer(NamedTuple):
    """What a receiver said.

    Attributes:
        status: the status of HTTP, or the one that comes nearest.
        retry_after: seconds that the receiver asked us to wait, if it did.
        body: what came with it, up to 64 kB.
    """

    status: int
    retry_after: float | None = None
    body: bytes = b""


class Wire(Protocol):
    """How requests get to one receiver.

    ``post`` is called on a courier's thread, with one request at a time.
    """

    def post(self, body: bytes) -> Answer:
        """Send an OTLP request (protobuf, uncompressed).

        Raises:
            OSError: if there was no answer: no connection, a time-out, a connection that broke.
        """


COMPRESSIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "none": bytes,
    "gzip": lambda body: gzip.compress(body, 6, mtime=0),
    "deflate": zlib.compress,
}
"""What compresses a body, by the names that OTLP exporters know."""


class HttpWire:
    """OTLP over HTTP.

    Args:
        session: a ``requests.Session``, or what has its ``request`` (whose errors are ``OSError``).
        url: the whole URL of the signal, such as ``https://collector:4318/v1/traces``.
        headers: sent with each request.
        timeout: seconds for a connection, and for each time that an answer is waited for.
        compression: ``"none"``, ``"gzip"`` or ``"deflate"``.
        verify, cert: as for ``requests``; None leaves it to the session.

    Raises:
        SpoolError: for a compression that is not known.
    """

    def __init__(
        self,
        session: Any,
        url: str,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        compression: str = "none",
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
    ) -> None:
        if compression not in COMPRESSIONS:
            raise SpoolError(f"compression {compression!r} is not known: give one of {', '.join(COMPRESSIONS)}")
        self.session = session
        self.url = url
        self.headers = {
            name: value
            for name, value in (headers or {}).items()
            if name.lower() not in ("content-type", "content-encoding", "content-length")
        }
        self.timeout = timeout
        self.compression = compression
        self._compress = COMPRESSIONS[compression]
        self._options: dict[str, Any] = {
            name: value for name, value in (("verify", verify), ("cert", cert)) if value is not None
        }
        renew_after_fork(self)

    def _after_fork(self) -> None:
        leave_connections(self.session)

    def uncompressed(self) -> HttpWire:
        """The same way, without compression."""
        return HttpWire(self.session, self.url, self.headers, self.timeout, **self._options)

    def post(self, body: bytes, content_type: str = PROTOBUF) -> Answer:
        """Send a request; as OTLP/JSON if ``content_type`` says so.

        Raises:
            OSError: if there was no answer.
        """
        headers = {**self.headers, "Content-Type": content_type}
        if self.compression != "none":
            headers["Content-Encoding"] = self.compression
        response = self.session.request(
            "POST",
            self.url,
            data=self._compress(body),
            headers=headers,
            timeout=self.timeout,
            allow_redirects=False,
            stream=True,
            **self._options,
        )
        with response:
            return Answer(
                response.status_code,
                retry_after(response.headers.get("Retry-After"), time.time()),
                _read(response, time.monotonic() + self.timeout),
            )


def leave_connections(session: Any) -> None:
    """Leave the connections of a session to the parent, in a forked child."""
    # A copy of an adapter has the settings, and no connections.
    adapters = getattr(session, "adapters", None) or {}
    for prefix, adapter in list(adapters.items()):
        try:
            adapters[prefix] = copy.copy(adapter)
        except Exception:  # an adapter of the program's own, which cannot be copied
            pass


def _read(response: Any, until: float) -> bytes:
    """The beginning of an answer's body. What is cut off or cannot be unpacked is not missed: the status has come."""
    parts, size = [], 0
    try:
        for part in response.iter_content(8192):
            parts.append(part)
            size += len(part)
            if size >= MAX_ANSWER or time.monotonic() > until:
                break
    except Exception:
        pass
    return b"".join(parts)[:MAX_ANSWER]


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds that a ``Retry-After`` asks for; it may be a number or a date. None if it says nothing of the kind.

    >>> retry_after("120", 0.0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 20.0), retry_after("soon", 0.0)
    (120.0, 40.0, None)
    """
    if value is None:
        return None
    text = value.strip()
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        return max((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now, 0.0)
    except (TypeError, ValueError, OverflowError):
        return None
