"""A process that is killed before or after any of its system calls loses nothing that it has handed over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_anywhere.py")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("max_bytes", [100_000, 500], ids=["room", "no room"])
def test_killed_at_every_step(tmp_path: Path, max_bytes: int, when: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(max_bytes), when], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[2]) > 20  # "killed at N steps"
