"""What Argo CD and Flux make of a FineTuneJob, with the samples' expressions evaluated as those programs do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import celpy
import celpy.adapter
import lupa.lua51 as lupa  # the version of Argo CD's interpreter
import pytest
import yaml
from trimtab_operator.api import State
from trimtab_operator.api.reasons import FINETUNEJOB_EXPLANATIONS

SAMPLES = Path(__file__).parents[3] / "deploy/samples"
ARGO_KEY = "resource.customizations.health.trimtab.dev_FineTuneJob"

Body = dict[str, Any]


def finetunejob(status: str, reason: str, observed: int = 2) -> Body:
    condition = {"type": "Succeeded", "status": status, "reason": reason, "message": "what to do next"}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "a", "generation": 2},
        "spec": {},
        "status": {"observedGeneration": observed, "conditions": [condition]},
    }


JOBS: dict[str, tuple[Body, str, str]] = {
    "just applied": ({"metadata": {"generation": 1}, "spec": {}, "status": {}}, "Progressing", "InProgress"),
    "changed, not seen yet": (finetunejob("True", "Completed", observed=1), "Progressing", "InProgress"),
    **{
        f"{reason}": {
            "active": (
                finetunejob("Unknown", reason),
                "Suspended" if reason == State.SUSPENDED.value else "Progressing",
                "InProgress",
            ),
            "succeeded": (finetunejob("True", reason), "Healthy", "Current"),
            "failed": (finetunejob("False", reason), "Degraded", "Failed"),
        }[explanation.when]
        for reason, explanation in FINETUNEJOB_EXPLANATIONS.items()
        if explanation.when != "attempt"
    },
}
"""FineTuneJob, its health for Argo CD and its status for Flux."""


@pytest.mark.parametrize("name", JOBS)
def test_argo_cd(name: str) -> None:
    job, expected, _ = JOBS[name]
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(job, recursive=True)
    health = lua.execute((SAMPLES / "argocd-health.lua").read_text())
    assert health["status"] == expected
    assert health["message"]
    if expected in ("Healthy", "Degraded", "Suspended"):
        assert health["message"] == f"{name}: what to do next"


def test_argo_cd_without_any_status() -> None:
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from({"metadata": {"generation": 1}}, recursive=True)
    assert lua.execute((SAMPLES / "argocd-health.lua").read_text())["status"] == "Progressing"


def test_the_config_map_has_the_text_of_the_file() -> None:
    config = yaml.safe_load((SAMPLES / "argocd-cm.yaml").read_text())
    assert config["data"][ARGO_KEY] == (SAMPLES / "argocd-health.lua").read_text()


def flux_status(job: Body) -> str:
    """Return what Flux's evaluator does: in this order, and InProgress when nothing holds."""
    (check,) = yaml.safe_load((SAMPLES / "flux-health.yaml").read_text())["spec"]["healthCheckExprs"]
    assert (check["apiVersion"], check["kind"]) == ("trimtab.dev/v1alpha1", "FineTuneJob")
    environment = celpy.Environment()
    variables = {key: celpy.adapter.json_to_cel(value) for key, value in job.items()}
    for key, status in {"inProgress": "InProgress", "failed": "Failed", "current": "Current"}.items():
        if environment.program(environment.compile(check[key])).evaluate(variables):
            return status
    return "InProgress"


@pytest.mark.parametrize("name", JOBS)
def test_flux(name: str) -> None:
    job, _, expected = JOBS[name]
    assert flux_status(job) == expected
