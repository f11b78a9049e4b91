"""Rules: a declared budget made ready to turn each call it applies to into a claim on a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Final, NamedTuple

from tokenbudget_otel.budgets.amounts import Amount, Call, Estimate
from tokenbudget_otel.budgets.declared import Budget
from tokenbudget_otel.budgets.ledger import DIMENSIONS, Balance, Claim, Dimension, Shortage
from tokenbudget_otel.budgets.patterns import Cheaper, test_of
from tokenbudget_otel.budgets.rolling import PARTS, rolling
from tokenbudget_otel.budgets.windows import Window, window_at, zone_named
from tokenbudget_otel.money import to_nano, to_usd

BUDGETS: Final = "budget|"
"""What the key of every declared budget begins with."""

_ALLOWED: Final = (None, None, None)
_ZEROS: Final = Balance("")


class _Turn(NamedTuple):
    """What keys are made of while one window is in force. Replaced as a whole, so that threads see one or the next."""

    window: Window
    prefix: str
    older: tuple[str, ...]
    """The same for each earlier part of a rolling window, the oldest first."""
    ends: float | None
    """When what is counted now does not count any more."""


class Rule:
    """A budget with everything worked out that does not depend on the call."""

    __slots__ = (
        "_cheaper",
        "_early",
        "_parts",
        "_policy",
        "_prefix",
        "_rolling",
        "_tests",
        "_turn",
        "action",
        "assumes_price",
        "budget",
        "counts_apart",
        "cut_streams",
        "denies_unpriced",
        "dry_run",
        "fallback",
        "hard",
        "limits",
        "max_wait",
        "min_output_tokens",
        "mode",
        "name",
        "per",
        "reads",
        "token_type",
    )

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.name = budget.name
        self.mode = budget.mode
        self.action = budget.action
        self.per = budget.per
        self.max_wait = budget.max_wait
        self.min_output_tokens = budget.min_output_tokens
        self.cut_streams = budget.cut_streams
        self.dry_run = budget.dry_run
        self.token_type = budget.token_type
        self.assumes_price = budget.unpriced == "assume"
        self.counts_apart = self.assumes_price or self.token_type != "all"
        self.limits = (
            None if budget.limit_usd is None else to_nano(budget.limit_usd),
            budget.limit_tokens,
            budget.limit_calls,
        )
        self.hard = budget.action != "warn" and not budget.dry_run
        self.denies_unpriced = budget.limit_usd is not None and budget.unpriced != "allow"
        self.fallback = _fallback(budget) if self.hard else _ALLOWED
        self._cheaper = None if budget.degrade is None else Cheaper(budget.degrade)
        self._early = int(budget.degrade_at * 1000)
        self._tests = tuple((_reader(name), test_of(name, pattern)) for name, pattern in budget.match.items())
        self.reads = frozenset((*budget.match, *budget.per))
        """The names of what it reads of a call, besides what the call needs."""
        self._policy = escape(budget.name)
        self._prefix = f"{BUDGETS}{self._policy}|"
        self._parts = tuple((f"|{name}=", _reader(name)) for name in budget.per)
        self._rolling = rolling(budget.window)
        self._turn = self._turn_at(0)

    def applies(self, call: Call) -> bool:
        """Whether the budget counts this call."""
        for read, test in self._tests:  # noqa: SIM110 - half the time of all() with a generator, and on every call
            if not test(read(call)):
                return False
        return True

    def cheaper(self, model: str) -> str | None:
        """The model that is to be asked instead of one; ``None`` where there is none."""
        return None if self._cheaper is None else self._cheaper.than(model)

    def degrades_early(self, model: str) -> bool:
        """Whether a call to a model is given a cheaper one from a share of the limit on."""
        return self._early < 1000 and self.cheaper(model) is not None

    def window(self, now: float) -> Window:
        """The window in force; of a rolling one, the part."""
        return self._turned(now).window

    def prefix(self, now: float) -> str:
        """What the keys of the window in force begin with; of a rolling one, those of every part."""
        return self._turned(now).prefix if self._rolling is None else f"{self._prefix}{self._rolling.name}/"

    def amount(self, estimate: Estimate) -> Amount:
        """What the budget reserves for a call; ``nano_usd`` is ``None`` where it would have to know a price that is
        not known. Tokens are those that the budget counts."""
        amount = estimate.amount(self.mode)
        if amount.nano_usd is None and self.assumes_price and estimate.assumed is not None:
            amount = estimate.assumed[self.mode != "expected"]
        if self.token_type != "all":
            return Amount(amount.nano_usd, estimate.tokens_of(self.token_type, self.mode), amount.calls)
        return amount

    def needs(self, estimate: Estimate) -> tuple[int, int, int]:
        """The same as a claim says it: an unknown price is 0 there (see :attr:`denies_unpriced`)."""
        amount = self.amount(estimate)
        return amount.nano_usd or 0, amount.tokens, amount.calls

    def claims(self, call: Call, estimate: Estimate, now: float, *, early: bool = True) -> tuple[Claim, ...]:
        """What the call needs of this budget: one claim; and of a budget that degrades calls from a share of its
        limit on, another before it on that share, where the call has a cheaper model. ``early=False`` leaves that
        out: the call has been degraded, or cannot be.
        """
        claim = self.claim(call, estimate, now)
        if early and self.degrades_early(call.model):
            return claim._replace(per_mille=self._early), claim
        return (claim,)

    def claim(self, call: Call, estimate: Estimate, now: float) -> Claim:
        """What the call needs of the whole limit."""
        turn = self._turned(now)
        scope = ""
        for part, read in self._parts:
            scope += part + escape(read(call))
        older = turn.older
        if older and scope:
            older = tuple([each + scope for each in older])
        return Claim(
            turn.prefix + scope,
            *self.needs(estimate),
            *self.limits,
            self.hard,
            turn.ends,
            older,
            self._policy + scope,
            1000,
            self.fallback,
        )

    def window_id(self, key: str) -> str:
        """The window that a key belongs to, as people call it.

        >>> Rule(Budget(limit_usd=1, window="month")).window_id("budget|usd/month|2026-11")
        '2026-11'
        """
        return self.budget.window if self._rolling is not None else key.split("|", 3)[2]

    def policy(self, scope: Mapping[str, str] | None = None) -> str:
        """The name under which other limits can be set for one scope.

        Raises:
            ValueError: for a scope that is not one of this budget's.

        >>> Rule(Budget(limit_usd=1, per="tenant", name="mine")).policy({"tenant": "acme"})
        'mine|tenant=acme'
        """
        scope = scope or {}
        if set(scope) != set(self.per):
            wanted = f"give {', '.join(map(repr, self.per))}" if self.per else "it has none: leave the scope out"
            raise ValueError(f"{dict(scope)!r} is not a scope of budget {self.name!r}: {wanted}")
        return self._policy + "".join(f"|{name}={escape(scope[name])}" for name in self.per)

    def standing(self, balances: Iterable[Balance], now: float) -> list[Balance]:
        """Each scope once, with what counts against its limit now.

        Args:
            balances: of all keys that begin with :meth:`prefix`. Those of a budget that had the name before, and was
                counted by something else, are left out.
            now: the moment.
        """
        turn = self._turned(now)
        begins = len(self._prefix)
        in_force = {key[begins:] for key in (*turn.older, turn.prefix)}
        sums: dict[str, Balance] = {}
        for each in balances:
            window, bar, scope = each.key[begins:].partition("|")
            if window in in_force and tuple(scope_of(each.key)) == self.per:
                key = turn.prefix + bar + scope
                known = sums.get(key)
                sums[key] = each._replace(key=key) if known is None else _sum(known, each)
        return list(sums.values())

    def when_room(self, balances: Sequence[Balance], claim: Claim, now: float) -> float | None:
        """The moment at which so much of what is spent and reserved has ceased to count that a claim has room;
        ``None`` if that never happens. It may be earlier: calls in flight can come to less than they reserve.

        Args:
            balances: of the key of the claim and of its older ones, of which those not named are at zero. Needed
                only for a rolling window: any other begins anew at its end.
            claim: with the limits in force (:meth:`.Claim.under`).
            now: the moment, returned where there is room already.
        """
        if claim.ends is None:
            return None
        for needed, limit in zip(claim[1:4], claim[4:7], strict=True):
            if limit is not None and needed > limit:
                return None  # not even an empty window has room
        if self._rolling is None:
            return claim.ends
        stands = {each.key: each for each in balances}
        parts = [stands.get(key, Balance(key)) for key in (*claim.older, claim.key)]
        counts = _ZEROS
        stays = 0  # the newest parts, beside which the claim has room
        for part in reversed(parts):
            counts = _sum(counts, part)
            if Shortage(claim, counts).dimensions:
                break
            stays += 1
        # The newest part counts until `ends`, each older one by the length of a part less.
        gone = len(parts) - stays
        return now if not gone else max(now, claim.ends - stays * self._rolling.seconds / PARTS)

    def ends(self, now: float) -> float | None:
        """When what is counted now does not count any more: at the end of the window, and of a rolling one when the
        present part has left it; ``None`` for never."""
        return self._turned(now).ends

    def resets_at(self, end: float | None) -> datetime | None:
        """When a window ends, in the budget's time zone."""
        return None if end is None else datetime.fromtimestamp(end, zone_named(self.budget.timezone))

    def _turned(self, now: float) -> _Turn:
        turn = self._turn
        if not turn.window.holds(now):
            # Threads that do this at once come to the same answer.
            turn = self._turn = self._turn_at(now)
        return turn

    def _turn_at(self, now: float) -> _Turn:
        window = window_at(self.budget.window, now, self.budget.timezone, self.budget.starts_on)
        prefix = f"{self._prefix}{window.id}"
        if (span := self._rolling) is None:
            return _Turn(window, prefix, (), window.end)
        part = span.part(now)
        older = tuple(f"{self._prefix}{span.id(each)}" for each in range(part - PARTS, part))
        return _Turn(window, prefix, older, span.start(part + 1 + PARTS))


