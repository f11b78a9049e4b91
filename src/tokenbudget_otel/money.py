"""Money as integers: one US dollar is 1,000,000,000 nano-USD.

Ledgers, rate cards and totals hold whole nano-USD (``int``); the public surface shows
:class:`decimal.Decimal` dollars. No float is ever added up.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation

NANO_PER_USD = 1_000_000_000
"""Nano-USD in one US dollar."""

_EXACT = Context(prec=100)
"""Money does not follow the program's decimal context, which may round to few digits or trap what is inexact."""


def to_nano(usd: Decimal | int | float | str) -> int:
    """Turn dollars into whole nano-USD, rounding up: a limit or a cost never shrinks.

    A float is taken at its shortest decimal form (``0.1`` is ten cents, not
    ``0.1000000000000000055``).

    Raises:
        ValueError: if ``usd`` is not a finite number.

    >>> to_nano("0.0035")
    3500000
    >>> to_nano(0.1)
    100000000
    """
    if isinstance(usd, bool):
        raise ValueError(f"an amount of US dollars must be a number, not {usd!r}")
    try:
        amount = Decimal(repr(usd)) if isinstance(usd, float) else Decimal(usd)
    except (InvalidOperation, TypeError, ValueError):
        raise ValueError(f"an amount of US dollars must be a number, not {usd!r}") from None
    if not amount.is_finite():
        raise ValueError(f"an amount of US dollars must be finite, not {usd!r}")
    return int(_EXACT.multiply(amount, Decimal(NANO_PER_USD)).to_integral_value(ROUND_CEILING, _EXACT))


def to_usd(nano_usd: int) -> Decimal:
    """Turn nano-USD into dollars, exactly.

    >>> to_usd(3_500_000)
    Decimal('0.0035')
    """
    usd = Decimal(nano_usd).scaleb(-9, _EXACT).normalize(_EXACT)
    # normalize() writes 100 as 1E+2; a price should read as one.
    return usd.quantize(Decimal(1), context=_EXACT) if usd == usd.to_integral_value(context=_EXACT) else usd


def format_usd(nano_usd: int | None, *, places: int = 4) -> str:
    """Write nano-USD for people: ``places`` decimals, more where the amount would read as zero.

    ``None`` (an unknown cost) is written ``unknown``, never as zero.

    >>> format_usd(1_234_500_000)
    '$1.2345'
    >>> format_usd(150)
    '$0.00000015'
    >>> format_usd(None)
    'unknown'
    """
    if nano_usd is None:
        return "unknown"
    sign, nano = ("-", -nano_usd) if nano_usd < 0 else ("", nano_usd)
    if 0 < nano <= 5 * 10 ** (8 - places):  # halves are rounded to even, and that is zero
        return f"{sign}${to_usd(nano):f}"
    return f"{sign}${to_usd(nano):,.{places}f}"
