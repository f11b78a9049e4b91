"""Every command and every program in the documents runs, against the simulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenbudget_otel.simulator import Simulator

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])

ELSEWHERE = {
    "git clone": "the checkout under test",
    "pip install": "the environment under test",
    "make": "run by .ci/run",
    "tokenbudget simulate": "serves until interrupted; tests/cli starts and stops it",
    "uvicorn": "serves until interrupted; tests/examples runs the application",
    "curl": "needs the server of the line before; tests/examples asks it",
    "python bench/": "measures for minutes; `make bench` runs them all",
    "docker": "needs a Docker engine",
}
"""Commands that are not run here, by their beginning, and where they are run instead."""

BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[object]:
    for document in DOCUMENTS:
        text = document.read_text()
        for found in BLOCK.finditer(text):
            if found.group(1) == language:
                line = text.count("\n", 0, found.start()) + 1
                yield pytest.param(found.group(2), id=f"{document.relative_to(ROOT)}:{line}")


def environment(sim: Simulator, workplace: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OPENAI_BASE_URL": sim.openai_url,
        "ANTHROPIC_BASE_URL": sim.anthropic_url,
        "OPENAI_API_KEY": "any",
        "ANTHROPIC_API_KEY": "any",
        "OTEL_SDK_DISABLED": "",
        "PYTHONWARNINGS": "ignore",
        "COLUMNS": "120",
        # There is no collector, which the OTLP exporters would wait for.
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        # What waits for receivers that are not there stays here, and not with the user who runs the tests.
        "XDG_STATE_HOME": str(workplace / "state"),
    }


def commands(block: str) -> list[str]:
    """The commands of a console block; a line that ends in a backslash goes on."""
    joined = re.sub(r"\\\n(?:> ?)?", "", block)
    return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with what the commands in the documents name."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "app.py").write_text((ROOT / "examples" / "zero_code.py").read_text())
    for document in DOCUMENTS:
        for toml in re.findall(r"^```toml\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
            if "[[model]]" in toml:
                (tmp_path / "prices.toml").write_text(toml)
    return tmp_path


@pytest.mark.parametrize("block", list(blocks("console")))
def test_commands_run(sim: Simulator, workplace: Path, block: str) -> None:
    lines = [line for line in commands(block) if not line.startswith(tuple(ELSEWHERE))]
    script = "\n".join(line for line in lines if not line.startswith("export OPENAI_") or "127.0.0.1" not in line)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=workplace,
        env=environment(sim, workplace),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    # 1 is an answer, not a failure: a budget stopped the program, a model is unknown, doctor found something.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr or "BudgetExceeded" in done.stderr, done.stderr


@pytest.mark.parametrize("block", list(blocks("python")))
def test_programs_run(sim: Simulator, workplace: Path, block: str) -> None:
    (workplace / "program.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=workplace,
        env=environment(sim, workplace),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
