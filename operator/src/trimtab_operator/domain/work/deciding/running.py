"""An attempt is under way: `hold` it where the spec suspends it, else `go_on` and say what it does or waits for."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from trimtab_operator.api import NOT_UNDERSTOOD, AttemptReason, State, WorkStatus

from ...plan import Action, Create
from ...views import PodView
from ..attempts import accounts
from ..attempts.attempt import Attempt
from ..attempts.ending import Ending, Verdict
from ..attempts.waiting import Waiting, patience, waiting_of
from ..building.inputs import gives_way
from ..building.job import build_run_config_map
from ..building.names import run_config_name
from ..conditions import condition_of
from ..observed import Observed
from ..particulars import Particulars
from ..subject import J, S
from .decision import Decision, cut_short, end, gave_up

UNREADABLE = (
    "its progress cannot be read, which does it no harm: let the operator's pods in at port 9401 to see how far it is "
    "(a NetworkPolicy may forbid it)"
)


def hold(kind: Particulars[J, S], observed: Observed[J], status: S, seen: Attempt, now: datetime) -> Decision[S]:
    """Suspend: SIGTERM, a checkpoint, and the accelerators are free."""
    if seen.queue is not None:
        # The queue owns `suspend`. The attempt is closed here; a later round deletes its Job, which returns the quota.
        ending = Ending(Verdict.SUSPENDED, AttemptReason.SUSPENDED, "suspended by spec.suspend", now)
        status = accounts.close(kind, observed.job, status, ending, seen)
    elif not seen.suspended and _says_suspended(observed):
        return _unless_refused_said(observed, State.SUSPENDED, status, (seen.suspend(True),), now)
    elif seen.at_rest:
        status = accounts.pause(status, seen, now)
    return Decision(State.SUSPENDED.value, suspended_message(kind, status), status)


def suspended_message(kind: Particulars[J, S], status: S) -> str:
    return f"spec.suspend is true; set it to false and the {kind.noun} goes on{kind.goes_on_from(status)}"


def go_on(kind: Particulars[J, S], observed: Observed[J], status: S, seen: Attempt, now: datetime) -> Decision[S]:
    """An attempt is under way: say what it does, or what it waits for."""
    attempt = accounts.open_attempt(status)
    ran = attempt is not None and (attempt.start_time or attempt.active_seconds) is not None
    if gives_way(kind, observed.job, seen, ran=ran):
        # The attempt is closed in the status first, then a later round deletes its Job.
        message = f"Job {seen.name} had not begun, or was suspended, when the spec changed; the next attempt takes it"
        ending = Ending(Verdict.SUSPENDED, AttemptReason.SPEC_CHANGED, message, now)
        status = accounts.close(kind, observed.job, status, ending, seen)
        return Decision(State.PENDING.value, message, status, look_again_seconds=0, confirm=True)
    if seen.suspended and seen.queue is None and (_says_suspended(observed) or _was_not_understood(observed)):
        # We suspended it, as the status tells, or told before a version led that did not understand it. The state moves
        # on, so whoever suspends it next is somebody else.
        goes = _unless_refused_said(observed, State.SUSPENDED, status, (seen.suspend(False),), now)
        return replace(goes, reason=State.PENDING.value, message=f"Job {seen.name} goes on") if goes.actions else goes
    if seen.suspended and seen.at_rest:  # the queue took it back: waiting does not count
        status = accounts.pause(status, seen, now)
    if (waiting := waiting_of(observed, seen, now)) is not None:
        return _wait(kind, observed, status, seen, waiting=waiting, now=now)
    state, message = kind.working(status, seen)
    if seen.silent:
        message += f"; {UNREADABLE}"
    again, late = _ends_in(seen, observed, now)
    if late is not None:
        message += f"; pod {late.name} was to end and does not, though node {late.node} is Ready: look at its kubelet"
    return Decision(state, message, status, look_again_seconds=again)


def _wait(
    kind: Particulars[J, S], observed: Observed[J], status: S, seen: Attempt, *, waiting: Waiting, now: datetime
) -> Decision[S]:
    """Say what an attempt waits for; what lasts too long, or never comes, ends it, or all of it."""
    inquiries = (waiting.inquiry,) if waiting.inquiry is not None else ()
    last_word = gave_up(waiting, observed, now) if waiting.state is not None else ""
    if last_word and waiting.elsewhere:
        ending = Ending(Verdict.DISRUPTION, AttemptReason.POD_FAILED, last_word, now)
        status = accounts.close(kind, observed.job, status, ending, seen)
        message = f"the next attempt starts, after: {last_word}"
        retrying = State.RETRYING.value
        return Decision(retrying, message, status, look_again_seconds=0, inquiries=inquiries, confirm=True)
    if waiting.state is not None and last_word:
        status = cut_short(kind, observed, status, waiting.state, last_word, now=now)
        return replace(end(status, waiting.state, last_word), inquiries=inquiries)
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
    return Decision(state, message, status, look_again_seconds=again, inquiries=inquiries, aside=aside)


def _says_suspended(observed: Observed[Any]) -> bool:
    """Tell whether the status says that we suspend: it does before we do, so that it tells our doing from others'."""
    said = condition_of(observed.job)
    return said is not None and said.reason == State.SUSPENDED


def _was_not_understood(observed: Observed[Any]) -> bool:
    """Tell whether an operator that did not understand the object has written its word over ours."""
    said = condition_of(observed.job)
    return said is not None and said.reason == NOT_UNDERSTOOD


def _unless_refused_said(
    observed: Observed[Any], state: State, status: S, actions: tuple[Action, ...], now: datetime
) -> Decision[S]:
    """Write to a Job, or say in the state of now that this was refused lately."""
    found = observed.refused
    if found is None or (pause := found.pause(now)) <= 0:
        return Decision(state.value, "", status, actions=actions)
    message = f"the API server refuses the next step, it is tried again: {found.words}"
    return Decision(state.value, message, status, look_again_seconds=pause)


def _charged_before(status: WorkStatus) -> str | None:
    """Return why the attempt before this one ended, if this one is a retry."""
    before = status.attempts[-2] if len(status.attempts) > 1 else None
    return f"{before.reason}: {before.message}" if before is not None and before.charged_to is not None else None


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
