"""Every panel of every dashboard and every rule, against the real Prometheus: they show what the simulator has billed.

Programs of a second or two, which is the hard case, make calls with the real SDKs. What they send goes through the real
Collector with the shipped configuration to the real Prometheus with the shipped rules. What has to come out is worked
out here, from the simulator's bills and the price list below: nothing of the package takes part in that.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from tokenbudget_otel.simulator import Simulator

from .programs import CONFIG, ROOT, Collector, Jaeger, Prometheus, eventually, get

# A minute of Prometheus, most of it spent waiting for it.
pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

PRICES: Final = {
    "gpt-5": (1.25, 0.125, 10.0),
    "gpt-5-mini": (0.25, 0.025, 2.0),
    "claude-haiku-4-5": (1.0, 0.1, 5.0),
}
"""US dollars for a million tokens of input, of cached input, and of output, as the providers list them."""

LATENCY: Final = 0.05
BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bounds of the histograms of durations, as the conventions have them."""


def call(model: str, stream: bool = False, tenant: str = "", feature: str = "", **answer: Any) -> dict[str, Any]:
    if "status" not in answer:
        answer |= {"latency_s": LATENCY, **({"first_chunk_s": 0.02, "chunk_s": 0.01, "chunks": 4} if stream else {})}
    tags = {name: value for name, value in (("tenant", tenant), ("feature", feature)) if value}
    return {"model": model, "stream": stream, "answer": answer, **tags}


PROGRAMS: Final = (
    [
        call("gpt-5", tenant="acme", feature="chat", input_tokens=120_000, cached_tokens=20_000, output_tokens=3_000,
             reasoning_tokens=1_000),
        call("gpt-5", stream=True, tenant="acme", feature="search", input_tokens=90_001, output_tokens=777),
        call("claude-haiku-4-5", tenant="acme", feature="chat", input_tokens=80_000, cached_tokens=30_000,
             output_tokens=1_501),
        call("nobody-1", tenant="acme", feature="chat", input_tokens=500, output_tokens=50),
        call("gpt-5", tenant="acme", feature="chat", status=429),
    ],
    [
        call("gpt-5-mini", tenant="globex", feature="chat", input_tokens=4_000, output_tokens=333, reasoning_tokens=33),
        call("claude-haiku-4-5", stream=True, tenant="globex", feature="search", input_tokens=12_345,
             output_tokens=678),
        call("gpt-5", tenant="initech", feature="chat", input_tokens=10, output_tokens=10),
        call("gpt-5", tenant="acme", feature="chat", input_tokens=100_000, output_tokens=5_000),
    ],
    [call("gpt-5-mini", input_tokens=1_000, output_tokens=100)],
)  # fmt: skip
"""What three programs do, one after the other: tenants in several of them, one call that a budget refuses, one that
fails, one without a price and one without tags."""

LIMIT: Final = 0.6
"""The limit of each tenant's budget, US dollars, as in spending_program.py."""

NONE: Final = "(none)"


@dataclass
class Journal:
    """What the providers have billed, with the tags that the requests carried."""

    rows: list[dict[str, Any]]
    walls: dict[str, float]
    """The longest that a call of each model took, in seconds, as the program saw it."""

    def by(self, *names: str, what: str = "cost", only: Callable[[Mapping[str, Any]], bool] = lambda _: True) -> Any:
        sums: Counter[Any] = Counter()
        for row in filter(only, self.rows):
            key = tuple(row[name] for name in names)
            sums[key] += row[what]
        return {key: value for key, value in sums.items() if value}

    def total(self, what: str = "cost") -> float:
        return sum(row[what] for row in self.rows)


def journal_of(sim: Simulator, programs: list[list[dict[str, Any]]]) -> Journal:
    answered = [one for one in sim.requests if '"status"' not in one.headers["x-simulate"]]
    assert len(answered) == len(sim.billed)
    rows = []
    for request, bill in zip(answered, sim.billed, strict=True):
        usage, price = bill.usage, PRICES.get(bill.model)
        plain = usage.input_tokens - usage.cached_tokens
        rows.append(
            {
                "model": bill.model,
                "provider": bill.provider,
                "tenant": request.headers["x-tenant"] or NONE,
                "feature": request.headers["x-feature"] or NONE,
                "job": "shop",
                "calls": 1,
                "input": usage.input_tokens,
                "output": usage.output_tokens,
                "cached": usage.cached_tokens,
                "reasoning": usage.reasoning_tokens,
                "tokens": usage.input_tokens + usage.output_tokens,
                "cost": 0.0
                if price is None
                else (plain * price[0] + usage.cached_tokens * price[1] + usage.output_tokens * price[2]) / 1e6,
                "unpriced": int(price is None),
                "trace": request.headers.get("traceparent", "--").split("-")[1],
            }
        )
    walls: dict[str, float] = {}
    for line in (line for lines in programs for line in lines):
        if "model" in line:
            walls[line["model"]] = max(walls.get(line["model"], 0.0), line["seconds"])
    return Journal(rows, walls)


