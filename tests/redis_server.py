"""Redis servers of the tests' own: started on a free port with the settings a test wants, and ended with it."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from ending import ending_with_parent


def need_redis() -> None:
    """Skip where there is no Redis. Where everything is installed, it has to be there."""
    missing = []
    if shutil.which("redis-server") is None:
        missing.append("redis-server is not installed")
    try:
        import redis  # noqa: F401
    except ImportError:
        missing.append("the library redis is not installed")
    if missing:
        (pytest.fail if os.environ.get("TOKENBUDGET_CI") else pytest.skip)(", ".join(missing))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """``redis-server`` in a directory of its own. Settings are those of its configuration file.

    It keeps nothing on disk unless told so.
    """

    def __init__(self, **settings: str) -> None:
        need_redis()
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.port = free_port()
        self.socket = self.directory / "redis.sock"
        self.settings = {"save": "", "appendonly": "no", **settings}
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        config = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            **self.settings,
        }
        empty = '""'
        lines = [f"{name.replace('_', '-')} {value or empty}" for name, value in config.items()]
        (self.directory / "redis.conf").write_text("\n".join(lines) + "\n")
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(
            ending_with_parent(["redis-server", str(self.directory / "redis.conf")]),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        for _ in range(500):
            try:
                if self.client().ping():
                    return
            except Exception:
                if self.process.poll() is not None:
                    break
                time.sleep(0.01)
        raise RuntimeError((self.directory / "log").read_text())

    def client(self):
        import redis

        return redis.Redis(unix_socket_path=str(self.socket))

    def kill(self) -> None:
        """As a power cut would: nothing is saved."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


@functools.cache
def shared_server() -> RedisServer:
    """One server for all tests of this process that leave it as it is."""
    server = RedisServer()
    atexit.register(server.stop)
    return server
