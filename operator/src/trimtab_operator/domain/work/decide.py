"""`plan`: the whole decision about work in stages, in the order in which a person would make it.

1. Enter and close attempts, and charge those that ended (`_settle`).
2. Decide what follows from the books: the end, waiting, or the next attempt (`_decide`).
3. Write it down (`_render`).

What keeps it right when the operator dies between any two writes: a Job is created before the status tells of it,
because the next round finds it by its owner and enters it; an attempt is closed in the status before its Job is
deleted, because the next round deletes every live Job whose attempt is closed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic

from trimtab_trainer.contract import Reason, Stage

from trimtab_operator.api import NOT_UNDERSTOOD, WARNED, AttemptReason, AttemptStatus, Condition, State, WorkStatus

from ..ended import comes_back, time_is_over
from ..ownership import controlled_by, leaves_children
from ..plan import Action, Create, Inquiry, NodeOf, Note, Plan
from ..readers import LOOKED_AT_SECONDS
from ..views import JobView, PodView, format_time, parse_time
from .afterwards import LONGEST_SECONDS, Afterwards
from .attempts import accounts
from .attempts.attempt import Attempt
from .attempts.ending import LOST, Ending, Verdict, ending_of, lost, vanished
from .attempts.waiting import Waiting, patience, refused, waiting_of
from .building.inputs import gives_way
from .building.job import build_job, build_run_config_map, stage_image
from .building.names import next_number, run_config_name
from .building.peers import build_peers
from .conditions import ConditionStatus, condition_of, is_over, make_condition, note_warnings, notes_of
from .observed import Observed
from .particulars import Particulars
from .subject import J, S, Work

TAKEN_AGAIN_SECONDS = 10.0
UNWATCHED_SECONDS = 10.0
"""Between two looks at a live Job that our watches do not select: nobody else tells what becomes of it."""
RESULTS_LOST_AT_MOST = 3
"""Of the attempts that are kept. What the first has published the second finds; where that is lost too, and the next,
something keeps all of them from being read, and every other would be too."""
UNREADABLE = (
    "its progress cannot be read, which does it no harm: let the operator's pods in at port 9401 to see how far it is "
    "(a NetworkPolicy may forbid it)"
)


@dataclass(frozen=True)
class _Books(Generic[S]):
    """The status after settling, how the last attempt ended if it ended just now, and whether any was closed."""

    status: S
    ending: Ending | None = None
    closed: bool = False
    inquiries: tuple[Inquiry, ...] = ()


@dataclass(frozen=True)
class _Decision(Generic[S]):
    """What follows: a state, and how to get on from it."""

    reason: str
    message: str
    status: S
    succeeded: ConditionStatus = "Unknown"
    actions: tuple[Action, ...] = ()
    look_again_seconds: float | None = None
    inquiries: tuple[Inquiry, ...] = ()
    confirm: bool = False
    aside: tuple[Create, ...] = ()


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
    books = _settle(kind, observed, now)
    decision = _decide(kind, observed, books, now)
    if unanswered := tuple(i for i in (*books.inquiries, *decision.inquiries) if i not in observed.answers):
        return Plan(inquiries=unanswered)
    if decision.actions and not decision.message:  # what to say follows from what comes of them
        return Plan(actions=decision.actions, confirm=True)
    made = _with_adoptions(observed, _render(kind, observed, books, decision, now))
    return _beside(kind, observed, made, now) if decision.succeeded == "Unknown" and not made.actions else made


def _with_adoptions(observed: Observed[Any], made: Plan) -> Plan:
    """Return a plan with the adoption of every Job that is ours and does not say so any more.

    A tool that restores a backup, or prunes, may have taken its owner reference or its labels.
    """
    metadata = observed.job.metadata
    lost = [seen for seen in observed.attempts if seen.job.owner_uid != metadata.uid or not seen.job.managed]
    if not lost:
        return made
    owner = controlled_by(observed.kind.name, metadata)
    adoptions = tuple(seen.adopt(observed.kind.label, owner) for seen in lost if not seen.job.deleting)
    made = replace(made, aside=(*adoptions, *made.aside))
    if any(seen.live and not seen.job.managed for seen in lost):  # a policy may write over its labels again and again
        again = min(UNWATCHED_SECONDS, made.look_again_seconds or UNWATCHED_SECONDS)
        made = replace(made, confirm=True, look_again_seconds=again)
    return made


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
    if goes is not None and observed.awaited:
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
    return _with_adoptions(observed, Plan(status=status.to_json(), notes=notes, look_again_seconds=again))


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


def _settle(kind: Particulars[J, S], observed: Observed[J], now: datetime) -> _Books[S]:
    """Enter Jobs that the status does not tell of yet, and close attempts that ended, in the order of their numbers."""
    job, settings = observed.job, observed.settings
    images = {stage.value: stage_image(kind, job, settings, stage) for stage in kind.stages_of(job)}
    newest = job.status.attempts[-1].number if job.status.attempts else -1
    books = _settle_open(kind, observed, _Books(job.status), now)
    for seen in observed.attempts:
        if seen.number > newest and accounts.open_attempt(books.status) is None:
            entered = replace(books, status=accounts.enter(books.status, seen, images, now), ending=None)
            books = _settle_open(kind, observed, entered, now)
    return books


def _settle_open(kind: Particulars[J, S], observed: Observed[J], books: _Books[S], now: datetime) -> _Books[S]:
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
    kind: Particulars[J, S], job: J, books: _Books[S], ending: Ending, *, seen: Attempt | None, now: datetime
) -> _Books[S]:
    status = accounts.close(kind, job, books.status, ending, seen)
    if ending.verdict is Verdict.SUCCEEDED and ending.words is not None:
        status = kind.note_result(job, status, ending.words, now)
        last = ending.words.stage not in (Stage.MIRROR, Stage.PREPARE)
        status = note_warnings(job, status, ending.words.warnings, now, last=last)
    return replace(books, status=status, ending=ending, closed=True)


def _decide(kind: Particulars[J, S], observed: Observed[J], books: _Books[S], now: datetime) -> _Decision[S]:
    job, status, ending = observed.job, books.status, books.ending
    if ending is not None and ending.verdict is Verdict.FINAL:
        return _end(status, ending.reason, ending.message)
    if ending is not None and ending.verdict is Verdict.SUCCEEDED and (message := kind.completed(status)) is not None:
        return _Decision(State.COMPLETED.value, message, status, succeeded="True")

    deadline, active = job.spec.active_deadline_seconds, accounts.active_seconds(status, now)
    if deadline is not None and active >= deadline:
        message = f"its pods ran for {active} s, and spec.activeDeadlineSeconds is {deadline}"
        if resumes := kind.resumes(status):
            message += f"; create it again with more, {resumes}"
        status = _cut_short(kind, observed, status, State.DEADLINE_EXCEEDED, message, now=now)
        return _end(status, State.DEADLINE_EXCEEDED, message)
    if exhausted := _budget_exhausted(kind, job, status):
        return _end(status, State.RETRIES_EXHAUSTED, exhausted)

    attempt = accounts.open_attempt(status)
    seen = observed.attempt(attempt.job_uid) if attempt is not None else None
    if attempt is not None and seen is not None:
        go_on = _hold if job.spec.suspend else _go_on
        decision = go_on(kind, observed, status, seen, now)
        runs = attempt.start_time is not None and deadline is not None
        return _look_again_by(decision, deadline - active) if runs and deadline is not None else decision
    if job.spec.suspend:
        return _Decision(State.SUSPENDED.value, _suspended_message(kind, status), status)
    if books.closed and (again := _not_gone_yet(kind, observed, status)) is not None:
        return again
    return _start(kind, observed, status, now)


def _not_gone_yet(kind: Particulars[J, S], observed: Observed[J], status: S) -> _Decision[S] | None:
    """Return what to say of an attempt that was just closed while its Job still holds something, else None.

    It is closed in the status first; then a later round deletes the Job.
    """
    closed = status.attempts[-1]
    seen = observed.attempt(closed.job_uid)
    if seen is None or not seen.live:
        return None
    if closed.charged_to is not None:
        message = f"the next attempt starts, after: {closed.message}"
        return _Decision(State.RETRYING.value, message, status, look_again_seconds=0)
    message = f"Job {seen.name} is over and goes, with what is left in its pod; then the next Job starts"
    return _Decision(kind.working(status, replace(seen, progress=None))[0], message, status, look_again_seconds=0)


def _hold(kind: Particulars[J, S], observed: Observed[J], status: S, seen: Attempt, now: datetime) -> _Decision[S]:
    """Suspend: SIGTERM, a checkpoint, and the accelerators are free."""
    if seen.queue is not None:
        # The queue owns `suspend`. The attempt is closed here; a later round deletes its Job, which returns the quota.
        ending = Ending(Verdict.SUSPENDED, AttemptReason.SUSPENDED, "suspended by spec.suspend", now)
        status = accounts.close(kind, observed.job, status, ending, seen)
    elif not seen.suspended and _says_suspended(observed):
        return _unless_refused_said(observed, State.SUSPENDED, status, (seen.suspend(True),), now)
    elif seen.at_rest:
        status = accounts.pause(status, seen, now)
    return _Decision(State.SUSPENDED.value, _suspended_message(kind, status), status)


def _says_suspended(observed: Observed[Any]) -> bool:
    """Tell whether the status says that we suspend: it does before we do, so that it tells our doing from others'."""
    said = condition_of(observed.job)
    return said is not None and said.reason == State.SUSPENDED


