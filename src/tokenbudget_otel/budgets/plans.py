"""Plans: which budgets apply to calls of one kind and what each claims, worked out once while their windows last.

Calls of a program are alike: the same models, the same tenants, one after the other. What differs from call to call is
how much each needs; which budgets it is counted by, under which keys and within which limits does not, until one of
the windows ends.
"""

from __future__ import annotations

import math
from typing import Final

from tokenbudget_otel.budgets.amounts import Amount, Call, Estimate
from tokenbudget_otel.budgets.hold import owner
from tokenbudget_otel.budgets.ledger import Claim
from tokenbudget_otel.budgets.rules import FACTS, Rule

MOST: Final = 1_000
"""Kinds of call for which a set of rules keeps plans. Beyond that all are made anew."""

_NOTHING: Final = Estimate(Amount(0, 0, 0), Amount(0, 0, 0))
_claim: Final = tuple.__new__


class Plan:
    """What calls of one kind need of which budget.

    Attributes:
        start, end: while this lasts, the plan holds.
        sources: the budgets that apply.
        simple: whether it is all there is to do: no budget has calls degraded before its limit is reached.
        final: whether a refusal is: no budget changes calls so that they fit, or has them wait.
        rolling: whether the window of one of them is a rolling one.
        cut: whether one of them has streams stopped.
        owner: who holds what is reserved (:func:`.hold.owner`).
    """

    __slots__ = ("_parts", "cut", "end", "final", "owner", "rolling", "simple", "sources", "start")

    def __init__(self, rules: tuple[Rule, ...], call: Call, now: float) -> None:
        self.sources = tuple([rule for rule in rules if rule.applies(call)])
        self.start = -math.inf
        self.end = math.inf
        for rule in self.sources:
            window = rule.window(now)
            self.start = self.start if window.start is None else max(self.start, window.start)
            self.end = self.end if window.end is None else min(self.end, window.end)
        self.simple = not any(rule.degrades_early(call.model) for rule in self.sources)
        self.final = all(rule.action in ("block", "warn") for rule in self.sources)
        self.cut = any(rule.cut_streams for rule in self.sources)
        self.owner = owner(call)
        parts = []
        for rule in self.sources:
            claim = rule.claim(call, _NOTHING, now)
            by = rule if rule.token_type != "all" else None
            parts.append((by, rule.mode != "expected", claim.key, claim[4:]))
        self._parts = tuple(parts)
        self.rolling = any(limits[5] for *_, limits in parts)

    def claims(self, estimate: Estimate) -> tuple[Claim, ...]:
        """What a call whose price is known needs, as :meth:`.Rule.claim` has it."""
        made = []
        for by, worst, key, limits in self._parts:
            if by is None:
                nano_usd, tokens, calls = estimate.worst_case if worst else estimate.expected
            else:
                nano_usd, tokens, calls = by.needs(estimate)
            made.append(_claim(Claim, (key, nano_usd, tokens, calls, *limits)))
        return tuple(made)


class Plans:
    """The plans for one set of rules."""

    __slots__ = ("_made", "_reads_key", "_reads_tags", "rules")

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self.rules = rules
        reads = {name for rule in rules for name in rule.reads}
        self._reads_key = "api_key" in reads
        self._reads_tags = tuple(sorted(reads - FACTS.keys()))
        self._made: dict[tuple[object, ...], Plan] = {}

    def plan(self, call: Call, now: float) -> Plan:
        """The plan for a call at a time."""
        provider, model, tags, _, operation, api_key = call
        key = (provider, model, operation, api_key if self._reads_key else "", *map(tags.get, self._reads_tags))
        plan = self._made.get(key)
        if plan is None or not plan.start <= now < plan.end:
            plan = Plan(self.rules, call, now)
            if len(self._made) >= MOST:
                self._made.clear()
            self._made[key] = plan
        return plan
