"""Dashboards and alerts ask only for what is there: every expression is one, every metric and label exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase
from trimtab_agent import metrics as agent
from trimtab_operator.domain.notifications import Endpoint
from trimtab_operator.runtime import metrics as operator
from trimtab_operator.runtime.kube import Kube
from trimtab_operator.runtime.leading import Leading
from trimtab_operator.runtime.notifying.notifier import Notifier
from trimtab_operator.runtime.objectmetrics import ObjectMetrics
from trimtab_operator.runtime.settings import Settings
from trimtab_trainer.contract import Stage
from trimtab_trainer.progress import ProgressBoard

from deploy.monitoring.dashboards import DASHBOARDS, FOLDER, main
from deploy.monitoring.grafana import COLUMNS, Dashboard, render
from tests.unit.chart.chart import Rendered
from tests.unit.monitoring.promql import used
from tests.unit.monitoring.test_alerts import ALERTS, promtool_says

OF_TARGETS = {"namespace", "pod", "instance", "job", "container", "endpoint"}
"""Labels that Prometheus gives to whatever it scrapes."""

VLLM = {
    "vllm:request_success_total": {"finished_reason"},
    "vllm:e2e_request_latency_seconds_bucket": {"le"},
    "vllm:time_to_first_token_seconds_bucket": {"le"},
    "vllm:num_requests_running": set[str](),
    "vllm:num_requests_waiting": set[str](),
    "vllm:prompt_tokens_total": set[str](),
    "vllm:generation_tokens_total": set[str](),
    "vllm:kv_cache_usage_perc": set[str](),
}
"""vLLM's own metrics that are asked for, of version 0.32, and their labels that are used."""

VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def of(metric: MetricWrapperBase) -> Iterator[tuple[str, set[str]]]:
    """Yield the series of a metric with their labels."""
    name, labels = metric._name, set(metric._labelnames)
    match metric:
        case Counter():
            yield f"{name}_total", labels
        case Histogram():
            yield f"{name}_bucket", {*labels, "le"}
            yield f"{name}_count", labels
            yield f"{name}_sum", labels
        case Info():
            yield f"{name}_info", {"version"}
        case _:
            assert isinstance(metric, Gauge)
            yield name, labels


