"""A call that was admitted: what is reserved for it, in the name of which budgets, and what each records in the end."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tokenbudget_otel.budgets.amounts import COUNTED, Amount, Call, Estimate
from tokenbudget_otel.budgets.ledger import Claim
from tokenbudget_otel.budgets.remedies import UNCHANGED, Change, Source
from tokenbudget_otel.budgets.rules import Rule
from tokenbudget_otel.budgets.run import budget
from tokenbudget_otel.usage import TokenUsage

if TYPE_CHECKING:
    from tokenbudget_otel.budgets.shortfall import Shortfall


class Hold:
    """A call that was admitted, and what is reserved for it. To be settled or released, once.

    Attributes:
        warnings: the budgets that had no room for the call and let it through all the same.
        change: what became of the request so that it fits.
        cut: whether one of the budgets has a stream stopped that outgrows it.
    """

    __slots__ = ("_once", "_runs", "_sources", "call", "change", "claims", "cut", "estimate", "id", "steps", "unpriced",
                 "warnings")  # fmt: skip

    def __init__(
        self,
        hold_id: str,
        call: Call,
        claims: tuple[Claim, ...],
        sources: tuple[Source, ...],
        estimate: Estimate,
        change: Change = UNCHANGED,
        runs: int = 0,
        cut: bool | None = None,
    ) -> None:
        self.id = hold_id
        self.call = call
        self.claims = claims
        self.estimate = estimate
        self.unpriced = estimate.expected.nano_usd is None or estimate.worst_case.nano_usd is None
        self.warnings: tuple[Shortfall, ...] = ()
        self.change = change
        self.cut = any(source.cut_streams for source in sources) if cut is None else cut
        self.steps = 0
        self._sources = sources
        self._runs = runs
        self._once = [None]

    def parts(self) -> Iterable[tuple[Source, Claim]]:
        """What is reserved, and for which budget; each key once."""
        last = ""
        for source, claim in zip(self._sources, self.claims, strict=True):
            if claim.key != last:  # a budget that degrades early claims its key twice in a row
                last = claim.key
                yield source, claim

    @property
    def has_runs(self) -> bool:
        """Whether any ``budget()`` scope counts this call."""
        return self._runs > 0

    def runs(self) -> Iterable[tuple[budget, Claim]]:
        """The ``budget()`` scopes that count this call, which are the first, with what each reserves."""
        return zip(self._sources[: self._runs], self.claims, strict=False)  # type: ignore[arg-type]

    def end(self) -> bool:
        """Whether it had not ended yet. It has now."""
        try:
            self._once.pop()
        except IndexError:
            return False
        return True

    def __repr__(self) -> str:
        return f"<Hold {self.id} on {', '.join(claim.key for claim in self.claims)}>"


def apart_of(
    parts: Iterable[tuple[Source, Claim]], actual: Amount, usage: TokenUsage | None, assumed: int | None
) -> dict[str, Amount] | None:
    """What the budgets record that count otherwise than the rest: tokens of one type, or the ``assumed`` price of a
    call whose own is not known."""
    found: dict[str, Amount] = {}
    for source, claim in parts:
        if not isinstance(source, Rule) or not source.counts_apart:
            continue
        nano_usd, tokens = actual.nano_usd, actual.tokens
        if source.token_type != "all" and usage is not None:
            tokens = tokens_of_type(usage, source.token_type)
        if source.assumes_price and assumed is not None:
            nano_usd = assumed
        found[claim.key] = Amount(nano_usd, tokens, actual.calls)
    return found or None


def tokens_of_type(usage: TokenUsage, token_type: str) -> int:
    """How many tokens of a type a call used; 0 where that is not told.

    >>> tokens_of_type(TokenUsage(input_tokens=9, cache_read_tokens=4), "cache_read")
    4
    """
    count: int | None = getattr(usage, f"{token_type}_tokens")
    return min(count or 0, COUNTED)


def with_more(claim: Claim, more: Claim | None) -> Claim:
    """A claim that was extended."""
    if more is None:
        return claim
    return claim._replace(
        nano_usd=claim.nano_usd + more.nano_usd, tokens=claim.tokens + more.tokens, calls=claim.calls + more.calls
    )


# Ids of holds: unique among processes, also of one that was forked, and cheap.
_numbers: Final = itertools.count(1)
_process = ""
_place = ""


def _name_process() -> None:
    global _process, _place
    _process = os.urandom(8).hex()
    _place = ""


def owner(call: Call) -> str:
    """Who holds a reservation, for people."""
    global _place
    if not _place:
        import socket

        _place = f"{socket.gethostname()}:{os.getpid()}"
    return f"{_place} {call.provider} {call.model}"


_name_process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_name_process)


def new_id() -> str:
    """A name for a hold or an entry that no other has."""
    return f"{_process}-{next(_numbers)}"
