"""A FineTuneSweep with real pods: trials in two folds, two at a time, with rows that are prepared once."""

from __future__ import annotations

from trimtab_operator.domain.views import SWEEP_LABEL

from deploy.demo.api import Body
from tests.e2e.tenants import ON_A_NODE, Tenant, reason_of

pytestmark = ON_A_NODE

RATES = [0.01, 0.000001]


def sweep(tenant: Tenant, name: str) -> Body:
    spec = tenant.job(name, steps=6)["spec"]
    del spec["dataset"]["validation"]
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneSweep",
        "metadata": {"name": name, "namespace": tenant.namespace},
        "spec": {
            "template": {"spec": spec},
            "parameters": [{"name": "training.learningRate", "values": RATES}],
            "algorithm": {"type": "Grid"},
            "folds": 2,
            "parallelTrials": 2,
        },
    }


def test_a_sweep_finds_the_settings_that_learn(tenant: Tenant) -> None:
    sweeps = tenant.of("FineTuneSweep")
    tenant.apply(sweep(tenant, "rates"))
    body = sweeps.wait_end("rates")
    assert reason_of(body) == "Completed", sweeps.story("rates")
    status = body["status"]
    best = status["best"]
    assert best["parameters"] == {"training.learningRate": RATES[0]}, "the other one learns nothing in six steps"
    learned, stayed = sorted(trial["value"] for trial in status["trials"])
    assert best["value"] == learned < stayed
    assert all(trial["standardError"] >= 0 for trial in status["trials"])

    jobs = tenant.installation.api.objects("FineTuneJob", tenant.namespace, f"{SWEEP_LABEL}=rates")
    folds = [f"rates-{trial['id']}-f{fold}" for trial in status["trials"] for fold in (0, 1)]
    assert sorted(job["metadata"]["name"] for job in jobs) == sorted([*folds, best["fineTuneJobName"]])
    assert best["fineTuneJobName"] == f"rates-{best['id']}", "trained on all rows, after the search"
    assert best["artifact"]["digest"].startswith("sha256:")
    assert len({job["status"]["dataset"]["rowsDigest"] for job in jobs}) == 1
    views = {job["status"]["dataset"]["digest"] for job in jobs}
    assert len(views) == 3, "one for each fold, not for each trial, and one of all rows"
    said = {job["status"]["dataset"].get("validationDigest") for job in jobs if job["metadata"]["name"] in folds}
    assert len(said) == 2, "the folds hold out the same rows in every trial"
    assert status["acceleratorSeconds"] == sum(job["status"]["acceleratorSeconds"] for job in jobs)

    reported = next(each for each in status["conditions"] if each["type"] == "Reported")
    assert (reported["status"], reported["reason"]) == ("True", "Written"), reported["message"]
    assert status["reportURI"].endswith("/sweep.html")

    heading, line = tenant.kubectl("get", "fts", "rates").strip().splitlines()
    assert heading.split() == ["NAME", "STATE", "TRIALS", "BEST", "METRIC", "AGE"]
    assert line.split()[1:3] == ["Completed", "2/0/20"]
