"""One task: from its rows and the scores of target and baseline to figures with their uncertainty. No verdict.

measures   per-row statistics of each metric, of both models
resample   all of them on the same resamples of the task's clusters
groups     each metric by group, and the gap that noise does not explain
checks     facts about the bounds of the task's thresholds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..contract import Check, EvaluationTask, Reason, Result, TaskType, Threshold
from ..contract.evaluation import Against
from ..errors import SettingsInvalid
from .preparing.task_store import PreparedTask
from .results import Histogram, JudgeResults, MetricByGroup, TaskResults
from .rows import EvaluationRow, RowScore
from .scoring.groups.group_figures import FiguresByGroup
from .scoring.groups.odds import odds_check
from .scoring.labels.confusion import confusion
from .scoring.labels.label_rates import label_rates
from .scoring.measure import Measure
from .scoring.metrics import measures
from .scoring.row_by_row import histogram, row_by_row
from .statistics import Figure, Resampling, bound_checks, finite, worse_check


def compare(  # noqa: PLR0917 the six of them in the order that they are made
    task: EvaluationTask,
    about: PreparedTask,
    rows: list[EvaluationRow],
    target: list[RowScore],
    baseline: list[RowScore] | None,
    thresholds: list[tuple[int, Threshold]],
    *,
    seed: int,
    resamples: int,
    lower_is_better: Mapping[str, bool] | None = None,
    judge: JudgeResults | None = None,
) -> tuple[TaskResults, list[Check]]:
    """Return a task's part of results.json, and facts about its thresholds; the same input gives the same output.

    Figures that are not finite numbers, because a log-likelihood was none or nothing could be parsed, are None, and so
    is the estimate of their checks.

    Args:
        rows, target, baseline: in the same order, with the same numbers.
        thresholds: those of this task, with their index in the configuration.
        lower_is_better: of a Harness task, its metrics, the headline first, and whether less is better.
        judge: of a Judge task, whose scores have the judge's figures.

    Raises:
        SettingsInvalid: METRIC_NOT_APPLICABLE, a threshold is not about a figure of this task, as that of a Harness
            task can be, whose metrics are known from its answers; or it needs groups that the task has not.
        ValueError: the scores are not those of the rows, or a regression is asked for without a baseline.
    """
    measured = _Measured(task, rows, target, baseline, seed=seed, resamples=resamples, lower_is_better=lower_is_better)
    sides, resampling, figures, by_group = measured.sides, measured.resampling, measured.figures, measured.by_group
    checks = [each for each in measured.checks(thresholds) if Against.BASELINE in _sides_of(thresholds, each)]
    other = None if baseline is None else (sides[1][0], baseline)
    apart = row_by_row(task, rows, (sides[0][0], target), other)
    own = [threshold for _, threshold in thresholds]
    return TaskResults(
        name=task.name,
        type=task.type,
        digest=about.digest,
        rows=len(rows),
        clusters=resampling.clusters,
        trained_on=about.trained_on,
        compared=about.compared,
        others=about.others,
        dropped=about.dropped,
        results=[_result(figure) for figure in figures.values()],
        groups=[]
        if by_group is None
        else [
            *(by_group.table(name, own) for name in figures),
            *_rates_by_group(task, rows, resampling, [each for each in (target, baseline) if each is not None]),
        ],
        confusion=confusion(task, rows, target, baseline) if task.type is TaskType.CLASSIFICATION else None,
        histograms=_histograms(sides),
        judge=judge,
        wins=apart.wins,
        losses=apart.losses,
        ties=apart.ties,
        best_wins=apart.best_wins,
        worst_losses=apart.worst_losses,
        worst=apart.worst,
    ), checks


def _rates_by_group(
    task: EvaluationTask, rows: list[EvaluationRow], resampling: Resampling, sides: Sequence[list[RowScore]]
) -> Iterator[MetricByGroup]:
    """Yield the rates of each label of a classification by group."""
    if task.type is not TaskType.CLASSIFICATION:
        return
    rated = [label_rates(task, rows, each) for each in sides]
    by_group = FiguresByGroup(rows, resampling, rated)
    for both in zip(*(each.results for each in rated[0]), strict=True):
        yield from (by_group.table(name, ()) for name in both)


def with_anchor(  # noqa: PLR0917 results first, then all that `compare` takes
    results: TaskResults,
    task: EvaluationTask,
    rows: list[EvaluationRow],
    target: list[RowScore],
    anchor: list[RowScore],
    thresholds: list[tuple[int, Threshold]],
    *,
    seed: int,
    resamples: int,
    lower_is_better: Mapping[str, bool] | None = None,
    judge: JudgeResults | None = None,
) -> tuple[TaskResults, list[Check]]:
    """Return a task's results with the anchor's figures beside, and facts about the bounds that are held against it.

    The anchor is compared as the baseline is, on the same resamples: arguments and errors are those of `compare`.

    Args:
        results: of the comparison with the baseline.
        judge: of a Judge task that was asked about target and anchor.
    """
    measured = _Measured(task, rows, target, anchor, seed=seed, resamples=resamples, lower_is_better=lower_is_better)
    checks = [
        each.model_copy(update={"against": Against.ANCHOR})
        for each in measured.checks(thresholds)
        if Against.ANCHOR in _sides_of(thresholds, each)
    ]
    return results.model_copy(
        update={
            "results": [_beside(result, measured.figures[result.metric]) for result in results.results],
            "anchor_judge": judge,
        }
    ), checks


def _sides_of(thresholds: Sequence[tuple[int, Threshold]], check: Check) -> tuple[Against, ...]:
    """Return what the bound of a check is held against if there is an anchor."""
    return next(each.sides(check.bound, anchored=True) for index, each in thresholds if index == check.threshold)


class _Measured:
    """A task's figures of target and another model, and what they say of bounds."""

    def __init__(
        self,
        task: EvaluationTask,
        rows: list[EvaluationRow],
        target: list[RowScore],
        other: list[RowScore] | None,
        *,
        seed: int,
        resamples: int,
        lower_is_better: Mapping[str, bool] | None,
    ) -> None:
        self.task, self.rows, self.target = task, rows, target
        self.sides = [
            measures(task, rows, each, lower_is_better=lower_is_better) for each in (target, other) if each is not None
        ]
        self.resampling = Resampling([row.cluster for row in rows], seed=seed, resamples=resamples)
        self.figures = _figures(task, self.resampling, self.sides, len(rows))
        self.by_group = FiguresByGroup(rows, self.resampling, self.sides) if task.group_by is not None else None

    def checks(self, thresholds: Sequence[tuple[int, Threshold]]) -> Iterator[Check]:
        """Return what is known about every bound.

        Raises:
            SettingsInvalid: METRIC_NOT_APPLICABLE
        """
        for index, threshold in thresholds:
            if threshold.task != self.task.name or threshold.result not in self.figures:
                raise SettingsInvalid(
                    f"threshold {threshold.metric}: task {self.task.name} gives {', '.join(self.figures)}; name one of "
                    "these",
                    Reason.METRIC_NOT_APPLICABLE,
                )
            yield from bound_checks(index, threshold, self.figures[threshold.result])
            if threshold.maximum_worse_ratio is not None:
                yield _worse(index, threshold, self.sides, self.resampling)
            if threshold.by_group:
                if self.by_group is None:
                    raise SettingsInvalid(
                        f"threshold {threshold.metric}: a bound on groups needs groupBy in task {self.task.name}",
                        Reason.METRIC_NOT_APPLICABLE,
                    )
                yield from self.by_group.checks(index, threshold)
            if threshold.maximum_odds_gap is not None:
                yield odds_check(index, threshold, self.task, self.rows, self.target, self.resampling)