@dataclass
class World:
    prometheus: Prometheus
    jaeger: Jaeger
    journal: Journal
    began: float
    now: float = field(default_factory=time.time)

    def ask(self, path: str, **parameters: Any) -> Any:
        answer = json.loads(get(f"{self.prometheus.url}/api/v1/{path}?{urlencode(parameters)}"))
        assert answer["status"] == "success", answer
        return answer["data"]


def run(arguments: list[dict[str, Any]], sim: Simulator, collector: Collector, ledger: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("spending_program.py")), json.dumps(arguments)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_http,
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_SDK_DISABLED": "",
            "OPENAI_BASE_URL": sim.openai_url,
            "ANTHROPIC_BASE_URL": sim.anthropic_url,
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_API_KEY": "any",
            "TOKENBUDGET_HOSTS": f"{sim.openai_url}=openai",
            "LEDGER": f"sqlite:///{ledger}",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("dashboards")
    with (
        Simulator(seed=11) as sim,
        Jaeger() as jaeger,
        Collector(JAEGER_ENDPOINT=jaeger.otlp, TOKENBUDGET_EXPENSIVE_USD="0.10") as collector,
    ):
        # The shipped files; only where the programs are is said anew.
        shipped = (CONFIG / "prometheus" / "prometheus.yml").read_text()
        places = {
            "collector:8889": collector.metrics,
            "collector:8890": collector.expensive,
            "collector:8891": collector.spans,
            "collector:8888": collector.telemetry,
            "rules/*.yml": str(CONFIG / "prometheus" / "rules" / "*.yml"),
        }
        for place, here in places.items():
            assert place in shipped
            shipped = shipped.replace(place, here)
        prometheus = Prometheus(shipped)
        own = prometheus.url.removeprefix("http://")
        (prometheus.directory / "prometheus.yml").write_text(shipped.replace("localhost:9090", own))
        with prometheus:
            began = time.time()
            lines = [run(program, sim, collector, folder / "ledger.db") for program in PROGRAMS]
            world = World(prometheus, jaeger, journal_of(sim, lines), began)
            calls = len(world.journal.rows)

            def recorded() -> bool:
                found = prometheus.query("sum(sum_over_time(tokenbudget:calls:increase30s[1h]))")
                budgets = prometheus.query("tokenbudget:budget_used_ratio")
                return bool(found and budgets) and float(found[0]["value"][1]) >= calls

            eventually(recorded, 150)
            # The rules that stand on what was recorded, once.
            at = time.time()
            eventually(lambda: all(group["lastEvaluation"] > stamp(at) for group in world.ask("rules")["groups"]), 60)
            world.now = time.time()
            yield world


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


# --- the panels ------------------------------------------------------------------------------------------------------

DASHBOARDS: Final = {
    path.stem: json.loads(path.read_text()) for path in sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
}
QUERIES: Final = [
    (name, panel["title"], number)
    for name, board in DASHBOARDS.items()
    for panel in board["panels"]
    for number in range(len(panel["targets"]))
]

MODEL, PROVIDER = "gen_ai_request_model", "gen_ai_provider_name"
TENANT, FEATURE = "tokenbudget_tag_tenant", "tokenbudget_tag_feature"
NAME, SCOPE, UNIT = "tokenbudget_budget_name", "tokenbudget_budget_scope", "tokenbudget_budget_unit"
SHORT: Final = {
    MODEL: "model", PROVIDER: "provider", TENANT: "tenant", FEATURE: "feature", "job": "job",
}  # fmt: skip

Found = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class Is:
    """Exactly these values by these labels; of a series over time, what its points add up to (or the last one)."""

    expected: Callable[[World], Found]
    labels: tuple[str, ...] = ()
    last: bool = False
    close: float = 1e-9

    def check(self, world: World, found: Found) -> None:
        expected = dict(self.expected(world))
        assert {key for key, value in found.items() if value} == {key for key, value in expected.items() if value}
        for key, value in expected.items():
            assert found.get(key, 0.0) == pytest.approx(value, rel=self.close, abs=1e-9), (key, found, expected)


