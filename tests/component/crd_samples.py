"""FineTuneJobs that are accepted and, together, use every field; and the tools to change one place in an object."""

from __future__ import annotations

import copy
import re
from typing import Any

Body = dict[str, Any]
DIGEST = "sha256:" + "0" * 64
TIME = "2026-11-23T03:34:01Z"


def finetunejob(spec: Body, **metadata: Any) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "sample", **metadata},
        "spec": spec,
    }


MINIMAL = finetunejob(
    {
        "baseModel": {"uri": "s3://models/base"},
        "dataset": {"training": {"uri": "s3://datasets/rows/"}},
        "output": {"uri": "s3://adapters/out"},
    }
)

_LABEL_SELECTOR = {
    "matchLabels": {"app": "web"},
    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}],
}
_NODE_TERM = {
    "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}],
    "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}],
}
_POD_TERM = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": _LABEL_SELECTOR,
    "namespaces": ["other"],
    "namespaceSelector": _LABEL_SELECTOR,
    "matchLabelKeys": ["team"],
    "mismatchLabelKeys": ["tenant"],
}
_POD_AFFINITY = {
    "requiredDuringSchedulingIgnoredDuringExecution": [_POD_TERM],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": _POD_TERM}],
}
_ITEMS = [{"key": "a", "path": "a", "mode": 256}]

TEMPLATE: Body = {
    "image": "example.com/trainer:1",
    "prepareImage": "example.com/prepare:1",
    "imagePullSecrets": [{"name": "registry"}],
    "resources": {
        "limits": {"memory": "16Gi", "nvidia.com/gpu": 1},
        "requests": {"cpu": "2"},
        "claims": [{"name": "card", "request": "nic"}],
    },
    "prepareResources": {
        "limits": {"memory": "2Gi"},
        "requests": {"cpu": 1},
        "claims": [{"name": "mine", "request": "a"}],
    },
    "resourceClaims": [
        {"name": "card", "resourceClaimTemplateName": "nic", "accelerators": 0},
        {"name": "mine", "resourceClaimName": "a"},
    ],
    "terminationGracePeriodSeconds": 60,
    "nodeSelector": {"accelerator": "large"},
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODE_TERM]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": _NODE_TERM}],
        },
        "podAffinity": _POD_AFFINITY,
        "podAntiAffinity": _POD_AFFINITY,
    },
    "tolerations": [
        {
            "key": "gpu",
            "operator": "Equal",
            "value": "yes",
            "effect": "NoExecute",
            "tolerationSeconds": 60,
        }
    ],
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": _LABEL_SELECTOR,
            "minDomains": 1,
            "nodeAffinityPolicy": "Honor",
            "nodeTaintsPolicy": "Ignore",
            "matchLabelKeys": ["team"],
        }
    ],
    "priorityClassName": "low",
    "schedulerName": "mine",
    "runtimeClassName": "nvidia",
    "serviceAccountName": "trainer",
    "volumes": [
        {"name": "claim", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        {
            "name": "config",
            "configMap": {"name": "settings", "items": _ITEMS, "defaultMode": 256, "optional": True},
        },
        {
            "name": "secret",
            "secret": {"secretName": "hub", "items": _ITEMS, "defaultMode": 256, "optional": True},
        },
        {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "artifact", "image": {"reference": "example.com/model:1", "pullPolicy": "Always"}},
    ],
    "volumeMounts": [{"name": "claim", "mountPath": "/models", "readOnly": True, "subPath": "a"}],
    "labels": {"team": "a"},
    "annotations": {"owner": "a"},
    "env": [
        {"name": "PLAIN", "value": "a"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token", "optional": True}}},
        {"name": "HOME", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "home", "optional": True}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ],
}
"""A pod template with every field."""

FULL = finetunejob(
    {
        "nodes": 1,
        "baseModel": {"uri": "s3://models/base", "digest": DIGEST, "secretName": "object-storage"},
        "dataset": {
            "format": "Messages",
            "training": {"uri": "s3://datasets/rows/"},
            "validation": {"fraction": 0.1},
            "test": {"fraction": 0.1},
            "splitSeed": 1,
            "ignoreKeys": ["weight"],
            "chatTemplate": "s3://datasets/template.jinja",
            "groupBy": "document",
            "stratifyBy": "label",
            "cleaning": {
                "exactDuplicates": "Keep",
                "nearDuplicates": "KeepTogether",
                "similarity": 0.9,
                "blankTurns": "Keep",
                "invalidText": "Refuse",
                "tooLong": "Truncate",
                "overlap": "Keep",
                "evaluationData": ["s3://datasets/questions/"],
                "warnDropped": 0.1,
                "maximumDropped": 0.5,
            },
            "balance": {"column": "source", "by": "Weight", "maximum": 4},
            "audit": {"columns": ["source"], "minimumShare": 0.05},
            "secretName": "object-storage",
        },
        "output": {"uri": "s3://adapters/out", "secretName": "object-storage"},
        "lora": {
            "type": "LoRA",
            "rank": 8,
            "alpha": 16,
            "dropout": 0,
            "targetModules": ["q_proj", "v_proj"],
            "targetParameters": ["experts.down_proj"],
            "useRslora": True,
            "useDora": False,
            "initialAdapter": {"uri": "s3://adapters/out/adapters/0", "digest": DIGEST},
        },
        "quantization": {"type": "NF4", "doubleQuantization": False, "computeType": "Float32"},
        "training": {
            "epochs": 2,
            "batchSize": 8,
            "microBatchSize": 1,
            "learningRate": 1e-4,
            "schedule": "Linear",
            "warmupRatio": 0.1,
            "optimizer": "SGD",
            "weightDecay": 0.01,
            "maxGradientNorm": 0.5,
            "maxSequenceLength": 512,
            "packing": False,
            "lossOn": "AllTokens",
            "seed": 1,
            "evaluateEverySteps": 10,
            "earlyStopping": {"patience": 2, "minimumImprovement": 0.01},
        },
        "checkpoint": {"everySteps": 10, "keep": 1},
        "retries": {"onFailure": 0, "onDisruption": 1},
        "suspend": True,
        "activeDeadlineSeconds": 3600,
        "ttlSecondsAfterFinished": 60,
        "tracking": {
            "mlflow": {"uri": "https://mlflow.example/a", "experiment": "a", "secretName": "tracker"},
            "everySeconds": 300,
        },
        "template": TEMPLATE,
    }
)


def change(body: Body, changes: dict[str, Any]) -> Body:
    """Return a copy with values at dotted paths (`spec.volumes[0].name`); a value of `...` removes the field."""
    copied = copy.deepcopy(body)
    for path, value in changes.items():
        *parents, last = _steps(path)
        node: Any = copied
        for step in parents:
            node = node[step] if isinstance(step, int) else node.setdefault(step, {})
        if value is ...:
            node.pop(last, None)
        else:
            node[last] = value
    return copied


def find(body: Any, path: str) -> Any:
    """Return the value at a dotted path.

    Raises:
        LookupError: there is none.
    """
    for step in _steps(path):
        body = body[step]
    return body


def _steps(path: str) -> list[Any]:
    return [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path)]


