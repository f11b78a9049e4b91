"""Why a call did not fit into a budget: every number, and the paragraph that says it.

Imported when a call first does not fit: making a class of so many fields takes a millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from tokenbudget_otel.budgets.ledger import Dimension
from tokenbudget_otel.budgets.rules import scope_words
from tokenbudget_otel.money import format_usd, to_nano


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """A budget that has no room for a call: what :class:`BudgetExceeded` carries and ``on_warn`` receives.

    Money is in US dollars (:class:`~decimal.Decimal`, exact). What a budget does not limit is ``None``.

    Args:
        budget: name of the budget.
        dimension: what there was no room for: ``"usd"``, ``"tokens"`` or ``"calls"``.
        action: what the budget does then: ``"warn"`` lets the call through, all others come to a refusal in the end.
        dry_run: whether it would have done so, and the call went through.
        partial: whether the call was under way and was stopped in the middle of its answer.
        unreachable: why what is left of the budget is not known, where that is so; ``""`` otherwise.
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
    action: str = "block"
    dry_run: bool = False
    partial: bool = False
    unreachable: str = ""
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
        return self.dimension == "usd" and self.needed_usd is None and not self.unreachable

    @property
    def refuses(self) -> bool:
        """Whether the call does not go through."""
        return self.action != "warn" and not self.dry_run

    def __str__(self) -> str:
        call = the_call(self.provider, self.model)
        if self.partial:
            verdict = f"stopped {call} in the middle of its answer"
        elif self.action == "warn":
            verdict = f"has no room for {call}, which was sent all the same"
        elif self.dry_run:
            verdict = f"would have refused {call}, which was sent because this is a dry run"
        else:
            verdict = f"refused {call} before it was sent"
        if self.unreachable:
            reason = f"what is left of it is not known. {self.unreachable}"
        else:
            reason = self._unpriced_reason() if self.unpriced else f"{self._reason()}. {self._reset()}"
        return f"Budget {self.budget!r}{of_scope(self.scope)} {verdict}: {reason}"

    def _unpriced_reason(self) -> str:
        return (
            "it counts US dollars and the price of this model is not known. Add the price with "
            f"tokenbudget_otel.register_model({self.model!r}, input_per_1m=…, output_per_1m=…, "
            f"provider={self.provider!r}), or declare the budget with unpriced='allow'."
        )

    def knows(self, *numbers: int) -> None:
        """Keep limit, spent, reserved, needed and remaining in nano-USD, so that they need not be worked out again."""
        object.__setattr__(self, "_nano_usd", numbers)

    def _reason(self) -> str:
        known: tuple[Any, ...] | None = self.__dict__.get("_nano_usd")
        if known is None:
            known = self._numbers()
            if self.dimension == "usd":
                known = tuple(to_nano(each) for each in known)
        limit, spent, reserved, needed, remaining = known
        return reason(self.dimension, limit, spent, reserved, needed, remaining, " more" if self.partial else "")

    def _numbers(self) -> tuple[Any, ...]:
        names = ("limit", "spent", "reserved", "needed", "remaining")
        return tuple([getattr(self, f"{name}_{self.dimension}") for name in names])

    def _reset(self) -> str:
        return reset(self.window, None if self.resets_at is None else moment(self.resets_at), self.retry_after)


def the_call(provider: str, model: str) -> str:
    """What is refused."""
    return f"this call to {provider} {model}".rstrip()


def of_scope(scope: Mapping[str, str]) -> str:
    """Behind the name of a budget, of which scope it is."""
    return f" ({scope_words(scope)})" if scope else ""


def reason(
    dimension: Dimension, limit: int, spent: int, reserved: int, needed: int, remaining: int, more: str = ""
) -> str:
    """That there is no room, in numbers; money in nano-USD."""
    if dimension == "usd":
        places = 9 if format_usd(needed) == format_usd(remaining) else 4
        return (
            f"it needs {format_usd(needed, places=places)}{more}, and {format_usd(remaining, places=places)} of the "
            f"limit of {format_usd(limit, places=places)} is left ({format_usd(spent, places=places)} spent, "
            f"{format_usd(reserved, places=places)} reserved by calls in flight)"
        )
    return (
        f"it needs {_counted(needed, dimension)}{more}, and {remaining:,} of the limit of "
        f"{_counted(limit, dimension)} are left ({spent:,} spent, {reserved:,} reserved by calls in flight)"
    )


def moment(at: datetime) -> str:
    """A time, as a sentence gives it."""
    return f"{at:%Y-%m-%d %H:%M} {at.tzname() or ''}"


def reset(window: str, end: str | None, retry_after: float | None) -> str:
    """When there will be room; ``end`` is when the window ends (:func:`moment`)."""
    if end is None:
        return "This budget does not reset."
    if retry_after is None:
        return "Waiting would not help: the call alone needs more than the whole limit."
    return f"Window {window} ends at {end}, in {_duration(retry_after)}."


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
