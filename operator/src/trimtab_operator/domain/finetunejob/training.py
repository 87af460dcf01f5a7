"""What is particular to a FineTuneJob: it prepares data, trains an adapter and publishes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from trimtab_trainer.contract import Mirrored, Prepared, RunConfig, Stage, TerminationMessage, from_hub

from trimtab_operator.api import FineTuneJob, FineTuneJobStatus, State

from ..views import JOB_LABEL
from ..work.afterwards import Afterwards, Meanwhile
from ..work.attempts.attempt import Attempt
from ..work.attempts.ending import Ending
from ..work.mirrors import mirrored_of, mirroring, note_mirrored
from ..work.observed import Observed
from ..work.particulars import Particulars
from .figures import lost_seconds, note_artifact, note_checkpoint, note_prepared, note_progress, prepared_of
from .run_config import build_run_config
from .tracking import telling, telling_meanwhile


class Training(Particulars[FineTuneJob, FineTuneJobStatus]):
    name = "FineTuneJob"
    noun = "job"
    label = JOB_LABEL
    stages = (Stage.MIRROR, Stage.PREPARE, Stage.TRAIN)
    parts = MappingProxyType({Stage.MIRROR: "mirror", Stage.PREPARE: "prepare", Stage.TRAIN: "train"})
    config_part = "run"

    def pods(self, job: FineTuneJob, stage: Stage) -> int:
        return job.spec.nodes if stage is Stage.TRAIN else 1

    def run_config(self, job: FineTuneJob) -> RunConfig:
        return build_run_config(job)

    def secrets(self, job: FineTuneJob) -> Mapping[str, str | None]:
        spec = job.spec
        return {
            "base-model": spec.base_model.secret_name,
            "dataset": spec.dataset.secret_name,
            "output": spec.output.secret_name,
        }

    def from_hub(self, job: FineTuneJob) -> frozenset[str]:
        uris = {"base-model": job.spec.base_model.uri, "dataset": job.spec.dataset.training.uri}
        return frozenset(role for role, uri in uris.items() if from_hub(uri))

    def tells_result(self, stage: str, words: TerminationMessage) -> bool:
        if stage == Stage.MIRROR.value:
            return words.mirrored is not None
        return (words.artifact if stage == Stage.TRAIN.value else words.prepared) is not None

    def note_result(
        self, job: FineTuneJob, status: FineTuneJobStatus, words: TerminationMessage, now: datetime
    ) -> FineTuneJobStatus:
        if words.mirrored is not None:
            status = note_mirrored(status, words.mirrored)
        if words.prepared is not None:
            status = note_prepared(status, words.prepared)
        return note_artifact(status, words)

    def prepared(self, job: FineTuneJob, status: FineTuneJobStatus) -> Prepared | None:
        return prepared_of(status)

    def mirrored(self, status: FineTuneJobStatus) -> Mirrored | None:
        return mirrored_of(status)

    def completed(self, status: FineTuneJobStatus) -> str | None:
        artifact = status.artifact
        if artifact is None:
            return None
        what = "adapter" if artifact.rank is not None else "model"
        message = f"{what} {artifact.digest} is published at {artifact.uri}"
        if artifact.test_loss is not None and artifact.base_test_loss is not None:
            before = f"base model alone {artifact.base_test_loss:.4f}"
            message += f"; loss on the test split {artifact.test_loss:.4f}, {before}"
        return message

    def note_progress(self, status: FineTuneJobStatus, attempt: Attempt) -> FineTuneJobStatus:
        return note_progress(status, attempt)

    def note_last_figures(self, status: FineTuneJobStatus, ending: Ending, end: datetime) -> FineTuneJobStatus:
        return note_checkpoint(status, ending, end)

    def step(self, status: FineTuneJobStatus) -> int | None:
        return status.progress.step if status.progress is not None else None

    def lost_seconds(self, status: FineTuneJobStatus, ending: Ending, end: datetime, seconds: int) -> int:
        return lost_seconds(status, ending, end, seconds)

    def working(self, status: FineTuneJobStatus, attempt: Attempt) -> tuple[str, str]:
        if attempt.stage == Stage.MIRROR.value:
            return State.MIRRORING.value, mirroring(attempt)
        if attempt.stage == Stage.PREPARE.value:
            message = f"Job {attempt.name} checks the settings, and cleans, splits and tokenises the data"
            return State.PREPARING.value, message
        if attempt.publishing:
            return State.PUBLISHING.value, f"Job {attempt.name} verifies and publishes what was trained"
        together = f" in {attempt.job.pods} pods" if attempt.job.pods > 1 else ""
        return State.TRAINING.value, f"Job {attempt.name} trains{together}"

    def meanwhile(self, observed: Observed[FineTuneJob], now: datetime) -> Meanwhile:
        return telling_meanwhile(observed, now)

    def afterwards(self, observed: Observed[FineTuneJob], now: datetime) -> Afterwards:
        return telling(observed, now)

    def resumes(self, status: FineTuneJobStatus) -> str:
        return "it continues from its checkpoint" if status.checkpoint is not None else ""

    def goes_on_from(self, status: FineTuneJobStatus) -> str:
        return f" from step {status.checkpoint.step}" if status.checkpoint is not None else ""
