"""How a FineTuneSweep judges: what a trial's value is, and the final of the best on rows that none has seen."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from trimtab_trainer.contract import EvaluationTask, Model, Threshold, check_tasks_and_thresholds
from trimtab_trainer.contract.evaluation import LOWER_IS_BETTER, METRIC_PATH, NO_ANCHOR, RESULTS, TaskType
from trimtab_trainer.contract.model import rules
from trimtab_trainer.contract.sweeps.settings import Direction

from .evaluation import THRESHOLD_RULES, EvaluationBaseline
from .finetunejob import SECRET_NAME
from .pods.scheduling import LABEL_VALUE

MAXIMUM_SWEEP_TASKS = 8
"""Few enough that every headline has its place in an Evaluation's status."""
MAXIMUM_SWEEP_THRESHOLDS = 16
MAXIMUM_FINALISTS = 10
TRIAL_ID = Annotated[str, Field(max_length=8, pattern=r"^[0-9a-f]{8}$")]

_NAMES_A_TASK = (
    "self.tasks.exists(t, self.metric.startsWith(t.name + '/'))",
    "the first part of metric must be the name of a task",
)
_NOT_BOTH = "metric and evaluation exclude each other; set one"


class SweepTemplateMetadata(Model):
    """Labels and annotations of what a sweep makes."""

    labels: dict[str, LABEL_VALUE] = Field(default={}, max_length=32, description="labels, such as a Kueue queue.")
    annotations: dict[str, Annotated[str, Field(max_length=4096)]] = Field(
        default={}, max_length=32, description="annotations."
    )


NO_JUDGES = "Judge tasks are for Evaluations of their own: a sweep has no judge"
_NO_JUDGES = ("self.tasks.all(t, t.type != 'Judge')", NO_JUDGES)


class SweepEvaluation(Model):
    """What the adapter of a trial is asked, and the figure of the answers that counts.

    Base model, output and Secrets are those of the trial; pods and retries are as its own.
    """

    model_config = ConfigDict(json_schema_extra=rules(_NAMES_A_TASK, _NO_JUDGES))

    tasks: list[EvaluationTask] = Field(
        min_length=1,
        max_length=MAXIMUM_SWEEP_TASKS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="tasks, as of an Evaluation.",
    )
    metric: METRIC_PATH = Field(description="metric that counts, as <task>/<result>, such as answers/rougeL.")
    dataset_secret_name: SECRET_NAME | None = Field(
        default=None,
        description="datasetSecretName of a Secret with the keys for the tasks' uris; absent: that of the template's "
        "dataset.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="batchSize of forward passes; derived from the memory if absent."
    )

    @property
    def task(self) -> EvaluationTask | None:
        """The task of the metric."""
        name = self.metric.partition("/")[0]
        return next((each for each in self.tasks if each.name == name), None)

    @property
    def better(self) -> Direction | None:
        """Which values of the metric are better; None of a Harness task, whose YAML file says it."""
        task = self.task
        if task is None or task.type is TaskType.HARNESS:
            return None
        return Direction.MINIMIZE if self.metric.partition("/")[2] in LOWER_IS_BETTER else Direction.MAXIMIZE

    def check(self) -> None:
        """Refuse a metric that the tasks cannot have.

        Raises:
            ValueError: with what there is instead.
        """
        if any(task.type is TaskType.JUDGE for task in self.tasks):
            raise ValueError(NO_JUDGES)
        if len({task.name for task in self.tasks}) < len(self.tasks):
            raise ValueError("every task needs a name of its own")
        task, name = self.task, self.metric.partition("/")[2]
        if task is None:
            names = ", ".join(each.name for each in self.tasks)
            raise ValueError(f"metric {self.metric} is of none of its tasks; there are {names}")
        figures = [figure for metric in task.chosen_metrics for figure in RESULTS[metric]]
        if task.type is not TaskType.HARNESS and name not in figures:
            raise ValueError(f"metric {self.metric}: task {task.name} gives {', '.join(figures)}")


