"""The dashboards, the rules and their unit tests: written as the tools say, whole, and told of in the documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .programs import CONFIG, ROOT, program

sys.path.insert(0, str(ROOT / "tools"))
from make_dashboards import files

RULES = sorted((CONFIG / "prometheus" / "rules").glob("*.yml"))
RULE_TESTS = sorted((CONFIG / "prometheus" / "tests").glob("*.yml"))
ALERTS = {
    rule["alert"]
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
DOCUMENT = ROOT / "docs" / "dashboards.md"
BOARDS = {path.name: json.loads(path.read_text()) for path in (CONFIG / "grafana" / "dashboards").glob("*.json")}


def run(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_what_the_tool_writes() -> None:
    written = dict(files())
    assert {path.name for path in written if path.suffix == ".json"} == set(BOARDS)
    for path, text in written.items():
        assert path.read_text() == text, f"{path.name} is not what `python tools/make_dashboards.py` writes"


def test_commands_of_the_document_run() -> None:
    [block] = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    for command in block.splitlines():
        name, *arguments = command.split()
        done = subprocess.run([program(name), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.soak] if path.stem.endswith("-of-days") else [])
        for path in RULE_TESTS
    ],
)
def test_rules_do_what_they_should(path: Path) -> None:
    run(program("promtool"), "test", "rules", str(path))


def test_every_alert_is_seen_firing_and_not_firing() -> None:
    seen: dict[str, set[bool]] = {}
    for path in RULE_TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for look in case.get("alert_rule_test", ()):
                seen.setdefault(look["alertname"], set()).add(bool(look["exp_alerts"]))
    assert seen == {alert: {True, False} for alert in ALERTS}


def test_document_has_every_alert_and_dashboard() -> None:
    text = DOCUMENT.read_text()
    assert set(re.findall(r"^\| `(TokenBudget\w+)`", text, re.MULTILINE)) == ALERTS
    assert set(re.findall(r"`(tokenbudget-\w+\.json)`", text)) == set(BOARDS)


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_dashboard_is_whole(name: str) -> None:
    board = BOARDS[name]
    assert name == f"{board['uid']}.json"
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for variable in re.findall(r"\$(\w+)", "".join(target["expr"] for target in panel["targets"])):
            assert variable in {"__range", "__interval", *(row["name"] for row in board["templating"]["list"])}


def test_data_sources_have_the_uids_that_links_use() -> None:
    sources = yaml.safe_load((CONFIG / "grafana/provisioning/datasources/tokenbudget.yaml").read_text())["datasources"]
    assert {row["uid"]: row["type"] for row in sources} == {
        "tokenbudget-prometheus": "prometheus",
        "tokenbudget-jaeger": "jaeger",
    }
