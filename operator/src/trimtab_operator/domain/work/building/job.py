"""Builds what an attempt consists of: the ConfigMap with its run configuration, and its Job. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trimtab_trainer.contract import (
    MEETING_PORT,
    PROCESSES,
    TRAIN_LIMITS,
    Credentials,
    Mirrored,
    Model,
    Stage,
    canonical_json,
)

from trimtab_operator.api.pods.resources import AnyResources
from trimtab_operator.api.pods.template import AnyTemplate, EnvVar

from ...ownership import controlled_by
from ...plan import Body
from ...settings import PodDefaults, Settings
from ...views import (
    ACCELERATORS_LABEL,
    ATTEMPT_ARGUMENT,
    ATTEMPT_LABEL,
    CONFIG_ARGUMENT,
    CONFIG_VOLUME,
    CONTAINER,
    INPUTS_LABEL,
    MANAGED_BY_LABEL,
    PROGRESS_PORT,
    QUEUE_LABEL,
    QUEUE_PRIORITY_LABEL,
    STAGE_LABEL,
)
from ..attempts.ending import POD_FAILURE_RULES
from ..particulars import Staging
from ..subject import J, Work
from .accelerators import claimed, devices, named
from .inputs import job_inputs
from .limits import limits_of
from .names import attempt_name, run_config_name
from .peers import rank_variables, service_name
from .queue import QUEUE_MINIMUM, queue_annotations, queue_labels

CONFIG_DIRECTORY = "/run/trimtab/config"
SECRETS_DIRECTORY = "/run/trimtab/secrets"
HOME = "/tmp"
ENVIRONMENT = {
    "HOME": HOME,
    # Where the cluster gives out the user's id, /etc/passwd has no name for it, and getpass.getuser() of torch raises.
    "USER": "trimtab",
    "LOGNAME": "trimtab",
    "TORCHINDUCTOR_CACHE_DIR": f"{HOME}/torchinductor",
}
"""What every work pod is told, unless its template says otherwise."""
CPU_STAGES = (Stage.MIRROR, Stage.PREPARE, Stage.REPORT, Stage.TRACK)
"""With the image of preparing and its resources. Exporting needs torch too, but no accelerator."""
PREPARE_RESOURCES = (*CPU_STAGES, Stage.JUDGE)
"""Judging needs the libraries of all metrics, which are in the image that evaluates."""


def _metadata(kind: Staging[J], job: J, name: str, labels: dict[str, str]) -> Body:
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": {MANAGED_BY_LABEL: "trimtab", kind.label: job.metadata.name, **labels},
        "ownerReferences": [controlled_by(kind.name, job.metadata)],
    }


def credentials(secret_name: str | None, role: str) -> Credentials | None:
    """Return where the keys of a Secret lie, None for the pod's own identity."""
    if secret_name is None:
        return None
    return Credentials(directory=f"{SECRETS_DIRECTORY}/{role}", secret_name=secret_name)


def build_run_config_map(kind: Staging[J], job: J) -> Body:
    """Return the immutable ConfigMap that all stages mount, as long as what it is made from stays the same."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(kind, job, run_config_name(kind, job), {}),
        "immutable": True,
        "data": {"run.json": canonical_json(kind.run_config(job).to_json()).decode()},
    }


def stage_image(kind: Staging[J], job: J, settings: Settings, stage: Stage) -> str:
    """Return the image of a stage: the template's, else the one fixed at the first attempt, else the operator's."""
    fixed = (job.status.images or {}).get(stage.value)
    if stage in CPU_STAGES:
        return job.spec.template.prepare_image or fixed or settings.prepare_image
    return job.spec.template.image or fixed or kind.image(job, settings)


def merge_resources(
    chosen: dict[str, Any], default: dict[str, Any], accelerators: Iterable[str] = ()
) -> dict[str, Any]:
    """Return resources with a limit and a request for everything the default names, the user's choice first.

    A resource that the user names at all is left to the user; one that is only requested is limited to the request,
    because every work pod has limits. What cannot be overcommitted is the same in both, the limit where they differ:
    the API server refuses everything else. With claims, devices are not taken from the default too, nor with
    accelerators of any name, of which `accelerators` has the patterns: a slice would be held beside a whole GPU.
    """
    limits, requests = dict(chosen.get("limits", {})), dict(chosen.get("requests", {}))
    claims = chosen.get("claims", [])
    own, usual = {*limits, *requests}, {*default.get("limits", {}), *default.get("requests", {})}
    devices_beside = named(usual, accelerators) if named(own, accelerators) else ()
    for name in usual.difference(own, devices_beside):
        if claims and "/" in name:
            continue
        if name in default.get("limits", {}):
            limits[name] = default["limits"][name]
        if name in default.get("requests", {}):
            requests[name] = default["requests"][name]
    for name, quantity in requests.items():
        if name in default.get("limits", {}):
            limits.setdefault(name, quantity)
    for name in {*limits, *requests}:
        if "/" in name or name.startswith("hugepages-"):
            limits[name] = requests[name] = limits.get(name, requests.get(name))
    merged: dict[str, Any] = {"limits": dict(sorted(limits.items())), "requests": dict(sorted(requests.items()))}
    return {**merged, "claims": claims} if claims else merged


def _resources(job: Work, settings: Settings, stage: Stage) -> tuple[AnyResources | None, dict[str, Any]]:
    """Return what the template asks for a stage's container, and what it gets."""
    template = job.spec.template
    chosen: AnyResources | None = template.prepare_resources if stage in PREPARE_RESOURCES else template.resources
    default = settings.prepare_resources if stage in (*PREPARE_RESOURCES, Stage.EXPORT) else settings.train_resources
    return chosen, merge_resources(
        chosen.to_json() if chosen is not None else {}, default, settings.accelerator_resources
    )


