"""Spans over OTLP/gRPC, from a spool. (the body follows)"""

from __future__ import annotations


class SpooledGrpcSpanExporter:
    pass
