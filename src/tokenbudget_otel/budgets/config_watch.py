"""Configuration that changes while the program runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokenbudget_otel.budgets.config import Config, load
from tokenbudget_otel.forks import renew_after_fork

logger: Final = logging.getLogger("tokenbudget_otel.budgets")

SETTLED_S: Final = 0.05
"""Seconds after which a file that was written is taken to be whole."""

_Stamp = tuple[int, int, int] | None


class ConfigWatch:
    """Reads a configuration file again when it has changed. Safe for threads.

    A file that cannot be read or meant any more leaves the last good configuration in force, and is logged once.

    Args:
        config: what was read at first. Without a file there is nothing to watch.
        every: seconds between two looks at the file; the questions between them cost a comparison.
        clock: seconds that never go back.
    """

    def __init__(self, config: Config, every: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        """The last good configuration."""
        self._path = config.path
        self._every = every
        self._clock = clock
        self._next = clock() + every
        # What was read may be older than what is there now: the first look reads again where that cannot be told.
        self._stamp: _Stamp = (0, 0, 0) if self._path else None
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def changed(self) -> Config | None:
        """The new configuration if it is another than when this was last asked; ``None`` otherwise. Never raises."""
        if self._path is None or self._clock() < self._next or not self._lock.acquire(blocking=False):
            return None
        try:
            self._next = self._clock() + self._every
            stamp = _stamp(self._path)
            if stamp == self._stamp or _being_written(stamp):
                return None
            self._stamp = stamp
            config = load(self._path)
            if config == self.config:
                return None
            self.config = config
            return config
        except Exception as error:
            logger.error("%s The configuration read before stays in force.", _sentence(error))
            return None
        finally:
            self._lock.release()


def _stamp(path: Path) -> _Stamp:
    """What changes when a file does; ``None`` where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _being_written(stamp: _Stamp) -> bool:
    """Whether a file may not be whole yet: many programs empty a file before they write it, and an empty one would be
    a configuration without budgets."""
    return stamp is not None and 0 <= time.time() - stamp[0] / 1e9 < SETTLED_S


def _sentence(error: Exception) -> str:
    text = str(error) or repr(error)
    return text if text.endswith((".", "?")) else f"{text}."
