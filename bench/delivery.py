"""What delivery adds to a program: with a receiver that is well, with one that hangs, and without a spool.

    python bench/delivery.py [--spans 20000] [--rounds 5]

The first figure is what the program's own thread waits for at the end of a span, under a BatchSpanProcessor over the
standard OTLP exporter with a spool: with a healthy receiver and with one that takes requests and never answers, round
by round in turns. The second is export() itself, on the processor's thread: written ahead to disk, beside the bare
exporter that posts to a healthy receiver and waits for its answer. Of all rounds the best counts.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenbudget_otel.export import Spool, SpoolingSession

BATCH = 512

RECEIVER = """
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if sys.argv[1] == "hangs":
            threading.Event().wait()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
"""
"""A receiver in a process of its own: in this one it would be measured as well."""


@contextmanager
def receiver(manner: str) -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", RECEIVER, manner], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1/traces"
        process.kill()


@contextmanager
def spooled(url: str) -> Iterator[SpanExporter]:
    folder = tempfile.mkdtemp()
    spool = Spool(folder, close_timeout=0)
    yield OTLPSpanExporter(url, session=SpoolingSession(spool))
    spool.close(0)
    shutil.rmtree(folder, ignore_errors=True)


def span_ends(exporter: SpanExporter, spans: int) -> list[float]:
    """Seconds that the end of each span took."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=spans + 1, schedule_delay_millis=100))
    tracer = provider.get_tracer("bench")
    took = []
    for number in range(spans):
        span = tracer.start_span("chat gpt-5", attributes={"gen_ai.request.model": "gpt-5", "number": number})
        begun = time.perf_counter()
        span.end()
        took.append(time.perf_counter() - begun)
        if number % 100 == 0:
            time.sleep(0.001)  # a program that makes spans does something between them
    provider.shutdown()
    return took


def batch() -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("bench")
    for number in range(BATCH):
        tracer.start_span("chat gpt-5", attributes={"gen_ai.request.model": "gpt-5", "number": number}).end()
    return list(memory.get_finished_spans())


def exports(exporter: SpanExporter, spans: list[ReadableSpan], times: int) -> float:
    """Spans that go through export() in a second."""
    exporter.export(spans)
    begun = time.perf_counter()
    for _ in range(times):
        exporter.export(spans)
    return len(spans) * times / (time.perf_counter() - begun)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("tokenbudget_otel").setLevel(logging.CRITICAL)

    ends: dict[str, list[list[float]]] = {"healthy": [], "hangs": []}
    rates: dict[str, list[float]] = {"bare exporter": [], "spool, healthy": [], "spool, hangs": []}
    spans = batch()
    with receiver("healthy") as healthy, receiver("hangs") as hanging:
        urls = {"healthy": healthy, "hangs": hanging}
        for _ in range(arguments.rounds):
            for manner, url in urls.items():
                with spooled(url) as exporter:
                    ends[manner].append(span_ends(exporter, arguments.spans))
                with spooled(url) as exporter:
                    rates[f"spool, {manner}"].append(exports(exporter, spans, 20))
            bare = OTLPSpanExporter(healthy)
            rates["bare exporter"].append(exports(bare, spans, 20))
            bare.shutdown()

    print(f"end of a span, in the program's thread (µs; {arguments.spans:,} spans, best of {arguments.rounds} rounds)")
    best = {}
    for manner, rounds in ends.items():
        best[manner] = [min(found) for found in zip(*(figures(each) for each in rounds), strict=True)]
        print(line(f"receiver {manner}", best[manner]))
    ratios = [hangs / healthy for hangs, healthy in zip(best["hangs"], best["healthy"], strict=True)]
    print(line("hangs / healthy", ratios))
    print(f"export() of {BATCH} spans, on the processor's thread (spans/s, best round)")
    floor = max(rates["bare exporter"])
    for name, found in rates.items():
        print(f"  {name:<16} {max(found):>10,.0f}  {max(found) / floor:5.2f}x")


def line(name: str, values: list[float]) -> str:
    mean, median, most, nearly_all = values
    return f"  {name:<18} mean {mean:6.2f}  median {median:6.2f}  99 % {most:6.2f}  99.9 % {nearly_all:7.2f}"


def figures(took: list[float]) -> tuple[float, float, float, float]:
    return statistics.fmean(took) * 1e6, percentile(took, 0.5), percentile(took, 0.99), percentile(took, 0.999)


if __name__ == "__main__":
    main()
