"""FineTuneSweep: a search for the best hyperparameters, base model or data, whose trials are FineTuneJobs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, computed_field, model_validator
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.model import rules
from trimtab_trainer.contract.settings import DIGEST
from trimtab_trainer.contract.sweeps.checks import ADAPTERS_JUDGED, NOTHING_OF_LORA, needs_test_split
from trimtab_trainer.contract.sweeps.settings import (
    MAXIMUM_PARAMETERS,
    MAXIMUM_TRIALS,
    NAME_LENGTH,
    Algorithm,
    SweepParameter,
    TrialState,
)

from .definitions.customresource import AGE, OF_SUCCEEDED, CustomObject, CustomResource, condition_path
from .finetunejob import FineTuneJobSpec
from .status.conditions import NOT_UNDERSTOOD, SUCCEEDED, Condition
from .status.reasons import Explanation
from .status.summary import SummarizedStatus
from .sweep_judging import MAXIMUM_FINALISTS, TRIAL_ID, Final, FinalTrial, Objective, SweepTemplateMetadata

MAXIMUM_RUNGS = 24
"""The most steps of a run, 10,000,000, halved so often are less than one."""
RUNGS_ARE_VALIDATED = (
    "pruning.minimumSteps must be a multiple of template.spec.training.evaluateEverySteps: trials are compared by "
    "their validation at that step"
)
PRUNED_BY_LOSS = (
    "pruning compares trials by their validationLoss; leave it out, or take objective.metric validationLoss"
)


class SweepState(StrEnum):
    """Reasons of a sweep's `Succeeded`."""

    SEARCHING = "Searching"
    REFITTING = "Refitting"
    JUDGING = "Judging"
    SUSPENDED = "Suspended"
    TRIAL_REFUSED = "TrialRefused"
    NAME_TAKEN = "NameTaken"
    SEARCH_CHANGED = "SearchChanged"
    NOT_UNDERSTOOD = NOT_UNDERSTOOD
    COMPLETED = "Completed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    SPEC_INVALID = "SpecInvalid"
    TRIALS_FAILED = "TrialsFailed"
    NONE_PASSED = "NonePassed"
    REFIT_FAILED = "RefitFailed"


class SweepTemplate(Model):
    """The FineTuneJob that every trial is, but for the parameters."""

    metadata: SweepTemplateMetadata = Field(default=SweepTemplateMetadata(), description="metadata of the trials.")
    spec: FineTuneJobSpec = Field(
        description="spec of a FineTuneJob. suspend and ttlSecondsAfterFinished of it are not used: the sweep's are."
    )


class SweepBudget(Model):
    """What the search may cost."""

    accelerator_seconds: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000_000,
        description="acceleratorSeconds of all trials together: none is begun that would exceed them, by the mean of "
        "those that are done.",
    )


class Pruning(Model):
    """When a trial is stopped that is worse than others at the same step; it goes on if it turns out to be good."""

    type: Literal["SuccessiveHalving"] = Field(
        default="SuccessiveHalving",
        description="type is SuccessiveHalving, asynchronous and with pauses (arXiv 1810.05934v5, algorithm 2).",
    )
    reduction_factor: int = Field(
        default=3,
        ge=2,
        le=16,
        description="reductionFactor: one of so many trials goes on at a rung, and so far apart are the rungs.",
    )
    minimum_steps: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="minimumSteps are the optimizer steps of the first rung; each further one has reductionFactor "
        "times the steps of the one before.",
    )


_NEEDS_VALIDATION = "the objective needs template.spec.dataset.validation, or folds, or an evaluation"
_ADAPTED = (
    "!has(self.template.spec.lora) || !has(self.template.spec.lora.type) || self.template.spec.lora.type != 'None'"
)
_SEEN = "final must be judged on other rows than the objective; take dataset.uri in one of them"


