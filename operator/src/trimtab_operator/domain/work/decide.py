"""`plan`: the whole decision about work in stages, in the order in which a person would make it.

1. Enter and close attempts, and charge those that ended (`settle`).
2. Decide what follows from the books: the end, waiting, or the next attempt (`follow`).
3. Write it down (`_render`).

What keeps it right when the operator dies between any two writes: a Job is created before the status tells of it,
because the next round finds it by its owner and enters it; an attempt is closed in the status before its Job is
deleted, because the next round deletes every live Job whose attempt is closed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from trimtab_operator.api import NOT_UNDERSTOOD, WARNED, Condition

from ..ended import comes_back, time_is_over
from ..ownership import controlled_by, leaves_children
from ..plan import Action, Note, Plan
from ..readers import LOOKED_AT_SECONDS, waits_for
from ..views import format_time, parse_time
from .afterwards import LONGEST_SECONDS, Afterwards
from .attempts import accounts
from .attempts.attempt import Attempt
from .conditions import is_over, make_condition, notes_of
from .deciding.decision import Decision
from .deciding.following import follow
from .deciding.settling import Books, settle
from .observed import Observed
from .particulars import Particulars
from .subject import J, S, Work

TAKEN_AGAIN_SECONDS = 10.0
UNWATCHED_SECONDS = 10.0
"""Between two looks at a live Job that our watches do not select, or its pods: nobody else tells what becomes of it."""


def plan(observed: Observed[J], now: datetime) -> Plan:
    """Decide what to do about a FineTuneJob, an Evaluation or an AdapterExport now."""
    return _plan(observed.kind, observed, now)


def _plan(kind: Particulars[J, S], observed: Observed[J], now: datetime) -> Plan:
    job = observed.job
    if job.metadata.deletion_timestamp is not None:
        return _leaving(observed, now)
    if not is_over(job) and (what := _unknown(kind, observed)) is not None:
        return _not_understood(job, what, now)
    if strays := _strays(observed):
        return _unless_refused(observed, Plan(actions=strays, confirm=True), now)
    if is_over(job):
        return _after_the_end(observed, now)
    books = settle(kind, observed, now)
    decision = follow(kind, observed, books, now)
    if unanswered := tuple(i for i in (*books.inquiries, *decision.inquiries) if i not in observed.answers):
        return Plan(inquiries=unanswered)
    if decision.actions and not decision.message:  # what to say follows from what comes of them
        return Plan(actions=decision.actions, confirm=True)
    made = _with_adoptions(observed, _render(kind, observed, books, decision, now), now)
    return _beside(kind, observed, made, now) if decision.succeeded == "Unknown" and not made.actions else made


def _with_adoptions(observed: Observed[Any], made: Plan, now: datetime) -> Plan:
    """Return a plan with the adoption of every Job that is ours and does not say so any more.

    A tool that restores a backup, or prunes, may have taken its owner reference or its labels.
    """
    metadata = observed.job.metadata
    lost = [seen for seen in observed.attempts if seen.job.owner_uid != metadata.uid or not seen.job.managed]
    unseen = any(_is_unseen(seen, now) for seen in observed.attempts)
    if not lost and not unseen:
        return made
    owner = controlled_by(observed.kind.name, metadata)
    adoptions = tuple(seen.adopt(observed.kind.label, owner) for seen in lost if not seen.job.deleting)
    made = replace(made, aside=(*adoptions, *made.aside))
    if unseen or any(seen.live and not seen.job.managed for seen in lost):  # a policy may write over them again
        again = min(UNWATCHED_SECONDS, made.look_again_seconds or UNWATCHED_SECONDS)
        made = replace(made, confirm=True, look_again_seconds=again)
    return made


def _is_unseen(attempt: Attempt, now: datetime) -> bool:
    """Tell whether a Job has pods that no watch tells of: a policy may have taken the label that selects them.

    Those of a Job that another controller runs are in another cluster (MultiKueue), and only its counts are here.
    """
    created = attempt.created
    late = created is not None and (now - created).total_seconds() > UNWATCHED_SECONDS
    return late and not attempt.job.run_by and attempt.live and attempt.job.active > len(attempt.current)


def _beside(kind: Particulars[J, S], observed: Observed[J], made: Plan, now: datetime) -> Plan:
    """Return a plan with what is made beside the work, where there is nothing to do about the work itself."""
    more = kind.meanwhile(observed, now)
    times = [each for each in (made.look_again_seconds, more.look_again_seconds) if each is not None]
    return replace(made, aside=(*made.aside, *more.creates), look_again_seconds=min(times, default=None))


def _unknown(kind: Particulars[J, S], observed: Observed[J]) -> str | None:
    """Return what only another version knows the meaning of: a stage that ours do not have, or last words."""
    ours, attempts = {stage.value for stage in kind.stages}, observed.job.status.attempts
    closed = {attempt.job_uid for attempt in attempts if attempt.reason is not None}
    seen = [attempt for attempt in observed.attempts if attempt.uid not in closed]
    if stages := [attempt.stage for attempt in (*attempts, *seen) if attempt.stage not in ours]:
        return f"the stage {stages[-1]} that a Job is of"
    contracts = [pod.other_contract for attempt in seen for pod in attempt.pods if pod.other_contract]
    return f"the last words of a pod, which are of {contracts[-1]}" if contracts else None


def _not_understood(job: J, what: str, now: datetime) -> Plan:
    """What runs goes on, and whatever became of it is for the version that knows what its words mean."""
    message = (
        f"this version of the operator does not understand {what}; nothing of it is touched. It goes on when an "
        "operator runs that does"
    )
    condition = make_condition(job, "Unknown", NOT_UNDERSTOOD, message, now)
    others = [each for each in job.status.conditions if each.type != condition.type]
    status = job.status.model_copy(update={"conditions": [condition, *others]})
    return Plan(status=status.to_json(), notes=notes_of(job, condition))


def _strays(observed: Observed[Any]) -> tuple[Action, ...]:
    """Return the deletion of every live Job whose attempt is closed, or whose owner has ended."""
    status = observed.job.status
    newest = status.attempts[-1] if status.attempts else None
    over = is_over(observed.job)

    def stray(attempt: Attempt) -> bool:
        if over or newest is None:
            return over
        return attempt.number < newest.number or (attempt.number == newest.number and newest.reason is not None)

    return tuple(attempt.delete() for attempt in observed.attempts if attempt.live and stray(attempt))


def _unless_refused(observed: Observed[Any], made: Plan, now: datetime) -> Plan:
    """Return a plan of deletions, or nothing as long as they were refused lately."""
    if observed.refused is not None and (pause := observed.refused.pause(now)) > 0:
        return Plan(look_again_seconds=pause)
    return made


def _leaving(observed: Observed[Any], now: datetime) -> Plan:
    """End what runs for an object that is deleted: SIGTERM makes the trainer write a checkpoint.

    The garbage collector does so only when the object is gone, and a finalizer of somebody's may hold it for ever.
    """
    if leaves_children(observed.job.metadata):
        return Plan()
    live = tuple(attempt.delete() for attempt in observed.attempts if attempt.live)
    return _unless_refused(observed, Plan(actions=live, confirm=True), now) if live else Plan()


def _after_the_end(observed: Observed[Any], now: datetime) -> Plan:
    """Terminal is terminal. What is left is what the kind does afterwards, and to delete the job in its time."""
    job, left = observed.job, observed.kind.afterwards(observed, now)
    ttl, ended = job.spec.ttl_seconds_after_finished, job.status.completion_time
    waits = _outlives_its_ttl(left, ended, now)
    goes, look_again = time_is_over(
        observed.kind.name,
        job.metadata,
        ttl=None if waits else ttl,
        completed=ended,
        settings=observed.settings,
        now=now,
    )
    told = waits_for(observed.awaited) if goes is not None and observed.awaited else None
    if told is not None:
        goes, look_again = None, LOOKED_AT_SECONDS
    if goes is not None:
        return _unless_refused(observed, Plan(actions=(goes,), confirm=True), now)
    hindered = _hindered(observed, now) if left.actions else None
    if left.actions and hindered is None:
        return Plan(actions=left.actions, confirm=True)
    conditions = list(job.status.conditions)
    notes: tuple[Note, ...] = ()
    if (said := left.condition) is not None:
        conditions = [*(each for each in conditions if each.type != said.type), said]
        notes = notes_of(job, said) if said.status == "False" else ()
    status = job.status.model_copy(update={"observed_generation": job.metadata.generation, "conditions": conditions})
    again = hindered or look_again or (LONGEST_SECONDS if waits and ttl is not None else None)
    made = Plan(status=status.to_json(), notes=notes, standing=told, look_again_seconds=again)
    return _with_adoptions(observed, made, now)


def _outlives_its_ttl(left: Afterwards, ended: str | None, now: datetime) -> bool:
    """Tell whether what is done after the end keeps an object from being deleted still."""
    completed = parse_time(ended)
    return not left.over and completed is not None and now - completed < timedelta(seconds=LONGEST_SECONDS)


def _hindered(observed: Observed[Any], now: datetime) -> float | None:
    """Return in how many seconds to try again what was refused or met another's name, None where neither is so."""
    if observed.taken is not None:
        return TAKEN_AGAIN_SECONDS
    pause = observed.refused.pause(now) if observed.refused is not None else 0.0
    return pause if pause > 0 else None


