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
    whole, part = divmod(abs(nano_usd), NANO_PER_USD)
    sign = "-" if nano_usd < 0 else ""
    # As a text, and without the zeros at its end: a price should read as one.
    return Decimal(f"{sign}{whole}.{part:09}".rstrip("0") if part else f"{sign}{whole}")


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
    unit = 10 ** (9 - places)
    if 0 < 2 * nano <= unit:  # halves are rounded to even, and that is zero
        return f"{sign}${to_usd(nano):f}"
    count, rest = divmod(nano, unit)
    if 2 * rest > unit or (2 * rest == unit and count % 2):
        count += 1
    whole, part = divmod(count, 10**places)
    return f"{sign}${whole:,}.{part:0{places}}" if places else f"{sign}${whole:,}"
