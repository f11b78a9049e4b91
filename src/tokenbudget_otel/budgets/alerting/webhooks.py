"""Webhooks: one request that tells an alert, and what its answer means.

Imported when there is the first alert to send.
"""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from opentelemetry.instrumentation.utils import suppress_instrumentation

from tokenbudget_otel.budgets.alerting.alert import Alert
from tokenbudget_otel.budgets.alerting.alert_event import AlertEvent
from tokenbudget_otel.budgets.alerting.signatures import DELIVERY, SIGNATURE, TIMESTAMP, sign
from tokenbudget_otel.version import __version__

TIMEOUT_S: Final = 5.0
"""Seconds that a server may keep silent."""

RETRIED: Final = frozenset({408, 425, 429})
"""Answers besides 5xx after which another attempt may succeed."""

_ERROR_CODE: Final = re.compile(rb"[a-z_]{1,40}")
"""What Slack says of a request it does not take: ``invalid_payload``, ``channel_is_archived``."""


class Answer(NamedTuple):
    """What came of one attempt: why it failed (``""``: it did not), and whether and when another may help."""

    reason: str = ""
    again: bool = False
    retry_after: float = 0.0


@dataclass(eq=False)
class Delivery:
    """One alert on its way."""

    event: AlertEvent
    url: str = field(repr=False)
    body: bytes
    secret: str | None = field(repr=False)
    attempts: int = 0

    @property
    def place(self) -> str:
        """Where it goes, as it may be logged: paths of hooks are as good as passwords."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


def delivery(alert: Alert, event: AlertEvent) -> Delivery:
    """An event as an alert wants it sent."""
    assert alert.url is not None
    message = slack_message(event) if alert.kind == "slack" else event.as_json()
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    return Delivery(event, alert.url, body, alert.secret)


def post(delivery: Delivery, timeout: float) -> Answer:
    """Try a delivery once. Nothing of it is traced."""
    url, headers = _address(delivery.url)
    headers |= {
        "Content-Type": "application/json",
        "User-Agent": f"tokenbudget-otel/{__version__}",
        DELIVERY: delivery.event.id,
    }
    if delivery.secret is not None:
        now = int(time.time())  # of this attempt: a late one is not an old one
        headers |= {TIMESTAMP: str(now), SIGNATURE: sign(delivery.secret, now, delivery.body)}
    request = Request(url, data=delivery.body, headers=headers, method="POST")
    try:
        with suppress_instrumentation(), _opener.open(request, timeout=timeout):
            return Answer()
    except HTTPError as error:
        with error:
            return _refused(error)
    except (OSError, HTTPException) as error:  # not connected, too slow, or no HTTP
        cause = error.reason if isinstance(error, URLError) else error
        text = cause.strerror or str(cause) if isinstance(cause, OSError) else ""
        return Answer(f"the connection failed ({text or type(cause).__name__})", again=True)


def slack_message(event: AlertEvent) -> dict[str, Any]:
    """An event as an incoming webhook of Slack takes it.

    >>> event = AlertEvent(budget="<a&b>", threshold=1.0, share=1.0, dimension="calls", limit_calls=1, spent_calls=1)
    >>> slack_message(event)["text"][:22]
    "Budget '&lt;a&amp;b&gt"
    """
    text = str(event)[:2000]  # a section holds 3000 characters
    for sign_, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign_, name)
    icon = ":rotating_light:" if event.share >= 1 else ":warning:"
    return {
        "text": text,
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": f"{icon} {text}"}}],
    }


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an answer like others: following one would send what is signed to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener: Final = build_opener(_NoRedirects)


def _address(url: str) -> tuple[str, dict[str, str]]:
    """A URL without the name and password in it, and the header that says them."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    login, _, host = parts.netloc.rpartition("@")
    token = base64.b64encode(unquote(login).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {token}"}


def _refused(error: HTTPError) -> Answer:
    status = error.code
    try:
        text = error.read(41).strip()
    except (OSError, HTTPException):
        text = b""
    code = f" {text.decode()}" if _ERROR_CODE.fullmatch(text) else ""
    hint = " (redirects are not followed: give the URL it leads to)" if 300 <= status < 400 else ""
    return Answer(
        f"it answered {status}{code}{hint}",
        again=status in RETRIED or status >= 500,
        retry_after=_seconds(error.headers.get("Retry-After")),
    )


def _seconds(retry_after: str | None) -> float:
    """The seconds in a header ``Retry-After``: a number, or a date.

    >>> _seconds("12"), _seconds("soon"), _seconds(None), _seconds("Thu, 01 Jan 1970 00:00:00 GMT")
    (12.0, 0.0, 0.0, 0.0)
    """
    if not retry_after:
        return 0.0
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - time.time())
