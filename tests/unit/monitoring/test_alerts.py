"""The alerts: each fires and keeps still where it should, has a runbook, and speaks of states that exist."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_local import promtool
from trimtab_operator.api import AttemptReason, PassedReason, State
from trimtab_operator.api.finetunesweep import SweepState
from trimtab_operator.api.status.rollout_reasons import READY_EXPLANATIONS
from trimtab_trainer.contract import Reason
from trimtab_trainer.contract.sweeps.settings import TrialState

from tests.unit.chart.chart import Rendered

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "charts/trimtab/alerts.yaml"
STORIES = sorted(Path(__file__).with_name("stories").glob("*.yaml"))
NAMES = re.compile(r"# (\w+)$", re.MULTILINE)
STATES = re.compile(r'(\w+)\{(?:state|verdict|reason|outcome)[!=][~"]"?([^"]+)"')

ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(SOURCE.read_text())["groups"] for rule in group["rules"]
]
SILENT = {
    "Serving",
    "Paused",
    "Canary",
    "WaitingForSource",
    "NothingPassed",
    "EvaluationNotPassed",
    "Rejected",
    "RolledBack",
}
"""States of an AdapterRollout that are wanted, wait for others, or have an alert of their own by another metric."""


def promtool_says(*arguments: str) -> str:
    done = subprocess.run([promtool.ensure(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_stories_come_true() -> None:
    assert promtool_says("test", "rules", *map(str, STORIES)).count("SUCCESS") == len(STORIES)


def test_the_file_is_one_of_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool_says("check", "rules", "--lint-fatal", str(SOURCE))


def test_what_the_chart_renders_is_one_too(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        yaml.safe_dump(Rendered({"metrics": {"prometheusRule": {"enabled": True}}}).one("PrometheusRule")["spec"])
    )
    assert f"{len(ALERTS)} rules found" in promtool_says("check", "rules", str(file))


def test_every_alert_is_told_in_which_story_it_fires_and_in_which_it_keeps_still() -> None:
    fires, still = Counter[str](), Counter[str]()
    for story in (story for file in STORIES for story in yaml.safe_load(file.read_text())["tests"]):
        for test in story["alert_rule_test"]:
            (fires if test.get("exp_alerts") else still)[test["alertname"]] += 1
    names = {alert["alert"] for alert in ALERTS}
    assert fires.keys() == still.keys() == names


def test_every_alert_says_how_grave_it_is_and_what_to_do() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"


def test_every_state_of_an_adapterrollout_has_one_alert_or_is_silent() -> None:
    of_alerts = [
        state
        for alert in ALERTS
        for metric, states in STATES.findall(alert["expr"])
        if metric == "trimtab_adapterrollouts"
        for state in states.split("|")
    ]
    assert Counter([*of_alerts, *SILENT]) == Counter(READY_EXPLANATIONS.keys())


@pytest.mark.parametrize(
    ("metric", "known"),
    [
        ("trimtab_finetunejobs", {*State}),
        ("trimtab_finetunesweeps", {*SweepState}),
        ("trimtab_sweep_trials_total", {*TrialState, "DeadlineExceeded"}),
        ("trimtab_evaluations_total", {*PassedReason}),
        ("trimtab_attempts_total", {*Reason, *AttemptReason}),
    ],
)
def test_every_other_state_in_an_alert_exists(metric: str, known: set[str]) -> None:
    found = {
        state
        for alert in ALERTS
        for name, states in STATES.findall(alert["expr"])
        if name == metric
        for state in states.split("|")
    }
    assert found
    assert found <= known


def test_the_thresholds_of_the_file_are_the_charts_defaults() -> None:
    """So whoever takes the file has the same alerts, and no threshold of the values is forgotten."""
    defaults: dict[str, Any] = yaml.safe_load((ROOT / "charts/trimtab/values.yaml").read_text())["metrics"]
    found = re.findall(r"(\S+) # (\w+)$", SOURCE.read_text(), re.MULTILINE)
    assert {name: str(value) for value, name in found} == {
        name: str(value) for name, value in defaults["prometheusRule"]["thresholds"].items()
    }