@dataclass(frozen=True)
class Between:
    """A quantile by model: from the simulator's pause to the longest call, to the bounds of the buckets."""

    at_least: float
    models: tuple[str, ...]
    labels: tuple[str, ...] = (MODEL,)
    last: bool = True

    def check(self, world: World, found: Found) -> None:
        assert {key[0] for key in found} == set(self.models)
        for (model,), value in found.items():
            low = max([0.0, *(bound for bound in BUCKETS if bound <= self.at_least)])
            high = min(bound for bound in BUCKETS if bound >= world.journal.walls[model])
            assert low <= value <= high, (model, low, value, high)


def sums(*labels: str, what: str = "cost") -> Is:
    return Is(lambda world: world.journal.by(*(SHORT[label] for label in labels), what=what), labels)


def one(value: Callable[[World], float], close: float = 1e-9) -> Is:
    return Is(lambda world: {(): value(world)}, close=close)


def spent_by_tenant(world: World) -> dict[tuple[str, ...], float]:
    return {
        ("tenants", f"tenant={'' if tenant == NONE else tenant}"): cost
        for (tenant,), cost in world.journal.by("tenant").items()
    }


def forecast(world: World) -> float:
    now = datetime.fromtimestamp(world.now, UTC)
    begins = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    return world.journal.total() * (1 + (begins.timestamp() - world.now) / 86_400)


def expensive(world: World) -> list[dict[str, Any]]:
    return [row for row in world.journal.rows if row["cost"] >= 0.10]


def cached_share(world: World, part: str, whole: str) -> Found:
    parts, wholes = world.journal.by("model", what=part), world.journal.by("model", what=whole)
    return {key: parts[key] / wholes[key] for key in parts}


COST, CALLS, FAILED, REFUSED, UNPRICED = (
    one(lambda world: world.journal.total()),
    one(lambda world: world.journal.total("calls")),
    one(lambda world: 1 / (world.journal.total("calls") + 1)),
    one(lambda world: 1),
    one(lambda world: world.journal.total("unpriced")),
)
ALL_MODELS = ("gpt-5", "gpt-5-mini", "claude-haiku-4-5", "nobody-1")
STREAMED = ("gpt-5", "claude-haiku-4-5")
BUDGETS_USED = Is(
    lambda w: {key: value / LIMIT for key, value in spent_by_tenant(w).items()}, (NAME, SCOPE), close=1e-6
)
BUDGET_LABELS = (NAME, SCOPE)
LIMITS = Is(lambda w: dict.fromkeys(spent_by_tenant(w), LIMIT), BUDGET_LABELS)
SPENT = Is(spent_by_tenant, BUDGET_LABELS)
TRACES = Is(
    lambda w: w.journal.by("model", "tenant", only=lambda row: row["cost"] >= 0.10),
    (MODEL, TENANT),
)
MONTH = {
    "Spend today": [COST],
    "Spend this month": [COST],
    "Forecast for the month": [one(forecast, close=1e-4)],
}
ENDS = {
    "Failed calls": [FAILED],
    "Refused calls": [REFUSED],
    "Calls without a full price": [UNPRICED],
}

