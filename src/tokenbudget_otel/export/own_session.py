"""Sessions for OTLP/HTTP exporters: one that delivers at once, and what keeps a session to the headers it was given.

The standard exporters put on a request whatever ``OTEL_EXPORTER_OTLP_HEADERS`` says, also where a receiver is named in
the program. Those headers are for another receiver, and often hold its key.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from typing import Any, Final

import requests

from tokenbudget_otel.export.session import UNPACK, Beneath, SpoolingSession, compression_of, response_of, text
from tokenbudget_otel.export.spool import Spool
from tokenbudget_otel.export.wire import PROTOBUF, HttpWire, Wire, leave_connections
from tokenbudget_otel.forks import renew_after_fork

_OF_OTLP: Final = frozenset(("content-type", "content-encoding", "user-agent"))

_EMPTY: Final = 64
"""Bytes that an empty body may have when it is compressed, and more."""


class BeginningSession(SpoolingSession):
    """A spooling session by which an exporter says where it will send to, before there is anything to send.

    A request without a span in it is not kept: it has what waits for its receiver delivered.
    """

    def request(self, method: str, url: str, *positional: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        """Spool a POST of OTLP, if there is anything in it."""
        headers = {**self.headers, **(options.get("headers") or {})}
        sent = {name: text(value) for name, value in headers.items() if value is not None}
        encoding = next((value for name, value in sent.items() if name.lower() == "content-encoding"), None)
        compression = compression_of(encoding)
        if (
            not positional
            and method.upper() == "POST"
            and compression is not None
            and _is_empty(options.get("data"), compression)
        ):
            # As it will be posted to, so that what waits is sent with the same compression.
            self._destination(
                url,
                sent,
                compression,
                options.get("timeout"),
                options.get("verify"),
                options.get("cert"),
            )
            return response_of(url, 200)
        return super().request(method, url, *positional, **options)


class OwnSpoolingSession(BeginningSession):
    """A spooling session that sends those headers alone that it is told of.

    Args:
        spool, session, through, close_timeout: as for :class:`SpoolingSession`.
        headers: names of the headers that may be sent, beside those of OTLP.
    """

    def __init__(self, spool: Spool, *, headers: Collection[str], through: Callable[[HttpWire], Wire]) -> None:
        super().__init__(spool, through=through)
        self._kept = _OF_OTLP.union(name.lower() for name in headers)
        self.auth = _as_it_is

    def request(self, method: str, url: str, *positional: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        """Spool a POST of OTLP, without headers that are not for this receiver."""
        keep_to(self, options, self._kept)
        return super().request(method, url, *positional, **options)


class DirectSession(requests.Session):
    """A session that posts OTLP at once, by the wire that is put in its way.

    Args:
        headers: names of the headers that may be sent, beside those of OTLP.
        through: makes what stands before the wire.
    """

    def __init__(self, *, headers: Collection[str], through: Callable[[HttpWire], Wire]) -> None:
        super().__init__()
        self._kept = _OF_OTLP.union(name.lower() for name in headers)
        self._through = through
        self.auth = _as_it_is
        renew_after_fork(self)

    def _after_fork(self) -> None:
        leave_connections(self)

    def request(self, method: str, url: str, *positional: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        """Post."""
        keep_to(self, options, self._kept)
        headers = {
            name.lower(): text(value) for name, value in {**self.headers, **(options.get("headers") or {})}.items()
        }
        data = options.get("data")
        compression = compression_of(headers.get("content-encoding"))
        if (
            positional
            or method.upper() != "POST"
            or not isinstance(data, bytes)
            or compression is None
            or headers.get("content-type") != PROTOBUF
        ):
            return super().request(method, url, *positional, **options)
        wire = HttpWire(
            Beneath(self), url, headers, options.get("timeout") or 10.0, compression,
            options.get("verify"), options.get("cert"),
        )  # fmt: skip
        answer = self._through(wire).post(UNPACK[compression](data))
        response = response_of(url, answer.status, answer.body)
        if answer.retry_after is not None:
            response.headers["Retry-After"] = f"{answer.retry_after:g}"
        return response


def keep_to(session: requests.Session, options: dict[str, Any], kept: Collection[str]) -> None:
    """Take headers that are not among ``kept`` (in lower case) off a session and the options of a request."""
    for name in tuple(session.headers):
        if name.lower() not in kept:
            session.headers.pop(name, None)
    options["headers"] = {name: value for name, value in (options.get("headers") or {}).items() if name.lower() in kept}


def _is_empty(data: object, compression: str) -> bool:
    if not isinstance(data, bytes) or len(data) > _EMPTY:
        return False
    try:
        return not UNPACK[compression](data)
    except (OSError, EOFError, zlib.error):
        return False


def _as_it_is(request: Any) -> Any:
    """Authentication that adds none: without it `requests` puts the password that ``~/.netrc`` has for the host in the
    place of the key."""
    return request
