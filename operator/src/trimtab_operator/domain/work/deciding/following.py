"""`follow`: what follows from the books, the first that applies: the end, holding or going on, or the next attempt."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from trimtab_operator.api import AttemptReason, State

from ..attempts import accounts
from ..attempts.ending import Verdict
from ..observed import Observed
from ..particulars import Particulars
from ..subject import J, S
from .decision import Decision, cut_short, end
from .running import go_on, hold, suspended_message
from .settling import Books
from .starting import start

RESULTS_LOST_AT_MOST = 3
"""Of the attempts that are kept. What the first has published the second finds; where that is lost too, and the next,
something keeps all of them from being read, and every other would be too."""


def follow(kind: Particulars[J, S], observed: Observed[J], books: Books[S], now: datetime) -> Decision[S]:
    """Return what follows: the first that applies, each of them known from what `settle` has written down."""
    job, status, ending = observed.job, books.status, books.ending
    if ending is not None and ending.verdict is Verdict.FINAL:
        return end(status, ending.reason, ending.message)
    if ending is not None and ending.verdict is Verdict.SUCCEEDED and (message := kind.completed(status)) is not None:
        return Decision(State.COMPLETED.value, message, status, succeeded="True")

    deadline, active = job.spec.active_deadline_seconds, accounts.active_seconds(status, now)
    if deadline is not None and active >= deadline:
        message = f"its pods ran for {active} s, and spec.activeDeadlineSeconds is {deadline}"
        if resumes := kind.resumes(status):
            message += f"; create it again with more, {resumes}"
        status = cut_short(kind, observed, status, State.DEADLINE_EXCEEDED, message, now=now)
        return end(status, State.DEADLINE_EXCEEDED, message)
    if exhausted := _budget_exhausted(kind, job, status):
        return end(status, State.RETRIES_EXHAUSTED, exhausted)

    attempt = accounts.open_attempt(status)
    seen = observed.attempt(attempt.job_uid) if attempt is not None else None
    if attempt is not None and seen is not None:
        step = hold if job.spec.suspend else go_on
        decision = step(kind, observed, status, seen, now)
        runs = attempt.start_time is not None and deadline is not None
        return _look_again_by(decision, deadline - active) if runs and deadline is not None else decision
    if job.spec.suspend:
        return Decision(State.SUSPENDED.value, suspended_message(kind, status), status)
    if books.closed and (again := _not_gone_yet(kind, observed, status)) is not None:
        return again
    return start(kind, observed, status, now)


def _not_gone_yet(kind: Particulars[J, S], observed: Observed[J], status: S) -> Decision[S] | None:
    """Return what to say of an attempt that was just closed while its Job still holds something, else None.

    It is closed in the status first; then a later round deletes the Job.
    """
    closed = status.attempts[-1]
    seen = observed.attempt(closed.job_uid)
    if seen is None or not seen.live:
        return None
    if closed.charged_to is not None:
        message = f"the next attempt starts, after: {closed.message}"
        return Decision(State.RETRYING.value, message, status, look_again_seconds=0)
    message = f"Job {seen.name} is over and goes, with what is left in its pod; then the next Job starts"
    return Decision(kind.working(status, replace(seen, progress=None))[0], message, status, look_again_seconds=0)


def _look_again_by(decision: Decision[S], seconds: float | None) -> Decision[S]:
    if seconds is None or (decision.look_again_seconds is not None and decision.look_again_seconds <= seconds):
        return decision
    return replace(decision, look_again_seconds=max(1.0, seconds))


def _budget_exhausted(kind: Particulars[J, S], job: J, status: S) -> str:
    """Return the message if the last attempt was one too many; preemptions cost nothing until there are many."""
    last = status.attempts[-1] if status.attempts else None
    if last is None or last.charged_to is None:
        return ""
    goes_on = kind.resumes(status) or "it starts again"
    because = f"{last.reason}: {last.message}"
    lost = sum(each.reason == AttemptReason.RESULT_LOST for each in status.attempts)
    if last.reason == AttemptReason.RESULT_LOST and lost >= RESULTS_LOST_AT_MOST:
        return (
            f"{lost} attempts ended well and none told what it came to, last with {because}. Look for what deletes "
            "pods as soon as they end, changes their terminationMessagePath or replaces the image, and create it "
            f"again, {goes_on}"
        )
    if status.failures > job.spec.retries.on_failure:
        return f"failed {_times(status.failures)}, last with {because}; mend the cause and create it again, {goes_on}"
    if status.disruptions > job.spec.retries.on_disruption:
        return (
            f"interrupted {_times(status.disruptions)}, last by {because}; create it again with a larger "
            f"spec.retries.onDisruption, {goes_on}"
        )
    return ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
