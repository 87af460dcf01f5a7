"""AdapterExports that are accepted and, together, use every field, and the cases of their CEL rules."""

from __future__ import annotations

from typing import Any

from trimtab_trainer.contract.exporting import WRONG_DESTINATION

from tests.component.crd_samples import DIGEST, STATUS, TEMPLATE, TIME, Body, change
from tests.component.rule_cases import CHANGES_OF_NO_RESULT, SHARED, Case, Rule, asks, immutable


def adapterexport(spec: Body, **metadata: Any) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "AdapterExport",
        "metadata": {"name": "sample", **metadata},
        "spec": spec,
    }


ARTIFACT = {"uri": "s3://adapters/out/adapters/0", "digest": DIGEST, "secretName": "object-storage"}
BASE_MODEL = {"uri": "s3://models/base", "digest": DIGEST, "secretName": "object-storage"}
DESTINATION = {"uri": "s3://models/guide", "secretName": "object-storage"}
OF_ONE_JOB = {
    **{
        key: value
        for key, value in TEMPLATE.items()
        if key not in ("prepareImage", "prepareResources", "resourceClaims")
    },
    "resources": {"limits": {"cpu": 4, "memory": "32Gi", "ephemeral-storage": "90Gi"}},
}


MINIMAL = adapterexport({"source": {"fineTuneJobName": "sample"}, "destination": {"uri": "s3://models/guide"}})
FULL = adapterexport(
    {
        "source": {"artifact": ARTIFACT},
        "baseModel": BASE_MODEL,
        "format": "Merged",
        "weightType": "Float32",
        "quantization": {"type": "NF4", "doubleQuantization": False, "computeType": "Float32"},
        "destination": DESTINATION,
        "retries": {"onFailure": 0, "onDisruption": 1},
        "suspend": True,
        "activeDeadlineSeconds": 3600,
        "ttlSecondsAfterFinished": 60,
        "template": OF_ONE_JOB,
    }
)
VARIANTS: dict[str, Body] = {
    "artifact": FULL,
    "job": change(
        FULL,
        {
            "spec.source": {"fineTuneJobName": "sample"},
            "spec.baseModel": ...,
            "spec.template.resources": {"requests": {"cpu": "500m", "memory": "2Gi", "ephemeral-storage": "9Gi"}},
        },
    ),
    "evaluation": change(FULL, {"spec.source": {"evaluationName": "sample"}, "spec.baseModel": ...}),
}
EXPORT_STATUS: Body = {
    "observedGeneration": 1,
    "conditions": [{**STATUS["conditions"][0], "status": "True", "reason": "Completed"}],
    "startTime": TIME,
    "completionTime": TIME,
    "progress": {"filesDone": 1, "files": 2, "percent": 50},
    "resolved": {"adapter": ARTIFACT, "baseModel": BASE_MODEL},
    "artifact": {
        "uri": "s3://models/guide/exports/0",
        "digest": DIGEST,
        "sizeBytes": 271_000_000,
        "files": 6,
        "adapterDigest": DIGEST,
        "baseModelDigest": DIGEST,
    },
    "images": {"export": "example.com/trainer:1"},
    "mirrored": STATUS["mirrored"],
    "failures": 0,
    "disruptions": 0,
    "activeSeconds": 1,
    "acceleratorSeconds": 1,
    "lostAcceleratorSeconds": 1,
    "attempts": [{**STATUS["attempts"][0], "stage": "export", "jobName": "sample-export-0"}],
    "summary": {"progress": "50%", "size": "271 MB"},
}

_OTHER = {**ARTIFACT, "uri": "s3://adapters/out/adapters/1"}
_OF_DEVICES = ("spec.template.resources", "spec.template.prepareResources", "spec.template.resourceClaims")


def _shared() -> dict[Rule, Case]:
    """Return the cases of names and pod templates, but for those of fields that one Job does not have."""
    claims = ("resourceClaims", "prepareResources")
    return {
        rule: case
        for rule, case in SHARED.items()
        if not rule[0].startswith(_OF_DEVICES) and not any(each in rule[1] for each in claims)
    }


ADAPTEREXPORT_CASES: dict[Rule, Case] = {
    **_shared(),
    ("spec.template.resources", "a request must not be above the limit"): Case(
        refused=[
            asks("resources", requests={name: 2}, limits={name: "1500m"})
            for name in ("cpu", "memory", "ephemeral-storage")
        ],
        passed=[
            asks("resources", requests={"cpu": 1, "memory": "1Gi"}, limits={"cpu": "1500m"}),
            asks("resources", requests={"ephemeral-storage": "1Gi"}, limits={"ephemeral-storage": "1Gi"}),
        ],
    ),
    ("spec", WRONG_DESTINATION): Case(
        refused=[{"spec.format": "OCI"}, {"spec.destination.uri": "oci://registry.example/models/guide:1"}],
        passed=[
            {"spec.format": "OCI", "spec.destination.uri": "oci://registry.example:5000/models/guide:1"},
            {"spec.format": "GGUF", "spec.destination.uri": "file:///data/models"},
        ],
    ),
    ("spec.source", "exactly one of fineTuneJobName, evaluationName and artifact must be set"): Case(
        refused=[
            {"spec.source": {}},
            {"spec.source": {"fineTuneJobName": "a", "evaluationName": "b"}},
            {"spec.source": {"fineTuneJobName": "a", "artifact": ARTIFACT}, "spec.baseModel": BASE_MODEL},
        ],
        passed=[
            {"spec.source": {"fineTuneJobName": "sample"}},
            {"spec.source": {"evaluationName": "a"}, "metadata.name": "another"},
        ],
    ),
    (
        "spec",
        "baseModel is needed with source.artifact, and taken from the FineTuneJob or Evaluation otherwise",
    ): Case(
        refused=[{"spec.source": {"artifact": ARTIFACT}}, {"spec.baseModel": BASE_MODEL}],
        passed=[{"spec.source": {"artifact": ARTIFACT}, "spec.baseModel": BASE_MODEL}],
    ),
    **immutable(
        "AdapterExport",
        {
            "source": Case(
                given=FULL,
                refused=[{"spec.source.artifact": _OTHER}],
                passed=[{"spec.source.artifact.secretName": "other"}],
            ),
            "baseModel": Case(
                given=FULL,
                refused=[{"spec.baseModel.uri": "s3://models/other"}, {"spec.baseModel.digest": ...}],
                passed=[{"spec.baseModel.secretName": ...}],
            ),
            "format": Case(given=FULL, refused=[{"spec.format": "GGUF"}], passed=[]),
            "weightType": Case(given=FULL, refused=[{"spec.weightType": "BFloat16"}], passed=[]),
            "quantization": Case(
                given=FULL,
                refused=[{"spec.quantization.type": "None"}, {"spec.quantization": ...}],
                passed=[],
            ),
            "destination": Case(
                given=FULL,
                refused=[{"spec.destination.uri": "s3://models/other"}],
                passed=[{"spec.destination.secretName": "other"}],
            ),
        },
        {"source": "secretName", "baseModel": "secretName", "destination": "secretName"},
        CHANGES_OF_NO_RESULT,
    ),
}
