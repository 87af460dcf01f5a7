"""The status as a ledger: attempts are entered, closed and charged here, and nowhere else."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from trimtab_trainer.contract import Prepared, Progress, Stage, Summary

from trimtab_operator.api import (
    ArtifactStatus,
    AttemptStatus,
    CheckpointStatus,
    DatasetStatus,
    FineTuneJob,
    FineTuneJobStatus,
    TrainingProgress,
)
from trimtab_operator.api.finetunejob import ATTEMPT_MESSAGE_LENGTH

from ..views import JobView, PodView, format_time, parse_time
from .outcome import Ending, Verdict

ATTEMPTS_KEPT = 10


def accelerators(job: FineTuneJob) -> int:
    """Return how many accelerators a train pod holds: extended resources are the ones with a domain in their name."""
    resources = job.spec.template.resources
    limits = (resources.limits if resources is not None else None) or {}
    return sum(int(str(quantity)) for name, quantity in limits.items() if "/" in name and str(quantity).isdigit())


def open_attempt(status: FineTuneJobStatus) -> AttemptStatus | None:
    """Return the attempt that has not ended, if there is one: it is always the last."""
    last = status.attempts[-1] if status.attempts else None
    return last if last is not None and last.reason is None else None


def running_seconds(attempt: AttemptStatus, end: datetime) -> int:
    """Return for how long an attempt's pods have run by `end`."""
    start = parse_time(attempt.start_time)
    since_start = max(0, round((end - start).total_seconds())) if start is not None else 0
    return (attempt.active_seconds or 0) + since_start


def active_seconds(status: FineTuneJobStatus, now: datetime) -> int:
    """Return the time with a running pod so far, over all attempts."""
    attempt = open_attempt(status)
    return status.active_seconds + (running_seconds(attempt, now) if attempt is not None else 0)


def replace_last(status: FineTuneJobStatus, attempt: AttemptStatus) -> FineTuneJobStatus:
    return status.model_copy(update={"attempts": [*status.attempts[:-1], attempt]})


def enter(status: FineTuneJobStatus, view: JobView, images: dict[str, str], now: datetime) -> FineTuneJobStatus:
    """Return the status with a new open attempt; the first one fixes the images and the start."""
    attempt = AttemptStatus(number=view.attempt, stage=view.stage, job_name=view.name, job_uid=view.uid)
    return status.model_copy(
        update={
            "attempts": [*status.attempts, attempt][-ATTEMPTS_KEPT:],
            "images": status.images or images,
            "start_time": status.start_time or format_time(view.created or now),
        }
    )


def note_pod(status: FineTuneJobStatus, pod: PodView | None) -> FineTuneJobStatus:
    """Return the status with the start of the pod that runs now; one that is over may have been counted already."""
    attempt = open_attempt(status)
    if attempt is None or attempt.start_time is not None or pod is None or pod.started is None:
        return status
    if pod.over and attempt.active_seconds is not None:
        return status
    return replace_last(status, attempt.model_copy(update={"start_time": format_time(pod.started)}))


def pause(status: FineTuneJobStatus, now: datetime) -> FineTuneJobStatus:
    """Return the status with the open attempt's clock stopped: its Job is suspended and its pod is gone."""
    attempt = open_attempt(status)
    if attempt is None or attempt.start_time is None:
        return status
    stopped = attempt.model_copy(update={"active_seconds": running_seconds(attempt, now), "start_time": None})
    return replace_last(status, stopped)


def close(job: FineTuneJob, status: FineTuneJobStatus, ending: Ending, pod: PodView | None) -> FineTuneJobStatus:
    """Return the status with the open attempt ended, its time added up and its end charged to a budget."""
    attempt = open_attempt(status)
    if attempt is None:
        return status
    end = (pod.terminated_time if pod is not None else None) or ending.ended
    seconds = running_seconds(attempt, end)
    charged: Literal["failures", "disruptions"] | None = None
    if ending.verdict is Verdict.FAILURE:
        charged = "failures"
    elif ending.verdict is Verdict.DISRUPTION:
        charged = "disruptions"
    summary = ending.words.summary if ending.words is not None else Summary()
    closed = attempt.model_copy(
        update={
            "reason": ending.reason[:64],
            "message": ending.message[:ATTEMPT_MESSAGE_LENGTH],
            "charged_to": charged,
            "end_time": format_time(end),
            "active_seconds": seconds,
            "start_step": summary.resumed_from_step,
            "end_step": summary.step if summary.step is not None else _step(status, attempt),
        }
    )
    update: dict[str, object] = {"active_seconds": status.active_seconds + seconds}
    if charged is not None:
        update[charged] = getattr(status, charged) + 1
    if attempt.stage == Stage.TRAIN.value and (held := accelerators(job)):
        update["accelerator_seconds"] = status.accelerator_seconds + held * seconds
        if charged is not None:
            lost = min(seconds, _seconds_since_checkpoint(status, end, seconds))
            if ending.words is not None and summary.checkpoint_step == summary.step and summary.step:
                lost = 0
            update["lost_accelerator_seconds"] = status.lost_accelerator_seconds + held * lost
    status = replace_last(status, closed).model_copy(update=update)
    if summary.checkpoint_step:
        checkpoint = status.checkpoint
        if checkpoint is None or summary.checkpoint_step > checkpoint.step:
            checkpoint = CheckpointStatus(step=summary.checkpoint_step, time=format_time(end))
        status = status.model_copy(update={"checkpoint": checkpoint})
    return status


