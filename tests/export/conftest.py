"""A receiver, a spool in a folder of its own, and real exporters that are put together from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from export_requests import Tracing
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from receiver import Receiver

from tokenbudget_otel.export import Spool, SpoolingSession

FAST: dict[str, Any] = {"first_wait": 0.01, "longest_wait": 0.2, "close_timeout": 1.0}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def make_spool(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    made: list[Spool] = []

    def make(**options: Any) -> Spool:
        spool = Spool(options.pop("folder", tmp_path / "spool"), **{**FAST, **options})
        made.append(spool)
        return spool

    yield make
    for spool in made:
        spool.close(0)


@pytest.fixture
def tracing(receiver: Receiver, make_spool: Callable[..., Spool]) -> Iterator[Callable[..., Tracing]]:
    made: list[Tracing] = []

    def make(spool: Spool | None = None, session: dict[str, Any] | None = None, **options: Any) -> Tracing:
        spool = spool or make_spool()
        exporter = OTLPSpanExporter(
            options.pop("url", receiver.url), session=SpoolingSession(spool, **(session or {})), **options
        )
        found = Tracing(spool, exporter)
        made.append(found)
        return found

    yield make
    receiver.release()
    for each in made:
        each.provider.shutdown()
