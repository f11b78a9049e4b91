"""Commands in processes of their own, and programs with real SDKs for `tokenbudget run` to run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tokenbudget_otel.simulator import Simulator

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    report: dict[str, Any]
    """What ``--json`` wrote; empty if nothing."""

    @property
    def calls(self) -> int:
        calls: int = self.report["totals"]["calls"]
        return calls


class Cli:
    """Starts ``tokenbudget``, with programs written to files of a folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def program(self, text: str, name: str = "app.py") -> str:
        (self.folder / name).write_text(text)
        return name

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(BIN / "tokenbudget"), *arguments],
            cwd=self.folder,
            env=self.environment | options.pop("env", {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> Ran:
        started = self.start(*arguments, env=env or {})
        out, err = started.communicate(timeout=60)
        return Ran(started.returncode, out, err, {})

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Ran:
        """``tokenbudget run`` with a report in JSON."""
        file = self.folder / "report.json"
        ran = self("run", "--json", str(file), *arguments, env=env)
        text = file.read_text() if file.exists() else ""
        return Ran(ran.code, ran.stdout, ran.stderr, json.loads(text) if text else {})


@pytest.fixture
def cli(sim: Simulator, tmp_path: Path) -> Cli:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON", "TOKEN"))
    }
    return Cli(
        tmp_path,
        environment
        | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "OPENAI_BASE_URL": sim.openai_url,
            "ANTHROPIC_BASE_URL": sim.anthropic_url,
            "TOKENBUDGET_HOSTS": f"{sim.openai_url}=openai",
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_API_KEY": "any",
            "COLUMNS": "140",
        },
    )


@pytest.fixture
def until() -> Iterator[Callable[[subprocess.Popen[str], str], None]]:
    """Reads a started command's output up to a line."""

    def wait(started: subprocess.Popen[str], line: str) -> None:
        assert started.stdout is not None
        for read in started.stdout:
            if read.strip() == line:
                return
        raise AssertionError(f"ended before it said {line!r}: {started.stderr.read() if started.stderr else ''}")

    yield wait
