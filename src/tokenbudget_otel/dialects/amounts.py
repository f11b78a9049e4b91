"""From attributes to amounts: counts of tokens and costs, each of them checked. Nothing here raises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from tokenbudget_otel.dialects.dialect import MAX_COST_NANO_USD, MAX_COUNT, Dialect, Reason, ReportedCost, Rule
from tokenbudget_otel.money import to_nano
from tokenbudget_otel.usage import CACHE_WRITE_TTLS, TokenUsage

Rejected = list[tuple[Reason, str]]

_TOTALS: Final = frozenset(("input_tokens", "output_tokens"))
_CACHED: Final = frozenset(("cache_read_tokens", "cache_write_tokens"))


def usage_of(
    row: Dialect, provider: str, attributes: Mapping[str, Any], rejected: Rejected
) -> tuple[TokenUsage | None, bool]:
    """The usage on a span, and whether its totals are the provider's own counts."""
    counts: dict[str, Any] = {}
    refused = set()
    for attribute, name in row.counts:
        value = attributes.get(attribute)
        if value is None or name in counts:
            continue
        if (reason := _refusal(name, value)) is not None:
            rejected.append((reason, attribute))
            refused.add(name)
        else:
            counts[name] = value
    missing = refused - counts.keys()
    if not counts:
        return None, not missing & _TOTALS
    for attribute, name in row.added:
        value = attributes.get(attribute)
        if value is None:
            continue
        if (reason := _refusal(name, value)) is not None:
            if (reason, attribute) not in rejected:
                rejected.append((reason, attribute))
            missing.add(name)
        elif value:
            counts[name] = counts.get(name, 0) + value

    whole = any(attribute in attributes for attribute in row.whole_where)
    input_rule = "whole" if whole else row.input_of.get(provider, row.input)
    output_rule = "whole" if whole else row.output_of.get(provider, row.output)
    _complete(counts, "input_tokens", counts.get("cache_read_tokens", 0) + _written(counts), input_rule)
    _complete(counts, "output_tokens", counts.get("reasoning_tokens", 0), output_rule)
    counted = not missing & _TOTALS
    if (input_rule == "rest" and missing & _CACHED) or (output_rule == "rest" and "reasoning_tokens" in missing):
        counted = False
    if beyond := _beyond(row, counts, attributes, rejected):
        counts["output_tokens"] = counts.get("output_tokens", 0) + beyond
        counted = False

    usage = TokenUsage(**counts)
    if problems := usage.problems():
        rejected.append(("contradictory", problems[0]))
        usage = usage.certain()
    return usage, counted


def _complete(counts: dict[str, Any], total: str, parts: int, rule: Rule) -> None:
    """Make a whole of a total that leaves out its parts."""
    if total in counts:
        if rule == "rest" or (rule == "unknown" and counts[total] < parts):
            counts[total] += parts
    elif rule == "rest" and parts:
        # Nothing but its parts was used, and zeros are left out by some emitters.
        counts[total] = parts


def _beyond(row: Dialect, counts: Mapping[str, Any], attributes: Mapping[str, Any], rejected: Rejected) -> Any:
    """The tokens that a total has beyond input and output; 0 where there is no usable total."""
    if "input_tokens" in counts:
        for attribute in row.total:
            value = attributes.get(attribute)
            if value is None:
                continue
            if (reason := _refusal(attribute, value)) is None:
                return max(0, value - counts["input_tokens"] - counts.get("output_tokens", 0))
            rejected.append((reason, attribute))
    return 0


def _written(counts: Mapping[str, Any]) -> Any:
    """Tokens written to a cache: the total, or else what is known of it by time to live."""
    return counts.get("cache_write_tokens", sum(counts.get(name, 0) for name in CACHE_WRITE_TTLS))


def _refusal(name: str, value: Any) -> Reason | None:
    """Why ``value`` cannot be the count ``name``; ``None`` where it can.

    A number in a string is none: OTLP has integers, so who writes text there does not know what they write. (The
    strings that OTLP's JSON has for 64 bits are made numbers by whoever decodes it.)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not_a_number"
    if isinstance(value, float) and not math.isfinite(value):
        return "not_finite"
    if value < 0:
        return "negative"
    if value > MAX_COUNT:
        return "absurd"
    if isinstance(value, float) and not value.is_integer() and not name.endswith("_seconds"):
        return "not_whole"
    return None


def reported_cost(row: Dialect, attributes: Mapping[str, Any]) -> int | None:
    """The cost that the provider reports, in nano-USD; ``None`` where there is none, or none that can be."""
    for cost in row.costs:
        if (nano_usd := _reported(cost, attributes)) is not None:
            return nano_usd
    return None


def _reported(cost: ReportedCost, attributes: Mapping[str, Any]) -> int | None:
    if cost.source is not None and attributes.get(cost.source) != cost.provider_says:
        return None
    if cost.currency is not None and attributes.get(cost.currency, "USD") != "USD":
        return None
    return nano_of(attributes.get(cost.amount), cost.per_usd)


def nano_of(amount: Any, per_usd: int = 1) -> int | None:
    """Nano-USD of an amount on a span; ``None`` for what cannot be the cost of a call."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return None
    try:
        nano_usd = to_nano(amount if per_usd == 1 else Decimal(amount) / per_usd)
    except (ValueError, ArithmeticError):
        return None
    return nano_usd if 0 <= nano_usd <= MAX_COST_NANO_USD else None
