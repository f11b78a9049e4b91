"""The room for delivery: exporters that keep on disk what cannot be sent now, and send it later, once.

    >>> from tokenbudget_otel.export import Spool, SpoolingSession

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenbudget_otel.export.grpc import SpooledGrpcSpanExporter as SpooledGrpcSpanExporter
    from tokenbudget_otel.export.session import SpoolingSession as SpoolingSession
    from tokenbudget_otel.export.spool import Spool as Spool
    from tokenbudget_otel.export.spool_error import SpoolError as SpoolError
    from tokenbudget_otel.export.spooled_otlp import SpooledOTLPSpanExporter as SpooledOTLPSpanExporter
    from tokenbudget_otel.export.tokenbudget import TokenBudgetSpanExporter as TokenBudgetSpanExporter
    from tokenbudget_otel.export.wire import Answer as Answer
    from tokenbudget_otel.export.wire import HttpWire as HttpWire
    from tokenbudget_otel.export.wire import Wire as Wire

_HOME = {
    "Answer": "wire",
    "HttpWire": "wire",
    "Spool": "spool",
    "SpoolError": "spool_error",
    "SpooledGrpcSpanExporter": "grpc",
    "SpooledOTLPSpanExporter": "spooled_otlp",
    "SpoolingSession": "session",
    "TokenBudgetSpanExporter": "tokenbudget",
    "Wire": "wire",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
