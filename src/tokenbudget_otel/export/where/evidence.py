"""What a machine says of itself without a network: its environment variables and a few small files."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

MAX_CHARACTERS: Final = 256 * 1024
"""Of a file, this much is read. The longest, a table of mounts, has some tens of kilobytes."""


class Evidence:
    """The variables and files of a machine. Nothing here raises, waits or asks another machine.

    Args:
        root: the folder that stands for ``/``; for tests.
        environ: the variables; those of the process if left out.
        hostname: gives the name of the machine.

    >>> evidence = Evidence(environ={"POD_NAME": " web-1 "})
    >>> evidence.variable("K8S_POD_NAME", "POD_NAME")
    'web-1'
    >>> evidence.file("/no/such/file")
    ''
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "/",
        environ: Mapping[str, str] | None = None,
        hostname: Callable[[], str] = socket.gethostname,
    ) -> None:
        self.root = Path(root)
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.hostname = hostname
        self._files: dict[str, str] = {}

    def variable(self, *names: str) -> str:
        """The first of these variables that is not empty, without white space around it; ``""`` if none is."""
        return next((value for name in names if (value := self.environ.get(name, "").strip())), "")

    def file(self, path: str) -> str:
        """The text of a file, without white space around it; ``""`` if it cannot be read."""
        if path not in self._files:
            try:
                with self._place(path).open(encoding="utf-8", errors="replace") as file:
                    self._files[path] = file.read(MAX_CHARACTERS).strip("\0 \t\r\n")
            except OSError:
                self._files[path] = ""
        return self._files[path]

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        try:
            return self._place(path).exists()
        except OSError:
            return False

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/")
