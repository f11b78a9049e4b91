"""Where the TokenBudget backend is, and how it is spoken to: read from arguments and the environment, and checked."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

ENDPOINT: Final = "TOKENBUDGET_ENDPOINT"
API_KEY: Final = "TOKENBUDGET_API_KEY"
COMPRESSION: Final = "TOKENBUDGET_COMPRESSION"
TIMEOUT: Final = "TOKENBUDGET_TIMEOUT"
ALL_SPANS: Final = "TOKENBUDGET_EXPORT_ALL_SPANS"

DEFAULT_ENDPOINT: Final = "http://localhost:8000"
PATH: Final = "/v1/traces"
COMPRESSIONS: Final = ("gzip", "deflate", "none")
DEFAULT_TIMEOUT_S: Final = 10.0

_FLAGS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_HOST: Final = re.compile(r"[^\s/?#@\x00-\x20\\]+")


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How the TokenBudget backend is reached.

    Attributes:
        url: of its traces, whole.
        api_key: what it knows the sender by; never shown.
        compression: ``gzip``, ``deflate`` or ``none``.
        timeout: seconds that a request may take.
        all_spans: whether spans of anything are sent, and not only those of LLM calls.
    """

    url: str
    api_key: str | None = field(repr=False)
    compression: str
    timeout: float
    all_spans: bool

    @property
    def headers(self) -> dict[str, str]:
        """What says who sends."""
        if self.api_key is None:
            return {}
        return {"Authorization": f"Bearer {self.api_key}", "X-TokenBudget-Key": self.api_key}

    @property
    def lacks_key(self) -> bool:
        """Whether a key is missing where one is surely wanted: on another machine."""
        return self.api_key is None and not is_loopback(self.url)


def backend_options(
    endpoint: object = None,
    api_key: object = None,
    compression: object = None,
    timeout: object = None,
    all_spans: object = None,
) -> BackendOptions:
    """What the arguments say; where they say nothing, what the environment does.

    Raises:
        ValueError: for what cannot be meant. It names the argument or the variable, and what to do.

    >>> backend_options("https://tokenbudget.example.com/", "tb_ak_1", all_spans=False).url
    'https://tokenbudget.example.com/v1/traces'
    >>> backend_options("tokenbudget.example.com")
    Traceback (most recent call last):
    ...
    ValueError: endpoint: 'tokenbudget.example.com' is no http(s) URL: give one such as https://tokenbudget.example.com
    """
    return BackendOptions(
        url=_said("endpoint", endpoint, ENDPOINT, checked_endpoint, f"{DEFAULT_ENDPOINT}{PATH}"),
        api_key=_said("api_key", api_key, API_KEY, checked_key, None),
        compression=_said("compression", compression, COMPRESSION, checked_compression, COMPRESSIONS[0]),
        timeout=_said("timeout", timeout, TIMEOUT, checked_timeout, DEFAULT_TIMEOUT_S),
        all_spans=_said("all_spans", all_spans, ALL_SPANS, checked_flag, False),
    )


def _said(argument: str, value: object, variable: str, check: Callable[[str, Any], Any], default: Any) -> Any:
    if value is not None:
        return check(argument, value)
    # A variable that is empty or blank counts as not set, as OpenTelemetry's do. A key is never stripped: what it ends
    # in may be the mistake.
    if (said := os.environ.get(variable, "")).strip():
        return check(variable, said)
    return default


def checked_endpoint(name: str, value: object) -> str:
    """The whole URL of the backend's traces.

    >>> checked_endpoint("endpoint", "http://localhost:8000/v1/traces")
    'http://localhost:8000/v1/traces'
    >>> checked_endpoint("endpoint", "https://example.com/tokenbudget")
    'https://example.com/tokenbudget/v1/traces'
    """
    text = value.strip() if isinstance(value, str) else ""
    parts = _parts(text)
    if parts is not None and ("@" in parts.netloc or parts.password):
        raise ValueError(f"{name}: a URL with a name or a password in it is not taken: give the key as {API_KEY}")
    if parts is None or parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.netloc):
        shown = repr(text) if isinstance(value, str) and "@" not in value else "what it says"
        raise ValueError(f"{name}: {shown} is no http(s) URL: give one such as https://tokenbudget.example.com")
    if parts.fragment:
        raise ValueError(f"{name}: {text!r} has a fragment (#{parts.fragment}): leave it out")
    path = parts.path.rstrip("/")
    if not path.endswith(PATH):
        path += PATH
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _parts(text: str) -> SplitResult | None:
    """A URL in its parts; None where it is none, or has a port that is none."""
    if not text or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def checked_key(name: str, value: object) -> str:
    """A key that may stand in a header. What it is, no message says."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: the key must be a string that is not empty")
    if "\n" in value or "\r" in value:
        raise ValueError(
            f"{name}: the key has a line break in it, which no HTTP header may have: take it out "
            "(a file that the key is read from may end in one)"
        )
    if not all("!" <= character <= "~" for character in value):
        raise ValueError(
            f"{name}: the key has a space, or a character that is not printable ASCII, in it, which an HTTP header may "
            "not have there: give the key as the backend shows it, without anything around it"
        )
    return value


def checked_compression(name: str, value: object) -> str:
    """``gzip``, ``deflate`` or ``none``; OpenTelemetry's own ``Compression`` is one of them too."""
    text = str(getattr(value, "value", value)).strip().lower()
    if text not in COMPRESSIONS:
        raise ValueError(f"{name}: compression {text!r} is not known: give one of {', '.join(COMPRESSIONS)}")
    return text


def checked_timeout(name: str, value: object) -> float:
    """Seconds, above 0.

    >>> checked_timeout("TOKENBUDGET_TIMEOUT", "2.5")
    2.5
    """
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name}: {value!r} is no time limit: give a number of seconds above 0, such as 10")
    return seconds


def checked_flag(name: str, value: object) -> bool:
    """True or false, also as a word."""
    flag = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise ValueError(f"{name}: {value!r} is neither true nor false: give one of them")
    return flag


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine.

    >>> is_loopback("http://localhost:8000"), is_loopback("http://[::1]"), is_loopback("https://example.com")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def shown_key(key: str) -> str:
    """The last four characters of a key, where that leaves most of it untold.

    >>> shown_key("tb_ak_0123456789abcdef"), shown_key("secret")
    ('…cdef', '…')
    """
    return f"…{key[-4:]}" if len(key) >= 16 else "…"
