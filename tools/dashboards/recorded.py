"""The recording rules: what every counter has grown by, every half minute, whichever process it belongs to.

``increase()`` does not see a counter's first value, extrapolates to the ends of its range, and needs two samples: a
program that lives for two seconds and spends a dollar comes to nothing. Money has to come out to the cent, so the
growth is taken from the values themselves, and written down once; a sum over what is written down is exact.
"""

from __future__ import annotations

from typing import Final

INTERVAL: Final = "30s"
"""How often the rules are evaluated. Every value of a counter belongs to exactly one evaluation."""

GROWTH: Final = "increase30s"
"""The last part of the names of what is recorded."""

NOW: Final = "[30s] offset 15s"
"""The samples of one evaluation. The offset leaves scrapes that are under way the time to be stored."""

BEFORE: Final = "{back} offset 45s"
"""Where the value is looked up that the counter had until then."""

A_DAY: Final = "[1d]"
AN_HOUR: Final = "[1h]"

OF_ONE_PROCESS: Final = (
    "instance", "exported_instance", "service_instance_id", "host_id", "host_name", "container_id", "process_pid",
    "k8s_pod_name", "k8s_pod_uid", "k8s_pod_ip", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url",
    "server_address", "server_port",
)  # fmt: skip
"""Labels that are not kept: they tell processes apart, and what is recorded outlives those."""

COUNTERS: Final = (
    ("tokenbudget:cost_usd", "gen_ai_client_operation_cost_total", A_DAY),
    ("tokenbudget:calls", "tokenbudget_calls_total", A_DAY),
    ("tokenbudget:tokens", "gen_ai_client_token_usage_sum", A_DAY),
    ("tokenbudget:token_details", "tokenbudget_client_token_details_total", A_DAY),
    ("tokenbudget:operations", "gen_ai_client_operation_duration_seconds_count", A_DAY),
    ("tokenbudget:refusals", "tokenbudget_budget_refusals_total", A_DAY),
    ("tokenbudget:duration_seconds_bucket", "gen_ai_client_operation_duration_seconds_bucket", AN_HOUR),
    ("tokenbudget:first_chunk_seconds_bucket", "gen_ai_client_operation_time_to_first_chunk_seconds_bucket", AN_HOUR),
    ("tokenbudget:chunk_gap_seconds_bucket", "gen_ai_client_operation_time_per_output_chunk_seconds_bucket", AN_HOUR),
)
"""What is recorded, of which counter, and how far back the value before is looked for: a day, so that an outage of a
night is no new beginning. Buckets are many, and a quantile bears it."""


def growth(counter: str, back: str = A_DAY) -> str:
    """The expression: what a counter has grown by, summed over processes.

    A counter that was not there before has grown by all that it shows. One that has become smaller was reset: then it
    has grown to its peak, and from nothing to its last value.
    """
    peak = f"max_over_time({counter}{NOW})"
    last = f"last_over_time({counter}{NOW})"
    before = f"last_over_time({counter}{BEFORE.format(back=back)})"
    resets = f"resets({counter}{NOW})"
    return (
        f"sum without ({', '.join(OF_ONE_PROCESS)}) (\n"
        f"    (({peak} - ({before} or 0 * {peak})) >= 0)\n"
        f"  + {last} * ({resets} > bool 0)\n"
        f"  or {last}\n"
        ")"
    )


def recording_rules() -> str:
    """The file of recording rules, as YAML."""
    lines = [
        "# Written by tools/make_dashboards.py. What each counter has grown by in each half minute, without loss:",
        "# sum_over_time(tokenbudget:cost_usd:increase30s[1d]) is the spend of a day.",
        "groups:",
        "  - name: tokenbudget-growth",
        f"    interval: {INTERVAL}",
        "    rules:",
    ]
    for name, counter, back in COUNTERS:
        lines += [f"      - record: {name}:{GROWTH}", "        expr: |"]
        lines += [f"          {line}" for line in growth(counter, back).splitlines()]
    lines += [
        "  - name: tokenbudget-hours",
        f"    interval: {INTERVAL}",
        "    rules:",
        "      # Kept so that an hour can be held against the same hour of other days.",
        "      - record: tokenbudget:cost_usd:sum1h",
        f"        expr: sum by (job) (sum_over_time(tokenbudget:cost_usd:{GROWTH}[1h]))",
    ]
    return "\n".join(lines) + "\n"
