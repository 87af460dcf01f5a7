"""Evaluation: an immutable question about an adapter; its recorded answer is in `evaluation_status`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator
from trimtab_trainer.contract import (
    EvaluationEngine,
    EvaluationTask,
    Model,
    Precision,
    QuantizationSettings,
    Threshold,
    check_tasks_and_thresholds,
)
from trimtab_trainer.contract.evaluation import (
    ANCHOR_ALONE,
    MAXIMUM_TASKS,
    MAXIMUM_THRESHOLDS,
    NO_ANCHOR,
    NO_JUDGE,
    NO_ODDS,
    NO_PAIR,
    ONE_PLACE,
    UNQUANTIZED_ENGINE,
    check_engine,
    check_judge,
    check_resamples,
)
from trimtab_trainer.contract.judging import ENDPOINT_MODEL, ENDPOINT_URL, endpoint_trouble
from trimtab_trainer.contract.model import rules
from trimtab_trainer.contract.settings import DIGEST, OBJECT_URI

from .definitions.customresource import AGE, OF_SUCCEEDED, CustomObject, CustomResource, condition_path
from .evaluation_status import EvaluationStatus
from .finetunejob import (
    NAME_LENGTH,
    SECRET_NAME,
    BaseModelSource,
    OutputTarget,
    unchanged,
)
from .pods.names import OBJECT_NAME
from .pods.resources import check_one_device, one_device_rule
from .pods.template import PodTemplate
from .status.conditions import PASSED, SUCCEEDED
from .status.reasons import EVALUATION_EXPLANATIONS, OF_WARNED, PASSED_EXPLANATIONS
from .work import RetryBudgets


class Artifact(Model):
    """A published adapter, pinned by its digest."""

    uri: OBJECT_URI = Field(description="uri of the adapter's folder, <output>/adapters/<digest>.")
    digest: DIGEST = Field(description="digest the adapter must have.")
    secret_name: SECRET_NAME | None = None


class EvaluationTarget(Model):
    """What is evaluated: the adapter of a FineTuneJob, any other adapter, or the base model alone."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.fineTuneJobName), has(self.artifact), has(self.baseModel)].filter(x, x).size() == 1",
                "exactly one of fineTuneJobName, artifact and baseModel must be set",
            ),
        )
    )

    fine_tune_job_name: OBJECT_NAME | None = Field(
        default=None,
        description="fineTuneJobName of this namespace, whose adapter is waited for. Base model, data, output and "
        "Secrets are taken from it where this object does not set them.",
    )
    artifact: Artifact | None = Field(default=None, description="artifact that was published before.")
    base_model: Literal[True] | None = Field(default=None, description="baseModel: true evaluates the base alone.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.fine_tune_job_name, self.artifact, self.base_model)) != 1:
            raise ValueError("exactly one of fineTuneJobName, artifact and baseModel must be set")
        return self


class EvaluationBaseline(Model):
    """What the target is compared with."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.artifact), has(self.baseModel), has(self.rolloutName)].filter(x, x).size() == 1",
                "exactly one of artifact, baseModel and rolloutName must be set",
            ),
        )
    )

    artifact: Artifact | None = Field(default=None, description="artifact: another adapter for the same base model.")
    base_model: Literal[True] | None = Field(default=None, description="baseModel: true, the base model alone.")
    rollout_name: OBJECT_NAME | None = Field(
        default=None,
        description="rolloutName of an AdapterRollout of this namespace: what it serves when the target is known, read "
        "with the target's Secret; the base model alone if it serves nothing yet.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.artifact, self.base_model, self.rollout_name)) != 1:
            raise ValueError("exactly one of artifact, baseModel and rolloutName must be set")
        return self


class EvaluationAnchor(Model):
    """A second baseline that stays where it is: an adapter by its digest, or the base model alone."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.artifact) != has(self.baseModel)", "exactly one of artifact and baseModel must be set")
        )
    )

    artifact: Artifact | None = Field(default=None, description="artifact: an adapter for the same base model.")
    base_model: Literal[True] | None = Field(default=None, description="baseModel: true, the base model alone.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.artifact is None) == (self.base_model is None):
            raise ValueError("exactly one of artifact and baseModel must be set")
        return self


class JudgeEndpoint(Model):
    """An OpenAI-compatible server, such as a model in the cluster: the one thing that is asked beside storage."""

    url: ENDPOINT_URL = Field(description="url that /chat/completions follows, such as http://vllm.judges:8000/v1.")
    model: ENDPOINT_MODEL = Field(description="model to ask, by its name there.")
    secret_name: SECRET_NAME | None = Field(
        default=None, description="secretName of a Secret with the key API_KEY; absent: the server wants none."
    )


class JudgeModel(Model):
    """A model that the evaluate pod loads once the answers are there."""

    uri: OBJECT_URI = Field(description="uri of the model's folder, as that of a base model.")
    digest: DIGEST = Field(description="digest the model must have.")
    secret_name: SECRET_NAME | None = Field(
        default=None, description="secretName of the Secret with the keys for the uri."
    )


class EvaluationJudge(Model):
    """Who judges the answers of Judge tasks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.endpoint) != has(self.model)", "exactly one of endpoint and model must be set")
        )
    )

    endpoint: JudgeEndpoint | None = Field(default=None, description="endpoint of an OpenAI-compatible server.")
    model: JudgeModel | None = Field(default=None, description="model in object storage.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.endpoint is None) == (self.model is None):
            raise ValueError("exactly one of endpoint and model must be set")
        return self

    @property
    def secret_name(self) -> str | None:
        """The Secret of either."""
        if self.endpoint is not None:
            return self.endpoint.secret_name
        return self.model.secret_name if self.model is not None else None


SAME_ANCHOR = "baseline and anchor must differ: both are the same"
ANCHORED_TO_ITSELF = "target and anchor must differ: both are the same, and nothing can be worse than itself"

_TASKS_UNCHANGED = (
    "has(self.tasks) == has(oldSelf.tasks) && self.tasks == oldSelf.tasks && "
    "self.tasks.map(t, t.name) == oldSelf.tasks.map(t, t.name)",
    "tasks is immutable: it defines the result; create another Evaluation instead",
)
"""Lists with keys are compared without regard to order, but the first task is the headline."""

_NO_THRESHOLD_OR_ALL = "!has(self.thresholds) || self.thresholds.all(t, "
THRESHOLD_RULES = (
    (
        f"has(self.baseline) || {_NO_THRESHOLD_OR_ALL}!has(t.maximumRegression) && "
        "!has(t.maximumRelativeRegression) && !has(t.maximumWorseRatio) && !has(t.maximumGroupRegression))",
        "maximumRegression, maximumRelativeRegression, maximumWorseRatio and maximumGroupRegression need baseline",
    ),
    (
        f"{_NO_THRESHOLD_OR_ALL}self.tasks.exists(k, t.metric.startsWith(k.name + '/')))",
        "the first part of every threshold's metric must be the name of a task",
    ),
    (
        f"{_NO_THRESHOLD_OR_ALL}!has(t.maximumGroupGap) && !has(t.maximumGroupRegression) || "
        "self.tasks.exists(k, has(k.groupBy) && t.metric.startsWith(k.name + '/')))",
        "maximumGroupGap and maximumGroupRegression need groupBy in their task",
    ),
    (
        f"{_NO_THRESHOLD_OR_ALL}!has(t.maximumOddsGap) || "
        "self.tasks.exists(k, has(k.groupBy) && k.type == 'Classification' && t.metric.startsWith(k.name + '/')))",
        NO_ODDS,
    ),
)


class EvaluationSpec(Model):
    """What to evaluate, on what, and what is good enough."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _TASKS_UNCHANGED,
            *unchanged(
                {
                    "target": EvaluationTarget,
                    "baseModel": BaseModelSource,
                    "baseline": EvaluationBaseline,
                    "anchor": EvaluationAnchor,
                    "thresholds": list[Threshold],
                    "precision": Precision,
                    "engine": EvaluationEngine,
                    "quantization": QuantizationSettings,
                    "output": OutputTarget,
                    "judge": EvaluationJudge,
                    "maximumTrainedOnRatio": float,
                    "resamples": int,
                    "seed": int,
                },
                kind="Evaluation",
            ),
            (
                "has(self.target.fineTuneJobName) || (has(self.baseModel) && has(self.output))",
                "baseModel and output are needed where target.fineTuneJobName does not give them",
            ),
            (
                "!has(self.target.baseModel) || self.tasks.all(t, has(t.dataset.uri))",
                "dataset.split is of an adapter's data; the target baseModel needs dataset.uri in every task",
            ),
            (
                "!has(self.baseline) || !has(self.target.baseModel) || !has(self.baseline.baseModel)",
                "target and baseline must differ: both are the base model",
            ),
            (
                "!has(self.baseline) || !has(self.target.artifact) || !has(self.baseline.artifact) || "
                "self.target.artifact.digest != self.baseline.artifact.digest",
                "target and baseline must differ: both are the same artifact",
            ),
            (
                "!has(self.quantization) || self.precision == 'AsTrained'",
                "quantization is for the precision AsTrained",
            ),
            (
                "self.tasks.all(t, !has(t.dataset.uri) || t.dataset.uri.startsWith('hf://')) || "
                "self.tasks.all(t, !has(t.dataset.uri) || !t.dataset.uri.startsWith('hf://'))",
                ONE_PLACE,
            ),
            ("!has(self.anchor) || has(self.baseline)", ANCHOR_ALONE),
            (
                "!has(self.anchor) || !has(self.baseline) || (has(self.anchor.artifact) ? !has(self.baseline.artifact) "
                "|| self.anchor.artifact.digest != self.baseline.artifact.digest : !has(self.baseline.baseModel))",
                SAME_ANCHOR,
            ),
            (
                "!has(self.anchor) || (has(self.anchor.artifact) ? !has(self.target.artifact) || "
                "self.anchor.artifact.digest != self.target.artifact.digest : !has(self.target.baseModel))",
                ANCHORED_TO_ITSELF,
            ),
            (f"has(self.anchor) || {_NO_THRESHOLD_OR_ALL}!has(t.against))", NO_ANCHOR),
            ("self.engine != 'Vllm' || self.precision == 'AsServed'", UNQUANTIZED_ENGINE),
            *THRESHOLD_RULES,
            ("has(self.judge) || self.tasks.all(t, t.type != 'Judge')", NO_JUDGE),
            (
                "has(self.baseline) || self.tasks.all(t, !has(t.judging) || has(t.judging.mode) && t.judging.mode == "
                "'Rubric')",
                NO_PAIR,
            ),
            one_device_rule(),
        )
    )

    target: EvaluationTarget = Field(description="target to evaluate.")
    base_model: BaseModelSource | None = Field(
        default=None, description="baseModel of the target; absent: that of the FineTuneJob."
    )
    baseline: EvaluationBaseline | None = Field(default=None, description="baseline to compare with.")
    anchor: EvaluationAnchor | None = Field(
        default=None,
        description="anchor to compare with as well: a fixed point, so that many releases that each lose a little "
        "against the one before do not lose much unseen. Bounds that compare are held against both.",
    )
    tasks: list[EvaluationTask] = Field(
        min_length=1,
        max_length=MAXIMUM_TASKS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="tasks: what is asked.",
    )
    thresholds: list[Threshold] = Field(
        default=[],
        max_length=MAXIMUM_THRESHOLDS,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="thresholds that must all be kept. Without any, whatever could be measured passes.",
    )
    precision: Precision = Field(
        default=Precision.AS_TRAINED,
        description="precision of the base model's weights: AsTrained, quantized as the adapter was trained, or "
        "AsServed, not quantized.",
    )
    engine: EvaluationEngine = Field(
        default=EvaluationEngine.TRANSFORMERS,
        description="engine that writes the answers of tasks that are answered in text: Transformers, the trainer's "
        "own loop, or Vllm, which the pod starts and which needs precision: AsServed. Likelihoods are the trainer's.",
    )
    quantization: QuantizationSettings | None = Field(
        default=None, description="quantization of the base model where there is no adapter that tells it."
    )
    dataset_secret_name: SECRET_NAME | None = Field(
        default=None,
        description="datasetSecretName of a Secret with the keys for the tasks' uris; absent: that of the "
        "FineTuneJob's dataset, else the pod's workload identity.",
    )
    judge: EvaluationJudge | None = Field(default=None, description="judge of the Judge tasks' answers.")
    output: OutputTarget | None = Field(
        default=None, description="output for scores and reports; absent: that of the FineTuneJob."
    )
    maximum_trained_on_ratio: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="maximumTrainedOnRatio of a task's rows that the target may have been trained on.",
    )
    resamples: int = Field(default=10_000, ge=100, le=100_000, description="resamples of the bootstrap.")
    seed: int = Field(default=17, ge=0, le=2_147_483_647, description="seed of resampling and of sampled answers.")
    batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="batchSize of forward passes; derived from the memory if absent."
    )
    retries: RetryBudgets = Field(default=RetryBudgets(), description="retries before the evaluation fails.")
    suspend: bool = Field(default=False, description="suspend stops the evaluation; false goes on with the next task.")
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="activeDeadlineSeconds bounds the time with a running pod, over all attempts; waiting and "
        "suspended time do not count.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=315_360_000,
        description="ttlSecondsAfterFinished after which the Evaluation is deleted; what it wrote stays. It waits for "
        "AdapterExports and AdapterRollouts that name the Evaluation, and for those that follow it and may "
        "take it still.",
    )
    template: PodTemplate = Field(default=PodTemplate(), description="template of the pods.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.target.fine_tune_job_name is None and (self.base_model is None or self.output is None):
            raise ValueError("baseModel and output are needed where target.fineTuneJobName does not give them")
        if self.target.base_model and any(task.dataset.uri is None for task in self.tasks):
            raise ValueError(
                "dataset.split is of an adapter's data; the target baseModel needs dataset.uri in every task"
            )
        if self.baseline is not None:
            if self.target.base_model and self.baseline.base_model:
                raise ValueError("target and baseline must differ: both are the base model")
            ours, theirs = self.target.artifact, self.baseline.artifact
            if ours is not None and theirs is not None and ours.digest == theirs.digest:
                raise ValueError("target and baseline must differ: both are the same artifact")
        self._check_anchor()
        if self.quantization is not None and self.precision is not Precision.AS_TRAINED:
            raise ValueError("quantization is for the precision AsTrained")
        check_engine(self.engine, self.precision)
        check_judge(self.tasks, has_judge=self.judge is not None, has_baseline=self.baseline is not None)
        check_one_device(self.template.resources)
        return self

    def _check_anchor(self) -> None:
        if self.anchor is None:
            return
        if self.baseline is None:
            raise ValueError(ANCHOR_ALONE)
        fixed, compared = self.anchor.artifact, self.baseline.artifact
        same = self.baseline.base_model if fixed is None else compared is not None and fixed.digest == compared.digest
        if same:
            raise ValueError(SAME_ANCHOR)
        ours = self.target.artifact
        if self.target.base_model if fixed is None else ours is not None and fixed.digest == ours.digest:
            raise ValueError(ANCHORED_TO_ITSELF)

    def check(self) -> None:
        """Refuse what the schema cannot, or not in full: thresholds that no task can answer, a url of no judge.

        Raises:
            ValueError: with the field and the next step.
        """
        check_tasks_and_thresholds(
            self.tasks, self.thresholds, has_baseline=self.baseline is not None, has_anchor=self.anchor is not None
        )
        check_resamples(self.resamples, self.thresholds)
        endpoint = self.judge.endpoint if self.judge is not None else None
        trouble = endpoint_trouble(endpoint.url) if endpoint is not None else None
        if trouble is not None:
            raise ValueError(trouble)


class Evaluation(CustomObject):
    """Evaluation asks whether an adapter is good enough, and not worse than another, and records the answer."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (f"self.metadata.name.size() <= {NAME_LENGTH}", f"name must have at most {NAME_LENGTH} characters"),
        ),
    )

    spec: EvaluationSpec = Field(description="spec is what to evaluate, on what, and what is good enough.")
    status: EvaluationStatus = Field(default=EvaluationStatus(), description="status is what was found.")


EVALUATION = CustomResource(
    model=Evaluation,
    spec=EvaluationSpec,
    status=EvaluationStatus,
    plural="evaluations",
    short_name="ftev",
    columns=(
        ("State", "string", condition_path(SUCCEEDED, "reason"), "What the evaluation is doing, or how it ended."),
        (
            "Passed",
            "string",
            condition_path(PASSED, "status"),
            "The verdict: True, False, or Unknown while it is active.",
        ),
        ("Metric", "string", ".status.summary.metric", "The headline metric, <task>/<result>."),
        ("Value", "string", ".status.summary.value", "Its value."),
        ("Change", "string", ".status.summary.change", "Its change against the baseline."),
        AGE,
    ),
    wide_columns=(
        ("Message", "string", condition_path(PASSED, "message"), "What passed or failed, and what to do next."),
        ("Progress", "string", ".status.summary.progress", "Tasks done, of target and baseline, in percent."),
        ("Report", "string", ".status.reportURI", "Where report.html is."),
    ),
    summary=SUCCEEDED,
    writers="Who may create them may create pods with any Secret and any service account of the namespace.",
    reasons={
        SUCCEEDED: (OF_SUCCEEDED, EVALUATION_EXPLANATIONS),
        PASSED: (
            "The condition `Passed` is the verdict, which is what a gate waits for. It is given once, when the "
            "evaluation has ended, and never changes.",
            PASSED_EXPLANATIONS,
        ),
        **OF_WARNED,
    },
)
