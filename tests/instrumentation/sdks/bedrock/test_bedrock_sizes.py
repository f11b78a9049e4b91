"""What a request to Bedrock may cost at most, from its body alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenbudget_otel.instrumentation.bedrock_bodies import size

TEXT = {"type": "text", "text": "A long story.", "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("body", "ttl"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}]}, "none"),
        ({"messages": [{"role": "user", "content": [TEXT]}]}, "5m"),
        ({"system": [TEXT | {"cache_control": {"type": "ephemeral", "ttl": "1h"}}], "messages": []}, "1h"),
        ({"tools": [{"name": "now", "cache_control": {"type": "ephemeral"}}], "messages": []}, "5m"),
        ({"messages": [{"role": "user", "content": [{"text": "Hi"}, {"cachePoint": {"type": "default"}}]}]}, "5m"),
    ],
    ids=["none", "a message", "an hour", "a tool", "Nova"],
)
def test_cache_writes_are_reserved(body: dict[str, Any], ttl: str) -> None:
    params = {"modelId": "anthropic.claude-sonnet-4-5-20250929-v1:0", "body": json.dumps(body)}
    assert size(body, params).cache_write_ttl == ttl