def _was_not_understood(observed: Observed[Any]) -> bool:
    """Tell whether an operator that did not understand the object has written its word over ours."""
    said = condition_of(observed.job)
    return said is not None and said.reason == NOT_UNDERSTOOD


def _go_on(kind: Particulars[J, S], observed: Observed[J], status: S, seen: Attempt, now: datetime) -> _Decision[S]:
    """An attempt is under way: say what it does, or what it waits for."""
    attempt = accounts.open_attempt(status)
    ran = attempt is not None and (attempt.start_time or attempt.active_seconds) is not None
    if gives_way(kind, observed.job, seen, ran=ran):
        # The attempt is closed in the status first, then a later round deletes its Job.
        message = f"Job {seen.name} had not begun, or was suspended, when the spec changed; the next attempt takes it"
        ending = Ending(Verdict.SUSPENDED, AttemptReason.SPEC_CHANGED, message, now)
        status = accounts.close(kind, observed.job, status, ending, seen)
        return _Decision(State.PENDING.value, message, status, look_again_seconds=0, confirm=True)
    if seen.suspended and seen.queue is None and (_says_suspended(observed) or _was_not_understood(observed)):
        # We suspended it, as the status tells, or told before a version led that did not understand it. The state moves
        # on, so whoever suspends it next is somebody else.
        goes = _unless_refused_said(observed, State.SUSPENDED, status, (seen.suspend(False),), now)
        return replace(goes, reason=State.PENDING.value, message=f"Job {seen.name} goes on") if goes.actions else goes
    if seen.suspended and seen.at_rest:  # the queue took it back: waiting does not count
        status = accounts.pause(status, seen, now)
    waiting = waiting_of(observed, seen, now)
    if waiting is None:
        state, message = kind.working(status, seen)
        if seen.silent:
            message += f"; {UNREADABLE}"
        again, late = _ends_in(seen, observed, now)
        if late is not None:
            message += (
                f"; pod {late.name} was to end and does not, though node {late.node} is Ready: look at its kubelet"
            )
        return _Decision(state, message, status, look_again_seconds=again)
    inquiries = (waiting.inquiry,) if waiting.inquiry is not None else ()
    last_word = _gave_up(waiting, observed, now) if waiting.state is not None else ""
    if last_word and waiting.elsewhere:
        ending = Ending(Verdict.DISRUPTION, AttemptReason.POD_FAILED, last_word, now)
        status = accounts.close(kind, observed.job, status, ending, seen)
        message = f"the next attempt starts, after: {last_word}"
        retrying = State.RETRYING.value
        return _Decision(retrying, message, status, look_again_seconds=0, inquiries=inquiries, confirm=True)
    if waiting.state is not None and last_word:
        status = _cut_short(kind, observed, status, waiting.state, last_word, now=now)
        return replace(_end(status, waiting.state, last_word), inquiries=inquiries)
    if waiting.state is not None:
        state, message = waiting.state.value, waiting.message
    elif (before := _charged_before(status)) is not None:
        state, message = State.RETRYING.value, f"Job {seen.name} starts, after: {before}"
    else:
        state, message = kind.working(status, replace(seen, progress=None))
    again, missing = waiting.look_again_seconds, waiting.state is State.VOLUME_UNAVAILABLE
    # Nobody else can create it again, for example after a tool that sweeps away what no pod mounts at the moment.
    ours = missing and run_config_name(kind, observed.job) in waiting.message
    aside = (Create(build_run_config_map(kind, observed.job)),) if ours else ()
    return _Decision(state, message, status, look_again_seconds=again, inquiries=inquiries, aside=aside)


