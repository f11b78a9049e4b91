"""Properties of money: whole nano-USD, rounded up once, exact on the way back."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, localcontext
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbudget_otel.money import NANO_PER_USD, format_usd, to_nano, to_usd

amounts = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=15)
nanos = st.integers(-(10**18), 10**18)


@given(amounts)
def test_to_nano_rounds_up_and_never_by_more_than_one(amount: Decimal) -> None:
    exact = Fraction(amount) * NANO_PER_USD
    assert to_nano(amount) == ceil(exact)
    assert 0 <= to_nano(amount) - exact < 1
    assert to_nano(str(amount)) == to_nano(amount)


@given(st.floats(-1e6, 1e6))
def test_a_float_is_taken_as_it_is_written(amount: float) -> None:
    assert to_nano(amount) == to_nano(repr(amount))


@given(st.integers(-(10**9), 10**9))
def test_whole_dollars(amount: int) -> None:
    assert to_nano(amount) == amount * NANO_PER_USD


@given(nanos)
def test_there_and_back(nano: int) -> None:
    assert to_nano(to_usd(nano)) == nano
    assert Fraction(to_usd(nano)) == Fraction(nano, NANO_PER_USD)
    assert "E" not in str(to_usd(nano)) or abs(nano) < 1_000, "an amount reads as one"


@pytest.mark.parametrize("nano", (10**18 + 1, 123_456_789_012_345_678_901, 10**27 - 1))
def test_large_amounts_stay_exact(nano: int) -> None:
    """Billions of dollars and more: decimal's default precision is 28 digits."""
    assert Fraction(to_usd(nano)) == Fraction(nano, NANO_PER_USD)


def test_the_programs_decimal_context_does_not_matter() -> None:
    """A program may work with few digits, or trap what is inexact."""
    with localcontext() as context:
        context.prec = 6
        assert to_nano("1234.567890123") == 1_234_567_890_123
        assert to_usd(1_234_567_890_123) == Decimal("1234.567890123")
    with localcontext() as context:
        context.rounding = ROUND_CEILING
        assert to_usd(1) == Decimal("0.000000001")


BAD = (
    None, True, False, "", "abc", "1,5", "$1", float("nan"), float("inf"), float("-inf"), Decimal("NaN"),
    Decimal("Infinity"), Decimal("sNaN"), [], {}, object(), b"1", 1j,
)  # fmt: skip


@pytest.mark.parametrize("value", BAD, ids=lambda value: type(value).__name__)
def test_what_is_no_amount(value: Any) -> None:
    with pytest.raises(ValueError, match="US dollars"):
        to_nano(value)


@given(nanos)
def test_written_amounts_are_never_zero_unless_they_are(nano: int) -> None:
    written = format_usd(nano)
    read = Decimal(written.replace("$", "").replace(",", ""))
    assert (read == 0) == (nano == 0)
    assert (read < 0) == (nano < 0)
    assert abs(read - to_usd(nano)) <= Decimal("0.00005")


@pytest.mark.parametrize(
    ("nano", "places", "written"),
    [
        (None, 4, "unknown"), (0, 4, "$0.0000"), (1, 4, "$0.000000001"), (49_999, 4, "$0.000049999"),
        (50_000, 4, "$0.00005"), (50_001, 4, "$0.0001"), (1_234_567_000_000_000, 2, "$1,234,567.00"),
        (-1_500_000_000, 2, "-$1.50"),
        (1, 9, "$0.000000001"),
    ],
)  # fmt: skip
def test_format(nano: int | None, places: int, written: str) -> None:
    assert format_usd(nano, places=places) == written


@given(nanos | st.integers(-(10**6), 10**6), st.integers(1, 9))
def test_amounts_are_written_as_decimals_are(nano: int, places: int) -> None:
    half = 5 * 10 ** (8 - places) if places < 9 else 0
    usd = Decimal(nano).scaleb(-9)
    written = f"{abs(usd):f}".rstrip("0") if 0 < abs(nano) <= half else f"{abs(usd):,.{places}f}"
    assert format_usd(nano, places=places) == f"{'-' if nano < 0 else ''}${written}"


@given(nanos)
def test_an_amount_has_no_more_digits_than_it_needs(nano: int) -> None:
    usd = to_usd(nano)
    exponent = usd.as_tuple().exponent
    assert isinstance(exponent, int) and exponent <= 0
    assert exponent == 0 or usd.as_tuple().digits[-1] != 0