def _render(
    kind: Particulars[J, S], observed: Observed[J], books: Books[S], decision: Decision[S], now: datetime
) -> Plan:
    job = observed.job
    message = decision.message
    ends, ttl = decision.succeeded != "Unknown", job.spec.ttl_seconds_after_finished
    if ends and ttl is not None and (mark := comes_back(job.metadata, observed.settings)) is not None:
        message += f"; it is not deleted after its ttlSecondsAfterFinished, as GitOps would bring it back ({mark})"
    condition = make_condition(job, decision.succeeded, decision.reason, message, now)
    others = kind.other_conditions(job, decision.status, condition, now)
    update: dict[str, object] = {
        "observed_generation": job.metadata.generation,
        "conditions": [condition, *others],
    }
    if decision.succeeded != "Unknown":
        update["completion_time"] = format_time(now)
    status = decision.status.model_copy(update=update)
    if not decision.actions and accounts.tells_only_a_start(kind, job.status, status):
        return Plan(look_again_seconds=decision.look_again_seconds)
    return Plan(
        actions=decision.actions,
        status=status.to_json(),
        notes=(*notes_of(job, condition), *kind.other_notes(job, others), *_warnings(job, others)),
        look_again_seconds=decision.look_again_seconds,
        aside=decision.aside,
        confirm=books.closed or decision.confirm or bool(decision.actions) or decision.succeeded != "Unknown",
    )


def _warnings(job: Work, conditions: list[Condition]) -> tuple[Note, ...]:
    return tuple(note for each in conditions if each.type == WARNED for note in notes_of(job, each))
