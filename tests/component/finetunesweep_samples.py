"""FineTuneSweeps that are accepted and, together, use every field but those of the trials' own spec."""

from __future__ import annotations

from tests.component import crd_samples
from tests.component.crd_samples import DIGEST, TIME, Body, change


def finetunesweep(spec: Body, **metadata: object) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneSweep",
        "metadata": {"name": "sample", **metadata},
        "spec": spec,
    }


_TRIAL: Body = change(crd_samples.MINIMAL, {"spec.dataset.validation": {"fraction": 0.1}})["spec"]
MINIMAL = finetunesweep({"template": {"spec": _TRIAL}, "parameters": [{"name": "lora.rank", "values": [8, 16]}]})
_HELD_OUT: Body = {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}
_QUESTIONS: Body = {"name": "heldout", "type": "Perplexity", "dataset": {"uri": "s3://data/questions/"}}
OBJECTIVE: Body = {
    "evaluation": {
        "tasks": [_HELD_OUT],
        "metric": "heldout/perplexity",
        "datasetSecretName": "object-storage",
        "batchSize": 8,
    }
}
FINAL: Body = {
    "topTrials": 2,
    "evaluation": {
        "tasks": [_QUESTIONS],
        "metric": "heldout/perplexity",
        "datasetSecretName": "object-storage",
        "batchSize": 8,
        "baseline": {"baseModel": True},
        "thresholds": [{"metric": "heldout/perplexity", "maximum": 9, "confidence": 0.95}],
    },
    "direction": "Minimize",
    "metadata": {"labels": {"app": "guide"}, "annotations": {"owner": "a"}},
}
FULL = finetunesweep(
    {
        "template": {
            "metadata": {"labels": {"team": "a"}, "annotations": {"owner": "a"}},
            "spec": {**_TRIAL, "training": {"evaluateEverySteps": 1}},  # so rungs may be anywhere
        },
        "parameters": [
            {
                "name": "training.learningRate",
                "range": {"minimum": 0.00001, "maximum": 0.001, "scale": "Log"},
            },
            {"name": "baseModel", "values": [{"uri": "s3://models/a"}]},
        ],
        "algorithm": {"type": "Random", "seed": 1},
        "objective": {"direction": "Maximize"},
        "final": FINAL,
        "maxTrials": 5,
        "parallelTrials": 2,
        "budget": {"acceleratorSeconds": 3600},
        "pruning": {"type": "SuccessiveHalving", "reductionFactor": 4, "minimumSteps": 100},
        "activeDeadlineSeconds": 86400,
        "stopAfterTrialsWithoutImprovement": 3,
        "retainTrials": "Best",
        "suspend": True,
        "ttlSecondsAfterFinished": 60,
    }
)
VARIANTS: dict[str, Body] = {
    "validation": FULL,
    "folds": change(FULL, {"spec.folds": 5, "spec.template.spec.dataset.validation": ...}),
    "metric": change(FULL, {"spec.pruning": ..., "spec.objective": {"metric": "validationLoss"}}),
    "judged": change(
        FULL,
        {"spec.pruning": ..., "spec.objective": OBJECTIVE, "spec.template.spec.dataset.test": {"fraction": 0.1}},
    ),
    "values": change(FULL, {"spec.parameters": [{"name": "lora.rank", "values": [8, 16]}]}),
}
STATUS: Body = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Succeeded",
            "status": "Unknown",
            "observedGeneration": 1,
            "lastTransitionTime": TIME,
            "reason": "Searching",
            "message": "a",
        }
    ],
    "startTime": TIME,
    "completionTime": TIME,
    "maxTrials": 5,
    "searchDigest": DIGEST,
    "metric": "validationLoss",
    "validationDigest": DIGEST,
    "final": [
        {
            "id": "01234567",
            "fineTuneJobName": "sample-01234567",
            "evaluationName": "sample-01234567-end",
            "state": "Passed",
            "reason": "Passed",
            "value": 7.5,
            "low": 7.1,
            "high": 7.9,
            "acceleratorSeconds": 60,
        }
    ],
    "exhausted": True,
    "best": {
        "id": "01234567",
        "fineTuneJobName": "sample-01234567",
        "parameters": {"baseModel": {"uri": "s3://models/a"}},
        "value": 1.5,
        "standardError": 0.1,
        "artifact": {"uri": "s3://adapters/out/adapters/a", "digest": DIGEST},
    },
    "importance": {"baseModel": 0.1},
    "reportURI": "s3://adapters/out/sweeps/sample-01234567/sweep.html",
    "reportRequest": "true",
    "acceleratorSeconds": 60,
    "trials": [
        {
            "id": "01234567",
            "point": [0.001, 1],
            "state": "Complete",
            "value": 1.5,
            "standardError": 0.1,
            "reason": "OutOfMemory",
            "acceleratorSeconds": 60,
            "rungValues": [1.75, 1.5],
        }
    ],
    "savedAcceleratorSeconds": 120,
    "sharedAcceleratorSeconds": 60,
    "summary": {"trials": "1/0/5", "best": "1.5"},
}
