"""A request of OTLP as JSON.

OTLP's JSON is that of protobuf, but for two things: trace and span ids are hexadecimal, and enums are numbers.
"""

from __future__ import annotations

import importlib
import json
from base64 import b64decode
from typing import Any, Final

_SIGNALS: Final = {"traces": "trace", "metrics": "metrics", "logs": "logs"}
"""What the protobuf package of a signal is called."""

_IDS: Final = frozenset(("traceId", "spanId", "parentSpanId"))


def signal_of(url: str) -> str:
    """The signal that a URL takes, by how it ends: ``traces``, ``metrics`` or ``logs``; ``traces`` if it does not say.

    >>> signal_of("http://collector:4318/v1/metrics")
    'metrics'
    """
    last = url.rstrip("/").rpartition("/")[2]
    return last if last in _SIGNALS else "traces"


def otlp_as_json(body: bytes, signal: str = "traces") -> bytes:
    """An ``Export…ServiceRequest`` as JSON, from its protobuf.

    Args:
        body: the request.
        signal: ``traces``, ``metrics`` or ``logs``.

    Raises:
        ValueError: if it is not one.

    >>> otlp_as_json(bytes.fromhex("0a12 1210 120e 1208 0102030405060708 2a02 6869"))
    b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"0102030405060708","name":"hi"}]}]}]}'
    """
    json_format: Any = importlib.import_module("google.protobuf.json_format")
    decode_error: Any = importlib.import_module("google.protobuf.message").DecodeError
    name = _SIGNALS[signal]
    service: Any = importlib.import_module(f"opentelemetry.proto.collector.{name}.v1.{name}_service_pb2")
    try:
        request = getattr(service, f"Export{name.capitalize()}ServiceRequest").FromString(body)
    except decode_error as error:
        raise ValueError(f"no OTLP request of {signal}: {error}") from None
    document: dict[str, Any] = json_format.MessageToDict(request, use_integers_for_enums=True)
    _mend(document)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _mend(value: Any) -> None:
    """Make ids hexadecimal. What programs name is never a key of the document: attributes are lists of pairs."""
    if isinstance(value, list):
        for each in value:
            _mend(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in _IDS:
                value[key] = b64decode(each).hex()
            else:
                _mend(each)