OF_ANSWERS: Body = {"spec.training.lossOn": "Completions", "spec.dataset.cleaning.tooLong": "Drop"}
"""What preferences can be learned with."""
TRACKIO: Body = {"uri": "https://trackio.example/a", "project": "a", "secretName": "tracker"}
VARIANTS = [
    FULL,
    change(
        FULL,
        {
            "spec.dataset.validation": {"uri": "s3://datasets/validation/"},
            "spec.dataset.test": {"uri": "s3://d-t/t/"},
            "spec.tracking": {"trackio": TRACKIO},
        },
    ),
    change(
        FULL,
        {
            "spec.dataset.validation": {"folds": 5, "fold": 0},
            "spec.training.epochs": ...,
            "spec.training.maxSteps": 100,
        },
    ),
    change(
        FULL,
        {
            **OF_ANSWERS,
            "spec.dataset.format": "Preference",
            "spec.training.method": "DPO",
            "spec.training.preference": {"beta": 0.2, "loss": "Robust", "labelSmoothing": 0.1},
        },
    ),
    change(
        FULL,
        {
            **OF_ANSWERS,
            "spec.dataset.format": "UnpairedPreference",
            "spec.training.method": "KTO",
            "spec.training.preference": {"beta": 0.2, "desirableWeight": 1.5, "undesirableWeight": 0.5},
        },
    ),
]
"""Together these have every field of the spec."""

STATUS: Body = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Succeeded",
            "status": "Unknown",
            "observedGeneration": 1,
            "lastTransitionTime": TIME,
            "reason": "Training",
            "message": "a",
        }
    ],
    "startTime": TIME,
    "completionTime": TIME,
    "progress": {
        "step": 1,
        "totalSteps": 2,
        "percent": 50,
        "loss": 2.5,
        "validationLoss": 2.5,
        "tokensPerSecond": 1.5,
        "etaSeconds": 1,
        "worldSize": 2,
    },
    "curve": {"steps": [1, 2], "loss": [2.5, 2.4], "validationSteps": [2], "validationLoss": [2.5]},
    "baseModelDigest": DIGEST,
    "runDigest": DIGEST,
    "dataset": {
        "digest": DIGEST,
        "rowsDigest": DIGEST,
        "rows": 1,
        "validationRows": 1,
        "validationDigest": DIGEST,
        "validationBytes": 1,
        "validationSupervisedTokens": 1,
        "testRows": 1,
        "tokens": 1,
        "supervisedTokens": 1,
        "dropped": 1,
        "reportURI": "s3://adapters/out/data/audits/a/data.html",
    },
    "checkpoint": {"step": 1, "time": TIME},
    "artifact": {
        "uri": "s3://adapters/out/adapters/a",
        "digest": DIGEST,
        "rank": 1,
        "targetModules": ["q_proj"],
        "baseModelDigest": DIGEST,
        "testLoss": 2.5,
        "baseTestLoss": 2.5,
        "reportURI": "s3://adapters/out/adapters/a/report.html",
    },
    "images": {"train": "example.com/trainer:1"},
    "mirrored": [
        {"uri": "hf://org/model@main", "commit": "0" * 40, "digest": DIGEST, "license": "apache-2.0"},
    ],
    "failures": 0,
    "disruptions": 0,
    "activeSeconds": 1,
    "acceleratorSeconds": 1,
    "lostAcceleratorSeconds": 1,
    "attempts": [
        {
            "number": 0,
            "stage": "prepare",
            "jobName": "sample-prepare-0",
            "jobUID": "a",
            "reason": "Interrupted",
            "message": "a",
            "chargedTo": "failures",
            "startTime": TIME,
            "firstStartTime": TIME,
            "endTime": TIME,
            "activeSeconds": 1,
            "retryAfterSeconds": 300,
            "accelerators": 1,
            "startStep": 0,
            "endStep": 1,
        }
    ],
    "summary": {"progress": "50%", "loss": "2.500", "step": "1/2", "adapter": "000000000000"},
}
