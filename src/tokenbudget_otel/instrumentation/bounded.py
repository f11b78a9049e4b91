"""Attributes of metrics whose values others make up: no more than so many of each are kept apart."""

from __future__ import annotations

import threading
from typing import Final

from tokenbudget_otel.forks import renew_after_fork
from tokenbudget_otel.instrumentation.guard import logger

OTHER: Final = "(other)"
"""What values are called for which there is no room."""


class Bounded:
    """The first ``limit`` values as they are, and all others as :data:`OTHER`. Safe for threads and forks.

    Args:
        attribute: whose values; named in the one line that is logged when there is no more room.
        limit: how many are kept apart in this process.

    >>> tenant = Bounded("tokenbudget.tag.tenant", limit=2)
    >>> [tenant(value) for value in ("acme", "globex", "initech", "acme")]
    ['acme', 'globex', '(other)', 'acme']
    """

    __slots__ = ("__weakref__", "_full", "_known", "_lock", "attribute", "limit")

    def __init__(self, attribute: str, limit: int) -> None:
        self.attribute = attribute
        self.limit = limit
        self._known: set[str] = set()
        self._full = False
        self._lock = threading.Lock()
        renew_after_fork(self)

    def __call__(self, value: str) -> str:
        """``value``, or what stands for it."""
        # Almost always known: no lock is taken then.
        return value if value in self._known or self._room_for(value) else OTHER

    def _room_for(self, value: str) -> bool:
        with self._lock:
            if len(self._known) < self.limit or value in self._known:
                self._known.add(value)
                return True
            told, self._full = self._full, True
        if not told:
            logger.warning(
                "The attribute %s of metrics has more than %d values. Further ones are %r there; spans, budgets and "
                "totals are not affected. This is logged once.",
                self.attribute,
                self.limit,
                OTHER,
            )
        return False

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
