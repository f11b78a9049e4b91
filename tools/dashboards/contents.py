"""What is on each dashboard."""

from __future__ import annotations

# ruff: noqa: E501, I001 - one row of arguments for each panel reads better than one line for each argument

import json
from typing import Any, Final
from urllib.parse import quote

from dashboards.panels import GREEN_TO_RED, bars, dashboard, lines, number, pie, ranking, table
from dashboards.queries import (
    BUDGET, CALLS, CHUNK_GAP, COST, DETAILS, DURATION, EXPENSIVE, FEATURE, FIRST_CHUNK, FORECAST, MODEL, OPERATIONS,
    OVER_STEP, PROVIDER, REFUSALS, SPENT_IN_AN_HOUR, TENANT, TOKENS, budget, by, chosen, quantile, share, total,
)  # fmt: skip

INPUT: Final = 'gen_ai_token_type="input"'
OUTPUT: Final = 'gen_ai_token_type="output"'
CACHED: Final = 'tokenbudget_token_detail="cache_read"'
REASONING: Final = 'tokenbudget_token_detail="reasoning"'
FAILED: Final = 'error_type!=""'
UNPRICED: Final = 'tokenbudget_cost_state=~"unknown|partial"'
ESTIMATED: Final = 'tokenbudget_usage_estimated="true"'

LATE: Final = "A minute or two late: programs send every minute, scrapes and rules add up to a minute."


def _to_jaeger() -> str:
    """Explore, with one trace open, in the address that Grafana gives its own links."""
    pane = {
        "trace": {
            "datasource": "${jaeger}",
            "queries": [{"refId": "A", "datasource": {"type": "jaeger", "uid": "${jaeger}"}, "query": "TRACE"}],
            "range": {"from": "${__from}", "to": "${__to}"},
        }
    }
    text = quote(json.dumps(pane, separators=(",", ":")), safe="${}_")
    return f"/explore?schemaVersion=1&orgId=1&panes={text.replace('TRACE', '${__value.raw}')}"


TO_JAEGER: Final = {
    "matcher": {"id": "byName", "options": "Trace"},
    "properties": [
        {"id": "links", "value": [{"title": "Open the trace in Jaeger", "url": _to_jaeger(), "targetBlank": True}]}
    ],
}


def _in_column(name: str, unit: str) -> dict[str, Any]:
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}


EXPENSIVE_TRACES: Final = table(
    "Most expensive traces",
    {
        "": (
            f"sort_desc(topk(20, sum by (trace_id, job, {MODEL}, {TENANT}) (max by (trace_id, span_id, job, {MODEL}, "
            f"{TENANT}) (max_over_time({chosen(EXPENSIVE)}[$__range])))))"
        )
    },
    "currencyUSD",
    "Traces with calls that cost at least TOKENBUDGET_EXPENSIVE_USD of the Collector (0.10), and what those calls cost.",
    decimals=4,
    height=9,
    columns={"trace_id": "Trace", "job": "Service", MODEL: "Model", TENANT: "Tenant", "Value": "Cost"},
    overrides=[TO_JAEGER],
    empty="No call was that expensive",
)

SPEND_TODAY: Final = number(
    "Spend today", total(COST), "currencyUSD", f"Since midnight, UTC. {LATE}", since="now/d", decimals=2
)
SPEND_MONTH: Final = number(
    "Spend this month", total(COST), "currencyUSD", "Since the first, UTC.", since="now/M", decimals=2
)
SPEND_FORECAST: Final = number(
    "Forecast for the month", FORECAST, "currencyUSD", "What is spent, and the rest of the month at the pace of the last "
    "seven days (or of those there are; at least one).", since="now/M", decimals=2,
)  # fmt: skip
ERROR_SHARE: Final = number(
    "Failed calls", share(total(OPERATIONS, FAILED), total(OPERATIONS)), "percentunit", "Calls that ended in an error.",
    thresholds=(("green", None), ("yellow", 0.02), ("red", 0.1)), decimals=1,
)  # fmt: skip
UNPRICED_CALLS: Final = number(
    "Calls without a full price", total(CALLS, UNPRICED), "short", "These are missing from the spend, in whole or in part.",
    thresholds=(("green", None), ("red", 1)),
)  # fmt: skip
REFUSED_CALLS: Final = number(
    "Refused calls", total(REFUSALS), "short", "Calls that a budget stopped before they were sent.",
    thresholds=(("green", None), ("yellow", 1)),
)  # fmt: skip
BUDGETS_USED: Final = ranking(
    "Budgets used",
    {
        "{{tokenbudget_budget_name}} {{tokenbudget_budget_scope}}": (
            f"sort_desc(topk(15, {budget('spent')} / ({budget('limit')} > 0)))"
        )
    },
    "percentunit",
    "What is spent of each limit, in the window in force: those of which most is used.",
    thresholds=GREEN_TO_RED,
    most=1,
    width=12,
    empty="No budget is declared",
)