def in_registry(registry: CollectorRegistry) -> Iterator[tuple[str, set[str]]]:
    for collector in list(registry._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            yield from of(collector)


@pytest.fixture
async def existing(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """What operator, agent, trainer and vLLM have, with the labels of each."""
    found = dict(VLLM)
    for module in (operator, agent):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                found.update(of(metric))
    found.update(in_registry(ProgressBoard("uid", 1, Stage.TRAIN).registry))
    collectors: list[Any] = []
    monkeypatch.setattr(operator.States, "register", lambda each: collectors.append(each))
    monkeypatch.setattr(ObjectMetrics, "register", lambda each: collectors.append(each))
    monkeypatch.setattr(Notifier, "register", lambda each: collectors.append(each))
    told = (Endpoint(name="bus", secret_name="bus"),)
    settings = Settings(prepare_image="a", trainer_image="a", object_metrics=True, notifications=told)
    kube = Kube(Configuration())
    leading = Leading(kube, settings, lambda: 0)
    await leading.close()
    await kube.close()
    for collector in collectors:
        found.update((family.name, set(family._labelnames)) for family in collector.collect())
    return found


def plain(expression: str) -> str:
    """Return an expression with Grafana's variables replaced as Grafana would."""
    return VARIABLE.sub(lambda match: {"__rate_interval": "2m", "__range": "1d"}.get(match[1], ".*"), expression)


EXPRESSIONS: dict[str, str] = {
    **{f"alert {alert['alert']} {place}": str(alert["expr"]) for place, alert in enumerate(ALERTS)},
    **{
        f"{dashboard.name} {place}": plain(expression)
        for dashboard in DASHBOARDS
        for place, expression in enumerate(dashboard.expressions())
    },
}


def test_every_expression_is_one(tmp_path: Path) -> None:
    rules = [{"record": f"trimtab:{place}", "expr": text} for place, text in enumerate(EXPRESSIONS.values())]
    file = tmp_path / "expressions.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    assert f"{len(EXPRESSIONS)} rules found" in promtool_says("check", "rules", str(file))


async def test_every_metric_and_every_label_exists(existing: dict[str, set[str]]) -> None:
    for where, expression in EXPRESSIONS.items():
        names = used(expression)
        assert names.selected, where
        for metric, labels in names.selected.items():
            assert metric in existing, f"{where}: {metric}"
            assert labels <= existing[metric] | OF_TARGETS, f"{where}: {metric}{labels}"
        known = set().union(*(existing[metric] for metric in names.selected)) | OF_TARGETS
        assert names.grouped <= known, f"{where}: by {names.grouped}"


async def test_every_metric_of_the_product_is_somewhere(existing: dict[str, set[str]]) -> None:
    """What nobody looks at need not be counted."""
    asked = {metric for text in EXPRESSIONS.values() for metric in used(text).selected}
    shown = {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in asked}
    there = {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in existing}
    assert there - shown == NOT_SHOWN


NOT_SHOWN = {
    "trimtab_build_info",
    "trimtab_cache_objects",
    "trimtab_events_failed_total",
    "trimtab_watch_last_event_timestamp_seconds",
    "trimtab_agent_adapters_removed_total",
    "trimtab_agent_alias_tables_total",
    "trimtab_trainer_checkpoint_failures_total",
    "trimtab_trainer_checkpoints_total",
    "trimtab_trainer_micro_batch_sequences",
    "trimtab_trainer_supervised_tokens_total",
    "trimtab_trainer_tokens_total",
}
"""For questions that come up once."""


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.name)
def test_every_legend_names_labels_that_the_query_leaves(dashboard: Dashboard) -> None:
    for panel in (panel for row in dashboard.rows for panel in row.panels):
        for series in panel.series:
            names = used(plain(series.expr))
            aggregated = re.search(r"\b(sum|max|count|min)\b", series.expr) is not None
            for label in re.findall(r"\{\{(\w+)\}\}", series.legend):
                assert label in names.grouped or not aggregated, f"{panel.title}: {label}"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.name)
def test_every_variable_is_there_and_used(dashboard: Dashboard) -> None:
    queries = [*dashboard.expressions(), *(variable.query for variable in dashboard.variables)]
    asked = {name for text in queries for name in VARIABLE.findall(text)} - {"__rate_interval", "__range"}
    assert asked <= {variable.name for variable in dashboard.variables}
    for variable in dashboard.variables:
        assert variable.name in asked


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.name)
def test_panels_lie_beside_each_other_and_say_what_they_show(dashboard: Dashboard) -> None:
    page = json.loads(render(dashboard))
    panels = [inner for panel in page["panels"] for inner in (panel, *panel.get("panels", ()))]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
        assert len([1 for other in panels if other["title"] == panel["title"]]) == 1


def test_every_runbook_that_a_panel_names_is_there() -> None:
    names = {name for dashboard in DASHBOARDS for name in re.findall(r"Runbook: (\w+)", render(dashboard))}
    assert names <= {alert["alert"] for alert in ALERTS}


def test_the_files_in_the_chart_are_fresh() -> None:
    assert main(["--check"]) == 0


def test_the_chart_brings_them_to_grafana_as_they_are() -> None:
    rendered = Rendered({"metrics": {"dashboards": {"enabled": True}}})
    for dashboard in DASHBOARDS:
        body = rendered.one("ConfigMap", f"trimtab-dashboard-{dashboard.name}")
        assert body["metadata"]["labels"]["grafana_dashboard"] == "1"
        (text,) = body["data"].values()
        assert json.loads(text) == json.loads((FOLDER / f"{dashboard.name}.json").read_text())
