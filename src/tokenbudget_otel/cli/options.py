"""Values that several commands take, checked before anything runs. Each function reads one value of an option."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click


def dollars(value: str) -> Decimal:
    """An amount of US dollars of at least zero, exact.

    >>> dollars("$0.50")
    Decimal('0.5')
    """
    from tokenbudget_otel.budgets.declared import checked_usd

    try:
        amount = checked_usd("an amount", value.removeprefix("$"))
    except ValueError as error:
        raise click.BadParameter(str(error).removeprefix("an amount ")) from None
    assert amount is not None
    return amount


def tag(value: str) -> tuple[str, str]:
    """A tag as ``name=value``.

    >>> tag("team=search")
    ('team', 'search')
    """
    from tokenbudget_otel.tags import checked_tags

    name, equals, text = value.partition("=")
    if not equals:
        raise click.BadParameter(f"{value!r} is not of the form name=value")
    try:
        return name, checked_tags({name: text})[name]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def moment(value: str) -> float:
    """A date, or a date and time, in ISO format, as seconds since 1970; of a zone that is not said, UTC.

    >>> moment("2026-11-01T12:00Z")
    1793534400.0
    """
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time such as 2026-11-01 or 2026-11-01T12:00Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def writable(value: str) -> Path:
    """A file that can be written; tried at once, so that no long run ends without its report."""
    file = Path(value)
    try:
        with file.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise click.BadParameter(f"{value!r} cannot be written: {error.strerror}") from None
    return file.absolute()


def prices(value: str) -> Path:
    """A price file without mistakes; the prices in it count from now on."""
    from tokenbudget_otel.pricing import PriceFileError, load_price_file

    try:
        load_price_file(value)
    except PriceFileError as error:
        raise click.BadParameter(str(error)) from None
    return Path(value).absolute()


price_file = click.option(
    "--price-file",
    "price_files",
    type=prices,
    multiple=True,
    metavar="FILE",
    help="Prices of your own, in TOML or JSON; they are above the catalog. May be given several times.",
)
