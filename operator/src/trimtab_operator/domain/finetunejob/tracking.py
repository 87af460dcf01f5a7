"""After the end: a Job tells a tracker what the run measured. Nothing waits for it, and how the run ended stays.

The name of the Job follows from `spec.tracking`, so whoever goes on after a crash meets their own work, and a changed
tracker is told anew. What became of it is the condition `Tracked`, the one thing that is written after the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from trimtab_trainer.contract import (
    Credentials,
    Curve,
    ExitCode,
    RunIdentity,
    Stage,
    StoredMlflow,
    StoredOutput,
    TrackingRecord,
    canonical_json,
    defining,
)

from trimtab_operator.api import FineTuneJob
from trimtab_operator.api.tracking import TRACKED, TrackedReason, Tracking

from ..plan import Body, Create
from ..views import CONTAINER, JOB_LABEL, QUEUE_LABEL, QUEUE_PRIORITY_LABEL, parse_time
from ..work.afterwards import Afterwards
from ..work.building.job import build_job, build_run_config_map, credentials
from ..work.building.names import attempt_name
from ..work.conditions import ConditionStatus, condition_of, cut, make_condition
from ..work.observed import Observed
from ..work.particulars import OUTPUT, Staging

TRACKER = "tracker"
"""The directory of the tracker's Secret."""
DIGITS = 8
TRIES = 4
"""Pods of the Job beside the first, with pauses of 10, 20, 40 and 80 s."""
ATTEMPT_SECONDS = 900
"""How long the Job may take, whatever keeps its pods from starting."""
MESSAGE_LENGTH = 512
PARAMETERS_MAXIMUM = 64


class Telling(Staging[FineTuneJob]):
    """The pod that tells a tracker: that of prepare, with the tracker's Secret and the output's."""

    name = "FineTuneJob"
    label = JOB_LABEL
    stages = (Stage.TRACK,)

    def __init__(self, tracking: Tracking, record: TrackingRecord) -> None:
        digits = hashlib.sha256(canonical_json(tracking.to_json())).hexdigest()[:DIGITS]
        self._tracking = tracking
        self._record = record
        self.config_part = f"track-{digits}"
        self.parts: Mapping[Stage, str] = {Stage.TRACK: self.config_part}

    def run_config(self, job: FineTuneJob) -> TrackingRecord:
        return self._record

    def secrets(self, job: FineTuneJob) -> Mapping[str, str | None]:
        return {OUTPUT: job.spec.output.secret_name, TRACKER: self._tracking.mlflow.secret_name}

    def from_hub(self, job: FineTuneJob) -> frozenset[str]:
        return frozenset()


def telling(observed: Observed[FineTuneJob], now: datetime) -> Afterwards:
    """Return what there is to do about the tracker of a run that has ended."""
    job, tracking = observed.job, observed.job.spec.tracking
    said = condition_of(job, TRACKED)
    if tracking is None:
        return Afterwards()
    if said is not None and said.status != "Unknown" and said.observed_generation == job.metadata.generation:
        return Afterwards()
    kind = Telling(tracking, record_of(job, tracking, now))
    name = attempt_name(kind, job, Stage.TRACK, 0)
    seen = next((each for each in observed.afterwards if each.name == name), None)
    if seen is None:
        trouble = _in_the_way(observed)
        waits = _said(job, "Unknown", TrackedReason.TRACKING, trouble, now) if trouble else Afterwards(over=False)
        return replace(waits, actions=tuple(Create(body) for body in _children(kind, observed)))
    pods = sorted(seen.pods, key=lambda pod: pod.created or now)  # of a Job that tries again
    words = next((pod.last_words for pod in reversed(pods) if pod.last_words is not None), None)
    if seen.job.complete:
        message = words.message if words is not None else f"Job {name} has told {tracking.mlflow.uri}"
        return _said(job, "True", TrackedReason.TRACKED, message, now)
    if seen.job.failed:
        why = f"{words.reason.value}: {words.message}" if words is not None else seen.job.failed_message
        return _said(job, "False", TrackedReason.TRACKING_FAILED, f"Job {name} failed: {why}", now)
    return _said(job, "Unknown", TrackedReason.TRACKING, f"Job {name} tells {tracking.mlflow.uri}", now)


