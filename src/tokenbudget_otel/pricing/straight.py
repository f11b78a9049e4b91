"""Rate cards as straight functions: the price and the parts of calls that report the same counts as calls before.

A provider reports the same few counts with every call. For a set of counts that comes again, what :class:`.Card` works
out in general (which unit is inside of which, what is left of each) is one formula in these counts, and is written
down as a function of them. Where the counts do not agree, the function says ``None`` and the general way decides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from tokenbudget_otel.pricing.units import ALIASES, GENERAL_FIRST, SHOWN_APART, part_of
from tokenbudget_otel.usage import FRACTIONAL, PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from fractions import Fraction

    from tokenbudget_otel.pricing.card import Card

SEEN: Final = 2
"""How often a set of counts is priced in general before a function is made of it: most are never seen again."""

MOST: Final = 16
"""Sets of counts for which one card keeps functions. Spans of others may report any."""

_APART: Final = FRACTIONAL | ALIASES.keys() | frozenset(ALIASES.values())
"""Counts that are no whole numbers, or two names of one thing."""

Shape = tuple[str, ...]
"""The names of the counts that are known, in the order in which they are reported."""


class Straight:
    """The functions for one shape. Both take the counts in its order.

    Attributes:
        price: nano-USD; ``None`` where the counts are in doubt.
        parts: nano-USD by part, adding up to the price; ``None`` where the counts are in doubt.
    """

    __slots__ = ("parts", "price")

    def __init__(self, price: Callable[..., int | None], parts: Callable[..., dict[str, int] | None]) -> None:
        self.price = price
        self.parts = parts


class Straights:
    """The functions of one card, made when a shape comes again."""

    __slots__ = ("_seen", "made")

    def __init__(self) -> None:
        self.made: dict[Shape, Straight | None] = {}
        """What there is; ``None`` where there is no one formula."""
        self._seen: dict[Shape, int] = {}

    def note(self, card: Card, shape: Shape) -> None:
        """A call of this shape was priced in general."""
        if shape in self.made or len(self.made) >= MOST:
            return
        seen = self._seen.get(shape, 0) + 1
        if seen > SEEN:
            self._seen.pop(shape, None)
            self.made[shape] = straight(card, shape)
        elif shape in self._seen or len(self._seen) < MOST:
            self._seen[shape] = seen


def straight(card: Card, shape: Shape) -> Straight | None:
    """The functions for calls that report these counts; ``None`` where there is no one formula for them.

    >>> from tokenbudget_otel.pricing.card import Card
    >>> card = Card({"input_tokens": "2.5", "cache_read_tokens": "1.25"})
    >>> made = straight(card, ("input_tokens", "cache_read_tokens"))
    >>> made.price(1000, 400), made.parts(1000, 400), made.price(1, 2)
    (2000000, {'cache_read': 500000, 'input': 1500000}, None)
    """
    names = frozenset(shape)
    if card.least or not _APART.isdisjoint(names) or _has_orphans(names):
        return None
    variables = {name: f"c{index}" for index, name in enumerate(shape)}
    arguments = ", ".join(variables[name] for name in shape)
    doubts = [f"{variables[name]}" for name in shape if name not in card.levels[0][1]]
    doubts += [
        f"({variables[one]} and {variables[other]})"
        for both, one, other in card.joints
        if one in names and other in names and both not in names
    ]
    for check in card.checks:
        form = {name: sign for name, sign in check if name in names}
        if any(sign < 0 for sign in form.values()):
            doubts.append(f"{_sum(form, variables)} < 0")
    guard = [f" if {' or '.join(dict.fromkeys(doubts))}: return None"] if doubts else []

    price = [f"def price({arguments}):", *guard]
    parts = [f"def parts({arguments}):", *guard]
    helpers: dict[str, Any] = {"share": _share}
    for index in range(len(card.levels) - 1, -1, -1):
        start, coefficients = card.levels[index]
        total = _sum(
            {name: coefficients[name] for name in shape if coefficients.get(name)}, variables, card.fixed[index]
        )
        leaves = _leaves(card.rates[index][1], names)
        denominator = math.lcm(*(rate.denominator for _, rate, _ in leaves)) if leaves else 1
        helpers[f"names{index}"] = tuple(unit.removesuffix("_tokens") for unit, _, _ in leaves)
        lines = [f" l{number} = {_sum(form, variables)}" for number, (_, _, form) in enumerate(leaves)]
        if below := [f"l{number} < 0" for number, (_, _, form) in enumerate(leaves) if min(form.values()) < 0]:
            lines.append(f" if {' or '.join(below)}: return None")
        amounts = "".join(f"{int(rate * denominator)}*l{number}, " for number, (_, rate, _) in enumerate(leaves))
        if denominator == 1:  # nothing to share out
            lines.append(" found = {}")
            for number, (unit, rate, _) in enumerate(leaves):
                if rate:
                    lines.append(f" if l{number}: found[{unit.removesuffix('_tokens')!r}] = {int(rate)}*l{number}")
            lines.append(" return found")
        else:
            lines.append(f" return share(names{index}, ({amounts}), {denominator})")
        bill = f" return {total if card.denominator == 1 else f'-(-({total}) // {card.denominator})'}"
        if index and "input_tokens" not in names:
            continue  # of no length: the first level
        if index:
            condition = f" if {variables['input_tokens']} > {start}:"
            price += [condition, f" {bill}"]
            parts += [condition, *(f" {line}" for line in lines)]
        else:
            price.append(bill)
            parts += lines
    made: dict[str, Any] = {}
    # Nothing of this comes from outside: it is made of numbered names, of integers, and of names of our own units.
    exec("\n".join((*price, *parts)), helpers, made)
    return Straight(made["price"], made["parts"])


def _has_orphans(names: frozenset[str]) -> bool:
    return any(
        whole not in names and any(part in names for group in groups for part in group)
        for whole, groups in PARTS.items()
    )


def _leaves(rates: Mapping[str, Fraction], names: frozenset[str]) -> list[tuple[str, Fraction, dict[str, int]]]:
    """How many of each unit are of no more special one, as sums of counts; those that are shown apart among them.
    ``""`` stands for 1: the request itself."""
    rates = dict(rates)
    for whole, shown in SHOWN_APART.items():
        if whole in rates:
            for name in shown:
                if name in names and name not in rates:
                    rates[name] = rates[whole]
    found: list[tuple[str, Fraction, dict[str, int]]] = []
    for unit in reversed(GENERAL_FIRST):
        if unit not in rates:
            continue
        form = {unit: 1} if unit in names else {"": 1} if unit == "requests" else {}
        for part, _, inside in found:
            if part_of(part, unit):
                for name, times in inside.items():
                    form[name] = form.get(name, 0) - times
        form = {name: times for name, times in form.items() if times}
        if form:
            found.append((unit, rates[unit], form))
    return found


def _sum(form: Mapping[str, int], variables: Mapping[str, str], constant: int = 0) -> str:
    """A sum of counts as it is written in a program."""
    terms = [str(constant)] if constant or not form else []
    for name, times in form.items():
        term = variables[name] if name else "1"
        terms.append(term if times == 1 else f"-{term}" if times == -1 else f"{times}*{term}")
    return " + ".join(terms).replace("+ -", "- ")


def _share(names: Sequence[str], amounts: Sequence[int], denominator: int) -> dict[str, int]:
    """Whole nano-USD that add up to the sum rounded up: the rounding goes to the largest remainders."""
    whole = {name: amount // denominator for name, amount in zip(names, amounts, strict=True) if amount}
    missing = -(-sum(amounts) // denominator) - sum(whole.values())
    if missing:
        remainders = {name: amount % denominator for name, amount in zip(names, amounts, strict=True) if amount}
        for name in sorted(remainders, key=remainders.__getitem__, reverse=True)[:missing]:
            whole[name] += 1
    return {name: amount for name, amount in whole.items() if amount}
