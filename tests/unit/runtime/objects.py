"""Bodies as the API server has them."""

from __future__ import annotations

from trimtab_operator.domain.views import JOB_UID_LABEL, OWNER_LABELS
from trimtab_operator.runtime.kube import Body

NAMESPACE = "team"


def finetunejob(name: str = "demo", uid: str = "ftj-1", version: int = 1, **status: object) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {
            "baseModel": {"uri": "s3://models/base"},
            "dataset": {"training": {"uri": "s3://datasets/rows/"}},
            "output": {"uri": "s3://adapters/out"},
        },
        "status": status,
    }


def evaluation(
    name: str = "demo", uid: str = "ftev-1", version: int = 1, waits_for: str = "demo", **status: object
) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "Evaluation",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
        },
        "spec": {
            "target": {"fineTuneJobName": waits_for},
            "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}],
        },
        "status": status,
    }


def adapterexport(name: str = "demo", uid: str = "aex-1", version: int = 1, **status: object) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "AdapterExport",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
        },
        "spec": {"source": {"fineTuneJobName": "demo"}, "destination": {"uri": "s3://models/guide"}},
        "status": status,
    }


def job(
    name: str = "demo-train-1",
    uid: str = "job-1",
    version: int = 1,
    owner: str = "ftj-1",
    *,
    kind: str = "FineTuneJob",
) -> Body:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {
                "app.kubernetes.io/managed-by": "trimtab",
                "trimtab.dev/stage": "train",
                "trimtab.dev/attempt": "1",
            },
            "ownerReferences": [{"kind": kind, "name": "demo", "uid": owner, "controller": True}],
        },
        "spec": {},
    }


def pod(
    name: str = "demo-train-1-x",
    uid: str = "pod-1",
    version: int = 1,
    job_uid: str = "job-1",
    *,
    kind: str = "FineTuneJob",
) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {OWNER_LABELS[kind]: "demo", JOB_UID_LABEL: job_uid},
            "ownerReferences": [{"kind": "Job", "name": "demo-train-1", "uid": job_uid, "controller": True}],
        },
        "spec": {},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "containerStatuses": [{"name": "trainer", "state": {"running": {"startedAt": "2026-01-05T12:00:00Z"}}}],
        },
    }
