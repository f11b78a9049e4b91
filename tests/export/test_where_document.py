"""What docs/where-it-ran.md says holds. Its commands and programs are run by tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource

from tokenbudget_otel.export.where import WhereDetector
from tokenbudget_otel.export.where.detection import DEFAULT_SECONDS, MOST_SECONDS
from tokenbudget_otel.export.where.kubernetes import VARIABLES, kubernetes
from tokenbudget_otel.export.where.places import DETECTORS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "where-it-ran.md").read_text()


def blocks() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_every_detector_that_is_called_is_named() -> None:
    assert [name for name in DETECTORS if f"`{name}`" not in DOCUMENT] == []


def test_the_limits_are_those_of_the_code() -> None:
    assert f"({DEFAULT_SECONDS:g} second\nby default, at most {MOST_SECONDS:g})" in DOCUMENT


def test_the_pods_variables_are_read(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    from tokenbudget_otel.export.where.evidence import Evidence

    names = [each["name"] for each in yaml.safe_load(blocks()[0])["env"]]
    variables = {name: name.lower() for name in names}
    assert variables.pop("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS")
    found = kubernetes(Evidence(tmp_path, variables))
    assert sorted(found) == sorted(VARIABLES) and sorted(found.values()) == sorted(variables.values())


def test_the_declarative_file_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.configuration")
    from opentelemetry.configuration import load_config_file
    from opentelemetry.configuration._resource import create_resource

    given: list[object] = []
    monkeypatch.setattr(WhereDetector, "__init__", lambda self, **options: given.append(options))
    monkeypatch.setattr(WhereDetector, "detect", lambda self: Resource({}))
    (tmp_path / "otel.yaml").write_text(blocks()[-1])
    assert create_resource(load_config_file(str(tmp_path / "otel.yaml")).resource).attributes["service.name"] == "shop"
    assert given == [{"timeout": 0.5}]
