"""A Job tells a tracker what the run measures: by interval while it trains, and all of it after the end.

Nothing waits for it, and how the run ended stays. The name of the Job follows from `spec.tracking`, and while the run
trains from the number of the interval, so whoever goes on after a crash meets their own work, and a changed tracker is
told anew. What became of the last is the condition `Tracked`, the one thing that is written after the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from trimtab_trainer.contract import (
    Curve,
    ExitCode,
    RunIdentity,
    Stage,
    StoredMlflow,
    StoredOutput,
    StoredTrackio,
    TrackingRecord,
    canonical_json,
    defining,
)

from trimtab_operator.api import FineTuneJob
from trimtab_operator.api.tracking import TRACKED, TrackedReason, Tracking

from ..plan import Body, Create
from ..views import CONFIG_VOLUME, CONTAINER, JOB_LABEL, QUEUE_LABEL, QUEUE_PRIORITY_LABEL, parse_time
from ..work.afterwards import Afterwards, Meanwhile
from ..work.attempts.accounts import open_attempt
from ..work.building.job import build_job, credentials
from ..work.building.names import attempt_name
from ..work.conditions import ConditionStatus, condition_of, cut, make_condition
from ..work.observed import Observed
from ..work.particulars import OUTPUT, Staging

TRACKER = "tracker"
"""The directory of the tracker's Secret."""
DIGITS = 8
TRIES, TRIES_MEANWHILE = 4, 1
"""Pods of the Job beside the first, with pauses of 10, 20, 40 and 80 s; while a run trains the next is soon."""
ATTEMPT_SECONDS = 900
"""How long the Job may take, whatever keeps its pods from starting."""
MESSAGE_LENGTH = 512
PARAMETERS_MAXIMUM = 64
RECORD = "trimtab.dev/tracking-record"
"""Annotation of the pod with what is told: it is the Job's alone, and goes with it."""


class Telling(Staging[FineTuneJob]):
    """The pod that tells a tracker: that of prepare, with the tracker's Secret and the output's."""

    name = "FineTuneJob"
    label = JOB_LABEL
    stages = (Stage.TRACK,)

    def __init__(self, tracking: Tracking, record: TrackingRecord, interval: int = 0) -> None:
        """Let `interval` be that of a run that trains, 0 after its end."""
        told = {**tracking.to_json(), **({"interval": interval} if interval else {})}
        digits = hashlib.sha256(canonical_json(told)).hexdigest()[:DIGITS]
        self._tracking = tracking
        self._record = record
        self.config_part = f"track-{digits}"
        self.parts: Mapping[Stage, str] = {Stage.TRACK: self.config_part}

    def run_config(self, job: FineTuneJob) -> TrackingRecord:
        return self._record

    def secrets(self, job: FineTuneJob) -> Mapping[str, str | None]:
        return {OUTPUT: job.spec.output.secret_name, TRACKER: self._tracking.secret_name}

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
        # What is still being told of the time before would say that the run goes on.
        others = tuple(each.delete() for each in observed.afterwards if each.live)
        return replace(waits, actions=(*others, Create(_job(kind, observed, tries=TRIES, seconds=ATTEMPT_SECONDS))))
    pods = sorted(seen.pods, key=lambda pod: pod.created or now)  # of a Job that tries again
    words = next((pod.last_words for pod in reversed(pods) if pod.last_words is not None), None)
    if seen.job.complete:
        message = words.message if words is not None else f"Job {name} has told {tracking.uri}"
        return _said(job, "True", TrackedReason.TRACKED, message, now)
    if seen.job.failed:
        why = f"{words.reason.value}: {words.message}" if words is not None else seen.job.failed_message
        return _said(job, "False", TrackedReason.TRACKING_FAILED, f"Job {name} failed: {why}", now)
    return _said(job, "Unknown", TrackedReason.TRACKING, f"Job {name} tells {tracking.uri}", now)


