"""Builds what several pods of an attempt find each other by, and are alone with each other by. No I/O.

Names are JobSet's: each pod has the host name <job>-<index>, under a headless Service that all attempts of an object
share, as one attempt's pods are named after its Job. Variables are torchrun's, as Kubeflow Trainer sets them.

What they tell each other is not authenticated, and partly pickled: who reaches them can run code in them. So a
NetworkPolicy lets nobody in but the pods of the same object, and whoever asks for progress and metrics. It says nothing
of the ways out.
"""

from __future__ import annotations

from trimtab_trainer.contract import (
    ADDRESS,
    MEETING_PORT,
    NODE,
    NODES,
    PORT,
    PROCESSES,
    PROCESSES_PER_NODE,
    WORLD_SIZE,
    Stage,
)

from ...ownership import controlled_by
from ...plan import Body
from ...views import INDEX_LABEL, MANAGED_BY_LABEL, PROGRESS_PORT, STAGE_LABEL
from ..particulars import Staging
from ..subject import J
from .names import attempt_name


def service_name(kind: Staging[J], job: J, stage: Stage) -> str:
    """Return the name of the headless Service; the name of a Service begins with a letter, an object's may not."""
    return f"{kind.parts[stage]}-{job.metadata.name}"


def rank_variables(kind: Staging[J], job: J, stage: Stage, *, number: int, processes: int) -> list[Body]:
    """Return the variables that tell a pod of the others.

    Args:
        kind: of the object.
        job: the object.
        stage: of the attempt.
        number: of the attempt.
        processes: of each pod.
    """
    nodes = kind.pods(job, stage)
    told = {
        PROCESSES: processes,
        NODES: nodes,
        PROCESSES_PER_NODE: processes,
        WORLD_SIZE: nodes * processes,
        ADDRESS: f"{attempt_name(kind, job, stage, number)}-0.{service_name(kind, job, stage)}",
        PORT: MEETING_PORT,
    }
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_LABEL}']"}}
    return [
        *({"name": name, "value": str(value)} for name, value in told.items()),
        {"name": NODE, "valueFrom": index},
    ]


def build_peers(kind: Staging[J], job: J, stage: Stage) -> tuple[Body, ...]:
    """Return the Service and the NetworkPolicy of a stage of several pods; both go with the object."""
    labels = {MANAGED_BY_LABEL: "trimtab", kind.label: job.metadata.name}
    metadata = {
        "name": service_name(kind, job, stage),
        "namespace": job.metadata.namespace,
        "labels": labels,
        "ownerReferences": [controlled_by(kind.name, job.metadata)],
    }
    # Of our domain alone: policies write their own word over the other label.
    pods = {kind.label: job.metadata.name, STAGE_LABEL: stage.value}
    service: Body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            # They meet before any of them is ready.
            "publishNotReadyAddresses": True,
            "selector": pods,
            "ports": [{"name": "meeting", "port": MEETING_PORT, "protocol": "TCP"}],
        },
    }
    policy: Body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress"],
            "ingress": [
                # Any port: gradients go over ports that the libraries choose.
                {"from": [{"podSelector": {"matchLabels": pods}}]},
                {"ports": [{"port": PROGRESS_PORT, "protocol": "TCP"}]},
            ],
        },
    }
    return service, policy