class FineTuneSweepSpec(Model):
    """What to search, how, and within which limits."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.parameters == oldSelf.parameters", "parameters is immutable; create another FineTuneSweep instead"),
            (
                "has(self.algorithm) == has(oldSelf.algorithm) && "
                "(!has(self.algorithm) || self.algorithm == oldSelf.algorithm)",
                "algorithm is immutable; create another FineTuneSweep instead",
            ),
            (
                "has(self.objective) == has(oldSelf.objective) && "
                "(!has(self.objective) || self.objective == oldSelf.objective)",
                "objective is immutable; create another FineTuneSweep instead",
            ),
            (
                "has(self.folds) == has(oldSelf.folds) && (!has(self.folds) || self.folds == oldSelf.folds)",
                "folds is immutable; create another FineTuneSweep instead",
            ),
            (
                "has(self.pruning) == has(oldSelf.pruning) && (!has(self.pruning) || self.pruning == oldSelf.pruning)",
                "pruning is immutable; create another FineTuneSweep instead",
            ),
            (
                "!has(self.pruning) || !has(self.template.spec.training) || "
                "self.pruning.minimumSteps % self.template.spec.training.evaluateEverySteps == 0",
                RUNGS_ARE_VALIDATED,
            ),
            (
                "has(self.final) == has(oldSelf.final) && (!has(self.final) || self.final == oldSelf.final)",
                "final is immutable; create another FineTuneSweep instead",
            ),
            (
                "!has(self.pruning) || !has(self.objective) || (!has(self.objective.evaluation) && "
                "(!has(self.objective.metric) || self.objective.metric == 'validationLoss'))",
                PRUNED_BY_LOSS,
            ),
            (
                "has(self.folds) || has(self.template.spec.dataset.validation) || has(self.objective.evaluation)",
                _NEEDS_VALIDATION,
            ),
            (
                "!has(self.folds) || !has(self.template.spec.dataset.validation) || "
                "has(self.template.spec.dataset.validation.folds)",
                "folds take the place of template.spec.dataset.validation; remove its fraction or uri",
            ),
            (
                "!has(self.final) || has(self.template.spec.dataset.test) || "
                "self.final.evaluation.tasks.all(t, !has(t.dataset.split))",
                needs_test_split("final"),
            ),
            (
                "!has(self.objective.evaluation) || has(self.template.spec.dataset.test) || "
                "self.objective.evaluation.tasks.all(t, !has(t.dataset.split))",
                needs_test_split("objective"),
            ),
            (
                "!has(self.final) || !has(self.objective.evaluation) || "
                "self.objective.evaluation.tasks.all(t, !has(t.dataset.split)) || "
                "self.final.evaluation.tasks.all(t, !has(t.dataset.split))",
                _SEEN,
            ),
            (
                f"{_ADAPTED} || !self.parameters.exists(p, p.name.startsWith('lora.') && p.name != 'lora.type')",
                NOTHING_OF_LORA,
            ),
            (
                f"{_ADAPTED} || (!has(self.final) && (!has(self.objective) || !has(self.objective.evaluation)))",
                ADAPTERS_JUDGED,
            ),
        )
    )

    template: SweepTemplate = Field(description="template of the trials.")
    parameters: list[SweepParameter] = Field(
        min_length=1,
        max_length=MAXIMUM_PARAMETERS,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="parameters that are searched.",
    )
    algorithm: Algorithm = Field(default=Algorithm(), description="algorithm that chooses the next trials.")
    objective: Objective = Field(default=Objective(), description="objective that trials are judged by.")
    folds: int | None = Field(
        default=None,
        ge=2,
        le=20,
        description="folds of a cross-validation: a trial is one FineTuneJob for each, its value their mean.",
    )
    final: Final | None = Field(
        default=None, description="final of the best trials, on rows that none of them has seen."
    )
    max_trials: int = Field(default=20, ge=1, le=MAXIMUM_TRIALS, description="maxTrials that are begun at most.")
    parallel_trials: int = Field(default=1, ge=1, le=50, description="parallelTrials that run at the same time.")
    budget: SweepBudget | None = Field(default=None, description="budget of the search.")
    pruning: Pruning | None = Field(
        default=None, description="pruning of trials that are worse than others; absent: each is trained to its end."
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="activeDeadlineSeconds after startTime, pauses included, at which the search ends: no trial is "
        "begun or goes on.",
    )
    stop_after_trials_without_improvement: int | None = Field(
        default=None,
        ge=1,
        le=MAXIMUM_TRIALS,
        description="stopAfterTrialsWithoutImprovement ends the search when so many in a row were no better.",
    )
    retain_trials: Literal["All", "Best"] = Field(
        default="All",
        description="retainTrials is All or Best: what becomes of the other FineTuneJobs at the end. What they "
        "published stays in the bucket.",
    )
    suspend: bool = Field(
        default=False, description="suspend stops all trials after a checkpoint; false goes on from there."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=315_360_000,
        description="ttlSecondsAfterFinished after which the FineTuneSweep and its trials are deleted; what they "
        "published stays. It waits for who waits for a trial that has ended, or for an Evaluation of the sweep.",
    )

    @model_validator(mode="after")
    def _has_a_value(self) -> Self:
        validation = self.template.spec.dataset.validation
        if self.folds is None and validation is None and self.objective.evaluation is None:
            raise ValueError(_NEEDS_VALIDATION)
        if self.folds is not None and validation is not None and validation.folds is None:
            raise ValueError("folds take the place of template.spec.dataset.validation; remove its fraction or uri")
        every = self.template.spec.training.evaluate_every_steps
        if self.pruning is not None and self.objective.figure != "validationLoss":
            raise ValueError(PRUNED_BY_LOSS)
        if self.pruning is not None and self.pruning.minimum_steps % every:
            raise ValueError(RUNGS_ARE_VALIDATED)
        return self


class TrialStatus(Model):
    """One point of the search."""

    id: TRIAL_ID = Field(description="id: digits of its parameters; its FineTuneJob is <sweep>-<id>.")
    point: list[float] = Field(
        max_length=MAXIMUM_PARAMETERS,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="point: for each parameter the number, or the position in the list of values, from 0.",
    )
    state: TrialState = Field(default=TrialState.RUNNING, description="state of the trial.")
    value: float | None = Field(default=None, description="value of the objective; of folds their mean.")
    standard_error: float | None = Field(default=None, ge=0, description="standardError of the mean over folds.")
    reason: str | None = Field(default=None, max_length=64, description="reason it has no value.")
    accelerator_seconds: int | None = Field(default=None, ge=0, description="acceleratorSeconds it took.")
    rung_values: list[float] | None = Field(
        default=None,
        max_length=MAXIMUM_RUNGS,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="rungValues: the validation loss at each rung of pruning that it reached; of folds their mean.",
    )


class SweepArtifact(Model):
    """An adapter that was published."""

    uri: str = Field(max_length=1200, description="uri of the adapter's folder.")
    digest: DIGEST = Field(description="digest of what defines the adapter's behaviour.")


class BestTrial(Model):
    """The best trial so far."""

    id: TRIAL_ID = Field(description="id of the trial.")
    fine_tune_job_name: str = Field(
        max_length=63, description="fineTuneJobName of the trial; of folds the first, at the end that of all rows."
    )
    parameters: dict[str, Annotated[Any, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]] = (
        Field(max_length=MAXIMUM_PARAMETERS, description="parameters of the trial, by path.")
    )
    value: float = Field(description="value of the objective.")
    standard_error: float | None = Field(default=None, ge=0, description="standardError of the mean over folds.")
    artifact: SweepArtifact | None = Field(
        default=None, description="artifact it published; of folds that of all rows, at the end."
    )


class SweepSummary(Model):
    """What `kubectl get` prints: for people, derived from the rest of the status."""

    trials: str | None = Field(default=None, max_length=24, description="trials done/running/at most, such as 3/2/24.")
    best: str | None = Field(default=None, max_length=16, description="best value, with four digits.")


class FineTuneSweepStatus(SummarizedStatus):
    """What is known of the search."""

    observed_generation: int | None = Field(default=None, ge=0, description="observedGeneration of the spec.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="conditions: Succeeded, whose reason is the state, and Reported, whether its page is written.",
    )
    start_time: str | None = Field(
        default=None,
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="startTime of the first trial.",
    )
    completion_time: str | None = Field(
        default=None, max_length=32, json_schema_extra={"format": "date-time"}, description="completionTime of the end."
    )
    max_trials: int | None = Field(default=None, ge=0, description="maxTrials of the spec that was looked at.")
    search_digest: DIGEST | None = Field(
        default=None, description="searchDigest of what is searched and how, as it was when the first trial was chosen."
    )
    exhausted: bool | None = Field(default=None, description="exhausted: every point of the search space was tried.")
    metric: str | None = Field(default=None, max_length=104, description="metric that trials are judged by.")
    validation_digest: DIGEST | None = Field(
        default=None,
        description="validationDigest of the rows that trials are compared by: of the first with a value, or at a "
        "rung.",
    )
    best: BestTrial | None = Field(default=None, description="best trial so far; after a final, its winner.")
    final: list[FinalTrial] = Field(
        default=[],
        max_length=MAXIMUM_FINALISTS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
        description="final: the best trials, the best by the search first, and what became of each.",
    )
    importance: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None,
        max_length=MAXIMUM_PARAMETERS,
        description="importance of each parameter by its path, as it was when the page was written: its share in what "
        "sets the best quarter of the trials apart from all; empty where there are too few to tell.",
    )
    report_uri: str | None = Field(
        default=None,
        alias="reportURI",
        max_length=1200,
        description="reportURI of the page of the search, sweep.html; absent without one.",
    )
    report_request: str | None = Field(
        default=None,
        max_length=63,
        description="reportRequest: value of the label trimtab.dev/report that was answered.",
    )
    accelerator_seconds: int = Field(
        default=0, ge=0, description="acceleratorSeconds of all trials so far, and of what followed the search."
    )
    saved_accelerator_seconds: int | None = Field(
        default=None,
        ge=0,
        description="savedAcceleratorSeconds by pruning, an estimate: for each trial that was paused, the mean of "
        "those that were trained to their end without what it took.",
    )
    shared_accelerator_seconds: int | None = Field(
        default=None,
        ge=0,
        description="sharedAcceleratorSeconds that were saved by sharing, an estimate: for each trial whose result was "
        "there already, found by its run digest, the mean of those that were trained.",
    )
    trials: list[TrialStatus] = Field(
        default=[],
        max_length=MAXIMUM_TRIALS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
        description="trials in the order in which they were begun.",
    )

    @computed_field(  # type: ignore[prop-decorator]  # mypy knows no property that is decorated
        description="summary is what kubectl get prints; programs read the other fields."
    )
    @property
    def summary(self) -> SweepSummary | None:
        """Derived: written with the rest and never read back."""
        if not self.trials:
            return None
        running = sum(each.state is TrialState.RUNNING for each in self.trials)
        over = sum(each.state.is_over for each in self.trials)
        return SweepSummary(
            trials=f"{over}/{running}/{self.max_trials or len(self.trials)}",
            best=f"{self.best.value:.4g}"[:16] if self.best is not None else None,
        )


class FineTuneSweep(CustomObject):
    """FineTuneSweep searches the settings with which a FineTuneJob becomes best. Its trials are FineTuneJobs."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (f"self.metadata.name.size() <= {NAME_LENGTH}", f"name must have at most {NAME_LENGTH} characters"),
        ),
    )

    spec: FineTuneSweepSpec = Field(description="spec is what to search, how, and within which limits.")
    status: FineTuneSweepStatus = Field(
        default=FineTuneSweepStatus(), description="status is what is known of the search."
    )

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        """Return the typed form; fields of the spec that are not known stay in it, for they are handed on to trials.

        Raises:
            pydantic.ValidationError: it has a value that this version does not know.
        """
        spec = FineTuneSweepSpec.model_validate(body.get("spec"), extra="allow")
        return super().parse(body).model_copy(update={"spec": spec})


