"""Every configuration that is shipped is one that the real Collector takes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from .programs import CONFIG, program

STANDALONE = {"collector.yaml", "gateway-agent.yaml"}
"""Configurations; the other files are added to one of them, as their first lines say."""

NO_CONFIGURATION = {"builder.yaml", "docker-compose.yaml"}

SHIPPED = sorted(path.name for path in CONFIG.glob("*.yaml") if path.name not in NO_CONFIGURATION)


def variant(file: str) -> list[str]:
    """The files of the command that a file's first comment shows."""
    comment = "".join(line for line in (CONFIG / file).read_text().splitlines(True) if line.startswith("#"))
    return re.findall(r"--config collector-config/(\S+\.yaml)", comment)


@pytest.mark.parametrize("file", SHIPPED)
def test_the_collector_takes_it(file: str, tmp_path: Path) -> None:
    files = variant(file)
    assert files[-1] == file or file in STANDALONE, f"{file} does not say how it is used"
    arguments = [argument for name in files for argument in ("--config", str(CONFIG / name))]
    checked = subprocess.run(
        [program("otelcol-tokenbudget"), "validate", *arguments],
        env={**os.environ, "COLLECTOR_STATE": str(tmp_path / "state"), "TOKENBUDGET_API_KEY": "a-key"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr[-2000:]


def test_what_takes_out_content_is_the_same_in_both() -> None:
    def content(file: str) -> str:
        text = (CONFIG / file).read_text()
        found = re.search(r"^  transform/content:\n(?:(?:    .*)?\n)+", text, re.MULTILINE)
        assert found
        return found[0].split("\n\n")[0].strip()

    assert content("collector.yaml") == content("gateway-agent.yaml")
