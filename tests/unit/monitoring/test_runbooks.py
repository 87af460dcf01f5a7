"""A runbook for each alert, with what a person needs at night, and commands that name what is there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_operator.api import EVALUATION_REASONS, FINETUNEJOB_REASONS, AttemptReason, PassedReason
from trimtab_operator.api.finetunesweep import SweepState
from trimtab_operator.api.status.rollout_reasons import READY_EXPLANATIONS
from trimtab_trainer.contract import Reason

from tests.unit.monitoring.test_alerts import ALERTS

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docs/runbooks"
NAMES = sorted({alert["alert"] for alert in ALERTS})
PATHS = re.compile(r"\.((?:status|spec)(?:\.\w+|\[[^\]]*\])+)")
KINDS = {
    "finetunesweep": "finetunesweeps",
    "finetunejob": "finetunejobs",
    "evaluation": "evaluations",
    "adapterrollout": "adapterrollouts",
    "review": "reviews",
}
COMMAND = re.compile(r"^kubectl [^\n]*", re.MULTILINE)
OBJECT = re.compile(r"get (finetunesweep|finetunejob|evaluation|adapterrollout|review)s? ")


@cache
def schema_of(plural: str) -> dict[str, Any]:
    crd = yaml.load((ROOT / f"crds/trimtab.dev_{plural}.yaml").read_text(), Loader=yaml.CSafeLoader)  # it is long
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_it_has_its_parts_and_commands(name: str) -> None:
    text = text_of(name)
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "What to do"]
    assert COMMAND.search(text)
    assert f"]({name}.md)" in text_of("README")


def test_there_is_none_without_an_alert() -> None:
    assert sorted(file.stem for file in FOLDER.glob("Trimtab*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_thresholds_it_names_are_values_of_the_chart(name: str) -> None:
    values = yaml.safe_load((ROOT / "charts/trimtab/values.yaml").read_text())
    named = set(re.findall(r"`thresholds\.(\w+)`", text_of(name)))
    assert named <= values["metrics"]["prometheusRule"]["thresholds"].keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_fields_that_its_commands_print_are_in_the_schema(name: str) -> None:
    for command in COMMAND.findall(text_of(name)):
        asked = OBJECT.search(command)
        if asked is None:
            continue
        for path in PATHS.findall(command):
            node = schema_of(KINDS[asked[1]])
            for step in re.findall(r"\w+|\[[^\]]*\]", re.sub(r"\[[^\]]*\]", "[]", path)):
                if "additionalProperties" in node:
                    break  # labels
                node = node["items"] if step == "[]" else node["properties"][step]


def test_the_reasons_in_its_tables_exist() -> None:
    known = {*FINETUNEJOB_REASONS, *EVALUATION_REASONS, *PassedReason, *AttemptReason, *Reason, *READY_EXPLANATIONS}
    known |= OF_PODS | DISRUPTIONS | {*SweepState}
    for name in NAMES:
        cells = re.findall(r"^\| (`[^|]+) \|", text_of(name), re.MULTILINE)
        assert {word for cell in cells for word in re.findall(r"`(\w+)`", cell)} <= known, name


OF_PODS = {"Unreachable", "EngineDown", "EngineHarmed", "AccessDenied", "StorageFailed", "ArtifactMissing"}
DISRUPTIONS = {"PreemptionByScheduler", "EvictionByEvictionAPI", "DeletionByTaintManager", "NodeLost"}
"""Of Kubernetes."""
