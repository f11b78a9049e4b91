"""A place to start programs in by `opentelemetry-instrument`, and a collector for what they export."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from zero_collector import Collector
from zero_place import BIN, OFFICIAL, OURS, ZeroCode

from tokenbudget_otel.simulator import Simulator


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as receiving:
        yield receiving


@pytest.fixture
def zero(sim: Simulator, collector: Collector, tmp_path: Path) -> Iterator[ZeroCode]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    place = ZeroCode(
        tmp_path,
        environment
        | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "OPENAI_BASE_URL": sim.openai_url,
            "ANTHROPIC_BASE_URL": sim.anthropic_url,
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_API_KEY": "any",
            "TOKENBUDGET_HOSTS": f"{sim.openai_url}=openai",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "none",
            # The official packages import the SDKs, at a second each.
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": OFFICIAL,
        },
        collector,
    )
    yield place
    place.end_all()