def _start(kind: Particulars[J, S], observed: Observed[J], status: S, now: datetime) -> _Decision[S]:
    """No attempt is under way: start the next one, unless something has to pass first."""
    job, settings = observed.job, observed.settings
    last = status.attempts[-1] if status.attempts else None
    if last is not None and (delay := accounts.pause_seconds(status, settings.retry_seconds)) > 0:
        ended = min(parse_time(last.end_time) or now, now)  # by whoever wrote it down; clocks differ
        left = (ended + timedelta(seconds=delay) - now).total_seconds()
        if left > 0:
            message = f"the next attempt starts {delay:g} s after the last; {last.reason}: {last.message}"
            return _Decision(State.RETRYING.value, message, status, look_again_seconds=left)
    if observed.taken is not None:
        taken, left = observed.taken, settings.name_taken_seconds - (now - observed.taken.since).total_seconds()
        if left > 0:
            message = f"{taken.name} of another owner is still there"
            return _Decision(State.PENDING.value, message, status, look_again_seconds=min(2, left))
        goes_on = f"the {kind.noun} goes on by itself"
        message = f"{taken.name} belongs to something else; delete or rename that, and {goes_on}"
        return _Decision(State.NAME_TAKEN.value, message, status, look_again_seconds=10)

    if (other := observed.beside) is not None:
        return _runs_beside(kind, observed, other, status, now)
    if hold := kind.hold(job, status, observed.references):
        succeeded: ConditionStatus = "False" if hold.final else "Unknown"
        return _Decision(hold.reason, hold.message, hold.status, succeeded, confirm=hold.confirm)
    if lack := kind.lacks(job, settings):
        return _Decision(State.PENDING.value, lack, status)
    stage = _next_stage(kind, job, status)
    number = next_number(kind, job, stage, observed.highest_number, observed.names_claimed)
    mirrored, prepared = kind.mirrored(status), kind.prepared(job, status)
    body = build_job(kind, job, settings, stage, number=number, mirrored=mirrored, prepared=prepared)
    actions: tuple[Action, ...] = (Create(body),)
    if kind.pods(job, stage) > 1:
        actions = (*(Create(peer) for peer in build_peers(kind, job, stage)), *actions)
    mounted = run_config_name(kind, job) in {seen.job.config for seen in observed.attempts}
    if not mounted or last is None or last.charged_to is not None:
        actions = (Create(build_run_config_map(kind, job)), *actions)
    return _unless_refused_creation(observed, status, actions, now)