EXPECTED: Final[dict[str, dict[str, list[Any]]]] = {
    "tokenbudget-overview": {
        **MONTH,
        **ENDS,
        "Cost of a thousand calls": [one(lambda w: 1000 * w.journal.total() / w.journal.total("calls"))],
        "Calls": [CALLS],
        "Spend by model": [sums(MODEL)],
        "Spend by provider": [sums(PROVIDER)],
        "Spend by tenant": [sums(TENANT)],
        "Spend by feature": [sums(FEATURE)],
        "Budgets used": [BUDGETS_USED],
        "Latency, 95th percentile": [Between(LATENCY, ALL_MODELS)],
        "Most expensive traces": [TRACES],
    },
    "tokenbudget-spend": {
        **MONTH,
        "Spend in the time range": [COST],
        "Spend over time by model": [sums(MODEL)],
        "Spend over time by provider": [sums(PROVIDER)],
        "Spend over time by tenant": [sums(TENANT)],
        "Spend over time by feature": [sums(FEATURE)],
        "Spend by service, provider and model": [sums("job", PROVIDER, MODEL)],
        "Spend by tenant and feature": [sums(TENANT, FEATURE)],
        "Spend that is estimated": [one(lambda w: 0)],
    },
    "tokenbudget-tokens": {
        "Input tokens": [one(lambda w: w.journal.total("input"))],
        "Output tokens": [one(lambda w: w.journal.total("output"))],
        "Cached share of the input": [one(lambda w: w.journal.total("cached") / w.journal.total("input"))],
        "Reasoning share of the output": [one(lambda w: w.journal.total("reasoning") / w.journal.total("output"))],
        "Input tokens by model": [sums(MODEL, what="input")],
        "Output tokens by model": [sums(MODEL, what="output")],
        "Cached share over time": [Is(lambda w: cached_share(w, "cached", "input"), (MODEL,), last=True)],
        "Reasoning share over time": [Is(lambda w: cached_share(w, "reasoning", "output"), (MODEL,), last=True)],
        "Tokens and calls by model": [sums(MODEL, what=what) for what in ("input", "output", "calls")],
        "Parts of the tokens": [
            Is(
                lambda w: {
                    **{("cache_read", *key): value for key, value in w.journal.by("model", what="cached").items()},
                    **{("reasoning", *key): value for key, value in w.journal.by("model", what="reasoning").items()},
                },
                ("tokenbudget_token_detail", MODEL),
            )
        ],
        "Tokens by tenant": [sums(TENANT, what="tokens")],
    },
    "tokenbudget-latency": {
        **{f"Duration, {q}th percentile": [Between(LATENCY, ALL_MODELS)] for q in (50, 95, 99)},
        **{f"Time to first chunk, {q}th percentile": [Between(LATENCY, STREAMED)] for q in (50, 95, 99)},
        **{f"Time between chunks, {q}th percentile": [Between(0.0, STREAMED)] for q in (50, 95, 99)},
        "Duration by model": [Between(LATENCY, ALL_MODELS)] * 3,
    },
    "tokenbudget-errors": {
        **ENDS,
        "Failed calls, number": [one(lambda w: 1)],
        "Errors by kind": [Is(lambda w: {("openai.RateLimitError",): 1}, ("error_type",))],
        "Refusals by budget": [Is(lambda w: {("no initech",): 1}, (NAME,))],
        "Errors by model and kind": [
            Is(lambda w: {("openai", "gpt-5", "openai.RateLimitError"): 1}, (PROVIDER, MODEL, "error_type"))
        ],
        "Refusals by budget and scope": [Is(lambda w: {("no initech", NONE): 1}, (NAME, SCOPE))],
        "Models without a full price": [
            Is(lambda w: {("openai", "nobody-1", "unknown"): 1}, (PROVIDER, MODEL, "tokenbudget_cost_state"))
        ],
    },
    "tokenbudget-budgets": {
        "Budgets used": [BUDGETS_USED],
        "Budgets that run out first": [
            Is(lambda w: {key: (LIMIT - cost) / cost * 3600 for key, cost in spent_by_tenant(w).items()}, BUDGET_LABELS,
               close=1e-6)
        ],
        "How budgets stand": [
            LIMITS, SPENT, Is(lambda w: {}, BUDGET_LABELS),
            Is(lambda w: {key: LIMIT - cost for key, cost in spent_by_tenant(w).items()}, BUDGET_LABELS, close=1e-6),
            SPENT,
        ],
        "Spent of the limit": [
            Is(lambda w: {key: cost / LIMIT for key, cost in spent_by_tenant(w).items()}, BUDGET_LABELS, last=True)
        ],
        "Burn rate": [
            Is(lambda w: {key: cost / LIMIT for key, cost in spent_by_tenant(w).items()}, BUDGET_LABELS, last=True)
        ],
        "Reserved by calls in flight": [Is(lambda w: {}, BUDGET_LABELS, last=True)],
    },
    "tokenbudget-traces": {
        "Expensive calls": [one(lambda w: len(expensive(w)))],
        "Spend of expensive calls": [one(lambda w: sum(row["cost"] for row in expensive(w)))],
        "Most expensive call": [one(lambda w: max(row["cost"] for row in expensive(w)))],
        "Most expensive traces": [TRACES],
    },
}  # fmt: skip
"""What every query of every panel has to show. A panel without a row here fails."""


def panel_of(dashboard: str, title: str) -> dict[str, Any]:
    [panel] = [panel for panel in DASHBOARDS[dashboard]["panels"] if panel["title"] == title]
    return panel


def ask_as_grafana(world: World, panel: dict[str, Any], number: int, last: bool, **variables: str) -> Any:
    """The query with its variables filled in, and what Prometheus answers, as Grafana would ask it."""
    target = panel["targets"][number]
    midnight = world.now // 86_400 * 86_400
    # At midnight of UTC the programs may have run yesterday.
    since = min(midnight, world.began - 60) if panel.get("timeFrom") else world.now - 3600
    filled = target["expr"]
    for name, value in {
        "$__range": f"{int(world.now - since)}s",
        "$__interval": "30s",
        "$provider": variables.get("provider", ".*"),
        "$model": variables.get("model", ".*"),
        "$tenant": variables.get("tenant", ".*"),
    }.items():
        filled = filled.replace(name, value)
    assert "$" not in filled, filled
    if target["instant"]:
        return world.ask("query", query=filled, time=world.now)["result"]
    start = world.began - 120
    result = world.ask("query_range", query=filled, start=start, end=world.now, step="30s")["result"]
    for series in result:
        points = [float(value) for _, value in series["values"]]
        series["value"] = [0, points[-1] if last else sum(points)]
    return result


