"""The status as a ledger: attempts are entered, closed and charged here, and nowhere else."""

from __future__ import annotations

from datetime import datetime
from itertools import takewhile
from typing import Literal

from trimtab_trainer.contract import Summary

from trimtab_operator.api import AttemptReason, AttemptStatus, WorkStatus
from trimtab_operator.api.work import (
    ACCELERATORS_MAXIMUM,
    ATTEMPT_MESSAGE_LENGTH,
    EARLIER_MESSAGE_LENGTH,
    RETRY_AFTER_MAXIMUM,
)

from ...conditions import cut
from ...settings import ACCELERATOR_RESOURCES
from ...views import format_time, parse_time
from ..building.accelerators import devices
from ..particulars import Particulars
from ..subject import J, S, Work
from .attempt import Attempt
from .ending import Ending, Verdict

ATTEMPTS_KEPT = 10
PAUSE_AT_MOST = 300
"""Seconds between two attempts, where nothing asks for more."""


def accelerators(job: Work, attempt: AttemptStatus, *, works: bool) -> int:
    """Return how many accelerators an attempt's pods hold together.

    The attempt says so, because the template may be another by now. One that an older operator entered does not.
    """
    if attempt.accelerators is not None or not works:
        return attempt.accelerators or 0
    template = job.spec.template
    limits = (template.resources.to_json() if template.resources is not None else {}).get("limits", {})
    return min(devices(limits, ACCELERATOR_RESOURCES), ACCELERATORS_MAXIMUM)


def open_attempt(status: WorkStatus) -> AttemptStatus | None:
    """Return the attempt that has not ended, if there is one: it is always the last."""
    last = status.attempts[-1] if status.attempts else None
    return last if last is not None and last.reason is None else None


def running_seconds(attempt: AttemptStatus, end: datetime) -> int:
    """Return for how long an attempt's pods have run by `end`."""
    start = parse_time(attempt.start_time)
    since_start = max(0, round((end - start).total_seconds())) if start is not None else 0
    return (attempt.active_seconds or 0) + since_start


def pause_seconds(status: WorkStatus, first: float) -> float:
    """Return the seconds that pass between the last attempt and the next: `first`, twice as many each time.

    Failures are counted over all attempts. A disruption costs no time, as the next node may be a good one; but a node
    that refuses pods is free, so that the scheduler chooses it again and again, and what deletes a Job twice may be a
    policy that sweeps them all.
    """
    last = status.attempts[-1] if status.attempts else None
    if last is None:
        return 0
    if last.charged_to == "failures":
        return max(_doubled(first, status.failures), last.retry_after_seconds or 0)
    alike = sum(1 for _ in takewhile(lambda each: each.reason == last.reason, reversed(status.attempts)))
    times = {AttemptReason.POD_FAILED.value: alike, AttemptReason.JOB_DELETED.value: alike - 1}.get(
        last.reason or "", 0
    )
    return _doubled(first, times) if times else 0


def _doubled(first: float, times: int) -> float:
    """Return the pause after so many times; an exponent that is not bounded has no float after 1,024."""
    return float(min(first * 2 ** min(times - 1, 16), PAUSE_AT_MOST))


def active_seconds(status: WorkStatus, now: datetime) -> int:
    """Return the time with a running pod so far, over all attempts."""
    attempt = open_attempt(status)
    return status.active_seconds + (running_seconds(attempt, now) if attempt is not None else 0)


def replace_last(status: S, attempt: AttemptStatus) -> S:
    return status.model_copy(update={"attempts": [*status.attempts[:-1], attempt]})


def _shortened(attempt: AttemptStatus) -> AttemptStatus:
    if attempt.message is None or len(attempt.message) <= EARLIER_MESSAGE_LENGTH:
        return attempt
    return attempt.model_copy(update={"message": cut(attempt.message, EARLIER_MESSAGE_LENGTH)})


def enter(status: S, seen: Attempt, images: dict[str, str], now: datetime) -> S:
    """Return the status with a new open attempt; the first fixes the start, and the images that are the operator's."""
    attempt = AttemptStatus(
        number=seen.number,
        stage=seen.stage,
        job_name=seen.name,
        job_uid=seen.uid,
        accelerators=seen.accelerators,
    )
    return status.model_copy(
        update={
            "attempts": [*map(_shortened, status.attempts), attempt][-ATTEMPTS_KEPT:],
            "images": images,
            "start_time": status.start_time or format_time(seen.created or now),
        }
    )


