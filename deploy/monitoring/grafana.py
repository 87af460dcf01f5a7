"""Dashboards as values, and the JSON that Grafana (10 and later) reads: as few kinds of panels as do.

`dashboards.py` says what is on them. Panels flow from left to right in rows of 24 columns, so nobody counts positions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]

COLUMNS = 24
SCHEMA_VERSION = 39
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}

Kind = Literal["stat", "timeseries", "state-timeline", "table"]


@dataclass(frozen=True)
class Series:
    """One query; its legend names labels as {{label}}."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        what: what is seen, and what to do about it; Grafana shows it behind the panel's (i).
        unit: Grafana's word: short, s, bytes, percentunit, reqps ...
        steps: colours from a value on, the first from the beginning: (("green", None), ("red", 1800)).
        words: words instead of values.
        stacked: areas on top of each other; bars: counts of an interval.
    """

    title: str
    what: str
    series: tuple[Series, ...]
    kind: Kind = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    steps: tuple[tuple[str, float | None], ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    stacked: bool = False
    bars: bool = False
    logarithmic: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


@dataclass(frozen=True)
class Variable:
    """A choice at the top: the values of a label."""

    name: str
    label: str
    query: str


@dataclass(frozen=True)
class Dashboard:
    """A page. `marks` are moments that every panel shows, by their name."""

    name: str
    title: str
    what: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    marks: tuple[tuple[str, str], ...] = ()
    since: str = "now-24h"

    def expressions(self) -> Iterator[str]:
        """Yield every query, those of its marks included."""
        for row in self.rows:
            for panel in row.panels:
                yield from (series.expr for series in panel.series)
        yield from (expr for _, expr in self.marks)


def render(dashboard: Dashboard) -> str:
    """Return the JSON of a dashboard; the same value gives the same bytes."""
    return json.dumps(_dashboard(dashboard), indent=1, ensure_ascii=False) + "\n"


def _dashboard(dashboard: Dashboard) -> Json:
    return {
        "uid": f"trimtab-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.what,
        "tags": ["trimtab"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": dashboard.since, "to": "now"},
        "timezone": "",
        "links": [
            {
                "type": "dashboards",
                "title": "Trimtab",
                "tags": ["trimtab"],
                "asDropdown": False,
                "includeVars": False,
                "keepTime": True,
            }
        ],
        "annotations": {"list": [_mark(name, expr) for name, expr in dashboard.marks]},
        "templating": {"list": [_datasource(), *(_variable(each) for each in dashboard.variables)]},
        "panels": list(_panels(dashboard.rows)),
    }


def _datasource() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "definition": variable.query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _mark(name: str, expr: str) -> Json:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "expr": expr,
        "iconColor": "red",
        "titleFormat": name,
        "textFormat": "{{reason}}",
        "step": "60s",
    }


def _panels(rows: tuple[Row, ...]) -> Iterator[Json]:
    number, top = 1, 0
    for row in rows:
        head: Json = {"id": number, "type": "row", "title": row.title, "collapsed": row.collapsed, "panels": []}
        head["gridPos"] = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        number, top = number + 1, top + 1
        placed, left, height = [], 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, height = 0, top + height, 0
            position = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            placed.append({"id": number, "gridPos": position, **_panel(panel)})
            number, left, height = number + 1, left + panel.width, max(height, panel.height)
        top += height
        if row.collapsed:
            yield {**head, "panels": placed}
        else:
            yield head
            yield from placed


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.what,
        "datasource": DATASOURCE,
        "targets": [_target(panel, series, chr(ord("A") + place)) for place, series in enumerate(panel.series)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        **({"transformations": _transformations()} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, series: Series, letter: str) -> Json:
    once = panel.kind in ("stat", "table")
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": series.expr,
        "legendFormat": series.legend or "__auto",
        "instant": once,
        "range": not once,
        **({"format": "table"} if panel.kind == "table" else {}),
    }


def _defaults(panel: Panel) -> Json:
    steps = panel.steps or (("green" if panel.kind == "stat" else "text", None),)
    found: Json = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]},
        "mappings": [],
        "color": {"mode": "thresholds" if panel.steps or panel.kind == "stat" else "palette-classic"},
    }
    if panel.words:
        options = {value: {"text": text, "index": place} for place, (value, text) in enumerate(panel.words.items())}
        found["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        found["color"] = {"mode": "palette-classic"}
        found["custom"] = {
            "drawStyle": "bars" if panel.bars else "line",
            "fillOpacity": 60 if panel.bars or panel.stacked else 8,
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"group": "A", "mode": "normal" if panel.stacked or panel.bars else "none"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.logarithmic else {"type": "linear"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
        }
    if panel.logarithmic:
        del found["min"]
    return found


def _options(panel: Panel) -> Json:
    match panel.kind:
        case "stat":
            calculated = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            return {"reduceOptions": calculated, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
        case "state-timeline":
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": False}
            return {"showValue": "never", "mergeValues": True, "rowHeight": 0.8, "legend": legend}
    return {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _transformations() -> list[Json]:
    """One line for each object, without the columns that only Prometheus needs."""
    hidden = {"Time": True, "__name__": True, "instance": True, "job": True, "pod": True, "container": True}
    return [{"id": "organize", "options": {"excludeByName": {**hidden, "endpoint": True}, "renameByName": {}}}]
