"""What Argo CD and Flux make of the kinds, with the samples' expressions evaluated as those programs do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import celpy
import celpy.adapter
import lupa.lua51 as lupa  # the version of Argo CD's interpreter
import pytest
import yaml
from trimtab_operator.api import PassedReason, RolloutReason, State, SweepState
from trimtab_operator.api.finetunesweep import FINETUNESWEEP
from trimtab_operator.api.status.reasons import (
    EVALUATION_EXPLANATIONS,
    EXPORT_EXPLANATIONS,
    FINETUNEJOB_EXPLANATIONS,
    PASSED_EXPLANATIONS,
    Explanation,
)
from trimtab_operator.api.status.rollout_reasons import READY_EXPLANATIONS

SAMPLES = Path(__file__).parents[3] / "deploy/samples"
SCRIPTS = {
    "FineTuneJob": "argocd-health.lua",
    "FineTuneSweep": "argocd-health.lua",
    "AdapterExport": "argocd-health.lua",
    "Evaluation": "argocd-health-evaluation.lua",
    "AdapterRollout": "argocd-health-adapterrollout.lua",
}
STATUS = {"active": "Unknown", "succeeded": "True", "failed": "False"}

Body = dict[str, Any]


def condition(kind: str, status: str, reason: str) -> Body:
    return {"type": kind, "status": status, "reason": reason, "message": "what to do next"}


def made(kind: str, *conditions: Body, observed: int = 2) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "a", "generation": 2},
        "spec": {},
        "status": {"observedGeneration": observed, "conditions": list(conditions)},
    }


def lasting(explanations: dict[str, Explanation]) -> list[tuple[str, str]]:
    """Return the reasons that an object may have, each with the status of its condition."""
    return [(reason, STATUS[told.when]) for reason, told in explanations.items() if told.when in STATUS]


Expected = tuple[Body, str, str, str]
"""An object, its health for Argo CD, the reason that the message begins with, and its status for Flux."""


def finetunejobs() -> dict[str, Expected]:
    cases: dict[str, Expected] = {}
    for reason, status in lasting(FINETUNEJOB_EXPLANATIONS):
        argo, flux = {
            "Unknown": ("Progressing", "InProgress"),
            "True": ("Healthy", "Current"),
            "False": ("Degraded", "Failed"),
        }[status]
        if reason == State.SUSPENDED.value:
            argo = "Suspended"
        cases[reason] = made("FineTuneJob", condition("Succeeded", status, reason)), argo, reason, flux
    return cases


def evaluations() -> dict[str, Expected]:
    """Return every state before the verdict, every bad end, and every verdict."""
    cases: dict[str, Expected] = {}
    for reason, status in lasting(EVALUATION_EXPLANATIONS):
        succeeded = condition("Succeeded", status, reason)
        if status == "Unknown":
            argo = "Suspended" if reason == State.SUSPENDED.value else "Progressing"
            passed = condition("Passed", "Unknown", PassedReason.NOT_YET.value)
            cases[reason] = made("Evaluation", passed, succeeded), argo, reason, "InProgress"
        elif status == "False":
            passed = condition("Passed", "False", PassedReason.EVALUATION_FAILED.value)
            cases[reason] = made("Evaluation", passed, succeeded), "Degraded", reason, "Failed"
    for reason, status in lasting(PASSED_EXPLANATIONS):
        succeeded, passed = condition("Succeeded", "True", "Completed"), condition("Passed", status, reason)
        if status != "Unknown":
            argo, flux = {"True": ("Healthy", "Current"), "False": ("Degraded", "Failed")}[status]
            cases[reason] = made("Evaluation", succeeded, passed), argo, reason, flux
    without = made("Evaluation", condition("Succeeded", "True", "Completed"))
    cases["ended, without a verdict"] = without, "Progressing", "Completed", "InProgress"
    return cases


GOES_ON_BY_ITSELF = {
    RolloutReason.WAITING_FOR_SOURCE,
    RolloutReason.EVALUATION_NOT_FOUND,
    RolloutReason.NOTHING_PASSED,
    RolloutReason.NO_PODS,
    RolloutReason.LOADING,
    RolloutReason.CANARY,
    RolloutReason.MOVING,
    RolloutReason.POD_NOT_UPDATED,
}


def adapterrollouts() -> dict[str, Expected]:
    cases: dict[str, Expected] = {}
    for reason, status in lasting(READY_EXPLANATIONS):
        known = {
            "True": ("Healthy", "Current"),
            "False": ("Degraded", "Failed"),
            "Unknown": ("Progressing", "InProgress"),
        }
        argo, flux = known[status]
        if reason in GOES_ON_BY_ITSELF:
            argo, flux = "Progressing", "InProgress"
        if reason == RolloutReason.PAUSED:
            argo, flux = "Healthy", "Current"
        if reason == RolloutReason.AWAITING_APPROVAL:
            argo, flux = "Suspended", "InProgress"
        others = condition("Progressing", "True", "Moving"), condition("Verified", "True", "Serving")
        cases[reason] = made("AdapterRollout", condition("Ready", status, reason), *others), argo, reason, flux
    return cases


def finetunesweeps() -> dict[str, Expected]:
    _, explanations = FINETUNESWEEP.reasons["Succeeded"]
    cases: dict[str, Expected] = {}
    for reason, status in lasting(explanations):
        argo, flux = {
            "Unknown": ("Progressing", "InProgress"),
            "True": ("Healthy", "Current"),
            "False": ("Degraded", "Failed"),
        }[status]
        if reason == SweepState.SUSPENDED.value:
            argo = "Suspended"
        cases[reason] = made("FineTuneSweep", condition("Succeeded", status, reason)), argo, reason, flux
    return cases


def adapterexports() -> dict[str, Expected]:
    cases: dict[str, Expected] = {}
    for reason, status in lasting(EXPORT_EXPLANATIONS):
        argo, flux = {
            "Unknown": ("Progressing", "InProgress"),
            "True": ("Healthy", "Current"),
            "False": ("Degraded", "Failed"),
        }[status]
        if reason == State.SUSPENDED.value:
            argo = "Suspended"
        cases[reason] = made("AdapterExport", condition("Succeeded", status, reason)), argo, reason, flux
    return cases


BY_KIND = {
    "FineTuneJob": finetunejobs(),
    "FineTuneSweep": finetunesweeps(),
    "AdapterExport": adapterexports(),
    "Evaluation": evaluations(),
    "AdapterRollout": adapterrollouts(),
}
CASES = [
    pytest.param(kind, *expected, id=f"{kind}: {name}")
    for kind, cases in BY_KIND.items()
    for name, expected in {
        "just applied": ({"metadata": {"generation": 1}, "spec": {}, "status": {}}, "Progressing", "", "InProgress"),
        "changed, not seen yet": (
            made(kind, *(condition(each, "True", "a") for each in ("Succeeded", "Passed", "Ready")), observed=1),
            "Progressing",
            "",
            "InProgress",
        ),
        **cases,
    }.items()
]
of_each_kind = pytest.mark.parametrize("kind", SCRIPTS)


def health_of(kind: str, body: Body) -> Any:
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(body, recursive=True)
    return lua.execute((SAMPLES / SCRIPTS[kind]).read_text())


@pytest.mark.parametrize(("kind", "body", "expected", "reason", "flux"), CASES)
def test_argo_cd(kind: str, body: Body, expected: str, reason: str, flux: str) -> None:
    health = health_of(kind, body)
    assert health["status"] == expected
    assert health["message"] == f"{reason}: what to do next" if reason else health["message"].startswith("Waiting")


@of_each_kind
def test_argo_cd_without_any_status(kind: str) -> None:
    assert health_of(kind, {"metadata": {"generation": 1}})["status"] == "Progressing"


@of_each_kind
def test_the_config_map_has_the_text_of_the_file(kind: str) -> None:
    config = yaml.safe_load((SAMPLES / "argocd-cm.yaml").read_text())
    text = config["data"][f"resource.customizations.health.trimtab.dev_{kind}"]
    assert text == (SAMPLES / SCRIPTS[kind]).read_text()


def flux_status(kind: str, body: Body) -> str:
    """Return what Flux's evaluator does: in this order, and InProgress when nothing holds."""
    checks = yaml.safe_load((SAMPLES / "flux-health.yaml").read_text())["spec"]["healthCheckExprs"]
    (check,) = [each for each in checks if (each["apiVersion"], each["kind"]) == ("trimtab.dev/v1alpha1", kind)]
    environment = celpy.Environment()
    variables = {key: celpy.adapter.json_to_cel(value) for key, value in body.items()}
    for key, status in {"inProgress": "InProgress", "failed": "Failed", "current": "Current"}.items():
        if environment.program(environment.compile(check[key])).evaluate(variables):
            return status
    return "InProgress"


@pytest.mark.parametrize(("kind", "body", "argo", "reason", "expected"), CASES)
def test_flux(kind: str, body: Body, argo: str, reason: str, expected: str) -> None:
    assert flux_status(kind, body) == expected