def telling_meanwhile(observed: Observed[FineTuneJob], now: datetime) -> Meanwhile:
    """Return the Job that tells a tracker how far a run is, once in every interval in which it trains."""
    job, tracking = observed.job, observed.job.spec.tracking
    began = parse_time(job.status.start_time)
    if tracking is None or tracking.every_seconds is None or began is None or not _trains(observed):
        return Meanwhile()
    elapsed = (now - began).total_seconds()
    interval = int(elapsed // tracking.every_seconds)
    again = (interval + 1) * tracking.every_seconds - elapsed
    progress = job.status.progress
    step = progress.step if progress is not None else None
    if interval < 1 or not step or any(each.live for each in observed.afterwards):
        return Meanwhile(look_again_seconds=again)
    kind = Telling(tracking, record_of(job, tracking, now, step), interval)
    name = attempt_name(kind, job, Stage.TRACK, 0)
    if any(each.name == name for each in observed.afterwards):
        return Meanwhile(look_again_seconds=again)
    seconds = min(ATTEMPT_SECONDS, tracking.every_seconds)
    made = _job(kind, observed, tries=TRIES_MEANWHILE, seconds=seconds)
    made["spec"]["ttlSecondsAfterFinished"] = tracking.every_seconds  # it is there until its interval is over
    return Meanwhile((Create(made),), again)


def _trains(observed: Observed[FineTuneJob]) -> bool:
    """Tell whether a pod of the run trains now, as far as is known."""
    attempt = open_attempt(observed.job.status)
    seen = observed.attempt(attempt.job_uid) if attempt is not None else None
    return (
        seen is not None
        and seen.stage == Stage.TRAIN.value
        and seen.live
        and not (seen.suspended or observed.job.spec.suspend)
    )


def record_of(job: FineTuneJob, tracking: Tracking, now: datetime, step: int | None = None) -> TrackingRecord:
    """Return what is told of a run as far as its object says it; figures of its adapter are in the bucket.

    Args:
        step: of a run that goes on.
    """
    status, spec, metadata = job.status, job.spec, job.metadata
    end = parse_time(status.completion_time) or now
    start, summary, artifact = parse_time(status.start_time) or end, condition_of(job), status.artifact
    progress, curve = status.progress, status.curve if artifact is None and step is None else None
    figures = {
        "activeSeconds": status.active_seconds,
        "acceleratorSeconds": status.accelerator_seconds,
        "lostAcceleratorSeconds": status.lost_accelerator_seconds,
        "failures": status.failures,
        "disruptions": status.disruptions,
        "trainingLoss": progress.loss if progress is not None else None,
        "validationLoss": progress.validation_loss if progress is not None else None,
    }
    if step is not None and progress is not None:
        figures |= {
            "percent": progress.percent,
            "tokensPerSecond": progress.tokens_per_second,
            "etaSeconds": progress.eta_seconds,
        }
    return TrackingRecord(
        run=RunIdentity(name=metadata.name, namespace=metadata.namespace, uid=metadata.uid),
        output=StoredOutput(uri=spec.output.uri, credentials=credentials(spec.output.secret_name, OUTPUT)),
        **_stored(tracking),
        step=step,
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


def _stored(tracking: Tracking) -> dict[str, StoredMlflow | StoredTrackio]:
    """Return the tracker of a record, by the name of its field."""
    keys = credentials(tracking.secret_name, TRACKER)
    if (mlflow := tracking.mlflow) is not None:
        return {"mlflow": StoredMlflow(uri=mlflow.uri, experiment=mlflow.experiment, credentials=keys)}
    trackio = tracking.trackio
    assert trackio is not None  # one of them is there
    return {"trackio": StoredTrackio(uri=trackio.uri, project=trackio.project, credentials=keys)}


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


def _job(kind: Telling, observed: Observed[FineTuneJob], *, tries: int, seconds: int) -> Body:
    """Return the Job. No queue admits it: it holds nothing that is scarce. What it tells is in its pod's annotation."""
    job = observed.job
    made = build_job(kind, job, observed.settings, Stage.TRACK, number=0)
    for queue in (QUEUE_LABEL, QUEUE_PRIORITY_LABEL):
        made["metadata"]["labels"].pop(queue, None)
    pod = made["spec"]["template"]
    record = canonical_json(kind.run_config(job).to_json()).decode()
    pod["metadata"]["annotations"] = {**pod["metadata"].get("annotations", {}), RECORD: record}
    items = [{"path": "run.json", "fieldRef": {"fieldPath": f"metadata.annotations['{RECORD}']"}}]
    config = {"name": CONFIG_VOLUME, "downwardAPI": {"items": items}}
    pod["spec"]["volumes"] = [config if each["name"] == CONFIG_VOLUME else each for each in pod["spec"]["volumes"]]
    made["spec"] |= {
        "suspend": False,
        "backoffLimit": tries,
        "activeDeadlineSeconds": seconds,
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
    return made


def _in_the_way(observed: Observed[FineTuneJob]) -> str:
    if observed.taken is not None:
        return observed.taken.told()
    if observed.refused is not None:
        return f"{observed.refused.told()}; it is tried again"
    return ""


def _said(job: FineTuneJob, state: ConditionStatus, reason: TrackedReason, message: str, now: datetime) -> Afterwards:
    made = make_condition(job, state, reason.value, cut(message, MESSAGE_LENGTH), now, kind=TRACKED)
    return Afterwards(condition=made, over=state != "Unknown")
