"""A whole search with real training: folds, pruning, a final against the settings that nobody chose, and two deaths.

`make test-sweep`. It prints what the search came to, the last line as JSON.
"""

from __future__ import annotations

import json

from trimtab_operator.domain.views import SWEEP_LABEL

from deploy.demo.api import Body
from deploy.demo.installation import SYSTEM
from tests.e2e.tenants import ON_A_NODE, Tenant, condition, reason_of, succeeded

pytestmark = ON_A_NODE

STEPS, RUNG, TRIALS = 90, 30, 8
HELD_OUT = {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}
NOT_WORSE = {"metric": "heldout/perplexity", "maximumRelativeRegression": 0.0, "confidence": 0.95}


def template(tenant: Tenant, name: str) -> Body:
    """Return the spec of a FineTuneJob with the settings that it has by default."""
    spec: Body = tenant.job(name, steps=STEPS)["spec"]
    del spec["dataset"]["validation"]
    spec["dataset"]["test"] = {"fraction": 0.2}
    spec["training"]["evaluateEverySteps"] = RUNG
    spec["output"]["uri"] = f"s3://adapters/{tenant.namespace}"
    return spec


def sweep(tenant: Tenant, default: Body) -> Body:
    artifact = {key: default["status"]["artifact"][key] for key in ("uri", "digest")}
    baseline = {"artifact": {**artifact, "secretName": "object-storage"}}
    evaluation = {"tasks": [HELD_OUT], "metric": "heldout/perplexity", "baseline": baseline, "thresholds": [NOT_WORSE]}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneSweep",
        "metadata": {"name": "search", "namespace": tenant.namespace},
        "spec": {
            "template": {"spec": template(tenant, "search")},
            "parameters": [
                {"name": "training.learningRate", "range": {"minimum": 0.00001, "maximum": 0.03, "scale": "Log"}},
                {"name": "lora.rank", "values": [4, 8, 16]},
            ],
            "algorithm": {"type": "TPE", "seed": 7},
            "folds": 2,
            "maxTrials": TRIALS,
            "parallelTrials": 2,
            "pruning": {"type": "SuccessiveHalving", "reductionFactor": 2, "minimumSteps": RUNG},
            "final": {"topTrials": 2, "evaluation": evaluation},
        },
    }


def test_the_best_of_a_search_beats_the_settings_that_nobody_chose(tenant: Tenant) -> None:
    job = tenant.job("default")
    tenant.apply({**job, "spec": template(tenant, "default")})
    default = tenant.wait_reason("default", "Completed")

    sweeps = tenant.of("FineTuneSweep")
    tenant.apply(sweep(tenant, default))
    first = sweeps.wait("search", "two trials", lambda body: len(body.get("status", {}).get("trials", [])) >= 2)
    trial = f"search-{first['status']['trials'][0]['id']}-f0"
    tenant.kill(tenant.running_pod(trial))
    sweeps.wait("search", "four trials", lambda body: len(body["status"]["trials"]) >= 4)
    tenant.installation.kubectl("-n", SYSTEM, "delete", "pod", "-l", "app.kubernetes.io/name=trimtab")
    body = sweeps.wait_end("search")
    assert (succeeded(body), reason_of(body)) == ("True", "Completed"), sweeps.story("search")

    status = body["status"]
    assert len(status["trials"]) == TRIALS
    states = [each["state"] for each in status["trials"]]
    assert set(states) <= {"Complete", "Pruned"}
    assert "Pruned" in states
    jobs = tenant.installation.api.objects("FineTuneJob", tenant.namespace, f"{SWEEP_LABEL}=search")
    assert len({each["metadata"]["name"] for each in jobs}) == len(jobs)
    rows = {each["status"]["dataset"]["rowsDigest"] for each in [*jobs, default] if "dataset" in each["status"]}
    assert len(rows) == 1, "prepared once, for the settings by default too"

    evaluation = tenant.of("Evaluation").get("search")
    assert condition(evaluation, "Passed")["status"] == "True", "surely not worse than the settings by default"
    (figure,) = evaluation["status"]["results"][:1]
    assert figure["high"] < figure["baseline"]
    best = status["best"]
    assert evaluation["spec"]["target"]["fineTuneJobName"] == best["fineTuneJobName"]
    told = {
        "trials": len(states),
        "pruned": states.count("Pruned"),
        "accelerator_seconds": status["acceleratorSeconds"],
        "saved_accelerator_seconds": status["savedAcceleratorSeconds"],
        "best": best["parameters"],
        "perplexity": {key: figure[key] for key in ("value", "low", "high", "baseline")},
        "page": status.get("reportURI"),
    }
    print(json.dumps(told))
