"""results.json: everything an evaluation found, the source of report.html and of the outcome. No torch.

Figures are estimates over the rows of a task with 95 % percentile intervals of a bootstrap over its clusters.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ..contract import Check, JudgeMode, Model, Precision, Result, TaskType, Threshold
from ..contract.settings import DIGEST

RESULTS_VERSION = "trimtab.dev/results/v1"


COMPARED = "what of the rows was compared with what was trained on: answers, groups, prompts, texts"


class OtherTrained(Model):
    """What is known of rows that baseline or anchor was trained on: nothing is refused for it."""

    role: str
    trained_on: int = Field(default=0, ge=0, description="trainedOn: rows that it was trained on")
    compared: list[str] = Field(default=[], description=COMPARED)


BASE_MODEL = "base model"
"""What a model without an adapter is called."""


class EvaluatedModel(Model):
    """A model that was evaluated: the base model, with an adapter or alone."""

    uri: str | None = None
    digest: DIGEST | None = None
    label: str = Field(description="for people: the adapter's short digest, or 'base model'")


class GroupFigure(Model):
    """One metric of one group."""

    name: str
    rows: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None


class MetricByGroup(Model):
    """One metric by group, groups below the minimum pooled into one."""

    metric: str
    lower_is_better: bool = False
    groups: list[GroupFigure]
    pooled: list[str] = Field(default=[], description="names of the groups that were pooled as 'other'")
    gap: float | None = Field(default=None, description="best group minus worst, raw")
    gap_low: float | None = Field(default=None, description="lower simultaneous confidence bound of the gap")
    gap_high: float | None = Field(default=None, description="upper simultaneous confidence bound of the gap")
    gap_visible: float | None = Field(
        default=None, description="a gap of any two groups that would have been shown with a probability of 80 %"
    )
    worst: str | None = None
    best: str | None = None


class LabelFigure(Model):
    """One label of a classification."""

    label: str
    support: int
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


class Confusion(Model):
    """Counts by [true label][predicted label]; the last column is of predictions that are no label."""

    labels: list[str]
    target: list[list[int]]
    baseline: list[list[int]] | None = None
    per_label: list[LabelFigure] = Field(default=[])


class Histogram(Model):
    """A per-row figure, how often it lies between two edges: len(edges) = len(target) + 1."""

    figure: str
    edges: list[float]
    target: list[int]
    baseline: list[int] | None = None


class Example(Model):
    """A row to look at, both answers side by side."""

    number: int
    place: str
    prompt: str
    reference: str
    target: str = Field(description="what the target answered, or what is to be told of its likelihood")
    baseline: str | None = None
    target_score: float | None = None
    baseline_score: float | None = None


class JudgeResults(Model):
    """Who judged a task's answers, what was asked, and how far that can be relied on."""

    judge: dict[str, Any] = Field(description="endpoint and model, or digest, computeType and ties")
    models: list[str] = Field(default=[], description="names that the endpoint replied under")
    words: DIGEST = Field(description="digest of the words that judges are asked with")
    mode: JudgeMode
    instructions: str
    judgements: DIGEST = Field(description="judgements lie in <output>/evaluations/judgements/<digest>")
    asked: int = Field(description="questions that were put to the judge")
    pairs: int = Field(default=0, description="pairs of different answers, people's among them")
    inconsistent: int = Field(default=0, description="pairs in which the order of the answers decided")
    unreadable: int = Field(default=0, description="replies that say nothing")
    labelled: int = Field(default=0, description="rows that people judged")
    agreed: int = Field(default=0, description="those of them on which the judge says the same")
    minimum_agreement: float | None = None
    unreliable: str | None = Field(default=None, description="why its words decide nothing")


class TaskResults(Model):
    """One task."""

    name: str
    type: TaskType
    digest: DIGEST = Field(description="digest of its rows as they are asked")
    rows: int
    clusters: int
    trained_on: int = Field(default=0, description="rows of clusters that the target was trained on")
    compared: list[str] = Field(default=[], description=COMPARED)
    others: list[OtherTrained] = Field(default=[], description="what is known of baseline and anchor")
    looks: int = Field(default=0, description="evaluations that have seen these rows, this one included")
    dropped: int = Field(default=0, description="rows that are blank, doubled, too long or beyond the limit")
    results: list[Result]
    groups: list[MetricByGroup] = Field(default=[])
    confusion: Confusion | None = None
    histograms: list[Histogram] = Field(default=[])
    judge: JudgeResults | None = None
    anchor_judge: JudgeResults | None = Field(default=None, description="of target and anchor")
    wins: int = 0
    losses: int = 0
    ties: int = 0
    best_wins: list[Example] = Field(default=[])
    worst_losses: list[Example] = Field(default=[])
    worst: list[Example] = Field(default=[])


class EvaluationResults(Model):
    """The whole document."""

    version: str = RESULTS_VERSION
    digest: DIGEST = Field(description="digest of the evaluation: models, rows, settings")
    name: str
    namespace: str
    base_model: EvaluatedModel
    target: EvaluatedModel
    baseline: EvaluatedModel | None = None
    anchor: EvaluatedModel | None = None
    precision: Precision
    seed: int
    resamples: int
    tasks: list[TaskResults]
    thresholds: list[Threshold] = Field(default=[])
    checks: list[Check] = Field(default=[])
    lineage: dict[str, Any] = Field(
        default={}, description="digests of data, settings and base model that the target was made from; machine"
    )

    @property
    def unreliable(self) -> str | None:
        """Why nothing is decided: what is to be said of the first judge that cannot be relied on."""
        judges = [judge for task in self.tasks for judge in (task.judge, task.anchor_judge) if judge is not None]
        return next((judge.unreliable for judge in judges if judge.unreliable), None)