OVERVIEW: Final = dashboard(
    "tokenbudget-overview", "TokenBudget / Overview", "What the LLM calls of all services cost, and whether all is well.",
    [
        SPEND_TODAY, SPEND_MONTH, SPEND_FORECAST,
        number("Cost of a thousand calls", share(f"1000 * {total(COST)}", total(CALLS)), "currencyUSD",
               "On average, in the time range.", decimals=2),
        number("Calls", total(CALLS), "short", "Calls that were charged, in the time range."),
        ERROR_SHARE, REFUSED_CALLS, UNPRICED_CALLS,
        bars("Spend by model", {f"{{{{{MODEL}}}}}": by(MODEL, COST, over=OVER_STEP)}, "currencyUSD", LATE, width=16),
        pie("Spend by provider", {f"{{{{{PROVIDER}}}}}": by(PROVIDER, COST)}, "currencyUSD", "In the time range."),
        ranking("Spend by tenant", {f"{{{{{TENANT}}}}}": f"sort_desc(topk(10, {by(TENANT, COST)}))"}, "currencyUSD",
                "The ten that cost most, in the time range.", width=12),
        ranking("Spend by feature", {f"{{{{{FEATURE}}}}}": f"sort_desc(topk(10, {by(FEATURE, COST)}))"}, "currencyUSD",
                "The ten that cost most, in the time range.", width=12),
        BUDGETS_USED,
        lines("Latency, 95th percentile", {f"{{{{{MODEL}}}}}": quantile(0.95, DURATION, over="5m")}, "s",
              "Whole calls, streams to their end, over five minutes."),
        EXPENSIVE_TRACES,
    ],
)  # fmt: skip

SPEND: Final = dashboard(
    "tokenbudget-spend", "TokenBudget / Spend", "Where the money goes.",
    [
        SPEND_TODAY, SPEND_MONTH, SPEND_FORECAST,
        number("Spend in the time range", total(COST), "currencyUSD", LATE, decimals=2),
        *(
            bars(f"Spend over time by {what}", {f"{{{{{label}}}}}": by(label, COST, over=OVER_STEP)}, "currencyUSD", LATE)
            for what, label in (("model", MODEL), ("provider", PROVIDER), ("tenant", TENANT), ("feature", FEATURE))
        ),
        table("Spend by service, provider and model", {"": f"sort_desc({by(f'job, {PROVIDER}, {MODEL}', COST)})"},
              "currencyUSD", "In the time range.", decimals=4,
              columns={"job": "Service", PROVIDER: "Provider", MODEL: "Model", "Value": "Cost"}),
        table("Spend by tenant and feature", {"": f"sort_desc({by(f'{TENANT}, {FEATURE}', COST)})"}, "currencyUSD",
              "In the time range. Tags are on metrics where metric_tags names them.", decimals=4, width=12,
              columns={TENANT: "Tenant", FEATURE: "Feature", "Value": "Cost"}),
        number("Spend that is estimated", total(COST, ESTIMATED), "currencyUSD",
               "Of calls whose usage the provider did not report: streams that were left, errors after the work.",
               decimals=4, width=12),
    ],
)  # fmt: skip

