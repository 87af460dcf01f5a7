"""Every figure of a task by group, and the facts about its group gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...contract import Check, Threshold
from ...contract.evaluation import DEFAULT_GAP_CONFIDENCE, DEFAULT_GROUP_ROWS
from ..results import GroupFigure, MetricByGroup
from ..rows import EvaluationRow
from ..statistics import Array, Distribution, Gap, Partition, Resampling, finite, gap, partition
from .metrics import Measure


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

    def check(self, index: int, threshold: Threshold) -> Check:
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
            groups=figures,
            pooled=list(cut.partition.pooled),
            gap=None if found is None else found.gap,
            gap_low=None if found is None else found.low,
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
            parts = [[self._resampling.part(m.statistics, m.values, rows) for rows in groups.rows] for m in measured]
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
