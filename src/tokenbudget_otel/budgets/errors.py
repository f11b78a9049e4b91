"""What is raised when a budget refuses a call, with everything that explains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from tokenbudget_otel.budgets.ledger import Dimension
from tokenbudget_otel.money import format_usd, to_nano


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """A budget that has no room for a call: what :class:`BudgetExceeded` carries and ``on_warn`` receives.

    Money is in US dollars (:class:`~decimal.Decimal`, exact). What a budget does not limit is ``None``.

    Args:
        budget: name of the budget.
        dimension: what there was no room for: ``"usd"``, ``"tokens"`` or ``"calls"``.
        action: ``"block"`` (the call was refused) or ``"warn"`` (it went through).
        scope: the values that the budget is counted by: ``{"tenant": "acme"}``; ``""`` where the call lacks
            the tag.
        limit_usd, spent_usd, reserved_usd: the limit, what was spent, and what calls in flight reserve.
        needed_usd: what this call would have needed; ``None`` where its price is not known.
        remaining_usd: what was left, never below zero.
        limit_tokens, …: the same in tokens, and in calls.
        window: id of the window, such as ``"2026-11"``.
        resets_at: when the window ends; ``None`` for a budget that does not reset.
        retry_after: seconds until then; ``None`` where waiting does not help, because the budget does not
            reset or because the call alone needs more than the whole limit.
        provider, model, tags: the call.

    ``str()`` says it in one paragraph:

    >>> str(Shortfall(budget="mine", dimension="calls", limit_calls=3, spent_calls=2, reserved_calls=1,
    ...               needed_calls=1, remaining_calls=0, provider="openai", model="gpt-5"))
    "Budget 'mine' refused this call to openai gpt-5 before it was sent: it needs 1 call, and 0 of the limit of \
3 calls are left (2 spent, 1 reserved by calls in flight). This budget does not reset."
    """

    budget: str
    dimension: Dimension
    action: Literal["block", "warn"] = "block"
    scope: Mapping[str, str] = field(default_factory=dict)
    limit_usd: Decimal | None = None
    spent_usd: Decimal | None = None
    reserved_usd: Decimal | None = None
    needed_usd: Decimal | None = None
    remaining_usd: Decimal | None = None
    limit_tokens: int | None = None
    spent_tokens: int | None = None
    reserved_tokens: int | None = None
    needed_tokens: int | None = None
    remaining_tokens: int | None = None
    limit_calls: int | None = None
    spent_calls: int | None = None
    reserved_calls: int | None = None
    needed_calls: int | None = None
    remaining_calls: int | None = None
    window: str = "lifetime"
    resets_at: datetime | None = None
    retry_after: float | None = None
    provider: str = ""
    model: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def unpriced(self) -> bool:
        """Whether the budget counts dollars and the price of the call is not known."""
        return self.dimension == "usd" and self.needed_usd is None

    def __str__(self) -> str:
        call = f"this call to {self.provider} {self.model}".rstrip()
        verdict = (
            f"refused {call} before it was sent"
            if self.action == "block"
            else f"has no room for {call}, which was sent all the same"
        )
        reason = self._unpriced_reason() if self.unpriced else f"{self._reason()}. {self._reset()}"
        return f"Budget {self.budget!r}{self._scope()} {verdict}: {reason}"

    def _scope(self) -> str:
        if not self.scope:
            return ""
        return f" ({', '.join(f'{name}={value}' if value else f'no {name}' for name, value in self.scope.items())})"

    def _unpriced_reason(self) -> str:
        return (
            "it counts US dollars and the price of this model is not known. Add the price with "
            f"tokenbudget_otel.register_model({self.model!r}, input_per_1m=…, output_per_1m=…, "
            f"provider={self.provider!r}), or declare the budget with unpriced='allow'."
        )

    def _reason(self) -> str:
        limit, spent, reserved, needed, remaining = (
            getattr(self, f"{name}_{self.dimension}") for name in ("limit", "spent", "reserved", "needed", "remaining")
        )
        write: Callable[[Any], str]
        if self.dimension == "usd":
            write = _dollars if _dollars(needed) != _dollars(remaining) else _exact_dollars
            unit = "is left"
            needs, whole = write(needed), write(limit)
        else:
            write = _count
            unit = "are left"
            needs, whole = (_counted(value, self.dimension) for value in (needed, limit))
        return (
            f"it needs {needs}, and {write(remaining)} of the limit of {whole} {unit} "
            f"({write(spent)} spent, {write(reserved)} reserved by calls in flight)"
        )

    def _reset(self) -> str:
        if self.resets_at is None:
            return "This budget does not reset."
        if self.retry_after is None:
            return "Waiting would not help: the call alone needs more than the whole limit."
        zone = self.resets_at.tzname() or ""
        return f"Window {self.window} ends at {self.resets_at:%Y-%m-%d %H:%M} {zone}, in {_duration(self.retry_after)}."


class BudgetExceeded(Exception):  # noqa: N818 - the name that users catch
    """A budget had no room for a call, and the call was not sent.

    It carries every field of :class:`Shortfall` as an attribute: ``budget``, ``scope``, ``limit_usd``,
    ``spent_usd``, ``reserved_usd``, ``needed_usd``, ``remaining_usd``, the same in tokens and calls,
    ``resets_at``, ``retry_after``, ``provider``, ``model``, ``tags``; and the whole of it as ``shortfall``.
    It is no error of a provider: nothing in it (a status code, for example) invites a retry.

    >>> error = BudgetExceeded(Shortfall(budget="mine", dimension="usd", limit_usd=Decimal(1), needed_usd=Decimal(2),
    ...                                  spent_usd=Decimal(0), reserved_usd=Decimal(0), remaining_usd=Decimal(1)))
    >>> error.limit_usd, error.retry_after
    (Decimal('1'), None)
    >>> print(error)
    Budget 'mine' refused this call to before it was sent: it needs $2.0000, and $1.0000 of the limit of \
