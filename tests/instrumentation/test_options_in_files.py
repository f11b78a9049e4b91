"""Options of metrics and content in a configuration file hold like arguments, below variables and arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

import tokenbudget_otel as tb
from tokenbudget_otel import semconv
from tokenbudget_otel.instrumentation.capture import ENVIRONMENT
from tokenbudget_otel.meter import Meter
from tokenbudget_otel.simulator import Simulator

FILE = """
metric_tags = ["tenant"]
capture_content = "span"
redact = "privacy_of_a_test:redact"
"""

HOOK = "def redact(text, place):\n    return text.replace('secret', '[hidden]')\n"


@pytest.fixture
def asked(sim: Simulator, telemetry: Any, meter: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a call in a program with that file, and gives its span."""
    path = tmp_path / "tokenbudget.toml"
    path.write_text(FILE)
    (tmp_path / "privacy_of_a_test.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)

    def ask(**options: Any) -> Any:
        tb.instrument(telemetry.tracer_provider, telemetry.meter_provider, config=path, **options)
        try:
            with tb.tags(tenant="acme"), openai.OpenAI(base_url=sim.openai_url, api_key="any") as client:
                client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "a secret"}])
        finally:
            tb.uninstrument()
        return telemetry.span()

    yield ask
    tb.instrument(config=_empty(tmp_path))
    tb.uninstrument()


def _empty(folder: Path) -> Path:
    path = folder / "empty.toml"
    path.write_text("")
    return path


def test_a_file_says_what_metrics_carry_and_what_content_is_recorded(asked: Any, telemetry: Any) -> None:
    span = asked()
    assert "a [hidden]" in span.attributes[semconv.INPUT_MESSAGES]
    (point,) = telemetry.metrics()[semconv.METRIC_DURATION]
    assert point.attributes[semconv.TAG_PREFIX + "tenant"] == "acme"


def test_a_variable_counts_more_than_the_file(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "NO_CONTENT")
    assert semconv.INPUT_MESSAGES not in asked().attributes


def test_an_argument_counts_more_than_both(asked: Any, monkeypatch: pytest.MonkeyPatch, telemetry: Any) -> None:
    monkeypatch.setenv(ENVIRONMENT, "SPAN_ONLY")
    span = asked(capture_content="none", metric_tags=())
    assert semconv.INPUT_MESSAGES not in span.attributes
    (point,) = telemetry.metrics()[semconv.METRIC_DURATION]
    assert not [name for name in point.attributes if name.startswith(semconv.TAG_PREFIX)]


def test_tags_of_metrics_may_be_any_iterable(asked: Any, telemetry: Any) -> None:
    asked(metric_tags=(name for name in ("tenant",)))
    (point,) = telemetry.metrics()[semconv.METRIC_DURATION]
    assert point.attributes[semconv.TAG_PREFIX + "tenant"] == "acme"
