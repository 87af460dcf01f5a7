"""report.html: what an evaluation found, as one page that a team looks at together. No torch.

One file without scripts, fonts or pictures from elsewhere, so that it opens from a disk and under a strict
Content-Security-Policy. Whatever comes from data is escaped by the template; equal results give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..contract import Check, Result, Threshold
from ..contract.evaluation import BOUNDS
from . import charts, wording
from .matrix import Matrix, confusions, matrix_of
from .results import EvaluationResults, Example, GroupFigure, Groups, TaskResults

OPEN_TASKS = 6
PLOTTED_GROUPS = 40
GROUP_ROWS = 15_000
"""Rows of all tables of groups together; each table shows its worst and its best."""
TEXT = 600_000
"""Characters of all examples together; each is shortened to its share."""
SHORTEST_TEXT, LONGEST_TEXT = 240, 4_000
EXAMPLES = 20
LINEAGE_ROWS = 300


@dataclass(frozen=True)
class Bound:
    """One bound of one threshold, and what was found of it, if anything."""

    threshold: Threshold
    bound: str
    check: Check | None


@dataclass(frozen=True)
class GroupView:
    """One metric by group, worst first."""

    groups: Groups
    rows: tuple[GroupFigure, ...]
    plotted: int
    plot: Markup
    left_out: int


@dataclass(frozen=True)
class TaskView:
    """One task with what is made of its results for looking at."""

    number: int
    results: TaskResults
    groups: tuple[GroupView, ...]
    target_matrix: Matrix | None
    baseline_matrix: Matrix | None
    confusions: tuple[tuple[str, str, int], ...]
    examples: tuple[tuple[str, tuple[Example, ...]], ...]


def render(results: EvaluationResults) -> str:
    """Return the page. `results` may hold any text and any figures; what is not finite is "not measured"."""
    tables = sum(len(task.groups) for task in results.tasks)
    rows = max(PLOTTED_GROUPS, GROUP_ROWS // max(1, tables))
    texts = 4 * sum(len(task.best_wins) + len(task.worst_losses) + len(task.worst) for task in results.tasks)
    return _ENVIRONMENT.get_template("report.html.jinja").render(
        results=results,
        bounds=[*_bounds(results)],
        tasks=[_task(number, task, rows) for number, task in enumerate(results.tasks, 1)],
        text_limit=min(LONGEST_TEXT, max(SHORTEST_TEXT, TEXT // max(1, texts))),
        opened=len(results.tasks) <= OPEN_TASKS,
        lineage=[*_leaves(results.lineage)][:LINEAGE_ROWS],
    )


def _bounds(results: EvaluationResults) -> Iterator[Bound]:
    checks: dict[tuple[int, str], Check] = {(check.threshold, check.bound): check for check in results.checks}
    for index, threshold in enumerate(results.thresholds):
        for bound in BOUNDS:
            if wording.of_threshold(threshold, bound) is not None:
                yield Bound(threshold, bound, checks.get((index, bound)))


def _task(number: int, task: TaskResults, rows: int) -> TaskView:
    confusion = task.confusion
    lists = (
        ("Better than the baseline", task.best_wins),
        ("Worse than the baseline", task.worst_losses),
        ("Worst rows", task.worst),
    )
    return TaskView(
        number=number,
        results=task,
        groups=tuple(_groups(groups, {each.metric: each for each in task.results}, rows) for groups in task.groups),
        target_matrix=matrix_of(confusion.labels, confusion.target) if confusion else None,
        baseline_matrix=matrix_of(confusion.labels, confusion.baseline) if confusion and confusion.baseline else None,
        confusions=confusions(confusion.labels, confusion.target) if confusion else (),
        examples=tuple((title, tuple(examples[:EXAMPLES])) for title, examples in lists if examples),
    )


def _groups(groups: Groups, results: dict[str, Result], limit: int) -> GroupView:
    overall = results.get(groups.metric)
    sign = -1 if overall is not None and overall.lower_is_better else 1
    measured = [each for each in groups.groups if wording.measured(each.value)]
    measured.sort(key=lambda each: (sign * (each.value or 0.0), each.name))
    rows = [*measured, *(each for each in groups.groups if not wording.measured(each.value))]
    plotted = _ends(measured, PLOTTED_GROUPS)
    return GroupView(
        groups=groups,
        rows=_ends(rows, limit),
        plotted=len(plotted),
        plot=charts.dot_plot(groups, plotted, overall.value if overall else None),
        left_out=max(0, len(rows) - limit),
    )


def _ends(rows: list[GroupFigure], limit: int) -> tuple[GroupFigure, ...]:
    """Return at most `limit` rows, half from either end."""
    return tuple(rows) if len(rows) <= limit else (*rows[: limit // 2], *rows[-(limit // 2) :])


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Return each value of nested objects with its path."""
    if isinstance(value, dict) and value:
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, str):
        yield path, value
    else:
        yield path, json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _finished(value: Any) -> Any:
    """Return what an expression of the template prints: no `None`, no `nan`, no character that HTML cannot hold."""
    if isinstance(value, Markup):
        return value
    if value is None or isinstance(value, float):
        return wording.figure(value)
    return wording.visible(value) if isinstance(value, str) else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("trimtab_trainer.evaluate", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finished,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(
    figure=wording.figure,
    percent=wording.percent,
    probability=wording.probability,
    short=wording.short,
    shortened=wording.shortened,
    count=lambda value: f"{value:,}",
)
_ENVIRONMENT.globals.update(
    interval=wording.interval,
    limit=wording.limit,
    found=wording.found,
    against_limit=wording.against_limit,
    difference=wording.difference,
    measured=wording.measured,
    decimals=wording.decimals,
    interval_bar=charts.interval_bar,
    histogram=charts.histogram,
    wins_bar=charts.wins_bar,
)
