"""Programs started by `opentelemetry-instrument`, and what tests ask of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from zero_collector import Collector

BIN: Final = Path(sys.executable).parent
OURS: Final = ("OTEL_", "PYTHON", "TOKENBUDGET_")

OFFICIAL: Final = "openai,anthropic"
"""The entry points of OpenTelemetry's own packages for these SDKs."""


class ZeroCode:
    """A folder with programs in it, and the environment that they run in."""

    def __init__(self, folder: Path, environment: dict[str, str], collector: Collector) -> None:
        self.folder = folder
        self.environment = environment
        self.collector = collector
        self._started: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name

    def start(self, *command: str, under: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
        """Start a command under `opentelemetry-instrument`, and that under something else perhaps."""
        started = subprocess.Popen(
            [*under, "opentelemetry-instrument", *command],
            cwd=self.folder,
            env=self.environment | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(started)
        return started

    def run(self, program: str, **env: str) -> tuple[str, str]:
        """Run a program to its end, and give what it said on stdout and stderr."""
        (self.folder / "app.py").write_text(program)
        started = self.start("python", "app.py", **env)
        out, err = started.communicate(timeout=60)
        assert started.returncode == 0, err
        return out, err

    def stop(self, started: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[str, str]:
        """Ask a server to stop, and give what it said."""
        started.send_signal(how)
        return started.communicate(timeout=30)

    def end_all(self) -> None:
        for started in self._started:
            try:
                os.killpg(started.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            started.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def until(what: Callable[[], Any], seconds: float = 20, server: subprocess.Popen[str] | None = None) -> Any:
    """Wait for something that comes true by itself, and give it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server is not None and server.poll() is not None:
            pytest.fail(f"the server has ended:\n{server.stderr.read() if server.stderr else ''}")
        try:
            if found := what():
                return found
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"nothing came of it in {seconds} seconds")


def get(port: int, path: str = "/") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
    return text
