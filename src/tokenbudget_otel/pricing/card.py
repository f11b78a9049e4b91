"""Rate cards: the prices of one model under one set of conditions, compiled to integers.

Billing each token once, at the rate of the most special unit it belongs to, is linear in the counts:
cached tokens cost ``cached * cache_rate + (input - cached) * input_rate``, which is
``input * input_rate + cached * (cache_rate - input_rate)``. So a card holds one integer coefficient
for each count, over a common denominator, and the price of a call is one sum and one division,
rounded up once to nano-USD.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from tokenbudget_otel.money import NANO_PER_USD
from tokenbudget_otel.pricing.straight import Straights
from tokenbudget_otel.pricing.units import (
    ALIASES,
    DIMENSIONS,
    GENERAL_FIRST,
    INPUT_UNITS,
    MEASURES,
    OUTPUT_UNITS,
    PAID_BY_TOKENS,
    PER,
    SHOWN_APART,
    joint,
    part_of,
)
from tokenbudget_otel.usage import FIELDS, PARTS, TokenUsage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenbudget_otel.usage import Count

Rate = str | list["str | list[int | str]"]
"""USD for ``PER[unit]`` of a unit: one price, or the lowest and then ``[above this many input tokens, price]``."""
Prices = dict[str, Rate]

_TTLS: Final = ("5m", "30m", "1h", "12h")
_MODALITIES: Final = ("mode:audio", "mode:image", "mode:video")
_WHOLES: Final = frozenset(PARTS)
_PARTS_OF: Final = tuple(
    (whole, frozenset(part for group in groups for part in group)) for whole, groups in PARTS.items()
)
_ESTIMATED_TTL: Final = "cache_write_12h_tokens"


class Card:
    """What one model costs at one time in one service tier.

    Args:
        prices: USD per unit as in the catalog.
        least: counts below which the provider bills this many all the same.
    """

    __slots__ = (
        "_ceilings",
        "_straights",
        "checks",
        "coefficients",
        "denominator",
        "fixed",
        "joints",
        "least",
        "levels",
        "rates",
        "straights",
    )

    def __init__(self, prices: Prices, least: Mapping[str, int] | None = None) -> None:
        starts = sorted({0, *(start for rate in prices.values() for start in _starts(rate))})
        self.rates: list[tuple[int, dict[str, Fraction]]] = [
            (start, _completed({unit: _rate_above(unit, rate, start) for unit, rate in prices.items()}))
            for start in starts
        ]
        compiled = [_coefficients(rates) for _, rates in self.rates]
        self.denominator = math.lcm(*(c.denominator for level in compiled for c in level.values()))
        self.levels: list[tuple[int, dict[str, int]]] = [
            (start, {name: int(c * self.denominator) for name, c in level.items()})
            for (start, _), level in zip(self.rates, compiled, strict=True)
        ]
        # The fee for a request is no count: it is kept apart, one for each level.
        self.fixed: tuple[int, ...] = tuple(level.pop("requests", 0) for _, level in self.levels)
        self.coefficients = self.levels[0][1] if len(self.levels) == 1 else None
        priced = self.rates[0][1]
        self.checks = _checks(priced)
        self.joints = tuple(
            (both, one, other) for both in priced for one in priced for other in priced if _is_joint(both, one, other)
        )
        self.least = tuple((least or {}).items())
        self._ceilings: dict[tuple[str | None, bool], tuple[tuple[int, int, int, int], ...]] = {}
        self._straights = Straights()
        self.straights = self._straights.made

    def level(self, usage: TokenUsage) -> int:
        """Which of the levels by prompt length a call is billed at: the whole of it at one."""
        found = 0
        if self.coefficients is None:
            length = usage.__dict__.get("input_tokens") or 0
            for index, (start, _) in enumerate(self.levels):
                if length > start or not index:
                    found = index
        return found

    def price(self, usage: TokenUsage) -> tuple[int | None, tuple[str, ...]]:
        """Nano-USD of a usage, and the counts in it that could not be priced (as they stand).

        The amount is ``None`` where nothing that was reported has a price. Counts that contradict one
        another are reduced to what is certain; nothing here raises.
        """
        known = usage.__dict__
        shape = tuple(known)
        if (straight := self._straights.made.get(shape)) is None:
            self._straights.note(self, shape)
        elif (nano_usd := straight.price(*known.values())) is not None:
            return nano_usd, ()
        return self.price_in_general(usage)

    def price_in_general(self, usage: TokenUsage) -> tuple[int | None, tuple[str, ...]]:
        """:meth:`price`, for counts of any kind."""
        known = usage.__dict__
        doubtful: tuple[str, ...] = ()
        if self._in_doubt(known):
            usage, doubtful = self.settled(usage)
            known = usage.__dict__
        coefficients = self.coefficients
        total: int | Fraction = self.fixed[0]
        if coefficients is None:
            length = known.get("input_tokens") or 0
            coefficients = self.levels[0][1]
            for index, (start, level) in enumerate(self.levels):
                if length > start:
                    coefficients = level
                    total = self.fixed[index]
        unpriced: tuple[str, ...] = ()
        for name, count in known.items():
            coefficient = coefficients.get(name)
            if coefficient is None:
                if count:
                    unpriced += (name,)
            elif type(count) is int:
                total += coefficient * count
            else:
                total += coefficient * exact(count)  # fractions of a second
        if unpriced:
            unpriced = self._really_unpriced(unpriced, known)
            if unpriced and not total and not self._anything_priced(known):
                return None, unpriced
        return -(-total // self.denominator), unpriced + doubtful

    def _in_doubt(self, known: dict[str, Any]) -> bool:
        """Whether the counts do not agree, as far as this card asks, or leave open what it asks."""
        get = known.get
        for check in self.checks:
            rest = 0
            for name, sign in check:
                if count := get(name):
                    rest += sign * count
            if rest < 0:
                return True
        if not known.keys() >= _WHOLES and _has_orphans(known):
            return True
        for both, one, other in self.joints:
            if both not in known and get(one) and get(other):
                return True
        return any(0 < (get(name) or 0) < least for name, least in self.least) if self.least else False

    def _anything_priced(self, known: Mapping[str, Count]) -> bool:
        return any(count and name in self.levels[0][1] for name, count in known.items())

    def _really_unpriced(self, missing: tuple[str, ...], known: Mapping[str, Count]) -> tuple[str, ...]:
        """Leave out what is another measure of something that has been billed."""
        billed = self.levels[0][1]
        measured = set(PAID_BY_TOKENS)
        for tokens, others in MEASURES.items():
            if known.get(tokens) and tokens in billed:
                measured.update(others)
            if any(known.get(other) and other in billed for other in others):
                measured.update((tokens, *others))
                measured.update(name for name in missing if name in DIMENSIONS and part_of(name, tokens))
        return tuple(name for name in missing if name not in measured)

    def settled(self, usage: TokenUsage) -> tuple[TokenUsage, tuple[str, ...]]:
        """The counts made to agree as far as this card asks, and the names of those that were in doubt."""
        known: dict[str, Count] = dict(usage.__dict__)
        for name, least in self.least:
            if 0 < (known.get(name) or 0) < least:
                known[name] = least
        # What has parts is at least as much as they are.
        for whole, groups in PARTS.items():
            if whole not in known:
                most = max(sum(exact(known.get(part, 0)) for part in group) for group in groups)
                if most:
                    known[whole] = int(most)
        certain = TokenUsage(**known).certain()
        doubtful = [name for name in known if name not in certain.__dict__]
        known = dict(certain.__dict__)
        doubtful += self._fill_joints(known)
        if self._contradicts(known):
            # By kind and by modality do not fit together: bill by kind.
            for name in [n for n in known if any(part.startswith("mode:") for part in DIMENSIONS[n])]:
                if known.pop(name):
                    doubtful.append(name)
        if self._contradicts(known):  # pragma: no cover - certain() has seen to it
            for name in [n for n in known if n in DIMENSIONS and len(DIMENSIONS[n]) > 1]:
                known.pop(name)
                doubtful.append(name)
        return TokenUsage(**known), tuple(dict.fromkeys(doubtful))

    def _fill_joints(self, known: dict[str, Count]) -> list[str]:
        """Where cached and audio tokens are known but not how many are both, take the dearest possibility."""
        open_joints = [
            (both, one, other)
            for both, one, other in self.joints
            if known.get(one) and known.get(other) and both not in known
        ]
        if not open_joints:
            return []
        coefficients = self.levels[0][1]
        # What must overlap falls on the dearest.
        open_joints.sort(key=lambda names: -coefficients[names[0]])
        for both, _, _ in open_joints:
            known[both] = 0
        for both, one, other in open_joints:
            most = max(0, min(self._rest(known, one, both), self._rest(known, other, both)))
            known[both] = most if coefficients[both] > 0 else min(most, self._shortfall(known))
        return [both for both, _, _ in open_joints]

    def _rest(self, known: Mapping[str, Count], whole: str, both: str) -> int:
        others = {name for name, one, other in self.joints if name != both and whole in (one, other)}
        return int(known[whole]) - sum(int(known.get(name) or 0) for name in others)

    def _shortfall(self, known: Mapping[str, Count]) -> int:
        worst = 0
        for check in self.checks:
            rest = sum(sign * int(known.get(name) or 0) for name, sign in check)
            worst = min(worst, rest)
        return -worst

    def _contradicts(self, known: Mapping[str, Count]) -> bool:
        return any(sum(sign * exact(known.get(name, 0)) for name, sign in check) < 0 for check in self.checks)

    def parts(self, usage: TokenUsage) -> dict[str, int]:
        """Nano-USD by part, adding up to the whole price."""
        known = usage.__dict__
        if (straight := self._straights.made.get(tuple(known))) is not None:
            parts = straight.parts(*known.values())
            if parts is not None:
                return parts
        return self.parts_in_general(usage)

    def parts_in_general(self, usage: TokenUsage) -> dict[str, int]:
        """:meth:`parts`, for counts of any kind."""
        if self._in_doubt(usage.__dict__):
            usage, _ = self.settled(usage)
        known = usage.__dict__
        index = self.level(usage)
        rates = dict(self.rates[index][1])
        _show_inside(rates, known)
        leaves = _leaves(rates, known)
        if any(count < 0 for count in leaves.values()):
            rates = self.rates[index][1]
            leaves = _leaves(rates, known)
        exact_parts = {
            unit.removesuffix("_tokens"): rates[unit] * leaf for unit, leaf in leaves.items() if leaf and rates[unit]
        }
        return _whole_numbers(exact_parts)

    def dearest(self, ttl: str | None, text_only: bool) -> tuple[tuple[int, int, int, int], ...]:
        """For each level its start, the fee for a request, and the most that a token of input and one of output can
        cost, over :attr:`denominator`."""
        try:
            return self._ceilings[ttl, text_only]
        except KeyError:
            dearest = self._ceilings[ttl, text_only] = tuple(
                (
                    start,
                    fixed,
                    int(_dearest(rates, INPUT_UNITS, ttl, text_only) * self.denominator),
                    int(_dearest(rates, OUTPUT_UNITS, ttl, text_only) * self.denominator),
                )
                for (start, rates), fixed in zip(self.rates, self.fixed, strict=True)
            )
            return dearest

    def plain(self) -> tuple[tuple[int, int, int, int], ...] | None:
        """The same at the price of tokens that are neither cached nor of any other kind apart; ``None`` where that
        does not say what they cost."""
        if self.least or not {"input_tokens", "output_tokens"} <= self.levels[0][1].keys():
            return None
        return tuple(
            (start, fixed, level["input_tokens"], level["output_tokens"])
            for (start, level), fixed in zip(self.levels, self.fixed, strict=True)
        )

    def ceiling(
        self, input_tokens: int, output_tokens: int, ttl: str | None, text_only: bool, extra: TokenUsage | None = None
    ) -> int:
        """The most nano-USD that so many tokens, and so many other units, can cost, with the fee for the request."""
        most = 0
        for start, fixed, of_input, of_output in self.dearest(ttl, text_only):
            if start and input_tokens <= start:
                break
            most = max(most, fixed + of_input * input_tokens + of_output * output_tokens)
        if extra is not None:
            return math.ceil((most + self._ceiling_of_units(extra)) / self.denominator)
        return -(-most // self.denominator)

    def _ceiling_of_units(self, usage: TokenUsage) -> Fraction:
        most = Fraction(0)
        least = dict(self.least)
        for name, count in usage.__dict__.items():
            if name.endswith("_tokens") or not count:
                continue
            counted = max(exact(count), least.get(name, 0))
            most += max(counted * max(level.get(name, 0), 0) for _, level in self.levels)
        return most


def _has_orphans(known: Mapping[str, Count]) -> bool:
    """Whether a part is known, but not the whole it belongs to."""
    return any(whole not in known and not parts.isdisjoint(known) for whole, parts in _PARTS_OF)


def exact(count: Count) -> int | Fraction:
    """A count as an exact number; a float at its shortest decimal form."""
    return count if isinstance(count, int) else Fraction(str(count))


def nano_rate(unit: str, usd: str) -> Fraction:
    """Nano-USD for one of a unit, from the catalog's USD for ``PER[unit]`` of them."""
    return Fraction(Decimal(usd)) * NANO_PER_USD / PER[unit]


