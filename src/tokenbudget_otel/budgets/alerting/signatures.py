"""Signatures of webhooks: whoever shares the secret can tell that a request is ours, unchanged, and of now."""

from __future__ import annotations

import hashlib
import hmac
import time

TIMESTAMP = "X-TokenBudget-Timestamp"
"""Header: when the request was sent, in whole seconds since 1970."""

SIGNATURE = "X-TokenBudget-Signature"
"""Header: ``sha256=`` and the HMAC of ``timestamp.body`` in hexadecimal digits."""

DELIVERY = "X-TokenBudget-Delivery"
"""Header: the ``id`` of the event, the same each time that its delivery is tried."""


def sign(secret: str, timestamp: int | str, body: bytes) -> str:
    """The signature of a body that is sent at a time.

    >>> sign("secret", 1_795_374_000, b"{}")[:15]
    'sha256=0c3f3010'
    """
    return f"sha256={hmac.new(secret.encode(), f'{timestamp}.'.encode() + body, hashlib.sha256).hexdigest()}"


def verify_signature(
    secret: str,
    timestamp: str | int | None,
    body: bytes | str,
    signature: str | None,
    tolerance: float = 300,
    *,
    now: float | None = None,
) -> bool:
    """Whether a request that claims to be an alert of ours is one: for those who receive webhooks.

    Args:
        secret: what the :class:`.Alert` was declared with.
        timestamp: header ``X-TokenBudget-Timestamp``; ``None`` where it is missing.
        body: the body as it came, before it is parsed.
        signature: header ``X-TokenBudget-Signature``; ``None`` where it is missing.
        tolerance: seconds that the time in the request may be away from now, either way. Older ones may be
            copies that somebody kept.
        now: seconds since 1970; by default those of the clock.

    >>> signature = sign("secret", 1_795_374_000, b"{}")
    >>> verify_signature("secret", "1795374000", b"{}", signature, now=1_795_374_010)
    True
    >>> verify_signature("secret", "1795374000", b"{ }", signature, now=1_795_374_010)
    False
    """
    if not secret or timestamp is None or signature is None:
        return False
    try:
        age = (time.time() if now is None else now) - int(timestamp)
    except ValueError:
        return False
    expected = sign(secret, timestamp, body.encode() if isinstance(body, str) else body)
    # As bytes: text beyond ASCII, which compare_digest refuses, is a wrong signature and no error.
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")) and abs(age) <= tolerance
