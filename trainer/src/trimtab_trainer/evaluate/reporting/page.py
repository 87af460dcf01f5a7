"""report.html: what an evaluation found, as one page that a team looks at together. No torch.

Whatever comes from data is escaped by the template; equal results give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from ...contract import Check, EvaluationOutcome, Result, Threshold
from ...contract.evaluation import DEFAULT_GAP_CONFIDENCE, GAPS, Against, as_told
from ...contract.gate.bounds import Finding
from ...contract.gate.verdict import Verdict, judge
from ...contract.outcome import PACKED_OUTCOME_BYTES
from ...pages.environment import environment, leaves
from ...pages.wording import measured
from ..results import EvaluationResults, Example, GroupFigure, MetricByGroup, TaskResults
from . import charts, wording
from .confusion_table import Matrix, confusions, matrix_of

OPEN_TASKS = 6
LINEAGE_ROWS = 300


@dataclass(frozen=True)
class Room:
    """How much each part may take, so that fifty tasks of five hundred groups are one page; results.json has it all.

    Attributes:
        group_rows: rows of a table of groups: the worst and the best.
        plotted: groups of a plot, likewise.
        examples: of a list of examples, the first ones.
        text: characters of one text of an example.
    """

    group_rows: int
    plotted: int
    examples: int
    text: int

    @classmethod
    def of(cls, results: EvaluationResults) -> Room:
        """Return equal shares of what the page has room for."""
        tables = sum(len(task.groups) for task in results.tasks)
        examples = [each for task in results.tasks for each in (task.best_wins, task.worst_losses, task.worst) if each]
        shown = _share(300, len(examples), 2, 10)
        return cls(
            group_rows=_share(7_500, tables, 30, 7_500),
            plotted=_share(4_000, tables, 12, 40),
            examples=shown,
            text=_share(400_000, 4 * shown * len(examples), 240, 4_000),
        )


def _share(whole: int, parts: int, least: int, most: int) -> int:
    return min(most, max(least, whole // max(1, parts)))


@dataclass(frozen=True)
class Bound:
    """One bound of one threshold, and what was found of it, if anything."""

    threshold: Threshold
    bound: str
    check: Check | None
    finding: str = wording.FINDINGS[Finding.UNKNOWN]
    against: Against = Against.BASELINE


@dataclass(frozen=True)
class GroupView:
    """One metric by group, worst first."""

    groups: MetricByGroup
    rows: tuple[GroupFigure, ...]
    plotted: int
    """Groups that are drawn, if not all that are measured."""
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


def render(results: EvaluationResults, outcome: EvaluationOutcome | None = None) -> str:
    """Return the page. `results` may hold any text and any figures; what is not finite is "not measured".

    Args:
        results: all that is known.
        outcome: that is stored beside the page, as `verdict_of` takes it.
    """
    room = Room.of(results)
    verdict = verdict_of(results, outcome)
    return _ENVIRONMENT.get_template("report.html.jinja").render(
        results=results,
        verdict=verdict,
        bounds=[*_bounds(results, verdict)],
        tasks=[_task(number, task, room) for number, task in enumerate(results.tasks, 1)],
        text_limit=room.text,
        opened=len(results.tasks) <= OPEN_TASKS,
        lineage=[*leaves(results.lineage)][:LINEAGE_ROWS],
    )


def verdict_of(results: EvaluationResults, outcome: EvaluationOutcome | None = None) -> Verdict:
    """Return the verdict, as the operator gives it of what it is told.

    Args:
        results: all that is known.
        outcome: of which the operator is told what fits into a termination message; None: all of it fits.
    """
    if outcome is not None:
        told = EvaluationOutcome.unpack(outcome.pack(PACKED_OUTCOME_BYTES))
        return judge(results.thresholds, told, anchored=results.anchor is not None)
    figures = [each for task in results.tasks for each in task.results]
    told = EvaluationOutcome(
        report_uri="",
        results_digest=results.digest,
        rows=sum(task.rows for task in results.tasks),
        results=figures,
        checks=as_told(results.checks),
        unreliable=results.unreliable,
    )
    return judge(results.thresholds, told, anchored=results.anchor is not None)


def _bounds(results: EvaluationResults, verdict: Verdict) -> Iterator[Bound]:
    checks: dict[tuple[int, str, Against], Check] = {(c.threshold, c.bound, c.against): c for c in results.checks}
    for each in verdict.bounds:
        threshold, check = results.thresholds[each.threshold], checks.get(each.key)
        yield Bound(threshold, each.name, check, wording.FINDINGS[each.finding], each.against)


def _task(number: int, task: TaskResults, room: Room) -> TaskView:
    confusion = task.confusion
    lists = (
        ("Better than the baseline", task.best_wins),
        ("Worse than the baseline", task.worst_losses),
        ("Worst rows", task.worst),
    )
    return TaskView(
        number=number,
        results=task,
        groups=tuple(_groups(groups, {each.metric: each for each in task.results}, room) for groups in task.groups),
        target_matrix=matrix_of(confusion.labels, confusion.target) if confusion else None,
        baseline_matrix=matrix_of(confusion.labels, confusion.baseline) if confusion and confusion.baseline else None,
        confusions=confusions(confusion.labels, confusion.target) if confusion else (),
        examples=tuple((title, tuple(listed[: room.examples])) for title, listed in lists if listed),
    )


def _groups(groups: MetricByGroup, results: dict[str, Result], room: Room) -> GroupView:
    overall = results.get(groups.metric)
    sign = -1 if groups.lower_is_better else 1
    known = [each for each in groups.groups if measured(each.value)]
    known.sort(key=lambda each: (sign * (each.value or 0.0), each.name))
    rows = [*known, *(each for each in groups.groups if not measured(each.value))]
    plotted = _ends(known, room.plotted)
    return GroupView(
        groups=groups,
        rows=_ends(rows, room.group_rows),
        plotted=len(plotted) if len(plotted) < len(known) else 0,
        plot=charts.dot_plot(groups, plotted, overall.value if overall else None),
        left_out=max(0, len(rows) - room.group_rows),
    )


def _ends(rows: list[GroupFigure], limit: int) -> tuple[GroupFigure, ...]:
    """Return at most `limit` rows, half from either end."""
    return tuple(rows) if len(rows) <= limit else (*rows[: limit // 2], *rows[-(limit // 2) :])


_ENVIRONMENT = environment("trimtab_trainer.evaluate.reporting")
_ENVIRONMENT.filters.update(probability=wording.probability, called=wording.called)
_ENVIRONMENT.globals.update(
    gap_confidence=DEFAULT_GAP_CONFIDENCE,
    gaps=GAPS,
    limit=wording.limit,
    found=wording.found,
    trained=wording.trained,
    against_limit=wording.against_limit,
    difference=wording.difference,
    interval_bar=charts.interval_bar,
    histogram=charts.histogram,
    wins_bar=charts.wins_bar,
)