REPORTED = "Reported"
"""Type of the condition that says whether the page of a search is written. No end depends on it."""


class ReportReason(StrEnum):
    """Reasons of `Reported`."""

    WRITING = "Writing"
    WRITTEN = "Written"
    FAILED = "ReportFailed"


_OF_REPORTED = {
    ReportReason.WRITING: Explanation("active", "A Job writes the page and the trials into the bucket.", "Nothing."),
    ReportReason.WRITTEN: Explanation(
        "succeeded", "Both are in the bucket; the message says where.", "Open `status.reportURI`."
    ),
    ReportReason.FAILED: Explanation(
        "failed",
        "They could not be written, twice; the message says why. The search itself is none the worse.",
        "Mend what the message names, and give the label `trimtab.dev/report` another value.",
    ),
}

_EXPLANATIONS = {
    SweepState.SEARCHING: Explanation("active", "Trials run, or the next ones are chosen.", "Nothing."),
    SweepState.REFITTING: Explanation(
        "active",
        "The search has ended; with the settings of the best trials adapters are trained on all rows, because those of "
        "folds have seen a part of them.",
        "Nothing.",
    ),
    SweepState.JUDGING: Explanation(
        "active", "The best trials are judged once more, on rows that none of them has seen.", "Nothing."
    ),
    SweepState.SUSPENDED: Explanation(
        "active",
        "`spec.suspend` is true; the trials have written checkpoints, and no new one is begun.",
        "Set `spec.suspend: false`, and they go on from there.",
    ),
    SweepState.TRIAL_REFUSED: Explanation(
        "active",
        "The namespace refuses the FineTuneJob of a trial: a quota, a policy or a webhook, with its words.",
        "Change what refuses it; it is tried again.",
    ),
    SweepState.NAME_TAKEN: Explanation(
        "active",
        "Something else has the name of a FineTuneJob or an Evaluation of the sweep.",
        "Delete or rename that; the sweep goes on.",
    ),
    SweepState.SEARCH_CHANGED: Explanation(
        "active",
        "`parameters`, `algorithm`, `objective` or `folds` are not what the trials were chosen by; what runs goes "
        "on, and nothing else is done.",
        "Set them back, or create another sweep.",
    ),
    SweepState.NOT_UNDERSTOOD: Explanation(
        "active",
        "The object has a value that this version of the operator does not know; nothing of it is touched.",
        "Upgrade the operator.",
    ),
    SweepState.COMPLETED: Explanation(
        "succeeded", "The search has ended; the message says why, and which trial is best.", "Use `status.best`."
    ),
    SweepState.DEADLINE_EXCEEDED: Explanation(
        "failed",
        "`activeDeadlineSeconds` were over before any trial had a value, or before what `folds` and `final` ask for "
        "had come to its end.",
        "Create the sweep again with more time, or trials that take less; what was published is not trained again.",
    ),
    SweepState.SPEC_INVALID: Explanation(
        "failed", "A parameter cannot be searched; the message names it.", "Create the sweep again with another one."
    ),
    SweepState.TRIALS_FAILED: Explanation(
        "failed",
        "No trial has a value, or three ended with the same fault of the data or of the settings that all share.",
        "Mend what the message names, and create the sweep again; what was published is not trained again.",
    ),
    SweepState.NONE_PASSED: Explanation(
        "failed",
        "None of the best trials has passed the final (`status.final`); `status.best` is the best by the search.",
        "Look at the Evaluations; train on more or better rows, or set other thresholds.",
    ),
    SweepState.REFIT_FAILED: Explanation(
        "failed",
        "The best settings are known (`status.best`), but no adapter of all rows could be trained with them.",
        "Look at the FineTuneJob that the message names; create one with these settings.",
    ),
}