def _runs_beside(
    kind: Particulars[J, S], observed: Observed[J], other: JobView | PodView, status: S, now: datetime
) -> _Decision[S]:
    """Wait for what would do the same work beside the next attempt, and say who can end it.

    The garbage collector is about to, where an object was deleted and created again, or a Job a moment ago.
    """
    job, last = observed.job, status.attempts[-1] if status.attempts else None
    if isinstance(other, PodView):
        message = f"pod {other.name} runs on, though its Job {other.job_name} was deleted"
    else:
        message = f"Job {other.name} says by its labels that it works for this {kind.noun}, and is not known as its own"
    began = parse_time(job.metadata.creation_timestamp if last is None else last.end_time)
    if began is not None and (now - began).total_seconds() < observed.settings.name_taken_seconds:
        return _Decision(State.PENDING.value, message, status, look_again_seconds=2)
    message += f"; nothing is begun beside it. Delete it, or wait for its end, and the {kind.noun} goes on by itself"
    return _Decision(State.NAME_TAKEN.value, message, status, look_again_seconds=10)


def _unless_refused_creation(
    observed: Observed[Any], status: S, actions: tuple[Action, ...], now: datetime
) -> _Decision[S]:
    """Create, or say why that is refused, with the words and the patience of a pod that is."""
    found = observed.refused
    if found is None:
        return _Decision(State.PENDING.value, "", status, actions=actions)
    if found.fault:
        waiting = Waiting(State.PENDING, f"{found.told()}; it is tried again")
    else:
        waiting = refused(found.what, found.words, found.since, observed.settings, now)
    if waiting.state is not None and (last_word := _gave_up(waiting, observed, now)):
        return _end(status, waiting.state, last_word)
    pause = found.pause(now)
    if pause <= 0 or waiting.state is None:
        return _Decision(State.PENDING.value, "", status, actions=actions)
    return _Decision(waiting.state.value, waiting.message, status, look_again_seconds=pause)


