"""Cases of CEL rules: what all kinds share, and those of FineTuneJobs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from trimtab_operator.api.finetunejob import NAME_LENGTH, OWN_CLAIMS
from trimtab_operator.api.tracking import ONE_TRACKER
from trimtab_trainer.contract.methods import (
    ANSWERS_ONLY,
    NO_CUTTING,
    NO_PREFERENCE,
    NOTHING_COUNTS,
    ONLY_DPO,
    ONLY_KTO,
    ONLY_ROBUST,
    WRONG_FORMAT,
)
from trimtab_trainer.contract.settings import (
    NO_ADAPTER,
    NO_DORA,
    NO_DROPOUT,
    NO_MODULES_TO_SAVE,
    NOT_QUANTIZED,
    ONLY_SFT,
)

from tests.component.crd_samples import DIGEST, FULL, Body

Rule = tuple[str, str]
"""Path and message of a rule."""


@dataclass(frozen=True)
class Case:
    """Changes to an object, by default the smallest: each of `refused` breaks the rule, each of `passed` does not."""

    refused: list[Body]
    passed: list[Body]
    given: Body | None = None


FULL_MODEL: Body = {"spec.lora.type": "None", "spec.quantization.type": "None"}
"""No adapter: all weights are trained."""
VOLUMES = "spec.template.volumes"
MOUNTS = "spec.template.volumeMounts"
ENV = "spec.template.env"


def volume(**source: Any) -> Body:
    return {VOLUMES: [{"name": "data", **source}]}


def mount(path: str) -> Body:
    return {**volume(emptyDir={}), MOUNTS: [{"name": "data", "mountPath": path}]}


def variable(**value: Any) -> Body:
    return {ENV: [{"name": "A", **value}]}


def keys(kind: str, *names: str) -> list[Body]:
    return [{f"spec.template.{kind}": {name: "a"}} for name in names]


BOTH = ("resources", "prepareResources")
"""Of the container of either stage."""


def asks(resources: str, **values: Any) -> Body:
    return {f"spec.template.{resources}": values}


def claims(*names: str, resources: str = "resources", **used: str) -> Body:
    """Return a template with these resourceClaims, and a container that uses those of `used`."""
    return {
        "spec.template.resourceClaims": [{"name": name, "resourceClaimName": "a"} for name in names],
        **asks(resources, claims=[{"name": name} for name in used.values()]),
    }


GPUS = ("nvidia.com/gpu", "amd.com/gpu")
SLICES = ("nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb")
ONE_GPU = "only training uses several GPUs, and more than one would be held for nothing: ask for 1"
ONE_SLICE = "slices of GPUs cannot train together, and more than one would be held for nothing: ask for 1, or for GPUs"
ONE_EACH: list[Body] = [
    {"nvidia.com/gpu": 1, "amd.com/gpu": "0"},
    {"nvidia.com/mig-1g.10gb": 1},
    {"nvidia.com/gpumem": 8000, "nvidiaxcom.io/gpu": 2, "rdma.example.com/hca": 2},
]

RESOURCE_CASES: dict[Rule, Case] = {
    **{
        (
            f"spec.template.{resources}.{side}",
            "a resource must be cpu, memory, ephemeral-storage, hugepages-<size>, or a name with a domain as in "
            "nvidia.com/gpu",
        ): Case(
            refused=[
                asks(resources, **{side: {name: 1}})
                for name in ("gpu", "CPU", "nvidia.com/", "/gpu", "nvidia.com/gpu/a", "a b", "requests.nvidia.com/gpu")
            ],
            passed=[
                asks(resources, **{side: {name: 1}})
                for name in ("cpu", "memory", "ephemeral-storage", "hugepages-1Gi", "nvidia.com/gpu", "a/B_c.d-e")
            ],
        )
        for resources in BOTH
        for side in ("limits", "requests")
    },
    **{
        (
            f"spec.template.{resources}.{side}",
            "nvidia.com/gpu and the like are counted in whole numbers",
        ): Case(
            refused=[asks(resources, **{side: {"example.com/gpu": each}}) for each in ("500m", "1.5", "0.1")],
            passed=[asks(resources, **{side: {"example.com/gpu": each}}) for each in (1, "1", "1k", 0, "2e3")]
            + [asks(resources, **{side: {"cpu": "500m", "memory": "1.5Gi"}})],
        )
        for resources in BOTH
        for side in ("limits", "requests")
    },
    **{
        (
            f"spec.template.{resources}",
            "nvidia.com/gpu and the like, and hugepages, must be equal in limits and requests, or stand in one of them",
        ): Case(
            refused=[
                asks(resources, requests={"nvidia.com/gpu": 0}, limits={"nvidia.com/gpu": 1}),
                asks(resources, requests={"example.com/gpu": "1"}, limits={"example.com/gpu": "1k"}),
                asks(resources, requests={"hugepages-2Mi": "64Mi"}, limits={"hugepages-2Mi": "128Mi"}),
            ],
            passed=[
                asks(resources, requests={"nvidia.com/gpu": 1}, limits={"nvidia.com/gpu": "1"}),
                asks(resources, requests={"example.com/gpu": 1000}, limits={"example.com/gpu": "1k"}),
                asks(resources, requests={"nvidia.com/gpu": 1}, limits={"memory": "1Gi"}),
                asks(resources, requests={"cpu": 1}, limits={"nvidia.com/gpu": 1}),
                asks(resources, requests={"nvidia.com/gpu": 1}),
                asks(resources, limits={"nvidia.com/gpu": 1}),
                asks(resources, requests={"cpu": 1, "memory": "1Gi"}, limits={"cpu": 2, "memory": "2Gi"}),
            ],
        )
        for resources in BOTH
    },
    **{
        (f"spec.template.prepareResources.{side}", ONE_GPU): Case(
            refused=[
                asks("prepareResources", **{side: {name: count}}) for name in (*GPUS, *SLICES) for count in (2, "1k")
            ],
            passed=[asks("prepareResources", **{side: each}) for each in ONE_EACH],
        )
        for side in ("limits", "requests")
    },
    **{
        (f"spec.template.resources.{side}", ONE_SLICE): Case(
            refused=[asks("resources", **{side: {name: count}}) for name in SLICES for count in (2, "1k")],
            passed=[asks("resources", **{side: each}) for each in ONE_EACH],
        )
        for side in ("limits", "requests")
    },
    **{
        (f"spec.template.{resources}", "a request must not be above the limit"): Case(
            refused=[
                asks(resources, requests={"memory": "2Gi"}, limits={"memory": "2G"}),
                asks(resources, requests={"cpu": 2}, limits={"cpu": "1500m"}),
            ],
            passed=[
                asks(resources, requests={"memory": "2G", "cpu": 1}, limits={"memory": "2Gi", "cpu": "1000m"}),
                asks(resources, requests={"memory": "2G"}, limits={"cpu": 1}),
            ],
        )
        for resources in BOTH
    },
    **{
        (
            "spec.template",
            f"every name in the claims of {resources} must be the name of one of the resourceClaims",
        ): Case(
            refused=[
                asks(resources, claims=[{"name": "gpu"}]),
                {**claims("a", resources=resources, other="b"), "spec.template.resourceClaims[0].name": "a"},
            ],
            passed=[claims("a", "b", resources=resources, one="b", other="a"), {}],
        )
        for resources in BOTH
    },
    (
        "spec.template",
        "every one of the resourceClaims must be in the claims of resources or prepareResources: no pod gets it "
        "otherwise",
    ): Case(
        refused=[claims("a"), claims("a", "b", one="b"), {**claims("a"), "spec.template.resources": ...}],
        passed=[claims("a", one="a"), claims("a", resources="prepareResources", one="a")],
    ),
    (
        "spec.template.resourceClaims[]",
        "exactly one of resourceClaimName and resourceClaimTemplateName must be set",
    ): Case(
        refused=[
            {**claims("a", one="a"), "spec.template.resourceClaims": [{"name": "a", **source}]}
            for source in ({}, {"resourceClaimName": "a", "resourceClaimTemplateName": "a"})
        ],
        passed=[
            {**claims("a", one="a"), "spec.template.resourceClaims": [{"name": "a", source: "a"}]}
            for source in ("resourceClaimName", "resourceClaimTemplateName")
        ],
    ),
}
"""Rules of resources and claims: what the API server would say of the Job, said of the object itself."""

RESERVED_KEYS = (
    *("trimtab.dev/a", "a.trimtab.dev/a", "kubernetes.io/a", "batch.kubernetes.io/a", "k8s.io/a", "a.k8s.io/a"),
    *("container.apparmor.security.beta.kubernetes.io/trainer", "pod-security.kubernetes.io/enforce"),
    *("app.kubernetes.io/managed-by", "job-name", "controller-uid", "batch.kubernetes.io/job-name"),
)
FREE_KEYS = (
    *("team", "example.com/team", "mykubernetes.io/a", "karpenter.sh/do-not-disrupt", "trimtab.dev"),
    *("app.kubernetes.io/name", "app.kubernetes.io/part-of", "cluster-autoscaler.kubernetes.io/safe-to-evict"),
    *("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/podset-required-topology", "provreq.kueue.x-k8s.io/a"),
    *("scheduling.x-k8s.io/pod-group", "x-k8s.io/a"),
)
NO_KEYS = ("a b", "/a", "a/", "a/b/c", "A.com/a", "-a", "a-", "ä", "a" * 64, "example.com/" + "a" * 64)
SECRET_KEY = {"secretKeyRef": {"name": "a", "key": "a"}}
FIELD = {"fieldRef": {"fieldPath": "spec.nodeName"}}
CONFIG_KEY = {"configMapKeyRef": {"name": "a", "key": "a"}}

NAME_RULE: Rule = ("", f"name must have at most {NAME_LENGTH} characters")
SHARED: dict[Rule, Case] = {
    **RESOURCE_CASES,
    NAME_RULE: Case(
        refused=[{"metadata.name": "n" * (NAME_LENGTH + 1)}],
        passed=[{"metadata.name": "n" * NAME_LENGTH}],
    ),
    ("spec.template", "every volumeMounts name must be the name of one of the volumes"): Case(
        refused=[
            {MOUNTS: [{"name": "data", "mountPath": "/data"}]},
            {**volume(emptyDir={}), MOUNTS: [{"name": "date", "mountPath": "/data"}]},
        ],
        passed=[mount("/data"), volume(emptyDir={})],
    ),
    (
        "spec.template.volumes[]",
        "exactly one of persistentVolumeClaim, configMap, secret, emptyDir and image must be set",
    ): Case(
        refused=[volume(), volume(emptyDir={}, configMap={"name": "a"})],
        passed=[
            volume(emptyDir={}),
            volume(persistentVolumeClaim={"claimName": "a"}),
            volume(configMap={"name": "a"}),
            volume(secret={"secretName": "a"}),
            volume(image={"reference": "a"}),
        ],
    ),
    ("spec.template.volumes[]", "names that begin with trimtab- belong to Trimtab's own volumes"): Case(
        refused=[{VOLUMES: [{"name": "trimtab-work", "emptyDir": {}}]}],
        passed=[{VOLUMES: [{"name": "my-trimtab-work", "emptyDir": {}}]}],
    ),
    (
        "spec.template.volumeMounts[]",
        "mountPath must not be in /run/trimtab, /work, /dev, /tmp: Trimtab's own volumes are there",
    ): Case(
        refused=[mount(path) for path in ("/work", "/work/", "/work/a", "/run/trimtab/a", "/dev/shm", "/tmp")],
        passed=[mount(path) for path in ("/data", "/workspace", "/run/other", "/data/work")],
    ),
    ("spec.template.volumeMounts[]", "mountPath must not contain the elements '.' and '..'"): Case(
        refused=[mount(path) for path in ("/data/../work", "/./work", "/data/..", "/..")],
        passed=[mount(path) for path in ("/data.d/..a", "/.cache", "/a/...")],
    ),
    **{
        (f"spec.template.{field}", "a key must have at most 317 characters"): Case(
            refused=keys(field, "k" * 253 + "/" + "k" * 64), passed=keys(field, "k" * 253 + "/" + "k" * 63)
        )
        for field in ("labels", "annotations", "nodeSelector")
    },
    **{
        (f"spec.template.{field}", "a key must be a name, or prefix/name"): Case(
            refused=keys(field, *NO_KEYS), passed=keys(field, "a", "A_b.c-d", "example.com/A_b.c-d", "a" * 63)
        )
        for field in ("labels", "annotations", "nodeSelector")
    },
    **{
        (
            f"spec.template.{field}",
            "keys of trimtab.dev, kubernetes.io and k8s.io are set by Trimtab and Kubernetes, as are job-name and "
            "controller-uid; of app.kubernetes.io and cluster-autoscaler.kubernetes.io all but "
            "app.kubernetes.io/managed-by are free",
        ): Case(refused=keys(field, *RESERVED_KEYS), passed=keys(field, *FREE_KEYS))
        for field in ("labels", "annotations")
    },
    ("spec.template.env[]", "set value or valueFrom, not both"): Case(
        refused=[variable(value="a", valueFrom=SECRET_KEY)],
        passed=[variable(value="a"), variable(valueFrom=SECRET_KEY), variable()],
    ),
    ("spec.template.env[]", "names that begin with TRIMTAB_ belong to Trimtab"): Case(
        refused=[{ENV: [{"name": "TRIMTAB_A"}]}],
        passed=[{ENV: [{"name": "MY_TRIMTAB_A"}]}],
    ),
    (
        "spec.template.env[].valueFrom",
        "exactly one of secretKeyRef, configMapKeyRef and fieldRef must be set",
    ): Case(
        refused=[variable(valueFrom={}), variable(valueFrom={**SECRET_KEY, **FIELD})],
        passed=[variable(valueFrom=source) for source in (SECRET_KEY, CONFIG_KEY, FIELD)],
    ),
}
"""Rules of names and pod templates."""

CHANGES_OF_NO_RESULT: list[Body] = [
    {"metadata.labels": {"team": "b"}},
    {"spec.suspend": False},
    {"spec.retries": {"onFailure": 5, "onDisruption": 5}},
    {"spec.activeDeadlineSeconds": 7200},
    {"spec.activeDeadlineSeconds": ...},
    {"spec.ttlSecondsAfterFinished": 1},
    {"spec.ttlSecondsAfterFinished": ...},
    {"spec.template.image": "example.com/trainer:2"},
    {"spec.template": {"resources": {"limits": {"memory": "32Gi"}}, "labels": {"team": "b"}}},
    {"spec.template": ...},
]
"""Which any object takes at any time."""


def immutable(kind: str, updates: dict[str, Case], free: dict[str, str], passed: list[Body]) -> dict[Rule, Case]:
    """Return the cases of fields that cannot be changed, but for what is free in some; `passed`: changes that can."""
    return {
        (
            "spec",
            f"{name} is immutable{f', but for {free[name]}' if name in free else ''}: it defines the result; "
            f"create another {kind} instead",
        ): Case(given=case.given, refused=case.refused, passed=[*case.passed, *passed])
        for name, case in updates.items()
    }


_UPDATES: dict[str, Case] = {
    "baseModel": Case(
        given=FULL,
        refused=[
            {"spec.baseModel.uri": "s3://models/other"},
            {"spec.baseModel.digest": ...},
            {"spec.baseModel.uri": "s3://models/other", "spec.baseModel.secretName": "other"},
        ],
        passed=[{"spec.baseModel.secretName": "other"}, {"spec.baseModel.secretName": ...}],
    ),
    "dataset": Case(
        refused=[
            {"spec.dataset.training.uri": "s3://datasets/other/"},
            {"spec.dataset.validation": {"fraction": 0.1}},
            {"spec.dataset.test": {"fraction": 0.1}},
            {"spec.dataset.splitSeed": 18},
        ],
        passed=[{"spec.dataset.format": "Auto"}, {"spec.dataset.secretName": "other"}],
    ),
    "output": Case(
        given=FULL,
        refused=[{"spec.output.uri": "s3://adapters/other"}],
        passed=[{"spec.output.secretName": "other"}, {"spec.output.secretName": ...}],
    ),
    "lora": Case(
        given=FULL,
        refused=[
            {"spec.lora.rank": 9},
            {"spec.lora": ...},
            {"spec.lora.targetModules": ["q_proj"]},
            {"spec.lora": {"type": "None"}},
        ],
        passed=[],
    ),
    "quantization": Case(
        given=FULL, refused=[{"spec.quantization.type": "None"}, {"spec.quantization": ...}], passed=[]
    ),
    "training": Case(
        given=FULL,
        refused=[
            {"spec.training.seed": 2},
            {"spec.training": ...},
            {"spec.training.earlyStopping": ...},
            {"spec.training.batchSize": 16},
        ],
        passed=[
            {"spec.training.microBatchSize": ...},
            {"spec.training.microBatchSize": 2},
            {"spec.checkpoint": {"everySteps": 5, "keep": 3}},
            {"spec.checkpoint": ...},
        ],
    ),
}


def _with_several_gpus(side: str) -> dict[Rule, Case]:
    """Return the case of slices once more: whole GPUs train together."""
    rule = (f"spec.template.resources.{side}", ONE_SLICE)
    several = [asks("resources", **{side: {name: count}}) for name in GPUS for count in (2, "8", "1k")]
    return {rule: replace(SHARED[rule], passed=[*SHARED[rule].passed, *several])}


def learns(method: str, **preference: Any) -> Body:
    """Return the changes to a method, and to what shapes its loss."""
    return {"spec.training.method": method, **({"spec.training.preference": preference} if preference else {})}


METHOD_CASES: dict[Rule, Case] = {
    ("spec", WRONG_FORMAT): Case(
        refused=[
            {"spec.dataset.format": "Preference"},
            {"spec.dataset.format": "UnpairedPreference", **learns("DPO")},
            {"spec.dataset.format": "Preference", **learns("KTO")},
            {"spec.dataset.format": "Messages", **learns("ORPO")},
        ],
        passed=[
            {"spec.dataset.format": "Messages"},
            {"spec.dataset.format": "Auto", **learns("KTO")},
            {"spec.dataset.format": "Preference", **learns("DPO")},
            {"spec.dataset.format": "Preference", **learns("ORPO")},
            {"spec.dataset.format": "UnpairedPreference", **learns("KTO")},
        ],
    ),
    ("spec", NO_CUTTING): Case(
        refused=[{"spec.dataset.cleaning": {"tooLong": "Truncate"}, **learns("DPO")}],
        passed=[
            {"spec.dataset.cleaning": {"tooLong": "Truncate"}},
            {"spec.dataset.cleaning": {"tooLong": "Drop"}, **learns("DPO")},
        ],
    ),
    ("spec.training", NO_PREFERENCE): Case(
        refused=[{"spec.training.preference": {"beta": 0.2}}, learns("SFT", beta=0.2)],
        passed=[learns("DPO", beta=0.2), learns("ORPO", beta=0.2), learns("KTO", beta=0.2), learns("DPO")],
    ),
    ("spec.training", ONLY_DPO): Case(
        refused=[learns("KTO", loss="Hinge"), learns("ORPO", loss="IPO")],
        passed=[learns("DPO", loss="Hinge"), learns("KTO", loss="Sigmoid")],
    ),
    ("spec.training", ONLY_KTO): Case(
        refused=[learns("DPO", desirableWeight=2), learns("ORPO", undesirableWeight=0.5)],
        passed=[learns("KTO", desirableWeight=2, undesirableWeight=0.5), learns("DPO", desirableWeight=1)],
    ),
    ("spec.training", ANSWERS_ONLY): Case(
        refused=[{**learns("DPO"), "spec.training.lossOn": "AllTokens"}],
        passed=[{**learns("DPO"), "spec.training.lossOn": "Completions"}, {"spec.training.lossOn": "AllTokens"}],
    ),
    ("spec.training.preference", NOTHING_COUNTS): Case(
        refused=[learns("KTO", desirableWeight=0, undesirableWeight=0)],
        passed=[learns("KTO", desirableWeight=0), learns("KTO", undesirableWeight=0)],
    ),
    ("spec.training.preference", ONLY_ROBUST): Case(
        refused=[learns("DPO", labelSmoothing=0.1), learns("KTO", labelSmoothing=0.1)],
        passed=[learns("DPO", loss="Robust", labelSmoothing=0.1), learns("DPO", labelSmoothing=0)],
    ),
}
MLFLOW: Body = {"mlflow": {"uri": "https://mlflow.example", "experiment": "a"}}
TRACKIO: Body = {"trackio": {"uri": "https://trackio.example", "project": "a"}}
FINETUNEJOB_CASES: dict[Rule, Case] = {
    **SHARED,
    **_with_several_gpus("limits"),
    **_with_several_gpus("requests"),
    **METHOD_CASES,
    ("spec.tracking", ONE_TRACKER): Case(
        refused=[{"spec.tracking": {}}, {"spec.tracking": {"everySeconds": 60}}, {"spec.tracking": MLFLOW | TRACKIO}],
        passed=[{"spec.tracking": MLFLOW}, {"spec.tracking": TRACKIO | {"everySeconds": 60}}],
    ),
    ("spec", "training.earlyStopping needs dataset.validation"): Case(
        refused=[{"spec.training.earlyStopping": {}}],
        passed=[{"spec.training.earlyStopping": {}, "spec.dataset.validation": {"fraction": 0.1}}],
    ),
    ("spec.dataset.validation", "exactly one of fraction, uri and folds must be set"): Case(
        refused=[
            {"spec.dataset.validation": {}},
            {"spec.dataset.validation": {"fraction": 0.1, "uri": "s3://datasets/v/"}},
            {"spec.dataset.validation": {"fraction": 0.1, "folds": 2, "fold": 0}},
        ],
        passed=[
            {"spec.dataset.validation": {"fraction": 0.1}},
            {"spec.dataset.validation": {"uri": "s3://datasets/v/"}},
            {"spec.dataset.validation": {"folds": 2, "fold": 1}},
        ],
    ),
    ("spec.dataset.validation", "folds and fold must be set together"): Case(
        refused=[{"spec.dataset.validation": {"folds": 5}}, {"spec.dataset.validation": {"fold": 1, "fraction": 0.1}}],
        passed=[{"spec.dataset.validation": {"folds": 5, "fold": 1}}],
    ),
    ("spec.dataset.validation", "fold counts from 0 to folds - 1"): Case(
        refused=[{"spec.dataset.validation": {"folds": 5, "fold": 5}}],
        passed=[{"spec.dataset.validation": {"folds": 5, "fold": 4}}],
    ),
    **{
        (
            "spec.dataset",
            f"{side}.uri and training.uri are both on a hub (hf://) or neither is: their keys are one Secret",
        ): Case(
            refused=[
                {f"spec.dataset.{side}": {"uri": "hf://datasets/org/rows@main/"}},
                {
                    "spec.dataset.training.uri": "hf://datasets/org/rows@main/train/",
                    f"spec.dataset.{side}": {"uri": "s3://datasets/held-out/"},
                },
            ],
            passed=[
                {
                    "spec.dataset.training.uri": "hf://datasets/org/rows@main/train/",
                    f"spec.dataset.{side}": {"uri": "hf://datasets/org/rows@main/held-out.jsonl"},
                },
                {
                    "spec.dataset.training.uri": "hf://datasets/org/rows@main/train/",
                    f"spec.dataset.{side}": {"fraction": 0.1},
                },
            ],
        )
        for side in ("validation", "test")
    },
    ("spec", OWN_CLAIMS): Case(
        refused=[{"spec.nodes": 2, **claims("a", resource="a")}],
        passed=[
            claims("a", resource="a"),
            {"spec.nodes": 2, **claims("a", resources="prepareResources", resource="a")},
            {
                "spec.nodes": 2,
                "spec.template.resourceClaims": [
                    {"name": "a", "resourceClaimTemplateName": "a"},
                    {"name": "b", "resourceClaimName": "b", "accelerators": 0},
                ],
                "spec.template.resources": {"claims": [{"name": "a"}, {"name": "b"}]},
            },
        ],
    ),
    ("", "name must have no dots where spec.nodes is more than 1: the host names of the pods are made of it"): Case(
        refused=[{"metadata.name": "a.b", "spec.nodes": 2}],
        passed=[{"metadata.name": "a.b"}, {"metadata.name": "c.d", "spec.nodes": 1}, {"spec.nodes": 64}],
    ),
    ("spec.dataset.test", "exactly one of fraction and uri must be set"): Case(
        refused=[{"spec.dataset.test": {}}, {"spec.dataset.test": {"fraction": 0.1, "uri": "s3://datasets/t/"}}],
        passed=[{"spec.dataset.test": {"fraction": 0.1}}, {"spec.dataset.test": {"uri": "s3://datasets/t/"}}],
    ),
    ("spec", NOT_QUANTIZED): Case(
        refused=[{"spec.lora.type": "None"}, {**FULL_MODEL, "spec.quantization.type": "NF4"}],
        passed=[FULL_MODEL, {"spec.quantization": {"type": "NF4"}}, {"spec.quantization": {"type": "None"}}],
    ),
    ("spec", ONLY_SFT): Case(
        refused=[{**FULL_MODEL, "spec.training": {"method": method}} for method in ("DPO", "KTO", "ORPO")],
        passed=[{**FULL_MODEL, "spec.training": {"method": "SFT"}}, {"spec.training": {"method": "DPO"}}],
    ),
    ("spec.lora", NO_ADAPTER): Case(
        refused=[
            {**FULL_MODEL, f"spec.lora.{name}": value}
            for name, value in (
                ("rank", 8),
                ("alpha", 8),
                ("dropout", 0.1),
                ("targetModules", ["q_proj"]),
                ("useRslora", True),
                ("useDora", True),
                ("initialAdapter", {"uri": "s3://adapters/b", "digest": DIGEST}),
            )
        ]
        + [{**FULL_MODEL, "spec.lora.targetParameters": ["x"], "spec.lora.dropout": 0}],
        passed=[FULL_MODEL, {"spec.lora": {"type": "LoRA", "rank": 8}}],
    ),
    ("spec.lora", "all-linear stands alone: remove it, or the other target modules"): Case(
        refused=[{"spec.lora.targetModules": ["all-linear", "q_proj"]}],
        passed=[{"spec.lora.targetModules": ["all-linear"]}, {"spec.lora.targetModules": ["k_proj", "q_proj"]}],
    ),
    ("spec.lora", NO_DROPOUT): Case(
        refused=[
            {"spec.lora": {"targetParameters": ["experts.down_proj"]}},
            {"spec.lora": {"targetParameters": ["experts.down_proj"], "dropout": 0.1}},
        ],
        passed=[{"spec.lora": {"targetParameters": ["experts.down_proj"], "dropout": 0}}, {"spec.lora.dropout": 0.1}],
    ),
    ("spec.lora", NO_DORA): Case(
        refused=[{"spec.lora": {"targetParameters": ["experts.down_proj"], "dropout": 0, "useDora": True}}],
        passed=[
            {"spec.lora": {"targetParameters": ["experts.down_proj"], "dropout": 0, "useDora": False}},
            {"spec.lora": {"useDora": True}},
        ],
    ),
    ("spec.lora", NO_MODULES_TO_SAVE): Case(
        refused=[{"spec.lora": {"modulesToSave": ["lm_head"]}}, {"spec.lora": {"modulesToSave": []}}],
        passed=[{"spec.lora": {}}],
    ),
    ("spec.training", "set epochs or maxSteps, not both"): Case(
        refused=[{"spec.training": {"epochs": 1, "maxSteps": 1}}],
        passed=[{"spec.training": {"epochs": 1}}, {"spec.training": {"maxSteps": 1}}, {"spec.training": {}}],
    ),
    ("spec.training", "batchSize must be a multiple of microBatchSize"): Case(
        refused=[
            {"spec.training": {"batchSize": 8, "microBatchSize": 3}},
            {"spec.training": {"batchSize": 8, "microBatchSize": 16}},
            {"spec.training": {"microBatchSize": 64}},
        ],
        passed=[{"spec.training": {"batchSize": 8, "microBatchSize": 4}}, {"spec.training": {"microBatchSize": 32}}],
    ),
    **immutable(
        "FineTuneJob",
        _UPDATES,
        {
            "baseModel": "secretName",
            "dataset": "secretName",
            "output": "secretName",
            "training": "microBatchSize",
        },
        CHANGES_OF_NO_RESULT,
    ),
}