def record_of(job: FineTuneJob, tracking: Tracking, now: datetime) -> TrackingRecord:
    """Return what is told of a run as far as its object says it; figures of its adapter are in the bucket."""
    status, spec, metadata = job.status, job.spec, job.metadata
    end = parse_time(status.completion_time) or now
    start, summary, artifact = parse_time(status.start_time) or end, condition_of(job), status.artifact
    mlflow, progress, curve = tracking.mlflow, status.progress, status.curve if artifact is None else None
    figures = {
        "activeSeconds": status.active_seconds,
        "acceleratorSeconds": status.accelerator_seconds,
        "lostAcceleratorSeconds": status.lost_accelerator_seconds,
        "failures": status.failures,
        "disruptions": status.disruptions,
        "trainingLoss": progress.loss if progress is not None else None,
        "validationLoss": progress.validation_loss if progress is not None else None,
    }
    return TrackingRecord(
        run=RunIdentity(name=metadata.name, namespace=metadata.namespace, uid=metadata.uid),
        output=StoredOutput(uri=spec.output.uri, credentials=credentials(spec.output.secret_name, OUTPUT)),
        mlflow=StoredMlflow(uri=mlflow.uri, experiment=mlflow.experiment, credentials=_keys(mlflow.secret_name)),
        succeeded=artifact is not None,
        reason=summary.reason if summary is not None else "Unknown",
        message=summary.message if summary is not None else "",
        start_seconds=int(start.timestamp()),
        end_seconds=int(end.timestamp()),
        attempts=len(status.attempts),
        adapter=artifact.digest if artifact is not None else None,
        parameters=_parameters(job),
        figures={name: float(value) for name, value in figures.items() if value is not None},
        curve=Curve.model_validate(curve.to_json()) if curve is not None else None,
    )


def _keys(secret_name: str | None) -> Credentials | None:
    return credentials(secret_name, TRACKER)


def _parameters(job: FineTuneJob) -> dict[str, str]:
    spec, status = job.spec, job.status
    named = {
        "baseModel": spec.base_model.uri,
        "baseModelDigest": status.base_model_digest,
        "dataset": spec.dataset.training.uri,
        "datasetDigest": status.dataset.digest if status.dataset is not None else None,
        "runDigest": status.run_digest,
    }
    sections = {
        "lora": defining(spec.lora),
        "training": spec.training.to_json(),
        "quantization": spec.quantization.to_json(),
    }
    settings = (
        {}
        if status.artifact is not None
        else {f"{name}.{key}": value for name, section in sections.items() for key, value in _leaves(section)}
    )
    found = {**{key: value for key, value in named.items() if value is not None}, **settings}
    return dict(list(found.items())[:PARAMETERS_MAXIMUM])


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, each in value.items():
        where = f"{path}.{key}" if path else key
        if isinstance(each, dict):
            yield from _leaves(each, where)
        elif each is not None:
            yield where, str(each)


def _children(kind: Telling, observed: Observed[FineTuneJob]) -> tuple[Body, Body]:
    """Return the ConfigMap and the Job. No queue admits it: it holds nothing that is scarce."""
    job = observed.job
    made = build_job(kind, job, observed.settings, Stage.TRACK, number=0)
    for queue in (QUEUE_LABEL, QUEUE_PRIORITY_LABEL):
        made["metadata"]["labels"].pop(queue, None)
    made["spec"] |= {
        "suspend": False,
        "backoffLimit": TRIES,
        "activeDeadlineSeconds": ATTEMPT_SECONDS,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": CONTAINER,
                        "operator": "In",
                        "values": [int(ExitCode.SETTINGS_INVALID), int(ExitCode.DATA_INVALID)],
                    },
                },
            ]
        },
    }
    return build_run_config_map(kind, job), made


def _in_the_way(observed: Observed[FineTuneJob]) -> str:
    if observed.taken is not None:
        return f"{observed.taken.name} belongs to something else; delete or rename that"
    if observed.refused is not None:
        return f"the namespace refuses its {observed.refused.what}, it is tried again: {observed.refused.words}"
    return ""


def _said(job: FineTuneJob, state: ConditionStatus, reason: TrackedReason, message: str, now: datetime) -> Afterwards:
    made = make_condition(job, state, reason.value, cut(message, MESSAGE_LENGTH), now, kind=TRACKED)
    return Afterwards(condition=made, over=state != "Unknown")
