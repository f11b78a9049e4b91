"""Whether `tokenbudget doctor` can reach what spans are sent to."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from tokenbudget_otel.cli.findings import Finding


def reach(name: str, endpoint: str) -> Finding:
    """Whether somebody takes connections at an endpoint. Nothing is sent there."""
    try:
        url = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        host, port = url.hostname, url.port or (443 if url.scheme == "https" else 80)
    except ValueError as error:
        return Finding("attention", name, f"{endpoint!r} is no address: {error}")
    if not host:
        return Finding("attention", name, f"{endpoint!r} names no host")
    try:
        # A connection only: what is sent there is for exporters to send.
        with socket.create_connection((host, port), timeout=1):
            return Finding("ok", name, f"{endpoint} can be reached")
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding(
            "attention", name, f"{endpoint} cannot be reached: {reason}", "start the collector, or set another"
        )
