"""A program with a real tracer provider, to be killed: makes spans until it is told to end, and books each that it has
handed over with an unbuffered write."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from export_requests import Recording
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tokenbudget_otel.export import Spool, SpoolingSession
from tokenbudget_otel.export.folder import Folder


class Booking(Recording):
    def __init__(self, exporter: Any, log: int) -> None:
        super().__init__(exporter)
        self._log = log

    def export(self, spans: Any) -> Any:
        self.handed.clear()
        result = super().export(spans)
        os.write(self._log, "".join(f"{trace} {span}\n" for trace, span in self.handed).encode())
        return result


def _small_disk(folder: Path, size: int) -> None:
    """Have the disk seem full when so many bytes are in the folder."""
    real = Folder._write

    def write(path: Path, body: bytes) -> None:
        if sum(found.stat().st_size for found in folder.glob("*/*.otlp") if found.exists()) + len(body) > size:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, body)

    Folder._write = staticmethod(write)  # type: ignore[method-assign]


def main(url: str, folder: str, log: str, options: dict[str, Any]) -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    Path(f"{log}.{os.getpid()}").touch()  # from now on it can be told to end
    if disk := options.pop("disk", None):
        _small_disk(Path(folder), disk)
    spool = Spool(folder, first_wait=0.05, longest_wait=0.5, **options)
    session = SpoolingSession(spool)
    session.begin(url)
    exporter = Booking(
        OTLPSpanExporter(url, session=session, timeout=1, compression=Compression.Gzip),
        os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    )
    provider = TracerProvider()  # shut down at exit, as it is by default
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=50, max_export_batch_size=64))
    tracer = provider.get_tracer("chaos")
    while not ended:
        for number in range(10):
            with tracer.start_as_current_span(f"call {number}") as span:
                span.set_attribute("text", "x" * 100)
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:4], json.loads(sys.argv[4]))
