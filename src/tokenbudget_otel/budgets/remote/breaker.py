"""Whether it is worth asking a store that did not answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final

LONGEST: Final = 30.0
"""Most seconds between two trials, but for the jitter."""
_JITTER: Final = 0.25
_chance: Final = random.SystemRandom()  # a forked process would repeat what another one draws


class Breaker:
    """Opens with the first failure: from then on nobody waits for the store, and one trial at a time finds out whether
    it answers again, after ``cool_off`` seconds, twice as long, and so on up to 30, each a quarter more or less so
    that processes do not come all at once.

    Args:
        cool_off: seconds until the first trial.
        clock: seconds.

    >>> now = 0.0
    >>> breaker = Breaker(1.0, lambda: now)
    >>> breaker.failed("refused"), breaker.allows()
    (True, False)
    >>> now = 1.5
    >>> breaker.allows(), breaker.allows()  # one trial, and nobody beside it
    (True, False)
    >>> breaker.succeeded(), breaker.closed
    (True, True)
    """

    def __init__(self, cool_off: float, clock: Callable[[], float]) -> None:
        self.closed = True
        """Whether all is well. Read without a lock, before each request."""
        self.reason = ""
        self._cool_off = self._delay = cool_off
        self._clock = clock
        self._until = 0.0
        self._trying = False
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def allows(self, hurry: bool = False) -> bool:
        """Whether to ask. Where it is open, who gets a yes makes the trial, and says how it ended. ``hurry``: now."""
        if self.closed:
            return True
        with self._lock:
            if not hurry and self._left() > 0:
                return False
            # A trial that nobody reports on is followed by the next.
            self._trying = True
            self._until = self._clock() + self._delay
            return True

    def wait(self) -> float:
        """Seconds until a trial is due."""
        return 0.0 if self.closed else max(0.0, self._left())

    def failed(self, reason: object) -> bool:
        """The store did not answer. Whether this is news."""
        with self._lock:
            self.reason = str(reason)
            news = self.closed
            if news:
                self._delay = self._cool_off
            elif self._trying:
                self._delay = min(2 * self._delay, max(LONGEST, self._cool_off))
            else:
                return False  # it was asked before the breaker opened
            self.closed = self._trying = False
            self._until = self._clock() + self._delay * _chance.uniform(1 - _JITTER, 1 + _JITTER)
            return news

    def succeeded(self) -> bool:
        """The store answered. Whether this is news."""
        if self.closed:
            return False
        with self._lock:
            news = not self.closed
            self.closed, self._trying = True, False
            return news

    def _left(self) -> float:
        left = self._until - self._clock()
        # More than there can be: the clock was set back.
        return left if left <= self._delay * (1 + _JITTER) else 0.0
