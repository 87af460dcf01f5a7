"""What a judge says of a task's answers: asked once, stored as it comes, and looked at before anybody believes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ...contract import EvaluationTask, Judging, StoredJudge
from ...contract.evaluation import UNRELIABLE_LENGTH
from ...interruption import Interruption
from ...report import Report
from ...storage import Store
from ..results import JudgeResults
from ..rows import EvaluationRow, RowScore
from .judgements import Judged, Judgement, judged, questions, unreliable
from .prompts import template_digest
from .store import judgements_digest, read_judgements, read_parts, write_judgements, write_part

MOST_MODELS = 16
"""Names of an endpoint's model that the report keeps: two are two judges already."""


class Judge(Protocol):
    """Replies to questions about answers.

    Attributes:
        part: of how many questions the replies are stored together; None: all.
    """

    part: int | None

    @property
    def identity(self) -> dict[str, Any]:
        """Who is asked, as it is pinned with the judgements."""

    def ask(
        self, asked: Sequence[Judgement], heard: Callable[[Judgement], object], stop: Interruption, report: Report
    ) -> None:
        """Ask every question, and tell of each with its reply as it comes."""


def identity_of(settings: StoredJudge) -> dict[str, Any]:
    """Return what of a judge defines what it says; not where it lies, nor its keys."""
    if settings.endpoint is not None:
        who: dict[str, Any] = {"endpoint": settings.endpoint.url, "model": settings.endpoint.model}
    else:
        who = {"digest": settings.model.digest if settings.model is not None else None}
    return {**who, "words": template_digest()}


def judge_task(  # noqa: PLR0917 all of them in the order that they are needed
    judge: Judge,
    store: Store,
    task: EvaluationTask,
    rows: Sequence[EvaluationRow],
    target: Sequence[RowScore],
    baseline: Sequence[RowScore] | None,
    *,
    folder: Path,
    stop: Interruption,
    report: Report,
) -> tuple[Judged, JudgeResults]:
    """Return what the judge says of a task's answers, from storage where it was asked the same before.

    Raises:
        TrainerError: the judge does not answer, or storage failed; what it has said is kept for the next attempt.
    """
    judging = _judging(task)
    asked = questions(judging, rows, target, baseline)
    digest = judgements_digest(judge.identity, asked)
    replies = read_judgements(store, digest, folder, report)
    if replies is None:
        made = _ask(judge, store, digest, asked, stop=stop, report=report)
        replies = write_judgements(store, digest, judge.identity, made, folder, report)
    else:
        report("task was judged before", task=task.name, questions=len(replies))
    found = judged(judging, rows, target, baseline, replies)
    trouble = unreliable(judging, found)
    if trouble is not None:
        report.warn("the judge is not to be relied on", task=task.name, why=trouble)
        trouble = f"the judge of task {task.name} decides nothing: {trouble}"[:UNRELIABLE_LENGTH]
    return found, JudgeResults(
        judge=judge.identity,
        models=list(found.models[:MOST_MODELS]),
        words=template_digest(),
        mode=judging.chosen_mode,
        instructions=judging.instructions,
        judgements=digest,
        asked=found.asked,
        pairs=found.pairs,
        inconsistent=found.inconsistent,
        unreadable=found.unreadable,
        labelled=found.labelled,
        agreed=found.agreed,
        minimum_agreement=judging.minimum_agreement,
        unreliable=trouble,
    )


def _ask(
    judge: Judge, store: Store, digest: str, asked: list[Judgement], *, stop: Interruption, report: Report
) -> list[Judgement]:
    """Return every question with its reply, in order; those that an attempt before was told are not asked again."""
    known = read_parts(store, digest, asked, report)
    missing = [each for each in asked if each.place not in known]
    if known:
        report("the judge goes on", known=len(known), questions=len(missing))
    size = judge.part or max(len(missing), 1)
    for at in range(0, len(missing), size):
        heard: list[Judgement] = []
        try:
            judge.ask(missing[at : at + size], heard.append, stop, report)
        finally:
            said = list(heard)
            write_part(store, digest, said)
            known |= {each.place: each for each in said}
    return [known[each.place] for each in asked]


def _judging(task: EvaluationTask) -> Judging:
    if task.judging is None:
        raise ValueError(f"task {task.name} has nothing to ask a judge")
    return task.judging