def by_labels(result: Any, labels: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    found: Counter[tuple[str, ...]] = Counter()
    for series in result:
        found[tuple(series["metric"].get(label, "") for label in labels)] += float(series["value"][1])
    return dict(found)


@pytest.mark.parametrize(("dashboard", "title", "number"), QUERIES)
def test_panel_shows_what_was_billed(world: World, dashboard: str, title: str, number: int) -> None:
    expected = EXPECTED[dashboard][title][number]
    last = getattr(expected, "last", False)
    result = ask_as_grafana(world, panel_of(dashboard, title), number, last)
    found = by_labels(result, expected.labels)
    if dashboard == "tokenbudget-budgets" or title == "Budgets used":
        found = {key: value for key, value in found.items() if key[0] == "tenants"}
    expected.check(world, found)


def test_every_expectation_has_a_panel() -> None:
    panels = {(name, title) for name, title, _ in QUERIES}
    assert {(name, title) for name, rows in EXPECTED.items() for title in rows} == panels


@pytest.mark.parametrize(
    ("variables", "only"),
    [
        ({"tenant": "acme"}, lambda row: row["tenant"] == "acme"),
        ({"tenant": "acme|globex", "provider": "anthropic"}, lambda row: row["provider"] == "anthropic"),
        ({"model": "gpt-5"}, lambda row: row["model"] == "gpt-5"),
    ],
)
def test_variables_narrow_down(world: World, variables: dict[str, str], only: Any) -> None:
    panel = panel_of("tokenbudget-spend", "Spend by service, provider and model")
    found = by_labels(ask_as_grafana(world, panel, 0, False, **variables), ("job", PROVIDER, MODEL))
    expected = world.journal.by("job", "provider", "model", only=only)
    assert {key: value for key, value in found.items() if value} == pytest.approx(expected)


def test_values_of_variables(world: World) -> None:
    for variable in DASHBOARDS["tokenbudget-overview"]["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (.*)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            found = set(world.ask(f"label/{label}/values", **{"match[]": metric}))
            assert found == {row[SHORT[label]] for row in world.journal.rows} - {NONE}


def test_expensive_traces_are_in_jaeger(world: World) -> None:
    panel = panel_of("tokenbudget-traces", "Most expensive traces")
    rows = ask_as_grafana(world, panel, 0, False)
    assert rows
    assert [float(row["value"][1]) for row in rows] == sorted((float(row["value"][1]) for row in rows), reverse=True)
    for row in rows:
        [trace] = world.jaeger.api(f"traces/{row['metric']['trace_id']}")["data"]
        costs = [tag["value"] for span in trace["spans"] for tag in span["tags"] if tag["key"] == "gen_ai.usage.cost"]
        assert sum(costs) == pytest.approx(float(row["value"][1]))


# --- the rules -------------------------------------------------------------------------------------------------------

FIRING: Final = {"TokenBudgetUnpricedCalls", "TokenBudgetNearlySpent"}
"""What has to be told at the end: a model without a price, and acme's budget at more than 80 %."""


def test_rules_are_evaluated_and_the_right_alerts_fire(world: World) -> None:
    rules = [rule for group in world.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 29
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    firing = {alert["labels"]["alertname"] for alert in world.ask("alerts")["alerts"] if alert["state"] == "firing"}
    assert firing == FIRING


def test_recorded_rules_hold_the_figures(world: World) -> None:
    [hour] = world.ask("query", query="tokenbudget:cost_usd:sum1h", time=world.now)["result"]
    assert float(hour["value"][1]) == pytest.approx(world.journal.total())
    ratios = world.ask("query", query='tokenbudget:budget_used_ratio{tokenbudget_budget_name="tenants"}')["result"]
    expected = {key: value / LIMIT for key, value in spent_by_tenant(world).items()}
    assert by_labels(ratios, BUDGET_LABELS) == pytest.approx(expected, rel=1e-6)


def test_increase_would_have_lost_the_money(world: World) -> None:
    """Why there are recording rules: of programs that live for a second, increase() sees nothing."""
    lost = world.ask("query", query="sum(increase(gen_ai_client_operation_cost_total[1h]))", time=world.now)["result"]
    assert not lost or float(lost[0]["value"][1]) == 0