$1.0000 is left ($0.0000 spent, $0.0000 reserved by calls in flight). This budget does not reset.
    """

    budget: str
    dimension: Dimension
    scope: Mapping[str, str]
    limit_usd: Decimal | None
    spent_usd: Decimal | None
    reserved_usd: Decimal | None
    needed_usd: Decimal | None
    remaining_usd: Decimal | None
    limit_tokens: int | None
    spent_tokens: int | None
    reserved_tokens: int | None
    needed_tokens: int | None
    remaining_tokens: int | None
    limit_calls: int | None
    spent_calls: int | None
    reserved_calls: int | None
    needed_calls: int | None
    remaining_calls: int | None
    window: str
    resets_at: datetime | None
    retry_after: float | None
    provider: str
    model: str
    tags: Mapping[str, str]

    def __init__(self, shortfall: Shortfall) -> None:
        super().__init__(str(shortfall))
        self.shortfall = shortfall
        for each in fields(shortfall):
            setattr(self, each.name, getattr(shortfall, each.name))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.shortfall,)


class TokenLimitReached(BudgetExceeded):
    """The limit that had no room was one of tokens.

    >>> issubclass(TokenLimitReached, BudgetExceeded)
    True
    """


class UnpricedModel(BudgetExceeded):
    """A budget in US dollars met a call whose price is not known, which it cannot count and so refuses.

    The message names the price to add; ``unpriced="allow"`` on the budget lets such calls through. It is a
    :class:`BudgetExceeded`, so that one ``except`` covers every refusal.

    >>> print(UnpricedModel(Shortfall(budget="mine", dimension="usd", provider="openai", model="gpt-99")))
    Budget 'mine' refused this call to openai gpt-99 before it was sent: it counts US dollars and the price of \
this model is not known. Add the price with tokenbudget_otel.register_model('gpt-99', input_per_1m=…, \
output_per_1m=…, provider='openai'), or declare the budget with unpriced='allow'.
    """


def refusal(shortfall: Shortfall) -> BudgetExceeded:
    """The error to raise for a shortfall.

    >>> type(refusal(Shortfall(budget="mine", dimension="usd"))).__name__
    'UnpricedModel'
    """
    if shortfall.unpriced:
        return UnpricedModel(shortfall)
    return (TokenLimitReached if shortfall.dimension == "tokens" else BudgetExceeded)(shortfall)


def _dollars(usd: Decimal) -> str:
    return format_usd(to_nano(usd))


def _exact_dollars(usd: Decimal) -> str:
    return format_usd(to_nano(usd), places=9)


def _count(value: int) -> str:
    return f"{value:,}"


def _counted(value: int, unit: str) -> str:
    return f"{value:,} {unit.removesuffix('s') if value == 1 else unit}"


_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def _duration(seconds: float) -> str:
    """So long, in its largest unit and the next: ``2 hours 5 minutes``."""
    left = max(1, round(seconds))
    parts: list[str] = []
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}{'s' if count != 1 else ''}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)
