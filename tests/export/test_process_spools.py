"""The spools that exporters ask for by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tokenbudget_otel.export.process_spools import spool_for

assert spool_for(sys.argv[1]) is spool_for(sys.argv[1])
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
data = reader.get_metrics_data()
print(*(metric.name for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics))
"""


def test_its_metrics_are_shown_also_where_the_meter_provider_comes_later(tmp_path: Path) -> None:
    """As in OpenTelemetry's auto-instrumentation, where exporters of spans are made first."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "spool")], capture_output=True, text=True, check=True
    )
    assert {f"tokenbudget.spool.{name}" for name in ("dropped", "delivered", "refused", "bytes", "files")} == set(
        done.stdout.split()
    )
