"""The example program through the real Collector: what it counted is what the metrics say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal

from tokenbudget_otel.simulator import Simulator

from .programs import CONFIG, Collector, eventually
from .receiver import Receiver
from .test_through_the_collector import samples


def test_both_sources_agree_with_the_program_to_the_cent(sim: Simulator, backend: Receiver) -> None:
    with Collector(TOKENBUDGET_ENDPOINT=backend.url) as collector:
        ran = subprocess.run(
            [sys.executable, str(CONFIG / "example" / "app.py"), "--rounds", "3"],
            env={
                **os.environ,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp_http,
                "OPENAI_BASE_URL": sim.openai_url,
                "ANTHROPIC_BASE_URL": sim.anthropic_url,
                "TOKENBUDGET_HOSTS": f"{sim.openai_url}=openai,{sim.anthropic_url}=anthropic",
                "OPENAI_API_KEY": "any",
                "ANTHROPIC_API_KEY": "any",
            },
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ran.returncode == 0, ran.stderr
        counted = json.loads(ran.stdout)
        assert counted["refused"] and len(counted["by_model"]) == 4

        def by_tenant(metric: str) -> dict[str, Decimal]:
            totals: dict[str, Decimal] = {}
            for labels, value in samples(collector.scrape(), metric):
                tenant = labels["tokenbudget_tag_tenant"]
                totals[tenant] = totals.get(tenant, Decimal()) + value
            return {tenant: round(total, 9) for tenant, total in totals.items()}

        wanted = {tenant: round(Decimal(cost), 9) for tenant, cost in counted["by_tenant"].items()}
        for metric in ("gen_ai_client_operation_cost_total", "tokenbudget_spans_cost_USD_total"):

            def agree(metric: str = metric) -> bool:
                assert by_tenant(metric) == wanted, (metric, by_tenant(metric), wanted)
                return True

            eventually(agree)
        refusals = samples(collector.scrape(), "tokenbudget_budget_refusals_total")
        assert sum(value for _, value in refusals) == counted["refused"]
