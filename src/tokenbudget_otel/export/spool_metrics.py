"""What a spool holds and has dropped, as OpenTelemetry metrics."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from tokenbudget_otel.version import __version__

if TYPE_CHECKING:
    from tokenbudget_otel.export.folder import Folder

METRIC_DROPPED: Final = "tokenbudget.spool.dropped"
METRIC_DELIVERED: Final = "tokenbudget.spool.delivered"
METRIC_REFUSED: Final = "tokenbudget.spool.refused"
METRIC_BYTES: Final = "tokenbudget.spool.bytes"
METRIC_FILES: Final = "tokenbudget.spool.files"
REASON: Final = "tokenbudget.spool.reason"

REASONS: Final = ("full", "too_large", "rejected", "unwritable")


def observe(folder: Folder, provider: MeterProvider) -> None:
    """Show a spool whenever metrics are collected, as long as it lives."""
    spool = weakref.ref(folder)
    meter = provider.get_meter("tokenbudget_otel.export", __version__)

    def dropped(_: CallbackOptions) -> Iterable[Observation]:
        if (found := spool()) is not None:
            for reason in REASONS:
                yield Observation(found.counts[f"dropped.{reason}"], {REASON: reason})

    def counted(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observations(_: CallbackOptions) -> Iterable[Observation]:
            if (found := spool()) is not None:
                yield Observation(found.counts[name])

        return observations

    def held(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observations(_: CallbackOptions) -> Iterable[Observation]:
            if (found := spool()) is not None:
                yield Observation(found.tally.read()[name])

        return observations

    meter.create_observable_counter(
        METRIC_DROPPED, [dropped], "{item}", "Spans (metrics, log records) that this process gave up, by reason."
    )
    meter.create_observable_counter(
        METRIC_DELIVERED, [counted("delivered")], "{item}", "Spans (metrics, log records) that receivers took."
    )
    meter.create_observable_counter(
        METRIC_REFUSED, [counted("refused")], "{item}", "Spans (metrics, log records) that receivers refused."
    )
    meter.create_observable_gauge(METRIC_BYTES, [held("bytes")], "By", "What all processes keep in the spool.")
    meter.create_observable_gauge(METRIC_FILES, [held("files")], "{file}", "Requests in the spool.")
