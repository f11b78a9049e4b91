"""OTLP requests of any signal as OTLP/JSON."""

from __future__ import annotations

import base64
import importlib
import json
from typing import Any, Final

SIGNALS: Final = {"traces": "trace", "metrics": "metrics", "logs": "logs"}
"""How a URL of a signal ends, and what its protobuf package is called."""

_IDS: Final = frozenset(("traceId", "spanId", "parentSpanId"))


def otlp_json(body: bytes, url: str) -> str:
    """A request as one line of OTLP/JSON: ids in hex, enumerations as numbers.

    Args:
        body: the request as protobuf.
        url: where it goes, which says of which signal it is; else traces.

    Raises:
        ValueError: if it is no such request.

    >>> otlp_json(bytes.fromhex("0a0e 120c 120a 1208 0102030405060708"), "http://there/v1/traces")
    '{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"0102030405060708"}]}]}]}'
    """
    json_format: Any = importlib.import_module("google.protobuf.json_format")
    decode_error: Any = importlib.import_module("google.protobuf.message").DecodeError
    name = SIGNALS.get(url.rstrip("/").rpartition("/")[2], "trace")
    module: Any = importlib.import_module(f"opentelemetry.proto.collector.{name}.v1.{name}_service_pb2")
    try:
        request = getattr(module, f"Export{name.capitalize()}ServiceRequest").FromString(body)
    except decode_error as error:
        raise ValueError(f"no OTLP request of {name}: {error}") from None
    document = json_format.MessageToDict(request, use_integers_for_enums=True)
    _hex_ids(document)
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _hex_ids(value: Any) -> None:
    if isinstance(value, list):
        for each in value:
            _hex_ids(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in _IDS and isinstance(each, str):
                value[key] = base64.b64decode(each).hex()
            else:
                _hex_ids(each)
