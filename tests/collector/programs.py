"""The real programs on ports of the test's own: the Collector with the shipped configuration, Jaeger, Prometheus.

>>> with Jaeger() as jaeger, Collector(JAEGER_ENDPOINT=jaeger.otlp) as collector:  # doctest: +SKIP
...     send_spans_to(collector.otlp_http)
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import pytest

from ending import ending_with_parent

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = ROOT / "collector-config"


def program(name: str) -> str:
    """Where a program is. Skips where it is not; where everything is installed, it has to be there.

    ``tools/programs.sh`` builds ``otelcol-tokenbudget`` and ``jaeger``; others are looked for on the path.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenbudget-otel" / "programs"
    built = Path(os.environ.get("TOKENBUDGET_PROGRAMS") or cache) / name
    if os.access(built, os.X_OK):
        return str(built)
    if found := shutil.which(name):
        return found
    verdict = pytest.fail if os.environ.get("TOKENBUDGET_CI") else pytest.skip
    return verdict(f"{name} is not there (tools/programs.sh builds the Collector and Jaeger)")


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, each another."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def get(url: str, headers: dict[str, str] | None = None) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
        return answer.read().decode()


def eventually(look: Callable[[], Any], seconds: float = 30) -> Any:
    """What ``look`` gives, as soon as that is true; an error of its own after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := look():
                return found
            why: object = "it gave nothing"
        except (OSError, AssertionError) as error:
            why = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {why}")
        time.sleep(0.05)


class Running:
    """A program in a directory of its own, from ``start`` to ``stop``."""

    command: list[str]
    environment: dict[str, str]
    ready: str
    """An address that answers once the program is up."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-"))

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def start(self) -> Self:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ending_with_parent(self.command),
                env={**os.environ, **self.environment},
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(self._up)
        except AssertionError as late:
            self.kill()
            raise RuntimeError(f"{self.command[0]} did not start: {late}\n{self.log[-4000:]}") from None
        return self

    def _up(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.command[0]} ended with {self.process.returncode}\n{self.log[-4000:]}")
        get(self.ready)
        return True

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """As an operator would: it may finish what it does."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Collector(Running):
    """The Collector with shipped files, and variables of the configuration.

    Attributes: ``otlp_grpc`` (``host:port``), ``otlp_http`` (URL), ``metrics`` and ``expensive`` (``host:port`` for
    Prometheus), ``telemetry`` (``host:port``: the Collector about itself).
    """

    def __init__(self, *files: str, **variables: str) -> None:
        super().__init__()
        grpc, http, health, metrics, expensive, spans, telemetry = free_ports(7)
        self.otlp_grpc, self.otlp_http = f"127.0.0.1:{grpc}", f"http://127.0.0.1:{http}"
        self.metrics, self.expensive = f"127.0.0.1:{metrics}", f"127.0.0.1:{expensive}"
        self.spans, self.telemetry = f"127.0.0.1:{spans}", f"127.0.0.1:{telemetry}"
        self.ready = f"http://127.0.0.1:{health}/"
        self.command = [program("otelcol-tokenbudget")]
        for file in files or ("collector.yaml",):
            self.command += ["--config", str(CONFIG / file)]
        nobody = f"127.0.0.1:{free_ports(1)[0]}"
        self.environment = {
            "OTLP_GRPC_ADDRESS": self.otlp_grpc,
            "OTLP_HTTP_ADDRESS": f"127.0.0.1:{http}",
            "HEALTH_ADDRESS": f"127.0.0.1:{health}",
            "PROMETHEUS_ADDRESS": self.metrics,
            "PROMETHEUS_EXPENSIVE_ADDRESS": self.expensive,
            "PROMETHEUS_SPANS_ADDRESS": self.spans,
            "TELEMETRY_PORT": str(telemetry),
            "COLLECTOR_STATE": str(self.directory / "state"),
            "METRICS_DELAY": "50ms",
            "JAEGER_ENDPOINT": nobody,
            "TOKENBUDGET_ENDPOINT": f"http://{nobody}",
            "TOKENBUDGET_API_KEY": "a-key",
            **variables,
        }

    def scrape(self) -> str:
        """What Prometheus would read at all of its addresses, in OpenMetrics."""
        return "\n".join(
            get(f"http://{address}/metrics", {"Accept": "application/openmetrics-text"})
            for address in (self.metrics, self.expensive, self.spans)
        )


class Jaeger(Running):
    """Jaeger in memory. ``otlp`` takes spans (gRPC, ``host:port``), ``query`` is the URL of its API."""

    def __init__(self) -> None:
        super().__init__()
        otlp, query, query_grpc = free_ports(3)
        self.otlp, self.query = f"127.0.0.1:{otlp}", f"http://127.0.0.1:{query}"
        self.ready = f"{self.query}/api/services"
        self.command = [program("jaeger"), "--config", str(Path(__file__).with_name("jaeger.yaml"))]
        self.environment = {"OTLP_PORT": str(otlp), "QUERY_PORT": str(query), "QUERY_GRPC_PORT": str(query_grpc)}

    def api(self, path: str) -> Any:
        return json.loads(get(f"{self.query}/api/{path}"))


class Prometheus(Running):
    """Prometheus with a configuration, which may name files beside ``rules``."""

    def __init__(self, configuration: str, *options: str) -> None:
        super().__init__()
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.ready = f"{self.url}/-/ready"
        (self.directory / "prometheus.yml").write_text(configuration)
        self.command = [
            program("prometheus"),
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            *options,
        ]
        self.environment = {}

    def query(self, promql: str) -> list[dict[str, Any]]:
        from urllib.parse import urlencode

        return json.loads(get(f"{self.url}/api/v1/query?{urlencode({'query': promql})}"))["data"]["result"]
