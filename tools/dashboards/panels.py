"""Panels and dashboards as Grafana keeps them in JSON: only what we set, in one place for each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dashboards.queries import MODEL, PROVIDER, TENANT

PROMETHEUS: Final = {"type": "prometheus", "uid": "${datasource}"}
GREEN_TO_RED: Final = (("green", None), ("yellow", 0.8), ("red", 1.0))


@dataclass(frozen=True)
class Panel:
    """One panel. ``queries`` are PromQL by the legend; ``since`` is a time range of its own, as ``now/M``."""

    title: str
    kind: str
    queries: Mapping[str, str]
    unit: str = "short"
    says: str = ""
    width: int = 12
    height: int = 8
    since: str = ""
    decimals: int | None = None
    thresholds: Sequence[tuple[str, float | None]] = (("green", None),)
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    overrides: Sequence[Mapping[str, Any]] = ()
    most: float | None = None
    empty: str = ""

    @property
    def instant(self) -> bool:
        return self.kind != "timeseries"

    def as_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        table = self.kind == "table"
        targets = [
            {
                "datasource": PROMETHEUS,
                "refId": chr(ord("A") + at),
                "expr": expression,
                "legendFormat": legend,
                "instant": self.instant,
                "range": not self.instant,
                "format": "table" if table else "time_series",
            }
            for at, (legend, expression) in enumerate(self.queries.items())
        ]
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "custom": dict(self.custom),
            "color": {"mode": "palette-classic" if self.kind in ("timeseries", "piechart") else "thresholds"},
            "thresholds": {
                "mode": "absolute",
                "steps": [{"color": color, "value": value} for color, value in self.thresholds],
            },
        }
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        if self.most is not None:
            defaults |= {"min": 0, "max": self.most}
        if self.empty:
            defaults["noValue"] = self.empty
        shown: dict[str, Any] = {
            "id": number,
            "title": self.title,
            "description": self.says,
            "type": self.kind,
            "datasource": PROMETHEUS,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": targets,
            "options": dict(self.options),
            "fieldConfig": {"defaults": defaults, "overrides": [dict(row) for row in self.overrides]},
        }
        if self.since:
            shown |= {"timeFrom": self.since, "hideTimeOverride": True}
        if not self.instant:
            # Nothing is recorded more often, and each bar is the sum of its own time.
            shown["interval"] = "30s"
        if table:
            hidden = {"Time": True, **{f"Time {at + 1}": True for at in range(len(targets))}}
            shown["transformations"] = [
                *([{"id": "merge", "options": {}}] if len(targets) > 1 else []),
                {"id": "organize", "options": {"excludeByName": hidden, "renameByName": dict(self.columns)}},
            ]
        return shown


_REDUCED: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def number(title: str, expression: str, unit: str, says: str, **more: Any) -> Panel:
    """One figure."""
    options = {"reduceOptions": _REDUCED, "colorMode": "value", "graphMode": "none", "textMode": "value"}
    return replace(Panel(title, "stat", {"": expression}, unit, says, width=6, height=4, options=options), **more)


def bars(title: str, queries: Mapping[str, str], unit: str, says: str, **more: Any) -> Panel:
    """Sums over time, stacked."""
    custom = {"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["sum"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return replace(Panel(title, "timeseries", queries, unit, says, options=options, custom=custom), **more)


def lines(title: str, queries: Mapping[str, str], unit: str, says: str, **more: Any) -> Panel:
    """Values over time."""
    custom = {"drawStyle": "line", "fillOpacity": 8, "lineWidth": 2, "spanNulls": True, "showPoints": "auto"}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return replace(Panel(title, "timeseries", queries, unit, says, options=options, custom=custom), **more)


def ranking(title: str, queries: Mapping[str, str], unit: str, says: str, **more: Any) -> Panel:
    """Bars of a length each, the longest at the top."""
    options = {"reduceOptions": _REDUCED, "orientation": "horizontal", "displayMode": "gradient", "showUnfilled": True}
    return replace(Panel(title, "bargauge", queries, unit, says, width=8, options=options), **more)


def pie(title: str, queries: Mapping[str, str], unit: str, says: str, **more: Any) -> Panel:
    """Shares of a whole."""
    options = {
        "reduceOptions": _REDUCED,
        "pieType": "donut",
        "legend": {"displayMode": "table", "placement": "right", "values": ["value", "percent"]},
    }
    return replace(Panel(title, "piechart", queries, unit, says, width=8, options=options), **more)


def table(title: str, queries: Mapping[str, str], unit: str, says: str, **more: Any) -> Panel:
    """Rows of labels and values."""
    return replace(Panel(title, "table", queries, unit, says, width=24), **more)


def _variable(name: str, label: str, of: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"query": f"label_values(tokenbudget:calls:increase30s, {of})", "refId": name},
        "definition": f"label_values(tokenbudget:calls:increase30s, {of})",
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _source(name: str, label: str, kind: str) -> dict[str, Any]:
    return {"name": name, "label": label, "type": "datasource", "query": kind, "current": {}}


def dashboard(uid: str, title: str, says: str, panels: Sequence[Panel], since: str = "now-24h") -> dict[str, Any]:
    """A dashboard; its panels are laid out in rows of 24 columns, in the order in which they are given."""
    placed: list[dict[str, Any]] = []
    x = y = tallest = 0
    for at, panel in enumerate(panels, 1):
        if x + panel.width > 24:
            x, y, tallest = 0, y + tallest, 0
        placed.append(panel.as_json(at, x, y))
        x, tallest = x + panel.width, max(tallest, panel.height)
    titles = [panel.title for panel in panels]
    assert len(titles) == len(set(titles)), titles
    return {
        "uid": uid,
        "title": title,
        "description": says,
        "tags": ["tokenbudget", "llm"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": since, "to": "now"},
        "timezone": "utc",
        "links": [
            {
                "type": "dashboards",
                "title": "TokenBudget",
                "tags": ["tokenbudget"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {
            "list": [
                _source("datasource", "Prometheus", "prometheus"),
                _source("jaeger", "Jaeger", "jaeger"),
                _variable("provider", "Provider", PROVIDER),
                _variable("model", "Model", MODEL),
                _variable("tenant", "Tenant", TENANT),
            ]
        },
        "annotations": {"list": []},
        "panels": placed,
    }
