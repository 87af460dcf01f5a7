"""The `Succeeded` condition of a FineTuneJob, and the events that follow its reason."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from trimtab_operator.api import SUCCEEDED, Condition, FineTuneJob, State
from trimtab_operator.api.conditions import MESSAGE_LENGTH

from ..plan import Note
from ..views import format_time

EVENT_MESSAGE_LENGTH = 1024

TROUBLE = frozenset(
    {
        State.RETRYING,
        State.QUOTA_EXCEEDED,
        State.NAME_TAKEN,
        State.VOLUME_UNAVAILABLE,
        State.IMAGE_UNAVAILABLE,
        State.CONTAINER_INVALID,
        State.POD_REFUSED,
    }
)

ConditionStatus = Literal["True", "False", "Unknown"]


def succeeded(job: FineTuneJob) -> Condition | None:
    """Return the `Succeeded` condition as it is now."""
    return next((c for c in job.status.conditions if c.type == SUCCEEDED), None)


def is_over(job: FineTuneJob) -> bool:
    """Say whether the job has ended: terminal is terminal, even when the children are gone."""
    condition = succeeded(job)
    return condition is not None and condition.status != "Unknown"


def make_condition(job: FineTuneJob, status: ConditionStatus, reason: str, message: str, now: datetime) -> Condition:
    """Return the new condition; lastTransitionTime moves only with the status."""
    previous = succeeded(job)
    moved = previous is None or previous.status != status
    return Condition(
        type=SUCCEEDED,
        status=status,
        observed_generation=job.metadata.generation,
        last_transition_time=format_time(now) if moved or previous is None else previous.last_transition_time,
        reason=reason,
        message=_cut(message, MESSAGE_LENGTH),
    )


def notes_of(job: FineTuneJob, condition: Condition) -> tuple[Note, ...]:
    """Return the event of a transition: one when the reason changes, none otherwise."""
    previous = succeeded(job)
    if previous is not None and previous.reason == condition.reason:
        return ()
    trouble = condition.status == "False" or condition.reason in {state.value for state in TROUBLE}
    message = _cut(condition.message, EVENT_MESSAGE_LENGTH)
    return (Note("Warning" if trouble else "Normal", condition.reason, message),)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