TOKEN_USE: Final = dashboard(
    "tokenbudget-tokens", "TokenBudget / Tokens", "What is read and written, what comes from caches, what is thought.",
    [
        number("Input tokens", total(TOKENS, INPUT), "short", "All of the input, cached or not."),
        number("Output tokens", total(TOKENS, OUTPUT), "short", "All of the output, reasoning included."),
        number("Cached share of the input", share(total(DETAILS, CACHED), total(TOKENS, INPUT)), "percentunit",
               "What was read from the provider's cache, at its lower price.", decimals=1),
        number("Reasoning share of the output", share(total(DETAILS, REASONING), total(TOKENS, OUTPUT)), "percentunit",
               "What was paid for and is not in the answers.", decimals=1),
        bars("Input tokens by model", {f"{{{{{MODEL}}}}}": by(MODEL, TOKENS, INPUT, over=OVER_STEP)}, "short", LATE),
        bars("Output tokens by model", {f"{{{{{MODEL}}}}}": by(MODEL, TOKENS, OUTPUT, over=OVER_STEP)}, "short", LATE),
        lines("Cached share over time", {f"{{{{{MODEL}}}}}": (
                f"sum by ({MODEL}) (sum_over_time({chosen(DETAILS, CACHED)}[5m])) / "
                f"(sum by ({MODEL}) (sum_over_time({chosen(TOKENS, INPUT)}[5m])) > 0)")}, "percentunit",
              "By model, over five minutes.", empty="Nothing came from a cache"),
        lines("Reasoning share over time", {f"{{{{{MODEL}}}}}": (
                f"sum by ({MODEL}) (sum_over_time({chosen(DETAILS, REASONING)}[5m])) / "
                f"(sum by ({MODEL}) (sum_over_time({chosen(TOKENS, OUTPUT)}[5m])) > 0)")}, "percentunit",
              "By model, over five minutes.", empty="No model has reasoned"),
        table("Tokens and calls by model", {
                "Input": by(MODEL, TOKENS, INPUT), "Output": by(MODEL, TOKENS, OUTPUT), "Calls": by(MODEL, CALLS),
              }, "short", "In the time range.", width=12,
              columns={MODEL: "Model", "Value #A": "Input", "Value #B": "Output", "Value #C": "Calls"}),
        table("Parts of the tokens", {"": f"sort_desc({by(f'tokenbudget_token_detail, {MODEL}', DETAILS)})"}, "short",
              "Kinds overlap: never add different ones up.", width=12,
              columns={"tokenbudget_token_detail": "Part", MODEL: "Model", "Value": "Tokens"},
              empty="The providers report no parts"),
        ranking("Tokens by tenant", {f"{{{{{TENANT}}}}}": f"sort_desc(topk(10, {by(TENANT, TOKENS)}))"}, "short",
                "Input and output, in the time range.", width=24),
    ],
)  # fmt: skip

LATENCY: Final = dashboard(
    "tokenbudget-latency", "TokenBudget / Latency", "How long calls take, and how long until something is seen.",
    [
        *(
            lines(f"{what}, {round(q * 100)}th percentile", {f"{{{{{MODEL}}}}}": quantile(q, buckets, over="5m")}, "s",
                  says, width=8, empty=empty)
            for what, buckets, says, empty in (
                ("Duration", DURATION, "Whole calls, streams to their end, over five minutes.", ""),
                ("Time to first chunk", FIRST_CHUNK, "Of streams, over five minutes.", "Nothing was streamed"),
                ("Time between chunks", CHUNK_GAP, "Of streams, over five minutes.", "Nothing was streamed"),
            )
            for q in (0.5, 0.95, 0.99)
        ),
        table("Duration by model", {
                "Median": quantile(0.5, DURATION), "95 %": quantile(0.95, DURATION), "99 %": quantile(0.99, DURATION),
              }, "s", "In the time range, to the bounds of the histogram's buckets.",
              columns={MODEL: "Model", "Value #A": "Median", "Value #B": "95 %", "Value #C": "99 %"}),
    ],
)  # fmt: skip

ERRORS: Final = dashboard(
    "tokenbudget-errors", "TokenBudget / Errors and refusals", "What fails, what budgets stop, what has no price.",
    [
        ERROR_SHARE, REFUSED_CALLS, UNPRICED_CALLS,
        number("Failed calls, number", total(OPERATIONS, FAILED), "short", "In the time range."),
        bars("Errors by kind", {"{{error_type}}": by("error_type", OPERATIONS, FAILED, over=OVER_STEP)}, "short", LATE,
             empty="No call has failed"),
        bars("Refusals by budget", {"{{tokenbudget_budget_name}}": by("tokenbudget_budget_name", REFUSALS,
             over=OVER_STEP)}, "short", LATE, empty="No call was refused"),
        table("Errors by model and kind", {"": f"sort_desc({by(f'{PROVIDER}, {MODEL}, error_type', OPERATIONS, FAILED)} > 0)"},
              "short", "In the time range.", empty="No call has failed",
              columns={PROVIDER: "Provider", MODEL: "Model", "error_type": "Error", "Value": "Calls"}, width=12),
        table("Refusals by budget and scope",
              {"": f"sort_desc({by('tokenbudget_budget_name, tokenbudget_budget_scope', REFUSALS)} > 0)"}, "short",
              "In the time range.", empty="No call was refused", width=12,
              columns={"tokenbudget_budget_name": "Budget", "tokenbudget_budget_scope": "Scope", "Value": "Calls"}),
        table("Models without a full price", {"": f"sort_desc({by(f'{PROVIDER}, {MODEL}, tokenbudget_cost_state', CALLS, UNPRICED)} > 0)"},
              "short", "Name a price for them: docs/pricing.md.", empty="Every call has a price", width=24,
              columns={PROVIDER: "Provider", MODEL: "Model", "tokenbudget_cost_state": "Price", "Value": "Calls"}),
    ],
)  # fmt: skip