def has_positive(prices: Prices) -> bool:
    """Whether anything in these prices costs anything."""
    return any(float(usd) > 0 for rate in prices.values() for usd in _amounts(rate))


def _amounts(rate: Rate) -> list[str]:
    return [rate] if isinstance(rate, str) else [str(rate[0]), *(str(level[1]) for level in rate[1:])]


def _starts(rate: Rate) -> list[int]:
    return [] if isinstance(rate, str) else [int(level[0]) for level in rate[1:]]


def _rate_above(unit: str, rate: Rate, start: int) -> Fraction:
    if isinstance(rate, str):
        return nano_rate(unit, rate)
    usd = str(rate[0])
    for level in rate[1:]:
        if int(level[0]) <= start:
            usd = str(level[1])
    return nano_rate(unit, usd)


def _completed(rates: dict[str, Fraction]) -> dict[str, Fraction]:
    """Add what is both of two priced units, where no price says what it costs: the dearer of the two."""
    names = sorted(rates)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            if part_of(one, other) or part_of(other, one):
                continue
            both = joint(one, other)
            if both is not None and both not in rates:
                rates[both] = max(rates[one], rates[other])
    return rates


def _is_joint(both: str, one: str, other: str) -> bool:
    return one < other and joint(one, other) == both and both not in (one, other)


