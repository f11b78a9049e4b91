"""Rolling windows: the last so many hours, counted in sixty parts.

What is spent is counted under the part of time it falls into, and a limit is held against the present part and the
sixty before it. So nothing is ever counted too little: the sum covers at least the whole span. It covers at most one
part, a sixtieth of the span, more: calls may be refused by so much too early.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

PARTS: Final = 60
"""Into how many parts a span is divided."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SHORTEST: Final = 60
_LONGEST: Final = 366 * 86_400
_SPAN: Final = re.compile(r"rolling\s+(\d{1,9})\s*([smhdw])")  # "1M" might be meant as a month


class Rolling(NamedTuple):
    """A span of so many seconds that ends now. Its parts are numbered from 1970 on.

    >>> span = Rolling(86_400)
    >>> span.name, span.part(1_795_374_000.0), span.id(span.part(1_795_374_000.0))
    ('rolling 24h', 1246787, 'rolling 24h/2026-11-22T18:48:00Z')
    """

    seconds: int

    @property
    def name(self) -> str:
        """The span in the largest unit that it is a whole number of (days from two on)."""
        for unit in "dhms":
            count, rest = divmod(self.seconds, _UNITS[unit])
            if not rest and (count > 1 or unit != "d"):
                break
        return f"rolling {count}{unit}"

    def start(self, part: int) -> float:
        """When a part begins."""
        return part * self.seconds / PARTS

    def part(self, now: float) -> int:
        """The part that a moment belongs to."""
        part = int(now * PARTS // self.seconds)
        # The product is rounded, and may come to lie on the other side of a bound.
        if now < self.start(part):
            return part - 1
        return part + 1 if now >= self.start(part + 1) else part

    def id(self, part: int) -> str:
        """The id of a part: the span, and when it begins, to the second (no part is shorter than one)."""
        begins = datetime.fromtimestamp(math.floor(self.start(part)), UTC)
        return f"{self.name}/{begins:%Y-%m-%dT%H:%M:%S}Z"


def rolling(window: object) -> Rolling | None:
    """The span of a rolling window; ``None`` for what is no rolling window.

    Raises:
        ValueError: for a span that cannot be counted.

    >>> rolling("rolling 24h") == rolling(timedelta(days=1)) == Rolling(86_400)
    True
    >>> rolling("rolling 5s")
    Traceback (most recent call last):
    ...
    ValueError: a rolling window covers at least 60 seconds and at most 366 days, not 'rolling 5s'
    """
    if isinstance(window, timedelta):
        if window.microseconds:
            raise ValueError(f"a rolling window covers whole seconds, not {window!r}")
        seconds = window.days * 86_400 + window.seconds
    elif isinstance(window, str) and window.startswith("rolling"):
        if (found := _SPAN.fullmatch(window.strip())) is None:
            raise ValueError(
                f"unknown window {window!r}: a rolling window is a whole number of s, m, h, d or w, "
                "such as 'rolling 24h'"
            )
        seconds = int(found[1]) * _UNITS[found[2]]
    else:
        return None
    if not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError(f"a rolling window covers at least 60 seconds and at most 366 days, not {window!r}")
    return Rolling(seconds)
