"""The right to send what waits for a destination: one process has it at a time."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, where Spool says so
    fcntl = None  # type: ignore[assignment]

from tokenbudget_otel.forks import renew_after_fork


class SenderLock:
    """A lock of the kernel, which lets go of it when the process dies, however it dies."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._fd = -1
        renew_after_fork(self)

    def _after_fork(self) -> None:
        # The child's copy shares the lock with the parent's. Closing it leaves that one alone, unlocking would not.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._fd >= 0

    def take(self) -> bool:
        """Have it, unless another process does.

        Raises:
            OSError: if the file cannot be opened.
        """
        if self._fd >= 0:
            if os.fstat(self._fd).st_nlink:
                return True
            self.release()  # somebody has removed the folder; the lock that counts is in the new one
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def release(self) -> None:
        """Let go of it."""
        self._after_fork()