BUDGETS: Final = dashboard(
    "tokenbudget-budgets", "TokenBudget / Budgets", "What each budget allows, what is spent and reserved, how long it lasts.",
    [
        BUDGETS_USED,
        ranking("Budgets that run out first", {"{{tokenbudget_budget_name}} {{tokenbudget_budget_scope}}": (
                f"sort(bottomk(15, {budget('remaining')} / ({SPENT_IN_AN_HOUR} > 0) * 3600))")}, "s",
                "Until nothing remains, at the pace of the last hour. A window that ends before begins anew.",
                thresholds=(("red", None), ("yellow", 14400), ("green", 172800)), width=12,
                empty="Nothing was spent of any budget in an hour"),
        table("How budgets stand", {
                "Limit": budget("limit"), "Spent": budget("spent"), "Reserved": budget("reserved"),
                "Remaining": budget("remaining"), "In the last hour": SPENT_IN_AN_HOUR,
              }, "short", "In the unit of each: US dollars, tokens or calls.", height=10, decimals=4,
              empty="No budget is declared",
              columns={
                "tokenbudget_budget_name": "Budget", "tokenbudget_budget_scope": "Scope",
                "tokenbudget_budget_unit": "Unit", "tokenbudget_budget_window": "Window", "Value #A": "Limit",
                "Value #B": "Spent", "Value #C": "Reserved", "Value #D": "Remaining", "Value #E": "In the last hour",
              }),
        lines("Spent of the limit", {"{{tokenbudget_budget_name}} {{tokenbudget_budget_scope}}": (
                f"topk(15, {budget('spent')} / ({budget('limit')} > 0))")}, "percentunit",
              "Where a line falls, a window has begun.", thresholds=GREEN_TO_RED, empty="No budget is declared"),
        lines("Burn rate", {"{{tokenbudget_budget_name}} {{tokenbudget_budget_scope}}": (
                f"topk(15, {SPENT_IN_AN_HOUR} / ({budget('limit')} > 0))")}, "percentunit",
              "Share of the limit that an hour has used.", empty="No budget is declared"),
        lines("Reserved by calls in flight", {"{{tokenbudget_budget_name}} {{tokenbudget_budget_scope}}": (
                f"topk(15, max by ({BUDGET}) (last_over_time(tokenbudget_budget_reserved[10m])))")}, "short",
              "In the unit of each budget.", width=24, empty="No budget is declared"),
    ],
    since="now-6h",
)  # fmt: skip

TRACES: Final = dashboard(
    "tokenbudget-traces", "TokenBudget / Expensive traces", "The single calls that cost most, each with its trace.",
    [
        number("Expensive calls", f"count(max by (trace_id, span_id) (max_over_time({chosen(EXPENSIVE)}[$__range]))) or vector(0)",
               "short", "Calls at or above TOKENBUDGET_EXPENSIVE_USD of the Collector.", width=8),
        number("Spend of expensive calls", f"sum(max by (trace_id, span_id) (max_over_time({chosen(EXPENSIVE)}[$__range]))) or vector(0)",
               "currencyUSD", "In the time range.", width=8, decimals=2),
        number("Most expensive call", f"max(max_over_time({chosen(EXPENSIVE)}[$__range])) or vector(0)", "currencyUSD",
               "In the time range.", width=8, decimals=4),
        EXPENSIVE_TRACES,
    ],
)  # fmt: skip

DASHBOARDS: Final = {
    "overview": OVERVIEW,
    "spend": SPEND,
    "tokens": TOKEN_USE,
    "latency": LATENCY,
    "errors": ERRORS,
    "budgets": BUDGETS,
    "traces": TRACES,
}
"""By the name of the file."""
