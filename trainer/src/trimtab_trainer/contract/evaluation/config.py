"""The configuration that the trainer reads, and what the parts of an Evaluation have to agree on."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from ..judging import JudgeMode, StoredJudge
from ..model import Model, speaks
from ..run import Credentials, RunIdentity, StoredBaseModel, StoredOutput
from ..settings import DIGEST, OBJECT_URI, QuantizationSettings, from_hub
from .metrics import RESULTS, TaskType
from .tasks import MAXIMUM_ON_A_HUB, ONE_PLACE, EvaluationTask
from .thresholds import NO_ODDS, Threshold

EVALUATION_VERSION = "trimtab.dev/evaluation/v1"
MAXIMUM_TASKS = 50
MAXIMUM_THRESHOLDS = 32


class Precision(StrEnum):
    """Which base weights take part."""

    AS_TRAINED = "AsTrained"
    """Quantized as the adapter was trained."""
    AS_SERVED = "AsServed"
    """Not quantized, in the compute type, as serving engines hold it."""


class EvaluationEngine(StrEnum):
    """What writes the answers of tasks that are answered in text; likelihoods are always the trainer's own."""

    TRANSFORMERS = "Transformers"
    """The trainer's own loop over the model."""
    VLLM = "Vllm"
    """A vLLM that the evaluate pod starts: adapters and base model as they are served."""


class StoredArtifact(Model):
    """An adapter in object storage, pinned by its digest."""

    uri: OBJECT_URI
    digest: DIGEST | None = Field(default=None, description="digest it must have; recorded if absent")
    credentials: Credentials | None = None


class StoredBaseline(Model):
    """What the target is compared with: an adapter, or the base model alone if there is none."""

    artifact: StoredArtifact | None = None


class EvaluationConfig(Model):
    """One evaluation: `trimtab-trainer prepare --config evaluation.yaml`, then `evaluate`.

    `target` absent means the base model alone; `baseline` absent means that there is no comparison. `anchor` is a
    second baseline, which stays where it is while what is served moves on.
    """

    version: str
    run: RunIdentity = RunIdentity()
    base_model: StoredBaseModel
    target: StoredArtifact | None = None
    baseline: StoredBaseline | None = None
    anchor: StoredBaseline | None = Field(default=None, exclude_if=lambda value: value is None)
    tasks: list[EvaluationTask] = Field(min_length=1, max_length=MAXIMUM_TASKS)
    thresholds: list[Threshold] = Field(default=[], max_length=MAXIMUM_THRESHOLDS)
    judge: StoredJudge | None = None
    output: StoredOutput
    dataset_credentials: Credentials | None = None
    precision: Precision = Precision.AS_TRAINED
    engine: EvaluationEngine = EvaluationEngine.TRANSFORMERS
    quantization: QuantizationSettings | None = Field(
        default=None, description="of the base model where precision is AsTrained and there is no adapter to tell it"
    )
    maximum_trained_on_ratio: float = Field(
        default=0.05, ge=0, le=1, description="share of a task's rows that the target may have been trained on"
    )
    resamples: int = Field(default=10_000, ge=100, le=100_000, description="bootstrap resamples")
    seed: int = Field(default=17, ge=0, le=2_147_483_647, description="of resampling and of sampled answers")
    batch_size: int | None = Field(default=None, ge=1, le=4096, description="sequences of a forward pass; derived")

    @field_validator("version")
    @classmethod
    def _of_this_contract(cls, version: str) -> str:
        if not speaks(version, EVALUATION_VERSION):
            raise ValueError(f"this trainer reads {EVALUATION_VERSION}")
        return version

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_tasks_and_thresholds(
            self.tasks, self.thresholds, has_baseline=self.baseline is not None, has_anchor=self.anchor is not None
        )
        if self.anchor is not None and self.baseline is None:
            raise ValueError(ANCHOR_ALONE)
        check_judge(self.tasks, has_judge=self.judge is not None, has_baseline=self.baseline is not None)
        check_resamples(self.resamples, self.thresholds)
        check_engine(self.engine, self.precision)
        return self

    @property
    def judged_apart(self) -> bool:
        """Whether an endpoint judges: in a stage of its own, which holds no accelerator."""
        return asks_endpoint(self.tasks, self.judge.endpoint if self.judge is not None else None)


