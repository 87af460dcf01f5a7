"""`start`: no attempt is under way; the next one begins, unless something has to pass first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from trimtab_trainer.contract import Reason, Stage

from trimtab_operator.api import AttemptReason, AttemptStatus, State

from ...plan import Action, Create
from ...views import JobView, PodView, parse_time
from ..attempts import accounts
from ..attempts.waiting import Waiting, refused
from ..building.job import build_job, build_run_config_map
from ..building.names import next_number, run_config_name
from ..building.peers import build_peers
from ..conditions import ConditionStatus
from ..observed import Observed
from ..particulars import Particulars
from ..subject import J, S
from .decision import Decision, end, gave_up


def start(kind: Particulars[J, S], observed: Observed[J], status: S, now: datetime) -> Decision[S]:
    """No attempt is under way: start the next one, unless something has to pass first."""
    job, settings = observed.job, observed.settings
    last = status.attempts[-1] if status.attempts else None
    if last is not None and (delay := accounts.pause_seconds(status, settings.retry_seconds)) > 0:
        ended = min(parse_time(last.end_time) or now, now)  # by whoever wrote it down; clocks differ
        left = (ended + timedelta(seconds=delay) - now).total_seconds()
        if left > 0:
            message = f"the next attempt starts {delay:g} s after the last; {last.reason}: {last.message}"
            return Decision(State.RETRYING.value, message, status, look_again_seconds=left)
    if observed.taken is not None:
        taken, left = observed.taken, settings.name_taken_seconds - (now - observed.taken.since).total_seconds()
        if left > 0:
            message = f"{taken.name} of {'no' if taken.nobodys else 'another'} owner is still there"
            return Decision(State.PENDING.value, message, status, look_again_seconds=min(2, left))
        goes_on = f"the {kind.noun} goes on by itself"
        message = f"{taken.told()}, and {goes_on}"
        return Decision(State.NAME_TAKEN.value, message, status, look_again_seconds=10)

    if (other := observed.beside) is not None:
        return _runs_beside(kind, observed, other, status, now)
    if hold := kind.hold(job, status, observed.references):
        succeeded: ConditionStatus = "False" if hold.final else "Unknown"
        return Decision(hold.reason, hold.message, hold.status, succeeded, confirm=hold.confirm)
    if lack := kind.lacks(job, settings):
        return Decision(State.PENDING.value, lack, status)
    stage = _next_stage(kind, job, status)
    number = next_number(kind, job, stage, observed.highest_number, observed.names_claimed)
    mirrored, prepared = kind.mirrored(status), kind.prepared(job, status)
    body = build_job(kind, job, settings, stage, number=number, mirrored=mirrored, prepared=prepared)
    actions: tuple[Action, ...] = (Create(body),)
    if kind.pods(job, stage) > 1:
        actions = (*(Create(peer) for peer in build_peers(kind, job, stage)), *actions)
    mounted = {seen.job.config for seen in observed.attempts}
    if last is None or last.charged_to is not None or run_config_name(kind, job) not in mounted:
        actions = (Create(build_run_config_map(kind, job)), *actions)
    return _unless_refused_creation(observed, status, actions, now)


def _runs_beside(
    kind: Particulars[J, S], observed: Observed[J], other: JobView | PodView, status: S, now: datetime
) -> Decision[S]:
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
        return Decision(State.PENDING.value, message, status, look_again_seconds=2)
    message += f"; nothing is begun beside it. Delete it, or wait for its end, and the {kind.noun} goes on by itself"
    return Decision(State.NAME_TAKEN.value, message, status, look_again_seconds=10)


def _unless_refused_creation(
    observed: Observed[Any], status: S, actions: tuple[Action, ...], now: datetime
) -> Decision[S]:
    """Create, or say why that is refused, with the words and the patience of a pod that is."""
    found = observed.refused
    if found is None or found.action is not Create:
        return Decision(State.PENDING.value, "", status, actions=actions)
    if found.fault:
        waiting = Waiting(State.PENDING, f"{found.told()}; it is tried again")
    else:
        waiting = refused(found.what, found.words, found.since, observed.settings, now)
    if waiting.state is not None and (last_word := gave_up(waiting, observed, now)):
        return end(status, waiting.state, last_word)
    pause = found.pause(now)
    if pause <= 0 or waiting.state is None:
        return Decision(State.PENDING.value, "", status, actions=actions)
    return Decision(waiting.state.value, waiting.message, status, look_again_seconds=pause)


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