def accelerators_per_pod(job: Work, settings: Settings, stage: Stage) -> int:
    """Return how many accelerators each pod of a stage holds, by its resources and its claims."""
    chosen, merged = _resources(job, settings, stage)
    return devices(merged["limits"], settings.accelerator_resources) + claimed(job.spec.template, chosen)


def _claims(job: Work, used: list[Body]) -> list[Body]:
    """Return the claims of a pod whose container uses these: what is claimed in vain would be held in vain."""
    names = {each["name"] for each in used}
    claims = (each.to_json() for each in job.spec.template.resource_claims if each.name in names)
    return [{key: value for key, value in each.items() if key != "accelerators"} for each in claims]  # not core/v1's


def _pod_failure_policy() -> Body:
    rules: list[Body] = []
    for _, codes in POD_FAILURE_RULES:
        if codes:
            match = {"containerName": CONTAINER, "operator": "In", "values": [int(code) for code in codes]}
            rules.append({"action": "FailJob", "onExitCodes": match})
        else:
            rules.append({"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]})
    return {"rules": rules}


def _volumes(kind: Staging[J], job: J, settings: Settings, stage: Stage) -> tuple[list[Body], list[Body]]:
    """Return the volumes of a work pod and their mounts."""
    template = job.spec.template
    volumes: list[Body] = [
        {"name": CONFIG_VOLUME, "configMap": {"name": run_config_name(kind, job)}},
        {"name": "trimtab-work", "emptyDir": {"sizeLimit": settings.scratch_size}},
        {"name": "trimtab-tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "trimtab-shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory_size}},
    ]
    mounts: list[Body] = [
        {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIRECTORY, "readOnly": True},
        {"name": "trimtab-work", "mountPath": "/work"},
        {"name": "trimtab-tmp", "mountPath": "/tmp"},
        {"name": "trimtab-shm", "mountPath": "/dev/shm"},
    ]
    for role, secret_name in kind.mounted(job, stage).items():
        if secret_name is not None:
            # Not optional: the kubelet waits for a Secret that is applied later, and its words reach the status.
            source = {"secretName": secret_name, "defaultMode": 0o440}
            volumes.append({"name": f"trimtab-{role}", "secret": source})
            mounts.append({"name": f"trimtab-{role}", "mountPath": f"{SECRETS_DIRECTORY}/{role}", "readOnly": True})
    volumes.extend(volume.to_json() for volume in template.volumes)
    mounts.extend(mount.to_json() for mount in template.volume_mounts)
    return volumes, mounts


def _environment(chosen: Sequence[EnvVar], told: dict[str, str], ranks: list[Body]) -> list[Body]:
    """Return the variables of the container, each name once; the template's come last, but for who it is of several."""
    of_ranks = {each["name"] for each in ranks}
    named = of_ranks | {variable.name for variable in chosen}
    own = [{"name": name, "value": value} for name, value in {**ENVIRONMENT, **told}.items() if name not in named]
    return [*own, *ranks, *(variable.to_json() for variable in chosen if variable.name not in of_ranks)]


def _told(kind: Staging[J], job: J, settings: Settings, stage: Stage) -> dict[str, str]:
    """Return what `prepare` is told of the pod that will train, and that pod of how many processes it is."""
    count = accelerators_per_pod(job, settings, stage)
    if stage is Stage.TRAIN and count > 1:
        return {PROCESSES: str(count)}
    if stage is not Stage.PREPARE or Stage.TRAIN not in kind.stages:
        return {}
    _, resources = _resources(job, settings, Stage.TRAIN)
    selector = {**settings.work_pods.node_selector, **job.spec.template.node_selector}
    count, nodes = accelerators_per_pod(job, settings, Stage.TRAIN), kind.pods(job, Stage.TRAIN)
    limits = limits_of(resources["limits"], count, selector, nodes)
    return {TRAIN_LIMITS: canonical_json(limits.to_json()).decode()}


def _defaulted(template: AnyTemplate, default: PodDefaults) -> Body:
    """Return the fields of the pod that the operator's settings have defaults for; the template's words come first."""
    secrets = {secret.name: secret for secret in (*template.image_pull_secrets, *default.image_pull_secrets)}
    added = [toleration for toleration in default.tolerations if toleration not in template.tolerations]
    return {
        "imagePullSecrets": [secret.to_json() for secret in secrets.values()],
        "nodeSelector": {**default.node_selector, **template.node_selector},
        "tolerations": [toleration.to_json() for toleration in (*template.tolerations, *added)],
        "priorityClassName": template.priority_class_name or default.priority_class_name,
    }


def _pod_spec(  # noqa: PLR0917 what every part of a Job is made from
    kind: Staging[J], job: J, settings: Settings, stage: Stage, number: int, arguments: list[str]
) -> Body:
    template, nodes, ranks = job.spec.template, kind.pods(job, stage), []
    ports: list[Body] = [{"name": "progress", "containerPort": PROGRESS_PORT, "protocol": "TCP"}]
    if nodes > 1:
        processes = max(1, accelerators_per_pod(job, settings, stage))
        ranks = rank_variables(kind, job, stage, number=number, processes=processes)
        ports.append({"name": "meeting", "containerPort": MEETING_PORT, "protocol": "TCP"})
    volumes, mounts = _volumes(kind, job, settings, stage)
    _, resources = _resources(job, settings, stage)
    container: Body = {
        "name": CONTAINER,
        "image": stage_image(kind, job, settings, stage),
        "imagePullPolicy": settings.image_pull_policy,
        "args": arguments,
        "env": _environment(template.env, _told(kind, job, settings, stage), ranks),
        "ports": ports,
        "resources": resources,
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    pod = {**template.to_json(), **_defaulted(template, settings.work_pods)}
    passed_on = (
        "imagePullSecrets",
        "terminationGracePeriodSeconds",
        "nodeSelector",
        "affinity",
        "tolerations",
        "topologySpreadConstraints",
        "priorityClassName",
        "schedulerName",
        "runtimeClassName",
        "serviceAccountName",
    )
    return {
        **{key: pod[key] for key in passed_on if pod.get(key)},
        **({"subdomain": service_name(kind, job, stage)} if nodes > 1 else {}),
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **settings.work_pods.security_context.to_json(),
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
        **({"resourceClaims": claims} if (claims := _claims(job, resources.get("claims", []))) else {}),
    }


def build_job(
    kind: Staging[J],
    job: J,
    settings: Settings,
    stage: Stage,
    *,
    number: int,
    mirrored: Mirrored | None = None,
    prepared: Model | None = None,
) -> Body:
    """Return the Job of an attempt. With a queue label it is created suspended, for Kueue to admit.

    Several pods are those of an Indexed Job, all of which are there or none is of use: Kueue admits them together, and
    the first that fails ends the Job.
    """
    nodes = kind.pods(job, stage)
    arguments = [stage.value, CONFIG_ARGUMENT, f"{CONFIG_DIRECTORY}/run.json", ATTEMPT_ARGUMENT, str(number)]
    arguments += ["--scratch", "/work", "--termination-log", "/dev/termination-log"]
    arguments += ["--progress-port", str(PROGRESS_PORT)]
    if mirrored is not None:
        arguments += ["--mirrored", canonical_json(mirrored.to_json()).decode()]
    if stage in (kind.main_stage, Stage.JUDGE) and prepared is not None:
        arguments += ["--prepared", canonical_json(prepared.to_json()).decode()]
    template, default = job.spec.template, settings.work_pods
    labels = {STAGE_LABEL: stage.value, ATTEMPT_LABEL: str(number)}
    of_job = {
        ACCELERATORS_LABEL: str(nodes * accelerators_per_pod(job, settings, stage)),
        INPUTS_LABEL: job_inputs(kind, job),
    }
    annotations = {**default.annotations, **template.annotations, **queue_annotations(job.metadata)}
    annotations.pop(QUEUE_MINIMUM, None)  # some of several would wait for the others for ever; of one Kueue refuses it
    metadata = _metadata(kind, job, attempt_name(kind, job, stage, number), {**labels, **of_job})
    # Policies ask labels of Jobs as of pods, and Kueue looks at the Job.
    metadata["labels"] = {**default.labels, **template.labels, **queue_labels(job.metadata), **metadata["labels"]}
    pod_labels = {
        key: value
        for key, value in {**default.labels, **template.labels}.items()
        if key not in (QUEUE_LABEL, QUEUE_PRIORITY_LABEL)
    }
    pod_labels |= {MANAGED_BY_LABEL: "trimtab", kind.label: job.metadata.name, **labels}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "annotations": annotations},
        "spec": {
            "backoffLimit": 0,
            **({"completionMode": "Indexed"} if nodes > 1 else {}),
            "completions": nodes,
            "parallelism": nodes,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _pod_failure_policy(),
            "suspend": bool(metadata["labels"].get(QUEUE_LABEL)),  # an empty name is no queue's
            "template": {
                "metadata": {"labels": pod_labels, "annotations": annotations},
                "spec": _pod_spec(kind, job, settings, stage, number, arguments),
            },
        },
    }
