"""What is particular to an Evaluation: it waits for an adapter, asks it, and says whether it is good enough."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from trimtab_trainer.contract import (
    EvaluationConfig,
    EvaluationEngine,
    Mirrored,
    PreparedEvaluation,
    Reason,
    Stage,
    TerminationMessage,
    asks_endpoint,
    from_hub,
)

from trimtab_operator.api import (
    PASSED,
    Condition,
    Evaluation,
    EvaluationStatus,
    PassedReason,
    State,
)

from ..plan import Note
from ..settings import Settings
from ..views import EVALUATION_LABEL
from ..work.attempts.attempt import Attempt
from ..work.attempts.ending import Ending
from ..work.conditions import make_condition, notes_of
from ..work.mirrors import mirrored_of, mirroring, note_mirrored
from ..work.particulars import OUTPUT, Hold, Particulars, References
from .resolve import models_of, needs_resolving, resolve, rollout_of, served_nothing, sources_of
from .results import note_outcome, note_prepared, note_progress, prepared_of, verdict_of
from .run_config import build_run_config

JUDGE = "judge"
NO_ENGINE_IMAGE = (
    "EngineMissing: engine: Vllm needs an image with trainer and vLLM, and this operator has none; set evaluator.image "
    "of the chart, or spec.template.image; it is waited for"
)
NO_LOOK = "there is nothing to judge: "
"""The first words of a trainer that knows no first look, about one that it is run for."""
GOES_ON = "it goes on with the tasks that are not done"


class Evaluating(Particulars[Evaluation, EvaluationStatus]):
    name = "Evaluation"
    noun = "evaluation"
    label = EVALUATION_LABEL
    stages = (Stage.MIRROR, Stage.PREPARE, Stage.EVALUATE, Stage.JUDGE)
    main_stage = Stage.EVALUATE
    parts = MappingProxyType(
        {
            Stage.MIRROR: "eval-mirror",
            Stage.PREPARE: "eval-prepare",
            Stage.EVALUATE: "eval",
            Stage.JUDGE: "eval-judge",
        }
    )
    config_part = "eval-run"

    def stages_of(self, job: Evaluation) -> tuple[Stage, ...]:
        """Return the stages that it goes through: where no endpoint judges, the one that answers is the last."""
        found = super().stages_of(job)
        return found if _asks_endpoint(job) else tuple(stage for stage in found if stage is not Stage.JUDGE)

    def next_stage(self, job: Evaluation, status: EvaluationStatus) -> Stage:
        """Return the stage to go on with: an endpoint is looked at before there are accelerators, and judges after."""
        judges = status.answers_digest is not None or not (status.judge_ready or _is_past_the_look(status))
        return Stage.JUDGE if _asks_endpoint(job) and judges else Stage.EVALUATE

    def run_config(self, job: Evaluation) -> EvaluationConfig:
        return build_run_config(job)

    def secrets(self, job: Evaluation) -> Mapping[str, str | None]:
        sources, models = sources_of(job, job.status), models_of(job, job.status)
        anchor = models.anchor
        return {
            "base-model": sources.base_model.secret_name,
            "dataset": sources.dataset_secret_name,
            "output": sources.output.secret_name,
            "target": models.target.secret_name if models.target is not None else None,
            "baseline": models.baseline.secret_name if models.baseline is not None else None,
            # Not where there is no anchor or judge: what Jobs are made from is compared by these.
            **({"anchor": anchor.secret_name} if anchor is not None else {}),
            **({JUDGE: job.spec.judge.secret_name} if job.spec.judge is not None else {}),
        }

    def mounted(self, job: Evaluation, stage: Stage) -> Mapping[str, str | None]:
        """Return the Secrets that a stage mounts: the key of an endpoint is in no pod but the one that asks it.

        Which has no others but the output's: it reads and writes nothing else.
        """
        found = super().mounted(job, stage)
        if stage is Stage.JUDGE:
            return {role: name for role, name in found.items() if role in (JUDGE, OUTPUT)}
        if job.spec.judge is not None and job.spec.judge.endpoint is not None:
            return {role: name for role, name in found.items() if role != JUDGE}
        return found

    def image(self, job: Evaluation, settings: Settings) -> str:
        """Return the image with the engine where one writes the answers."""
        return settings.evaluator_image if _by_vllm(job) else super().image(job, settings)

    def lacks(self, job: Evaluation, settings: Settings) -> str | None:
        """Tell that there is no image with the engine, before an accelerator is asked for."""
        fixed = (job.status.images or {}).get(Stage.EVALUATE.value)
        if not _by_vllm(job) or job.spec.template.image or fixed or settings.evaluator_image:
            return None
        return NO_ENGINE_IMAGE

    def from_hub(self, job: Evaluation) -> frozenset[str]:
        resolved = job.status.resolved
        base = resolved.base_model if resolved is not None else job.spec.base_model
        found = {"base-model"} if base is not None and from_hub(base.uri) else set()
        return frozenset(found | {"dataset" for task in job.spec.tasks if from_hub(task.dataset.uri)})

    def tells_result(self, stage: str, words: TerminationMessage) -> bool:
        if stage == Stage.MIRROR.value:
            return words.mirrored is not None
        if stage == Stage.PREPARE.value:
            return words.prepared_evaluation is not None
        if stage == Stage.JUDGE.value and words.judge_ready:
            return True
        return words.outcome is not None or (stage == Stage.EVALUATE.value and words.answers_digest is not None)

    def note_result(
        self, job: Evaluation, status: EvaluationStatus, words: TerminationMessage, now: datetime
    ) -> EvaluationStatus:
        if words.mirrored is not None:
            status = note_mirrored(status, words.mirrored)
        if words.prepared_evaluation is not None:
            status = note_prepared(job, status, words.prepared_evaluation)
        if words.answers_digest is not None:
            status = status.model_copy(update={"answers_digest": words.answers_digest})
        if words.judge_ready:
            status = status.model_copy(update={"judge_ready": True})
        outcome = words.outcome
        return note_outcome(job, status, outcome, now) if outcome is not None else status

    def prepared(self, job: Evaluation, status: EvaluationStatus) -> PreparedEvaluation | None:
        return prepared_of(job, status)

    def mirrored(self, status: EvaluationStatus) -> Mirrored | None:
        return mirrored_of(status)

    def completed(self, status: EvaluationStatus) -> str | None:
        verdict = verdict_of(status)
        if status.report_uri is None or verdict is None:
            return None
        return f"{'passed' if verdict.status == 'True' else 'not passed'}: {verdict.message}; see {status.report_uri}"

    def note_progress(self, status: EvaluationStatus, attempt: Attempt) -> EvaluationStatus:
        return note_progress(status, attempt)

    def note_last_figures(self, status: EvaluationStatus, ending: Ending, end: datetime) -> EvaluationStatus:
        """Return the status without the answers that an attempt did not find: they are asked for again."""
        gone = ending.reason == Reason.ANSWERS_MISSING
        return status.model_copy(update={"answers_digest": None}) if gone else status

    def step(self, status: EvaluationStatus) -> int | None:
        return status.progress.tasks_done if status.progress is not None else None

    def lost_seconds(self, status: EvaluationStatus, ending: Ending, end: datetime, seconds: int) -> int:
        return seconds

    def working(self, status: EvaluationStatus, attempt: Attempt) -> tuple[str, str]:
        if attempt.stage == Stage.MIRROR.value:
            return State.MIRRORING.value, mirroring(attempt)
        if attempt.stage == Stage.PREPARE.value:
            return State.PREPARING.value, f"Job {attempt.name} checks the artifacts, and prepares the rows of the tasks"
        if attempt.stage == Stage.JUDGE.value and status.answers_digest is None:
            return (
                State.PREPARING.value,
                f"Job {attempt.name} has a first look at the judge, before anything is answered",
            )
        if attempt.stage == Stage.JUDGE.value and not attempt.publishing:
            return State.EVALUATING.value, f"Job {attempt.name} asks the judge; it holds no accelerator"
        if attempt.publishing:
            return State.PUBLISHING.value, f"Job {attempt.name} compares the scores and writes the report"
        return State.EVALUATING.value, f"Job {attempt.name} asks the tasks"

    def resumes(self, status: EvaluationStatus) -> str:
        return GOES_ON if status.progress is not None and status.progress.tasks_done else ""

    def goes_on_from(self, status: EvaluationStatus) -> str:
        return " with the tasks that are not done" if self.resumes(status) else ""

    def waits_for(self, job: Evaluation) -> str | None:
        return job.spec.target.fine_tune_job_name if needs_resolving(job) else None

    def follows_rollout(self, job: Evaluation) -> str | None:
        return rollout_of(job) if needs_resolving(job) else None

    def hold(self, job: Evaluation, status: EvaluationStatus, found: References) -> Hold[EvaluationStatus] | None:
        try:
            job.spec.check()
        except ValueError as error:
            message = f"{error}; create another Evaluation"
            return Hold(State.SPEC_INVALID.value, message, status, final=True)
        return resolve(job, status, found.upstream, found.rollout)

    def goes_on_without(self, status: EvaluationStatus, stage: str, words: TerminationMessage) -> str:
        """Warn of a trainer that only judges answers, and was to look at a judge before there are any."""
        looked = stage == Stage.JUDGE.value and status.answers_digest is None
        warning = "the trainer's image knows no first look at a judge: whether it can judge shows after the answers"
        return warning if looked and words.message.startswith(NO_LOOK) else ""

    def other_conditions(
        self, job: Evaluation, status: EvaluationStatus, succeeded: Condition, now: datetime
    ) -> list[Condition]:
        verdict = verdict_of(status)
        if succeeded.status == "Unknown":
            message = "; ".join(filter(None, ("the evaluation is not finished", served_nothing(job, status))))
            verdict = make_condition(job, "Unknown", PassedReason.NOT_YET.value, message, now, kind=PASSED)
        elif succeeded.status == "False" or verdict is None:
            message = f"the evaluation ended with {succeeded.reason}, so nothing is known of the adapter"
            verdict = make_condition(job, "False", PassedReason.EVALUATION_FAILED.value, message, now, kind=PASSED)
        kept = [condition for condition in status.conditions if condition.type not in (succeeded.type, PASSED)]
        return [verdict, *kept]

    def other_notes(self, job: Evaluation, conditions: list[Condition]) -> tuple[Note, ...]:
        """Return the event of the verdict; that there is none is told by the event of `Succeeded`."""
        silent = (PassedReason.NOT_YET.value, PassedReason.EVALUATION_FAILED.value)
        verdicts = [each for each in conditions if each.type == PASSED and each.reason not in silent]
        return tuple(note for verdict in verdicts for note in notes_of(job, verdict))


def _is_past_the_look(status: EvaluationStatus) -> bool:
    """Tell by its attempts what `judgeReady` does not: definition, image or the first operator may be of before."""
    looked = (Reason.COMPLETED, Reason.SETTINGS_INVALID)  # where that did not end it, the image knows no look
    return any(
        each.stage == Stage.EVALUATE.value or (each.stage == Stage.JUDGE.value and each.reason in looked)
        for each in status.attempts
    )


def _asks_endpoint(job: Evaluation) -> bool:
    return asks_endpoint(job.spec.tasks, job.spec.judge.endpoint if job.spec.judge is not None else None)


def _by_vllm(job: Evaluation) -> bool:
    return job.spec.engine is EvaluationEngine.VLLM
