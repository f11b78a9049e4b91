"""A ``requests.Session`` that gives what is posted to a spool. (signature first; the body follows)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import requests

from tokenbudget_otel.export.spool import Spool
from tokenbudget_otel.export.wire import HttpWire, Wire


class SpoolingSession(requests.Session):
    def __init__(
        self,
        spool: Spool,
        *,
        session: requests.Session | None = None,
        through: Callable[[HttpWire], Wire] | None = None,
        close_timeout: float | None = None,
    ) -> None:
        """``through`` may put something between courier and wire, as ``JsonFallback`` does. ``session`` sends; by
        default this one, with its own adapters, proxies and authentication."""
        super().__init__()
        raise NotImplementedError

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        raise NotImplementedError
