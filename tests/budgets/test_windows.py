"""Windows: no moment has two, none has none, and they begin and end when people say they do."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import (
    WINDOWS,
    Amount,
    Budget,
    BudgetExceeded,
    Call,
    Enforcer,
    Estimate,
    Window,
    window_at,
)
from tokenbudget_otel.budgets.calendars import WEEKDAYS
from tokenbudget_otel.budgets.rolling import PARTS, Rolling, rolling

# Zones whose clocks do something odd: at midnight, by half an hour, across a date, skipping a day.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Havana",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Asia/Tehran",
    "Asia/Gaza",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Antarctica/Troll",
)

MONTH_AND_DAY = st.dates(date(2000, 1, 1), date(2000, 12, 31)).map(lambda day: f"{day.month:02}-{day.day:02}")
STARTS = {
    "week": st.none() | st.sampled_from(WEEKDAYS),
    "month": st.none() | st.integers(1, 31),
    "quarter": st.none() | MONTH_AND_DAY,
    "year": st.none() | MONTH_AND_DAY,
}
SPANS = st.integers(60, 366 * 86_400).map(lambda seconds: f"rolling {seconds}s") | st.sampled_from(
    ["rolling 30m", "rolling 24h", "rolling 7d"]
)
KINDS = st.tuples(st.sampled_from(WINDOWS) | SPANS).flatmap(
    lambda kind: st.tuples(st.just(kind[0]), STARTS.get(kind[0], st.none()))
)
"""A kind of window, and what it starts on."""
MOMENTS = st.floats(0, 4_102_444_800, allow_nan=False) | st.integers(0, 4_102_444_800)  # to 2100


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def span(window: str, moment: str, zone: str = "UTC") -> tuple[str, str, str]:
    found = window_at(window, unix(moment), zone)
    return found.id, *(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M") for at in found[1:])


@settings(max_examples=400, deadline=None)
@example(kind=("day", None), now=2051222399.9999995, zone="UTC")
@example(kind=("month", 31), now=1_835_438_400, zone="Africa/Cairo")
@given(kind=KINDS, now=MOMENTS, zone=st.sampled_from(ZONES))
def test_every_moment_has_one_window_and_the_next_begins_where_it_ends(kind, now, zone):
    window, starts_on = kind
    found = window_at(window, now, zone, starts_on)
    assert found.holds(now)
    if found.end is None:
        return
    assert window_at(window, found.start, zone, starts_on) == found
    assert window_at(window, found.end - 0.001, zone, starts_on) == found
    after = window_at(window, found.end, zone, starts_on)
    assert after.start == found.end
    assert after.id != found.id


@settings(max_examples=300, deadline=None)
@given(
    kind=KINDS,
    pair=st.tuples(MOMENTS, st.floats(0, 200_000)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    zone=st.sampled_from(ZONES),
)
def test_two_moments_share_an_id_exactly_if_they_share_a_window(kind, pair, zone):
    window, starts_on = kind
    first, second = (window_at(window, now, zone, starts_on) for now in pair)
    assert (first.id == second.id) == (first == second)
    if first != second:
        assert first.end <= second.start


@settings(max_examples=300, deadline=None)
@given(one=KINDS, other=KINDS, now=MOMENTS, later=st.floats(0, 40_000_000), zone=st.sampled_from(ZONES))
def test_windows_of_two_kinds_never_share_an_id(one, other, now, later, zone):
    """A budget whose window is changed begins anew, and does not go on in a window of another length."""
    first, second = window_at(one[0], now, zone, one[1]), window_at(other[0], now + later, zone, other[1])
    if first.id == second.id:
        assert first == second


def clock_changes(zone: ZoneInfo) -> list[int]:
    """Every moment from 1995 to 2040 at which the clocks of a zone change."""
    days = range(788_918_400, 2_208_988_800, 86_400)
    found = []
    for before, after in itertools.pairwise(days):
        was = datetime.fromtimestamp(before, zone).utcoffset()
        if was == datetime.fromtimestamp(after, zone).utcoffset():
            continue
        while after - before > 1:
            middle = (before + after) // 2
            if datetime.fromtimestamp(middle, zone).utcoffset() == was:
                before = middle
            else:
                after = middle
        found.append(after)
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("kind", [("day", None), ("week", "sunday"), ("month", 30)])
def test_around_every_clock_change(kind, zone):
    window, starts_on = kind
    changes = clock_changes(ZoneInfo(zone))
    assert changes or zone in ("UTC", "Asia/Kathmandu", "Pacific/Kwajalein")
    for change in changes:
        moments = sorted(
            change + hours * 3600 + second for hours in (-24, -1, 0, 1, 24) for second in (-1, -0.25, 0, 1)
        )
        windows = [window_at(window, moment, zone, starts_on) for moment in moments]
        for (moment, found), (_, later) in itertools.pairwise(zip(moments, windows, strict=True)):
            assert found.holds(moment)
            assert found == later or found.end <= later.start
            assert (found.id == later.id) == (found == later)
            assert window_at(window, found.end, zone, starts_on).start == found.end


@settings(max_examples=200, deadline=None)
@given(day=st.integers(1, 31), now=MOMENTS, zone=st.sampled_from(ZONES))
def test_months_start_on_their_day_or_their_last(day, now, zone):
    found = window_at("month", now, zone, day)
    first = date.fromisoformat(found.id[:10]) if day > 1 else date.fromisoformat(f"{found.id[:7]}-01")
    assert first.day == day or (first.day < day and (first + timedelta(1)).day == 1)
    assert 28 * 86_400 - 7200 <= found.end - found.start <= 32 * 86_400


@settings(max_examples=200, deadline=None)
@given(day=st.sampled_from(WEEKDAYS), now=MOMENTS)
def test_weeks_start_on_their_day(day, now):
    found = window_at("week", now, starts_on=day)
    assert datetime.fromtimestamp(found.start, UTC).strftime("%A").lower() == day
    assert found.end - found.start == 7 * 86_400


@pytest.mark.parametrize(
    ("window", "moment", "zone", "expected"),
    [
        ("hour", "2026-11-22T19:59:59+00:00", "UTC", ("2026-11-22T19Z", "2026-11-22T19:00", "2026-11-22T20:00")),
        (
            "hour",
            "2026-11-22T19:59:59+00:00",
            "Asia/Kathmandu",
            ("2026-11-22T19Z", "2026-11-22T19:00", "2026-11-22T20:00"),
        ),
        ("day", "2026-11-22T19:00:00+00:00", "UTC", ("2026-11-22", "2026-11-22T00:00", "2026-11-23T00:00")),
        (
            "day",
            "2026-11-22T19:00:00+00:00",
            "Asia/Tokyo",
            ("2026-11-23@Asia/Tokyo", "2026-11-22T15:00", "2026-11-23T15:00"),
        ),
        # Monday to Sunday; the week that holds a year's first Thursday is its first
        ("week", "2026-11-22T19:00:00+00:00", "UTC", ("2026-W47", "2026-11-16T00:00", "2026-11-23T00:00")),
        ("week", "2027-01-01T00:00:00+00:00", "UTC", ("2026-W53", "2026-12-28T00:00", "2027-01-04T00:00")),
        # ends of months, leap days
        ("month", "2028-02-29T23:59:59+00:00", "UTC", ("2028-02", "2028-02-01T00:00", "2028-03-01T00:00")),
        ("month", "2026-12-31T23:59:59+00:00", "UTC", ("2026-12", "2026-12-01T00:00", "2027-01-01T00:00")),
        ("month", "2026-01-31T12:00:00+00:00", "UTC", ("2026-01", "2026-01-01T00:00", "2026-02-01T00:00")),
        ("day", "2028-02-29T12:00:00+00:00", "UTC", ("2028-02-29", "2028-02-29T00:00", "2028-03-01T00:00")),
        ("quarter", "2026-11-22T00:00:00+00:00", "UTC", ("2026-Q4", "2026-10-01T00:00", "2027-01-01T00:00")),
        ("quarter", "2026-03-31T23:59:00+00:00", "UTC", ("2026-Q1", "2026-01-01T00:00", "2026-04-01T00:00")),
        ("year", "2028-02-29T00:00:00+00:00", "UTC", ("2028", "2028-01-01T00:00", "2029-01-01T00:00")),
        # 23 and 25 hours
        (
            "day",
            "2026-03-29T12:00:00+02:00",
            "Europe/Berlin",
            ("2026-03-29@Europe/Berlin", "2026-03-28T23:00", "2026-03-29T22:00"),
        ),
        (
            "day",
            "2026-10-25T12:00:00+01:00",
            "Europe/Berlin",
            ("2026-10-25@Europe/Berlin", "2026-10-24T22:00", "2026-10-25T23:00"),
        ),
        # midnight does not exist: the day begins at one o'clock
        (
            "day",
            "2018-11-04T12:00:00-02:00",
            "America/Sao_Paulo",
            ("2018-11-04@America/Sao_Paulo", "2018-11-04T03:00", "2018-11-05T02:00"),
        ),
        # midnight occurs twice: the first counts, also while the clock repeats the evening before
        (
            "day",
            "2010-11-07T02:45:00+00:00",
            "America/St_Johns",
            ("2010-11-07@America/St_Johns", "2010-11-07T02:30", "2010-11-08T03:30"),
        ),
        # a date that never was
        (
            "day",
            "2011-12-30T09:59:59+00:00",
            "Pacific/Apia",
            ("2011-12-29@Pacific/Apia", "2011-12-29T10:00", "2011-12-30T10:00"),
        ),
        (
            "day",
            "2011-12-30T10:00:00+00:00",
            "Pacific/Apia",
            ("2011-12-31@Pacific/Apia", "2011-12-30T10:00", "2011-12-31T10:00"),
        ),
    ],
)
def test_by_hand(window, moment, zone, expected):
    assert span(window, moment, zone) == expected


@pytest.mark.parametrize(
    ("window", "starts_on", "moment", "zone", "expected"),
    [
        ("week", "sunday", "2026-11-22T00:00", "UTC", ("2026-11-22/week-sunday", "2026-11-22", "2026-11-29")),
        ("week", "monday", "2026-11-22T00:00", "UTC", ("2026-W47", "2026-11-16", "2026-11-23")),
        ("month", 15, "2026-11-14T23:59", "UTC", ("2026-10-15/month-15", "2026-10-15", "2026-11-15")),
        ("month", 15, "2026-11-15T00:00", "UTC", ("2026-11-15/month-15", "2026-11-15", "2026-12-15")),
        # the last day where a month has not so many
        ("month", 31, "2026-02-28T00:00", "UTC", ("2026-02-28/month-31", "2026-02-28", "2026-03-31")),
        ("month", 31, "2028-02-28T23:59", "UTC", ("2028-01-31/month-31", "2028-01-31", "2028-02-29")),
        ("month", 30, "2028-02-29T00:00", "UTC", ("2028-02-29/month-30", "2028-02-29", "2028-03-30")),
        ("month", 28, "2026-02-28T00:00", "UTC", ("2026-02-28/month-28", "2026-02-28", "2026-03-28")),
        ("month", 31, "2026-12-31T00:00", "UTC", ("2026-12-31/month-31", "2026-12-31", "2027-01-31")),
        ("quarter", "02-01", "2026-01-31T23:59", "UTC", ("2025-11-01/quarter-02-01", "2025-11-01", "2026-02-01")),
        ("quarter", "11-30", "2027-02-28T12:00", "UTC", ("2027-02-28/quarter-11-30", "2027-02-28", "2027-05-30")),
        ("year", "04-06", "2026-04-05T23:59", "UTC", ("2025-04-06/year-04-06", "2025-04-06", "2026-04-06")),
        ("year", "04-06", "2026-04-06T00:00", "UTC", ("2026-04-06/year-04-06", "2026-04-06", "2027-04-06")),
        ("year", "02-29", "2027-03-01T00:00", "UTC", ("2027-02-28/year-02-29", "2027-02-28", "2028-02-29")),
        ("year", "01-01", "2026-06-01T00:00", "UTC", ("2026", "2026-01-01", "2027-01-01")),
    ],
)
def test_by_hand_from_another_day(window, starts_on, moment, zone, expected):
    found = window_at(window, unix(f"{moment}+00:00"), zone, starts_on)
    assert (found.id, *(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d") for at in found[1:])) == expected


@pytest.mark.parametrize(
    ("window", "starts_on", "says"),
    [
        ("month", 0, "starts_on of a month is a day from 1 to 31, such as starts_on=15, not 0"),
        ("month", 32, "not 32"),
        ("month", True, "not True"),
        ("month", "15", "not '15'"),
        ("month", 1.5, "not 1.5"),
        ("week", "sun", "starts_on of a week is one of 'monday', 'tuesday'.*not 'sun'"),
        ("week", 0, "not 0"),
        ("year", "13-01", "starts_on of a year is a month and a day, such as starts_on='04-01', not '13-01'"),
        ("year", "02-30", "not '02-30'"),
        ("quarter", 4, "starts_on of a quarter is a month and a day"),
        ("quarter", "4-1-1", "not '4-1-1'"),
        ("day", 5, "starts_on goes with the windows 'week', 'month', 'quarter' and 'year', not with 'day'"),
        ("lifetime", 5, "not with 'lifetime': leave it out"),
        ("rolling 24h", 5, "not with 'rolling 24h': leave it out"),
    ],
)
def test_what_windows_cannot_start_on(window, starts_on, says):
    with pytest.raises(ValueError, match=says):
        window_at(window, 0, "UTC", starts_on)


def test_st_johns_repeats_the_evening_after_the_day_began():
    now = unix("2010-11-07T02:45:00+00:00")
    assert datetime.fromtimestamp(now, ZoneInfo("America/St_Johns")).day == 6
    assert window_at("day", now, "America/St_Johns").id.startswith("2010-11-07")


def test_lifetime_has_no_bounds():
    assert window_at("lifetime", 0) == Window("lifetime", None, None) == window_at("lifetime", 1e18)


@pytest.mark.parametrize("zone", ["Europe/Berlim", "", "Europe", "/etc/passwd", "../x", "CET+1", None, 5, "\x00"])
def test_unknown_zone(zone):
    with pytest.raises(ValueError, match="unknown timezone"):
        window_at("day", 0, zone)


class TestRolling:
    @pytest.mark.parametrize(
        ("window", "name"),
        [
            ("rolling 24h", "rolling 24h"),
            ("rolling 1d", "rolling 24h"),
            ("rolling  86400s", "rolling 24h"),
            (timedelta(days=1), "rolling 24h"),
            ("rolling 30m", "rolling 30m"),
            ("rolling 90 s", "rolling 90s"),
            ("rolling 1w", "rolling 7d"),
            (timedelta(hours=36), "rolling 36h"),
            ("rolling 366d", "rolling 366d"),
            ("month", None),
            (None, None),
        ],
    )
    def test_spans(self, window, name):
        assert (found := rolling(window)) is None or found.name == name
        assert (found is None) == (name is None)
        assert name is None or rolling(name) == found

    @pytest.mark.parametrize(
        ("window", "says"),
        [
            ("rolling", "unknown window 'rolling': a rolling window is a whole number of s, m, h, d or w"),
            ("rolling 1M", "unknown window 'rolling 1M'"),  # a minute? a month?
            ("rolling 1.5h", "unknown window"),
            ("rolling -1h", "unknown window"),
            ("rolling 59s", "at least 60 seconds and at most 366 days, not 'rolling 59s'"),
            ("rolling 367d", "at most 366 days"),
            (timedelta(0), "at least 60 seconds"),
            (timedelta(days=-1), "at least 60 seconds"),
            (timedelta(seconds=90, microseconds=1), "whole seconds"),
        ],
    )
    def test_no_spans(self, window, says):
        with pytest.raises(ValueError, match=says):
            rolling(window)

    @settings(max_examples=300, deadline=None)
    @given(
        seconds=st.integers(60, 366 * 86_400),
        parts=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 10**12)), max_size=30),
        begin=st.floats(0, 4_000_000_000),
    )
    def test_the_sum_is_never_below_the_exact_one_and_above_it_by_the_oldest_part_at_most(self, seconds, parts, begin):
        span = Rolling(seconds)
        now = begin + 2 * seconds
        events = [(begin + share * seconds, amount) for share, amount in parts]
        counted: dict[str, int] = {}
        for at, amount in events:
            counted[span.id(span.part(at))] = counted.get(span.id(span.part(at)), 0) + amount
        present = span.part(now)
        ids = [span.id(part) for part in range(present - PARTS, present + 1)]
        total = sum(counted.get(each, 0) for each in ids)
        exact = sum(amount for at, amount in events if now - seconds < at <= now)
        assert exact <= total <= exact + counted.get(ids[0], 0)
        # What has ceased to count is not needed any more: a part ends with its last moment plus the span.
        assert span.start(present - PARTS) + seconds <= now + seconds / PARTS
        assert span.start(present - PARTS + 1) + seconds > now

    @settings(max_examples=300, deadline=None)
    @given(seconds=st.integers(60, 366 * 86_400), part=st.integers(0, 10_000_000))
    def test_parts_begin_where_they_say(self, seconds, part):
        span = Rolling(seconds)
        assert span.part(span.start(part)) == part
        assert span.part(math.nextafter(span.start(part + 1), 0)) == part


MOST = Estimate(Amount(1, 1), Amount(1, 1))


def refused(enforcer) -> bool:
    try:
        enforcer.settle(enforcer.admit(Call("openai", "gpt-5"), MOST), Amount(1, 1))
    except BudgetExceeded:
        return True
    return False


@pytest.mark.parametrize(
    ("window", "zone", "starts_on", "first", "still", "turned"),
    [
        # A day of 23 hours, and one of 25.
        ("day", "Europe/Berlin", None, "2026-03-28T23:00", "2026-03-29T21:59:59", "2026-03-29T22:00"),
        ("day", "Europe/Berlin", None, "2026-10-24T22:00", "2026-10-25T22:59:59", "2026-10-25T23:00"),
        # Clocks that go forward at midnight: the day begins at one o'clock.
        ("day", "America/Sao_Paulo", None, "2018-11-03T03:00", "2018-11-04T02:59:59", "2018-11-04T03:00"),
        ("day", "Africa/Cairo", None, "2026-04-22T22:00", "2026-04-23T21:59:59", "2026-04-23T22:00"),
        ("day", "Africa/Cairo", None, "2026-04-23T22:00", "2026-04-24T20:59:59", "2026-04-24T21:00"),
        # Clocks that go back at midnight: the evening that is repeated belongs to the day that goes on.
        ("day", "Africa/Cairo", None, "2026-10-28T21:00", "2026-10-29T21:59:59", "2026-10-29T22:00"),
        # By half an hour.
        ("day", "Australia/Lord_Howe", None, "2026-04-04T13:00", "2026-04-05T13:29:59", "2026-04-05T13:30"),
        # Ends of months, of a leap year and of another, with and without a day of their own.
        ("month", "UTC", None, "2026-02-01T00:00", "2026-02-28T23:59:59", "2026-03-01T00:00"),
        ("month", "UTC", None, "2028-02-01T00:00", "2028-02-29T23:59:59", "2028-03-01T00:00"),
        ("month", "UTC", 31, "2028-01-31T00:00", "2028-02-28T23:59:59", "2028-02-29T00:00"),
        ("month", "Asia/Tokyo", 31, "2026-04-29T15:00", "2026-05-30T14:59:59", "2026-05-30T15:00"),
        ("day", "UTC", None, "2028-02-29T00:00", "2028-02-29T23:59:59", "2028-03-01T00:00"),
        ("year", "UTC", None, "2028-01-01T00:00", "2028-12-31T23:59:59", "2029-01-01T00:00"),
        ("year", "Europe/London", "04-06", "2026-04-05T23:00", "2027-04-05T22:59:59", "2027-04-05T23:00"),
        ("quarter", "America/New_York", None, "2026-10-01T04:00", "2027-01-01T04:59:59", "2027-01-01T05:00"),
        ("week", "Europe/Berlin", "sunday", "2026-03-28T23:00", "2026-04-04T21:59:59", "2026-04-04T22:00"),
        # What was spent at 10:00 counts until 24 hours later, to the end of its sixtieth.
        ("rolling 24h", "UTC", None, "2026-11-22T10:00", "2026-11-23T10:23:59", "2026-11-23T10:24"),
    ],
)
def test_budgets_across_clock_changes_month_ends_and_leap_days(clock, window, zone, starts_on, first, still, turned):
    """One call a window: it is refused until the very moment at which the next window begins."""
    budget = Budget(limit_calls=1, window=window, timezone=zone, starts_on=starts_on)
    enforcer = Enforcer([budget], clock=clock)
    clock.now = unix(f"{first}+00:00")
    assert not refused(enforcer)
    assert refused(enforcer)
    clock.now = unix(f"{still}+00:00") + 0.999
    assert refused(enforcer)
    clock.now = unix(f"{turned}+00:00")
    assert not refused(enforcer)
    assert refused(enforcer)
