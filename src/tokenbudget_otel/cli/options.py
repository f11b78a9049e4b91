"""Kinds of values that several commands take, checked before anything runs."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click


class Dollars(click.ParamType[Decimal]):
    """An amount of US dollars of at least zero."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        """The amount, exact."""
        from tokenbudget_otel.budgets.declared import checked_usd

        try:
            amount = checked_usd("an amount", value.removeprefix("$") if isinstance(value, str) else value)
        except ValueError as error:
            self.fail(str(error).removeprefix("an amount "), param, ctx)
        assert amount is not None
        return amount


class Tag(click.ParamType[tuple[str, str]]):
    """``name=value``."""

    name = "tag"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Name and value."""
        from tokenbudget_otel.tags import checked_tags

        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals:
            self.fail(f"{value!r} is not of the form name=value", param, ctx)
        try:
            return name, checked_tags({name: text})[name]
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[float]):
    """A date, or a date and time, in ISO format; of a zone that is not said, UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds since 1970."""
        if isinstance(value, float):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-11-01 or 2026-11-01T12:00Z", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Writable(click.ParamType[Path]):
    """A file that can be written; tried at once, so that no long run ends without its report."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Its path."""
        file = Path(value)
        try:
            with file.open("a", encoding="utf-8"):
                pass
        except OSError as error:
            self.fail(f"{value!r} cannot be written: {error.strerror}", param, ctx)
        return file.absolute()


class PriceFile(click.ParamType[Path]):
    """A file of prices that can be read and has no mistake."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Its path; the prices in it count from now on."""
        from tokenbudget_otel.pricing import PriceFileError, load_price_file

        try:
            load_price_file(value)
        except PriceFileError as error:
            self.fail(str(error), param, ctx)
        return Path(value).absolute()


price_file = click.option(
    "--price-file",
    "price_files",
    type=PriceFile(),
    multiple=True,
    metavar="FILE",
    help="Prices of your own, in TOML or JSON; they are above the catalog. May be given several times.",
)
