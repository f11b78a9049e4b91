"""Windows: the stretch of time that a limit covers, found by calendar arithmetic and never by a job.

The id of a window is part of the key that spending is counted under, so a new window simply is a new
key: nothing is reset, two processes cannot disagree, and a late charge goes to the window it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

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


class _Calendar(NamedTuple):
    """How one kind of window divides the days: the first day around a day, of the next window, and the id."""

    first: Callable[[date], date]
    next: Callable[[date], date]
    id: Callable[[date], str]


def _months_on(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    return date(day.year + years, month + 1, 1)


def _week_id(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02}"


_CALENDARS: Final[dict[str, _Calendar]] = {
    "day": _Calendar(lambda day: day, lambda day: day + timedelta(1), date.isoformat),
    "week": _Calendar(lambda day: day - timedelta(day.weekday()), lambda day: day + timedelta(7), _week_id),
    "month": _Calendar(
        lambda day: day.replace(day=1), lambda day: _months_on(day, 1), lambda day: f"{day.year}-{day.month:02}"
    ),
    "quarter": _Calendar(
        lambda day: day.replace(month=day.month - (day.month - 1) % 3, day=1),
        lambda day: _months_on(day, 3),
        lambda day: f"{day.year}-Q{(day.month + 2) // 3}",
    ),
    "year": _Calendar(
        lambda day: day.replace(month=1, day=1), lambda day: day.replace(year=day.year + 1), lambda day: str(day.year)
    ),
}

WINDOWS: Final = ("lifetime", "hour", *_CALENDARS)
"""Every kind of window there is."""


def window_at(window: str, now: float, timezone: str = "UTC") -> Window:
    """The window of a kind that the moment ``now`` belongs to.

    Args:
        window: one of :data:`WINDOWS`. Weeks are ISO weeks and begin on Monday. Hours are the hours of UTC
            whatever the time zone, so that each has 60 minutes also when clocks change.
        now: seconds since 1970 (UTC).
        timezone: IANA name of the zone whose midnights divide days, weeks, months, quarters and years. A day
            in which clocks change has 23 or 25 hours; where midnight does not exist, the day begins with the
            first moment that does; where it occurs twice, with the first.

    Raises:
        ValueError: for an unknown kind of window or time zone.

    >>> window_at("month", 1_795_374_000.0)
    Window(id='2026-11', start=1793491200, end=1796083200)
    >>> window_at("day", 1_795_374_000.0, "Asia/Tokyo").id
    '2026-11-23@Asia/Tokyo'
    """
    if window == "lifetime":
        return LIFETIME
    if window == "hour":
        start = int(now // HOUR) * HOUR
        return Window(f"{datetime.fromtimestamp(start, UTC):%Y-%m-%dT%H}Z", start, start + HOUR)
    if (calendar := _CALENDARS.get(window)) is None:
        raise ValueError(unknown("window", window, WINDOWS))
    zone = zone_named(timezone)
    # In whole seconds: fromtimestamp rounds to microseconds, and half of one before midnight would be the next day.
    first = calendar.first(datetime.fromtimestamp(math.floor(now), zone).date())
    after = calendar.next(first)
    start, end = _begin(first, zone), _begin(after, zone)
    # Clocks that go back across midnight repeat the end of a day after the next one has begun: what the
    # clock on the wall shows is then not the window, the order of moments is.
    while now >= end:
        first, after = after, calendar.next(after)
        start, end = end, _begin(after, zone)
    suffix = "" if timezone == "UTC" else f"@{timezone}"
    return Window(f"{calendar.id(first)}{suffix}", start, end)


def _begin(day: date, zone: tzinfo) -> int:
    """The first moment of a day, in seconds since 1970."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    after = int(midnight.timestamp())
    if zone is UTC or datetime.fromtimestamp(after, zone).replace(fold=0) == midnight:
        return after
    # Midnight was skipped. The clock before the change puts it at or after the change, the clock after the
    # change puts it before: the change itself lies between, and the day begins with it.
    before = int(midnight.replace(fold=1).timestamp())
    naive = midnight.replace(tzinfo=None)
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).replace(tzinfo=None) >= naive:
            after = middle
        else:
            before = middle
    return after


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
