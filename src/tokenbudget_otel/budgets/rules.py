"""Rules: a declared budget made ready to turn each call it applies to into one claim on a ledger."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from tokenbudget_otel.budgets.amounts import Amount, Call, Estimate
from tokenbudget_otel.budgets.declared import Budget
from tokenbudget_otel.budgets.ledger import DIMENSIONS, Balance, Claim, Dimension
from tokenbudget_otel.budgets.windows import Window, window_at, zone_named
from tokenbudget_otel.money import to_nano, to_usd

BUDGETS: Final = "budget|"
"""What the key of every declared budget begins with."""


class Rule:
    """A budget with everything worked out that does not depend on the call."""

    __slots__ = (
        "_prefix",
        "_suffixes",
        "_tests",
        "_window",
        "action",
        "budget",
        "denies_unpriced",
        "limits",
        "mode",
        "name",
        "per",
    )

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.name = budget.name
        self.mode = budget.mode
        self.action = budget.action
        self.per = budget.per
        self.limits = (
            None if budget.limit_usd is None else to_nano(budget.limit_usd),
            budget.limit_tokens,
            budget.limit_calls,
        )
        self.denies_unpriced = budget.limit_usd is not None and budget.unpriced == "deny"
        self._tests = tuple((name, _test(name, pattern)) for name, pattern in budget.match.items())
        self._prefix = f"{BUDGETS}{escape(budget.name)}|"
        self._suffixes = tuple(f"|{name}=" for name in budget.per)
        self._window = window_at(budget.window, 0, budget.timezone)

    def applies(self, call: Call) -> bool:
        """Whether the budget counts this call."""
        return all(test(fact(call, name)) for name, test in self._tests)

    def window(self, now: float) -> Window:
        """The window in force."""
        window = self._window
        if not window.holds(now):
            # Threads that do this at once come to the same answer.
            window = self._window = window_at(self.budget.window, now, self.budget.timezone)
        return window

    def prefix(self, now: float) -> str:
        """What the keys of the window in force begin with."""
        return f"{self._prefix}{self.window(now).id}"

    def claim(self, call: Call, estimate: Estimate, now: float) -> Claim:
        """What the call needs of this budget. An unknown price is 0 here: see :attr:`denies_unpriced`."""
        window = self.window(now)
        key = f"{self._prefix}{window.id}"
        for name, suffix in zip(self.per, self._suffixes, strict=True):
            key += suffix + escape(fact(call, name))
        amount = estimate.expected if self.mode == "expected" else estimate.worst_case
        return Claim(
            key, amount.nano_usd or 0, amount.tokens, amount.calls, *self.limits, self.action == "block", window.end
        )

    def resets_at(self, end: float | None) -> datetime | None:
        """When a window ends, in the budget's time zone."""
        return None if end is None else datetime.fromtimestamp(end, zone_named(self.budget.timezone))


def fact(call: Call, name: str) -> str:
    """What a call says of itself under a name: its model, its provider, or a tag; ``""`` for nothing.

    >>> fact(Call("openai", "gpt-5", {"tenant": "acme"}), "tenant")
    'acme'
    """
    if name == "model":
        return call.model
    if name == "provider":
        return call.provider
    return call.tags.get(name, "")


def _test(name: str, pattern: str) -> Callable[[str], object]:
    """A test of one value: equal, or of a pattern."""
    fold = name in ("model", "provider")
    if not any(sign in pattern for sign in "*?["):
        if not fold:
            return pattern.__eq__
        folded = pattern.casefold()
        return lambda value: value == pattern or value.casefold() == folded
    matches = re.compile(fnmatch.translate(pattern), re.IGNORECASE if fold else 0).match
    return lambda value: value and matches(value)  # a call without the tag does not even match "*"


def escape(text: str) -> str:
    """Text as a part of a key, whose parts are divided by ``|``.

    >>> escape("a|b 100%")
    'a%7Cb 100%25'
    """
    if "%" in text or "|" in text:
        return text.replace("%", "%25").replace("|", "%7C")
    return text


def scope_of(key: str) -> dict[str, str]:
    """The values in a key.

    >>> scope_of("budget|usd/month per tenant|2026-11|tenant=a%7Cb")
    {'tenant': 'a|b'}
    """
    pairs = (part.split("=", 1) for part in key.split("|")[3:])
    return {name: value.replace("%7C", "|").replace("%25", "%") for name, value in pairs}


def standing(
    limits: tuple[int | None, int | None, int | None], balance: Balance, needed: Amount | None = None
) -> Mapping[str, object]:
    """Limit, spent, reserved, remaining (and needed) in each dimension that has a limit, under the names that
    errors and status rows give them. Money in US dollars."""
    values: dict[str, object] = {}
    asked = (None, None, None) if needed is None else (needed.nano_usd, needed.tokens, needed.calls)
    for dimension, limit, spent, reserved, need in zip(
        DIMENSIONS, limits, balance[1:4], balance[4:7], asked, strict=True
    ):
        if limit is None:
            continue
        numbers = {
            "limit": limit,
            "spent": spent,
            "reserved": reserved,
            "remaining": max(0, limit - spent - reserved),
        }
        if need is not None:
            numbers["needed"] = need
        for name, number in numbers.items():
            values[f"{name}_{dimension}"] = to_usd(number) if dimension == "usd" else number
    return values


def helps_to_wait(claim: Claim, dimension: Dimension) -> bool:
    """Whether the call would fit into an empty window."""
    index = DIMENSIONS.index(dimension)
    limit = claim[4:7][index]
    return limit is None or claim[1:4][index] <= limit
