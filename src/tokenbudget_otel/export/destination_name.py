"""What the folder of a destination is called, and what of its URL may be written down."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_OF_THE_REQUEST: Final = frozenset(
    ("content-type", "content-encoding", "content-length", "user-agent", "accept", "accept-encoding", "connection")
)
"""Headers that say nothing of who sends, or to which account."""


def public_url(url: str) -> str:
    """A URL without what may be secret: name, password and query.

    >>> public_url("https://me:secret@collector:4318/v1/traces?key=secret")
    'https://collector:4318/v1/traces'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def destination_name(url: str, headers: Mapping[str, str]) -> str:
    """A name that can be read, and differs for each URL and each account (set of headers) at it.

    >>> destination_name("http://collector:4318/v1/traces", {})
    'collector-4318-v1-traces-1c962cc4fb'
    >>> destination_name("http://collector:4318/v1/traces", {"X-Key": "a"}) == destination_name(
    ...     "http://collector:4318/v1/traces", {"X-Key": "b"})
    False
    """
    account = sorted(
        (name.lower(), str(value)) for name, value in headers.items() if name.lower() not in _OF_THE_REQUEST
    )
    parts = urlsplit(public_url(url))
    readable = re.sub(r"[^a-z0-9.]+", "-", f"{parts.netloc}{parts.path}".lower()).strip("-.")[:60]
    digest = hashlib.sha256(repr((url, account)).encode()).hexdigest()[:10]
    return f"{readable}-{digest}"
