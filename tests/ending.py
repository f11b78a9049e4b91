"""Servers that end with the tests that started them."""

from __future__ import annotations

import shutil


def ending_with_parent(command: list[str]) -> list[str]:
    """A command whose program is killed when its parent dies: a test run that is killed leaves no server behind.

    Not by a function in the forked child (``preexec_fn``): there OpenTelemetry's hooks would run for every provider
    that the tests have made so far, which takes seconds.
    """
    setpriv = shutil.which("setpriv")  # Linux has it
    return command if setpriv is None else [setpriv, "--pdeathsig", "KILL", *command]
