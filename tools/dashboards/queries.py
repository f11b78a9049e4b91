"""What the panels ask Prometheus. Spend, tokens and calls come from the recorded growth (``dashboards.recorded``)."""

from __future__ import annotations

from typing import Final

COST: Final = "tokenbudget:cost_usd:increase30s"
CALLS: Final = "tokenbudget:calls:increase30s"
TOKENS: Final = "tokenbudget:tokens:increase30s"
DETAILS: Final = "tokenbudget:token_details:increase30s"
OPERATIONS: Final = "tokenbudget:operations:increase30s"
REFUSALS: Final = "tokenbudget:refusals:increase30s"
DURATION: Final = "tokenbudget:duration_seconds_bucket:increase30s"
FIRST_CHUNK: Final = "tokenbudget:first_chunk_seconds_bucket:increase30s"
CHUNK_GAP: Final = "tokenbudget:chunk_gap_seconds_bucket:increase30s"
EXPENSIVE: Final = "tokenbudget_expensive_call_cost_USD"

MODEL: Final = "gen_ai_request_model"
PROVIDER: Final = "gen_ai_provider_name"
TENANT: Final = "tokenbudget_tag_tenant"
FEATURE: Final = "tokenbudget_tag_feature"
BUDGET: Final = "tokenbudget_budget_name, tokenbudget_budget_scope, tokenbudget_budget_unit, tokenbudget_budget_window"
CHOSEN: Final = f'{PROVIDER}=~"$provider", {MODEL}=~"$model", {TENANT}=~"$tenant"'
"""The variables at the top of each dashboard. All of one is ``.*``, which is also true of what has no such label."""

OVER_RANGE: Final = "$__range"
OVER_STEP: Final = "$__interval"


def chosen(metric: str, *more: str) -> str:
    """A selector of a metric with the variables of the dashboard, and with further matchers."""
    return f"{metric}{{{', '.join((CHOSEN, *more))}}}"


def total(metric: str, *more: str, over: str = OVER_RANGE) -> str:
    """The sum over a range; 0 where there is nothing."""
    return f"(sum(sum_over_time({chosen(metric, *more)}[{over}])) or vector(0))"


def by(label: str, metric: str, *more: str, over: str = OVER_RANGE) -> str:
    """The sums over a range for each value of a label. What has none is ``(none)``: a row that says so, not a blank."""
    summed = f"sum by ({label}) (sum_over_time({chosen(metric, *more)}[{over}]))"
    for name in label.split(", "):
        summed = f'label_replace({summed}, "{name}", "(none)", "{name}", "")'
    return summed


def share(part: str, whole: str) -> str:
    """A part of a whole; 0 where there is nothing at all."""
    return f"({part} / ({whole} > 0)) or vector(0)"


def quantile(q: float, buckets: str, label: str = MODEL, over: str = OVER_RANGE) -> str:
    """A quantile of what was measured in a range, for each value of a label, to the bounds of the buckets."""
    return f"histogram_quantile({q}, sum by (le, {label}) (sum_over_time({chosen(buckets)}[{over}])))"


LEFT_OF_MONTH: Final = "(scalar(days_in_month()) * 86400 - (scalar(day_of_month()) - 1) * 86400 - time() % 86400)"
"""Seconds that are left of the month, in UTC."""

FORECAST: Final = (
    f"{total(COST)} + {total(COST, over='7d')} * {LEFT_OF_MONTH}"
    f" / scalar(clamp(time() - (min(min_over_time(timestamp({COST})[7d:1h])) or vector(time())), 86400, 604800))"
)
"""What is spent, and the rest of the month at the pace of the last seven days, or of the days that there are."""


def budget(what: str) -> str:
    """How budgets stand. Processes that share a ledger report the same: one of them is taken, never the sum.

    Of those that have ended the last report stays for some minutes: most is spent, and least remains, in the newest.
    """
    newest = "min" if what == "remaining" else "max"
    return f"{newest} by ({BUDGET}) (last_over_time(tokenbudget_budget_{what}[10m]))"


SPENT_IN_AN_HOUR: Final = (
    f"clamp_min({budget('spent')} - (max by ({BUDGET}) (last_over_time(tokenbudget_budget_spent[10m] offset 1h))"
    f" or 0 * {budget('spent')}), 0)"
)
"""What a budget has been used by in an hour."""