def _unless_refused_said(
    observed: Observed[Any], state: State, status: S, actions: tuple[Action, ...], now: datetime
) -> _Decision[S]:
    """Write to a Job, or say in the state of now that this was refused lately."""
    found = observed.refused
    if found is None or (pause := found.pause(now)) <= 0:
        return _Decision(state.value, "", status, actions=actions)
    message = f"the API server refuses the next step, it is tried again: {found.words}"
    return _Decision(state.value, message, status, look_again_seconds=pause)


def _render(
    kind: Particulars[J, S], observed: Observed[J], books: _Books[S], decision: _Decision[S], now: datetime
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


def _next_stage(kind: Particulars[J, S], job: J, status: S) -> Stage:
    """Return the stage of the next attempt: the first whose result is not there, or not there any more."""
    last = status.attempts[-1] if status.attempts else None
    mirrors = Stage.MIRROR in kind.stages_of(job)
    if mirrors and (kind.mirrored(status) is None or (last is not None and last.reason == Reason.MIRROR_MISSING)):
        return Stage.MIRROR
    if Stage.PREPARE in kind.stages and (kind.prepared(job, status) is None or _prepares_again(last)):
        return Stage.PREPARE
    return kind.next_stage(job, status)


def _prepares_again(last: AttemptStatus | None) -> bool:
    """Tell whether the last attempt's end means that preparing has to look again: for the result, or for its data."""
    return last is not None and last.reason in (AttemptReason.RESULT_LOST, Reason.PREPARED_DATA_MISSING)


def _end(status: S, reason: str, message: str) -> _Decision[S]:
    """Fail for good; a later round deletes what still runs."""
    reason = reason.value if isinstance(reason, State) else reason
    return _Decision(reason, message, status, succeeded="False")


def _cut_short(
    kind: Particulars[J, S], observed: Observed[J], status: S, reason: State, message: str, *, now: datetime
) -> S:
    """Return the status with the attempt that is under way closed."""
    attempt = accounts.open_attempt(status)
    seen = observed.attempt(attempt.job_uid) if attempt is not None else None
    return accounts.close(kind, observed.job, status, Ending(Verdict.FINAL, reason.value, message, now), seen)


def _suspended_message(kind: Particulars[J, S], status: S) -> str:
    return f"spec.suspend is true; set it to false and the {kind.noun} goes on{kind.goes_on_from(status)}"


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


def _charged_before(status: WorkStatus) -> str | None:
    """Return why the attempt before this one ended, if this one is a retry."""
    before = status.attempts[-2] if len(status.attempts) > 1 else None
    return f"{before.reason}: {before.message}" if before is not None and before.charged_to is not None else None


def _gave_up(waiting: Waiting, observed: Observed[Any], now: datetime) -> str:
    """Return the last word about what was waited for long enough, or never comes, else ""."""
    if waiting.hopeless:
        return waiting.message
    seconds = observed.settings.pod_start_seconds
    if waiting.since is None or now - waiting.since < timedelta(seconds=seconds):
        return ""
    return f"given up after {seconds:g} s: {waiting.message}"


def _ends_in(seen: Attempt, observed: Observed[Any], now: datetime) -> tuple[float | None, PodView | None]:
    """Return the seconds until a Terminating pod is overdue, or what outlives the trainer has had its time.

    And the pod that is overdue: its node is Ready, which may change.
    """
    if seen.left_alone():
        return max(0.1, seen.lingers(now)), None
    overdue = seen.overdue(observed.settings.node_loss_seconds)
    if overdue is None:
        return None, None
    left = (overdue[1] - now).total_seconds()
    return (max(1.0, left), None) if left > 0 else (patience(-left), overdue[0])


def _look_again_by(decision: _Decision[S], seconds: float | None) -> _Decision[S]:
    if seconds is None or (decision.look_again_seconds is not None and decision.look_again_seconds <= seconds):
        return decision
    return replace(decision, look_again_seconds=max(1.0, seconds))