def _coefficients(rates: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """What one more of each count adds to the price, all other counts staying as they are."""
    own: dict[str, Fraction] = {}
    for unit in GENERAL_FIRST:
        if unit in rates:
            own[unit] = rates[unit] - sum((c for whole, c in own.items() if part_of(unit, whole)), Fraction(0))
    found = {unit: c for unit, c in own.items() if unit in FIELDS or unit == "requests"}
    # A count without a rate of its own costs what the whole it belongs to costs: nothing in addition.
    for name in FIELDS:
        if name not in found and any(part_of(name, whole) for whole in own):
            found[name] = Fraction(0)
    if _ESTIMATED_TTL not in own:
        found.pop(_ESTIMATED_TTL, None)  # billed at the general rate for cache writes, and said to be in doubt
    if "audio_seconds" in own:
        for name in ("input_audio_seconds", "output_audio_seconds"):
            found[name] += own["audio_seconds"]
    for name, other in ALIASES.items():
        if name not in found and other in found:
            found[name] = found[other]
    return found


def _checks(rates: Mapping[str, Fraction]) -> tuple[tuple[tuple[str, int], ...], ...]:
    """For each priced unit with priced parts: the signed counts that are what is left of it, never below 0."""
    found = []
    for whole in rates:
        signs: dict[str, int] = {}
        for unit in GENERAL_FIRST:
            if unit in rates and (unit == whole or part_of(unit, whole)):
                above = sum(sign for other, sign in signs.items() if part_of(unit, other))
                signs[unit] = 1 if unit == whole else -above
        check = tuple((name, sign) for name, sign in signs.items() if sign)
        if len(check) > 1 and whole in FIELDS:
            found.append(check)
    return tuple(found)


def _leaves(rates: Mapping[str, Fraction], known: Mapping[str, Count]) -> dict[str, int | Fraction]:
    """How many of each priced unit are of no more special priced unit."""
    counts: dict[str, Count] = dict(known)
    counts["requests"] = 1
    counts["audio_seconds"] = exact(known.get("input_audio_seconds", 0)) + exact(  # type: ignore[assignment]
        known.get("output_audio_seconds", 0)
    )
    for name, other in ALIASES.items():
        if name not in rates and other in rates and counts.get(name):
            counts[other] = exact(counts.get(other, 0)) + exact(counts[name])  # type: ignore[assignment]
    leaves: dict[str, int | Fraction] = {}
    for unit in reversed(GENERAL_FIRST):
        if unit in rates:
            inside = sum(leaf for part, leaf in leaves.items() if part_of(part, unit))
            leaves[unit] = exact(counts.get(unit, 0)) - inside
    return leaves


def _show_inside(rates: dict[str, Fraction], known: Mapping[str, Count]) -> None:
    """Parts without a rate of their own are shown apart as well, at the rate they are billed at."""
    for whole, inside in SHOWN_APART.items():
        if whole in rates:
            for name in inside:
                if known.get(name) and name not in rates:
                    rates[name] = rates[whole]


def _whole_numbers(amounts: Mapping[str, Fraction]) -> dict[str, int]:
    """Whole nano-USD that add up to the sum rounded up: the rounding goes to the largest remainders."""
    whole = {name: math.floor(amount) for name, amount in amounts.items()}
    missing = math.ceil(sum(amounts.values())) - sum(whole.values())
    for name in sorted(amounts, key=lambda name: whole[name] - amounts[name])[:missing]:
        whole[name] += 1
    return {name: amount for name, amount in whole.items() if amount}


def _dearest(rates: Mapping[str, Fraction], units: Sequence[str], ttl: str | None, text_only: bool) -> Fraction:
    return max(
        (rates[unit] for unit in units if unit in rates and _possible(unit, ttl, text_only)), default=Fraction(0)
    )


def _possible(unit: str, ttl: str | None, text_only: bool) -> bool:
    """Whether a call can be billed for a unit at all, by what is known of the request."""
    dimensions = DIMENSIONS[unit]
    if text_only and any(modality in dimensions for modality in _MODALITIES):
        return False
    if ttl is None or "type:write" not in dimensions:
        return True
    if ttl not in _TTLS:
        return False
    return not any(f"ttl:{longer}" in dimensions for longer in _TTLS[_TTLS.index(ttl) + 1 :])
