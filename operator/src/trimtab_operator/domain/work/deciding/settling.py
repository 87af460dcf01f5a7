"""`settle`: attempts are entered, brought up to date and closed before anything is decided: the books."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic

from trimtab_trainer.contract import Stage

from trimtab_operator.api import WARNED, AttemptReason

from ...plan import Inquiry, NodeOf
from ..attempts import accounts
from ..attempts.attempt import Attempt
from ..attempts.ending import LOST, Ending, Verdict, ending_of, lost, vanished
from ..building.job import stage_image
from ..conditions import note_warnings
from ..observed import Observed
from ..particulars import Particulars
from ..subject import J, S


@dataclass(frozen=True)
class Books(Generic[S]):
    """The status after settling, how the last attempt ended if it ended just now, and whether any was closed."""

    status: S
    ending: Ending | None = None
    closed: bool = False
    inquiries: tuple[Inquiry, ...] = ()


def settle(kind: Particulars[J, S], observed: Observed[J], now: datetime) -> Books[S]:
    """Enter Jobs that the status does not tell of yet, and close attempts that ended, in the order of their numbers."""
    job, settings = observed.job, observed.settings
    images = {stage.value: stage_image(kind, job, settings, stage) for stage in kind.stages_of(job)}
    newest = job.status.attempts[-1].number if job.status.attempts else -1
    books = _settle_open(kind, observed, Books(job.status), now)
    for seen in observed.attempts:
        if seen.number > newest and accounts.open_attempt(books.status) is None:
            entered = replace(books, status=accounts.enter(books.status, seen, images, now), ending=None)
            books = _settle_open(kind, observed, entered, now)
    return books


def _settle_open(kind: Particulars[J, S], observed: Observed[J], books: Books[S], now: datetime) -> Books[S]:
    """Bring the open attempt up to date, and close it if it ended."""
    attempt = accounts.open_attempt(books.status)
    if attempt is None:
        return books
    seen = observed.attempt(attempt.job_uid)
    if seen is None or seen.vanished:
        return _close(kind, observed.job, books, vanished(now), seen=None, now=now)
    status = accounts.note_start(books.status, seen, now)
    books = replace(books, status=kind.note_progress(status, seen))
    if seen.ended(now):
        ending = ending_of(seen, kind.tells_result, kind.name, now)
        if ending.told_to and accounts.was_suspended(books.status, seen):
            ending = replace(ending, verdict=Verdict.SUSPENDED, reason=AttemptReason.SUSPENDED)
        last_words = ending.words if ending.verdict is Verdict.FINAL else None
        if last_words and (warning := kind.goes_on_without(status, seen.stage, last_words)):
            ending = replace(ending, verdict=Verdict.SKIPPED)
            warnings = [*(each.message for each in status.conditions if each.type == WARNED), warning]
            books = replace(books, status=note_warnings(observed.job, books.status, warnings, now, last=False))
        return _close(kind, observed.job, books, ending, seen=seen, now=now)
    overdue = seen.overdue(observed.settings.node_loss_seconds)
    if overdue is not None and now >= overdue[1] and (pod := overdue[0]).node:
        inquiry = NodeOf(pod.node)
        books = replace(books, inquiries=(inquiry,))
        answer = observed.answers.get(inquiry)
        if answer in LOST:
            return _close(kind, observed.job, books, lost(pod.node, answer, now), seen=seen, now=now)
    return books


def _close(
    kind: Particulars[J, S], job: J, books: Books[S], ending: Ending, *, seen: Attempt | None, now: datetime
) -> Books[S]:
    status = accounts.close(kind, job, books.status, ending, seen)
    if ending.verdict is Verdict.SUCCEEDED and ending.words is not None:
        status = kind.note_result(job, status, ending.words, now)
        last = ending.words.stage not in (Stage.MIRROR, Stage.PREPARE)
        status = note_warnings(job, status, ending.words.warnings, now, last=last)
    return replace(books, status=status, ending=ending, closed=True)