FINETUNESWEEP = CustomResource(
    model=FineTuneSweep,
    spec=FineTuneSweepSpec,
    status=FineTuneSweepStatus,
    plural="finetunesweeps",
    short_name="fts",
    columns=(
        ("State", "string", condition_path(SUCCEEDED, "reason"), "What the sweep is doing, or how it ended."),
        ("Trials", "string", ".status.summary.trials", "Trials done/running/at most."),
        ("Best", "string", ".status.summary.best", "Best value so far."),
        ("Metric", "string", ".status.metric", "Metric of the value."),
        AGE,
    ),
    wide_columns=(
        ("Message", "string", condition_path(SUCCEEDED, "message"), "Why, and what to do next."),
        ("Trial", "string", ".status.best.fineTuneJobName", "FineTuneJob of the best trial."),
        ("Report", "string", ".status.reportURI", "Where the page of the search is."),
    ),
    summary=SUCCEEDED,
    embeds={"spec.template.spec": "FineTuneJob"},
    writers="Who may create them may create pods with any Secret and any service account of the namespace.",
    reasons={
        SUCCEEDED: (OF_SUCCEEDED, {each.value: told for each, told in _EXPLANATIONS.items()}),
        REPORTED: (
            "Whether the page of the search is written. It is absent before that is tried, and decides nothing.",
            {each.value: told for each, told in _OF_REPORTED.items()},
        ),
    },
)
