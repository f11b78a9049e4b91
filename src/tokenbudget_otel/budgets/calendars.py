"""Calendars: how days are grouped into weeks, months, quarters and years, and the moment at which a day begins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

CALENDARS: Final = ("day", "week", "month", "quarter", "year")
"""The kinds of window that are made of days."""


class Calendar(NamedTuple):
    """How one kind of window divides the days: the first day of the window that a day is in, the first day of the
    next window, and the id, each given a day (the last two a first day)."""

    first: Callable[[date], date]
    next: Callable[[date], date]
    id: Callable[[date], str]


@lru_cache(maxsize=256)
def calendar_of(window: str, starts_on: int | str | None = None) -> Calendar:
    """The calendar of a kind of window; ``starts_on`` as :func:`checked_start` leaves it.

    >>> days = calendar_of("month", 31)
    >>> days.first(date(2028, 3, 5)), days.next(date(2028, 2, 29)), days.id(date(2028, 2, 29))
    (datetime.date(2028, 2, 29), datetime.date(2028, 3, 31), '2028-02-29/month-31')
    """
    if window == "day":
        return Calendar(lambda day: day, lambda day: day + timedelta(1), date.isoformat)
    # Of windows that begin on the same day, those that begin elsewhere next time are not the same: the id says both.
    named = _IDS[window] if starts_on is None else lambda day: f"{day.isoformat()}/{window}-{starts_on}"
    if window == "week":
        weekday = 0 if starts_on is None else WEEKDAYS.index(str(starts_on))
        return Calendar(
            lambda day: day - timedelta((day.weekday() - weekday) % 7), lambda day: day + timedelta(7), named
        )
    months = _MONTHS[window]
    if isinstance(starts_on, str):
        month, start = (int(part) for part in starts_on.split("-"))
    else:
        month, start = 1, starts_on or 1

    def first(day: date) -> date:
        number = _month(day)
        number -= (number - month + 1) % months
        begin = _day(number, start)
        return begin if begin <= day else _day(number - months, start)

    return Calendar(first, lambda day: _day(_month(day) + months, start), named)


def checked_start(window: str, starts_on: object) -> int | str | None:
    """On what windows start, or an error that says how to put it; ``None`` for where they start anyway.

    Raises:
        ValueError: for anything that no window of the kind can start on.

    >>> checked_start("week", "Sunday"), checked_start("month", 1), checked_start("year", "4-1")
    ('sunday', None, '04-01')
    >>> checked_start("month", 32)
    Traceback (most recent call last):
    ...
    ValueError: starts_on of a month is a day from 1 to 31, such as starts_on=15, not 32
    """
    if starts_on is None:
        return None
    if window == "week":
        name = starts_on.casefold() if isinstance(starts_on, str) else ""
        if name not in WEEKDAYS:
            raise ValueError(f"starts_on of a week is one of {', '.join(map(repr, WEEKDAYS))}, not {starts_on!r}")
        return None if name == "monday" else name
    if window == "month":
        if isinstance(starts_on, bool) or not isinstance(starts_on, int) or not 1 <= starts_on <= 31:
            raise ValueError(f"starts_on of a month is a day from 1 to 31, such as starts_on=15, not {starts_on!r}")
        return None if starts_on == 1 else starts_on
    if window in ("quarter", "year"):
        try:
            month, day = (int(part) for part in str(starts_on).split("-"))
            date(2000, month, day)  # a leap year: February may have 29 days
        except ValueError:
            raise ValueError(
                f"starts_on of a {window} is a month and a day, such as starts_on='04-01', not {starts_on!r}"
            ) from None
        return None if (month, day) == (1, 1) else f"{month:02}-{day:02}"
    raise ValueError(
        f"starts_on goes with the windows 'week', 'month', 'quarter' and 'year', not with {window!r}: leave it out"
    )


def begin_of(day: date, zone: tzinfo) -> int:
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


def _month(day: date) -> int:
    """A number for the month of a day, one more for the next."""
    return day.year * 12 + day.month - 1


def _day(month: int, day: int) -> date:
    """A day of a month, or its last where it has not so many."""
    year, index = divmod(month, 12)
    if day > 28:
        after, following = divmod(month + 1, 12)
        day = min(day, (date(after, following + 1, 1) - timedelta(1)).day)
    return date(year, index + 1, day)


def _week_id(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02}"


_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}

_IDS: Final[dict[str, Callable[[date], str]]] = {
    "week": _week_id,
    "month": lambda day: f"{day.year}-{day.month:02}",
    "quarter": lambda day: f"{day.year}-Q{(day.month + 2) // 3}",
    "year": lambda day: str(day.year),
}
