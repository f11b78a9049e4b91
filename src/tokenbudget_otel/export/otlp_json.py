"""A request of OTLP as JSON.

OTLP's JSON is that of protobuf, but for two things: trace and span ids are hexadecimal, and enums are numbers.
"""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any, Final

_IDS: Final = ("traceId", "spanId", "parentSpanId")


def traces_as_json(body: bytes) -> bytes:
    """An ``ExportTraceServiceRequest`` as JSON, from its protobuf.

    Raises:
        ValueError: if it is not one.

    >>> traces_as_json(bytes.fromhex("0a12 1210 120e 1208 0102030405060708 2a02 6869"))
    b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"0102030405060708","name":"hi"}]}]}]}'
    """
    from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError(f"no request of OTLP: {error}") from None
    document: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    for resource in document.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                _mend(span)
                for link in span.get("links", ()):
                    _mend(link)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _mend(item: dict[str, Any]) -> None:
    for name in _IDS:
        if name in item:
            item[name] = b64decode(item[name]).hex()
