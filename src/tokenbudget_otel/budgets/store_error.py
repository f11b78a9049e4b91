"""What a budget does while the place where it is counted cannot be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tokenbudget_otel.budgets.checks import checked_count, checked_usd
from tokenbudget_otel.budgets.windows import unknown
from tokenbudget_otel.money import to_nano

STORE_ERRORS: Final = ("deny", "allow")


@dataclass(frozen=True, init=False)
class allow_local:  # noqa: N801 - reads as a verb: on_store_error=allow_local(usd=5)
    """So much may be spent by each process, for each scope and window, while the ledger cannot be reached.

    Args:
        usd, tokens, calls: at least one. What is not given is not limited in that time.

    Raises:
        ValueError: for amounts that cannot be a limit.

    >>> allow_local(usd=5)
    allow_local(usd=Decimal('5'), tokens=None, calls=None)
    """

    usd: Decimal | None
    tokens: int | None
    calls: int | None

    def __init__(
        self, *, usd: Decimal | int | float | str | None = None, tokens: int | None = None, calls: int | None = None
    ) -> None:
        if usd is None and tokens is None and calls is None:
            raise ValueError("allow_local needs an amount: give usd, tokens or calls, or say 'allow' for any")
        for name, value in (
            ("usd", checked_usd("usd of allow_local", usd)),
            ("tokens", checked_count("tokens of allow_local", tokens)),
            ("calls", checked_count("calls of allow_local", calls)),
        ):
            object.__setattr__(self, name, value)

    @property
    def limits(self) -> tuple[int | None, int | None, int | None]:
        """The amounts in nano-USD, tokens and calls, as the ``fallback`` of claims has them.

        >>> allow_local(usd=1).limits
        (1000000000, None, None)
        """
        return None if self.usd is None else to_nano(self.usd), self.tokens, self.calls


def checked_store_error(value: object) -> str | allow_local:
    """``"deny"``, ``"allow"`` or so much; a mapping stands for the arguments of :class:`allow_local`.

    >>> checked_store_error({"calls": 10})
    allow_local(usd=None, tokens=None, calls=10)
    """
    if isinstance(value, allow_local) or (isinstance(value, str) and value in STORE_ERRORS):
        return value
    if isinstance(value, Mapping):
        if strange := [name for name in value if name not in ("usd", "tokens", "calls")]:
            raise ValueError(f"on_store_error: unknown key {strange[0]!r}: allow_local takes usd, tokens and calls")
        return allow_local(**value)
    raise ValueError(f"{unknown('on_store_error', value, STORE_ERRORS)}, or allow_local(usd=…, tokens=…, calls=…)")