class FinalEvaluation(SweepEvaluation):
    """What the best are asked once more, and what is good enough."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _NAMES_A_TASK,
            _NO_JUDGES,
            *THRESHOLD_RULES,
            (
                "!has(self.thresholds) || self.thresholds.all(t, has(t.confidence))",
                "thresholds of the final need confidence: the best of several is better by chance",
            ),
            ("!has(self.thresholds) || self.thresholds.all(t, !has(t.against))", NO_ANCHOR),
        )
    )

    baseline: EvaluationBaseline | None = Field(default=None, description="baseline, as of an Evaluation.")
    thresholds: list[Threshold] = Field(
        default=[],
        max_length=MAXIMUM_SWEEP_THRESHOLDS,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="thresholds, as of an Evaluation. Each is tested at 1 - (1 - confidence) / topTrials, so that the "
        "best of topTrials adapters is let through wrongly no more often than one alone. Without any, all pass.",
    )

    def check(self) -> None:
        super().check()
        check_tasks_and_thresholds(self.tasks, self.thresholds, has_baseline=self.baseline is not None)
        if any(each.confidence is None for each in self.thresholds):
            raise ValueError("thresholds of the final need confidence: the best of several is better by chance")


class Objective(Model):
    """What a trial is judged by."""

    model_config = ConfigDict(json_schema_extra=rules(("!has(self.metric) || !has(self.evaluation)", _NOT_BOTH)))

    metric: Literal["validationLoss", "bitsPerByte"] | None = Field(
        default=None,
        description="metric of the rows that are held out for validation, of the adapter that was published: "
        "validationLoss in nats per supervised token (the default), or bitsPerByte of what is learned of them, which "
        "can be compared between base models.",
    )
    evaluation: SweepEvaluation | None = Field(
        default=None, description="evaluation that each trial gets, each of its folds one."
    )
    direction: Direction = Field(default=Direction.MINIMIZE, description="direction that is better.")

    @property
    def figure(self) -> str:
        """The name of what is judged by."""
        return self.evaluation.metric if self.evaluation is not None else self.metric or "validationLoss"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.metric is not None and self.evaluation is not None:
            raise ValueError(_NOT_BOTH)
        return self


class Final(Model):
    """The best trials, judged once more on rows that none of them has seen."""

    top_trials: int = Field(default=3, ge=1, le=MAXIMUM_FINALISTS, description="topTrials that take part.")
    evaluation: FinalEvaluation = Field(description="evaluation of each of them.")
    direction: Direction | None = Field(
        default=None,
        description="direction of the evaluation's metric that is better; needed for a Harness task alone, of others "
        "it is known.",
    )
    metadata: SweepTemplateMetadata = Field(
        default=SweepTemplateMetadata(),
        description="metadata of the winner's Evaluation, which has the sweep's name: an AdapterRollout may follow it "
        "by these labels, which no other Evaluation of the sweep has.",
    )


class FinalState(StrEnum):
    """What became of one of the best."""

    RUNNING = "Running"
    TRAINED = "Trained"
    PASSED = "Passed"
    NOT_PASSED = "NotPassed"
    FAILED = "Failed"


class FinalTrial(Model):
    """One of the best, as it was trained on all rows and judged."""

    id: TRIAL_ID = Field(description="id of the trial.")
    fine_tune_job_name: str = Field(max_length=63, description="fineTuneJobName of its adapter: of folds, of all rows.")
    evaluation_name: str | None = Field(default=None, max_length=63, description="evaluationName of the final.")
    state: FinalState = Field(default=FinalState.RUNNING, description="state of it.")
    reason: str | None = Field(default=None, max_length=64, description="reason of the verdict, or of the failure.")
    value: float | None = Field(default=None, description="value of the final's metric.")
    low: float | None = Field(default=None, description="low end of the value's 95 % interval.")
    high: float | None = Field(default=None, description="high end of the value's 95 % interval.")
    accelerator_seconds: int = Field(default=0, ge=0, description="acceleratorSeconds that it took beside the trial.")