def note_start(status: S, seen: Attempt, now: datetime) -> S:
    """Return the status with the start of the first pod that runs now; one that is over may be counted already.

    A node's clock may be hours behind or ahead: no pod started before its Job was made, or let go on.
    """
    attempt = open_attempt(status)
    if attempt is None or attempt.start_time is not None:
        return status
    counted = attempt.active_seconds is not None
    started = [pod.started for pod in seen.current if pod.started is not None and not (pod.over and counted)]
    if not started:
        return status
    start = min(max(filter(None, (min(started), seen.created, seen.resumed))), now)
    return replace_last(status, attempt.model_copy(update={"start_time": format_time(start)}))


def tells_only_a_start(kind: Particulars[J, S], before: WorkStatus, after: WorkStatus) -> bool:
    """Tell whether all news is that a pod has started that holds no accelerators.

    Its end comes soon: the write that tells of that tells of the start too.
    """
    attempt = open_attempt(after)
    if attempt is None or attempt.stage == kind.main_stage.value or attempt.start_time is None:
        return False
    return replace_last(after, attempt.model_copy(update={"start_time": None})) == before


def pause(status: S, seen: Attempt, now: datetime) -> S:
    """Return the status with the open attempt's clock stopped: its Job is suspended and its pod is gone."""
    attempt = open_attempt(status)
    if attempt is None or attempt.start_time is None:
        return status
    update = {
        "active_seconds": running_seconds(attempt, _stopped(attempt, seen, now)),
        "start_time": None,
        "first_start_time": attempt.first_start_time or attempt.start_time,
    }
    return replace_last(status, attempt.model_copy(update=update))


def _stopped(attempt: AttemptStatus, seen: Attempt | None, known: datetime) -> datetime:
    """Return when an attempt's pods stopped: as their nodes tell, unless that is before they began, or ahead of what is
    known otherwise."""
    told, began = seen.stopped if seen is not None else None, parse_time(attempt.start_time)
    return told if told is not None and (began or told) <= told <= known else known


def was_suspended(status: WorkStatus, seen: Attempt) -> bool:
    """Tell whether the open attempt was suspended after its pod had started, by a queue or by us.

    The end of that pod is no end of the attempt's own: it did what it was told. The Job counts it all the same, when it
    is let go on: if the pod is not forgotten by then, and if its exit code was matched while the Job was suspended,
    which only then makes it fail, without a word of going on.
    """
    attempt = open_attempt(status)
    if attempt is None:
        return False
    start = parse_time(attempt.start_time)
    if start is None:
        return seen.held or attempt.active_seconds is not None
    return seen.held or (seen.resumed is not None and seen.resumed > start)


def close(kind: Particulars[J, S], job: J, status: S, ending: Ending, seen: Attempt | None) -> S:
    """Return the status with the open attempt ended, its time added up and its end charged to a budget.

    `seen` is what there is of it still.
    """
    attempt = open_attempt(status)
    if attempt is None:
        return status
    end = _stopped(attempt, seen, ending.ended)
    seconds = running_seconds(attempt, end)
    charged: Literal["failures", "disruptions"] | None = None
    if ending.verdict is Verdict.FAILURE:
        charged = "failures"
    elif ending.verdict is Verdict.DISRUPTION:
        charged = "disruptions"
    summary = ending.words.summary if ending.words is not None else Summary()
    asked = ending.words.retry_after_seconds if ending.words is not None else None
    works = attempt.stage == kind.main_stage.value
    reached = kind.step(status) if works else None
    closed = attempt.model_copy(
        update={
            "reason": ending.reason[:64],
            "message": ending.message[:ATTEMPT_MESSAGE_LENGTH],
            "charged_to": charged,
            "retry_after_seconds": min(asked, RETRY_AFTER_MAXIMUM) if asked and charged == "failures" else None,
            "accelerators": None,  # in the sums from here on; ten attempts must leave the status below 10 kB
            "start_time": attempt.first_start_time or attempt.start_time,
            "first_start_time": None,
            "end_time": format_time(end),
            "active_seconds": seconds,
            "start_step": summary.resumed_from_step,
            "end_step": summary.step if summary.step is not None else reached,
        }
    )
    update: dict[str, object] = {"active_seconds": status.active_seconds + seconds}
    if charged is not None:
        update[charged] = getattr(status, charged) + 1
    if held := accelerators(job, attempt, works=works):
        update["accelerator_seconds"] = status.accelerator_seconds + held * seconds
        if charged is not None:
            lost = min(seconds, kind.lost_seconds(status, ending, end, seconds) if works else seconds)
            update["lost_accelerator_seconds"] = status.lost_accelerator_seconds + held * lost
    status = replace_last(status, closed).model_copy(update=update)
    return kind.note_last_figures(status, ending, end)
