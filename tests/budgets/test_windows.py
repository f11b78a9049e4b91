"""Windows: no moment has two, none has none, and they begin and end when people say they do."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenbudget_otel.budgets import WINDOWS, Window, window_at

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
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Antarctica/Troll",
)
KINDS = st.sampled_from(WINDOWS)
MOMENTS = st.floats(0, 4_102_444_800, allow_nan=False) | st.integers(0, 4_102_444_800)  # to 2100


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def span(window: str, moment: str, zone: str = "UTC") -> tuple[str, str, str]:
    found = window_at(window, unix(moment), zone)
    return found.id, *(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M") for at in found[1:])


@settings(max_examples=400, deadline=None)
@example(window="day", now=2051222399.9999995, zone="UTC")
@given(window=KINDS, now=MOMENTS, zone=st.sampled_from(ZONES))
def test_every_moment_has_one_window_and_the_next_begins_where_it_ends(window, now, zone):
    found = window_at(window, now, zone)
    assert found.holds(now)
    if found.end is None:
        return
    assert window_at(window, found.start, zone) == found
    assert window_at(window, found.end - 0.001, zone) == found
    after = window_at(window, found.end, zone)
    assert after.start == found.end
    assert after.id != found.id


@settings(max_examples=300, deadline=None)
@given(
    window=KINDS,
    pair=st.tuples(MOMENTS, st.floats(0, 200_000)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    zone=st.sampled_from(ZONES),
)
def test_two_moments_share_an_id_exactly_if_they_share_a_window(window, pair, zone):
    first, second = (window_at(window, now, zone) for now in pair)
    assert (first.id == second.id) == (first == second)
    if first != second:
        assert first.end <= second.start


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
