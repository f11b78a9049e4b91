"""The provider that all paths call, and a table of what they came to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

pytest.register_assert_rewrite("soaking")


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    """Where it listens."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "canned_provider.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as provider:
        assert provider.stdin is not None
        assert provider.stdout is not None
        yield json.loads(provider.stdout.readline())["port"]
        provider.stdin.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "memory"
    ]
    if not reports:
        return
    terminalreporter.section("memory")
    terminalreporter.line(
        f"{'path':<28}{'calls':>9}{'seconds':>9}{'resident MB':>13}{'grown MB':>10}{'without us':>12}"
    )
    for report in sorted(reports, key=lambda report: report["path"]):
        bare = f"{report['bare'] / 1e6:.2f}" if "bare" in report else ""
        terminalreporter.line(
            f"{report['path']:<28}{report['calls']:>9,}{report['seconds']:>9}{report['resident'][0] / 1e6:>13.1f}"
            f"{report['grown'] / 1e6:>10.2f}{bare:>12}"
        )