def _beside(result: Result, figure: Figure) -> Result:
    """Return a result with the figure of the anchor and the change against it."""
    compared = _result(figure)
    return result.model_copy(
        update={
            "anchor": compared.baseline,
            "anchor_change": compared.change,
            "anchor_change_low": compared.change_low,
            "anchor_change_high": compared.change_high,
        }
    )


def _worse(index: int, threshold: Threshold, sides: Sequence[Sequence[Measure]], resampling: Resampling) -> Check:
    """Return what is known about the share of rows that are worse than under the baseline."""
    target, baseline = (next(each for each in side if threshold.result in each.results) for side in sides)
    loss = (target.row_values - baseline.row_values) * (1.0 if target.lower_is_better else -1.0)
    finite_sums = all(np.isfinite(each.statistics.sum(dtype=np.float64)) for each in (target, baseline))
    # Of a figure of some rows the others have nothing that could be worse, and would dilute the share.
    unknown = not finite_sums or target.taken is not None
    return worse_check(index, threshold, loss, resampling, unknown=unknown)


def _figures(
    task: EvaluationTask, resampling: Resampling, sides: Sequence[Sequence[Measure]], rows: int
) -> dict[str, Figure]:
    parts = [
        resampling.part(each.statistics, each.values, each.taken, weights=each.weights)
        for side in sides
        for each in side
    ]
    found = resampling.distributions(parts)
    count = len(sides[0])
    figures = {}
    for at, measure in enumerate(sides[0]):
        other = sides[1][at] if len(sides) > 1 else measure
        for column, name in enumerate(measure.results):
            figures[name] = Figure(
                task.name,
                name,
                rows if measure.taken is None else len(measure.taken),
                found[at][column],
                found[count + at][column] if len(sides) > 1 else None,
                measure.lower_is_better,
                measure.range_with(other),
                measure.fewest(resampling.unit_of_row) if column == 0 else None,
                measure.broken_row or other.broken_row,
                resampling.clusters_of(measure.taken),
                measure.graded or other.graded,
                measure.least,
            )
    return figures


def _result(figure: Figure) -> Result:
    low, high = figure.target.interval()
    result = Result(
        task=figure.task,
        metric=figure.name,
        value=finite(figure.target.estimate),
        low=finite(low),
        high=finite(high),
        count=figure.rows,
        lower_is_better=figure.lower_is_better,
    )
    change = figure.change
    if figure.baseline is None or change is None:
        return result
    low, high = change.interval()
    return result.model_copy(
        update={
            "baseline": finite(figure.baseline.estimate),
            "change": finite(change.estimate),
            "change_low": finite(low),
            "change_high": finite(high),
        }
    )


def _histograms(sides: Sequence[Sequence[Measure]]) -> list[Histogram]:
    found = {}
    for at, measure in enumerate(sides[0]):
        if measure.row_figure not in found:
            found[measure.row_figure] = histogram(measure, sides[1][at] if len(sides) > 1 else None)
    return [each for each in found.values() if each is not None]
