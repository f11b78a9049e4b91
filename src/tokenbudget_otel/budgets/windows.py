"""Windows: the stretch of time that a limit covers, found by calendar arithmetic and never by a job.

The id of a window is part of the key that spending is counted under, so a new window simply is a new
key: nothing is reset, two processes cannot disagree, and a late charge goes to the window it belongs to.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from tokenbudget_otel.budgets.calendars import CALENDARS, begin_of, calendar_of, checked_start
from tokenbudget_otel.budgets.rolling import rolling

HOUR: Final = 3600
"""Seconds in an hour."""


class Window(NamedTuple):
    """One window: from ``start`` (included) to ``end`` (excluded), both in seconds since 1970.

    ``None`` means that there is no such bound.
    """

    id: str
    start: float | None
    end: float | None

    def holds(self, now: float) -> bool:
        """Whether ``now`` lies in this window.

        >>> window_at("day", 1_700_000_000.0).holds(1_700_000_001.0)
        True
        """
        return (self.start is None or self.start <= now) and (self.end is None or now < self.end)


LIFETIME: Final = Window("lifetime", None, None)


WINDOWS: Final = ("lifetime", "hour", *CALENDARS)
"""Every kind of window there is, besides the rolling ones (``"rolling 24h"``)."""


def window_at(window: str | timedelta, now: float, timezone: str = "UTC", starts_on: int | str | None = None) -> Window:
    """The window of a kind that the moment ``now`` belongs to.

    Args:
        window: one of :data:`WINDOWS`, or a rolling one (``"rolling 24h"``, a :class:`~datetime.timedelta`), of which
            it gives the part that ``now`` belongs to (see :mod:`.rolling`). Hours are the hours of UTC whatever the
            time zone, so that each has 60 minutes also when clocks change.
        now: seconds since 1970 (UTC).
        timezone: IANA name of the zone whose midnights divide days, weeks, months, quarters and years. A day
            in which clocks change has 23 or 25 hours; where midnight does not exist, the day begins with the
            first moment that does; where it occurs twice, with the first.
        starts_on: of weeks, the day of the week (``"monday"``, as in ISO weeks); of months, the day of the month (1;
            the last day where a month has not so many); of quarters and years, month and day (``"01-01"``).

    Raises:
        ValueError: for an unknown kind of window or time zone, or what no such window can start on.

    >>> window_at("month", 1_795_374_000.0)
    Window(id='2026-11', start=1793491200, end=1796083200)
    >>> window_at("day", 1_795_374_000.0, "Asia/Tokyo").id
    '2026-11-23@Asia/Tokyo'
    >>> window_at("month", 1_795_374_000.0, starts_on=15).id
    '2026-11-15/month-15'
    """
    starts_on = checked_start(str(window), starts_on)
    if (span := rolling(window)) is not None:
        part = span.part(now)
        return Window(span.id(part), span.start(part), span.start(part + 1))
    if window == "lifetime":
        return LIFETIME
    if window == "hour":
        start = int(now // HOUR) * HOUR
        return Window(f"{datetime.fromtimestamp(start, UTC):%Y-%m-%dT%H}Z", start, start + HOUR)
    if window not in CALENDARS:
        raise ValueError(unknown("window", window, WINDOWS))
    zone = zone_named(timezone)
    days = calendar_of(window, starts_on)
    # In whole seconds: fromtimestamp rounds to microseconds, and half of one before midnight would be the next day.
    first = days.first(datetime.fromtimestamp(math.floor(now), zone).date())
    after = days.next(first)
    start, end = begin_of(first, zone), begin_of(after, zone)
    # Clocks that go back across midnight repeat the end of a day after the next one has begun: what the
    # clock on the wall shows is then not the window, the order of moments is.
    while now >= end:
        first, after = after, days.next(after)
        start, end = end, begin_of(after, zone)
    suffix = "" if timezone == "UTC" else f"@{timezone}"
    return Window(f"{days.id(first)}{suffix}", start, end)


@lru_cache(maxsize=512)
def zone_named(name: str) -> tzinfo:
    """The time zone of an IANA name.

    Raises:
        ValueError: if there is none, with names that come close.

    >>> zone_named("Europe/Berlim")
    Traceback (most recent call last):
    ...
    ValueError: unknown timezone 'Europe/Berlim': did you mean 'Europe/Berlin'? give an IANA name such as \
'Europe/Berlin' or 'UTC'
    """
    if name == "UTC":
        return UTC
    import zoneinfo  # costs a millisecond or two, and most budgets are in UTC

    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        import difflib

        names = zoneinfo.available_timezones()
    close = difflib.get_close_matches(str(name), names, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    remedy = (
        "give an IANA name such as 'Europe/Berlin' or 'UTC'"
        if names
        else "this system has no time zone data: pip install tzdata"
    )
    raise ValueError(f"unknown timezone {name!r}: {hint}{remedy}")


def unknown(what: str, value: object, known: tuple[str, ...]) -> str:
    """What to say of a name that is not one of those known.

    >>> unknown("window", "monthly", WINDOWS)
    "unknown window 'monthly': use one of 'lifetime', 'hour', 'day', 'week', 'month', 'quarter', 'year'"
    """
    return f"unknown {what} {value!r}: use one of {', '.join(map(repr, known))}"
