"""What the tests of Google's SDKs share: clients of the simulator, sync and async, over each HTTP library."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

genai = pytest.importorskip("google.genai", reason="google-genai is not installed")

MODEL = "gemini-2.5-flash"
NEWER = "gemini-3-pro-preview"
PROMPT = "Tell me a story about a river."
VERSION = int(genai.__version__.split(".")[0])

KEPT: list[Any] = []
"""Clients of the test that runs: one that is dropped closes its connections."""


def unverified() -> ssl.SSLContext:
    """A TLS context without certificates; loading them takes longer than a whole test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def make(sim: Any, *, vertex: bool = False, attempts: int = 1, **options: Any) -> Any:
    """A client; ``attempts`` is how often it sends a request."""
    made = {
        "base_url": sim.google_url,
        "timeout": 20_000,
        "client_args": {"verify": unverified()},
        "async_client_args": {"verify": unverified(), "ssl": unverified()},
        "retry_options": {"attempts": attempts, "initial_delay": 0.001, "max_delay": 0.002, "jitter": 0.0},
    }
    client = genai.Client(api_key="any", vertexai=vertex, http_options=made | options)
    if VERSION == 2:  # counts retries of interactions there, and lets nobody set none
        client._api_client._http_options.retry_options.attempts = attempts - 1
    KEPT.append(client)
    return client


def of_mode(client: Any, mode: str) -> Any:
    return client.aio if mode == "async" else client


both = pytest.mark.parametrize("mode", ["sync", "async"])
