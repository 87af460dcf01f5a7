"""The answer of an Evaluation: what stands in its status. The question is in `evaluation`."""

from __future__ import annotations

from pydantic import Field, computed_field
from trimtab_trainer.contract import BOUNDS, BoundName, Model
from trimtab_trainer.contract.evaluation import Against
from trimtab_trainer.contract.settings import DIGEST

from .finetunejob import SECRET_NAME, BaseModelSource, OutputTarget
from .work import WorkStatus

RESULTS_KEPT = 32
"""At most; as many are written as leave the status below 10 kB, the rest is in the report."""


class ModelStatus(Model):
    """A model that took part."""

    uri: str | None = Field(default=None, max_length=1200, description="uri of the adapter; absent: base model alone.")
    digest: DIGEST | None = Field(default=None, description="digest of the adapter; absent: base model alone.")


class EvaluationSources(Model):
    """Where model and data are read and the answer is written, and with which Secrets: fixed before the first Job."""

    base_model: BaseModelSource = Field(description="baseModel that is evaluated with.")
    dataset_secret_name: SECRET_NAME | None = Field(
        default=None, description="datasetSecretName of the Secret with the keys for the tasks' uris."
    )
    output: OutputTarget = Field(description="output for scores and reports.")
    target_secret_name: SECRET_NAME | None = Field(
        default=None, description="targetSecretName of the Secret with the keys for the target's artifact."
    )
    baseline_secret_name: SECRET_NAME | None = Field(
        default=None, description="baselineSecretName of the Secret with the keys for the baseline's artifact."
    )


class FailedCheck(Model):
    """A threshold that was not kept, or is not decided."""

    bound: BoundName = Field(description="bound of the threshold.")
    limit: float = Field(description="limit that is set.")
    estimate: float | None = Field(default=None, description="estimate it was compared with.")
    reason: str = Field(max_length=64, description="reason in one word.")
    against: Against | None = Field(
        default=None, description="against: Anchor where the baseline is not what it was held against."
    )
    rows_needed: int | None = Field(
        default=None, ge=0, description="rowsNeeded for a decision, where the rows did not suffice."
    )
    clusters_needed: int | None = Field(
        default=None,
        ge=0,
        description="clustersNeeded: in how many clusters like those at hand these rows have to be; absent where each "
        "row stands alone.",
    )


class ResultStatus(Model):
    """One figure of one task, with its 95 % interval."""

    task: str = Field(max_length=40, description="task that was asked.")
    metric: str = Field(max_length=64, description="metric of the task.")
    value: float | None = Field(default=None, description="value over all rows.")
    low: float | None = Field(default=None, description="low end of the value's interval.")
    high: float | None = Field(default=None, description="high end of the value's interval.")
    count: int = Field(default=0, ge=0, description="count of rows.")
    baseline: float | None = Field(default=None, description="baseline's value.")
    change: float | None = Field(default=None, description="change against the baseline: value - baseline.")
    anchor: float | None = Field(default=None, description="anchor's value.")
    anchor_change: float | None = Field(default=None, description="anchorChange against the anchor: value - anchor.")
    passed: bool | None = Field(default=None, description="passed: whether its thresholds are kept; absent: has none.")
    failed: list[FailedCheck] = Field(
        default=[],
        max_length=2 * len(BOUNDS),
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="failed bounds of its thresholds, the first of each kind, against baseline and anchor apart.",
    )


class EvaluationProgress(Model):
    """How far the evaluation is."""

    tasks_done: int = Field(default=0, ge=0, description="tasksDone, of target, baseline and anchor together.")
    tasks: int = Field(default=0, ge=0, description="tasks, of target, baseline and anchor together.")
    percent: int = Field(default=0, ge=0, le=100, description="percent of the tasks that are done.")


class EvaluationSummary(Model):
    """What `kubectl get` prints: for people, derived from the rest of the status."""

    progress: str | None = Field(default=None, max_length=8, description="progress in percent, such as 42%.")
    metric: str | None = Field(default=None, max_length=104, description="metric that is the headline.")
    value: str | None = Field(default=None, max_length=16, description="value of the headline metric.")
    change: str | None = Field(default=None, max_length=16, description="change of the headline metric.")

    @classmethod
    def of(cls, progress: EvaluationProgress | None, results: list[ResultStatus]) -> EvaluationSummary | None:
        """Return the summary of these sections, or None if there is nothing to print."""
        first = results[0] if results else None
        summary = cls(
            progress=None if progress is None else f"{progress.percent}%",
            metric=None if first is None else f"{first.task}/{first.metric}",
            value=None if first is None or first.value is None else f"{first.value:.4g}"[:16],
            change=None if first is None or first.change is None else f"{first.change:+.3g}"[:16],
        )
        return summary if summary != cls() else None


class EvaluationStatus(WorkStatus):
    """What was found; rows, curves and the rest lie in object storage."""

    progress: EvaluationProgress | None = Field(default=None, description="progress of the evaluation.")
    target: ModelStatus | None = Field(default=None, description="target as it was found.")
    baseline: ModelStatus | None = Field(default=None, description="baseline as it was found.")
    anchor: ModelStatus | None = Field(default=None, description="anchor as it was found.")
    resolved: EvaluationSources | None = Field(
        default=None,
        description="resolved from FineTuneJob and AdapterRollout, which are not needed any more; absent where the "
        "spec names neither.",
    )
    base_model_digest: DIGEST | None = Field(default=None, description="baseModelDigest that was found.")
    data_digest: DIGEST | None = Field(default=None, description="dataDigest of the rows as they are asked.")
    evaluation_digest: DIGEST | None = Field(
        default=None, description="evaluationDigest of everything that defines the answer."
    )
    judge_ready: bool | None = Field(
        default=None,
        description="judgeReady: the judge's endpoint took a first question, before an accelerator was asked for.",
    )
    answers_digest: DIGEST | None = Field(
        default=None, description="answersDigest of what is to be judged by an endpoint, or was."
    )
    rows: int | None = Field(default=None, ge=0, description="rows of all tasks.")
    looks: int | None = Field(
        default=None,
        ge=0,
        description="looks: how many Evaluations that wrote to this output have seen the most used of these rows, this "
        "one included. Of many candidates at a limit one passes by luck.",
    )
    report_uri: str | None = Field(
        default=None, alias="reportURI", max_length=1200, description="reportURI of report.html."
    )
    results: list[ResultStatus] = Field(
        default=[],
        max_length=RESULTS_KEPT,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["task", "metric"]},
        description="results: those with thresholds first, then each task's headline; the rest is in the report.",
    )
    results_omitted: int = Field(default=0, ge=0, description="resultsOmitted: how many are in the report only.")

    @computed_field(  # type: ignore[prop-decorator]  # mypy knows no property that is decorated
        description="summary is what kubectl get prints; programs read the other fields."
    )
    @property
    def summary(self) -> EvaluationSummary | None:
        """Derived: written with the rest and never read back."""
        return EvaluationSummary.of(self.progress, self.results)
