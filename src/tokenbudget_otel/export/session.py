"""A ``requests.Session`` that gives what is posted to a spool, for the ``session=`` of any OTLP/HTTP exporter."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import requests

from tokenbudget_otel.export.destination import Destination
from tokenbudget_otel.export.spool import Spool
from tokenbudget_otel.export.wire import PROTOBUF, HttpWire, Wire
from tokenbudget_otel.forks import renew_after_fork

UNPACK: Final[dict[str, Callable[[bytes], bytes]]] = {
    "none": bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}

_STATUSES: Final = frozenset(HTTPStatus)

_TIMEOUT_S: Final = 10.0
_MOST_DESTINATIONS: Final = 32


class SpoolingSession(requests.Session):
    """A session whose OTLP requests outlive the process.

    A POST of OTLP as protobuf is written to the spool and answered with 200; the spool sends it with the same URL,
    headers, compression, certificates and time limit. Anything else is sent at once, as by any session.

    Args:
        spool: where requests are kept. May be shared by exporters of spans, metrics and logs.
        session: what sends them; by default this session, with its own adapters, proxies and authentication.
        through: makes what stands between the courier and the wire, if anything shall.
        close_timeout: seconds that :meth:`close` takes at most; by default the spool's.

    >>> import tempfile
    >>> from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    >>> session = SpoolingSession(Spool(tempfile.mkdtemp()))
    >>> exporter = OTLPSpanExporter("http://127.0.0.1:4318/v1/traces", session=session)
    >>> exporter.shutdown()
    """

    def __init__(
        self,
        spool: Spool,
        *,
        session: requests.Session | None = None,
        through: Callable[[HttpWire], Wire] | None = None,
        close_timeout: float | None = None,
    ) -> None:
        super().__init__()
        self._spool = spool
        self._sender = session if session is not None else Beneath(self)
        self._through = through
        self._close_timeout = close_timeout
        self._known: dict[object, Destination] = {}
        renew_after_fork(self)
        self._after_fork()

    def _after_fork(self) -> None:
        self._making = threading.Lock()

    def begin(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout: float | None = None, **options: Any
    ) -> None:
        """Deliver what waits for a URL already, before anything is posted.

        Args:
            url, headers, timeout: as they will be posted with.
            options: ``verify`` and ``cert``, likewise.
        """
        self._destination(url, headers or {}, "none", timeout, options.get("verify"), options.get("cert"))

    def request(self, method: str, url: str, *positional: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        """Spool a POST of OTLP; do anything else at once."""
        data = options.get("data")
        merged = {**self.headers, **(options.get("headers") or {})}
        sent = {name: text(value) for name, value in merged.items() if value is not None}
        by_name = {name.lower(): value.strip() for name, value in sent.items()}
        compression = compression_of(by_name.get("content-encoding"))
        if (
            method.upper() != "POST"
            or positional
            or not isinstance(data, (bytes, bytearray))
            or compression is None
            or by_name.get("content-type", "").partition(";")[0].strip().lower() != PROTOBUF
        ):
            return super().request(method, url, *positional, **options)
        destination = self._destination(
            url,
            sent,
            compression,
            options.get("timeout"),
            options.get("verify"),
            options.get("cert"),
        )
        destination.put(UNPACK[compression](bytes(data)))
        response = response_of(url, 200)
        response.headers["Content-Type"] = PROTOBUF
        return response

    def close(self) -> None:
        """Deliver what can be delivered in time, and leave the rest to the spool."""
        with self._making:
            destinations = set(self._known.values())
            self._known.clear()
        for destination in destinations:
            self._spool.leave(destination, self._close_timeout)
        # Connections are not closed here: one of them may be in use for longer than this may take.

    def _destination(
        self,
        url: str,
        headers: Mapping[str, str],
        compression: str,
        timeout: float | None,
        verify: bool | str | None,
        cert: str | tuple[str, str] | None,
    ) -> Destination:
        key = (url, tuple(headers.items()), compression, verify, cert)
        found = self._known.get(key)
        if found is None:
            with self._making:
                found = self._known.get(key)
                if found is None:
                    wire = HttpWire(self._sender, url, headers, _TIMEOUT_S, compression, verify, cert)
                    # The exporter gives the rest of its time limit with each request; the first has all of it.
                    wire.timeout = max(timeout or _TIMEOUT_S, 1.0)
                    found = self._spool.to(url, self._through(wire) if self._through else wire, headers)
                    if found in self._known.values():
                        found.users -= 1
                    self._known[key] = found
                    if len(self._known) > _MOST_DESTINATIONS:
                        oldest = self._known.pop(next(iter(self._known)))
                        if oldest not in self._known.values():
                            self._spool.leave(oldest, 0.0)
        return found


class Beneath:
    """A session, as it is below one of ours: without what that does with requests."""

    def __init__(self, session: requests.Session) -> None:
        self._session = session

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        return requests.Session.request(self._session, method, url, **options)

    @property
    def adapters(self) -> Any:
        return self._session.adapters


def compression_of(encoding: str | None) -> str | None:
    """What a wire calls the compression of a body with this ``Content-Encoding``; None for one that is not known."""
    said = "identity" if encoding is None else encoding.strip().lower()
    return {"identity": "none", "gzip": "gzip", "deflate": "deflate"}.get(said)


def text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def response_of(url: str, status: int, body: bytes = b"") -> requests.Response:
    """A response that came by other ways than a session's."""
    response = requests.Response()
    response.status_code = status
    response.reason = HTTPStatus(status).phrase if status in _STATUSES else ""
    response.url = url
    response._content = body
    return response