ANCHOR_ALONE = "anchor is compared with beside baseline; set baseline too, or give the anchor as the baseline"
NO_ANCHOR = "against is for an Evaluation with anchor"
UNQUANTIZED_ENGINE = "engine: Vllm needs precision: AsServed: it holds the base model as it is served, not quantized"


def check_engine(engine: EvaluationEngine, precision: Precision) -> None:
    """Refuse an engine for weights that it does not hold.

    Raises:
        ValueError: with the next step.
    """
    if engine is EvaluationEngine.VLLM and precision is not Precision.AS_SERVED:
        raise ValueError(UNQUANTIZED_ENGINE)


NO_JUDGE = "a Judge task needs spec.judge"
NO_PAIR = "a Judge task of the mode Pairwise needs spec.baseline, whose answers the target's are held against"


def asks_endpoint(tasks: list[EvaluationTask], endpoint: object | None) -> bool:
    """Tell whether there are answers for an endpoint to judge."""
    return endpoint is not None and any(task.judging is not None for task in tasks)


def check_judge(tasks: list[EvaluationTask], *, has_judge: bool, has_baseline: bool) -> None:
    """Refuse tasks that nobody can judge.

    Raises:
        ValueError: with the next step.
    """
    for task in tasks:
        if task.judging is None:
            continue
        if not has_judge:
            raise ValueError(NO_JUDGE)
        if task.judging.chosen_mode is JudgeMode.PAIRWISE and not has_baseline:
            raise ValueError(NO_PAIR)


RESAMPLES_OF_A_TEST = 1_000
"""A p-value of 0.06 has a standard deviation of 0.024 over seeds of 100 resamples, and of 0.0075 of 1,000."""
FEW_RESAMPLES = f"a threshold with confidence needs at least {RESAMPLES_OF_A_TEST} resamples: of fewer the seed decides"


def check_resamples(resamples: int, thresholds: list[Threshold]) -> None:
    """Refuse tests of so few resamples that their seed decides.

    Raises:
        ValueError: with the next step.
    """
    if resamples < RESAMPLES_OF_A_TEST and any(each.confidence is not None for each in thresholds):
        raise ValueError(FEW_RESAMPLES)


def check_tasks_and_thresholds(
    tasks: list[EvaluationTask], thresholds: list[Threshold], *, has_baseline: bool, has_anchor: bool = False
) -> None:
    """Refuse thresholds that no task can answer.

    Raises:
        ValueError: with the field and the next step.
    """
    named = {task.name: task for task in tasks}
    if len(named) != len(tasks):
        raise ValueError("every task needs a name of its own")
    uris = [task.dataset.uri for task in tasks if task.dataset.uri is not None]
    on_a_hub = {uri for uri in uris if from_hub(uri)}
    if on_a_hub and not all(map(from_hub, uris)):
        raise ValueError(ONE_PLACE)
    if len(on_a_hub) > MAXIMUM_ON_A_HUB:
        raise ValueError(f"tasks have {len(on_a_hub)} sources on a hub (hf://), and at most {MAXIMUM_ON_A_HUB} may be")
    for threshold in thresholds:
        task = named.get(threshold.task)
        if task is None:
            raise ValueError(f"threshold {threshold.metric}: there is no task {threshold.task!r}")
        results = [name for metric in task.chosen_metrics for name in RESULTS[metric]]
        if task.type is not TaskType.HARNESS and threshold.result not in results:
            raise ValueError(f"threshold {threshold.metric}: task {task.name} gives {', '.join(results)}")
        if threshold.result == "changedRatio" and threshold.by_group:
            raise ValueError(f"threshold {threshold.metric}: a pair is of several groups; bound the figure itself")
        if threshold.against_baseline and not has_baseline:
            raise ValueError(f"threshold {threshold.metric}: a regression needs spec.baseline")
        if threshold.against is not None and not has_anchor:
            raise ValueError(f"threshold {threshold.metric}: {NO_ANCHOR}")
        for bound in ("maximumGroupGap", "maximumGroupRegression"):
            if bound in threshold.limits and task.group_by is None:
                raise ValueError(f"threshold {threshold.metric}: {bound} needs groupBy in task {task.name}")
        if threshold.maximum_odds_gap is not None and (task.type is not TaskType.CLASSIFICATION or not task.group_by):
            raise ValueError(f"threshold {threshold.metric}: {NO_ODDS}")