FACTS: Final[dict[str, Callable[[Call], str]]] = {
    "model": attrgetter("model"),
    "provider": attrgetter("provider"),
    "operation": lambda call: call.operation or "",
    "api_key": attrgetter("api_key"),
}
"""What every call says of itself. Any other name is a tag."""


def _reader(name: str) -> Callable[[Call], str]:
    return FACTS.get(name) or (lambda call: call.tags.get(name, ""))


def fact(call: Call, name: str) -> str:
    """What a call says of itself under a name: its model, provider, operation, API key, or a tag; ``""`` for nothing.

    >>> fact(Call("openai", "gpt-5", {"tenant": "acme"}), "tenant")
    'acme'
    """
    return _reader(name)(call)


def _fallback(budget: Budget) -> tuple[int | None, int | None, int | None] | None:
    if isinstance(budget.on_store_error, str):
        return None if budget.on_store_error == "deny" else _ALLOWED
    return budget.on_store_error.limits


def _sum(one: Balance, other: Balance) -> Balance:
    return Balance(one.key, *(mine + more for mine, more in zip(one[1:], other[1:], strict=True)))


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


def scope_words(scope: Mapping[str, str]) -> str:
    """A scope for people to read; empty for a budget that counts all calls together.

    >>> scope_words({"tenant": "acme", "user": ""})
    'tenant=acme, no user'
    """
    return ", ".join(f"{name}={value}" if value else f"no {name}" for name, value in scope.items())


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
