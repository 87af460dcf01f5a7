"""What a FineTuneJob's status says of the run itself: data, progress, checkpoints and the artifact."""

from __future__ import annotations

from datetime import datetime

from trimtab_trainer.contract import Curve, Prepared, Stage, TerminationMessage

from trimtab_operator.api import (
    ArtifactStatus,
    CheckpointStatus,
    CurveStatus,
    DatasetStatus,
    FineTuneJobStatus,
    TrainingProgress,
)

from ..views import format_time, parse_time
from ..work.attempts.attempt import Attempt
from ..work.attempts.ending import Ending

MODULES_LISTED, MODULE_LENGTH = 64, 253
"""Of an artifact's target modules: how many the status lists, and how long their names are."""


def note_checkpoint(status: FineTuneJobStatus, ending: Ending, end: datetime) -> FineTuneJobStatus:
    """Return the status with the newest checkpoint that an attempt's last words tell of."""
    step = ending.words.summary.checkpoint_step if ending.words is not None else None
    if not step:
        return status
    checkpoint = status.checkpoint
    if checkpoint is None or step > checkpoint.step:
        checkpoint = CheckpointStatus(step=step, time=format_time(end))
    return status.model_copy(update={"checkpoint": checkpoint})


def lost_seconds(status: FineTuneJobStatus, ending: Ending, end: datetime, seconds: int) -> int:
    """Return the seconds after the newest checkpoint, all of them if there is none."""
    summary = ending.words.summary if ending.words is not None else None
    if summary is not None and summary.checkpoint_step == summary.step and summary.step:
        return 0
    time = parse_time(status.checkpoint.time) if status.checkpoint is not None else None
    return max(0, round((end - time).total_seconds())) if time is not None else seconds


def note_progress(status: FineTuneJobStatus, attempt: Attempt) -> FineTuneJobStatus:
    """Return the status with what the trainer last said of itself."""
    progress = attempt.progress_in(Stage.TRAIN)
    if progress is None:
        return status
    shown = TrainingProgress(
        step=progress.step,
        total_steps=progress.total_steps,
        percent=min(100, 100 * progress.step // progress.total_steps),
        loss=_rounded(progress.loss),
        validation_loss=_rounded(progress.validation_loss),
        tokens_per_second=_rounded(progress.tokens_per_second, 1),
        eta_seconds=round(progress.eta_seconds) if progress.eta_seconds is not None else None,
        world_size=_several(progress.world_size),
    )
    update: dict[str, object] = {"progress": shown}
    if progress.curve is not None:
        update["curve"] = _curve(progress.curve)
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
        validation_digest=prepared.validation_digest,
        validation_bytes=prepared.validation_bytes,
        validation_supervised_tokens=prepared.validation_supervised_tokens,
        test_rows=prepared.test_rows,
        tokens=prepared.tokens,
        supervised_tokens=prepared.supervised_tokens,
        dropped=prepared.dropped,
        # A trainer of another version may tell of the rows again, without their page.
        report_uri=prepared.report_uri or (status.dataset.report_uri if status.dataset is not None else None),
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
        validation_digest=dataset.validation_digest,
        validation_bytes=dataset.validation_bytes,
        validation_supervised_tokens=dataset.validation_supervised_tokens,
        test_rows=dataset.test_rows,
        tokens=dataset.tokens,
        supervised_tokens=dataset.supervised_tokens,
        dropped=dataset.dropped,
        report_uri=dataset.report_uri,
        total_steps=(status.progress.total_steps or 0) if status.progress is not None else 0,
    )


def note_artifact(status: FineTuneJobStatus, words: TerminationMessage) -> FineTuneJobStatus:
    """Return the status of a completed run: the artifact, and the last figures."""
    if words.artifact is None:
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
        world_size=_several(summary.world_size),
    )
    published = ArtifactStatus(
        uri=artifact.uri,
        digest=artifact.digest,
        rank=artifact.rank,
        target_modules=_listed(artifact.target_modules),
        base_model_digest=artifact.base_model_digest,
        test_loss=_rounded(summary.test_loss),
        base_test_loss=_rounded(summary.base_test_loss),
        report_uri=artifact.report_uri,
    )
    update: dict[str, object] = {"artifact": published, "progress": progress}
    if summary.curve is not None and (curve := summary.curve.fitting()) is not None:
        update["curve"] = _finer(status.curve, _curve(curve))
    return status.model_copy(update=update)


def _listed(modules: list[str]) -> list[str]:
    """Return the names as far as a status has room for them; the artifact's own configuration has them all."""
    return [name for name in dict.fromkeys(modules) if len(name) <= MODULE_LENGTH][:MODULES_LISTED]


def _finer(known: CurveStatus | None, last: CurveStatus) -> CurveStatus:
    """Return the curve of the last words, or that of progress if it reaches as far: last words have less room."""
    reaches = known is not None and (known.steps[-1:], known.validation_steps[-1:]) == (
        last.steps[-1:],
        last.validation_steps[-1:],
    )
    return known if known is not None and reaches else last


def _curve(told: Curve) -> CurveStatus:
    return CurveStatus(
        steps=list(told.steps),
        loss=list(told.loss),
        validation_steps=list(told.validation_steps),
        validation_loss=list(told.validation_loss),
    )


def _several(world_size: int | None) -> int | None:
    return world_size if world_size is not None and world_size > 1 else None


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)
