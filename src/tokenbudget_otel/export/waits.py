"""How long is waited before something is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

LONGEST_ASKED_S: Final = 3_600.0
"""Seconds that a receiver may have us wait at most, whatever its Retry-After says."""


@dataclass(frozen=True)
class Waits:
    """Exponential backoff with full jitter.

    Attributes:
        first: seconds that are waited at most after the first failure; twice that after the second, and so on.
        longest: seconds that are waited at most, ever.
    """

    first: float = 1.0
    longest: float = 60.0

    def after(self, failures: int, asked: float | None = None) -> float:
        """The seconds to wait after so many failures in a row, if the receiver has not asked for others.

        >>> Waits().after(3, asked=7.5), 0 <= Waits().after(3) <= 4, Waits().after(10_000) <= 60
        (7.5, True, True)
        """
        if asked is not None:
            return min(asked, LONGEST_ASKED_S)
        return random.uniform(0, min(self.longest, self.first * 2.0 ** min(failures - 1, 60)))

    @property
    def look(self) -> float:
        """Seconds between two looks whether another process has left something, while that one seems to be sending."""
        return min(self.first, 1.0)

    @property
    def idle(self) -> float:
        """Seconds between two looks while nothing is known to wait."""
        return min(5.0, self.longest)
