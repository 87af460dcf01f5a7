"""Every figure of a task by group, and the facts about its group gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ....contract import Check, Threshold
from ....contract.evaluation import DEFAULT_GAP_CONFIDENCE, DEFAULT_GROUP_ROWS
from ...results import GroupFigure, MetricByGroup
from ...rows import EvaluationRow
from ...statistics import Array, Distribution, Figure, Gap, Partition, Resampling, bound_checks, finite, gap, partition
from ..measure import Measure


@dataclass(frozen=True)
class _Cut:
    """The rows in groups of at least so many rows, and every figure of every group."""

    partition: Partition
    target: dict[str, tuple[Array, Array]]
    """Estimates [groups] and their resamples [B, groups] by figure."""
    baseline: dict[str, Array]


class FiguresByGroup:
    """Figures by group, for every size that small groups are pooled below."""

    def __init__(
        self, rows: Sequence[EvaluationRow], resampling: Resampling, sides: Sequence[Sequence[Measure]]
    ) -> None:
        self._groups = [row.group for row in rows]
        self._resampling = resampling
        self._sides = sides
        self._lower = {name: each.lower_is_better for each in sides[0] for name in each.results}
        self._cuts: dict[int, _Cut] = {}

    def checks(self, index: int, threshold: Threshold) -> Iterator[Check]:
        """Return what is known about the bounds of a threshold that are about groups."""
        if threshold.maximum_group_gap is not None:
            yield self._gap_check(index, threshold)
        if threshold.maximum_group_regression is not None:
            yield self._regression_check(index, threshold, threshold.maximum_group_regression)

    def _regression_check(self, index: int, threshold: Threshold, limit: float) -> Check:
        """Return what is known about the regression of the worst group: each group has to keep the limit.

        So a group that breaks it is passed no more often than by its own test, and that one group breaks it is claimed
        at the smallest p by the number of groups (Bonferroni).
        """
        groups = self._cut(threshold.minimum_group_rows or DEFAULT_GROUP_ROWS).partition
        bound = Threshold.model_validate(
            {"metric": threshold.metric, "maximumRegression": limit, "confidence": threshold.confidence}
        )
        found = [
            (name, check)
            for name, figure in self._of_groups(threshold.result, groups)
            for check in bound_checks(index, bound, figure)
        ]
        if not found or any(check.estimate is None for _, check in found):
            return Check(threshold=index, bound="maximumGroupRegression")
        worst, check = max(found, key=lambda each: each[1].estimate or 0.0)
        facts: dict[str, object] = {"bound": "maximumGroupRegression", "worst": worst}
        if threshold.confidence is not None:
            p_pass, p_fail, needed = zip(*((c.p_pass, c.p_fail, c.rows_needed) for _, c in found), strict=True)
            facts["p_pass"] = max(1.0 if p is None else p for p in p_pass)
            facts["p_fail"] = min(1.0, len(found) * min(1.0 if p is None else p for p in p_fail))
            target = self._target(threshold.result)
            taken = target.among(np.arange(len(self._groups)))
            shares = [len(taken) / len(target.among(groups.rows[at])) for at in groups.judged]
            rows = [None if n is None else math.ceil(n * share) for n, share in zip(needed, shares, strict=True)]
            facts["clusters"] = self._resampling.clusters_of(target.taken)
            facts["rows_needed"] = None if None in rows else max(each for each in rows if each is not None)
        return check.model_copy(update=facts)

    def _target(self, name: str) -> Measure:
        return next(each for each in self._sides[0] if name in each.results)

    def _of_groups(self, name: str, groups: Partition) -> Iterator[tuple[str, Figure]]:
        """Return a figure of both sides in each group that is judged."""
        measured = [next(each for each in side if name in each.results) for side in self._sides]
        target, baseline = measured
        column = target.results.index(name)
        for at in groups.judged:
            rows = groups.rows[at]
            ours, theirs = self._resampling.distributions(
                [self._resampling.part(m.statistics, m.values, m.among(rows), weights=m.weights) for m in measured]
            )
            yield (
                groups.names[at],
                Figure(
                    "",
                    name,
                    len(target.among(rows)),
                    ours[column],
                    theirs[column],
                    target.lower_is_better,
                    target.range_with(baseline),
                    target.fewest(self._resampling.unit_of_row, rows) if column == 0 else None,
                    target.broken_row or baseline.broken_row,
                    graded=target.graded or baseline.graded,
                ),
            )

    def _gap_check(self, index: int, threshold: Threshold) -> Check:
        """Return what is known about a threshold's group gap."""
        cut, found = self._gap(threshold.result, threshold)
        if found is None:
            return Check(threshold=index, bound="maximumGroupGap")
        return Check(
            threshold=index,
            bound="maximumGroupGap",
            estimate=found.gap,
            low=found.low,
            worst=cut.partition.names[found.worst],
            best=cut.partition.names[found.best],
        )

    def table(self, name: str, thresholds: Sequence[Threshold]) -> MetricByGroup:
        """Return one figure by group, pooled and tested as its first group threshold says, if it has one."""
        own = [each for each in thresholds if each.result == name and each.maximum_group_gap is not None]
        cut, found = self._gap(name, own[0] if own else None)
        estimates, resampled = cut.target[name]
        figures = []
        for at, group in enumerate(cut.partition.names):
            spread = Distribution(float(estimates[at]), resampled[:, at], np.zeros(0))
            low, high = spread.interval()
            figures.append(
                GroupFigure(
                    name=group,
                    rows=len(cut.partition.rows[at]),
                    value=finite(estimates[at]),
                    low=finite(low),
                    high=finite(high),
                    baseline=finite(cut.baseline[name][at]) if cut.baseline else None,
                )
            )
        return MetricByGroup(
            metric=name,
            lower_is_better=self._lower[name],
            groups=figures,
            pooled=list(cut.partition.pooled),
            gap=None if found is None else found.gap,
            gap_low=None if found is None else found.low,
            gap_high=None if found is None else finite(found.high),
            gap_visible=None if found is None else finite(found.visible),
            worst=None if found is None else cut.partition.names[found.worst],
            best=None if found is None else cut.partition.names[found.best],
        )

    def _gap(self, name: str, threshold: Threshold | None) -> tuple[_Cut, Gap | None]:
        minimum = threshold.minimum_group_rows if threshold is not None else None
        cut = self._cut(minimum or DEFAULT_GROUP_ROWS)
        confidence = threshold.confidence if threshold is not None else None
        return cut, gap(
            *cut.target[name],
            cut.partition,
            lower_is_better=self._lower[name],
            confidence=confidence or DEFAULT_GAP_CONFIDENCE,
        )

    def _cut(self, minimum: int) -> _Cut:
        if minimum not in self._cuts:
            self._cuts[minimum] = self._made(partition(self._groups, self._resampling, minimum_rows=minimum))
        return self._cuts[minimum]

    def _made(self, groups: Partition) -> _Cut:
        target: dict[str, tuple[Array, Array]] = {}
        baseline: dict[str, Array] = {}
        for side, measured in enumerate(self._sides):
            parts = [
                [self._resampling.part(m.statistics, m.values, m.among(rows)) for rows in groups.rows] for m in measured
            ]
            # Of the baseline's groups only the values are shown.
            flat = [each for of_measure in parts for each in of_measure]
            resampled = self._resampling.figures(flat) if side == 0 else []
            for at, measure in enumerate(measured):
                estimates = np.stack([each.total for each in parts[at]], axis=-1)
                for column, name in enumerate(measure.results):
                    if side == 1:
                        baseline[name] = estimates[column]
                        continue
                    start = at * len(groups.rows)
                    draws = [each[:, column] for each in resampled[start : start + len(groups.rows)]]
                    target[name] = estimates[column], np.stack(draws, axis=1)
        return _Cut(groups, target, baseline)