def _step(status: FineTuneJobStatus, attempt: AttemptStatus) -> int | None:
    trains = attempt.stage == Stage.TRAIN.value
    return status.progress.step if trains and status.progress is not None else None


def _seconds_since_checkpoint(status: FineTuneJobStatus, end: datetime, otherwise: int) -> int:
    time = parse_time(status.checkpoint.time) if status.checkpoint is not None else None
    return max(0, round((end - time).total_seconds())) if time is not None else otherwise


def note_progress(status: FineTuneJobStatus, job: JobView, progress: Progress | None) -> FineTuneJobStatus:
    """Return the status with what the trainer last said of itself."""
    if progress is None or progress.stage is not Stage.TRAIN or progress.attempt != job.attempt:
        return status
    if progress.total_steps == 0:
        return status
    shown = TrainingProgress(
        step=progress.step,
        total_steps=progress.total_steps,
        percent=min(100, 100 * progress.step // progress.total_steps),
        loss=_rounded(progress.loss),
        validation_loss=_rounded(progress.validation_loss),
        tokens_per_second=_rounded(progress.tokens_per_second, 1),
        eta_seconds=round(progress.eta_seconds) if progress.eta_seconds is not None else None,
    )
    update: dict[str, object] = {"progress": shown}
    if progress.checkpoint_step:
        update["checkpoint"] = CheckpointStatus(step=progress.checkpoint_step, time=progress.checkpoint_time)
    return status.model_copy(update=update)


def note_prepared(status: FineTuneJobStatus, prepared: Prepared) -> FineTuneJobStatus:
    """Return the status with what preparing found."""
    dataset = DatasetStatus(
        digest=prepared.view_digest,
        rows_digest=prepared.rows_digest,
        rows=prepared.rows,
        validation_rows=prepared.validation_rows,
        test_rows=prepared.test_rows,
        tokens=prepared.tokens,
        supervised_tokens=prepared.supervised_tokens,
        dropped=prepared.dropped,
    )
    progress = TrainingProgress(step=0, total_steps=prepared.total_steps, percent=0)
    return status.model_copy(
        update={
            "dataset": dataset,
            "base_model_digest": prepared.base_model_digest,
            "run_digest": prepared.run_digest,
            "progress": status.progress or progress,
        }
    )


def prepared_of(status: FineTuneJobStatus) -> Prepared | None:
    """Return what preparing found, for the arguments of the train Job; None before that."""
    dataset = status.dataset
    if dataset is None or status.base_model_digest is None or status.run_digest is None:
        return None
    return Prepared(
        base_model_digest=status.base_model_digest,
        rows_digest=dataset.rows_digest,
        view_digest=dataset.digest,
        run_digest=status.run_digest,
        rows=dataset.rows,
        validation_rows=dataset.validation_rows,
        test_rows=dataset.test_rows,
        tokens=dataset.tokens,
        supervised_tokens=dataset.supervised_tokens,
        dropped=dataset.dropped,
        total_steps=(status.progress.total_steps or 0) if status.progress is not None else 0,
    )


def note_artifact(status: FineTuneJobStatus, ending: Ending) -> FineTuneJobStatus:
    """Return the status of a completed run: the artifact, and the last figures."""
    words = ending.words
    if words is None or words.artifact is None:
        return status
    artifact, summary = words.artifact, words.summary
    total = summary.total_steps or (status.progress.total_steps if status.progress is not None else None)
    progress = TrainingProgress(
        step=summary.step if summary.step is not None else total,
        total_steps=total,
        percent=100,
        loss=_rounded(summary.loss),
        validation_loss=_rounded(summary.validation_loss),
        tokens_per_second=_rounded(summary.tokens_per_second, 1),
    )
    published = ArtifactStatus(
        uri=artifact.uri,
        digest=artifact.digest,
        rank=artifact.rank,
        target_modules=artifact.target_modules,
        base_model_digest=artifact.base_model_digest,
        test_loss=_rounded(summary.test_loss),
        base_test_loss=_rounded(summary.base_test_loss),
    )
    return status.model_copy(update={"artifact": published, "progress": progress})


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
